"""A paper's table: cells that are kept, a budget that is held, contrasts that count seeds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from relume.errors import UsageError
from relume.image import Picture, write
from relume.lab.evaluate import degraded_pairs
from relume.lab.recipe import load
from relume.lab.reproduce import SYSTEMS, Arm, Bench, Column, Job, System, contrast, run, table
from relume.lab.reproduce.table import jobs, reports

BASE = """
name = "tiny"
[data]
photographs = "photographs"
validation = "photographs"
counts = [0.0, 1.0]
sizes = 1
fixed = 1
[data.damage]
"noise:sigma=25" = 1.0
[backbone]
kind = "nafnet"
width = 4
enc_blocks = [1]
middle_blocks = 1
dec_blocks = [1]
[objective]
kind = "restoration"
[schedule]
steps = 2
batch = 2
crop = 32
precision = "float32"
save_every = 2
"""
GUIDED = ('encoders.means.kind="region_means"', 'adapters=[{kind="map", reads="means"}]')


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "photographs").mkdir()
    (folder / "tiny.toml").write_text(BASE)
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        rgb = np.kron(rng.random((1, 3, 8, 8), np.float32), np.ones((12, 12), np.float32))
        write(Picture.from_rgb(rgb), folder / "photographs" / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def system(root) -> System:
    return System(
        name="tiny",
        title="Tiny",
        base=str(root / "tiny.toml"),
        arms=(
            Arm("none", "without", paper={"Theirs": "1.00"}),
            Arm("ours", "with regions", GUIDED, after="none"),
            Arm(
                "shuffled", "shuffled", (*GUIDED, 'priors.regions.control="shuffled"'), control=True
            ),
        ),
        columns=(
            Column(
                "val", "val", lambda r: degraded_pairs(r / "photographs", "noise:sigma=25", seed=1)
            ),
        ),
        contrast=("ours", "none", "val"),
        columns_of_paper=("Theirs",),
    )


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_every_arm_of_every_system_is_a_recipe_that_builds(name, tmp_path):
    for paper in SYSTEMS[name]:
        bench = Bench(paper, tmp_path, tmp_path)
        digests = set()
        for arm in paper.arms:
            recipe = bench.recipe(Job(arm))
            model = recipe.build_model()
            small = (
                paper.name.startswith("spt")
                or sum(p.numel() for p in model.parameters()) <= 400_000
            )
            assert small
            digests.add(recipe.digest)
        assert len(digests) == len(paper.arms)  # no two rows are the same run
        arm, control, column = paper.contrast
        assert paper.arm(arm) and paper.arm(control)
        assert column in [c.name for c in paper.columns]


def test_spt_units_are_a_small_part_of_their_backbones(tmp_path):
    for paper in SYSTEMS["spt"]:
        model = Bench(paper, tmp_path, tmp_path).recipe(Job(paper.arm("spt"))).build_model()
        learns = sum(p.numel() for p in model.parameters() if p.requires_grad)
        frozen = sum(p.numel() for p in model.backbone.parameters())
        assert learns <= 0.15 * frozen
        assert not any(p.requires_grad for p in model.backbone.parameters())


def test_the_most_wanted_runs_come_first(system):
    first = [next(queue) for queue in [jobs(system)] for _ in range(10)]
    said = [(job.arm.name, job.seed, job.times) for job in first]
    assert said[:3] == [("none", 0, 1), ("ours", 0, 1), ("shuffled", 0, 1)]
    assert sorted(said[3:7]) == [("none", 1, 1), ("none", 2, 1), ("ours", 1, 1), ("ours", 2, 1)]
    assert said[7] == ("none", 0, 4)


def test_a_table_grows_over_several_calls_and_trains_nothing_twice(root, system, tmp_path):
    pytest.importorskip("skimage")
    told: list[str] = []
    bench = Bench(system, root, tmp_path, tell=told.append)
    assert "not trained yet" in table(bench)
    run(bench, budget=0)  # one run at least
    assert sum("training" in line for line in told) == 1
    text = run(bench, budget=0)
    assert sum("training" in line for line in told) == 2
    assert "ours against none on val" in text and "1 seeds" in text
    assert text.count("not trained yet") == 1 and "| without | 1.00 |" in text
    run(bench, budget=0, rows=["none"])  # done: goes on to what is missing of the row
    (one,) = reports(bench, system.arm("ours"), 1)["val"]
    assert one.data["n"] == 3
    again = Bench(system, root, tmp_path, tell=lambda _: pytest.fail("nothing is left to do"))
    assert reports(again, system.arm("ours"), 1)["val"][0].rows == one.rows


def test_a_row_that_is_not_there_is_named(root, system, tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'ours'"):
        run(Bench(system, root, tmp_path), budget=0, rows=["our"])


def test_a_contrast_counts_photographs_and_seeds(root):
    pairs = degraded_pairs(root / "photographs", "noise:sigma=25", seed=1)
    from relume.lab.evaluate import evaluate

    report = evaluate(lambda lq: lq, pairs)

    def shifted(by: float):
        return replace(report, rows=[{**r, "psnr": r["psnr"] + by} for r in report.rows])

    alone = contrast([shifted(0.5)], [report])
    assert alone["mean"] == pytest.approx(0.5) and alone["seeds"] == 1
    three = contrast([shifted(d) for d in (0.1, 0.5, 0.9)], [report] * 3)
    assert three["mean"] == pytest.approx(0.5)
    low, high = three["ci95"]
    assert low < 0.3 and high > 0.7  # three seeds that disagree make a wide interval
    assert three["detectable"] > 0.2


def test_toy_recipes_look_at_whole_photographs():
    assert load("sam-deblur-toy").data.fixed >= 1
