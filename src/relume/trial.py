"""The first run of a model that nobody here has run: small, and in a sandbox.

A graph of allowed operators may still crash its runtime, or ask for more memory than there is. What
ran once is remembered by its digest and by what ran it, in the cache's folder, and not tried again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from . import __version__
from .card import MODELS, ModelFile, is_shipped, survey_preparer
from .card.tensors import MAX_HEADER
from .errors import MissingError, ModelError, RelumeError
from .places import default_folder
from .sandbox import Sandbox, StoppedError

SECONDS = 6.0
# Bytes, beside six times the file: tensors in float32, and as a runtime packs them.
MEMORY = 640 << 20
# The same with the runtime's libraries: torch takes 520 MB, 720 with a guest's and more as it runs.
TOTAL = 928 << 20


def tried(model: ModelFile, engine: str) -> None:
    """Run a model's file once on a small picture, apart; do nothing where that was done before.

    Args:
        model: Surveyed. Models that ship with relume and the built-in ones are known.
        engine: "onnx", "openvino" or "torch".

    Raises:
        ModelError: It did not end well; the message says how.
        MissingError: The engine is not installed.
    """
    if model.path is None or (is_shipped(model.path.stem) and model.path.parent == MODELS):
        return
    files = _files(model, engine)
    mark = _mark(files, engine)
    if mark is not None and mark.exists():
        return
    module = "relume.lab.engine" if engine == "torch" else "relume.engine"
    request = {"path": str(model.path.absolute()), "sha256": model.sha256, "engine": engine}
    readable = [str(file.absolute()) for file in files]
    room = 6 * sum(file.stat().st_size for file in files)
    target = f"{module}:first_run"
    imports = _imports(files) if engine == "torch" else []
    with Sandbox(
        target, imports=imports, memory=MEMORY + room, total=TOTAL + room, readable=readable
    ) as child:
        try:
            child.call(request, seconds=SECONDS, most=0)
        except StoppedError as error:
            raise ModelError(f"{model.path} was refused: run small, it {error}.") from None
        except MissingError:
            raise
        except RelumeError as error:
            raise ModelError(f"{model.path} was refused: run small, {error}") from None
    remember(model, engine)


def remember(model: ModelFile, engine: str) -> None:
    """That a model's file ran on an engine: it was tried, or made here."""
    mark = _mark(_files(model, engine), engine)
    if mark is not None:
        with contextlib.suppress(OSError):
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()


def _imports(files: Iterable[Path]) -> list[str]:
    """What the networks of these weights need besides torch. Such libraries write when they load,
    so they load before the child is shut in."""
    heads = b"".join(_head(file) for file in files if file.suffix == ".safetensors")
    needs = {b'"guest': "spandrel", b'"dino': "transformers.models.dinov2.modeling_dinov2"}
    return [module for word, module in needs.items() if word in heads.replace(b"\\", b"")]


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(min(MAX_HEADER, int.from_bytes(file.read(8), "little")))


def _files(model: ModelFile, engine: str) -> list[Path]:
    """What an engine opens of a model."""
    if model.path is None:
        return []
    if engine == "torch":
        own = {model.path, model.path.with_suffix(".safetensors")}
        return sorted(path for path in own if path.is_file())
    preparer = survey_preparer(model)
    return [model.path, *([preparer.path] if preparer and preparer.path else [])]


def _mark(files: Iterable[Path], engine: str) -> Path | None:
    """Where it is remembered that these files ran on this engine; None where there is no place."""
    folder = default_folder()
    if folder is None:
        return None
    words = [__version__, engine]
    with contextlib.suppress(PackageNotFoundError):
        words.append(version({"onnx": "onnxruntime"}.get(engine, engine)))
    with contextlib.suppress(OSError):
        for file in files:
            with file.open("rb") as stream:
                words.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return folder / "tried" / hashlib.sha256("\0".join(words).encode()).hexdigest()
