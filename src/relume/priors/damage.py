"""Where a picture is damaged, by what, and how badly: one severity map for each kind of damage."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..engine import Engine, open_engine
from ..errors import UsageError
from ..guidance import Guidance, Guide, InRows, Kind
from ..tiling import plan
from .thumbnail import thumbnail

KINDS = (
    "noise",
    "compression",
    "blur",
    "rain",
    "raindrop",
    "haze",
    "lowlight",
    "scratch",
    "dust",
    "fade",
)
"""The maps, in the order in which a mask network of ours emits them."""


ACTION: Mapping[str, float] = {
    "noise": 0.16,  # sigma 8
    "compression": 0.4,  # quality 64
    "blur": 0.25,  # 8 pixels of motion
    "rain": 0.25,
    "raindrop": 0.4,
    "haze": 0.2,
    "lowlight": 0.35,
    "scratch": 0.3,
    "dust": 0.3,
    "fade": 0.25,
}
"""Severity from which something should be done about it, of each kind."""

UNKNOWN = 0.25
"""The same of a kind that is none of ours."""


TILE = 1024
"""Side of a tile, in pixels: a mask network is light, and sees further than restorers of ours, so
that small tiles would compute three times the picture."""


class DamagePrior:
    """What a mask network says of the whole picture.

    Args:
        model: A mask network: its name, its file, or an engine that runs it.

    Shape:
        (1, 3, H, W) float32 in [0, 1] -> maps (1, K, H, W) in [0, 1], 1 = degraded.

    Raises:
        UsageError: The model restores pictures and emits no maps, or reads what is not known here.
        ModelError, MissingError: It cannot be opened.
    """

    spec: Kind = "maps"
    max_side: int = 0  # it looks at the picture as it is: what is thin is lost in a smaller copy

    def __init__(self, model: str | Path | Engine) -> None:
        self.engine = open_engine(model) if isinstance(model, (str, Path)) else model
        card = self.engine.card
        if not card.emits:
            does = "restores pictures" if card.restores else "judges pictures as a whole"
            raise UsageError(f"{card.name} {does} and says nothing of damage. Give a mask network.")
        unknown = [r.prior for r in card.reads if r.prior != "thumbnail"]
        if unknown:
            raise UsageError(f"{card.name} reads {', '.join(unknown)}, which is not known here.")
        self._turn = threading.Lock()

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the answer, as JSON."""
        engine = self.engine
        return {
            "prior": "damage",
            "model": engine.card.digest,
            "engine": [engine.name, engine.precision],
        }

    def __call__(self, rgb: np.ndarray | InRows) -> Guide:
        card = self.engine.card
        known = Guidance(thumbnail=thumbnail(rgb)) if card.reads else Guidance()
        height, width = rgb.shape[-2:]
        tiles = plan(height, width, multiple_of=card.multiple_of, overlap=card.overlap, tile=TILE)
        with self._turn:
            maps = tiles.run(rgb, known, self.engine, announce=self.engine.notes.append)
        return Guide(
            maps=np.clip(maps, 0, 1, out=maps),
            names=card.emits,
            units=("severity",) * len(card.emits),
            provenance={"prior": "damage", "model": card.name, "digest": card.digest},
        )
