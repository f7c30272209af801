"""Backbones against their papers, and laws over every row of the table."""

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tiny import clip_folder
from torch import nn

from relume.card import Card
from relume.errors import CheckError, RecipeError, ShapeError
from relume.lab.backbones import BACKBONES
from relume.lab.backbones.dncnn import DnCNN
from relume.lab.backbones.ffdnet import FFDNet
from relume.lab.backbones.guest import Guest
from relume.lab.backbones.imdn import IMDB, IMDN, ContrastAttention
from relume.lab.backbones.nafnet import NAFBlock, NAFNet
from relume.lab.backbones.restormer import TransformerBlock
from relume.lab.blocks import channel_attention
from relume.lab.datasets import folder_pairs
from relume.lab.engine import TorchEngine
from relume.lab.evaluate import engine_restorer, evaluate
from relume.lab.export import export
from relume.lab.metrics import Protocol
from relume.lab.restorer import Restorer

# Two window attentions a group, 4 x 4 windows.
SWINIR = {
    **{"architecture": "SwinIR", "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2]},
    **{"window_size": 4, "mlp_ratio": 2.0, "img_size": 16},
    **{"upscale": 2, "upsampler": "pixelshuffledirect"},
}
SMALL = {
    "dncnn": {"depth": 6, "width": 8, "every": 2},
    "ffdnet": {"depth": 5, "width": 8, "every": 2},
    "guest": SWINIR,
    "imdn": {"scale": 2, "width": 8, "blocks": 2},
    "masknet": {
        **{"emits": ("rain", "haze"), "fold": 2, "width": 8},
        **{"enc_blocks": (1, 1), "middle_blocks": 1, "dec_blocks": (1, 1)},
    },
    "nafnet": {"width": 8, "enc_blocks": (1, 1), "middle_blocks": 1, "dec_blocks": (1, 1)},
    "perceiver": {
        **{"fold": 2, "width": 8, "enc_blocks": (1, 1), "middle_blocks": 1, "dec_blocks": (1, 1)},
        **{"dim": 8},
    },
    "prompts": {},  # of a CLIP that is made where it is asked for
    "restormer": {
        **{"width": 8, "enc_blocks": (1, 1), "middle_blocks": 1, "dec_blocks": (1, 1)},
        **{"refinement": 1, "heads": (1, 2, 4)},
    },
    "unet": {"width": 8, "enc_convs": (1, 1), "middle_convs": 1, "dec_convs": (1, 1)},
}
ROWS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name == "guest" and importlib.util.find_spec("spandrel") is None,
            reason="needs spandrel, of the extra lab",
        ),
    )
    for name in sorted(BACKBONES)
]


def small(name: str, **more) -> nn.Module:
    if name == "prompts":
        pytest.importorskip("transformers")
        more["source"] = str(clip_folder())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return BACKBONES[name](**SMALL[name], **more).eval()


def drawn(net, n: int, height: int, width: int, dtype=torch.float32) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    return torch.rand(n, net.in_channels, height, width, generator=rng, dtype=dtype)


