"""A paper's table: cells that are kept, a budget that is held, contrasts that count seeds."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from all_in_one import counting, every_set
from safetensors.torch import save_file

from relume.errors import MissingError, RelumeError, UsageError
from relume.image import Picture, write
from relume.lab.datasets import degraded_pairs
from relume.lab.recipe import load
from relume.lab.reproduce import (
    FULL,
    SYSTEMS,
    Arm,
    Bench,
    Column,
    Job,
    System,
    contrast,
    fill,
    located,
    looking_with,
    table,
)
from relume.lab.reproduce.system import jobs
from relume.lab.reproduce.table import reports
from relume.lab.reproduce.testsets import GOPRO, REALBLUR_J, scene_of
from relume.lab.runs import data_digest, run_recipe
from relume.lab.weights import load as load_weights

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
            Arm("ours", "with regions", GUIDED, needs={"priors.regions.after": "none"}),
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


def test_averages_over_columns_stand_beside_them_where_they_are_parts_of_one_test(
    root, system, tmp_path
):
    pytest.importorskip("skimage")
    (val,) = system.columns
    few = replace(val, name="few", title="few", pairs=lambda r: first_of(val.pairs(r)))
    both = replace(system, arms=system.arms[:2], columns=(val, few), averages=True, seeds=1)
    bench = Bench(both, root, tmp_path)
    assert both.runs == 2
    for _ in both.arms:
        fill(bench, budget=0)
    (whole,), (part,) = (reports(bench, both.arms[0], 1)[c.name] for c in (val, few))
    of = [[row["psnr"] for row in report.rows] for report in (whole, part)]
    assert len(of[0]) == 3 and len(of[1]) == 1
    text = table(bench)
    assert "| mean of columns | mean of pictures |" in text
    assert f"| {np.mean([np.mean(x) for x in of]):.2f} / " in text
    assert f"| {np.mean(of[0] + of[1]):.2f} / " in text
    theirs = [reports(bench, both.arms[1], 1)[c.name][0].rows for c in (val, few)]
    gain = np.mean([row["psnr"] for rows in theirs for row in rows]) - np.mean(of[0] + of[1])
    assert f"- with regions: {gain:+.2f} dB [" in text and "its cost" in text


def first_of(pairs):
    return replace(pairs, items=pairs.items[:1])


def test_a_table_grows_over_several_calls_and_trains_nothing_twice(root, system, tmp_path):
    pytest.importorskip("skimage")
    told: list[str] = []
    bench = Bench(system, root, tmp_path, tell=told.append)
    assert "not trained yet" in table(bench)
    fill(bench, budget=0)  # one run at least
    assert sum("training" in line for line in told) == 1
    fill(bench, budget=0)
    text = table(bench)
    assert sum("training" in line for line in told) == 2
    assert "ours against none on val" in text and "no verdict before 3 seeds" in text
    assert text.count("not trained yet") == 1 and "| without | 1.00 |" in text
    fill(bench, budget=0, rows=["none"])  # done: goes on to what is missing of the row
    (one,) = reports(bench, system.arm("ours"), 1)["val"]
    assert one.data["n"] == 3
    again = Bench(system, root, tmp_path, tell=lambda _: pytest.fail("nothing is left to do"))
    assert reports(again, system.arm("ours"), 1)["val"][0].rows == one.rows


def test_budgets_make_a_curve_and_share_their_cells(root, tmp_path):
    """A quarter of the steps, grown by four, is the very run of the whole."""
    base = str(root / "tiny.toml")
    column = Column("val", "val", lambda r: degraded_pairs(r / "photographs", "noise", seed=1))
    arms = (Arm("none", "without"), Arm("wide", "wider", ("backbone.width=6",)))
    paper = System("c", "C", base, arms, (column,), ("wide", "none", "val"))
    short = Bench(paper, root, tmp_path, changes=["schedule.steps=1"])
    long = Bench(paper, root, tmp_path, changes=["schedule.steps=4"])
    for arm in arms:
        long.do(Job(arm))
        assert short.done(Job(arm, 0, 4)) and not short.done(Job(arm))
    assert "by budget" not in table(short)
    for arm in arms:
        short.do(Job(arm))
    text = table(short)
    assert "wide against none on val, by budget" in text
    assert [line.split("|")[1].strip() for line in text.splitlines() if line.endswith("| 1 |")] == [
        "1",
        "4",
    ]


def test_a_further_seed_is_measured_where_the_contrast_is_named(root, system, tmp_path):
    other = replace(system.columns[0], name="other", title="other")
    wide = replace(system, columns=(*system.columns, other))
    bench = Bench(wide, root, tmp_path)
    none = system.arm("none")
    assert [c.name for c in bench.missing(Job(none, 0))] == ["val", "other"]
    assert [c.name for c in bench.missing(Job(none, 1))] == ["val"]


def test_one_of_several_processes_is_refused(root, system, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="Leave torchrun out"):
        fill(Bench(system, root, tmp_path), budget=0)


def test_a_row_that_is_not_there_is_named(root, system, tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'ours'"):
        fill(Bench(system, root, tmp_path), budget=0, rows=["our"])


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


def test_a_row_that_takes_no_step_measures_the_network_as_it_is(root, tmp_path):
    tiny = load(str(root / "tiny.toml"))
    published = tmp_path / "published.safetensors"
    save_file(tiny.build_model().backbone.state_dict(), published)
    frozen = ("schedule.steps=0", "backbone.frozen=true", f'backbone.weights="{published}"')
    arms = (Arm("frozen", "frozen", frozen, control=True), Arm("none", "trained"))
    column = Column("val", "val", lambda r: degraded_pairs(r / "photographs", "noise", seed=1))
    paper = System("f", "F", str(root / "tiny.toml"), arms, (column,), ("none", "frozen", "val"))
    bench = Bench(paper, root, tmp_path)
    for times in (1, 4):
        assert bench.recipe(Job(arms[0], 0, times)).build_schedule().steps == 0
        assert bench.recipe(Job(arms[1], 0, times)).build_schedule().steps == 2 * times
    bench.do(Job(arms[0]))
    weights = load_weights(bench.run_of(Job(arms[0])) / "model.safetensors").tensors
    wanted = tiny.build_model().state_dict()
    assert all(torch.equal(weights[k], wanted[k].half().float()) for k in wanted)
    text = table(bench)
    assert "2 steps of" in text and "8 steps of" not in text  # what takes none begins no table


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sam-debluur", "--toy"], "Did you mean 'sam-deblur'"),
        (["spt", "--toy", "--rows", "sptt"], "Did you mean 'spt'"),
        (["sam-deblur", "--toy", "--data", "nowhere", "--budget", "0"], "No photographs in"),
        (["sam-deblur", "--data", "nowhere"], "No pictures in nowhere/GoPro/train/*/blur"),
        (["spt", "--toy", "--sam", "x"], "leave --sam out"),
        (["dakd"], "dakd has its toy table alone. Add --toy."),
        (["dakd", "--toy", "--rows", "masks"], "dakd-rain has no row 'masks'"),
        (["dakd", "--toy", "--budget", "0", "--data", "nowhere"], "No photographs in"),
        (["perceive-ir", "--data", "nowhere"], "no list Denoise/denoise.txt below nowhere"),
        (["perceive-ir", "--weights", "clap=x"], "Did you mean 'clip'"),
        (["perceive-ir", "--toy", "--weights", "clip=x"], "takes WORD=PLACE, of the words (none"),
    ],
)
def test_wrong_words_on_the_command_line_are_one_line(relume, tmp_path, words, says):
    code, _, said = relume("reproduce", *words, "--out", tmp_path / "cells", "--quiet")
    assert code == 2
    assert says in said and said.count("\n") == 1


def test_a_start_that_is_not_there_says_what_to_do(root, tmp_path):
    changed = load(str(root / "tiny.toml"), ['start="runs/gone/model.safetensors"'])
    with pytest.raises(UsageError, match="Train what makes it first"):
        run_recipe(changed, tmp_path / "run", root=root)


# The published protocols, on a tree of the same layout with a few small pictures

TINY = (
    "backbone.width=4",
    "backbone.enc_blocks=[1]",
    "backbone.dec_blocks=[1]",
    "schedule.steps=2",
    "schedule.batch=2",
    "schedule.crop=32",
    "schedule.last_batch=2",
)


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> Path:
    """GoPro as distributed, RealBlur-J with its authors' list, REDS as SAM-Deblur's authors have
    it; no ReLoBlur."""
    root = tmp_path_factory.mktemp("sets")
    rng = np.random.default_rng(0)

    def pair(lq: str, gt: str) -> None:
        rgb = np.kron(rng.random((1, 3, 8, 8), np.float32), np.ones((12, 12), np.float32))
        soft = (rgb + np.roll(rgb, 3, 3)) / 2
        for name, picture in ((lq, soft), (gt, rgb)):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            write(Picture.from_rgb(picture), root / name)

    for scene in ("GOPR0372", "GOPR0374"):
        for frame in ("000047", "000048"):
            pair(f"GoPro/train/{scene}/blur/{frame}.png", f"GoPro/train/{scene}/sharp/{frame}.png")
        pair(f"GoPro/test/{scene}/blur/000001.png", f"GoPro/test/{scene}/sharp/000001.png")
        pair(f"REDS/val/input/{scene}-0001.png", f"REDS/val/target/{scene}-0001.png")
    lines = []
    for scene in ("scene005", "scene007", "scene009"):
        lq, gt = (f"RealBlur-J_ECC/{scene}/{kind}/{kind}_1.png" for kind in ("blur", "gt"))
        pair(f"RealBlur/{lq}", f"RealBlur/{gt}")
        lines.append(f"{gt} {lq}\n")
    (root / "RealBlur/RealBlur_J_test_list.txt").write_text("".join(lines[:2]))
    return root


class Beside:
    """In the place of the loader's process: batches are the same, and made here."""

    def __init__(self, build, arguments, following) -> None:
        self.source = build(*arguments)

    def __call__(self, *ask):
        return self.source(*ask)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass


