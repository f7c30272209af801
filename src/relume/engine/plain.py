"""The two engines without a network: the tile itself, and its negative."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..card import find
from ..guidance import Guidance
from .engine import Engine, Precision
from .inputs import feeds


class _Plain:
    """The engines without a network; they take the same path through float32 as a network does."""

    device = "cpu"
    precision: Precision = "float32"

    def __init__(self, name: str) -> None:
        self.name = name
        self.card = find(name).card
        self.notes: list[str] = []
        self.first: Engine | None = None
        self.masks: Callable[[], Engine] | None = None

    def prepare(self, view: np.ndarray, guidance: Guidance) -> Guidance:
        return guidance


class Identity(_Plain):
    """Gives the tile back."""

    def __init__(self) -> None:
        super().__init__("identity")

    def __call__(self, tile: np.ndarray, guidance: Guidance) -> np.ndarray:
        return feeds(self.card, tile, guidance)["lq"].copy()


class Invert(_Plain):
    """1 minus the tile."""

    def __init__(self) -> None:
        super().__init__("invert")

    def __call__(self, tile: np.ndarray, guidance: Guidance) -> np.ndarray:
        return np.float32(1) - feeds(self.card, tile, guidance)["lq"]