def awake(net: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Every parameter non-zero, so that no branch is switched off by its initialisation."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=rng))
    return net.eval()


# NAFNet


def test_parameter_count_of_the_paper_s_gopro_network():
    assert sum(p.numel() for p in NAFNet().parameters()) == 17_111_907


def test_state_dict_has_the_authors_key_names():
    keys = set(small("nafnet").state_dict())
    block = {"beta", "gamma", "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"}
    block |= {f"conv{i}.{p}" for i in range(1, 6) for p in ("weight", "bias")}
    block |= {"sca.1.weight", "sca.1.bias"}
    wanted = {f"{top}.{p}" for top in ("intro", "ending") for p in ("weight", "bias")}
    for stage in ("encoders.0.0", "encoders.1.0", "middle_blks.0", "decoders.0.0", "decoders.1.0"):
        wanted |= {f"{stage}.{key}" for key in block}
    wanted |= {f"downs.{i}.{p}" for i in (0, 1) for p in ("weight", "bias")}
    wanted |= {f"ups.{i}.0.weight" for i in (0, 1)}
    assert keys == wanted


def test_a_nafblock_equals_the_paper_s_formula():
    block = awake(NAFBlock(6))
    x = torch.randn(2, 6, 9, 7)
    mean, var = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
    norm = (x - mean) / (var + 1e-6).sqrt()
    y = norm * block.norm1.weight.view(1, -1, 1, 1) + block.norm1.bias.view(1, -1, 1, 1)
    a, b = block.conv2(block.conv1(y)).chunk(2, 1)
    y = a * b
    y = y * block.sca[1](y.mean((2, 3), keepdim=True))
    x1 = x + block.conv3(y) * block.beta
    mean, var = x1.mean(1, keepdim=True), x1.var(1, unbiased=False, keepdim=True)
    norm = (x1 - mean) / (var + 1e-6).sqrt()
    y = norm * block.norm2.weight.view(1, -1, 1, 1) + block.norm2.bias.view(1, -1, 1, 1)
    a, b = block.conv4(y).chunk(2, 1)
    expected = x1 + block.conv5(a * b) * block.gamma
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)


# IMDN


@pytest.mark.parametrize(("scale", "thousands"), [(2, 694), (3, 703), (4, 715)])
def test_imdn_has_the_parameters_of_its_paper(scale, thousands):
    assert sum(p.numel() for p in IMDN(scale=scale).parameters()) // 1000 == thousands


def test_the_contrast_of_a_channel_is_its_deviation_and_its_mean():
    layer = awake(ContrastAttention(32))
    x = torch.randn(2, 32, 5, 7)
    said = x.std((2, 3), correction=0) + x.mean((2, 3))
    first, last = layer.conv_du[0], layer.conv_du[2]
    hidden = F.relu(F.linear(said, first.weight[..., 0, 0], first.bias))
    weight = torch.sigmoid(F.linear(hidden, last.weight[..., 0, 0], last.bias))
    torch.testing.assert_close(layer(x), x * weight[..., None, None])


def test_a_distillation_block_keeps_a_quarter_three_times_and_what_is_left():
    block = awake(IMDB(8))
    x = torch.randn(1, 8, 6, 6)
    one = F.leaky_relu(block.c1(x), 0.05)
    two = F.leaky_relu(block.c2(one[:, 2:]), 0.05)
    three = F.leaky_relu(block.c3(two[:, 2:]), 0.05)
    kept = torch.cat([one[:, :2], two[:, :2], three[:, :2], block.c4(three[:, 2:])], 1)
    torch.testing.assert_close(block(x), x + block.c5(block.cca(kept)))


def test_a_flat_picture_gives_imdn_finite_gradients():
    net = awake(small("imdn"))
    net(torch.full((1, 3, 8, 8), 0.5)).image.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


# Restormer


def block_parameters(c: int, heads: int, expansion: float = 2.66) -> int:
    """By the paper's equations, without biases: MDTA, GDFN, two layer norms of weight and shift."""
    attention = 3 * c * c + 9 * 3 * c + c * c + heads  # W_p of q, k, v; W_d; W_p; the temperatures
    hidden = int(expansion * c)
    feed = 2 * hidden * c + 9 * 2 * hidden + hidden * c
    return attention + feed + 2 * 2 * c


