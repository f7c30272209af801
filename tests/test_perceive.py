"""Perceive-IR's restorer in parts: the same parts on any backbone, trained, frozen and exported."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import dino_folder

from relume.card import Card, survey
from relume.engine import open_engine
from relume.errors import CheckError, GuidanceError, ModelError, RecipeError, ShapeError
from relume.guidance import Guidance, Guide
from relume.lab import recipe, weights
from relume.lab.adapters import ADAPTERS
from relume.lab.backbones import BACKBONES
from relume.lab.controls import CONTROLS
from relume.lab.encoders import ENCODERS
from relume.lab.encoders.controlled import STAND_INS
from relume.lab.encoders.dino import MEAN, squeezed
from relume.lab.export import export
from relume.lab.finished import begin_with
from relume.lab.restorer import Restorer, as_tensors


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def stirred(module, scale=0.2):
    """Moved off every start, so that no zero there hides what a part does."""
    rng = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data += scale * torch.randn(parameter.shape, generator=rng)
    return module


def drawn(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def thumbnails(n, seed=2):
    return Guidance(thumbnail=Guide(maps=drawn(n, 3, 96, 96, seed=seed), whole=True))


LEVELS = {"enc_blocks": (1,), "middle_blocks": 1, "dec_blocks": (1,)}
THREE = ("middle", "decoder.0", "encoder.0")
BODIES = {
    "nafnet": ({"width": 8, "attention": "none", **LEVELS}, THREE),
    "restormer": ({"width": 8, "heads": (1, 2), "refinement": 0, **LEVELS}, THREE),
    "unet": ({"width": 8, "enc_convs": (1,), "middle_convs": 1, "dec_convs": (1,)}, THREE),
    "guest": (
        {
            **{"architecture": "SwinIR", "embed_dim": 8, "depths": [1] * 3, "num_heads": [2] * 3},
            **{"window_size": 4, "mlp_ratio": 2.0, "img_size": 16},
            **{"upscale": 2, "upsampler": "pixelshuffledirect"},
        },
        ("layers.2", "layers.1", "layers.0"),
    ),
}


def perceiving(kind, variant="paper", *, frozen=False):
    """A backbone told by a code and by semantics, two pgca and one prompt in its sites."""
    arguments, sites = BODIES[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = BACKBONES[kind](**arguments)
        encoders = {
            "code": ENCODERS["degradation"](dim=12, width=8, variant=variant),
            "semantics": ENCODERS["semantics"](dim=8, width=4, frozen=frozen),
        }
        told = {"reads": ("semantics", "code"), "variant": variant}

        def channels(site):
            return backbone.sites[site].channels

        deep, shallow, last = sites
        adapters = {
            deep: ADAPTERS["pgca"](channels(deep), (8, 12), heads=2, level=3, **told),
            shallow: ADAPTERS["pgca"](
                channels(shallow), (8, 12), level=1, residual="fixed", expansion=2, **told
            ),
            last: ADAPTERS["prompt"](channels(last), (8, 12), level=0, **told),
        }
    if frozen:
        backbone.requires_grad_(False)
    return Restorer(backbone, encoders, adapters)


# On any backbone


@pytest.mark.parametrize("kind", sorted(BODIES))
def test_the_same_parts_learn_beside_any_frozen_backbone(kind):
    if kind == "guest":
        pytest.importorskip("spandrel")
    model = perceiving(kind, frozen=True).train()
    for part in (model.backbone, model.encoders["semantics"]):
        assert not any(module.training for module in part.modules())
    for part in (model.encoders["code"], model.adapters):
        assert all(module.training for module in part.modules())

    lq, known = drawn(2, 3, 16, 24), thumbnails(2)
    plain = model.backbone(lq).image
    assert torch.equal(model(lq, known), plain)  # a new part changes nothing

    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    learns = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in learns} == {"encoders", "adapters"}
    # Decay moves whatever it is given, with a gradient or without.
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1
    )
    wanted, met = drawn(*plain.shape, seed=3), set()
    for _ in range(4):
        optimizer.zero_grad()
        (model(lq, known) - wanted).square().mean().backward()
        grads = {name: p.grad for name, p in model.named_parameters()}
        met |= {name for name, g in grads.items() if g is not None and g.any()}
        optimizer.step()
    assert met == learns
    still = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    assert still == set(before) - learns
    assert torch.equal(model.backbone(lq).image, plain)
    assert not torch.equal(model(lq, known), plain)


def test_a_backbone_that_learns_is_trained():
    model = perceiving("nafnet").train()
    assert all(module.training for module in model.modules())
    assert not any(module.training for module in model.eval().modules())


def test_what_a_tile_is_told_is_what_the_whole_picture_said():
    model = stirred(perceiving("unet")).eval()
    del model.adapters["middle"], model.adapters["decoder_0"]  # what is left is local: a prompt
    model._at = {"encoder.0": "encoder_0"}
    assert (model.support, model.reach) == ("local", model.backbone.reach)
    lq, known = drawn(1, 3, 48, 48), thumbnails(1)
    whole, ready = model(lq, known), model.prepare(lq, known)
    assert ready["code"].vector.shape == (1, 12)
    far = model.reach
    part = model(lq[..., 8:40, 8:40], ready)[..., far:-far, far:-far]
    torch.testing.assert_close(part, whole[..., 8 + far : 40 - far, 8 + far : 40 - far])
    alone = model(lq[..., 8:40, 8:40], known)[..., far:-far, far:-far]
    assert (alone - part).abs().max() > 1e-3  # the tile's own code is another


@pytest.mark.parametrize("control", ["null", "constant", "shuffled"])
def test_controls_stand_in_for_what_encoders_say(control):
    model = stirred(perceiving("nafnet")).eval()
    lq, names = drawn(1, 3, 16, 16), ("code", "semantics")

    def said(seed):
        known = thumbnails(1, seed)
        known = model.prepare(drawn(1, 3, 16, 16, seed=seed), known)
        known = known.with_guide("semantics", model.encoders["semantics"](lq, known))
        return Guidance({n: known[n].map(lambda t: t.detach().numpy()) for n in names})

    own, donor = said(1), said(5)
    other = CONTROLS[control](own, Guidance(), donor, torch.Generator())
    assert other["semantics"].array.shape[1] == (1 if control == "null" else 4)
    out, told = (
        model(lq, Guidance({**thumbnails(1), **as_tensors(guidance)})) for guidance in (own, other)
    )
    assert torch.isfinite(told).all()
    assert (out - told).abs().max() > 1e-3
    torch.testing.assert_close(out, model(lq, thumbnails(1, seed=1)))


# The parts


@pytest.mark.parametrize("size", [(8, 8), (8, 40), (24, 16), (3, 5)])
@pytest.mark.parametrize("variant", ["paper", "release"])
@pytest.mark.parametrize("residual", ["paper", "fixed"])
def test_pgca_attends_over_channels_at_any_size(size, variant, residual):
    form = {"variant": variant, "residual": residual, "heads": 3, "reads": ("code",)}
    block = stirred(ADAPTERS["pgca"](12, (5,), **form)).double()
    x, z = torch.randn(2, 12, *size, dtype=torch.double), torch.randn(2, 5, dtype=torch.double)
    known = Guidance(code=Guide(vector=z))
    y = block.prompt(x, known)
    ly, lx = block.norm_y(y), block.norm_x(x)
    q, k, v = (
        part[1](part[0](seen)).flatten(2).unflatten(1, (3, 4))
        for part, seen in ((block.query, ly), (block.key, lx), (block.value, lx))
    )
    q, k = q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True)
    near = torch.softmax(block.temperature * torch.einsum("nhcp,nhdp->nhcd", q, k), -1)
    assert near.shape == (2, 3, 4, 4)  # C/heads x C/heads, whatever the size
    found = block.out(torch.einsum("nhcd,nhdp->nhcp", near, v).flatten(1, 2).unflatten(2, size))
    if variant == "release":
        found = block.again(block.norm_again(found))
    wanted = (y if residual == "paper" else x) + found
    torch.testing.assert_close(block(x, known), wanted)


@pytest.mark.parametrize("variant", ["paper", "release"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_bf16_the_feature_keeps_its_type(variant, dtype):
    form = {"variant": variant, "expansion": 2, "heads": 3, "reads": ("code",)}
    block = stirred(ADAPTERS["pgca"](12, (5,), **form))
    x, known = torch.randn(1, 12, 16, 16).to(dtype), Guidance(code=Guide(vector=torch.randn(1, 5)))
    with torch.autocast("cpu", torch.bfloat16):
        out = block(x, known)
    assert out.dtype == dtype and out.isfinite().all()
    exact = block(x.float(), known)
    assert (out - exact).abs().max() <= 0.05 * exact.abs().max()  # a dozen roundings of 2^-8


def test_a_prompt_is_the_papers_or_the_releases():
    x, tokens, z = torch.randn(2, 6, 4, 5), torch.randn(2, 4, 3), torch.randn(2, 5)
    known = Guidance(semantics=Guide(tokens=tokens), code=Guide(vector=z))
    told = torch.cat([tokens[:, 2], z], 1)
    reads = {"reads": ("semantics", "code"), "level": 2}

    paper = stirred(ADAPTERS["prompt"](6, (3, 5), **reads))
    gamma, beta = (
        F.linear(F.linear(told, b[0].weight, b[0].bias), b[2].weight[..., 0, 0], b[2].bias)
        for b in (paper.gamma, paper.beta)
    )
    wanted = x * gamma[..., None, None] + beta[..., None, None]
    torch.testing.assert_close(paper(x, known), wanted)

    release = stirred(ADAPTERS["prompt"](6, (3, 5), variant="release", **reads))
    hidden = F.gelu(F.linear(told, release.both[0].weight, release.both[0].bias))
    assert hidden.shape == (2, 12)
    both = F.linear(hidden, release.both[2].weight, release.both[2].bias)[..., None, None]
    torch.testing.assert_close(release(x, known), x * (1 + both[:, :6]) + both[:, 6:])


def test_a_prompt_refuses_what_it_cannot_read():
    prompt = ADAPTERS["prompt"](6, (3,), reads=("semantics",), level=4)
    for guide in (Guide(tokens=torch.zeros(1, 4, 3)), Guide(vector=torch.zeros(1, 4))):
        with pytest.raises(GuidanceError, match="row 4 of tokens, of 3 numbers"):
            prompt(torch.zeros(1, 6, 4, 4), Guidance(semantics=guide))
    for kind, form, says in (
        ("prompt", {"variant": "papers"}, "Did you mean 'paper'"),
        ("prompt", {"reads": ("a", "b")}, "got 1 and 2"),
        ("pgca", {"residual": "fix"}, "Did you mean 'fixed'"),
    ):
        with pytest.raises(RecipeError, match=says):
            ADAPTERS[kind](6, (3,), **{"reads": ("semantics",), **form})
    with pytest.raises(ShapeError, match="4 heads do not divide 6 channels"):
        ADAPTERS["pgca"](6, (3,), reads=("semantics",), heads=4)


def test_a_code_is_the_figures_or_the_releases():
    view = drawn(2, 3, 24, 33)
    paper = stirred(ENCODERS["degradation"](dim=7, width=4, blocks=1))
    lead, block = paper.features
    x = lead(view - 0.5)
    x = x + block.body[2](F.leaky_relu(block.body[0](x), 0.1))
    z = paper.head[2](F.leaky_relu(paper.head[0](x.mean((2, 3))), 0.1))
    torch.testing.assert_close(paper(view, Guidance()).vector, z)

    release = ENCODERS["degradation"](variant="release")
    shapes = [tuple(p.shape) for p in release.features.parameters() if p.ndim == 4]
    assert shapes == [(32, 3, 3, 3), (64, 32, 3, 3), (96, 64, 3, 3), (128, 96, 3, 3)]
    z = release(view, Guidance()).vector
    x = release.head(release.features(view - 0.5).mean((2, 3)))
    torch.testing.assert_close(z, x / x.norm(dim=1, keepdim=True))
    assert z.shape == (2, 128)
    with pytest.raises(RecipeError, match="Did you mean 'release'"):
        ENCODERS["degradation"](variant="realease")


def test_semantics_are_the_same_whatever_crop_asks():
    encoder, known = ENCODERS["semantics"](dim=8, width=4), thumbnails(2)
    one, other = (encoder(drawn(2, 3, *size), known).tokens for size in ((8, 8), (24, 16)))
    assert one.shape == (2, 4, 8)
    assert torch.equal(one, other)
    assert not torch.allclose(one[:, 0], one[:, 3])  # each depth says something else


# DINOv2


def test_dino_gives_the_cls_tokens_of_its_layers(monkeypatch):
    transformers = pytest.importorskip("transformers")
    encoder = ENCODERS["dino"](weights=str(dino_folder()), depths=(0.01, 0.5, 1.0), side=56)
    assert encoder.taps == [1, 2, 4] and (encoder.dim, encoder.shape) == (16, (3, 16))
    assert ENCODERS["dino"](weights=str(dino_folder()), side=28).taps == [1, 2, 3, 4]
    view = drawn(2, 3, 40, 64)
    tokens = encoder(view, Guidance()).tokens
    theirs = transformers.Dinov2Model.from_pretrained(dino_folder(), attn_implementation="eager")
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, (0.229, 0.224, 0.225)))
    pixels = (squeezed(view, 56) - mean) / deviation
    states = theirs.eval()(pixels, output_hidden_states=True).hidden_states
    wanted = torch.stack([states[depth][:, 0] for depth in (1, 2, 4)], 1)
    torch.testing.assert_close(tokens, wanted, atol=1e-5, rtol=1e-5)
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())


@pytest.mark.parametrize("size", [(64, 100), (224, 30), (500, 211)])
def test_a_picture_is_squeezed_as_an_antialiased_bicubic_resize_does(size):
    picture = drawn(1, 3, *size)
    wanted = F.interpolate(picture, (112, 112), mode="bicubic", antialias=True, align_corners=False)
    torch.testing.assert_close(squeezed(picture, 112), wanted, atol=1e-4, rtol=0)


def test_dino_without_its_weights_is_one_line(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(ModelError, match="weights of DINOv2 cannot be loaded") as caught:
        ENCODERS["dino"](weights=str(tmp_path))
    assert "\n" not in str(caught.value)
    for wrong, says in (({"side": 30}, "a multiple of the patch"), ({"depths": (1, 0.5)}, "rise")):
        with pytest.raises(RecipeError, match=says):
            ENCODERS["dino"](weights=str(dino_folder()), **wrong)


@pytest.mark.parametrize("control", STAND_INS)
def test_what_stands_in_for_an_encoder_knows_nothing_of_the_picture(control):
    pytest.importorskip("transformers")
    words = [f'encoders.semantics.weights="{dino_folder()}"', "encoders.semantics.side=28",
             "backbone.width=8", "backbone.enc_blocks=[1,1,1]", "backbone.dec_blocks=[1,1,1]",
             "backbone.middle_blocks=1", "backbone.refinement=1"]  # fmt: skip
    plain = recipe.load("perceive-ir", words)
    told = recipe.load("perceive-ir", [*words, f'encoders.semantics.control="{control}"'])
    assert plain.digest != told.digest
    own, other = plain.build_model().encoders["semantics"], told.build_model()
    encoder = other.encoders["semantics"]
    views = drawn(3, 3, 32, 32)
    truth = own(views, Guidance()).tokens
    said = encoder(views, Guidance()).tokens
    assert torch.equal(encoder.of(views, Guidance()).tokens, truth)
    wanted = {
        "null": torch.zeros_like(truth),
        "constant": own(torch.full_like(views, 0.5), Guidance()).tokens,
        "shuffled": truth[[2, 0, 1]],
    }[control]
    torch.testing.assert_close(said, wanted, atol=1e-5, rtol=1e-5)
    # It is trained, prepared and measured like the encoder itself.
    assert other.prepared == plain.build_model().prepared
    other.train()
    assert not any(p.requires_grad for p in encoder.parameters())
    assert other(views, Guidance()).shape == views.shape


def test_an_encoder_that_reads_a_prior_is_controlled_by_the_prior():
    for words, says in (
        (["encoders.semantics.control=null"], "reads thumbnail. Give the control to that"),
        (["encoders.code.control=nul"], "Did you mean 'null'"),
    ):
        with pytest.raises(RecipeError, match=says) as caught:
            recipe.load("perceive-ir-toy", words).build_model()
        assert "\n" not in str(caught.value)


# Exported


@pytest.mark.parametrize(
    ("kind", "variant"), [("nafnet", "paper"), ("restormer", "release")], ids=str
)
def test_the_exported_files_compute_what_the_network_computes(kind, variant, tmp_path):
    model = perceiving(kind, variant)
    del model.adapters["decoder_0"], model._at["decoder.0"]  # one pgca and one prompt will do
    model = stirred(model, scale=0.05).eval()
    model.load_state_dict(weights.to_half(model.state_dict()))
    path = tmp_path / "perceiving.onnx"
    card = export(model, path, Card("perceiving"))  # compares them at five sizes, to 1e-5
    assert card == survey(path).card
    assert card.support == "global"
    (prepared,), (reads,) = card.prepared, card.reads
    assert (prepared.prior, prepared.kind, prepared.shape) == ("code", "vector", (12,))
    assert reads.prior == "thumbnail"

    engine = open_engine(path, "onnx", threads=1)
    rng = np.random.default_rng(0)
    picture, other = rng.random((1, 3, 40, 56), np.float32), np.zeros((1, 3, 24, 32), np.float32)
    known = thumbnails(1).map(lambda g: g.map(lambda t: t.numpy()))
    tile = picture[..., 8:24, 16:48]
    outs = []
    for view in (picture, other):  # a tile, told of the whole picture and of another
        ready = engine.prepare(view, known)
        own = model.prepare(torch.from_numpy(view), as_tensors(known))["code"].vector
        np.testing.assert_allclose(ready["code"].vector, own.detach(), atol=1e-5)
        wanted = model(torch.from_numpy(tile), as_tensors(ready)).detach().numpy()
        outs.append(engine(tile, ready))
        assert np.abs(outs[-1] - wanted).max() <= 1e-4
    assert np.abs(outs[0] - outs[1]).max() > 1e-3  # what is prepared counts
    with pytest.raises(GuidanceError, match="needs code of the whole picture"):
        engine(tile, known)
    with pytest.raises(CheckError, match="prepared code that is not finite"):
        engine.prepare(picture * np.float32(np.nan), known)


# Recipes


def test_the_toy_is_small_and_starts_as_its_backbone():
    made = recipe.load("perceive-ir-toy")
    model = made.build_model()
    assert sum(p.numel() for p in model.parameters()) <= 400_000
    prompts = {
        site: getattr(model.adapters[key], "prompt", model.adapters[key])
        for site, key in model._at.items()
    }
    levels = {site: prompt.level for site, prompt in prompts.items()}
    assert levels == {"middle": 3, "decoder.2": 2, "decoder.1": 1, "decoder.0": 0}
    lq, known = drawn(1, 3, 16, 16), thumbnails(1)
    assert torch.equal(model(lq, known), model.backbone(lq).image)
    assert list(made.build_sources()) == ["thumbnail"]


def test_it_can_begin_with_a_network_that_was_told_nothing(tmp_path):
    made = recipe.load("perceive-ir-toy")
    plain = recipe.Recipe.model_validate(made.model_dump() | {"adapters": [], "encoders": {}})
    before = stirred(plain.build_model())
    path = tmp_path / "plain.safetensors"
    weights.save(path, before.state_dict(), recipe=plain.resolved(), half=False)
    model = made.build_model()
    begin_with(model, recipe.load("perceive-ir-toy", [f"start={path}"]))
    lq = drawn(1, 3, 16, 16)
    assert torch.equal(model(lq, thumbnails(1)), before(lq, Guidance()))


def toy(adapters):
    return recipe.load("perceive-ir-toy", [f"adapters={adapters}"])


def test_a_recipe_says_one_name_or_a_list_and_old_ones_keep_their_digest():
    one = toy('[{kind="film", reads="code", at=["middle"]}]')
    assert one.resolved()["adapters"] == [{"kind": "film", "reads": "code", "at": ["middle"]}]
    both = toy('[{kind="prompt", reads=["code", "semantics"], at=["middle"]}]')
    assert both.resolved()["adapters"][0]["reads"] == ["code", "semantics"]
    assert both.build_model().adapters["middle"].dims == (128, 32)
    assert one.build_model().adapters["middle"].dim == 128


@pytest.mark.parametrize(
    ("adapters", "says"),
    [
        ('{kind="film", reads=["code", "semantics"], at=["middle"]}', "film reads one, got code, "),
        ('{kind="prompt", reads=["code", "semantic"], at=["middle"]}', "Did you mean 'semantics'"),
        ('{kind="prompt", reads="thumbnail", at=["middle"]}', "no encoder is called 'thumbnail'"),
        (
            '{kind="prompt", reads="code", at=["middle"]}, {kind="film", reads="code", '
            'at=["decoder.0", "middle"]}',
            "two adapters stand at 'middle'",
        ),
    ],
)
def test_adapters_that_read_wrongly_are_one_line(adapters, says):
    with pytest.raises(RecipeError, match=says):
        toy(f"[{adapters}]").build_model()
    with pytest.raises(RecipeError, match="adapters"):
        toy('[{kind="prompt", reads=[], at=["middle"]}]')
