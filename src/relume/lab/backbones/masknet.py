"""Where a picture is damaged, and how badly: one map for each kind of damage, and no picture."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import RecipeError
from .nafnet import NAFNet
from .sites import Adapt, Output, Site, check_input


class MaskNet(nn.Module):
    """NAFNet's U-Net without its residual, on folded pixels: logits of severities.

    Ours. With `fold` 1 its sites are those of the NAFNet of the same width and blocks, level by
    level, so that a restorer can be taught by it (the localisation network of DAKD, Suin, Purohit
    and Rajagopalan, JSTSP 2021; a reconstruction). With more, every fold x fold square of pixels
    becomes one sample of 3 fold^2 channels, and its maps are unfolded again (the pixel unshuffle of
    FFDNet, arXiv 1710.04026): what is thin stays visible, and 12 megapixels take seconds.

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
            in_channels=3 * fold**2,
            out_channels=len(self.emits) * fold**2,
            residual=False,
        )
        sites = self.trunk.sites.items()
        self.sites = {k: Site(s.channels, s.stride * fold) for k, s in sites if k != "input"}
        self.multiple_of = self.trunk.multiple_of * fold
        looks = self.trunk.reach
        self.reach = None if looks is None else (looks + 1) * fold - 1

    def forward(self, x: Tensor, taps: Sequence[str] = (), adapt: Adapt | None = None) -> Output:
        check_input(x, self.in_channels, "MaskNet")
        height, width = x.shape[-2:]
        # Centred: a logit near 0 at the start, whatever the picture's brightness.
        x = F.pad(x - 0.5, (0, -width % self.fold, 0, -height % self.fold), mode="replicate")
        found = self.trunk(F.pixel_unshuffle(x, self.fold), taps, adapt)
        maps = F.pixel_shuffle(found.image, self.fold)[..., :height, :width]
        return Output(maps if self.training else torch.sigmoid(maps), found.aux)