def test_restormer_has_the_parameters_of_its_paper():
    """Width 48, blocks 4-6-6-8, heads 1-2-4-8, 4 of refinement, expansion 2.66; decoder 1 at 96."""
    levels = {48: (4, 1), 96: (6, 2), 192: (6, 4), 384: (8, 8)}
    blocks = sum(n * block_parameters(c, heads) for c, (n, heads) in levels.items())
    blocks += 6 * block_parameters(192, 4) + 6 * block_parameters(96, 2)
    blocks += (4 + 4) * block_parameters(96, 1)
    downs = sum(9 * c * c // 2 for c in (48, 96, 192))
    ups = sum(9 * c * 2 * c for c in (384, 192, 96))
    joins = 384 * 192 + 192 * 96
    ends = 9 * 3 * 48 + 9 * 96 * 3
    wanted = blocks + downs + ups + joins + ends
    with torch.device("meta"):
        counted = {
            reduce: sum(p.numel() for p in BACKBONES["restormer"](reduce=reduce).parameters())
            for reduce in (False, True)
        }
    assert counted[False] == wanted == 26_126_644
    # The finest decoder level and the refinement at 48, and one more 1x1 to get there.
    less = 8 * (block_parameters(96, 1) - block_parameters(48, 1)) + 9 * 48 * 3 - 96 * 48
    assert counted[True] == wanted - less


def test_attention_over_channels_is_the_papers_and_knows_no_resolution():
    q, k, v = (torch.randn(2, 12, 5, 7, dtype=torch.double) for _ in range(3))
    t = torch.tensor([0.5, 2.0, 7.0], dtype=torch.double).view(3, 1, 1)
    same = nn.Conv2d(12, 12, 1, bias=False, dtype=torch.double)
    same.weight.data = torch.eye(12, dtype=torch.double)[..., None, None]
    got = channel_attention(q, k, v, t, same)
    for n in range(2):
        for head in range(3):
            rows = slice(4 * head, 4 * head + 4)
            a, b, c = (x[n, rows].flatten(1) for x in (q, k, v))
            a, b = (x / x.square().sum(1, keepdim=True).sqrt() for x in (a, b))
            scores = torch.softmax(t[head] * (a @ b.T), 1)
            assert scores.shape == (4, 4)  # C x C of the head, whatever h and w
            wanted = (scores @ c).view(4, 5, 7)
            torch.testing.assert_close(got[n, rows], wanted, atol=1e-6, rtol=0)
    twice = channel_attention(*(x.repeat(1, 1, 2, 3) for x in (q, k, v)), t, same)
    torch.testing.assert_close(twice, got.repeat(1, 1, 2, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(channel_attention(3 * q, 5 * k, v, t, same), got, atol=1e-6, rtol=0)
    out = nn.Conv2d(12, 5, 1, dtype=torch.double)
    torch.testing.assert_close(channel_attention(q, k, v, t, out), out(got))


def test_restormers_block_is_two_residual_branches_of_the_papers_equations():
    block = awake(TransformerBlock(6, 2, 1.5, False, "bias_free"))
    x = torch.randn(2, 6, 9, 7)

    def norm(x, weight):
        return weight * x / (x.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()

    q, k, v = block.attention.qkv[1](block.attention.qkv[0](norm(x, block.norm1.weight))).chunk(
        3, 1
    )
    y = x + channel_attention(q, k, v, block.attention.temperature, block.attention.out)
    a, b = block.feed.inside[1](block.feed.inside[0](norm(y, block.norm2.weight))).chunk(2, 1)
    assert a.shape[1] == 9
    torch.testing.assert_close(block(x), y + block.feed.out(F.gelu(a) * b), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"heads": (1, 2)}, ShapeError, "one more in heads"),
        ({"heads": (3, 1, 1)}, ShapeError, "3 heads do not divide 8 channels"),
        ({"norm": "bias-free"}, RecipeError, "Did you mean 'bias_free'"),
    ],
)
def test_a_restormer_that_cannot_be_built_is_told(arguments, error, says):
    with pytest.raises(error, match=says):
        BACKBONES["restormer"](**SMALL["restormer"] | arguments)


# DnCNN and FFDNet


def test_dncnn_subtracts_what_its_chain_finds():
    net = awake(small("dncnn"))
    x = torch.rand(1, 3, 9, 11)
    y = x
    for layer in net.model:
        y = layer(y)
    torch.testing.assert_close(net(x).image, x - y)


def test_ffdnet_sees_four_sub_images_and_the_level_of_the_noise():
    """Channel 4 c + 2 i + j is colour c at the pixels (2 y + i, 2 x + j); sigma comes last."""
    net = awake(small("ffdnet"))
    x = torch.rand(1, 3, 6, 10)
    parts = [x[:, c, i::2, j::2] for c in range(3) for i in (0, 1) for j in (0, 1)]
    y = torch.stack([*parts, torch.full((1, 3, 5), 0.1)], 1)
    for layer in net.model:
        y = layer(y)
    expected = torch.empty_like(x)
    for n, (c, i, j) in enumerate((c, i, j) for c in range(3) for i in (0, 1) for j in (0, 1)):
        expected[:, c, i::2, j::2] = y[:, n]
    told = torch.cat([x, torch.full((1, 1, 6, 10), 0.1)], 1)
    torch.testing.assert_close(net(told).image, expected)
    assert net.inputs == ("noise.sigma",)


@pytest.mark.parametrize("kind", [DnCNN, FFDNet])
def test_a_network_for_gray_pictures_answers_in_gray(kind):
    net = kind(depth=3, width=8, channels=1)
    assert net(torch.rand(2, net.in_channels, 7, 5)).image.shape == (2, 1, 7, 5)


# Weights of the authors


@pytest.mark.parametrize(
    ("file", "build"),
    [
        ("imdn/IMDN_x2", lambda: IMDN(scale=2)),
        ("imdn/IMDN_x3", lambda: IMDN(scale=3)),
        ("imdn/IMDN_x4", lambda: IMDN(scale=4)),
        ("ffdnet/FFDNet_color", FFDNet),
        ("ffdnet/FFDNet_gray", lambda: FFDNet(depth=15, width=64, channels=1)),
        ("cdncnn/color_sigma25", DnCNN),
        ("dncnn_kair/dncnn_25", lambda: DnCNN(depth=17, channels=1).model),
    ],
)
def test_the_authors_weights_load_as_they_are(shared, file, build):
    weights = load_file(shared(f"weights/{file}.safetensors"))
    network = build()
    network.load_state_dict(weights)
    assert {k: v.shape for k, v in network.state_dict().items()} == {
        k: v.shape for k, v in weights.items()
    }


def test_imdn_scores_on_set5_what_its_paper_says(shared):
    net = IMDN(scale=4)
    net.load_state_dict(load_file(shared("weights/imdn/IMDN_x4.safetensors")))
    restorer = Restorer(net)
    engine = TorchEngine(restorer, Card("imdn", scale=4, reads=restorer.reads), device="cpu")
    pairs = folder_pairs(shared("data/sr/set5/LR_bicubic/X4"), shared("data/sr/set5/HR"), scale=4)
    restore, _ = engine_restorer(engine, tile=1024)
    report = evaluate(restore, pairs, Protocol(channels="y", crop=4))
    assert report.metrics["psnr"]["mean"] == pytest.approx(32.21, abs=0.01)


# Laws


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("size", [(1, 1), (3, 17), (32, 24)])
def test_any_size_comes_back(name, size):
    net = small(name)
    out = net(drawn(net, 1, *size)).image
    channels = len(getattr(net, "emits", ())) or 3
    picture = (1, channels, size[0] * net.scale, size[1] * net.scale)
    assert out.shape == ((1, len(net.vector)) if hasattr(net, "vector") else picture)


@pytest.mark.parametrize("name", ROWS)
def test_every_site_can_be_tapped_and_is_as_announced(name):
    net = small(name)
    aux = net(drawn(net, 2, 16, 24), taps=tuple(net.sites)).aux
    assert len(net.sites) > 2 or name == "prompts"  # nothing of ours stands inside CLIP
    for site, promise in net.sites.items():
        assert aux[site].shape == (2, promise.channels, 16 // promise.stride, 24 // promise.stride)


@pytest.mark.parametrize("name", ROWS)
def test_taps_and_idle_adapters_leave_the_picture_alone(name):
    net = awake(small(name))
    x = drawn(net, 1, 16, 16)
    plain = net(x).image
    assert torch.equal(net(x, taps=tuple(net.sites)).image, plain)
    assert torch.equal(net(x, adapt={site: lambda f: f for site in net.sites}).image, plain)


@pytest.mark.parametrize("name", ROWS)
def test_an_adapter_at_any_site_changes_the_picture(name):
    net = awake(small(name))
    x = drawn(net, 1, 16, 16)
    plain = net(x).image
    for site in net.sites:
        assert not torch.equal(net(x, adapt={site: lambda f: f * 1.5 + 0.1}).image, plain), site


@pytest.mark.parametrize("name", ROWS)
def test_an_adapter_at_any_site_can_learn(name):
    net = awake(small(name))
    x = drawn(net, 1, 16, 16)
    for site, promise in net.sites.items():
        shift = torch.zeros(1, promise.channels, 1, 1, requires_grad=True)
        net(x, adapt={site: lambda f, s=shift: f + s}).image.square().mean().backward()
        assert shift.grad is not None and shift.grad.abs().max() > 0, site


@pytest.mark.parametrize("name", ROWS)
def test_channels_last_gives_the_same_picture(name):
    net = awake(small(name))
    x = drawn(net, 2, 32, 32)
    plain = net(x).image
    net = net.to(memory_format=torch.channels_last)
    turned = net(x.contiguous(memory_format=torch.channels_last)).image
    torch.testing.assert_close(plain, turned, atol=1e-5, rtol=1e-5)


LOCAL = [
    ("dncnn", {"depth": 5, "width": 4}),
    ("ffdnet", {"depth": 4, "width": 4}),
    *(
        ("masknet", {"emits": ("rain",), "fold": f, "width": 4, "enc_blocks": e, "dec_blocks": e})
        for f, e in ((1, (1, 1)), (4, (1,)), (2, (1, 2)))
    ),
    *(
        ("nafnet", {"width": 4, "attention": "none", "enc_blocks": e, "dec_blocks": d, **m})
        for e, m, d in (
            ((1, 1), {"middle_blocks": 1}, (1, 1)),
            ((2, 1), {"middle_blocks": 2}, (1, 3)),
            ((1, 1, 1), {"middle_blocks": 1}, (1, 1, 1)),
        )
    ),
    ("unet", {"width": 4, "enc_convs": (1, 2), "middle_convs": 1, "dec_convs": (2, 1)}),
]


@pytest.mark.parametrize(("name", "arguments"), LOCAL)
def test_reach_is_no_smaller_than_what_the_gradient_sees(name, arguments):
    net = awake(BACKBONES[name](**arguments)).double()
    assert net.reach is not None
    side = 2 * (net.reach + net.multiple_of) + net.multiple_of
    side += -side % net.multiple_of
    furthest = 0
    for offset in range(net.multiple_of):
        at = side // 2 + offset
        x = drawn(net, 1, side, side, torch.double).requires_grad_()
        net(x).image[0, :, at, at].sum().backward()
        seen = x.grad[0].abs().sum(0).nonzero()
        furthest = max(furthest, int((seen - at).abs().max()))
    assert furthest <= net.reach
    assert furthest >= net.reach - net.multiple_of  # not padded either


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("imdn", {"width": 64, "blocks": 1}),
        ("nafnet", SMALL["nafnet"]),
        ("restormer", SMALL["restormer"]),
    ],
)
def test_channel_attention_makes_a_network_look_everywhere(name, arguments):
    torch.manual_seed(0)  # few hidden units: of some weights all sleep
    net = awake(BACKBONES[name](**arguments)).double()
    assert net.reach is None
    x = drawn(net, 1, 48, 48, torch.double).requires_grad_()
    net(x).image[..., 0, 0].sum().backward()
    assert x.grad[..., -1, -1].abs().max() > 0


