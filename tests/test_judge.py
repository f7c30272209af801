"""Who served as a loss is never the judge: another perceiver is, where it is here."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_reproduce import BASE, Beside

from relume.errors import UsageError
from relume.image import Picture, write
from relume.lab import recipe as recipes
from relume.lab.datasets import degraded_pairs
from relume.lab.evaluate import evaluate
from relume.lab.metrics import as_uint8
from relume.lab.recipe import load
from relume.lab.reproduce import SYSTEMS, Arm, Bench, Column, Job, System, fill, table
from relume.lab.reproduce.judge import Judge, crops
from relume.lab.reproduce.table import reports
from relume.lab.runs import save_finished
from relume.priors.quality import QualityPrior, judged

PERCEIVER = """
name = "tiny-perceiver"
[data]
photographs = "photographs"
without = "0/2"
[data.damage]
"noise:sigma=20..50" = 1.0
[backbone]
kind = "perceiver"
width = 4
fold = 2
enc_blocks = [1]
middle_blocks = 1
dec_blocks = [1]
dim = 8
[objective]
kind = "tiers"
[schedule]
steps = 0
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "photographs").mkdir()
    (folder / "tiny.toml").write_text(BASE)
    (folder / "perceiver.toml").write_text(PERCEIVER)
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        rgb = np.kron(rng.random((1, 3, 8, 8), np.float32), np.ones((12, 12), np.float32))
        write(Picture.from_rgb(rgb), folder / "photographs" / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def perceivers(root, tmp_path_factory) -> tuple[Path, Path]:
    """Weights of two quality models that tell pictures apart."""
    found = []
    for seed in (5, 31):
        made = load(root / "perceiver.toml", [f"seed={seed}"])
        network = made.build_model().eval()
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            for parameter in network.parameters():
                parameter += 0.3 * torch.randn(parameter.shape)
        found.append(save_finished(made, network, tmp_path_factory.mktemp(f"perceiver{seed}")))
    return found[0], found[1]


def paper(root: Path, loss: Path | str, judge: str) -> System:
    learns = (
        'objective={kind="perception", loss="l1", contrastive=0.0, perceptual=0.0, tier=0.05, '
        f'perceiver="{loss}"}}'
    )
    return System(
        name="tiny",
        title="Tiny",
        base=str(root / "tiny.toml"),
        arms=(
            Arm("l1", "plain L1"),
            Arm("tier", "L1 + tier", (learns,)),
            Arm("null", "told nothing", (learns, "schedule.lr=1e-4"), control=True),
        ),
        columns=tuple(
            Column(
                f"noise{sigma}",
                f"noise{sigma}",
                lambda r, s=sigma: degraded_pairs(r / "photographs", f"noise:sigma={s}", seed=1),
            )
            for sigma in (10, 50)
        ),
        contrast=("tier", "l1", "noise10"),
        averages=True,
        seeds=1,
        judge=judge,
    )


def filled(bench: Bench, monkeypatch) -> Bench:
    monkeypatch.setattr("relume.lab.runs.Loader", Beside)
    for _ in bench.system.arms:
        fill(bench, budget=0)
    return bench


def test_another_perceiver_judges_what_the_first_taught(root, perceivers, tmp_path, monkeypatch):
    loss, other = perceivers
    system = paper(root, loss, str(other))
    told: list[str] = []
    # As long as the judge is not there everything else goes on.
    gone = replace(system, judge="relume-nobody")
    bench = filled(Bench(gone, root, tmp_path, tell=told.append), monkeypatch)
    text = table(bench)
    assert "No judge: relume-nobody is not in this installation." in text.splitlines()
    assert "| judge |" not in text and "not trained yet" not in text
    assert "tier_score" not in reports(bench, system.arms[0], 1)["noise10"][0].rows[0]
    before = sum("training" in line for line in told)

    bench = filled(Bench(system, root, tmp_path, tell=told.append), monkeypatch)
    # What was trained is measured anew, not trained.
    assert before == len(system.arms) == sum("training" in line for line in told)
    cells = {arm.name: reports(bench, arm, 1) for arm in system.arms}
    digest = Judge(other).card.digest[:8]
    whole = {name: [r for c in found.values() for r in c] for name, found in cells.items()}
    assert {r.protocol.judge for of in whole.values() for r in of} == {f"tiny-perceiver ({digest})"}

    rows = {name: [row for r in of for row in r.rows] for name, of in whole.items()}
    prior = QualityPrior(other)
    pairs = degraded_pairs(root / "photographs", "noise:sigma=10", seed=1)
    for row, pair in zip(rows["l1"], pairs.items, strict=False):
        for of, rgb in (("_gt", pair.load().gt), ("_input", pair.load().lq)):
            wanted = judged(prior(as_uint8(rgb).float().numpy())).score
            assert row[f"tier_score{of}"] == pytest.approx(wanted, abs=1e-6)
    assert len({row["tier_score"] for of in rows.values() for row in of}) > 9  # of 18

    text = table(bench)
    line = next(line for line in text.splitlines() if line.startswith("| L1 + tier"))
    mean = {n: np.mean([row["tier_score"] for row in of]) for n, of in rows.items()}
    at = [c.strip() for c in text.splitlines()[4].split("|")].index("judge")
    assert line.split("|")[at].strip().startswith(f"{mean['tier']:.3f} [")
    clean = np.mean([row["tier_score_gt"] for row in rows["l1"]])
    range_said = rf"^The judge's score, .*, is \S+ \[.*\] of what came in and {clean:.3f} \["
    assert re.search(range_said, text, re.M)
    said = text[text.index("By the judge, against plain L1") :]
    (line,) = re.findall(r"^- .* shown$|^- .*: better$|^- .*: worse$", said, re.M)
    assert line.startswith(f"- L1 + tier: {mean['tier'] - mean['l1']:+.3f} [")
    assert (
        f"Judge: tiny-perceiver ({digest}), seed 31, learnt from all but fold 0/2 of its "
        "photographs. It never served as a loss." in text
    )
    assert f"The losses asked {loss} (" in text


def test_a_cell_is_kept_under_its_judge(root, perceivers, tmp_path):
    loss, other = perceivers

    def kept(judge: str) -> str:
        bench = Bench(paper(root, loss, judge), root, tmp_path)
        return bench.cell(Job(bench.system.arms[0]), bench.system.columns[0]).stem

    bench = Bench(paper(root, loss, ""), root, tmp_path)
    column = bench.system.columns[0]
    key = f"{bench.digest(Job(bench.system.arms[0]))}\0noise10\0noise10\0{column.protocol}"
    # What was measured before there were judges is found.
    assert kept("") == kept("relume-nobody") == hashlib.sha256(key.encode()).hexdigest()[:24]
    assert len({kept(""), kept(str(loss)), kept(str(other))}) == 3


@pytest.mark.parametrize("itself", ["a file", "relume-quality"])
def test_who_served_as_a_loss_is_refused(root, perceivers, tmp_path, itself):
    # By the digest: of the shipped one weights are the loss, and the graph would judge.
    loss = str(perceivers[0]) if itself == "a file" else itself
    bench = Bench(paper(root, loss, loss), root, tmp_path)
    with pytest.raises(UsageError, match="would judge its own pupil") as caught:
        fill(bench, budget=0)
    assert "\n" not in str(caught.value) and not (tmp_path / "runs").exists()
    with pytest.raises(UsageError, match="would judge its own pupil"):
        bench.check([bench.system.arm("l1")])  # which asks nobody, but stands in that table
    with pytest.raises(UsageError, match="does not say how good a picture is"):
        Judge("identity")


def test_a_graph_judges_as_the_prior_does(photo):
    judge = Judge("relume-quality")
    assert judge(photo) == judged(QualityPrior()(photo)).score != judge(photo[..., ::2, ::2])


def test_the_judge_of_the_toy_is_of_another_seed_and_fold():
    mine, theirs = load("relume-judge"), load("relume-quality")
    assert mine.seed != theirs.seed and mine.data.without != theirs.data.without
    assert "relume-quality" not in mine.start
    assert {system.judge for system in SYSTEMS["perceive-ir"]} == {mine.name}
    assert mine.name in recipes.shipped()


def test_a_judge_sees_the_file_and_all_of_it(root):
    seen: list[np.ndarray] = []

    def judge(rgb: np.ndarray) -> float:
        seen.append(rgb)
        return 0.25

    pairs = degraded_pairs(root / "photographs", "noise:sigma=25", seed=1)
    report = evaluate(lambda lq: lq * 1.5 - 0.2, pairs, judge=judge)
    levels = np.stack([rgb * 255 for rgb in seen])
    assert np.allclose(levels, levels.round(), atol=1e-3) and levels.min() >= 0
    assert levels.max() <= 255.001 and levels.shape == (9, 1, 3, 96, 96)
    assert [row["tier_score"] for row in report.rows] == [0.25] * 3
    assert json.dumps(report.to_json())

    rng = np.random.default_rng(0)
    for height, width, count in ((40, 70, 6), (32, 32, 1), (20, 50, 2)):
        rgb = rng.random((1, 3, height, width), np.float32)
        found = crops(rgb, 32)
        assert found.shape == (count, 3, 32, 32)
        assert set(rgb.ravel()) == set(found.ravel())
