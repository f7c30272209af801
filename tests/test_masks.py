"""Where a picture is damaged: what is true, the network that says so, the prior it becomes."""

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_reproduce import Beside

from relume import card as cards
from relume import restore
from relume.card import survey
from relume.engine import SHAPES, open_engine
from relume.errors import ModelError, RecipeError, UsageError
from relume.guidance import Guidance, Guide
from relume.image import Picture, read, write
from relume.lab import weights
from relume.lab.data import DAMAGE, Batch, Damage, Damaged
from relume.lab.degrade import DEGRADATIONS, parse
from relume.lab.export import export, with_card
from relume.lab.finished import begin_with, opened
from relume.lab.objectives.masks import Masks
from relume.lab.photographs import load_photographs
from relume.lab.recipe import Recipe, load
from relume.lab.runs import run_recipe
from relume.lab.sources import Source
from relume.lab.sureness import fitted
from relume.lab.truth import DONE_BY, coverage, severities, visible
from relume.priors.choice import priors_of, settings_of
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


# A restorer that such a network tells where to look; its weights are drawn, not trained.
TOLD = """
name = "tiny-told"
start = "start.safetensors"
[data]
photographs = "photographs"
[data.damage]
"noise:sigma=25" = 1.0
[backbone]
kind = "nafnet"
width = 4
enc_blocks = [1]
middle_blocks = 1
dec_blocks = [1]
attention = "none"
[[adapters]]
kind = "maps"
at = ["intro"]
reads = "damage"
maps = 2
[priors.damage]
model = "masks/model.safetensors"
[priors.damage.folds.0]
model = "without the first half.safetensors"
[priors.damage.folds.1]
model = "without the second half.safetensors"
[objective]
kind = "restoration"
[schedule]
steps = 0
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "photographs").mkdir()
    (folder / "masks.toml").write_text(RECIPE)
    (folder / "told.toml").write_text(TOLD)
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        rgb = np.kron(rng.random((1, 3, 8, 8), np.float32), np.ones((14, 14), np.float32))
        write(Picture.from_rgb(rgb), folder / "photographs" / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def told(root, tmp_path_factory) -> Path:
    """The run of a restorer behind a mask network, trained for three steps, whose own is gone."""
    folder = tmp_path_factory.mktemp("told")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("relume.lab.runs.Loader", Beside)
        patch.chdir(folder)
        run_recipe(load(root / "masks.toml"), folder / "masks", root=root)
        tensors = load(root / "told.toml").build_model().state_dict()
        rng = torch.Generator().manual_seed(1)
        drawn = {k: v + 0.2 * torch.randn(v.shape, generator=rng) for k, v in tensors.items()}
        weights.save(folder / "start.safetensors", drawn, recipe={})
        run_recipe(load(root / "told.toml"), folder / "run", root=root)
    shutil.rmtree(folder / "masks")
    return folder / "run"


@pytest.fixture(scope="module")
def guided(told, tmp_path_factory) -> Path:
    """The restorer's model file, with that of the mask network beside it."""
    path = tmp_path_factory.mktemp("model") / "guided.onnx"
    network, card = opened(told)
    export(network, path, card, source=told)
    return path


@pytest.fixture(scope="module")
def model(guided) -> Path:
    """The mask network's model file."""
    return guided.with_suffix(".damage.onnx")


# What is true


def test_every_damage_has_a_map_or_is_none():
    done = {kind for kinds in DONE_BY.values() for kind in kinds}
    assert set(DONE_BY) == set(KINDS)
    assert done == set(DEGRADATIONS) - {"lens", "resize", "down"}  # softness and size are none


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


# A restorer that it tells


@pytest.fixture
def photograph(tmp_path, photo) -> Path:
    (tmp_path / "gt").mkdir()
    for name in ("a", "b"):
        photo = photo[..., ::-1].copy()
        write(Picture.from_rgb(photo), tmp_path / "gt" / f"{name}.png")
    return tmp_path / "gt/a.png"


