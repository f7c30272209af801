"""Samples of several tasks at once: shares, held-out pictures, crops, noise, looks, severities"""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from all_in_one import counting, every_set

from relume.errors import RecipeError, UsageError
from relume.image import Picture, write
from relume.lab import recipe
from relume.lab.data import DAMAGE, FOLD, SECOND
from relume.lab.folds import fold_of
from relume.lab.mixed import Mixed, severity
from relume.lab.pairs import FilePair
from relume.lab.runs import data_digest, training_files
from relume.lab.sources import Source
from relume.lab.tasks import REPEATS, SIGMAS, TASKS, scene_of, sides
from relume.lab.validation import validation_pairs
from relume.priors import PRIORS
from relume.priors.damage import KINDS

COUNT, SIDE = 4, 48
REAL = TASKS[1:]


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """Both halves of each pair are one picture, but for haze of the tests."""
    every_set(tmp_path, COUNT, (SIDE, SIDE), films="ABFB")
    counting(monkeypatch, COUNT)
    return tmp_path


def samples(root: Path, number: int = 5, **changes) -> Mixed:
    trained = {task: kept for task, (kept, _) in sides(number, root).items()}
    return Mixed(trained, REPEATS["promptir"], **{"seed": 7, **changes})


def of_task(found: Mixed, task: str, sigma: int = 0) -> list[int]:
    """Numbers of samples of the first epoch, in their order."""
    order = np.random.default_rng((7, 0)).permutation(found.epoch_size)
    places = [found.place(int(n)) for n in order]
    return [i for i, (t, _, s) in enumerate(places) if t == task and s in (sigma, sigma or s)]