@pytest.mark.parametrize("name", ROWS)
def test_wrong_channels_are_told(name):
    net = small(name)
    wanted = rf"built for \(N, {net.in_channels}, H, W\)"
    with pytest.raises(ShapeError, match=wanted):
        net(torch.rand(1, net.in_channels + 1, 8, 8))


@pytest.mark.parametrize("name", ["dncnn", "ffdnet", "imdn"])
def test_it_can_be_exported(name, tmp_path):
    """`export` compares the graph with the network at five sizes; NAFNet's is in test_export."""
    card = export(Restorer(awake(small(name))), tmp_path / "net.onnx", Card("net"))
    assert card.scale == SMALL[name].get("scale", 1)
    assert [r.prior for r in card.reads] == (["noise.sigma"] if name == "ffdnet" else [])


# Guests


ESRGAN = {"architecture": "ESRGAN", "num_filters": 8, "num_blocks": 2, "scale": 2}


RCAN = {"architecture": "RCAN", "n_resgroups": 2, "n_resblocks": 2, "n_feats": 16, "scale": 2}


@pytest.fixture
def spandrel():
    return pytest.importorskip("spandrel")


def test_a_guest_computes_what_spandrel_computes(spandrel):
    for arguments in (SWINIR, ESRGAN, RCAN):  # RCAN writes into what it is given
        torch.manual_seed(0)
        first = Guest(**arguments).eval()
        descriptor = spandrel.MAIN_REGISTRY.load(first.model.state_dict())
        x = torch.rand(1, 3, 24, 20)
        guest = Guest.of(descriptor).eval()
        wanted = descriptor(x.clone())
        torch.testing.assert_close(guest(x).image.clamp(0, 1), wanted, atol=1e-6, rtol=0)
        torch.testing.assert_close(first(x).image, guest(x).image, atol=0, rtol=0)