def answer(path: Path, rgb: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """What the lab's network makes of a whole picture and such maps, in [0, 1]."""
    network, _ = opened(path.with_suffix(".safetensors"))
    known = Guidance(damage=Guide(maps=torch.from_numpy(maps)))
    with torch.inference_mode():
        return network.eval()(torch.from_numpy(rgb), known).clamp(0, 1).numpy()


def test_the_mask_network_travels_with_the_restorer(told, guided):
    masks = survey(told / "model.damage.safetensors").card
    for path in (told / "model.safetensors", guided, guided.with_suffix(".safetensors")):
        card = survey(path).card
        assert (card.masks, card.masks_name, card.first) == (masks.digest, "", None)
        assert card.beside == {"damage": masks.digest}
    for path in (guided.with_suffix(f".damage.{kind}") for kind in ("onnx", "safetensors")):
        assert survey(path).card.digest == masks.digest
    # Its own model, not those of the folds, which are not even there.
    assert load(told / "recipe.toml").masks == "masks/model.safetensors"


def test_restore_opens_the_mask_network_by_itself(relume, guided, model, told, photograph):
    words = ("restore", photograph, "--model", guided, "--engine", "onnx")
    done = {}
    for prior in ("auto", "damage", "none"):
        code, out, err = relume(*words, "-o", prior, "--prior", prior, "--json")
        assert (code, err) == (0, "")
        (row,) = json.loads(out)["rows"]
        assert (row["prior"], row["announced"]) == ("none" if prior == "none" else "damage", [])
        done[prior] = read(f"{prior}/a.png")
    rgb, maps = read(photograph).rgb(), DamagePrior(model)(read(photograph).rgb()).maps
    step = 1e-5 + 0.5 / 255
    assert np.abs(done["auto"].rgb() - answer(guided, rgb, maps)).max() <= step
    assert np.abs(done["none"].rgb() - answer(guided, rgb, maps * 0)).max() <= step
    assert np.array_equal(done["auto"].pixels, done["damage"].pixels)
    assert not np.array_equal(done["auto"].pixels, done["none"].pixels)

    # The run's own weights, by torch, and the mask network as one's own prior.
    engine = open_engine(told / "model.safetensors")
    assert engine.masks is not None and engine.masks().name == engine.name == "torch"
    assert engine.masks() is engine.masks()
    for result in (
        restore(photograph, engine),
        restore(photograph, guided, prior={"damage": DamagePrior(model)}),
    ):
        assert np.abs(result.picture.rgb() - done["auto"].rgb()).max() <= 1 / 255
        assert (result.prior, result.announced) == ("damage", ())

    code, out, _ = relume(*words, "-o", "dry", "--dry-run", "--json")
    assert code == 0 and json.loads(out)["eta_s"] >= 0


def test_export_measures_tiles_of_what_the_mask_network_says(relume, told, photograph):
    words = ("export", told, "-o", "told.onnx", "--pictures", photograph.parent)
    code, _, err = relume(*words)  # it was asked, and nothing but these small pictures is wrong
    assert code == 2 and "No picture is larger than a tile" in err
    (told / "model.damage.safetensors").rename(told / "moved")
    code, _, err = relume(*words)
    (told / "moved").rename(told / "model.damage.safetensors")
    assert code == 4 and "needs model.damage.safetensors beside it" in err


def test_the_settings_name_the_mask_network(guided, model):
    engine = open_engine(guided, "onnx")
    said = settings_of(priors_of(engine.card, "auto", masks=engine.masks))
    assert said["priors"]["damage"]["model"] == survey(model).card.digest
    assert said["priors"]["damage"]["engine"] == ["onnx", "float32"]
    with pytest.raises(UsageError, match="no mask network goes with it"):
        priors_of(replace(engine.card, masks=None), "auto")


def test_without_its_mask_network_it_restores_untold_or_not_at_all(
    relume, guided, photograph, tmp_path
):
    shutil.copy(guided, tmp_path / "alone.onnx")
    words = ("restore", photograph, "--model", "alone.onnx", "--engine", "onnx", "-o")

    def refused(code: int, hint: str) -> None:
        for more in ((), ("--prior", "damage")):
            got, _, err = relume(*words, "out", *more)
            assert got == code and err.startswith("relume: ") and err.count("\n") == 1, err
            assert hint in err
        evaluated = ("evaluate", "alone.onnx", "--gt", "gt", "--degrade", "noise")
        assert relume(*evaluated, "--engine", "onnx")[0] == code

    refused(4, "needs alone.damage.onnx beside it")
    shutil.copy(guided, tmp_path / "alone.damage.onnx")
    refused(4, "belongs to another model")
    assert relume(*words, "out", "--prior", "none")[0] == 0
    evaluated = ("evaluate", "alone.onnx", "--gt", "gt", "--degrade", "noise", "--prior", "none")
    assert relume(*evaluated, "--engine", "onnx")[0] == 0


def test_a_shipped_mask_network_is_found_by_its_name(
    relume, guided, model, root, photograph, tmp_path, monkeypatch
):
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    monkeypatch.setattr(cards.files, "MODELS", shipped)
    for kind in (".onnx", ".safetensors"):
        for path, name in ((model, "masks"), (model, "told.damage"), (guided, "told")):
            shutil.copy(path.with_suffix(kind), shipped / f"{name}{kind}")
    shutil.copy(model, shipped / "told.first.onnx")
    assert cards.names() == ["masks", "told", "identity", "invert"]
    code, out, _ = relume("models")
    assert code == 0 and "says where there is noise, scratch" in out and "reads damage" in out
    assert "mask network" in relume("models", "show", "masks")[1]
    assert relume("restore", photograph, "-o", "no", "--model", "masks")[0] == 2
    assert relume("evaluate", "masks", "--gt", "gt", "--degrade", "noise")[0] == 2
    (shipped / "told.damage.onnx").unlink()
    assert relume("doctor")[0] == 5  # it says that `told` lacks it

    # A recipe that names it: nothing is copied.
    monkeypatch.chdir(root)
    tensors = load(root / "told.toml").build_model().state_dict()
    weights.save(root / "start.safetensors", tensors, recipe={})
    run_recipe(load("told.toml", ["priors.damage.model=masks"]), tmp_path / "run", root=root)
    assert not list((tmp_path / "run").glob("*.damage.*"))
    card = survey(tmp_path / "run/model.safetensors").card
    assert (card.masks, card.masks_name) == (survey(model).card.digest, "masks")
    assert card.beside == {}

    # A model that names it.
    monkeypatch.chdir(tmp_path)
    with_card(shipped / "told.onnx", replace(survey(guided).card, masks_name="masks"))
    words = ("restore", photograph, "--model", "told", "--engine", "onnx", "--json", "-o")
    code, out, _ = relume(*words, "out")
    assert code == 0 and json.loads(out)["rows"][0]["prior"] == "damage"
    assert open_engine("told", "torch").masks().name == "torch"
    beside = read("out/a.png").pixels
    assert np.array_equal(beside, restore(photograph, open_engine(guided, "onnx")).picture.pixels)
    shutil.copy(guided, shipped / "masks.onnx")
    code, _, err = relume(*words, "other")
    assert code == 4 and "was trained beside tensors" in err and err.count("\n") == 1
    (shipped / "masks.onnx").unlink()
    code, _, err = relume(*words, "other")
    assert code == 5 and "pip install --upgrade relume" in err and err.count("\n") == 1
    assert relume(*words, "other", "--prior", "none")[0] == 0


@pytest.mark.parametrize("shipped", [False, True])
def test_an_adapter_says_who_tells_it(shipped, model, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = load(root / "told.toml").build_model()
    weights.save(tmp_path / "start.safetensors", network.state_dict(), recipe={})
    save_file(network.backbone.state_dict(), tmp_path / "backbone.safetensors")
    changes = [
        "backbone.frozen=true",
        f"backbone.weights={tmp_path / 'backbone.safetensors'}",
        f"priors.damage.model={'masks' if shipped else model}",
    ]
    if shipped:
        monkeypatch.setattr(cards.files, "MODELS", tmp_path / "shipped")
        shutil.copytree(model.parent, tmp_path / "shipped")
        for path in (tmp_path / "shipped").glob("guided.damage.*"):
            path.rename(path.with_name(f"masks{path.suffix}"))
    run_recipe(load(root / "told.toml", changes), tmp_path / "run", root=root)
    _, card = opened(tmp_path / "run/adapter.safetensors", tmp_path / "backbone.safetensors")
    assert card.masks == survey(model).card.digest
    assert card.masks_name == ("masks" if shipped else "")
    assert (tmp_path / "run/adapter.damage.safetensors").is_file() != shipped


def test_evaluate_swaps_what_the_mask_network_says(relume, guided, photograph):
    words = ("evaluate", guided, "--gt", "gt", "--degrade", "noise:sigma=25", "--engine", "onnx")
    names = ["null", "constant", "shuffled", "oracle"]
    code, out, err = relume(*words, "--against", ",".join(names), "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["model"]["priors"]["damage"]["model"] == survey(guided).card.masks
    psnr = {name: report["against"][name]["psnr"]["mean"] for name in names}
    assert len({report["metrics"]["psnr"]["mean"], *psnr.values()}) == 5
    untold = json.loads(relume(*words, "--prior", "none", "--json")[1])
    assert untold["metrics"]["psnr"]["mean"] == pytest.approx(psnr["null"], abs=1e-6)


# How sure a network may be.


def evidence(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logs = rng.uniform(-6, 0, (n, 2))
    odds = 6 + 1.5 * logs[:, 0] + 0.8 * logs[:, 1]
    return logs, rng.random(n) < 1 / (1 + np.exp(-odds))


def test_confidence_is_fitted_to_what_was_there():
    offset, mean, worst = fitted("rain", *evidence(20000))
    assert (offset, mean, worst) == pytest.approx((6, 1.5, 0.8), abs=0.25)


def test_more_evidence_never_means_less_and_few_examples_make_no_certainty():
    logs, there = evidence()
    against = np.column_stack([logs[:, 0], -logs[:, 1]])
    _, mean, worst = fitted("rain", against, there)
    assert mean > 0 and worst == 0
    apart = np.array([[-5.0, -5.0]] * 5 + [[-1.0, -1.0]] * 5)
    offset, mean, worst = fitted("rain", apart, np.arange(10) >= 5)
    assert 0.5 < 1 / (1 + np.exp(-(offset - mean - worst))) < 0.95
    with pytest.raises(UsageError, match="learnt nothing"):
        fitted("rain", -logs, there)
    with pytest.raises(UsageError, match="in 0 of 400"):
        fitted("rain", logs, np.zeros(400, bool))


def test_what_a_start_has_no_adapter_for_begins_as_it_is_drawn(root, tmp_path):
    """relume-s goes on, told where it is damaged: nothing but a whole adapter may be missing."""
    told = load(str(root / "told.toml"), ['start=""'])
    bare = Recipe.model_validate({**told.resolved(), "adapters": [], "priors": {}, "start": ""})
    file = tmp_path / "start.safetensors"
    weights.save(file, weights.to_half(bare.build_model().state_dict()), recipe=bare.resolved())
    model = told.build_model()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    begins = Recipe.model_validate({**told.resolved(), "start": str(file)})
    begin_with(model, begins)
    assert torch.equal(model.adapters["intro"].join.weight, torch.ones(4, 2, 3, 3))
    stored = opened(file)[0].state_dict()
    assert all(torch.equal(model.state_dict()[name], stored[name]) for name in stored)
    weights.save(file, {**stored, "adapters.intro.other": torch.zeros(1)}, recipe=bare.resolved())
    with pytest.raises(ModelError, match="does not fit"):
        begin_with(model, begins)


def test_a_perceiver_begins_with_the_trunk_of_a_mask_network(root, tmp_path):
    masks = load(str(root / "masks.toml"))
    file = tmp_path / "start.safetensors"
    weights.save(file, weights.to_half(masks.build_model().state_dict()), recipe=masks.resolved())
    shape = {k: v for k, v in (masks.backbone.model_extra or {}).items() if k != "emits"}
    recipe = Recipe.model_validate(
        {**masks.resolved(), "backbone": {**shape, "kind": "perceiver"}, "start": str(file)}
    )
    model = recipe.build_model()
    before = model.state_dict()["backbone.embed.weight"].clone()
    begin_with(model, recipe)
    stored = opened(file)[0].state_dict()
    shared = [name for name in stored if name in model.state_dict()]
    assert any(name.startswith("backbone.trunk.") for name in shared)
    assert all(torch.equal(model.state_dict()[name], stored[name]) for name in shared)
    assert torch.equal(model.state_dict()["backbone.embed.weight"], before)
    wider = Recipe.model_validate(
        {**recipe.resolved(), "backbone": {**shape, "kind": "perceiver", "width": 6}}
    )
    with pytest.raises(ModelError, match="does not fit"):
        begin_with(wider.build_model(), wider)


def test_a_network_begins_with_the_mean_of_several(root, tmp_path):
    told = load(str(root / "masks.toml"))
    files = [str(tmp_path / f"{i}.safetensors") for i in range(2)]
    for i, file in enumerate(files):
        tensors = {k: torch.full_like(v, i) for k, v in told.build_model().state_dict().items()}
        weights.save(Path(file), weights.to_half(tensors), recipe=told.resolved())
    both = Recipe.model_validate({**told.resolved(), "start": files})
    assert both.digest != told.digest
    model = both.build_model()
    begin_with(model, both)
    for name, value in model.state_dict().items():
        half = 0.5 if value.is_floating_point() else 0
        assert torch.equal(value, torch.full_like(value, half)), name
    wider = Recipe.model_validate(
        {**told.resolved(), "backbone": {**told.resolved()["backbone"], "width": 6}}
    )
    weights.save(
        Path(files[1]), weights.to_half(wider.build_model().state_dict()), recipe=wider.resolved()
    )
    with pytest.raises(ModelError, match="no mean of them"):
        begin_with(model, both)
    with pytest.raises(UsageError, match="begins with nobody"):
        begin_with(model, Recipe.model_validate({**told.resolved(), "start": ["nobody", files[0]]}))


def test_a_folder_of_many_sizes_keeps_few_graphs(model):
    engine = open_engine(model, "openvino")
    prior = DamagePrior(engine)
    for side in range(16, 16 + 4 * (SHAPES + 3), 4):
        prior(np.zeros((1, 3, side, side), np.float32))
    assert len(engine._compiled) == SHAPES
