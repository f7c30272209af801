"""The walk through a U-Net: down level by level, and up again past the skips."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .sites import Visit


def u_shaped(
    net: Any,
    x: Tensor,
    visit: Visit,
    middle: nn.Module,
    decode: Callable[[int, Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """(the padded picture, the feature behind the finest decoder level) of a U-Net.

    Args:
        net: Has `multiple_of`, `in_channels`, `intro`, and `encoders` and `downs`, finest first.
        x: (N, in_channels, H, W), padded here to the network's grids by its border.
        visit: Walks past `input`, `intro`, `encoder.N`, `middle` and `decoder.N`.
        middle: At the coarsest resolution.
        decode: (place of the decoder level, coarsest first, feature below, skip) -> feature.
    """
    height, width = x.shape[-2:]
    x = F.pad(x, (0, -width % net.multiple_of, 0, -height % net.multiple_of), mode="replicate")
    picture = visit("input", x[:, :3])
    y = net.intro(torch.cat([picture, x[:, 3:]], 1) if net.in_channels > 3 else picture)
    y = visit("intro", y)
    skips: list[Tensor] = []
    for level, (blocks, down) in enumerate(zip(net.encoders, net.downs, strict=True)):
        y = visit(f"encoder.{level}", blocks(y))
        skips.append(y)
        y = down(y)
    y = visit("middle", middle(y))
    for place, level in enumerate(reversed(range(len(skips)))):
        y = visit(f"decoder.{level}", decode(place, y, skips[level]))
    return picture, y
