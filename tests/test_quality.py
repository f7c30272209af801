"""How good a picture looks: triplets, tiers, the prior they become, and what `diagnose` says."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
import tiny
import torch
import torch.nn.functional as F
from test_reproduce import Beside
from torch import nn

from relume.card import CARD_KEY, DEFAULT, QUALITY, Card, find, is_shipped, survey
from relume.checkup import sentence
from relume.diagnosis import Finding, diagnose
from relume.engine import checked, open_engine
from relume.errors import CheckError, MissingError, ModelError, RecipeError, UsageError
from relume.guidance import Guidance, Guide
from relume.image import Picture, write
from relume.lab import recipe, runs, weights
from relume.lab.backbones.perceiver import Perceiver, Standard
from relume.lab.clip import TierPrompts, encoded, open_clip, seen, word_ids
from relume.lab.data import DAMAGE, FOLD, Asks, Batch, Damage
from relume.lab.export import export
from relume.lab.finished import opened
from relume.lab.folds import fold_of
from relume.lab.objectives.tiers import Tiers, balance
from relume.lab.photographs import load_photographs
from relume.lab.recipe import load
from relume.lab.restorer import Restorer
from relume.lab.runs import run_recipe
from relume.lab.triplets import LEFT, MEDIUM, TASK, TOLD, Triplets, as_file, between, milder
from relume.priors.damage import KINDS, DamagePrior
from relume.priors.quality import (
    CROP,
    JUDGED,
    MOST,
    TIERS,
    QualityPrior,
    difficulty_of,
    distance,
    error_of,
    judged,
    places,
)
from relume.restoration import restore

RESTORER = """
name = "tiny-medium"
[data]
photographs = "photographs"
sizes = 1
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
steps = 0
"""
RECIPE = """
name = "tiny-quality"
seed = 3
[data]
photographs = "photographs"
counts = [0.0, 1.0]
sizes = 1
medium = ["medium-0/model.safetensors", "medium-1/model.safetensors"]
restorer = "identity"
[data.damage]
"noise:sigma=20..50" = 1.0
"sensor:iso=6400" = 1.0
"jpeg:quality=10" = 1.0
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
ordinal = 0.5
[schedule]
steps = 3
batch = 2
crop = 32
last_crop = 48
last_batch = 2
last_share = 0.3
precision = "float32"
save_every = 3
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "photographs").mkdir()
    (folder / "medium.toml").write_text(RESTORER)
    (folder / "quality.toml").write_text(RECIPE)
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        rgb = np.kron(rng.random((1, 3, 8, 8), np.float32), np.ones((14, 14), np.float32))
        write(Picture.from_rgb(rgb), folder / "photographs" / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def run(root, tmp_path_factory) -> Path:
    """A perceiver of three steps, on triplets of two restorers that were never trained."""
    folder = tmp_path_factory.mktemp("quality")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("relume.lab.runs.Loader", Beside)
        patch.chdir(folder)
        for fold in (0, 1):
            recipe = load(root / "medium.toml", [f"seed={fold}"])
            run_recipe(recipe, folder / f"medium-{fold}", root=root)
        run_recipe(load(root / "quality.toml"), folder / "run", root=root)
    return folder / "run"


@pytest.fixture(scope="module")
def model(run, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "quality.onnx"
    network, card = opened(run)
    export(network, path, card)
    return path


def photographs(root: Path):
    return load_photographs(root / "photographs", sizes=1, followed=False)


def triplets(root: Path, **more) -> Triplets:
    """Restorers that give back which fold they are of; noise or JPEG, one at a time."""
    damage = Damage({"noise:sigma=40": 1.0, "jpeg:quality=8": 1.0}, [0.0, 1.0])
    marks = [lambda lq, known, v=v: np.full_like(lq, v) for v in (0.25, 0.75)]
    return Triplets(photographs(root), damage, seed=1, **{"medium": marks, **more})


# Triplets


def test_low_and_high_are_the_pair_and_medium_is_of_who_never_saw_the_photograph(root, monkeypatch):
    monkeypatch.setattr("relume.lab.triplets.KEPT", (0.0, 0.0))
    monkeypatch.setattr("relume.lab.triplets.HELPED", np.inf)
    samples = triplets(root)
    for number, (photo,) in enumerate(photographs(root)):
        cut = samples.cut(number, np.random.default_rng(number), 32)
        mark = (0.25, 0.75)[fold_of(photo.name, 2)]
        assert np.allclose(cut.truth[MEDIUM].maps, as_file(np.float32([mark])))
        assert np.square(cut.lq - cut.gt).mean() > 2e-4
        inside = np.lib.stride_tricks.sliding_window_view(photo.pixels, (3, 32, 32))[0]
        assert (inside == np.rint(cut.gt * 255)).all((2, 3, 4)).any()


def test_a_medium_crop_keeps_some_of_the_damage():
    rng = np.random.default_rng(0)
    gt = rng.random((3, 32, 32), np.float32) * 0.5 + 0.25
    lq, good = gt + 0.2 * rng.choice([-1, 1], gt.shape), gt + np.float32(0.02)
    np.testing.assert_allclose(between(lq, good, gt, 0.3), 0.3 * lq + 0.7 * good, atol=0.003)
    # A restorer that does not help makes no crop that anybody could tell from the damaged one.
    np.testing.assert_allclose(between(lq, lq, gt, 0.3), 0.3 * lq + 0.7 * gt, atol=0.003)
    error = [np.square(between(lq, out, gt, 0.3) - gt).mean() for out in (good, lq)]
    assert max(error) < 0.2 * np.square(lq - gt).mean()


def test_where_a_restorer_does_not_help_a_shorter_blur_is_of_medium_quality(root):
    damage = Damage({"blur:length=20..24": 1.0}, [0.0, 1.0])
    idle = [lambda lq, known: lq]
    samples = Triplets(photographs(root), damage, seed=1, medium=idle)
    cuts = [samples.cut(number % 3, np.random.default_rng(number), 64) for number in range(6)]
    errors = [
        [float(np.square(x - cut.gt).mean()) for x in (cut.truth[MEDIUM].maps[0], cut.lq)]
        for cut in cuts
    ]
    assert all(0 < medium < 0.8 * low for medium, low in errors)
    assert milder("soft+blur:length=10..20,angle=30", 0.25) == "soft+blur:length=2.5..5,angle=30"
    assert milder("defocus:radius=4", 0.5) == "defocus:radius=2"


def test_every_crop_is_as_a_file_holds_it_and_the_same_when_it_is_asked_for_again(root):
    samples = triplets(root)
    batch, again = samples.batch(3, 4, 32), samples.batch(5, 2, 32)
    for crops in (batch.lq, batch.gt, batch.truth[MEDIUM].maps):
        assert crops.shape == (4, 3, 32, 32)
        torch.testing.assert_close((crops * 255).round() / 255, crops, atol=1e-6, rtol=0)
    assert torch.equal(batch.truth[MEDIUM].maps[2:], again.truth[MEDIUM].maps)
    assert torch.equal(batch.truth[TASK].vector.sum(1), torch.ones(4))
    assert batch.truth[TASK].names == ("noise", "compression")
    assert batch.truth[LEFT].vector.isnan().all()  # nobody was asked


def test_difficulty_is_what_the_restorer_leaves_wrong(root, monkeypatch):
    monkeypatch.setattr("relume.lab.triplets.ASKED", (1.0, 0.0, 0.0))
    shown = []

    def same(lq, known):
        shown.append(known["thumbnail"].maps.shape)
        return lq

    batch = triplets(root, restorer=same, measured=1.0).batch(0, 3, 32)
    mse = (batch.lq - batch.gt).square().mean((1, 2, 3)).numpy()
    np.testing.assert_allclose(batch.truth[LEFT].vector[:, 0], difficulty_of(mse), atol=1e-5)
    assert batch.truth[LEFT].vector[:, 1:].isnan().all()
    assert shown == [(1, 3, 96, 96)] * 3


def test_fixed_triplets_come_again(root):
    samples, calls = triplets(root, fixed=2), []
    made = samples._made
    samples._made = lambda *given: calls.append(given[0]) or made(*given)
    batches = [samples.batch(0, 9, 32) for _ in range(2)]
    assert torch.equal(batches[0].truth[MEDIUM].maps, batches[1].truth[MEDIUM].maps)
    again = triplets(root, fixed=2).batch(3, 2, 32)
    torch.testing.assert_close(batches[0].lq[3:5], again.lq)
    assert len(calls) <= 6  # three photographs, two triplets of each


def test_who_makes_the_medium_crop_says_its_own_error_on_the_way(root):
    calls = []

    def same(lq, known):
        calls.append(lq.shape)
        return lq

    samples = triplets(root, medium=[same], restorer=same, measured=0.0)
    batch = samples.batch(0, 4, 32)
    mse = (batch.lq - batch.gt).square().mean((1, 2, 3)).numpy()
    np.testing.assert_allclose(batch.truth[LEFT].vector[:, 0], difficulty_of(mse), atol=1e-5)
    assert len(calls) == 4
    with pytest.raises(UsageError, match="no restorer"):
        triplets(root, medium=[])


def test_of_a_photograph_that_a_lens_left_soft_the_order_alone_is_told(root):
    softened = Damage({"noise:sigma=40": 1.0, "blur:length=9": 1.0}, [0.0, 1.0], lens=1.0)
    idle = [lambda lq, known: lq]
    samples = Triplets(photographs(root), softened, seed=1, medium=idle)
    batch = samples.batch(0, 8, 64)
    noisy = batch.truth[TASK].vector[:, 0]
    assert 0 < noisy.sum() < 8
    assert torch.equal(batch.truth[TOLD].vector[:, 0], 1 - noisy)  # no blurred one is softened
    assert (triplets(root).batch(0, 3, 32).truth[TOLD].vector == 1).all()
    for gt, soft in zip(batch.gt, noisy, strict=True):
        # Steps of 14 pixels are steps where no lens was in the way.
        steepest = gt.diff(dim=2).abs().amax()
        assert steepest < 0.5 if soft else steepest > 0.1


def test_what_varies_beyond_half_precision_can_be_saved():
    standard = Standard(2).train()
    for _ in range(400):
        standard(torch.tensor([[-1e3, 0.0], [1e3, 1.0]]))
    assert standard.variance.tolist() == pytest.approx([65504, 0.25], rel=1e-3)
    assert weights.to_half(standard.state_dict())["variance"].isfinite().all()


# Tiers


def batch_of(n: int = 3, tasks=((1, 0), (1, 0), (0, 1)), left=None) -> Batch:
    rng = torch.Generator().manual_seed(0)
    low, medium, high = (torch.rand(n, 3, 16, 16, generator=rng) for _ in TIERS)
    told = torch.full((n, 3), torch.nan) if left is None else left
    truth = {
        MEDIUM: Guide(maps=medium),
        TASK: Guide(vector=torch.tensor(tasks, dtype=torch.float32)),
        LEFT: Guide(vector=told),
    }
    return Batch(low, high, Guidance(), Guidance(truth))


def saying(logits, feared=0.0):
    """A model of which every crop of a tier is told the same."""

    def model(crops, known):
        n = crops.shape[0] // 3
        rows = torch.tensor(logits, dtype=torch.float32).repeat_interleave(n, 0)
        return torch.cat([rows, torch.full((3 * n, 1), feared)], 1)

    return model


RIGHT = [[9.0, 0, 0], [0, 9.0, 0], [0, 0, 9.0]]


def test_a_model_that_knows_the_tiers_has_no_loss_and_one_that_does_not_log_3():
    loss, logs = Tiers(ordinal=1.0)(batch_of(), saying(RIGHT))
    assert loss.max() < 1e-3
    assert logs["right"].mean() == logs["ordered"].mean() == 1
    loss, logs = Tiers()(batch_of(), saying([[0.0, 0, 0]] * 3))
    assert loss.mean() == pytest.approx(np.log(3))
    backwards, _ = Tiers()(batch_of(), saying(RIGHT[::-1]))
    assert backwards.mean() > 5


def test_the_order_costs_where_medium_is_no_better_than_low():
    flat = saying([[0.0, 0, 0]] * 3)
    batch = batch_of(tasks=((1, 0),) * 3)
    plain, ordered = (Tiers(ordinal=weight)(batch, flat)[0] for weight in (0.0, 2.0))
    torch.testing.assert_close(ordered - plain, torch.full_like(plain, 2 * 2 * 0.25))


def test_where_no_tier_can_be_told_only_the_order_is_learnt():
    batch = batch_of(tasks=((1, 0),) * 3)
    told = Guide(vector=torch.tensor([[1.0], [0.0], [0.0]]))
    half = replace(batch, truth=batch.truth.with_guide(TOLD, told))
    high = saying([[0.0, 0, 9.0], [0, 0, 9.0], [0, 0, 9.0]])
    loss, _ = Tiers(ordinal=1.0)(half, high)
    assert loss[0] > 5 and loss[1:].tolist() == pytest.approx([0.5, 0.5], abs=1e-3)
    # An order that is right costs nothing, whatever the tiers are called.
    low = saying([[9.0, 0, 0], [9.0, 9.0, 0], [0, 9.0, 0]])
    loss, _ = Tiers(ordinal=1.0)(half, low)
    assert loss[0] > 2 and loss[1:].max() < 0.02


def test_each_damage_weighs_alike():
    weights = balance(torch.tensor([[1.0, 0], [1.0, 0], [0, 1.0]]))
    assert weights.tolist() == pytest.approx([0.75, 0.75, 1.5])
    assert weights.mean() == pytest.approx(1)


def test_difficulty_is_learnt_where_it_was_measured():
    left = torch.full((3, 3), torch.nan)
    left[1, 0], left[2, 2] = 0.3, 0.9
    right = torch.logit(torch.tensor(0.3)).item()
    only = left.clone()
    only[2, 2] = torch.nan
    tiers = Tiers()
    assert tiers(batch_of(left=only), saying(RIGHT, right))[1]["difficulty"].abs().max() < 1e-5
    assert tiers(batch_of(left=left), saying(RIGHT, right))[1]["difficulty"].mean() > 0.1
    for weight in (-1, -0.1):
        with pytest.raises(RecipeError, match="0 or more"):
            Tiers(ordinal=weight)


def test_a_perceiver_learns_to_tell_noise_from_a_flat_wall():
    torch.manual_seed(0)
    net = Restorer(Perceiver(width=4, enc_blocks=(1,), middle_blocks=1, dec_blocks=(1,), dim=8))
    rng = torch.Generator().manual_seed(1)
    flat = torch.rand(4, 3, 1, 1, generator=rng).expand(-1, -1, 16, 16) * 0.6 + 0.2
    noise = 0.15 * torch.randn(4, 3, 16, 16, generator=rng)
    truth = {
        MEDIUM: Guide(maps=flat + 0.25 * noise),
        TASK: Guide(vector=torch.ones(4, 1)),
        LEFT: Guide(vector=torch.full((4, 3), torch.nan)),
    }
    batch = Batch(flat + noise, flat.clone(), Guidance(), Guidance(truth))
    objective, step = Tiers(ordinal=1.0), torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(30):
        step.zero_grad()
        loss, logs = objective(batch, net)
        loss.mean().backward()
        step.step()
    assert logs["right"].mean() == 1
    said = net.eval()(batch.lq, Guidance())
    torch.testing.assert_close(said[:, :3].sum(1), torch.ones(4))
    assert (said >= 0).all() and (said <= 1).all()


# The model file


def test_a_run_makes_a_model_that_gives_one_vector(run, model):
    card = survey(model).card
    assert (card.vector, card.emits, card.restores) == (JUDGED, (), False)
    engine = open_engine(model, "onnx")
    out = engine(np.full((1, 3, 32, 48), 0.4, np.float32), Guidance())
    assert out.shape == (1, 4)
    assert out[0, :3].sum() == pytest.approx(1, abs=1e-5)
    network, card = opened(run)
    assert network.vector == JUDGED
    with pytest.raises(UsageError, match="leave the pictures out"):
        export(network, model.with_name("other.onnx"), card, pictures=[])


def test_a_run_remembers_which_restorers_it_learnt_from(root, run, monkeypatch):
    monkeypatch.setattr("relume.lab.runs.Loader", Beside)
    monkeypatch.chdir(run.parent)
    recipe = load(root / "medium.toml", ["seed=9"])
    kept = (run.parent / "medium-1/model.safetensors").read_bytes()
    try:
        (run.parent / "medium-1/recipe.toml").unlink()
        run_recipe(recipe, run.parent / "medium-1", root=root)
        with pytest.raises(UsageError, match="another recipe"):
            run_recipe(load(root / "quality.toml"), run, root=root)
    finally:
        (run.parent / "medium-1/model.safetensors").write_bytes(kept)


@pytest.mark.parametrize(
    "wrong",
    [
        {"vector": ("low", "high")},
        {"vector": ("low", "low")},
        {"vector": JUDGED, "emits": ("rain",)},
        {"vector": JUDGED, "scale": 2},
    ],
)
def test_a_card_that_the_graph_does_not_keep_is_refused(model, tmp_path, wrong):
    graph = onnx.load_model(model)
    card = replace(survey(model).card, **wrong)
    onnx.helper.set_model_props(graph, {CARD_KEY: card.to_json()})
    path = tmp_path / "wrong.onnx"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(ModelError, match=r"vector|number") as error:
        survey(path)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not is_shipped(DEFAULT), reason=f"{DEFAULT} is not shipped")
def test_a_restorer_that_calls_itself_a_judge_is_refused(tmp_path):
    found = find(DEFAULT)
    graph = onnx.load_model(found.path)
    onnx.helper.set_model_props(graph, {CARD_KEY: replace(found.card, vector=JUDGED).to_json()})
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(graph.SerializeToString())
    with pytest.raises(ModelError, match="one vector"):
        survey(wrong)


def test_cards_from_before_vectors_keep_their_bytes():
    assert '"vector"' not in Card("a").to_json()
    card = Card("a", vector=JUDGED)
    assert Card.from_json(card.to_json()) == card


def test_a_vector_is_checked():
    card, tile = Card("a", vector=JUDGED), np.zeros((1, 3, 8, 8), np.float32)
    checked(card, tile, np.zeros((1, 4), np.float32))
    for wrong in (np.zeros((1, 3)), tile, np.full((1, 4), np.nan)):
        with pytest.raises(CheckError):
            checked(card, tile, wrong.astype(np.float32))


def test_a_judge_restores_nothing_and_a_restorer_does_not_judge(model, photo):
    with pytest.raises(UsageError, match="says how good a picture is"):
        restore(Picture.from_rgb(photo), model)
    with pytest.raises(UsageError, match="says nothing of damage"):
        DamagePrior(model)
    with pytest.raises(UsageError, match=f"Give {QUALITY}"):
        QualityPrior("identity" if is_shipped(QUALITY) else open_engine("identity"))


# The prior


class Bright:
    """A quality engine: bright crops are of high quality and easy."""

    name, precision, device, first = "fake", "float32", "cpu", None
    notes: ClassVar[list[str]] = []
    card = Card("bright", vector=JUDGED, multiple_of=8, digest="0" * 8)

    def __init__(self):
        self.seen = 0

    def __call__(self, tile, guidance):
        assert tile.shape == (1, 3, CROP, CROP)
        self.seen += 1
        level = float(tile.mean())
        return np.float32([[0.9 * (1 - level), 0.1, 0.9 * level, 1 - level]])


@pytest.mark.parametrize(
    "size", [(1, 1), (40, 300), (128, 128), (321, 481), (612, 816), (3000, 4000), (9000, 200)]
)
def test_a_picture_is_seen_whole_or_evenly_in_so_many_crops(size):
    stride = distance(*size)
    rows, columns = places(size[0], stride), places(size[1], stride)
    assert len(rows) * len(columns) <= MOST
    assert (len(rows), len(columns)) == tuple(-(-side // stride) for side in size)
    for starts, side in ((rows, size[0]), (columns, size[1])):
        assert min(starts) >= 0
        assert max(starts) + CROP <= max(side, CROP)
        seen = np.zeros(side, bool)
        for at in starts:
            seen[at : at + CROP] = True
        assert seen.mean() >= CROP / stride - 0.1
        assert seen.all() or stride > CROP


def test_maps_follow_the_picture():
    rgb = np.zeros((1, 3, 300, 500), np.float32)
    rgb[..., :250] = 1
    guide = QualityPrior(Bright())(rgb)
    assert guide.array.shape == (1, 4, 3, 4)
    assert (guide.names, guide.stride) == (JUDGED, CROP)
    assert (guide.array[0, 2, :, 0] > 0.8).all() and (guide.array[0, 2, :, 3] < 0.2).all()
    turned = QualityPrior(Bright())(np.ascontiguousarray(rgb[..., ::-1]))
    assert (turned.array[0, 2, :, 3] > 0.8).all()


def test_small_pictures_are_reflected():
    rgb = np.full((1, 3, 5, 7), 0.5, np.float32)
    guide = QualityPrior(Bright())(rgb)
    assert guide.array.shape == (1, 4, 1, 1)
    assert guide.array[0, 3, 0, 0] == pytest.approx(0.5, abs=1e-3)


def test_the_whole_picture_is_the_mean_of_the_probabilities():
    one, other = np.float32([0.7, 0.2, 0.1]), np.float32([0.2, 0.2, 0.6])
    maps = np.concatenate([np.stack([one, other], 1), [[0.4, 0.8]]])[None, :, None].astype(
        np.float32
    )
    found = judged(Guide(maps=maps, names=JUDGED))
    p = (one + other) / 2
    assert found.tier == TIERS[int(p.argmax())]
    first, second = np.sort(p)[:-3:-1]
    assert found.margin == pytest.approx(first - second, abs=1e-6)
    assert found.score == pytest.approx(0.5 * p[1] + p[2], abs=1e-6)
    mean = (error_of(0.4) + error_of(0.8)) / 2
    assert error_of(found.difficulty) == pytest.approx(mean)


def test_difficulty_is_thirty_decibels_long():
    assert difficulty_of(10**-4.5) == pytest.approx(0)
    assert difficulty_of(10**-1.5) == pytest.approx(1)
    assert difficulty_of(10**-3.0) == pytest.approx(0.5)
    assert (difficulty_of(0.0), difficulty_of(1.0)) == (0, 1)
    assert error_of(difficulty_of(3e-4)) == pytest.approx(3e-4)


# What is told


class Clean:
    """A mask network's engine that finds nothing."""

    name, precision, device, first = "fake", "float32", "cpu", None
    notes: ClassVar[list[str]] = []
    card = Card("clean", emits=("rain",), digest="0" * 8)

    def __call__(self, tile, guidance):
        return np.zeros((1, 1, *tile.shape[2:]), np.float32)


def test_a_diagnosis_says_how_good_the_picture_is(photo):
    picture, masks = Picture.from_rgb(photo), DamagePrior(Clean())
    told = diagnose(picture, masks, QualityPrior(Bright()))
    record = told.to_json()
    assert record["tier"] == told.tier in TIERS
    assert 0 <= record["tier_margin"] <= 1 and 0 <= record["difficulty"] <= 1
    untold = diagnose(picture, masks, None)
    assert untold.to_json() == record | dict.fromkeys(("tier", "tier_margin", "difficulty"))


def test_without_the_shipped_model_nothing_breaks(photo, monkeypatch):
    monkeypatch.setattr("relume.priors.quality.is_shipped", lambda name: False)
    assert diagnose(Picture.from_rgb(photo), DamagePrior(Clean())).tier is None


def test_the_line_says_it_in_plain_words():
    rain = Finding("rain", 0.5, 0.3, "left half", 0.9)
    line = sentence([rain], "low", 0.71, 0.66)
    assert line == (
        f"{rain}; clearly of low quality (margin 0.71), hard to restore (difficulty 0.66)"
    )
    assert sentence([rain]) == str(rain)


@pytest.mark.skipif(not is_shipped(QUALITY), reason=f"{QUALITY} is not shipped")
def test_the_shipped_model_knows_noise_and_says_so(relume, shared, tmp_path):
    from relume.image import read

    clean = read(sorted(shared("data/photos/val").glob("*.jpg"))[0]).rgb()[..., :256, :384]
    rng = np.random.default_rng(0)
    noisy = np.clip(clean + rng.normal(0, 0.15, clean.shape).astype(np.float32), 0, 1)
    rows = {}
    for name, rgb in (("clean", clean), ("noisy", noisy)):
        write(Picture.from_rgb(rgb), tmp_path / f"{name}.png")
        code, out, err = relume("diagnose", f"{name}.png", "--json")
        assert (code, err) == (0, "")
        (rows[name],) = json.loads(out)["rows"]
    assert rows["noisy"]["tier"] == "low"
    assert rows["clean"]["tier"] != "low"
    assert rows["clean"]["difficulty"] < rows["noisy"]["difficulty"]
    _, out, _ = relume("diagnose", "noisy.png")
    assert re.search(r"of low quality \(margin [01]\.\d\d\)", out)
    assert find(QUALITY).path.stat().st_size <= 2 << 20


# CLIP, tiny and drawn


@pytest.fixture(scope="module")
def clip():
    pytest.importorskip("transformers")
    return tiny.clip()


def test_embeddings_are_encoded_as_clip_encodes_their_tokens(clip):
    ids = torch.tensor([[118, 5, 6, 7, 119, 119], [118, 9, 8, 119, 119, 119]])
    embedded = clip.text_model.embeddings.token_embedding(ids)
    for row, at in enumerate((4, 3)):
        hidden = clip.text_model(input_ids=ids).last_hidden_state[row, at]
        ours = encoded(clip, embedded, at)[row]
        torch.testing.assert_close(ours, clip.text_projection(hidden), atol=1e-5, rtol=1e-5)


def test_only_the_context_learns_and_clip_stays_as_it_was(clip):
    prompts = TierPrompts(clip, (3, 4, 5))
    assert [(n, tuple(p.shape)) for n, p in prompts.named_parameters()] == [
        ("context", (3, 16, 16))
    ]
    assert set(prompts.state_dict()) == {"context"}
    before = {k: v.clone() for k, v in clip.state_dict().items()}
    F.cross_entropy(prompts(torch.rand(3, 3, 32, 32)), torch.arange(3)).backward()
    assert prompts.context.grad is not None
    assert (prompts.context.grad.abs().amax(2) > 0).all()  # every place is seen from the end
    assert all(p.grad is None for p in clip.parameters())
    assert all(torch.equal(v, before[k]) for k, v in clip.state_dict().items())


@pytest.mark.parametrize("frozen_word", [False, True])
def test_a_prompt_is_77_places_with_the_end_at_17_and_the_word_before_it(clip, frozen_word):
    prompts = TierPrompts(clip, (3, 4, 5), frozen_word=frozen_word)
    table, made = clip.text_model.embeddings.token_embedding.weight, prompts.prompts()
    assert made.shape == (3, 77, 16)
    assert prompts.eot == 17
    assert torch.equal(made[:, 0], table[118].expand(3, -1))
    assert torch.equal(made[:, 17:], table[119].expand(3, 60, -1))
    assert torch.equal(made[:, 16], table[[3, 4, 5]])
    assert float(made[:, 1:16].detach().std()) == pytest.approx(0.02, rel=0.1)
    assert prompts.context.shape == (3, 15 if frozen_word else 16, 16)
    torch.testing.assert_close(prompts.texts().norm(dim=1), torch.ones(3))


def test_prompts_learn_features_that_can_be_told_apart(clip):
    prompts = TierPrompts(clip, (3, 4, 5))
    rng = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 12, generator=rng)
    features = F.normalize(
        centres.repeat_interleave(4, 0) + 0.1 * torch.randn(12, 12, generator=rng), dim=1
    )
    tiers, step = torch.arange(3).repeat_interleave(4), torch.optim.Adam(prompts.parameters(), 0.05)
    first = float(F.cross_entropy(prompts.logits(features), tiers).detach())
    for _ in range(60):
        step.zero_grad()
        loss = F.cross_entropy(prompts.logits(features), tiers)
        loss.backward()
        step.step()
    assert float(loss.detach()) < 0.2 * first
    assert (prompts.logits(features).argmax(1) == tiers).all()


def test_a_recipe_learns_prompts_from_triplets_and_is_a_judge(clip, root, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "Loader", Beside)
    words = ["start=", "encoders={}", "adapters=[]", "objective.difficulty=0", "schedule.steps=2",
             "schedule.batch=2", "schedule.crop=32", "data.fixed=0", "schedule.lr=1e-2",
             f'backbone={{kind="prompts", source="{tiny.clip_folder()}"}}',
             "data.photographs=photos", "schedule.warmup=0"]  # fmt: skip
    made = recipe.load("relume-quality", words)
    made = made.model_copy(update={"data": made.data.model_copy(update={"validation": ""})})
    monkeypatch.setattr(recipe.Recipe, "build_samples", lambda *_: triplets(root))
    (tmp_path / "photos").mkdir()
    write(Picture.from_rgb(np.full((1, 3, 40, 40), 0.5, np.float32)), tmp_path / "photos/a.png")
    path = runs.run_recipe(made, tmp_path / "run", root=tmp_path)
    stored = weights.load(path)
    assert {*stored.tensors} == {"backbone.prompts.context"}  # CLIP is in no file
    before = made.build_model()
    judge = recipe.restorer_of(stored).eval()
    assert not torch.equal(judge.backbone.prompts.context, before.backbone.prompts.context)
    assert judge.vector == TIERS
    rgb = torch.rand(2, 3, 32, 32).requires_grad_()
    p = judge(rgb, Guidance())
    torch.testing.assert_close(p.sum(1), torch.ones(2))
    p[:, 2].sum().backward()
    assert rgb.grad is not None and rgb.grad.abs().sum() > 0  # a picture may learn from it
    clip = judge.backbone.prompts.clip
    assert not any(q.requires_grad for q in clip.parameters())
    judge.to(torch.float64)
    assert {q.dtype for q in clip.parameters()} == {torch.float64}  # it goes where the prompts go


class Halfway(nn.Module):
    """A restorer that lifts its picture by some levels."""

    def __init__(self, lift):
        super().__init__()
        self.lift = lift

    def forward(self, lq, guidance):
        return lq + self.lift


def test_medium_crops_are_made_by_who_did_not_see_the_photograph():
    lq = torch.full((4, 3, 8, 8), 0.2)
    maps = torch.zeros(4, len(KINDS), 8, 8)
    maps[:3, 0, 2, 2] = torch.tensor([0.5, 0.5, 0.1])
    truth = Guidance(
        {
            DAMAGE: Guide(maps=maps, names=KINDS),
            FOLD: Guide(vector=torch.tensor([[0.0], [1.0], [0.0], [1.0]])),
        }
    )
    batch = Batch(lq, lq + 0.4, Guidance(), truth)
    seen: list[torch.Tensor] = []

    def judge(crops, guidance):
        seen.append(crops)
        level = crops.mean((1, 2, 3))
        return 20 * torch.stack([-((level - at) ** 2) for at in (0.2, 0.4, 0.6)], 1)

    made = Tiers(1.0, 0.0, medium=(Halfway(0.103), Halfway(0.301)))
    loss, logs = made(batch, judge)
    _, medium, _ = seen[0].chunk(3)
    levels = medium[:, 0, 0, 0] * 255
    torch.testing.assert_close(levels, torch.tensor([77.0, 128.0, 77.0, 128.0]), atol=0.6, rtol=0)
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)  # as a file holds it
    assert (loss[:3] > 0).all() and loss[3] == 0  # of what shows no damage there are no tiers
    assert "difficulty" not in logs
    assert not [*made.parameters()] and not made.state_dict()
    assert [*made.held] == ["medium.0", "medium.1"]
    assert Tiers.asks({"medium": {"folds": {"0": "a", "1": "b"}}}) == Asks(KINDS, folds=2)
    assert not Tiers.asks({})


class Words:
    """A tokenizer that knows three words, and spells the others."""

    unk_token_id = 0

    def __call__(self, word, add_special_tokens):
        ids = {"terrible": [3], "mediocre": [4], "excellent": [5]}.get(word, [7] * len(word))
        return {"input_ids": ids}


def test_each_word_is_one_token():
    assert word_ids(Words()) == (3, 4, 5)
    with pytest.raises(ModelError, match="makes 4 tokens of 'poor'"):
        word_ids(Words(), ("poor", "mediocre", "excellent"))


def test_a_folder_of_clip_is_opened_and_what_is_none_is_told(clip, tmp_path):
    found, tokens = open_clip(tiny.clip_folder())
    assert not any(p.requires_grad for p in found.parameters())
    assert len(set(word_ids(tokens))) == 3
    x = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(seen(found, x), seen(clip, x))
    with pytest.raises(MissingError, match="no CLIP at") as error:
        open_clip(tmp_path / "nothing")
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.skipif("RELUME_CLIP" not in os.environ, reason="RELUME_CLIP names no folder of CLIP")
def test_the_real_clip_has_one_token_for_each_word():
    found, tokens = open_clip(os.environ["RELUME_CLIP"])
    prompts = TierPrompts(found, word_ids(tokens))
    assert prompts.context.shape == (3, 16, 512)
    assert prompts.texts().shape == (3, 512)
    assert float(found.logit_scale.exp()) == pytest.approx(100, rel=0.01)
