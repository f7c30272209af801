"""The few layers that backbones, encoders and adapters share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ShapeError


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel (Ba et al., arXiv 1607.06450).

    The native kernel on the channels-last view: no copy where the feature is channels-last, and one
    operator in the exported graph.

    Shape:
        (N, C, h, w) -> (N, C, h, w).
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SimpleGate(nn.Module):
    """Half of the channels times the other half (NAFNet, arXiv 2204.04676, eq. 4).

    Shape:
        (N, 2C, h, w) -> (N, C, h, w).
    """

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        return a * b


def channel_attention(
    query: Tensor, key: Tensor, value: Tensor, temperature: Tensor, out: nn.Conv2d
) -> Tensor:
    """W softmax(t Q K^T) V over the channels of each head (Restormer, arXiv 2111.09881, eq. 1).

    Rows of Q and K, one a channel, have length 1 over the pixels: the C/heads x C/heads scores are
    cosines, whatever the size of the picture. t, learned, says how sharply they choose.

    What is chosen is a few numbers: W takes them in before any pixel is touched, and the pixels are
    read once where the equation, read from the right, reads them twice.

    Args:
        query, key, value: (N, C, h, w).
        temperature: t, (heads, 1, 1).
        out: W, a 1x1 convolution, with or without a bias.

    Returns:
        (N, C', h, w), C' of `out`.
    """
    heads, size = temperature.shape[0], query.shape[-2:]
    # Lengths and products are sums over all pixels: in bfloat16 they would be none.
    wide = torch.promote_types(query.dtype, torch.float32)
    q, k = (x.flatten(2).unflatten(1, (heads, -1)).to(wide) for x in (query, key))
    of_q, of_k = (torch.linalg.vector_norm(x, dim=-1, keepdim=True) for x in (q, k))
    cosines = (q @ k.mT) / (of_q @ of_k.mT).clamp_min(1e-12)
    # The fused form is the one that OpenVINO got wrong.
    near = torch.softmax(cosines * temperature, -1)
    weight = out.weight.flatten(1).unflatten(1, (heads, -1)).transpose(0, 1).to(wide)
    mixed = (weight @ near).transpose(1, 2).flatten(2).to(value.dtype)
    found = (mixed @ value.flatten(2)).unflatten(2, size)
    return found if out.bias is None else found + out.bias.view(-1, 1, 1).to(found.dtype)


def depthwise(inside: int, outside: int, bias: bool = False) -> nn.Sequential:
    """A 1x1 convolution across channels, then a 3x3 within each: how Restormer looks around.

    Shape:
        (N, inside, h, w) -> (N, outside, h, w).
    """
    return nn.Sequential(
        nn.Conv2d(inside, outside, 1, bias=bias),
        nn.Conv2d(outside, outside, 3, padding=1, groups=outside, bias=bias),
    )


class MDTA(nn.Module):
    """Multi-Dconv head transposed attention (Restormer, arXiv 2111.09881, eq. 1), no residual.

    Args:
        channels: C.
        heads: Groups of channels that attend among themselves.
        bias: Of the convolutions; the paper's have none.

    Shape:
        (N, C, h, w) -> (N, C, h, w).

    Raises:
        ShapeError: `heads` does not divide C.
    """

    def __init__(self, channels: int, heads: int = 1, *, bias: bool = False) -> None:
        super().__init__()
        self.temperature = temperatures(channels, heads)
        self.qkv = depthwise(channels, 3 * channels, bias)
        self.out = nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).chunk(3, dim=1)
        return channel_attention(query, key, value, self.temperature, self.out)


class GDFN(nn.Module):
    """Gated-Dconv feed-forward (Restormer, arXiv 2111.09881, eq. 2), no residual.

    W_o(GELU(D_1 W_1 x) * D_2 W_2 x), D depthwise 3x3, W 1x1, with `expansion` C channels inside.

    Shape:
        (N, C, h, w) -> (N, C, h, w).
    """

    def __init__(self, channels: int, expansion: float = 2.66, *, bias: bool = False) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.inside = depthwise(channels, 2 * hidden, bias)
        self.out = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, y = self.inside(x).chunk(2, dim=1)
        return self.out(F.gelu(gate) * y)


def temperatures(channels: int, heads: int) -> nn.Parameter:
    """t of `channel_attention`, which starts at 1: (heads, 1, 1).

    Raises:
        ShapeError: `heads` does not divide the channels.
    """
    if heads < 1 or channels % heads:
        raise ShapeError(
            f"{heads} heads do not divide {channels} channels. Give a divisor, or another width."
        )
    return nn.Parameter(torch.ones(heads, 1, 1))
