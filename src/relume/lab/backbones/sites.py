"""What a backbone promises to those who attach something: named sites, and nothing of priors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

from ...errors import ShapeError

Adapt = Mapping[str, Callable[[Tensor], Tensor]]
"""What happens to the feature at a site: site name -> (feature -> feature of the same shape)."""


@dataclass(frozen=True)
class Site:
    """A place in a backbone where a feature can be read (a tap) or changed (an adapter).

    Args:
        channels: C of the feature there.
        stride: Picture pixels per sample of the feature.
        layout: How the network itself holds it: `NCHW`, or `tokens` (N, h w, C). Adapters and taps
            meet (N, C, h, w) in either case.
    """

    channels: int
    stride: int
    layout: Literal["NCHW", "tokens"] = "NCHW"


@dataclass(frozen=True)
class Output:
    """image: (N, 3, H scale, W scale), unclamped; of a network for gray pictures (N, 1, ...),
    of one that judges pictures (N, K).
    aux: the features that `taps` named."""

    image: Tensor
    aux: dict[str, Tensor] = field(default_factory=dict)


class Backbone(Protocol):
    """Any image-to-image network.

    Attributes:
        sites: Where features can be read and changed.
        scale: Output pixels per input pixel, along each axis.
        multiple_of: The sides that a tile must have for the network's grids to lie as in the whole.
        in_channels: Of the input: the picture's, then one for each of `inputs`.
        inputs: What a network that is not blind must be told, such as `noise.sigma`, the standard
            deviation on the [0, 1] scale: each as one constant channel behind the picture's.
        reach: How far an output looks, in input pixels; None: everywhere.
    """

    sites: Mapping[str, Site]
    scale: int
    multiple_of: int
    in_channels: int
    inputs: tuple[str, ...]
    reach: int | None

    def __call__(
        self, x: Tensor, taps: Sequence[str] = (), adapt: Adapt | None = None
    ) -> Output: ...


def check_input(x: Tensor, channels: int, name: str) -> None:
    """Refuse a batch that is not (N, channels, H, W).

    Raises:
        ShapeError: It is not; the message says which network was built for what.
    """
    if x.ndim != 4 or x.shape[1] != channels:
        raise ShapeError(
            f"{name} was built for (N, {channels}, H, W), got {tuple(x.shape)}. Channels are the "
            "picture's and, behind them, those of what the network is told."
        )


class Visit:
    """One forward pass's walk past the sites: adapts where asked, keeps what is tapped."""

    def __init__(self, taps: Sequence[str], adapt: Adapt | None) -> None:
        self.taps, self.adapt = taps, adapt or {}
        self.aux: dict[str, Tensor] = {}

    def __call__(self, site: str, feature: Tensor) -> Tensor:
        if site in self.adapt:
            feature = self.adapt[site](feature)
        if site in self.taps:
            self.aux[site] = feature
        return feature