def weights_of_sam(folder: Path) -> tuple[str, ...]:
    """Overrides that look with a tiny SAM of random weights, which keeps every mask it draws."""
    pytest.importorskip("transformers")
    from test_sam import tiny

    tiny("sam", seed=3).save_pretrained(folder)
    kept = {"grid": 2, "predicted_iou": -9.0, "stability": 0.0, "overlap": 2.0}
    return (
        *looking_with(str(folder)),
        *(f"priors.regions.{key}={value}" for key, value in kept.items()),
    )


def test_the_published_table_of_sam_deblur_on_small_pictures(sets, tmp_path, monkeypatch):
    monkeypatch.setattr("relume.lab.runs.Loader", Beside)
    told: list[str] = []
    (paper,) = FULL["sam-deblur"]
    prior = weights_of_sam(tmp_path / "sam")
    bench = Bench(paper, sets, tmp_path, changes=TINY, prior=prior, tell=told.append)
    rows = ("none", "ours", "blurred")
    bench.check([paper.arm(row) for row in rows])
    for row in rows:
        bench.do(Job(paper.arm(row)))
        assert bench.done(Job(paper.arm(row)))
    assert [line.split(",")[0] for line in told if "training" in line] == [
        "training none",
        "training ours",
    ]
    found = {row: reports(bench, paper.arm(row), 1) for row in rows}
    for row in rows:
        counts = {name: len(cells[0].rows) for name, cells in found[row].items() if cells}
        assert counts == {"gopro": 2, "realblurj": 2, "reds": 2}
    # The same weights, told of other regions.
    ours, blurred = (found[row]["gopro"][0] for row in ("ours", "blurred"))
    assert ours.model["sha256"] == blurred.model["sha256"]
    assert ours.rows != blurred.rows
    text = table(bench, rows)
    (line,) = [line for line in text.splitlines() if line.startswith("| w/o SAM |")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[3].endswith("; paper 25.97/.844/3.80%") and " of 2 " in cells[3]
    assert cells[4].startswith(f"no ReLoBlur below {sets}: expected ReLoBlur/test/*/*/*_blur.png")
    assert "ours against none on reds" in text and "no verdict before 3 seeds" in text
    assert 'What the rows look at: priors.regions.kind="sam"' in text
    assert not any(line.startswith("The paper's own table") for line in text.splitlines())
    again = Bench(paper, sets, tmp_path, changes=TINY, prior=prior)
    assert all(again.done(Job(paper.arm(row))) for row in rows)


def test_what_stands_in_the_way_is_said_before_the_first_step(sets, tmp_path):
    (paper,) = FULL["sam-deblur"]
    with pytest.raises(UsageError, match=r"No pictures in .*GoPro/train/\*/blur") as caught:
        fill(Bench(paper, tmp_path, tmp_path), budget=0)
    assert "\n" not in str(caught.value)
    with pytest.raises(MissingError, match="--sam FOLDER or HUB_ID"):
        fill(Bench(paper, sets, tmp_path), budget=0)
    with pytest.raises(MissingError, match="no such folder"):
        fill(Bench(paper, sets, tmp_path, prior=looking_with(str(tmp_path / "gone"))), budget=0)


def test_a_folder_is_one_however_it_is_typed(tmp_path, monkeypatch):
    (tmp_path / "sam").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    full = looking_with(str(tmp_path / "sam"))
    assert looking_with("sam") == looking_with("./sam/") == looking_with("~/sam") == full
    assert 'priors.regions.source="facebook/sam-vit-base"' in looking_with("facebook/sam-vit-base")


def test_the_rows_of_sam_deblur_have_the_published_number_of_weights(tmp_path):
    (paper,) = FULL["sam-deblur"]
    bench = Bench(paper, tmp_path, tmp_path)
    plain = 17_111_907
    for arm, more in (("none", 0), ("cat", 288), ("map", 638), ("ours", 638)):
        model = bench.recipe(Job(paper.arm(arm))).build_model()
        assert sum(p.numel() for p in model.parameters()) == plain + more
    schedule = bench.recipe(Job(paper.arm("ours"))).build_schedule()
    assert (schedule.lr_at(0), schedule.lr_at(200_000)) == (1e-3, 1e-7)
    assert schedule.samples_at(199_999) == (199_999 * 32, 32, 256)


@pytest.mark.parametrize("name", sorted(FULL))
def test_every_row_at_full_scale_is_a_run_of_its_own(name, tmp_path):
    for paper in FULL[name]:
        bench = Bench(paper, tmp_path, tmp_path)
        runs = {(bench.digest(Job(arm)), arm.at_test) for arm in paper.arms}
        assert len(runs) == len(paper.arms)
        arm, control, column = paper.contrast
        assert paper.arm(arm) and paper.arm(control)
        assert column in [c.name for c in paper.columns]
        assert all(bench.absent(c).startswith(("no ", "No ")) for c in paper.columns)
        said = [bench.recipe(Job(one)) for one in paper.arms]
        assert all(recipe.data.lq or recipe.data.tasks for recipe in said)


def test_a_digest_of_pairs_covers_both_halves_and_the_scene(sets):
    recipe = load("sam-deblur")
    before = data_digest(recipe, sets)
    for half in ("blur", "sharp"):
        path = sets / f"GoPro/train/GOPR0374/{half}/000048.png"
        kept = path.read_bytes()
        write(Picture.from_rgb(np.full((1, 3, 96, 96), 0.5, np.float32)), sets / "other.png")
        path.write_bytes((sets / "other.png").read_bytes())
        assert data_digest(recipe, sets) != before
        path.write_bytes(kept)
    assert data_digest(recipe, sets) == before
    scene = sets / "GoPro/train/GOPR0374"
    moved = scene.rename(scene.with_name("GOPR0375"))
    assert data_digest(recipe, sets) != before
    moved.rename(scene)


def test_frames_of_one_scene_are_one_sample(sets):
    assert {pair.photograph for pair in GOPRO.pairs(sets).items} == {"GOPR0372", "GOPR0374"}
    real = REALBLUR_J.pairs(sets)
    assert [pair.photograph for pair in real.items] == [
        "RealBlur-J_ECC/scene005/blur",
        "RealBlur-J_ECC/scene007/blur",
    ]
    assert [scene_of(n) for n in ("GOPR0384_11_00-000001", "0001", "a")] == [
        "GOPR0384_11_00",
        "0001",
        "a",
    ]


def test_a_set_that_is_not_whole_says_so_in_its_cells(sets):
    path = sets / "RealBlur/RealBlur_J_test_list.txt"
    kept = path.read_text()
    path.write_text(kept + "RealBlur-J_ECC/x/gt/gt_1.png RealBlur-J_ECC/x/blur/blur_1.png\n")
    assert "of which 2 files are not there" in REALBLUR_J.absent(sets)
    path.write_text(kept)
    assert REALBLUR_J.absent(sets) == ""
    extra = sets / "GoPro/test/GOPR0372/blur/000002.png"
    extra.write_bytes((extra.parent / "000001.png").read_bytes())
    assert "no partner: GoPro/test/*/blur (GOPR0372/000002)" in GOPRO.absent(sets)
    extra.unlink()


# Perceive-IR at full scale, on every set of the protocol with a few small pictures

OTHERS = ("dino", "clip", "vgg")
SMALL = (
    "schedule.steps=2", "backbone.width=8", "backbone.enc_blocks=[1,1,1]",
    "backbone.dec_blocks=[1,1,1]", "backbone.middle_blocks=1", "backbone.refinement=1",
    "validation.crop=16", "validation.photographs=1", 'schedule.precision="float32"',
)  # fmt: skip
SMALL_CROPS = ("schedule.crop=16", "schedule.batch=3")


@pytest.fixture
def everything(tmp_path, monkeypatch) -> Path:
    every_set(tmp_path / "data", 4, (24, 24), far=3, films="ABFB")
    counting(monkeypatch, 4)
    monkeypatch.setattr("relume.lab.runs.Loader", Beside)
    return tmp_path / "data"


def placed(words=OTHERS) -> dict[str, str]:
    where = {"dino": tiny.dino_folder, "clip": tiny.clip_folder, "vgg": tiny.vgg_file}
    return {word: str(where[word]()) for word in words}


def shrunk(paper: System) -> System:
    """The arms say their own crops: these do not follow --set."""

    def small(arm: Arm) -> Arm:
        return replace(arm, changes=(*arm.changes, *SMALL_CROPS))

    return replace(
        paper,
        arms=tuple(map(small, paper.arms)),
        trained_first=tuple(map(small, paper.trained_first)),
        columns=tuple(c for c in paper.columns if c.name in ("haze", "noise25")),
    )


def test_perceive_ir_at_full_scale_on_small_pictures(everything, tmp_path):
    pytest.importorskip("transformers")
    (paper, *_) = FULL["perceive-ir"]
    told: list[str] = []
    bench = Bench(
        shrunk(paper), everything, tmp_path, changes=SMALL, weights=placed(), tell=told.append
    )
    rows = ("l1", "all", "shuffled", "ours")
    bench.check([bench.system.arm(row) for row in rows])
    first = next(jobs(bench.system, rows))
    assert first == bench.system.judging and next(jobs(bench.system, ["l1"])).arm.name == "l1"
    bench.do(first)
    assert bench.done(first)
    for row in rows:
        bench.do(Job(bench.system.arm(row)))
    assert [line.split(",")[0] for line in told if "training" in line] == [
        "training medium-0", "training medium-1", "training judge", "training l1",
        "training prompts", "training all", "training shuffled", "training ours",
    ]  # fmt: skip
    found = {row: reports(bench, bench.system.arm(row), 1) for row in rows}
    assert all(len(cells["haze"][0].rows) == 4 for cells in found.values())
    # Each is a network of its own, and the losses were there.
    assert len({cells["haze"][0].model["sha256"] for cells in found.values()}) == len(rows)
    for row in ("all", "ours"):
        log = (bench.run_of(Job(bench.system.arm(row))) / "log.jsonl").read_text()
        figures = [json.loads(line) for line in log.splitlines()]
        last = next(line for line in reversed(figures) if "loss" in line)
        assert {"contrastive", "tier", "perceptual", "open"} <= {*last}
        assert last["open"] > 0 and last["tier"] > 0 and np.isfinite(last["loss"])
        (watched,) = [line["validation"] for line in figures if "validation" in line]
        assert {"noise 25", "rain", "haze"} <= {*watched}
    text = table(bench, rows)
    line, *_ = [line for line in text.splitlines() if line.startswith("| L1 + contrastive + tier")]
    assert "; paper 30.87/.975" in line and "; paper 31.53/.890" in line
    assert "Weights of others: dino=" in text
    assert "all against l1 on haze" in text and "no verdict before 3 seeds" in text
    # The judge is a perceiver of its own: other weights, other seed, other pictures.
    judge = bench.judge
    assert judge is not None and judge.card.recipe["seed"] == 1
    assert f"Judge: other prompts ({judge.card.digest[:8]}), seed 1, " in text
    assert "learnt from all but fold 0/2 of its photographs" in text
    (asked,) = re.findall(r"The losses asked prompts \((\w{8})\)\.$", text, re.M)
    assert asked != judge.card.digest[:8]
    assert all(0 < row["tier_score"] < 1 for row in found["all"]["haze"][0].rows)
    assert re.search(
        r"^- all, the losses in our forms: \S+ \[.*\]: ", text[text.index("By the judge") :], re.M
    )


@pytest.mark.parametrize("paper", FULL["perceive-ir"], ids=lambda p: p.name)
def test_every_network_of_perceive_ir_at_full_scale_is_what_it_is_called(paper, tmp_path):
    pytest.importorskip("transformers")
    bench = Bench(paper, tmp_path, tmp_path, weights=placed())
    number = 5 if "-5-" in paper.name else 3
    one = bench.recipe(Job(paper.arm("l1")))
    plain, told = (bench.recipe(Job(paper.arm(row))).backbone for row in ("plain", "l1"))
    assert plain == told and plain.kind == ("restormer" if "restormer" in paper.name else "nafnet")
    assert one.data.tasks == number
    schedule = one.build_schedule()
    assert (schedule.steps, schedule.batch, schedule.crop) == (
        500_000,
        8 if number == 3 else 4,
        256,
    )
    assert (schedule.lr_at(0), schedule.lr_at(500_000)) == (2e-4, 1e-6) and schedule.best
    steps = {arm.name: bench.recipe(Job(arm)).build_schedule().steps for arm in paper.trained_first}
    assert steps == {"medium-0": 20_000, "medium-1": 20_000, "prompts": 100_000, "judge": 100_000}
    assert paper.weights == ("clip", "dino", "vgg")
    objective = bench.recipe(Job(paper.arm("all"))).objective.model_extra
    assert [objective[key] for key in ("contrastive", "tier", "perceptual")] == [0.1, 0.05, 0.1]
    assert objective["perceiver"] and all(objective["proxies"][0]["folds"].values())


def test_restormer_with_its_parts_has_so_many_weights(tmp_path):
    pytest.importorskip("transformers")
    (paper, *_) = FULL["perceive-ir"]
    bench = Bench(paper, tmp_path, tmp_path, weights=placed())
    counted = {}
    for row in ("plain", "l1"):
        model = bench.recipe(Job(paper.arm(row))).build_model()
        counted[row] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert counted["plain"] == 26_126_644  # of the paper's repository, without biases: 26.13 M
    assert 0.05 < counted["l1"] / counted["plain"] - 1 < 0.5


def test_what_perceive_ir_lacks_is_one_line_before_the_first_step(everything, tmp_path):
    pytest.importorskip("transformers")
    (paper, *_) = FULL["perceive-ir"]

    def said(rows, weights, root=everything):
        bench = Bench(paper, root, tmp_path / "out", changes=SMALL, weights=weights)
        with pytest.raises(RelumeError) as caught:
            fill(bench, budget=0, rows=rows)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    gone = {word: str(tmp_path / "gone") for word in OTHERS}
    assert "no list Denoise/denoise.txt below" in said(["plain"], {}, tmp_path / "gone")
    assert "weights of DINOv2 cannot be loaded from" in said(["l1"], gone)
    assert "no CLIP at" in said(["tier"], {**placed(("dino",)), "clip": gone["clip"]})
    assert "--weights vgg=FILE" in said(["dpl"], placed(("dino", "clip")))
    assert "is not here: weights of VGG-16" in said(["dpl"], {**placed(), "vgg": gone["vgg"]})
    # The first stage has five tasks, the backbone alone three.
    for path in (everything / "LOL").rglob("*.png"):
        path.unlink()
    assert "no LOL-v1 below" in said(["tier"], placed())
    bench = Bench(shrunk(paper), everything, tmp_path / "out", changes=SMALL)
    bench.check([paper.arm("plain")])


def test_weights_are_named_by_their_words(tmp_path, monkeypatch):
    (paper, *_) = FULL["perceive-ir"]
    (tmp_path / "d").mkdir()
    monkeypatch.chdir(tmp_path)
    assert located([paper], ["dino=d", "clip=some/id"]) == {
        "dino": str(tmp_path / "d"),
        "clip": "some/id",
    }
    for wrong in ("dinno=d", "dino", "dino="):
        with pytest.raises(UsageError, match="takes WORD=PLACE"):
            located([paper], [wrong])
