"""DAKD's tables: a grid and its controls, masks by networks that never saw the photograph."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from test_reproduce import Beside

from relume.errors import UsageError
from relume.image import Picture, write
from relume.lab.data import DAMAGE
from relume.lab.folds import fold_of
from relume.lab.reproduce import SYSTEMS, Bench, Job, System, table
from relume.lab.reproduce.table import reports
from relume.lab.runs import training_files
from relume.lab.weights import load as load_weights

TINY = (
    "backbone.width=4",
    "schedule.steps=2",
    "schedule.batch=2",
    "schedule.crop=32",
    "schedule.precision=float32",
    "data.fixed=1",
)


def paper(name: str) -> System:
    return next(p for p in SYSTEMS["dakd"] if p.name == f"dakd-{name}")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name in (
        "train/hill",
        "train/hill_d1",
        "train/lake",
        "train/gate",
        "train/fern",
        "val/d",
        "val/e",
        "val/f",
    ):
        rgb = np.kron(rng.random((1, 3, 8, 8), np.float32), np.ones((14, 14), np.float32))
        path = folder / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(Picture.from_rgb(rgb), path)
    assert {fold_of(name, 2) for name in ("hill", "lake", "gate", "fern")} == {0, 1}
    return folder


@pytest.fixture
def bench(root, tmp_path, monkeypatch):
    monkeypatch.setattr("relume.lab.runs.Loader", Beside)
    return lambda name, **more: Bench(paper(name), root, tmp_path, changes=TINY, **more)


@pytest.mark.parametrize("name", ["rain", "raindrop", "haze", "blur"])
def test_every_arm_is_small_and_starts_as_the_first_row(name, tmp_path):
    bench = Bench(paper(name), tmp_path, tmp_path)
    first = bench.recipe(Job(bench.system.arm("base"))).build_model().state_dict()
    for arm in bench.system.arms:
        recipe = bench.recipe(Job(arm))
        model = recipe.build_model()
        assert sum(p.numel() for p in model.parameters()) <= 400_000
        assert recipe.backbone.model_dump()["attention"] == "none"
        assert (model.support == "global") == any("context" in c for c in arm.changes)
        # What is added starts at nothing beside the same network.
        assert all(model.state_dict()[k].equal(v) for k, v in first.items())
        assert ("damage" in [r.prior for r in model.reads]) == ("priors.damage.model" in arm.needs)
        assert (recipe.objective.kind == "distillation") == ("objective.teacher" in arm.needs)
    for arm in bench.system.trained_first:
        sites = bench.recipe(Job(arm)).build_model().backbone.sites
        ours = bench.recipe(Job(bench.system.arms[0])).build_model().backbone.sites
        assert sites == {k: v for k, v in ours.items() if k != "input"}  # levels pair


def test_the_runs_of_the_first_tables_are_as_many_as_the_recipe_says():
    assert sum(p.runs for p in SYSTEMS["dakd"]) == 64
    assert sum(len(p.arms) + len(p.trained_first) for p in SYSTEMS["dakd"]) == 48


def test_masks_in_training_are_another_fold_s(bench):
    rain = bench("rain")
    job = Job(rain.system.arm("mask"))
    for before in job.needs(rain.system).values():
        rain.train(before)
    folds = [
        Job(arm) for i in range(2) for arm in rain.system.trained_first if arm.name == f"masks-{i}"
    ]
    for i, without in enumerate(folds):
        names = [name for name, _ in training_files(rain.recipe(without), rain.root)]
        assert names and all(fold_of(name, 2) != i for name in names)
    digests = [load_weights(rain.weights_of(without)).digest for without in folds]
    samples = rain.recipe(job).build_samples(rain.root)
    said: dict[str, str] = {}
    for number, sizes in enumerate(samples.photographs):
        known = samples._fixed(number, 0).known[DAMAGE]
        said[sizes[0].name] = known.provenance["digest"]
    assert said == {name: digests[fold_of(name, 2)] for name in said}
    assert said["hill.png"] == said["hill_d1.png"] and len(set(said.values())) == 2
    # At test it is the one that saw all.
    (source,) = rain.recipe(job).build_sources().values()
    masks = load_weights(rain.weights_of(job.needs(rain.system)["priors.damage.model"]))
    assert source.prior.identity["model"] == masks.digest not in digests


def test_a_fold_that_leaves_no_photograph_is_said_before_the_first_step(tmp_path):
    path = tmp_path / "photos/train/lake.png"
    path.parent.mkdir(parents=True)
    write(Picture.from_rgb(np.zeros((1, 3, 99, 99), np.float32)), path)
    rain = Bench(paper("rain"), tmp_path, tmp_path)
    with pytest.raises(UsageError, match=f"{fold_of('lake', 2)}/2 leaves none of 1 photographs"):
        rain.check(rain.system.arms)


@pytest.mark.slow
def test_every_arm_of_a_table_on_small_pictures(bench):
    told: list[str] = []
    rain = bench("rain", tell=told.append)
    rain.check(rain.system.arms)  # before anything is trained that the arms need
    for arm in rain.system.arms:
        rain.do(Job(arm))
    trained = Counter(line.split(",")[0] for line in told if line.startswith("training"))
    assert len(trained) == 17 and set(trained.values()) == {1}
    cells = {a.name: reports(rain, a, 1)["in"][0] for a in rain.system.arms}
    assert len({cell.model["sha256"] for cell in cells.values()}) == 14


@pytest.mark.slow
def test_a_table_on_small_pictures(bench):
    rain = bench("rain")
    rows = ["base", "all", "constant"]
    for row in rows:
        rain.do(Job(rain.system.arm(row)))
    cells = {row: reports(rain, rain.system.arm(row), 1)["in"][0] for row in rows}
    assert all("psnr_outside" in row for row in cells["all"].rows)
    assert cells["all"].model["ms_per_megapixel"] > 0
    text = table(rain)
    assert "Named beforehand: all against constant on in" in text
    assert "no verdict before 3 seeds" in text
    assert "no CBSD68 below" in text
    assert "Inside the damage (severity above 0.5) · outside" in text
    whole, apart = [x for x in text.splitlines() if x.startswith("| all, the mask's mean")]
    assert f"| {cells['constant'].model['parameters'] / 1e6:.3f} M, " in whole
    assert text.index("| what came in | ") < text.index(apart)
    assert "(control)" in whole and "(control)" in apart and " · " in apart


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raindrop", "haze", "blur"])
def test_every_task_has_masks_to_tell(bench, name):
    task = bench(name)
    task.do(Job(task.system.arm("oracle")))
    (report,) = reports(task, task.system.arm("oracle"), 1)["in"]
    assert len(report.rows) == 3
