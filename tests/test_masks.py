"""Where a picture is damaged: what is true, the network that says so, the prior it becomes."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from relume import restore
from relume.card import survey
from relume.engine import open_engine
from relume.errors import RecipeError, UsageError
from relume.guidance import Guidance, Guide
from relume.image import Picture, write
from relume.lab.data import DAMAGE, Batch, Damage, Damaged
from relume.lab.degrade import DEGRADATIONS, parse
from relume.lab.export import export
from relume.lab.finished import opened
from relume.lab.objectives.masks import Masks
from relume.lab.photographs import load_photographs
from relume.lab.recipe import load
from relume.lab.runs import run_recipe
from relume.lab.sources import Source
from relume.lab.truth import DONE_BY, coverage, severities, visible
from relume.priors.damage import KINDS, DamagePrior

RECIPE = """
name = "tiny-masks"
seed = 3
[data]
photographs = "photographs"
counts = [0.3, 0.7]
sizes = 1
[data.damage]
"noise:sigma=20..50" = 1.0
"scratch:count=40" = 1.0
[backbone]
kind = "masknet"
emits = ["noise", "scratch"]
fold = 2
width = 8
enc_blocks = [1]
middle_blocks = 1
dec_blocks = [1]
[objective]
kind = "masks"
weights = {scratch = 4.0}
[schedule]
steps = 3
batch = 2
crop = 32
precision = "float32"
save_every = 3
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "photographs").mkdir()
    (folder / "masks.toml").write_text(RECIPE)
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        rgb = np.kron(rng.random((1, 3, 8, 8), np.float32), np.ones((14, 14), np.float32))
        write(Picture.from_rgb(rgb), folder / "photographs" / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def model(root, tmp_path_factory) -> Path:
    """A mask network, trained for three steps and exported."""
    folder = tmp_path_factory.mktemp("run")
    network, card = opened(run_recipe(load(root / "masks.toml"), folder / "run", root=root))
    export(network, folder / "masks.onnx", card)
    return folder / "masks.onnx"


# What is true


def test_every_damage_has_a_map_or_is_none():
    done = {kind for kinds in DONE_BY.values() for kind in kinds}
    assert set(DONE_BY) == set(KINDS)
    assert done == set(DEGRADATIONS) - {"resize", "down"}  # softness and size are no damage


def test_severities_are_the_maps_of_the_chain():
    gt = np.full((3, 40, 50), 0.5, np.float32)
    chain = parse("haze:beta=0.6+noise:sigma=25")
    sampled = chain.sample(torch.Generator().manual_seed(0), (40, 50))
    did = chain.apply(gt, sampled).truth
    said = severities(did, (40, 50))
    assert said.names == KINDS and said.maps.shape == (1, len(KINDS), 40, 50)
    by_kind = dict(zip(said.names, said.maps[0], strict=True))
    np.testing.assert_array_equal(by_kind["haze"], did["damage.haze"].maps[0, 0])
    np.testing.assert_allclose(by_kind["noise"], 0.5, atol=1e-6)
    assert not any(by_kind[kind].any() for kind in set(KINDS) - {"haze", "noise"})
    with pytest.raises(UsageError, match="Did you mean 'haze'"):
        severities(did, (40, 50), ["hase"])


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_visible_between_equal_pictures_and_flips_commute(kind):
    rng = np.random.default_rng(0)
    gt = rng.random((3, 24, 30), np.float32)
    assert not visible(gt, gt, kind).any()
    lq = np.clip(gt + 0.3 * rng.random((1, 24, 30)) * (rng.random((1, 24, 30)) < 0.2), 0, 1)
    lq = lq.astype(np.float32)
    flipped = visible(lq[..., ::-1], gt[..., ::-1], kind)
    np.testing.assert_allclose(flipped, visible(lq, gt, kind)[..., ::-1], atol=1e-6)


@pytest.mark.parametrize("kind", ["rain", "raindrop", "scratch", "dust"])
def test_a_patch_is_found_where_it_is(kind):
    gt = np.full((3, 60, 80), 0.4, np.float32)
    lq = gt.copy()
    lq[:, 20:40, 30:60] += 0.3
    found, true = visible(lq, gt, kind) > 0.5, np.zeros((60, 80), bool)
    true[20:40, 30:60] = True
    assert (found & true).sum() / (found | true).sum() > (0.8 if kind == "raindrop" else 0.999)


def test_what_changes_every_pixel_is_seen_through_what_lies_on_it():
    rng = np.random.default_rng(0)
    gt = rng.random((3, 50, 50), np.float32)
    dark = 0.5 * gt
    spoiled = dark.copy()
    spoiled[:, :5] = 1  # a bright bar, which the fit leaves out
    plain, barred = visible(dark, gt, "lowlight"), visible(spoiled, gt, "lowlight")
    assert plain.mean() > 0.2
    assert np.abs(plain - barred).mean() < 0.05


def test_a_rule_that_covers_all_or_nothing_does_not_fit():
    maps = [np.zeros((9, 9)), np.zeros((9, 9))]
    assert coverage(maps, "haze", localised=False) == 0
    with pytest.raises(UsageError, match=r"rain covers 0\.0 %"):
        coverage(maps, "rain", localised=True)


# The objective


def batch_of(maps: torch.Tensor, kinds: tuple[str, ...]) -> Batch:
    gt = torch.rand(len(maps), 3, *maps.shape[2:], generator=torch.Generator().manual_seed(0))
    return Batch(gt, gt, Guidance(), Guidance({DAMAGE: Guide(maps=maps, names=kinds)}))


def test_the_loss_is_0_where_the_truth_is_said_and_least_at_the_mean():
    truth = torch.tensor([0.0, 0.25, 1.0])[:, None, None, None].expand(3, 2, 8, 8).clone()
    batch = batch_of(truth, ("rain", "blur"))
    logits = torch.logit(truth, eps=1e-6)
    loss, logs = Masks({"rain": 2.0})(batch, lambda lq, guidance: logits)
    assert loss.shape == (3,) and loss.abs().max() < 1e-4
    assert set(logs) == {"rain", "blur"}
    # Of what is 1 in one pixel of four, a quarter is the best that can be said.
    mixed = torch.zeros(1, 1, 8, 8)
    mixed[..., ::2, ::2] = 1
    batch = batch_of(mixed, ("rain",))

    def at(p: float) -> float:
        said = torch.logit(torch.full((1, 1, 8, 8), p))
        return float(Masks()(batch, lambda lq, guidance: said)[0])

    assert at(0.25) < min(at(0.2), at(0.3))


def test_the_blur_of_a_flat_wall_weighs_little():
    gt = torch.zeros(1, 3, 16, 16)
    gt[..., 8:] = torch.rand(1, 3, 16, 8, generator=torch.Generator().manual_seed(0))
    truth = Guidance({DAMAGE: Guide(maps=torch.ones(1, 1, 16, 16), names=("blur",))})
    batch = Batch(gt, gt, Guidance(), truth)

    def wrong(side: slice) -> float:
        logits = torch.full((1, 1, 16, 16), 9.0)
        logits[..., side] = -9.0
        return float(Masks()(batch, lambda lq, guidance: logits)[0])

    assert wrong(slice(0, 6)) < 0.2 * wrong(slice(10, 16))


def test_a_kind_that_is_none_is_named():
    with pytest.raises(RecipeError, match="Did you mean 'raindrop'"):
        Masks({"raindrops": 1.0})


# From photographs to a prior


def test_samples_tell_what_was_done_and_only_to_the_objective(root):
    photographs = load_photographs(root / "photographs", sizes=1)
    damage = Damage({"noise:sigma=25": 1.0}, (0.0, 1.0))
    told = Damaged(photographs, damage, seed=1, severities=("noise", "rain"))
    batch = told.batch(0, 4, 32)
    assert batch.truth[DAMAGE].names == ("noise", "rain")
    assert torch.equal(batch.truth[DAMAGE].maps[:, 0], torch.full((4, 32, 32), 0.5))
    assert not batch.truth[DAMAGE].maps[:, 1].any() and not batch.guidance
    silent = Damaged(photographs, damage, seed=1).batch(0, 4, 32)
    assert torch.equal(silent.lq, batch.lq) and not silent.truth


def test_the_oracle_of_damage_is_the_physics_of_the_very_crop(root, model):
    photographs = load_photographs(root / "photographs", sizes=1)
    damage = Damage({"scratch:count=40": 1.0}, (0.0, 1.0))
    batches = {
        control: Damaged(
            photographs,
            damage,
            seed=1,
            fixed=1,
            sources={DAMAGE: Source(DamagePrior(model), control)},
        ).batch(0, 6, 48)
        for control in ("none", "oracle")
    }
    assert torch.equal(batches["none"].lq, batches["oracle"].lq)
    oracle = batches["oracle"].guidance[DAMAGE].maps
    assert oracle.shape == (6, 2, 48, 48) and not oracle[:, 0].any()
    moved = (batches["oracle"].lq - batches["oracle"].gt).abs().amax(1) > 2 / 255
    assert (oracle[:, 1] > 0)[moved].float().mean() > 0.99
    assert not torch.equal(batches["none"].guidance[DAMAGE].maps, oracle)


def test_a_mask_network_becomes_a_prior(model):
    card = survey(model).card
    assert card.emits == ("noise", "scratch") and card.support == "local"
    prior = DamagePrior(model)
    rgb = np.random.default_rng(1).random((1, 3, 61, 83), np.float32)
    guide = prior(rgb)
    assert guide.names == ("noise", "scratch") and guide.maps.shape == (1, 2, 61, 83)
    assert 0 <= guide.maps.min() <= guide.maps.max() <= 1
    network, _ = opened(model.with_suffix(".safetensors"))
    with torch.no_grad():
        whole = network.eval()(torch.from_numpy(rgb), Guidance()).numpy()
    np.testing.assert_allclose(guide.maps, whole, atol=1e-5)
    assert prior.identity["model"] == card.digest


@cache
def large() -> np.ndarray:
    return np.random.default_rng(2).random((1, 3, 500, 640), np.float32)


def test_tiles_of_a_mask_network_are_the_whole(model):
    engine = open_engine(model, "onnx")
    whole = engine(large(), Guidance())
    np.testing.assert_allclose(DamagePrior(engine)(large()).maps, whole, atol=1e-5)


def test_neither_is_taken_for_the_other(model):
    with pytest.raises(UsageError, match="restores none"):
        restore(large()[..., :32, :32], model)
    with pytest.raises(UsageError, match="says nothing of damage"):
        DamagePrior("identity")
