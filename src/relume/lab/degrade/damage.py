"""One kind of damage as it is drawn for one photograph: what every kind has to say of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch

from .view import Array, View


@dataclass(frozen=True)
class Parameter:
    """One number of a kind: its default range, what it may be, and how a range is drawn."""

    low: float
    high: float
    least: float
    most: float
    log: bool = False

    @property
    def allowed(self) -> str:
        return f"{self.least:g}..{self.most:g}"


class Range(NamedTuple):
    """What a SPEC says of one parameter. `draw` is uniform, or log-uniform."""

    low: float
    high: float
    log: bool = False

    def at(self, u: Any) -> Any:
        """The value at u in [0, 1], a number or an array."""
        if self.log and self.low > 0:
            return self.low * (self.high / self.low) ** u
        return self.low + u * (self.high - self.low)

    def __str__(self) -> str:
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g}..{self.high:g}"


def uniform(rng: torch.Generator, n: int) -> Array:
    """(n,) float64 in [0, 1)."""
    return torch.rand(n, generator=rng, dtype=torch.float64).numpy()


def seed(rng: torch.Generator) -> int:
    return int(torch.randint(2**62, (1,), generator=rng).item())


def generator(seed: int, index: int) -> torch.Generator:
    """The generator of picture `index` under `seed`: both numbers mixed, so that none repeats."""
    z = (seed * 0x9E3779B97F4A7C15 + index * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return torch.Generator().manual_seed((z ^ (z >> 31)) % 2**63)


class Damage(ABC):
    """One step as drawn for one photograph. A subclass is one kind of the SPEC table.

    `drawn` holds what was drawn, in people's units, JSON-able: it goes to `params.jsonl`.

    Args:
        ranges: The kind's parameters as the SPEC gives them.
        size: (height, width) of the frame that the step sees.
        rng: Drawn from once; nothing is drawn later.
        regions: (h, w) integer label map of the whole photograph at any resolution, or None.
    """

    kind: ClassVar[str]
    parameters: ClassVar[Mapping[str, Parameter]]
    words: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    light: ClassVar[bool] = False  # acts on linear light, not on the file's values
    develops: ClassVar[bool] = False  # reads light and hands back the file's values
    pointwise: ClassVar[bool] = False  # reads no neighbours, so that strips cost nothing extra
    softens: ClassVar[bool] = False  # happens to the reference too: not damage
    rounds: ClassVar[bool] = False  # takes bytes as they are, hands back the 256 values of a file
    follows_regions: ClassVar[bool] = False  # looks at the regions, which cost a search
    unit: ClassVar[str] = ""  # of the truth map; "" = the kind leaves none
    size: tuple[int, int]
    scale: int = 1

    def __init__(
        self,
        ranges: Mapping[str, Range],
        size: tuple[int, int],
        rng: torch.Generator,
        regions: Array | None,
    ) -> None:
        self.size = size
        self.drawn: dict[str, Any] = {}
        self.draw(ranges, rng, regions)

    @abstractmethod
    def draw(
        self, ranges: Mapping[str, Range], rng: torch.Generator, regions: Array | None
    ) -> None: ...

    @abstractmethod
    def apply(self, x: Array, view: View) -> Array:
        """The damaged view (3, h, w) from x, which shows `self.reads(view)` and stays as it is."""

    def reads(self, view: View) -> View:
        """What must be seen to make `view`; beyond the frame the picture is mirrored."""
        return view

    def prepare(self, gt: Array) -> None:  # noqa: B027  most kinds need no look
        """See the whole reference, where a severity needs it. (3, H, W), uint8 or float."""

    def truth(self, x: Array, view: View) -> Array | None:
        """(h, w) severity of `view`, from the same x as `apply`."""
        return None

    def small(self, x: Array) -> Array:
        """The same damage as a thumbnail (3, h, w) of the whole frame shows it."""
        return x

    def number(self, ranges: Mapping[str, Range], name: str, u: float) -> float:
        """Draw one number and note it."""
        value = float(ranges[name].at(u))
        self.drawn[name] = round(value, 6)
        return value
