"""An engine: all that restoration knows of networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from ..card import Card
from ..guidance import Guidance

Precision = Literal["float32", "bf16"]


@runtime_checkable
class Engine(Protocol):
    """A model that can be run.

    `name`, `device` and `precision` belong to the settings of a run; `notes` collects what a person
    should hear (a tile that had to be computed again in float32). `first` is the engine of the
    model that runs before the priors look, which then see its output; None where they look at the
    picture. `masks` opens the mask network that says `damage`, once; None where the card names
    none. It stays shut until it is asked, so that a model that is told nothing runs without it.
    """

    name: str
    device: str
    precision: Precision
    notes: list[str]
    first: Engine | None
    masks: Callable[[], Engine] | None

    @property
    def card(self) -> Card: ...

    def prepare(self, view: np.ndarray, guidance: Guidance) -> Guidance:
        """Once per picture: what needs the whole picture's pixels.

        Args:
            view: (1, 3, h, w) float32, the whole picture at no more than `card.view_side`.

        Returns:
            The guidance with what the card has `prepared`: token rows, vectors.
        """
        ...

    def __call__(self, tile: np.ndarray, guidance: Guidance) -> np.ndarray:
        """Restore one tile.

        Args:
            tile: (1, 3, h, w) float32 in [0, 1], sides multiples of `card.multiple_of`.
            guidance: Of this tile. A prior that is missing is given as null.

        Returns:
            (1, 3, scale h, scale w) float32, finite, not clipped; with a channel for each of the
            card's `emits` where it has any; (1, K), one vector, where its card names K numbers.

        Raises:
            ShapeError: The tile has another shape.
            GuidanceError: A guide has another shape or kind than the card reads.
            CheckError: The network gave values that are not finite.
            MemoryError: The tile is too large for this machine.
        """
        ...
