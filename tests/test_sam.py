"""Segment Anything with tiny random models: transformers' own generator, the cache, the weights."""

import json
import sys

import numpy as np
import pytest
import torch
from test_guided import STEP, answer, exported_model, recipe, restorer

from relume.engine import open_engine
from relume.errors import MissingError, ModelError, ShapeError, UsageError
from relume.image import Picture, read, write
from relume.lab import weights as stored_weights
from relume.lab.export import described
from relume.lab.finished import card_of
from relume.lab.recipe import load
from relume.lab.sam import (
    _points,
    _shown,
    open_sam,
    sam_of,
    segment_everything,
    suppress,
)
from relume.lab.sam_decoder import share_picture
from relume.priors.cache import Cache
from relume.priors.regions import partition
from relume.priors.sam import Everything, SamPrior, find_weights
from relume.restoration import restore

transformers = pytest.importorskip("transformers")

SIDE = 128  # of the tiny models' square; their logits are 32 x 32


def lively(model, seed: int):
    """Weights of unit gain, so that logits and scores spread as a trained model's do."""
    rng = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        spread = 0.1 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
        draw = torch.randn(parameter.shape, generator=rng)
        parameter.data = (parameter.data if parameter.ndim < 2 else 0) + spread * draw
    return model.eval()


def tiny(kind: str, seed: int = 0):
    t = transformers
    decoder = {
        "hidden_size": 32,
        "mlp_dim": 64,
        "num_attention_heads": 4,
        "iou_head_hidden_dim": 32,
    }
    prompt = {"hidden_size": 32, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 4}
    if kind in ("sam2", "sam2_video"):
        backbone = {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 12,
            "num_attention_heads": 1,
            "image_size": [SIDE, SIDE],
            "blocks_per_stage": [1, 1, 2, 1],
            "embed_dim_per_stage": [12, 24, 48, 96],
            "num_attention_heads_per_stage": [1, 2, 4, 8],
            "global_attention_blocks": [3],
        }
        vision = {
            "backbone_config": backbone,
            "backbone_channel_list": [96, 48, 24, 12],
            "backbone_feature_sizes": [[SIDE // s] * 2 for s in (4, 8, 16)],
            "fpn_hidden_size": 32,
        }
        config = t.Sam2Config(
            vision_config={"model_type": "sam2_vision_model", **vision},
            mask_decoder_config=decoder,
            prompt_encoder_config=prompt,
        )
        return lively(t.Sam2Model(config), seed)
    vision = {"hidden_size": 32, "output_channels": 32, "num_hidden_layers": 2, "image_size": SIDE}
    vision |= {"num_attention_heads": 2, "global_attn_indexes": [1], "num_pos_feats": 16}
    vision |= {"mlp_dim": 64, "patch_size": 16, "window_size": 7}
    if kind == "sam_hq":
        decoder["vit_dim"] = 32
    one = {"sam": t.SamConfig, "sam_hq": t.SamHQConfig}[kind]
    config = one(vision_config=vision, mask_decoder_config=decoder, prompt_encoder_config=prompt)
    return lively({"sam": t.SamModel, "sam_hq": t.SamHQModel}[kind](config), seed)


KINDS = ("sam", "sam_hq", "sam2")
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def picture():
    """picture(H, W): coloured discs on a gradient, (1, 3, H, W)."""

    def draw(height: int, width: int) -> np.ndarray:
        rng = np.random.default_rng(height * width)
        y, x = np.mgrid[:height, :width].astype(np.float32)
        rgb = np.stack([x / width, y / height, 0 * x + 0.5])
        for _ in range(8):
            centre, radius = rng.uniform(0, (height, width)), rng.uniform(0.05, 0.25) * height
            inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
            rgb[:, inside] = rng.random((3, 1))
        # 8-bit levels, as the generator of transformers is given them
        return (np.round(rgb * 255) / 255).astype(np.float32)[None]

    return draw


@every_kind
def test_sharing_the_picture_changes_no_answer(kind):
    model = tiny(kind)
    embedded = model.get_image_embeddings(torch.randn(1, 3, SIDE, SIDE))
    given = {"image_embeddings": embedded}
    if kind == "sam_hq":
        given = {"image_embeddings": embedded[0], "intermediate_embeddings": embedded[1]}
    points = SIDE * torch.rand(1, 5, 1, 2, generator=torch.Generator().manual_seed(1))
    labels = torch.ones(1, 5, 1, dtype=torch.long)

    def ask():
        with torch.no_grad():
            out = model(input_points=points, input_labels=labels, **given)
        return out.pred_masks, out.iou_scores

    before = ask()
    share_picture(model.mask_decoder.transformer)
    first, again = ask(), ask()  # the second has the places' encodings remembered
    assert before[0].std() > 0.1
    for a, b, c in zip(before, first, again, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4)
        assert torch.equal(b, c)


def focused(model):
    """The model, its logits lifted around each point: random masks, but local and of three sizes.

    What random weights alone draw reaches from edge to edge, and one mask suppresses all others.
    """

    def lift(_, args, given, out):
        points = given["input_points"][0, :, 0]  # (P, 2)
        low = out.pred_masks.shape[-1]
        at = (torch.arange(low) + 0.5) * SIDE / low
        off = (at[None, None] - points[:, :1, None]) ** 2 + (
            at[None, :, None] - points[:, 1:, None]
        ) ** 2
        radius = SIDE * torch.tensor([0.08, 0.16, 0.3])
        sharp = 20 + 80 * (points.sum(1) * 0.618 % 1)  # some are stable, some are not, some almost
        lifted = 1 - off[:, None] / radius[:, None, None].square()
        out.pred_masks.add_(sharp[:, None, None, None] * lifted)

    model.register_forward_hook(lift, with_kwargs=True)
    return model


def generated(model, kind, rgb, settings: Everything):
    """The masks (M, H, W) of transformers' own generator."""
    pytest.importorskip("torchvision")
    from PIL import Image

    if kind == "sam2":
        processor = transformers.Sam2ImageProcessor(size={"height": SIDE, "width": SIDE})
    else:
        from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

        square = {"height": SIDE, "width": SIDE}
        processor = SamImageProcessorPil(size={"longest_edge": SIDE}, pad_size=square)
    pipeline = transformers.MaskGenerationPipeline(model=model, image_processor=processor)
    said = pipeline(
        Image.fromarray((rgb[0].transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8)),
        points_per_crop=settings.grid,
        points_per_batch=64,
        pred_iou_thresh=settings.predicted_iou,
        stability_score_thresh=settings.stability,
        stability_score_offset=settings.offset,
        crops_nms_thresh=settings.overlap,
    )
    return np.stack([np.asarray(mask) for mask in said["masks"]])


def best_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over the masks of `a` of the IoU with the one of `b` that fits best."""
    a, b = (x.reshape(len(x), -1).astype(np.float32) for x in (a, b))
    common = a @ b.T
    return float((common / (a.sum(1)[:, None] + b.sum(1) - common)).max(1).mean())


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("sam", (96, 128)),
        ("sam", (200, 150)),
        ("sam", (60, 90)),
        ("sam_hq", (96, 128)),
        ("sam2", (128, 128)),
        ("sam2", (200, 200)),
    ],
)
def test_our_masks_are_those_of_transformers_generator(kind, size, picture):
    rgb = picture(*size)
    model = focused(tiny(kind, seed=3))
    settings = Everything(grid=8, predicted_iou=0.05)  # random weights promise little
    theirs = generated(model, kind, rgb, settings)
    ours = segment_everything(sam_of(model), rgb, settings)
    layers = ours.layers()
    assert layers.shape[1:] == size
    assert len(theirs) > 20
    assert len(layers) == pytest.approx(len(theirs), rel=0.05)
    assert best_iou(theirs, layers) >= 0.98
    assert best_iou(layers, theirs) >= 0.98


def test_logits_beyond_half_precision_are_masks_too(picture):
    def masks(strength: float) -> np.ndarray:
        model = tiny("sam")

        def louder(_, given, out):
            out.pred_masks.mul_(strength)

        model.register_forward_hook(louder)
        settings = Everything(grid=2, predicted_iou=-9.0, stability=0.0, overlap=2.0)
        return segment_everything(sam_of(model), picture(60, 90), settings).layers()

    loud = masks(1e8)
    assert loud.any((1, 2)).all()  # infinities would have left nothing
    assert best_iou(loud, masks(1e9)) > 0.99


def test_sam_sees_red_as_red():
    red = np.zeros((1, 3, 40, 60), np.float32)
    red[:, 0] = 1
    x, used = _shown(sam_of(tiny("sam")), red)
    assert used == (85, 128)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    wanted = [(v - m) / s for v, m, s in zip((1, 0, 0), mean, std, strict=True)]
    assert x[0, :, 10, 10].tolist() == pytest.approx(wanted, abs=1e-5)
    assert not x[:, :, 85:].any()  # padding is the mean colour


def test_points_reach_all_of_a_long_picture():
    # transformers' own generator leaves the lower part of SAM 2's square without a point.
    for kind, used in (("sam", (64, 128)), ("sam2", (128, 128))):
        _, filled = _shown(sam_of(tiny(kind)), np.zeros((1, 3, 50, 100), np.float32))
        assert filled == used
        points = _points(4, filled)[0, :, 0]
        assert points[:4, 0].tolist() == [16, 48, 80, 112]
        assert points[::4, 1].tolist() == [used[0] * (i + 0.5) / 4 for i in range(4)]


def test_suppression_is_what_one_by_one_gives():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 30, (200, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0, 25, (200, 2))], 1)
    alive = rng.random(200) < 0.8
    kept: list[int] = []
    for i in np.flatnonzero(alive):
        low = np.maximum(boxes[i, :2], boxes[kept, :2])
        high = np.minimum(boxes[i, 2:], boxes[kept, 2:])
        common = np.prod(np.clip(high - low, 0, None), 1)
        areas = np.prod(boxes[kept, 2:] - boxes[kept, :2], 1)
        mine = np.prod(boxes[i, 2:] - boxes[i, :2])
        if not (common / (mine + areas - common) > 0.3).any():
            kept.append(int(i))
    assert np.flatnonzero(suppress(boxes, alive, 0.3)).tolist() == kept
    assert not suppress(np.zeros((0, 4)), np.zeros(0, bool), 0.3).size


# The prior, from a folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "tiny"
    tiny("sam", seed=3).save_pretrained(folder)
    return folder


@pytest.fixture
def sam(weights, tmp_path):
    """sam(**more) -> a prior over the tiny model that keeps every mask, with its cache."""

    def make(**more):
        settings = {"grid": 4, "predicted_iou": -9.0, "stability": 0.0, "overlap": 2.0, **more}
        return SamPrior(weights, cache=Cache(tmp_path / "cache"), **settings)

    return make


def test_a_second_look_makes_no_call_of_the_model(sam, picture, monkeypatch):
    rgb = picture(60, 90)
    first, later = sam(), sam()
    guide = first(rgb)
    assert first.calls == 1
    first(rgb)
    assert first.calls == 1
    monkeypatch.setitem(sys.modules, "relume.lab.sam", None)  # what runs models is out of reach
    assert np.array_equal(later(rgb).array, guide.array)
    assert later.calls == 0
    other = sam(gives="layers")
    assert len(other(rgb).array[0]) == len(later.masks(rgb))
    assert other.calls == 0  # kept are the masks, not one form of them


def test_other_settings_weights_or_pixels_are_looked_at_anew(sam, picture, weights, tmp_path):
    rgb = picture(60, 90)
    sam()(rgb)
    for prior, seen in ((sam(grid=3), rgb), (sam(), rgb[..., ::-1])):
        prior(seen)
        assert prior.calls == 1
    other = tmp_path / "other"
    tiny("sam", seed=4).save_pretrained(other)
    assert SamPrior(other, cache=Cache(tmp_path / "c")).identity != sam().identity
    moved = tmp_path / "moved"
    tiny("sam", seed=3).save_pretrained(moved)
    again = SamPrior(moved, cache=Cache(tmp_path / "c"), **vars(sam().settings))
    assert again.identity == sam().identity  # where they lie does not matter


def test_regions_layers_and_tokens_belong_together(sam, picture):
    rgb = picture(60, 90)
    labels = sam()(rgb).array
    layers = sam(gives="layers")(rgb).array
    tokens = sam(gives="tokens")(rgb)
    assert labels.shape == (1, 60, 90)
    assert labels.dtype == np.int32
    assert layers.shape[1] > 3
    assert np.array_equal(partition(layers), labels)
    assert tokens.array.shape == (1, layers.shape[1] + 2, 3)
    assert tokens.names == ("predicted_iou", "stability", "area")
    assert tokens.array[0, 2:, 2] == pytest.approx(layers[0].mean((1, 2)), abs=1e-6)
    falling = tokens.array[0, 2:, 0]
    assert (np.diff(falling) <= 0).all()
    assert sam(most=2, gives="layers")(rgb).array.shape[1] == 2


def test_masks_of_a_large_picture_are_drawn_no_larger_than_max_side(sam, picture):
    rgb = picture(90, 130)
    prior = sam(max_side=65)
    assert prior.masks(rgb).size == (45, 65)
    assert prior(rgb).array.shape == (1, 90, 130)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2)])
def test_sam_speaks_of_pictures_of_any_size(sam, size):
    guide = sam()(np.full((1, 3, *size), 0.5, np.float32))
    assert guide.array.shape == (1, *size)


def test_where_no_mask_is_sure_there_is_one_region(sam, picture):
    prior = sam(predicted_iou=1e9)
    assert set(prior(picture(60, 90)).array.flat) == {1}
    assert prior.masks(picture(60, 90)).layers().shape == (0, 60, 90)


@every_kind
def test_every_kind_opens_from_its_folder(kind, tmp_path, picture):
    model = tiny(kind)
    model.save_pretrained(tmp_path / "m")
    if kind == "sam2":  # what the published SAM 2 models say of themselves
        path = tmp_path / "m" / "config.json"
        said = json.loads(path.read_text()) | {"model_type": "sam2_video"}
        path.write_text(json.dumps(said))
    settings = {"grid": 3, "predicted_iou": -9.0, "stability": 0.0, "overlap": 2.0}
    prior = SamPrior(tmp_path / "m", cache=Cache(tmp_path / "c"), **settings)
    masks = prior.masks(picture(60, 90))
    direct = segment_everything(sam_of(model), picture(60, 90), Everything(**settings))
    assert len(masks) > 2
    assert np.array_equal(masks.layers(), direct.layers())


def test_a_models_own_mean_and_spread_are_taken(weights):
    (weights / "preprocessor_config.json").write_text('{"image_mean": [0, 0, 0]}')
    try:
        opened = open_sam(weights)
    finally:
        (weights / "preprocessor_config.json").unlink()
    assert opened.mean == (0, 0, 0)
    assert opened.std == (0.229, 0.224, 0.225)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_missed_before_the_weights_are_read(weights):
    assert SamPrior(weights).device == "auto"
    with pytest.raises(MissingError, match="torch sees no GPU here"):
        open_sam(weights, "gpu")


# What can be missing


def refused(source, kind=MissingError, **more) -> str:
    with pytest.raises(kind) as error:
        find_weights(source, **more)
    words = str(error.value)
    assert "\n" not in words
    return words


def copy(weights, folder):
    folder.mkdir()
    for file in weights.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_a_whole_folder_is_found(weights):
    assert find_weights(weights) == weights


def test_a_part_of_a_folder_is_refused_in_one_line(weights, tmp_path):
    assert "--sam" in refused(None)
    assert "no such folder" in refused(tmp_path / "nowhere")
    (tmp_path / "weights").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert "no such folder" in refused("weights/sam")  # a path, not a hub model
    assert "config.json" in refused(tmp_path / "weights")

    bare = copy(weights, tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    assert "model.safetensors" in refused(bare)
    (bare / "pytorch_model.bin").write_bytes(b"x")
    assert "code" in refused(bare, ModelError)

    cut = copy(weights, tmp_path / "cut")
    data = (cut / "model.safetensors").read_bytes()
    for length in (len(data) - 1, 100, 4, 0):
        (cut / "model.safetensors").write_bytes(data[:length])
        assert "in full" in refused(cut)

    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (cut / "model.safetensors.index.json").write_text(json.dumps(index))
    (cut / "model-1.safetensors").write_bytes(data)
    assert "model-2.safetensors" in refused(cut)

    other = copy(weights, tmp_path / "other")
    (other / "config.json").write_text('{"model_type": "clip"}')
    assert "'clip'" in refused(other, ModelError)


def test_a_hub_model_without_the_network_is_one_line(monkeypatch):
    asked = []

    def offline(name, *, local_files_only, **_):
        asked.append(local_files_only)
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    assert "--sam nobody/sam fetches it" in refused("nobody/sam")
    assert asked == [True]  # the network is not touched unless it may be
    assert "network" in refused("nobody/sam", network=True)
    assert asked == [True, True, False]


def test_a_hub_model_that_is_here_in_part_is_fetched_again(monkeypatch, weights, tmp_path):
    (tmp_path / "part").mkdir()
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda name, *, local_files_only, **_: tmp_path / "part" if local_files_only else weights,
    )
    assert "config.json" in refused("nobody/sam")
    assert find_weights("nobody/sam", network=True) == weights


def test_weights_of_another_model_are_refused(weights, tmp_path):
    wrong = copy(weights, tmp_path / "wrong")
    tiny("sam_hq").save_pretrained(tmp_path / "hq")
    said = json.loads((tmp_path / "hq" / "config.json").read_text())
    (wrong / "config.json").write_text(json.dumps(said))
    with pytest.raises(ModelError, match="missing") as error:
        open_sam(wrong)
    assert "\n" not in str(error.value)


def test_settings_that_cannot_be_are_an_error(sam):
    for wrong in ({"gives": "maps"}, {"grid": 0}, {"max_side": 0}):
        with pytest.raises(UsageError):
            sam(**wrong)
    with pytest.raises(ShapeError):
        sam()(np.zeros((2, 3, 8, 8), np.float32))


def test_segment_looks_through_sam(weights, tmp_path, relume, photo, monkeypatch):
    monkeypatch.setenv("RELUME_CACHE", str(tmp_path / "cache"))
    write(Picture.from_rgb(photo), tmp_path / "a.png")
    code, _, err = relume("segment", "a.png", "-o", "out", "--prior", "sam", "--sam", weights)
    assert (code, err) == (0, "")
    assert read("out/a.regions.png").pixels.min() >= 1
    said = json.loads(
        relume("segment", "a.png", "-o", "b", "--prior", "sam", "--sam", weights, "--json")[1]
    )
    assert said["settings"]["prior"] == "sam"
    assert str(tmp_path) not in json.dumps(said["settings"])
    code, _, err = relume("segment", "a.png", "-o", "c", "--prior", "sam", "--sam", tmp_path)
    assert code == 5
    assert err.count("\n") == 1
    assert not (tmp_path / "c").exists()


# SAM at use: in the place of a guided model's regions


@pytest.fixture(scope="module")
def confident(tmp_path_factory):
    """confident(seed) -> a folder of a tiny SAM whose masks are sure and stable enough to be kept
    at the settings that are published."""

    def make(seed=3):
        model = tiny("sam", seed=seed)
        decoder = model.mask_decoder
        decoder.iou_prediction_head.proj_out.bias.data += 9
        for head in decoder.output_hypernetworks_mlps:
            head.proj_out.weight.data *= 1000
            head.proj_out.bias.data *= 1000
        folder = tmp_path_factory.mktemp("confident")
        model.save_pretrained(folder)
        return folder

    return make


def test_restore_looks_through_sam(confident, tmp_path, relume, photo):
    folder, other = confident(3), confident(5)
    path, _ = exported_model("sam-deblur")
    write(Picture.from_rgb(photo, bits=16), tmp_path / "a.png")
    rgb = read(tmp_path / "a.png").rgb()
    labels = SamPrior(folder)(rgb).array[0]
    assert len(np.unique(labels)) > 1
    words = ("restore", "a.png", "-o", "out", "--model", path, "--engine", "onnx")
    told = (*words, "--prior", "sam", "--sam", folder)
    code, out, err = relume(*told)
    assert (code, out) == (0, "out/a.png\n")
    line = "SAM's regions stand in the place of regions, which guided was trained with"
    assert err == f"relume: out/a.png: {line}\n"
    made = read(tmp_path / "out/a.png")
    assert np.abs(made.rgb() - answer(path, rgb, labels)).max() <= STEP
    assert np.abs(made.rgb() - answer(path, rgb, labels * 0 + 1)).max() > 1e-3

    # Other weights are another job; where they lie is no matter.
    again = json.loads(relume(*told, "--json")[1])["rows"][0]
    assert (again["message"], again["prior"]) == ("already done", "sam")
    moved = copy(folder, tmp_path / "moved")
    assert json.loads(relume(*words, "--sam", moved, "--json")[1])["skipped"] == 1
    code, _, err = relume(*words, "--sam", other)
    assert code == 1
    assert "other settings" in err

    library = restore(tmp_path / "a.png", open_engine(path, "onnx"), prior="sam", sam=folder)
    assert np.array_equal(library.picture.pixels, made.pixels)
    assert (library.prior, library.announced) == ("sam", (line,))

    (tmp_path / "gt").mkdir()
    write(read(tmp_path / "a.png"), tmp_path / "gt/a.png")
    code, out, err = relume(
        *("evaluate", path, "--gt", "gt", "--lq", "gt", "--engine", "onnx", "--json"),
        *("--prior", "sam", "--sam", folder),
    )
    assert code == 0
    assert err == f"relume: {line}\n"
    said = json.loads(out)["model"]
    assert said["prior"] == "sam"
    assert said["priors"]["regions"] == SamPrior(folder).identity


def test_one_sam_serves_all_pictures_of_a_job(confident, tmp_path, relume, photo, monkeypatch):
    from relume.lab import sam as lab_sam

    path, _ = exported_model("sam-deblur")
    (tmp_path / "in").mkdir()
    for name, rgb in (("a", photo), ("b", photo[..., ::-1].copy())):
        write(Picture.from_rgb(rgb), tmp_path / "in" / f"{name}.png")
    opened = []
    monkeypatch.setattr(lab_sam, "open_sam", lambda *a, **k: opened.append(a) or open_sam(*a, **k))
    monkeypatch.setenv("RELUME_CACHE", str(tmp_path / "cache"))
    words = ("restore", "in", "-o", "out", "--model", path, "--sam", confident(3), "--json")
    assert json.loads(relume(*words)[1])["restored"] == 2
    assert len(opened) == 1


def reads_sam(folder, **row):
    """A recipe whose network reads `sam`, and its finished weights in a file."""
    made = recipe("concat", adapters=[{"kind": "concat", "reads": "sam"}], priors={"sam": row})
    model = made.build_model()
    model.load_state_dict(restorer("concat").state_dict())  # the same but for the map's name
    halves = stored_weights.to_half(model.state_dict())
    card = described(model, card_of(made.resolved()), halves)
    path = folder / "sam.safetensors"
    stored_weights.save(path, halves, recipe=made.resolved(), card=card)
    return made, path


def test_a_recipe_names_sam_with_its_arguments(weights, tmp_path, picture):
    row = {"source": str(weights), "grid": 4, "predicted_iou": -9.0, "stability": 0.0}
    made, _ = reads_sam(tmp_path, **row, overlap=2.0, dropout=0.25)
    (tmp_path / "r.toml").write_text(made.toml())
    recipe = load(tmp_path / "r.toml")
    source, prior = recipe.build_sources()["sam"], recipe.build_prior("sam", recipe.priors["sam"])
    assert isinstance(prior, SamPrior)
    assert (prior.settings.grid, prior.settings.overlap) == (4, 2.0)
    assert (source.dropout, prior.network) == (0.25, False)
    assert source.prior.identity == prior.identity
    rgb = picture(60, 90)
    wanted = SamPrior(weights, grid=4, predicted_iou=-9.0, stability=0.0, overlap=2.0)(rgb)
    assert len(np.unique(wanted.array)) > 1
    assert np.array_equal(source.prior(rgb).array, wanted.array)


def test_a_model_that_reads_sam_needs_its_weights_and_is_told_by_them(
    confident, tmp_path, relume, photo
):
    _, path = reads_sam(tmp_path)
    write(Picture.from_rgb(photo), tmp_path / "a.png")
    words = ("restore", "a.png", "-o", "out", "--model", path)
    code, out, err = relume(*words)
    assert (code, out) == (5, "")
    assert "--sam FOLDER or HUB_ID" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    code, out, err = relume(*words, "--sam", confident(3), "--json")
    assert (code, err) == (0, "")
    (row,) = json.loads(out)["rows"]
    assert (row["prior"], row["announced"]) == ("sam", [])  # it is what the model reads


def test_no_network_but_for_a_hub_model_that_is_not_here(tmp_path, relume, photo, monkeypatch):
    asked = []

    def hub(name, *, local_files_only, **_):
        asked.append((name, local_files_only))
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    path, _ = exported_model("sam-deblur")
    write(Picture.from_rgb(photo), tmp_path / "a.png")
    words = ("restore", "a.png", "-o", "out", "--model", path)
    assert relume(*words, "--prior", "none")[0] == 0
    assert asked == []
    code, _, err = relume(*words, "--sam", "nobody/sam", "--dry-run")
    assert (code, asked) == (5, [("nobody/sam", True)])  # a dry run fetches nothing
    code, _, err = relume(*words, "--sam", "nobody/sam")
    assert (code, asked[1:]) == (5, [("nobody/sam", True), ("nobody/sam", False)])
    assert err.count("\n") == 1
