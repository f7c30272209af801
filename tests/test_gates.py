"""What is told where a picture is damaged: gates and context aggregation, law by law."""

import math

import pytest
import torch
import torch.nn.functional as F

from relume.card import Card, survey
from relume.engine import open_engine
from relume.errors import GuidanceError
from relume.guidance import Guidance, Guide
from relume.lab import recipe
from relume.lab.adapters import Context, Gate
from relume.lab.adapters.gate import maps_at
from relume.lab.backbones.nafnet import NAFNet
from relume.lab.export import SIZES, difference, export
from relume.lab.reach import measure_reach
from relume.lab.restorer import Restorer


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def stirred(module, seed=0):
    """With weights drawn anew, so that no zero at the start hides what a block does."""
    rng = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        fan = parameter[0].numel() if parameter.ndim > 1 else 4
        parameter.data.normal_(0, 1 / math.sqrt(fan), generator=rng)
    return module.eval()


def drawn(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def damage(maps):
    return Guidance(damage=Guide(maps=maps))


KINDS = {
    "gated": lambda stride=1, maps=1: Gate(8, stride, reads="damage", maps=maps),
    "hard": lambda stride=1, maps=1: Gate(8, stride, reads="damage", maps=maps, hard=True),
    "ungated": lambda stride=1, maps=1: Gate(8, stride, reads="damage", maps=maps, gated=False),
    "context": lambda stride=1, maps=1: Context(8, stride, reads="damage", maps=maps, every=8),
}


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_each_starts_as_the_identity_and_says_what_it_reads(kind, stride):
    adapter = KINDS[kind](stride, maps=3)
    feat, maps = torch.randn(2, 8, 8, 12), drawn(2, 3, 8 * stride, 12 * stride)
    assert torch.equal(adapter(feat, damage(maps)), feat)
    (reads,) = adapter.asks
    assert (reads.prior, reads.kind, reads.shape) == ("damage", "maps", (3, 0, 0))
    assert (adapter.support == "global") == (kind == "context")


@pytest.mark.parametrize("kind", ["hard", "context"])
@pytest.mark.parametrize("stride", [1, 2])
def test_where_nothing_is_degraded_the_feature_passes_unchanged(kind, stride):
    adapter, feat = stirred(KINDS[kind](stride, maps=2)), torch.randn(2, 8, 16, 16)
    maps = torch.zeros(2, 2, 16 * stride, 16 * stride)
    assert torch.equal(adapter(feat, damage(maps)), feat)
    maps[:, 1, : 5 * stride, 3 * stride : 7 * stride] = 0.5  # one of the maps is enough
    moved = (adapter(feat, damage(maps)) != feat).any(1)
    assert moved[:, :5, 3:7].all() and moved.sum() == 2 * 5 * 4


def test_a_thin_streak_opens_the_gate_of_its_cell():
    maps = torch.zeros(1, 1, 32, 32)
    maps[..., 13] = 1
    assert maps_at(maps, 8, (4, 4))[0, 0, 0].tolist() == [0, 1, 0, 0]
    assert maps_at(maps, 8, (4, 4), mean=True)[0, 0, 0].tolist() == [0, 1 / 8, 0, 0]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_maps_go_on_where_the_backbone_padded_the_picture(kind):
    adapter, feat = stirred(KINDS[kind](4)), torch.randn(1, 8, 4, 4)
    maps = drawn(1, 1, 13, 14)
    whole = F.pad(maps, (0, 2, 0, 3), mode="replicate")
    assert torch.equal(adapter(feat, damage(maps)), adapter(feat, damage(whole)))


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize(
    "guide",
    [
        Guide(maps=torch.zeros(1, 2, 8, 8)),
        Guide(maps=torch.zeros(1, 1, 4, 4), stride=2),
        Guide(vector=torch.zeros(1, 1)),
    ],
)
def test_what_are_no_such_maps_is_refused(kind, guide):
    with pytest.raises(GuidanceError, match="reads 'damage' as 1 damage maps") as caught:
        KINDS[kind]()(torch.zeros(1, 8, 8, 8), Guidance(damage=guide))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_bf16_the_feature_keeps_its_type(kind, dtype):
    adapter, feat = stirred(KINDS[kind]()), torch.randn(1, 8, 16, 16, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16):
        out = adapter(feat, damage(drawn(1, 1, 16, 16)))
    assert out.dtype == dtype and out.isfinite().all()
    exact = adapter(feat.float(), damage(drawn(1, 1, 16, 16)))
    assert (out - exact).abs().max() <= 0.02 * exact.abs().max()  # some roundings of 2^-8


def test_gates_start_open_and_the_control_has_as_many_parameters():
    gated, ungated = KINDS["gated"](), KINDS["ungated"]()
    assert torch.equal(gated.gate.bias, torch.ones(8))
    count = [sum(p.numel() for p in block.parameters()) for block in (gated, ungated)]
    assert count[0] == count[1]
    ungated.load_state_dict(gated.state_dict())


def test_a_gate_is_the_product_that_its_docstring_says():
    gate, feat, maps = stirred(KINDS["gated"](maps=2)), torch.randn(2, 8, 6, 7), drawn(2, 2, 6, 7)
    y = F.gelu(gate.feature(feat)) * gate.gate(torch.cat([feat, maps], 1)).sigmoid()
    torch.testing.assert_close(gate(feat, damage(maps)), feat + gate.out(y))


# Context.


def plain_attention(context, feat, kernel):
    """Every sample asks the means of all squares, one by one."""
    tokens = F.avg_pool2d(feat, kernel).flatten(2)
    q, k, v = (
        layer(x[..., None])[..., 0]
        for layer, x in (
            (context.query, feat.flatten(2)),
            (context.key, tokens),
            (context.value, tokens),
        )
    )
    near = torch.einsum("nci,ncj->nij", q, k).div(math.sqrt(q.shape[1])).softmax(2)
    found = torch.einsum("nij,ncj->nci", near, v)
    return feat + context.out(found.reshape(*found.shape[:2], *feat.shape[2:]))


def test_where_all_is_degraded_it_is_plain_attention():
    context, feat = stirred(KINDS["context"]().double()), torch.randn(2, 8, 16, 24).double()
    got = context(feat, damage(torch.ones(2, 1, 16, 24).double()))
    torch.testing.assert_close(got, plain_attention(context, feat, 8))


def test_the_order_of_clean_keys_says_nothing():
    context, feat = stirred(KINDS["context"]().double()), torch.randn(1, 8, 16, 32).double()
    maps = torch.zeros(1, 1, 16, 32).double()
    maps[..., :8, :8] = drawn(8, 8).double()
    got = context(feat, damage(maps))
    other = feat.clone()
    other[..., :8, 8:16], other[..., 8:, 24:] = feat[..., 8:, 24:], feat[..., :8, 8:16]
    again = context(other, damage(maps))
    torch.testing.assert_close(again[..., :8, :8], got[..., :8, :8])
    assert not torch.allclose(got[..., :8, :8], feat[..., :8, :8])


def test_what_is_degraded_is_hardly_asked():
    """With one square wholly degraded, whatever it holds weighs eps of what a clean one does."""
    context = stirred(KINDS["context"]().double())
    torch.nn.init.zeros_(context.query.weight)  # all keys alike: the mask alone decides
    torch.nn.init.zeros_(context.query.bias)
    feat = torch.randn(1, 8, 8, 16).double()
    maps = torch.zeros(1, 1, 8, 16).double()
    maps[..., 8:] = 1
    left, right = (context.value(t) for t in F.avg_pool2d(feat, 8).split(1, 3))
    share = 0.01 / (1.01 + 0.01)
    wanted = feat[..., 8:] + context.out((1 - share) * left + share * right)
    torch.testing.assert_close(context(feat, damage(maps))[..., 8:], wanted)


@pytest.mark.parametrize("level", [0.0, 1.0, 7.0])  # 7: a prior that forgot its range
@pytest.mark.parametrize("size", [(16, 16), (9, 3), (1, 1)])
def test_context_stays_finite_whatever_is_degraded(level, size):
    context = stirred(KINDS["context"]())
    feat = torch.randn(1, 8, *size, requires_grad=True)
    out = context(feat, damage(torch.full((1, 1, *size), level)))
    out.square().sum().backward()
    grads = [feat.grad, *(p.grad for p in context.parameters())]
    assert out.isfinite().all()
    assert all(g is not None and g.isfinite().all() for g in grads)


def test_a_square_that_hangs_over_the_border_counts_by_what_is_there():
    context = stirred(KINDS["context"]().double())
    torch.nn.init.zeros_(context.query.weight)
    torch.nn.init.zeros_(context.query.bias)
    feat = torch.randn(1, 8, 8, 10).double()  # one square and a quarter of one
    got = context(feat, damage(torch.ones(1, 1, 8, 10).double()))
    mean = context.value(feat).mean((2, 3), keepdim=True)
    torch.testing.assert_close(got, feat + context.out(mean))


# In a network.


def restorer(**adapters) -> Restorer:
    backbone = NAFNet(
        width=8, enc_blocks=(1, 1), middle_blocks=1, dec_blocks=(1, 1), attention="none"
    )
    made = {}
    for site, kind in adapters.items():
        place = backbone.sites[site.replace("_", ".")]
        made[site.replace("_", ".")] = kind(place.channels, place.stride)
    return stirred(Restorer(backbone, {}, made))


def gate(**options):
    return lambda channels, stride: Gate(channels, stride, reads="damage", maps=2, **options)


def context(channels, stride):
    # 24 pixels: at most sizes the last squares hang over the border.
    return Context(channels, stride, reads="damage", maps=2, every=24)


GATES = {"encoder_0": gate(hidden=4), "middle": gate(hard=True), "decoder_1": gate(gated=False)}


def test_a_gate_looks_one_sample_further_and_context_everywhere():
    model = restorer(**GATES)
    assert model.reach == model.backbone.reach + 1 + 4 + 2
    assert measure_reach(model) <= model.reach
    both = restorer(middle=context, encoder_0=gate())
    assert (both.reach, both.support) == (None, "global")
    assert [r.prior for r in both.reads] == ["damage"]


def test_masked_then_cropped_is_cropped_then_masked():
    model = restorer(**GATES).double()
    lq, maps = drawn(1, 3, 96, 96).double(), drawn(1, 2, 96, 96, seed=2).double()
    known = damage(maps)
    with torch.no_grad():
        whole = model(lq, known)
        part = model(lq[..., 8:88, 12:92], known.crop(8, 12, 80, 80))
    far = model.reach
    inside = (..., slice(far, -far), slice(far, -far))
    assert far < 40
    torch.testing.assert_close(part[inside], whole[..., 8:88, 12:92][inside])
    with torch.no_grad():
        told = model(lq, damage(1 - maps))
    assert not torch.allclose(told, whole)


def test_a_recipe_builds_them_by_name(monkeypatch):
    rows = """adapters=[
        {kind = "gate", reads = "damage", maps = 2, hidden = 8, hard = true, at = ["encoder.0"]},
        {kind = "gate", reads = "damage", maps = 2, gated = false, at = ["encoder.1", "decoder.1"]},
        {kind = "context", reads = "damage", maps = 2, every = 32, at = ["middle"]},
    ]"""
    model = recipe.load("sam-deblur-toy", [rows]).build_model()
    kinds = [type(adapter).__name__ for adapter in model.adapters.values()]
    assert kinds == ["Gate", "Gate", "Gate", "Context"]
    assert [(r.prior, r.channels, r.stride) for r in model.reads] == [("damage", 2, 1)]


@pytest.mark.parametrize(
    "adapters", [GATES, {"encoder_1": context, "middle": context}], ids=["gate", "context"]
)
def test_an_exported_network_is_the_network_at_every_size(adapters, tmp_path):
    model = restorer(**adapters)
    path = tmp_path / "gates.onnx"
    export(model, path, Card("gates"))  # checks five sizes in each runtime that is here
    card = survey(path).card
    assert [(r.prior, r.shape) for r in card.reads] == [("damage", (2, 0, 0))]
    assert card.support == model.support
    rounded = restorer(**adapters)
    rounded.load_state_dict({k: v.half().float() for k, v in model.state_dict().items()})
    assert len(SIZES) == 5
    assert difference(rounded, open_engine(path, "onnx")) <= 1e-5
