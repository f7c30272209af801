"""Models guided by regions, from recipe to exported files: what they read, prepare, refuse."""

import json
import shutil
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from relume.card import Card, survey
from relume.engine import open_engine
from relume.errors import GuidanceError, ModelError, RecipeError
from relume.guidance import Guidance, Guide
from relume.image import Picture, read, write, write_gray16
from relume.lab import weights
from relume.lab.engine import TorchEngine
from relume.lab.export import described, export
from relume.lab.finished import attach, backbone_digest, load_backbone, restorer_of, save_adapter
from relume.lab.reach import measure_reach
from relume.lab.recipe import Recipe
from relume.lab.restorer import Restorer
from relume.lab.runs import run_recipe
from relume.priors.choice import priors_of
from relume.priors.own import of_labels
from relume.priors.regions import RegionsPrior
from relume.restoration import look, restore, run_model
from relume.tiling import plan

BACKBONE = {
    "kind": "nafnet",
    "width": 8,
    "enc_blocks": [1, 1],
    "middle_blocks": 1,
    "dec_blocks": [1, 1],
    "attention": "none",
}
SYSTEMS = {
    "sam-deblur": {
        "encoders": {"means": {"kind": "region_means"}},
        "adapters": [{"kind": "map", "reads": "means"}],
    },
    "concat": {"adapters": [{"kind": "concat", "reads": "regions"}]},
    "stages": {
        "encoders": {"rows": {"kind": "region_statistics"}},
        "adapters": [
            {"kind": "region_shift", "reads": "rows", "at": ["encoder.0", "middle", "decoder.1"]}
        ],
    },
    "spt": {
        "encoders": {"rows": {"kind": "region_statistics", "dim": 12}},
        "adapters": [{"kind": "spt", "reads": "rows", "at": ["encoder.1", "decoder.0"]}],
    },
    "slots": {
        "encoders": {"rows": {"kind": "mask_slots", "dim": 12, "slots": 8}},
        "adapters": [{"kind": "spt", "reads": "rows", "at": ["encoder.1", "decoder.0"]}],
    },
}


def recipe(system: str, **changes) -> Recipe:
    return Recipe.model_validate(
        {
            "name": system,
            "data": {"photographs": "p", "validation": "v", "damage": {"noise": 1.0}, "fixed": 2},
            "backbone": BACKBONE,
            "objective": {"kind": "restoration"},
            "schedule": {"steps": 1},
            **SYSTEMS[system],
            **changes,
        }
    )


def restorer(system: str) -> Restorer:
    """With weights that are not zero where training starts at zero: the guidance must count."""
    model = recipe(system).build_model().eval()
    rng = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if not parameter.any():
            parameter.data.normal_(0, 0.3, generator=rng)
    return model


