"""Where a picture is damaged, and how badly: one map for each kind of damage, and no picture."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import RecipeError
from .nafnet import NAFNet
from .sites import Adapt, Output, Site, check_input

RESIDUALS = 3
LOCAL = 16


def residuals(x: Tensor) -> Tensor:
    """How far each pixel of the mean of the colours lies from its neighbours.

    Roots of the absolute second differences across, down, and of both: what noise adds, blur takes
    away, and JPEG has less of inside its squares than between them. A network has to learn to look
    at such residuals first wherever it is to see what was done to a picture, not what is in it
    (Fridrich and Kodovsky, IEEE TIFS 2012); the mixed one is of noise alone on any straight edge
    along the axes (Immerkaer, CVIU 1996, uses its second form).

    Shape:
        (N, 3, H, W) in [0, 1] -> (N, 3, H, W), from 0.01 to 1.42. Any H, W >= 1.
    """
    y = F.pad(x.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    middle = 2 * y[..., 1:-1, 1:-1]
    across = middle - y[..., 1:-1, :-2] - y[..., 1:-1, 2:]
    down = middle - y[..., :-2, 1:-1] - y[..., 2:, 1:-1]
    mixed = y[..., :-2, :-2] + y[..., 2:, 2:] - y[..., :-2, 2:] - y[..., 2:, :-2]
    # The root's slope is not finite at 0.
    return (torch.cat([across, down, mixed], 1).abs() + 1e-4).sqrt()


def open_blocks(trunk: NAFNet) -> None:
    """Let a trunk's blocks begin half open, where NAFNet's begin shut."""
    for name, scale in trunk.named_parameters():
        if name.endswith((".beta", ".gamma")):
            nn.init.constant_(scale, 0.5)


def folded_sites(trunk: NAFNet, fold: int) -> dict[str, Site]:
    """A trunk's sites by the pixels of the picture; what it takes in is none of them."""
    sites = trunk.sites.items()
    return {k: Site(s.channels, s.stride * fold) for k, s in sites if k != "input"}


class MaskNet(nn.Module):
    """NAFNet's U-Net without its residual, on folded pixels: logits of severities.

    Ours. With `fold` 1 its sites are those of the NAFNet of the same width and blocks, level by
    level, so that a restorer can be taught by it (the localisation network of DAKD, Suin, Purohit
    and Rajagopalan, JSTSP 2021; a reconstruction). With more, every fold x fold square of pixels
    becomes one sample of 3 fold^2 channels, and its maps are unfolded again (the pixel unshuffle of
    FFDNet, arXiv 1710.04026): what is thin stays visible, and 12 megapixels take seconds.

    A folded sample cannot say of each of its pixels what ten maps must: with more than one pixel to
    a fold, two convolutions at full resolution say what a pixel and its neighbours look like, the
    trunk says what that means there (gates and a sum, one for each square), and both are added.

    It is shown `residuals` beside the picture, and its blocks begin open where NAFNet's begin shut:
    of pixels alone, through shut blocks, 6,000 crops taught it nothing of JPEG's quality
    (docs/log.md).

    Args:
        emits: Names of the maps, K.
        fold: Side of the squares, in pixels.
        width, enc_blocks, middle_blocks, dec_blocks, attention: As in NAFNet.

    Sites: NAFNet's, with `fold` times their stride, but for `input`.

    Shape:
        (N, 3, H, W) in [0, 1] -> Output.image (N, K, H, W): logits while it is trained, severities
        in [0, 1] else. Any H, W >= 1.

    Raises:
        RecipeError: It has no map to emit, or NAFNet has no such attention.
    """

    scale = 1
    inputs: tuple[str, ...] = ()
    in_channels = 3

    def __init__(
        self,
        *,
        emits: Sequence[str],
        fold: int = 4,
        width: int = 32,
        enc_blocks: Sequence[int] = (1, 1),
        middle_blocks: int = 1,
        dec_blocks: Sequence[int] = (1, 1),
        attention: Literal["global", "none"] = "none",
    ) -> None:
        super().__init__()
        if not emits or fold < 1:
            raise RecipeError(f"masknet needs names to emit and a fold of 1 or more, got {fold}.")
        self.emits, self.fold = tuple(emits), fold
        self.trunk = NAFNet(
            width=width,
            enc_blocks=enc_blocks,
            middle_blocks=middle_blocks,
            dec_blocks=dec_blocks,
            attention=attention,
            in_channels=(3 + RESIDUALS) * fold**2,
            out_channels=len(self.emits) * fold**2 + (LOCAL if fold > 1 else 0),
            residual=False,
        )
        if fold > 1:
            self.local = nn.Sequential(
                nn.Conv2d(3 + RESIDUALS, LOCAL, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(LOCAL, LOCAL, 3, padding=1),
                nn.ReLU(),
            )
            self.read = nn.Conv2d(LOCAL, len(self.emits), 1)
        open_blocks(self.trunk)
        self.sites = folded_sites(self.trunk, fold)
        self.multiple_of = self.trunk.multiple_of * fold
        looks = self.trunk.reach
        self.reach = None if looks is None else max((looks + 1) * fold, 3)

    def forward(self, x: Tensor, taps: Sequence[str] = (), adapt: Adapt | None = None) -> Output:
        check_input(x, self.in_channels, "MaskNet")
        height, width = x.shape[-2:]
        # Centred: a logit near 0 at the start, whatever the picture's brightness.
        # As tiles are padded, and so that the trunk has no folded samples to repeat.
        x = F.pad(
            x, (0, -width % self.multiple_of, 0, -height % self.multiple_of), mode="replicate"
        )
        seen = torch.cat([x - 0.5, residuals(x)], 1)
        found = self.trunk(F.pixel_unshuffle(seen, self.fold), taps, adapt)
        maps = self._unfolded(seen, found.image)[..., :height, :width]
        return Output(maps if self.training else torch.sigmoid(maps), found.aux)

    def _unfolded(self, seen: Tensor, folded: Tensor) -> Tensor:
        """(N, K, H, W) logits of what the trunk says of squares, and of pixels within them."""
        if self.fold == 1:
            return folded
        squares, gates = folded[:, :-LOCAL], folded[:, -LOCAL:]
        # Every pixel has its square's gates.
        gates = F.interpolate(gates, scale_factor=float(self.fold), mode="nearest")
        return F.pixel_shuffle(squares, self.fold) + self.read(self.local(seen) * gates)