@pytest.mark.parametrize("repeats", sorted(REPEATS))
def test_an_epoch_shows_each_picture_as_often_as_its_task_says(root, repeats):
    trained = {task: kept for task, (kept, _) in sides(5, root).items()}
    found = Mixed(trained, REPEATS[repeats], seed=0)
    seen = Counter(found.place(number) for number in range(found.epoch_size))
    for task, pairs in trained.items():
        of = {key: n for key, n in seen.items() if key[0] == task}
        if task == "noise":
            assert {key[2] for key in of} == {*SIGMAS}
            assert len(of) == 3 * len(pairs) and {*of.values()} == {REPEATS[repeats][task] // 3}
        else:
            assert len(of) == len(pairs) and {*of.values()} == {REPEATS[repeats][task]}
    # And a run shows each place of an epoch once, in an order of its seed.
    epochs = [found._order(i).tolist() for i in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(found.epoch_size))
    assert epochs[0] != epochs[1]


def test_what_is_held_out_is_never_trained_on_and_is_what_is_watched(root, monkeypatch):
    made = recipe.load("perceive-ir", ["data.tasks=5", "adapters=[]", "encoders={}"])
    held = {pair.gt for _, kept in sides(5, root).values() for pair in kept}
    found = made.build_samples(root)
    trained = {pair.gt for pairs in found.pairs.values() for pair in pairs}
    assert held and not held & trained and len(held | trained) == 5 * COUNT
    watched = validation_pairs(made, root)
    assert [pair.name for pair in watched] == [
        "noise 15", "noise 25", "noise 50", "rain", "haze", "blur", "lowlight",
    ]  # fmt: skip
    rms = [float((pair.lq - pair.gt).square().mean().sqrt() * 255) for pair in watched[:3]]
    assert rms == pytest.approx(SIGMAS, rel=0.2)
    # Nothing of the tests is among what decides the run, and all of the rest is.
    files = [path for _, path in training_files(made, root)]
    assert held | trained < {*files}
    assert not any("test" in p.parts or "CBSD68" in p.parts or "SOTS" in p.parts for p in files)
    before = data_digest(made, root)
    (noise,) = sides(5, root)["noise"][1]
    write(Picture.from_rgb(np.zeros((1, 3, SIDE, SIDE), np.float32)), noise.gt)
    assert data_digest(made, root) != before


def test_a_sample_is_a_function_of_its_number(root):
    asked = {"severities": KINDS, "second": SECOND, "folds": 2}
    one, two = samples(root, **asked), samples(root, **asked)
    two.batch(3, 5, 32)  # what ran before does not matter
    a, b = one.batch(10, 6, 32), two.batch(10, 6, 32)
    halves = [two.batch(10, 2, 32), two.batch(12, 4, 32)]
    assert torch.equal(a.lq, b.lq) and torch.equal(a.gt, b.gt)
    assert torch.equal(a.lq, torch.cat([h.lq for h in halves]))
    assert all(torch.equal(a.second[word], b.second[word]) for word in SECOND)
    assert not torch.equal(a.lq, samples(root, seed=8).batch(10, 6, 32).lq)
    # What an objective asks changes no sample.
    plain = samples(root).batch(10, 6, 32)
    assert torch.equal(a.lq, plain.lq) and not plain.second and not plain.truth


@pytest.mark.parametrize("crop", [32, SIDE, 60])
def test_both_halves_are_of_one_place_turned_alike(root, crop):
    """Pairs are twice the same picture here: any shift or turn of one half would show. 60 pixels
    are more than the pictures have."""
    found = samples(root)
    for task in REAL:
        cut = found.numbered(of_task(found, task)[0], crop)
        assert cut.lq.shape == (3, crop, crop)
        assert np.array_equal(cut.lq, cut.gt) and cut.gt.std() > 0.01
    for sigma in SIGMAS:
        numbers = of_task(found, "noise", sigma)[:4]
        apart = np.stack([c.lq - c.gt for c in found.several(numbers, crop)]) * 255
        assert apart.std() == pytest.approx(sigma, rel=0.15)  # clipped where it leaves the range
        levels = np.stack([c.lq for c in found.several(numbers, crop)]) * 255
        assert np.abs(levels - np.rint(levels)).max() < 1e-3


def test_second_looks_are_what_they_say(root):
    found = samples(root, second=SECOND)
    for task in TASKS:
        for number in of_task(found, task)[:3]:
            cut = found.numbered(number, SIDE)  # the whole picture: one place alone
            again, elsewhere, otherwise = (cut.second[word] for word in SECOND)
            assert np.array_equal(again, cut.lq)  # of noise, the same realisation
            assert np.abs(elsewhere - cut.lq).mean() > 0.02
            if task == "noise":
                assert np.array_equal(otherwise, cut.gt)
            else:
                noise = (otherwise - cut.gt).std() * 255
                assert min(SIGMAS) * 0.8 < noise < max(SIGMAS) * 1.1


def test_a_second_place_is_another_one(root):
    found = samples(root, second=("again",))
    cuts = [found.numbered(n, 32) for n in of_task(found, "noise", 50)[:6]]
    assert any(not np.array_equal(cut.second["again"], cut.lq) for cut in cuts)


def test_noise_is_as_severe_as_its_sigma_and_a_pair_as_what_is_seen_of_it(root):
    every_set(root, COUNT, (SIDE, SIDE), far=5, films="ABFB")
    found = samples(root, severities=KINDS)
    for task in TASKS:
        cut = found.numbered(of_task(found, task, 25 if task == "noise" else 0)[0], 32)
        told = cut.truth[DAMAGE]
        assert told.names == KINDS and told.maps.shape == (1, len(KINDS), 32, 32)
        assert {name for name, m in zip(KINDS, told.maps[0], strict=True) if m.any()} == {task}
        if task == "noise":
            assert np.allclose(told.maps[0, KINDS.index(task)], 0.5)
    same = np.full((3, 32, 32), 0.5, np.float32)
    assert not any(severity(task, 0, same, same, KINDS).maps.any() for task in REAL)


def test_folds_part_the_photographs_and_films_stay_whole(root):
    words = ["data.tasks=5", "adapters=[]", "encoders={}"]
    halves = [
        recipe.load("perceive-ir", [*words, f'data.without="{i}/2"']).build_samples(root)
        for i in range(2)
    ]
    for task in TASKS:
        parts = [{scene_of(pair) for pair in half.pairs[task]} for half in halves]
        assert parts[0] and parts[1] and not parts[0] & parts[1]
        assert {fold_of(name, 2) for name in parts[0]} == {1}
    found = samples(root, folds=2)
    number = of_task(found, "blur")[0]
    order = np.random.default_rng((7, 0)).permutation(found.epoch_size)
    pair = found.pairs["blur"][found.place(int(order[number]))[1]]
    assert found.numbered(number, 32).truth[FOLD].vector.item() == fold_of(pair.name[0], 2)
    left = [*words, 'data.without="0/2"']
    with pytest.raises(UsageError, match="Nothing is left to train blur on"):
        for path in (root / "GoPro/train").rglob("*.png"):
            moved = root / "GoPro/train/B" / path.parent.name / path.name
            moved.parent.mkdir(parents=True, exist_ok=True)
            path.rename(moved)
        recipe.load("perceive-ir", left).build_samples(root)


def test_priors_look_at_the_whole_damaged_picture(root):
    found = samples(root, sources={"thumbnail": Source(PRIORS["thumbnail"]())})
    numbers = of_task(found, "noise", 50)[:2]
    cuts = found.several(numbers, 32)
    batch = found.batch(0, 2, 32)
    assert batch.guidance["thumbnail"].maps.shape == (2, 3, 96, 96)
    assert not np.array_equal(cuts[0].known["thumbnail"].maps, cuts[1].known["thumbnail"].maps)


def test_halves_of_two_sizes_and_deep_clean_pictures_are_one_line(tmp_path):
    rgb = np.full((1, 3, 20, 24), 0.5, np.float32)
    write(Picture.from_rgb(rgb), tmp_path / "a.png")
    write(Picture.from_rgb(rgb[..., :20]), tmp_path / "b.png")
    write(Picture.from_rgb(rgb, bits=16), tmp_path / "deep.png")
    apart = FilePair("a", tmp_path / "a.png", tmp_path / "b.png")
    deep = FilePair("deep", tmp_path / "deep.png", tmp_path / "deep.png")
    for task, pair, says in (("rain", apart, "of one size"), ("noise", deep, "more than 8 bits")):
        with pytest.raises(UsageError, match=says) as caught:
            Mixed({task: [pair]}, {task: 3}, seed=0).batch(0, 1, 16)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="a multiple of"):
        Mixed({"noise": [apart]}, {"noise": 4}, seed=0)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["data.tasks=4"], "data.tasks"),
        (["data.photographs=p"], "leave out photographs"),
        (["data.fixed=3"], "leave out fixed"),
        (["data.repeats=mine"], "none of promptir, perceive-ir"),
        (["data={photographs='p', damage={}, repeats='promptir'}"], "repeats goes with tasks"),
        (["data={damage={}}"], "photographs is missing, or tasks"),
        (["adapters.9.heads=2"], "a list of 4 has no row '9'"),
    ],
)
def test_a_recipe_of_tasks_that_cannot_be_is_one_line(words, says):
    with pytest.raises(RecipeError) as caught:
        recipe.load("perceive-ir", words)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["masks", "tiers"])
def test_what_must_know_the_damage_itself_is_not_trained_on_tasks(root, kind):
    words = ["encoders={}", "adapters=[]", f'objective={{kind="{kind}"}}']
    with pytest.raises(RecipeError, match="more of a picture's damage than pairs") as caught:
        recipe.load("perceive-ir", words).build_samples(root)
    assert "\n" not in str(caught.value)


def test_a_recipe_without_tasks_says_nothing_of_them():
    said = recipe.load("relume-s").resolved()
    assert not {"tasks", "repeats"} & {*said["data"]}
    assert "held_out" not in said["validation"] and "best" not in said["schedule"]
    assert not any("control" in row for row in said["encoders"].values())
    said = recipe.load("perceive-ir").resolved()
    assert said["data"] == {"tasks": 3, "repeats": "perceive-ir"}
    assert recipe.Recipe.model_validate(said).digest == recipe.load("perceive-ir").digest
    rows = recipe.load("perceive-ir", ["adapters.1.heads=3"]).adapters
    assert [(row.model_extra or {}).get("heads") for row in rows] == [8, 3, 2, None]
