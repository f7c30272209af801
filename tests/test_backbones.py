"""NAFNet against its paper, and laws over every backbone of the table."""

import pytest
import torch

from relume.errors import ShapeError
from relume.lab.backbones import BACKBONES
from relume.lab.backbones.nafnet import NAFBlock, NAFNet

SMALL = {"nafnet": {"width": 8, "enc_blocks": (1, 1), "middle_blocks": 1, "dec_blocks": (1, 1)}}


def awake(net: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Every parameter non-zero, so that no branch is switched off by its initialisation."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=rng))
    return net.eval()


def test_parameter_count_of_the_paper_s_gopro_network():
    assert sum(p.numel() for p in NAFNet().parameters()) == 17_111_907


def test_state_dict_has_the_authors_key_names():
    keys = set(NAFNet(**SMALL["nafnet"]).state_dict())
    block = {"beta", "gamma", "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"}
    block |= {f"conv{i}.{p}" for i in range(1, 6) for p in ("weight", "bias")}
    block |= {"sca.1.weight", "sca.1.bias"}
    wanted = {f"{top}.{p}" for top in ("intro", "ending") for p in ("weight", "bias")}
    for stage in ("encoders.0.0", "encoders.1.0", "middle_blks.0", "decoders.0.0", "decoders.1.0"):
        wanted |= {f"{stage}.{key}" for key in block}
    wanted |= {f"downs.{i}.{p}" for i in (0, 1) for p in ("weight", "bias")}
    wanted |= {f"ups.{i}.0.weight" for i in (0, 1)}
    assert keys == wanted


def test_a_block_equals_the_paper_s_formula():
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


@pytest.mark.parametrize("name", sorted(BACKBONES))
@pytest.mark.parametrize("size", [(1, 1), (3, 17), (32, 24)])
def test_any_size_comes_back(name, size):
    net = BACKBONES[name](**SMALL[name]).eval()
    out = net(torch.rand(1, 3, *size)).image
    assert out.shape == (1, 3, size[0] * net.scale, size[1] * net.scale)


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_every_site_can_be_tapped_and_is_as_announced(name):
    net = BACKBONES[name](**SMALL[name]).eval()
    aux = net(torch.rand(2, 3, 16, 24), taps=tuple(net.sites)).aux
    for site, promise in net.sites.items():
        assert aux[site].shape == (2, promise.channels, 16 // promise.stride, 24 // promise.stride)


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_an_adapter_at_any_site_changes_the_picture(name):
    net = awake(BACKBONES[name](**SMALL[name]))
    x = torch.rand(1, 3, 16, 16)
    plain = net(x).image
    for site in net.sites:
        assert not torch.equal(net(x, adapt={site: lambda f: f * 1.5 + 0.1}).image, plain), site


def test_channels_last_gives_the_same_picture():
    net = awake(NAFNet(**SMALL["nafnet"]))
    x = torch.rand(2, 3, 32, 32)
    plain = net(x).image
    net = net.to(memory_format=torch.channels_last)
    turned = net(x.contiguous(memory_format=torch.channels_last)).image
    torch.testing.assert_close(plain, turned, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "blocks", [((1, 1), 1, (1, 1)), ((2, 1), 2, (1, 3)), ((1, 1, 1), 1, (1, 1, 1))]
)
def test_reach_is_no_smaller_than_what_the_gradient_sees(blocks):
    enc, middle, dec = blocks
    net = awake(
        NAFNet(width=4, enc_blocks=enc, middle_blocks=middle, dec_blocks=dec, attention="none")
    ).double()
    assert net.reach is not None
    side = 2 * (net.reach + net.multiple_of) + net.multiple_of
    side += -side % net.multiple_of
    furthest = 0
    for offset in range(net.multiple_of):
        at = side // 2 + offset
        x = torch.rand(1, 3, side, side, dtype=torch.double, requires_grad=True)
        net(x).image[0, :, at, at].sum().backward()
        seen = x.grad[0].abs().sum(0).nonzero()
        furthest = max(furthest, int((seen - at).abs().max()))
    assert furthest <= net.reach
    assert furthest >= net.reach - net.multiple_of  # not padded either


def test_the_channel_attention_makes_it_global():
    assert NAFNet(**SMALL["nafnet"]).reach is None


def test_wrong_channels_are_told():
    with pytest.raises(ShapeError, match=r"built for \(N, 3, H, W\)"):
        NAFNet(**SMALL["nafnet"])(torch.rand(1, 4, 8, 8))
