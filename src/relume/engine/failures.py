"""What runtimes say when they fail, in our words: refused, stopped, out of memory."""

from __future__ import annotations

import numpy as np

from ..card import Card, ModelFile
from ..errors import CheckError, ModelError


def refused(model: ModelFile, error: Exception) -> ModelError:
    """A file that a runtime does not open; what was refused before it got there stays as it is."""
    if isinstance(error, ModelError):
        return error
    return ModelError(f"{model.path} cannot be opened: {_line(error)}")


def stopped(card: Card, tile: np.ndarray, error: Exception) -> Exception:
    """Out of memory in a form that tiling understands; everything else as a check that failed."""
    if out_of_memory(error):
        return MemoryError(f"{card.name} has not the memory for a tile of {tile.shape[2:]}.")
    return CheckError(f"{card.name} stopped at a tile of {tile.shape[2:]}: {_line(error)}")


def out_of_memory(error: Exception) -> bool:
    """Whether a runtime ran out of memory; they have no class for it, and say it in many words."""
    words = str(error).lower().replace("_", " ")
    return isinstance(error, MemoryError) or any(said in words for said in _NO_MEMORY)


_NO_MEMORY = ("bad alloc", "bad allocation", "allocate", "alloc failed", "allocation failure")
_NO_MEMORY += ("out of memory", "out of host memory", "out of resources", "insufficient memory")
_NO_MEMORY += ("max size of memory object allocation",)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