def test_the_sites_of_a_guest_are_the_groups_of_its_body(spandrel):
    swinir, esrgan, rcan = Guest(**SWINIR), Guest(**ESRGAN), Guest(**RCAN)
    assert list(swinir.sites) == ["input", "layers.0", "layers.1"]
    assert swinir.sites["layers.0"].layout == "tokens"
    assert list(esrgan.sites) == ["input", "model.1.sub.0", "model.1.sub.1"]
    assert esrgan.sites["model.1.sub.0"].layout == "NCHW"
    assert list(rcan.sites) == ["input", "body.0", "body.1"]


def test_tokens_are_shown_as_the_feature_that_they_are(spandrel):
    """What is added at one place of a token site shows around that place in the picture."""
    net = awake(Guest(**SWINIR))
    x = torch.rand(1, 3, 32, 48)

    def spot(feature):
        change = torch.zeros_like(feature)
        change[..., 5, 41] = 1
        return feature + change

    moved = net(x, adapt={"layers.1": spot}).image - net(x).image
    row, column = divmod(int(moved.abs().sum(1).argmax()), moved.shape[-1])
    assert abs(row / 2 - 5) < 3 and abs(column / 2 - 41) < 3


def test_nothing_stays_behind_in_a_guest(spandrel):
    net = Guest(**RCAN)
    x = torch.rand(1, 3, 16, 16)
    before = x.clone()
    aux = net(x, taps=tuple(net.sites)).aux
    assert torch.equal(x, before) and torch.equal(aux["input"], before)
    assert not any(module._forward_hooks for module in net.model.modules())


def test_what_cannot_be_a_guest_is_told_in_words(spandrel):
    with pytest.raises(RecipeError, match="Did you mean 'SwinIR'"):
        Guest(architecture="SwinIr")
    with pytest.raises(RecipeError, match="does not take these hyperparameters"):
        Guest(architecture="ESRGAN", width=3)
    with pytest.raises(CheckError, match="RGB picture"):
        Guest(architecture="ESRGAN", in_nc=1, out_nc=1, num_filters=8, num_blocks=2, scale=2)


def test_an_attention_that_is_none_of_nafnets_is_refused():
    with pytest.raises(RecipeError, match="Did you mean 'global'"):
        NAFNet(width=8, attention="gobal")
