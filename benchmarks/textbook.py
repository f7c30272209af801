"""NAFNet as a reader of the paper would first write it: the peer that our forms are timed against.

From "Simple Baselines for Image Restoration" (arXiv 2204.04676): figures 2 and 3, equations 4 to 6.
NCHW, float32, eager; the layer norm in four elementwise steps over the channel axis. Module names
are those of the authors' state dicts, as in `relume.lab.backbones.nafnet`, so one set of weights
fits both and the outputs can be compared.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from relume.lab.backbones import nafnet


class LayerNorm2d(nn.Module):
    """(x - mean) / sqrt(var + eps) * weight + bias, over the channels of each pixel."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        var = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / (var + self.eps).sqrt()
        return self.weight.view(1, -1, 1, 1) * x + self.bias.view(1, -1, 1, 1)


class SimpleGate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        return a * b


class NAFBlock(nn.Module):
    """Figure 3c; without `attention` the channel attention is left out (relume's local nets)."""

    def __init__(self, channels: int, attention: bool = True) -> None:
        super().__init__()
        c = channels
        self.norm1, self.norm2 = LayerNorm2d(c), LayerNorm2d(c)
        self.conv1 = nn.Conv2d(c, 2 * c, 1)
        self.conv2 = nn.Conv2d(2 * c, 2 * c, 3, padding=1, groups=2 * c)
        self.sg = SimpleGate()
        self.sca = None
        if attention:
            self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c, 1))
        self.conv3 = nn.Conv2d(c, c, 1)
        self.conv4 = nn.Conv2d(c, 2 * c, 1)
        self.conv5 = nn.Conv2d(c, c, 1)
        self.beta = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.sg(self.conv2(self.conv1(self.norm1(x))))
        if self.sca is not None:
            y = y * self.sca(y)
        x = x + self.conv3(y) * self.beta
        y = self.conv5(self.sg(self.conv4(self.norm2(x))))
        return x + y * self.gamma


class NAFNet(nn.Module):
    """Figure 2c's U-Net, sides a multiple of 2**levels: (N, 3, H, W) -> (N, 3, H, W)."""

    def __init__(
        self,
        width: int = 32,
        enc_blocks: Sequence[int] = (1, 1, 1, 28),
        middle_blocks: int = 1,
        dec_blocks: Sequence[int] = (1, 1, 1, 1),
    ) -> None:
        super().__init__()

        def stage(blocks: int, channels: int) -> nn.Sequential:
            return nn.Sequential(*(NAFBlock(channels) for _ in range(blocks)))

        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.ending = nn.Conv2d(width, 3, 3, padding=1)
        self.encoders, self.downs = nn.ModuleList(), nn.ModuleList()
        self.ups, self.decoders = nn.ModuleList(), nn.ModuleList()
        channels = width
        for blocks in enc_blocks:
            self.encoders.append(stage(blocks, channels))
            self.downs.append(nn.Conv2d(channels, 2 * channels, 2, stride=2))
            channels *= 2
        self.middle_blks = stage(middle_blocks, channels)
        for blocks in dec_blocks:
            up = nn.Conv2d(channels, 2 * channels, 1, bias=False)
            self.ups.append(nn.Sequential(up, nn.PixelShuffle(2)))
            channels //= 2
            self.decoders.append(stage(blocks, channels))

    def forward(self, lq: Tensor) -> Tensor:
        x = self.intro(lq)
        skips = []
        for blocks, down in zip(self.encoders, self.downs, strict=True):
            x = blocks(x)
            skips.append(x)
            x = down(x)
        x = self.middle_blks(x)
        for up, blocks in zip(self.ups, self.decoders, strict=True):
            x = blocks(up(x) + skips.pop())
        return self.ending(x) + lq


def textbook_form(network: nn.Module) -> nn.Module:
    """A copy of a network of relume's with every NAFBlock in the textbook's writing, in NCHW.

    The weights are the same, and so, up to rounding, is the output.
    """
    network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nafnet.NAFBlock):
                block = NAFBlock(child.conv3.out_channels, attention=child.sca is not None)
                block.load_state_dict(child.state_dict())
                setattr(parent, name, block)
    return network
