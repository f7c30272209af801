"""What a backbone promises to those who attach something: named sites, and nothing of priors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

Adapt = Mapping[str, Callable[[Tensor], Tensor]]
"""What happens to the feature at a site: site name -> (feature -> feature of the same shape)."""


@dataclass(frozen=True)
class Site:
    """A place in a backbone where a feature can be read (a tap) or changed (an adapter).

    Args:
        channels: C of the feature there.
        stride: Picture pixels per sample of the feature.
        layout: `NCHW`, or `tokens` (N, h w, C) with (h, w) taken from the call.
    """

    channels: int
    stride: int
    layout: Literal["NCHW", "tokens"] = "NCHW"


@dataclass(frozen=True)
class Output:
    """image: (N, 3, H scale, W scale), unclamped. aux: the features that `taps` named."""

    image: Tensor
    aux: dict[str, Tensor] = field(default_factory=dict)


class Backbone(Protocol):
    """Any image-to-image network. `reach`: how far an output looks in pixels; None: everywhere."""

    sites: Mapping[str, Site]
    scale: int
    multiple_of: int
    in_channels: int
    inputs: tuple[str, ...]
    reach: int | None

    def __call__(
        self, x: Tensor, taps: Sequence[str] = (), adapt: Adapt | None = None
    ) -> Output: ...


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
