"""Which engine runs a model: chosen, and opened; its runtime is imported only then."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path

from ..card import ModelFile, find, survey_first, survey_masks
from ..errors import MissingError, UsageError, nearest
from ..trial import tried
from .engine import Engine, Precision
from .onnx import OnnxEngine
from .openvino import OpenVinoEngine
from .plain import Identity, Invert

ENGINES = ("auto", "onnx", "openvino", "torch")


def open_engine(
    model: str | Path | ModelFile,
    engine: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    precision: str = "auto",
) -> Engine:
    """The engine that runs a model; where another must run first, its engine is of the same kind.

    A file that this machine has not run is first run small in a sandbox.

    Args:
        model: What `card.find` takes, or what it gave.
        engine: "onnx", "openvino", "torch" (the lab's), or "auto": torch for a `.safetensors`, else
            OpenVINO where it is installed, else ONNX Runtime. Never chosen by load or picture.
        device: "cpu", "gpu" or "auto".
        threads: Of one operator; None = the machine's.
        precision: "float32", "bf16" (OpenVINO and torch), or "auto" for float32.

    Raises:
        UsageError: No such model, engine, device or precision, or two that do not go together.
        ModelError: The model file was refused.
        MissingError: The engine is not installed; the message says the command that mends it.
    """
    for word, known, what in (
        (engine, ENGINES, "engine"),
        (device, ("auto", "cpu", "gpu"), "device"),
        (precision, ("auto", "float32", "bf16"), "precision"),
    ):
        if word not in known:
            raise UsageError(
                f"no {what} called {word!r}; there is {', '.join(known)}.{nearest(word, known)}"
            )
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}.")
    found = model if isinstance(model, ModelFile) else find(model)
    if runs := _runs_on(found, engine):
        tried(found, runs)
    opened = open_untried(found, engine, device, threads, precision)
    if (first := survey_first(found)) is not None:
        opened.first = open_engine(first, engine, device, threads, precision)
    opened.masks = masks_of(found, engine, device, threads, precision)
    return opened


def masks_of(
    model: ModelFile,
    engine: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    precision: str = "auto",
) -> Callable[[], Engine] | None:
    """What opens the mask network that goes with a model, once; None where its card names none.

    Its engine is of the same kind as the model's own.

    Args:
        model: What needs it. The others as for `open_engine`.

    Raises:
        ModelError, MissingError: When it is called, as `survey_masks` and `open_engine`.
    """

    def opened() -> Engine:
        masks = survey_masks(model)
        assert masks is not None
        return open_engine(masks, _kind(model, engine), device, threads, precision)

    return cache(opened) if model.path is not None and model.card.masks is not None else None


def _kind(model: ModelFile, engine: str) -> str:
    """What "auto" stands for."""
    if engine != "auto":
        return engine
    if model.path is not None and model.path.suffix == ".safetensors":
        return "torch"
    return "openvino" if importlib.util.find_spec("openvino") else "onnx"


def open_untried(
    found: ModelFile, engine: str, device: str, threads: int | None, precision: str
) -> Engine:
    """As `open_engine`, of this file alone, and without a first run."""
    if found.path is None:
        return {"identity": Identity, "invert": Invert}[found.card.name]()
    wanted: Precision = "bf16" if precision == "bf16" else "float32"
    kind = _kind(found, engine)
    if kind == "torch":
        return _open_torch(found, device, threads, wanted)
    if found.path.suffix == ".safetensors":
        raise UsageError(
            f"{found.path} runs on the engine torch only. `relume export {found.path}` writes "
            f"the .onnx that {kind} runs."
        )
    if kind == "openvino":
        return OpenVinoEngine(found, device=device, threads=threads, precision=wanted)
    if wanted == "bf16":
        raise UsageError("ONNX Runtime computes in float32 only; bf16 needs --engine openvino.")
    return OnnxEngine(found, device=device, threads=threads)


def _open_torch(model: ModelFile, device: str, threads: int | None, precision: Precision) -> Engine:
    """The lazy door to the lab."""
    if importlib.util.find_spec("torch") is None:
        raise MissingError(
            f"{model.path or model.card.name} runs on torch, which is not installed. Install it: "
            "uv sync --extra lab, or pip install 'relume[lab]'"
        )
    from ..lab.engine import open_torch

    return open_torch(model, device=device, threads=threads, precision=precision)


def _runs_on(found: ModelFile, engine: str) -> str:
    """Whose runtime a file will meet, or "" where `open_untried` has another word to say."""
    kind = _kind(found, engine)
    if found.path is None or importlib.util.find_spec(_RUNTIMES[kind]) is None:
        return ""
    return kind if kind == "torch" or found.path.suffix == ".onnx" else ""


_RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}
