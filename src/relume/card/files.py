"""Model files: finding, reading and refusing them, and those that lie beside another.

A model file is an ONNX graph with its card inside, or the `.safetensors` it was exported from.
Neither may hold code, point outside itself, or claim sizes it does not have: the survey reads the
file's own bytes before any runtime opens it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..errors import MissingError, ModelError, UsageError, nearest
from .card import BESIDE, Card
from .graph import survey_graph
from .seal import check_seal
from .tensors import survey_tensors

DEFAULT = "relume-s"
MASKS = "relume-damage"
QUALITY = "relume-quality"
MODELS = Path(__file__).parent.parent / "models"

# What Python says of values that no honest file holds: a list for a word, a number without end.
_UNREADABLE = (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError)

MAX_FILE = 1 << 29  # bytes; a 200 M parameter model in half precision is 400 MB


@dataclass(frozen=True)
class ModelFile:
    """A model that was found and surveyed. `path` is None for the built-in ones."""

    path: Path | None
    card: Card
    sha256: str

    def read(self) -> bytes:
        """The bytes that were surveyed.

        Raises:
            ModelError: The file is gone, or is not the one that was surveyed.
        """
        data = read_file(self.path) if self.path else b""
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise ModelError(f"{self.path} changed while it was being opened. Run it again.")
        return data


BUILT_IN = {
    name: ModelFile(
        None,
        Card(name, data=data, licence="Apache-2.0", limits=("For testing what surrounds pixels.",)),
        hashlib.sha256(b"").hexdigest(),
    )
    for name, data in (("identity", "returns the picture"), ("invert", "1 minus the picture"))
}


def names() -> list[str]:
    """Every name that `find` knows: the shipped models, then the built-in ones."""
    return sorted(path.stem for path in _shipped_paths()) + sorted(BUILT_IN)


def shipped() -> list[ModelFile]:
    """The models in the package, surveyed."""
    return [survey(path) for path in _shipped_paths()]


def _shipped_paths() -> list[Path]:
    beside = (".prepare.onnx", *(f".{word}.onnx" for word in BESIDE))
    return sorted(p for p in MODELS.glob("*.onnx") if not p.name.endswith(beside))


def is_shipped(word: str) -> bool:
    """Whether a model in the package has that name."""
    return word in {path.stem for path in _shipped_paths()}


def find(model: str | Path) -> ModelFile:
    """The model of that name, or in that file.

    Args:
        model: A shipped or built-in name, or the path of an `.onnx` or `.safetensors` file.

    Raises:
        UsageError: No such name, no such file.
        ModelError: The file was refused; the message says why.
    """
    word = str(model)
    if word in BUILT_IN:
        return BUILT_IN[word]
    if is_shipped(word):
        return survey(MODELS / f"{word}.onnx")
    path = Path(model)
    if path.is_file():
        return survey(path)
    if path.suffix in (".onnx", ".safetensors") or len(path.parts) > 1:
        raise UsageError(
            f"no model file at {word}. `relume models` lists the names that need none."
        )
    raise UsageError(
        f"no model called {word!r}.{nearest(word, names())} `relume models` lists all."
    )


def survey(path: Path) -> ModelFile:
    """A model file's card, once everything in the file is allowed. No runtime is involved.

    Refused in ONNX: operators outside `OPERATORS` or of a foreign domain (in subgraphs too),
    functions, training steps, sparse tensors, tensors in other files or of sizes they do not have,
    graph inputs that the card does not name. In both formats: tensors of another digest, and
    bytes that changed since the file was sealed.

    Raises:
        ModelError: It is not a model file, or one that we refuse; one line that says why.
    """
    data = read_file(path)
    try:
        if path.suffix == ".safetensors":
            card = survey_tensors(data)
        elif path.suffix == ".onnx":
            card = survey_graph(data)
        else:
            raise ModelError("a model file ends in .onnx or .safetensors; nothing else is opened")
        check_seal(data)
    except ModelError as error:
        raise ModelError(f"{path} was refused: {error}.") from None
    except _UNREADABLE as error:
        said = type(error).__name__
        raise ModelError(f"{path} was refused: it cannot be made sense of ({said}).") from None
    return ModelFile(path, card, hashlib.sha256(data).hexdigest())


def survey_preparer(model: ModelFile) -> ModelFile | None:
    """The file beside a model that prepares its token rows; None where the model needs none.

    Raises:
        ModelError: It is not there, was refused, or belongs to another model.
    """
    if not model.card.prepared or model.path is None:
        return None
    return _beside(model.path, ".prepare.onnx", model.card.preparer)


def survey_first(model: ModelFile) -> ModelFile | None:
    """The model that runs before another's priors look; None where they look at the picture.

    Raises:
        ModelError: It is not beside the model, was refused, or is another than the card names.
    """
    if model.card.first is None or model.path is None:
        return None
    return _beside(model.path, f".first{model.path.suffix}", model.card.first)


def survey_masks(model: ModelFile) -> ModelFile | None:
    """The mask network that tells a model where a picture is damaged; None where it names none.

    Raises:
        ModelError: It is not beside the model, was refused, or is another than the card names.
        MissingError: It ships with relume, and not in this installation.
    """
    card, name = model.card, model.card.masks_name
    if card.masks is None or model.path is None:
        return None
    if not name:
        return _beside(model.path, f".damage{model.path.suffix}", card.masks, UNTOLD)
    if not is_shipped(name):
        raise MissingError(
            f"{card.name} is told where a picture is damaged by {name}, which is not in this "
            f"installation: pip install --upgrade relume.{UNTOLD}"
        )
    found = find(name)
    if found.card.digest != card.masks:
        raise ModelError(
            f"{name} was refused: {card.name} was trained beside tensors {card.masks[:8]}, this "
            f"installation has {found.card.digest[:8]}.{UNTOLD}"
        )
    return found


UNTOLD = " It runs untold with --prior none."


def _beside(path: Path, suffix: str, digest: str, otherwise: str = "") -> ModelFile:
    """The file that goes with a model: NAME with that suffix, and those tensors."""
    wanted = path.with_suffix(suffix)
    if not wanted.is_file():
        raise ModelError(
            f"{path} needs {wanted.name} beside it. Copy both files together.{otherwise}"
        )
    found = survey(wanted)
    if found.card.digest != digest:
        raise ModelError(
            f"{wanted} was refused: it belongs to another model than {path}.{otherwise}"
        )
    return found


def read_file(path: Path) -> bytes:
    """The bytes of a file of weights.

    Raises:
        ModelError: It cannot be read, or is larger than any that is opened.
    """
    try:
        if path.stat().st_size > MAX_FILE:
            raise ModelError(f"{path} was refused: it is larger than {MAX_FILE >> 20} MB.")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}.") from None
