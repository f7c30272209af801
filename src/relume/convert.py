"""`relume models convert`: a foreign pickle of weights becomes safetensors, read in a sandbox.

Nothing else of relume opens a pickle, but for the weights of VGG-16 that a recipe may name: their
file is larger than a model may be (`lab.losses.vgg`, by the same restricted loading, in process).
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

from .card import ITEM, pack
from .card.files import MAX_FILE, read_file
from .errors import MissingError, ModelError, RelumeError
from .image import place
from .sandbox import Sandbox, StoppedError

SECONDS = 8.0
MEMORY, TOTAL = 512 << 20, 928 << 20  # bytes, beside six times the file; with torch itself


def convert(source: Path, target: Path) -> list[str]:
    """Write the tensors of a `.pth`, `.pt`, `.ckpt` or `.bin` file as safetensors.

    The file has no card: it is a backbone for recipes, or what `relume train` goes on from.

    Args:
        target: Not there yet.

    Returns:
        The names of the tensors.

    Raises:
        ModelError: The file was refused; one line that says why.
        MissingError: torch is too old to be trusted with it.
        OutputError: `target` cannot be written, or is there already.
    """
    data = read_file(source)
    try:
        with Sandbox(
            "relume.lab.pickles:answer",
            warm="relume.lab.pickles:warm",
            memory=MEMORY + 6 * len(data),
            total=TOTAL + 6 * len(data),
            readable=[],
            watched=True,
        ) as child:
            told, given = child.call({}, [data], seconds=SECONDS, most=MAX_FILE)
        tensors = []
        for (name, kind, shape), buffer in zip(told["tensors"], given, strict=True):
            if math.prod(shape) * ITEM[kind] != len(buffer):
                raise ModelError(f"tensor {name!r:.80} is not as large as it says")
            tensors.append((str(name), str(kind), tuple(shape), buffer))
    except StoppedError as error:
        raise ModelError(f"{source} was refused: it {error}.") from None
    except MissingError:
        raise
    except RelumeError as error:
        raise ModelError(f"{source} was refused: {error}.") from None
    except (KeyError, TypeError, ValueError):
        raise ModelError(f"{source} was refused: it gave no tensors.") from None
    said = {"source": source.name, "source_sha256": hashlib.sha256(data).hexdigest()}
    place(pack(tensors, said), target)
    return [name for name, *_ in tensors]
