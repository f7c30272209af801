"""Maps told beside the picture: as more channels of a convolution, the plainest use of a prior."""

from torch import Tensor, nn

from ...card import Reads
from ...guidance import Guidance
from .gate import damage_maps, maps_at


class Maps(nn.Module):
    """feat + W * m, m the damage maps, W a 3x3 that starts at zero.

    At NAFNet's `intro` this is the first convolution on the picture with the maps concatenated, for
    W * [x; m] = W_x * x + W_m * m; written beside it, it leaves a trained network as it is.

    Args:
        channels: C of the feature at the site.
        stride: Picture pixels per sample of the feature.
        reads: Name of the damage maps in the guidance.
        maps: K, how many there are.

    Shape:
        feat (N, C, h, w), maps (N, K, H, W) in [0, 1], 1 = degraded, with H = h stride or, where
        the backbone padded the picture, less -> (N, C, h, w).

    Raises:
        GuidanceError: The guidance of that name is not K maps at the picture's resolution.
    """

    support = "local"
    looks = 1  # samples of the site's grid that the convolution looks further

    def __init__(self, channels: int, stride: int, *, reads: str, maps: int = 1) -> None:
        super().__init__()
        self.reads, self.maps, self.stride = (reads,), maps, stride
        self.asks = (Reads(reads, "maps", maps, (maps, 0, 0)),)
        self.join = nn.Conv2d(maps, channels, 3, padding=1, bias=False)
        nn.init.zeros_(self.join.weight)

    def forward(self, feat: Tensor, guidance: Guidance) -> Tensor:
        maps = damage_maps(guidance, self.reads[0], self.maps, "maps")
        return feat + self.join(maps_at(maps, self.stride, feat.shape[-2:]).to(feat.dtype))
