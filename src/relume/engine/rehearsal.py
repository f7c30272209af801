"""The inside of a first run: a model's file is opened, and one small tile restored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..card import survey
from ..errors import CheckError, ModelError
from ..guidance import Guidance
from .engine import Engine
from .opening import open_untried


def first_run(request: dict[str, Any], buffers: list[bytearray]) -> tuple[dict[str, Any], list]:
    """What `trial` asks for in its sandbox: open a file, and run it on one small tile.

    Raises:
        ModelError, CheckError: It cannot be opened, or does not do what its card says.
    """
    found = survey(Path(request["path"]))
    if found.sha256 != request["sha256"]:
        raise ModelError("it changed meanwhile. Run it again.")
    run_small(open_untried(found, request["engine"], "cpu", 1, "float32"))
    return {}, []


def run_small(engine: Engine) -> None:
    """Prepare and restore one tile that is told nothing.

    Raises:
        CheckError: The answer is not what the card says.
    """
    m = engine.card.multiple_of
    side = -(-SMALL // m) * m
    tile = np.linspace(0, 1, 3 * side * side, dtype=np.float32).reshape(1, 3, side, side)
    guidance = Guidance()
    if engine.card.prepared:
        guidance = engine.prepare(tile, guidance)
    try:
        engine(tile, guidance)
    except MemoryError as error:
        raise CheckError(str(error)) from None


SMALL = 64  # pixels a side, about: of the tile of a first run