def blocks(height: int, width: int, seed: int = 0) -> Guidance:
    """Labels 1..20 in blocks of 8 pixels."""
    rng = np.random.default_rng(seed)
    small = rng.integers(1, 21, (-(-height // 8), -(-width // 8)))
    labels = np.kron(small, np.ones((8, 8), int))[:height, :width]
    return Guidance(regions=Guide(regions=labels[None].astype(np.int32)))


@cache
def exported_model(system: str) -> tuple[Path, Restorer]:
    """Exported once in a session: its .onnx, and the network."""
    path = Path(mkdtemp(prefix=f"{system}-")) / "guided.onnx"
    model = restorer(system)
    export(model, path, Card("guided", recipe=recipe(system).resolved()))  # checks 5 sizes
    return path, model


def answer(path: Path, rgb: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What the lab's network itself makes of a whole picture and its regions, in [0, 1]."""
    network = restorer_of(weights.load(path.with_suffix(".safetensors"))).eval()
    known = Guidance(regions=Guide(regions=torch.from_numpy(labels[None].astype(np.int32))))
    with torch.inference_mode():
        return network(torch.from_numpy(rgb), known).clamp(0, 1).numpy()


@pytest.fixture(params=sorted(SYSTEMS))
def exported(request) -> tuple[Path, Restorer]:
    return exported_model(request.param)


def test_one_card_and_a_file_that_prepares_where_there_are_rows(exported):
    path, model = exported
    card = survey(path).card
    assert card == survey(path.with_suffix(".safetensors")).card
    assert [r.prior for r in card.reads] == ["regions"]
    assert [r.prior for r in card.prepared] == [r.prior for r in model.prepared]
    assert path.with_suffix(".prepare.onnx").is_file() == bool(model.prepared)


@pytest.mark.parametrize("name", ["onnx", "openvino", "torch"])
def test_tiles_equal_the_whole_picture(exported, name):
    if name == "openvino":
        pytest.importorskip("openvino")
    path, _ = exported
    engine = open_engine(path, name)
    rng = np.random.default_rng(2)
    picture, known = rng.random((1, 3, 96, 120), np.float32), blocks(96, 120)
    ready = engine.prepare(picture, known)
    sizes = {"multiple_of": engine.card.multiple_of, "overlap": engine.card.overlap}
    whole = plan(96, 120, **sizes, tile=4096).run(picture, ready, engine)
    tiled = plan(96, 120, **sizes, tile=48 + 2 * engine.card.overlap).run(picture, ready, engine)
    assert np.abs(tiled - whole).max() <= 1e-5
    other = engine.prepare(picture, blocks(96, 120, seed=5))
    told = plan(96, 120, **sizes, tile=4096).run(picture, other, engine)
    assert np.abs(told - whole).max() > 1e-3  # the regions count


def test_the_whole_way_from_a_photograph(exported, photo):
    pytest.importorskip("skimage")
    path, _ = exported
    guided = restore(photo, str(path))
    blind = restore(photo, str(path), prior="none")
    assert (guided.prior, blind.prior) == ("regions", "none")
    assert not np.array_equal(guided.picture.pixels, blind.picture.pixels)


# Somebody's own regions.

STEP = 1e-5 + 0.5 / 65535  # what a graph may differ by, and what 16 bits round


def test_ones_own_regions_tell_the_network_what_they_tell_in_the_lab(
    exported, relume, photo, tmp_path
):
    path, _ = exported
    write(Picture.from_rgb(photo, bits=16), tmp_path / "a.png")
    labels = blocks(96, 128)["regions"].array[0]
    labels[:20] = 0  # nobody drew there
    write_gray16(labels, tmp_path / "mine.png")
    words = ("restore", "a.png", "-o", "out", "--model", path, "--engine", "onnx")
    code, out, err = relume(*words, "--regions", "mine.png", "--json")
    assert (code, err) == (0, "")
    (row,) = json.loads(out)["rows"]
    assert row["prior"] == "own"
    assert row["announced"] == [
        "your own masks stand in the place of regions, which guided was trained with"
    ]
    rgb, told = read(tmp_path / "a.png").rgb(), read(tmp_path / "out/a.png")
    assert np.abs(told.rgb() - answer(path, rgb, labels)).max() <= STEP
    assert np.abs(told.rgb() - answer(path, rgb, labels * 0)).max() > 1e-3

    guide, _ = of_labels(labels, 96, 128)
    for regions in (labels, guide, tmp_path / "mine.png"):
        result = restore(tmp_path / "a.png", open_engine(path, "onnx"), regions=regions)
        assert np.array_equal(result.picture.pixels, told.pixels)
        assert (result.prior, list(result.announced)) == ("own", row["announced"])


def test_own_regions_that_are_the_priors_change_no_byte(exported, relume, photo, tmp_path):
    pytest.importorskip("skimage")
    path, _ = exported
    write(Picture.from_rgb(photo), tmp_path / "a.png")
    write_gray16(RegionsPrior()(read(tmp_path / "a.png").rgb()).array[0], tmp_path / "same.png")
    words = ("restore", "a.png", "--model", path)
    assert relume(*words, "-o", "found", "--prior", "regions")[::2] == (0, "")
    code, _, err = relume(*words, "-o", "told", "--regions", "same.png")
    assert code == 0
    assert err.count("\n") == 1
    assert "own masks stand in the place of regions" in err
    relume(*words, "-o", "none", "--prior", "none")
    found, told, none = ((tmp_path / f / "a.png").read_bytes() for f in ("found", "told", "none"))
    assert found == told != none


def test_other_masks_make_another_job(relume, photo, tmp_path):
    path, _ = exported_model("sam-deblur")
    write(Picture.from_rgb(photo), tmp_path / "a.png")
    write_gray16(np.array([[1, 2]]), tmp_path / "mine.png")
    words = ("restore", "a.png", "-o", "out", "--model", path, "--regions", "mine.png", "--json")
    done = [json.loads(relume(*words)[1]) for _ in range(2)]
    assert [d["restored"] for d in done] == [1, 0]
    assert done[1]["rows"][0]["message"] == "already done"
    first = (tmp_path / "out/a.png").read_bytes()
    (tmp_path / "mine.png").unlink()
    write_gray16(np.array([[1], [2]]), tmp_path / "mine.png")
    code, _, err = relume(*words)
    assert code == 1
    assert "other settings" in err
    assert relume(*words, "--overwrite")[0] == 0
    assert (tmp_path / "out/a.png").read_bytes() != first


def test_a_picture_without_masks_is_refused_and_the_batch_goes_on(relume, photo, tmp_path):
    path, _ = exported_model("sam-deblur")
    (tmp_path / "masks/b").mkdir(parents=True)
    for name in ("a", "b", "c"):
        (tmp_path / "in").mkdir(exist_ok=True)
        write(Picture.from_rgb(photo), tmp_path / "in" / f"{name}.png")
    for row in range(2):  # a folder of masks
        mask = np.zeros((2, 1), np.int32)
        mask[row] = 65535
        write_gray16(mask, tmp_path / "masks/b" / f"{row}.png")
    runs = [{"size": [96, 128], "counts": [0, 96 * 64, 96 * 64]}]
    (tmp_path / "masks/c.json").write_text(json.dumps(runs))
    words = ("restore", "in", "-o", "out", "--model", path, "--regions", "masks", "--json")
    code, out, err = relume(*words)
    document = json.loads(out)
    assert code == 1
    assert (document["restored"], document["refused"]) == (2, 1)
    assert err.startswith("relume: in/a.png: masks holds no masks called a.regions.png")
    assert err.count("\n") == 1
    one, other = (read(tmp_path / "out" / name).pixels for name in ("b.png", "c.png"))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (("--model", "identity", "--regions", "m.png"), 2, "does not read the prior 'regions'"),
        (("--model", "identity", "--regions", "m.png"), 2, "leave --regions out"),
        (("--model", "identity", "--sam", "folder"), 2, "does not read the prior 'sam'"),
        (("--model", "identity", "--prior", "sam"), 2, "does not read the prior 'sam'"),
        (("--prior", "sam"), 2, "--prior sam and --sam FOLDER or HUB_ID go together"),
        (("--prior", "regions", "--sam", "folder"), 2, "--prior sam or auto"),
        (("--prior", "sam", "--sam", "folder"), 5, "folder: there is no such folder"),
        (("--sam", "folder", "--regions", "m.png"), 2, "give one of them"),
        (("--prior", "none", "--regions", "m.png"), 2, "use --prior auto"),
        (("--regions", "no.png"), 2, "no.png: there are no masks"),
        (("--regions", "colour.png"), 1, "masks are gray"),
    ],
)
def test_region_flags_that_do_not_fit_are_one_line(relume, photo, tmp_path, words, code, hint):
    path, _ = exported_model("sam-deblur")
    write(Picture.from_rgb(photo), tmp_path / "a.png")
    write(Picture.from_rgb(photo), tmp_path / "colour.png")
    write_gray16(np.array([[1, 2]]), tmp_path / "m.png")
    model = () if "--model" in words else ("--model", path)
    got, _, err = relume("restore", "a.png", "-o", "out", *model, *words)
    assert got == code
    assert err.startswith("relume: ") and err.count("\n") == 1, err
    assert hint in err
    assert not list((tmp_path / "out").glob("*.png"))


def test_evaluate_takes_the_priors_of_restore(relume, photo, tmp_path):
    pytest.importorskip("skimage")
    path, _ = exported_model("sam-deblur")
    (tmp_path / "gt").mkdir()
    write(Picture.from_rgb(photo), tmp_path / "gt/a.png")
    words = ("evaluate", path, "--gt", "gt", "--degrade", "noise:sigma=25", "--engine", "onnx")
    found = {}
    for prior in ("auto", "regions", "none"):
        code, out, err = relume(*words, "--prior", prior, "--json")
        assert (code, err) == (0, "")
        found[prior] = json.loads(out)
    assert [found[p]["model"]["prior"] for p in found] == ["regions", "regions", "none"]
    psnr = {prior: report["metrics"]["psnr"]["mean"] for prior, report in found.items()}
    assert psnr["auto"] == psnr["regions"] != psnr["none"]
    assert relume(*words, "--prior", "thumbnail")[0] == 2


def test_a_network_claims_the_reach_it_has(exported):
    _, model = exported
    assert measure_reach(model) <= model.reach


def test_a_model_without_its_preparer_is_refused(exported, tmp_path):
    path, model = exported
    if not model.prepared:
        pytest.skip("this one prepares nothing")
    alone = shutil.copy(path, tmp_path / "alone.onnx")
    with pytest.raises(ModelError, match=r"needs alone\.prepare\.onnx beside it"):
        open_engine(alone)
    other = restorer("sam-deblur" if path.parent.name.startswith("s") else "stages")
    for parameter in other.parameters():
        parameter.data *= 1.01
    export(other, tmp_path / "other.onnx", Card("other"))
    shutil.copy(tmp_path / "other.prepare.onnx", tmp_path / "alone.prepare.onnx")
    with pytest.raises(ModelError, match="belongs to another model"):
        open_engine(alone)


def test_a_model_takes_along_the_one_that_runs_first(relume, photo, tmp_path):
    """Trained behind a run, exported, carried off: whoever looks sees the first model's output."""
    pytest.importorskip("skimage")
    (tmp_path / "p").mkdir()
    write(Picture.from_rgb(photo), tmp_path / "p/a.png")
    brief = {
        "schedule": {"steps": 1, "batch": 1, "crop": 32, "precision": "float32"},
        "data": {"photographs": "p", "damage": {"noise": 1.0}, "counts": [0, 1], "fixed": 1},
    }
    before = recipe("sam-deblur", **brief, seed=3)
    behind = {"regions": {"after": str(run_recipe(before, tmp_path / "one", root=tmp_path))}}
    run_recipe(recipe("sam-deblur", **brief, priors=behind), tmp_path / "two", root=tmp_path)
    shutil.rmtree(tmp_path / "one")

    words = ("export", tmp_path / "two", "-o", "away/guided.onnx", "--pictures", tmp_path / "p")
    code, _, err = relume(*words)
    assert code == 2 and "No picture is larger than a tile" in err
    write(Picture.from_rgb(np.tile(photo, (1, 1, 3, 3))), tmp_path / "p/a.png")
    code, _, err = relume(*words)
    assert (code, err) == (0, "")
    shutil.rmtree(tmp_path / "two")
    shutil.copytree(tmp_path / "away", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "away")
    path = tmp_path / "elsewhere/guided.onnx"
    for engine in ("onnx", "torch"):
        opened = open_engine(path, engine, threads=1)
        assert opened.first is not None and opened.first.name == engine
        seen, _ = run_model(photo, opened.first, priors_of(opened.first.card, "auto"))
        known = look(photo, opened.card, priors_of(opened.card, "auto"), opened.first)
        wanted = RegionsPrior()(np.clip(seen, 0, 1)).regions
        assert np.array_equal(known["regions"].regions, wanted)
    assert restore(photo, path).announced == ()

    other = shutil.copy(exported_model("concat")[0], path.with_suffix(".first.onnx"))
    assert relume("restore", tmp_path / "p/a.png", "-o", "out", "--model", path)[0] == 4
    Path(other).unlink()
    code, _, err = relume("restore", tmp_path / "p/a.png", "-o", "out", "--model", path)
    assert code == 4 and err.count("\n") == 1
    assert "needs guided.first.onnx beside it" in err


def test_a_tile_that_nobody_prepared_is_refused(exported):
    path, model = exported
    if not model.prepared:
        pytest.skip("this one prepares nothing")
    engine, tile = open_engine(path, "onnx"), np.zeros((1, 3, 32, 32), np.float32)
    with pytest.raises(GuidanceError, match="Call `prepare` first"):
        engine(tile, blocks(32, 32))


def test_tiles_of_a_network_that_looks_at_the_whole_picture_do_not_show(photo):
    model = recipe("concat", backbone={**BACKBONE, "attention": "global"}).build_model().eval()
    rng = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if not parameter.any():
            parameter.data.normal_(0, 0.3, generator=rng)
    card = described(model, Card("global"), weights.to_half(model.state_dict()))
    assert card.support == "global"
    engine = TorchEngine(model, card)
    smooth = photo.repeat(3, axis=2).repeat(3, axis=3)
    steps = {}
    for overlap, side in ((0, 4096), (0, 128), (card.overlap, 128 + 2 * card.overlap)):
        tiles = plan(*smooth.shape[2:], multiple_of=card.multiple_of, overlap=overlap, tile=side)
        out = tiles.run(smooth, Guidance(), engine)
        steps[overlap, side] = np.square(np.diff(out, axis=3)).mean((0, 1, 2)), tiles
    whole, _ = steps.pop((0, 4096))
    (bare, tiles), (told, context) = steps.values()

    def seams(energy, tiles):
        middles = [(b + a + tiles.tile[1]) // 2 - 1 for a, b in pairwise(tiles.lefts)]
        return energy[middles].sum() / whole[middles].sum()

    assert seams(told, context) < 1.02 < seams(bare, tiles)


# Many, one, none.


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_any_number_of_regions(exported, count):
    path, _ = exported
    engine = open_engine(path, "onnx")
    labels = np.arange(96 * 96).reshape(1, 96, 96) % max(count, 1) + 1
    labels = (labels if count else labels * 0).astype(np.int32)
    picture = np.random.default_rng(0).random((1, 3, 96, 96), np.float32)
    known = engine.prepare(picture, Guidance(regions=Guide(regions=labels)))
    assert np.isfinite(engine(picture, known)).all()


# Frozen backbones.


def trained_backbone(path: Path) -> Path:
    """Weights in a file of their own, as other people publish them."""
    save_file(restorer("concat").backbone.state_dict(), path)
    return path


def test_an_adapter_file_names_its_backbone_and_refuses_another(tmp_path):
    made = recipe("spt", backbone={**BACKBONE, "frozen": True, "weights": "b.safetensors"})
    model = made.build_model()
    plain = Recipe.model_validate(made.model_dump() | {"adapters": [], "encoders": {}})
    weights = tmp_path / "b.safetensors"
    save_file(restorer("spt").backbone.state_dict(), weights)
    load_backbone(model, weights)
    learns = [name for name, p in model.named_parameters() if p.requires_grad]
    assert learns and not any(name.startswith("backbone.") for name in learns)
    save_adapter(tmp_path / "adapter.safetensors", model, made)
    again = attach(tmp_path / "adapter.safetensors", weights)
    assert backbone_digest(again) == backbone_digest(model)
    lq, known = (
        torch.rand(1, 3, 16, 16),
        Guidance(regions=Guide(regions=torch.ones(1, 16, 16).int())),
    )
    alone = plain.build_model()
    load_backbone(alone, weights)
    assert torch.equal(again.eval()(lq, known), alone.eval()(lq, Guidance()))  # step 0: identity
    other = {k: v + 0.01 for k, v in model.backbone.state_dict().items()}
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="was trained beside a backbone"):
        attach(tmp_path / "adapter.safetensors", tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="does not fit the recipe's backbone"):
        load_backbone(model, trained_backbone(tmp_path / "wide.safetensors"))


# Recipes.


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"adapters": [{"kind": "map", "reads": "mean"}]}, "no encoder is called 'mean'"),
        (
            {"adapters": [{"kind": "map", "reads": "means", "at": ["middle"]}]},
            "map joins the picture: leave `at` out",
        ),
        (
            {"adapters": [{"kind": "region_shift", "reads": "means"}]},
            "region_shift",
        ),
    ],
)
def test_a_recipe_that_wires_wrongly_is_one_line(changes, says):
    with pytest.raises(RecipeError, match=says):
        recipe("sam-deblur", **changes).build_model()


def test_priors_of_a_recipe():
    made = recipe("sam-deblur", priors={"regions": {"control": "shuffled", "dropout": 0.1}})
    (source,) = made.build_sources().values()
    assert (source.control, source.dropout, source.prior.spec) == ("shuffled", 0.1, "regions")
    with pytest.raises(RecipeError, match="the network does not read it"):
        recipe("sam-deblur", priors={"thumbnail": {}}).build_sources()
    with pytest.raises(RecipeError, match="Did you mean 'shuffled'"):
        recipe("sam-deblur", priors={"regions": {"control": "shufled"}}).build_sources()
