"""What runs a finished model: ONNX Runtime, OpenVINO, the lab's torch, and two without a network.

An engine takes a tile and the guidance of that tile, both numpy, and gives the restored tile. It is
the only thing restoration knows of networks. A runtime is imported when it is opened, not before.
"""

from __future__ import annotations

import importlib.util
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from .card import (
    Card,
    ModelFile,
    Reads,
    find,
    survey,
    survey_first,
    survey_masks,
    survey_preparer,
)
from .errors import (
    CheckError,
    GuidanceError,
    MissingError,
    ModelError,
    ShapeError,
    UsageError,
    nearest,
)
from .guidance import Guidance, Guide
from .trial import tried

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


class OnnxEngine:
    """ONNX Runtime, in float32.

    Args:
        model: A surveyed `.onnx` file.
        device: "cpu", "gpu", or "auto" for a GPU where the installed onnxruntime wheel drives one.
        threads: Of one operator; None = as many as there are cores. Results do not depend on it.

    Raises:
        ModelError: The runtime cannot open the graph.
        MissingError: A GPU was asked for, and this onnxruntime drives none.
    """

    name = "onnx"
    precision: Precision = "float32"

    def __init__(
        self, model: ModelFile, *, device: str = "auto", threads: int | None = None
    ) -> None:
        import onnxruntime

        if hasattr(onnxruntime, "disable_telemetry_events"):
            onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _threads(threads)
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised; its log would be a second line
        # Waiting threads sleep: a spinning pool takes the cores from decoding and from other jobs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = [p for p in _GPU_PROVIDERS if p in onnxruntime.get_available_providers()]
        if device == "gpu" and not providers:
            raise MissingError(
                "this onnxruntime drives no GPU. Exchange it: pip uninstall onnxruntime && "
                "pip install onnxruntime-gpu"
            )
        self.device = "gpu" if providers and device != "cpu" else "cpu"
        chosen = [(p, _GPU_PROVIDERS[p]) for p in providers if self.device == "gpu"]
        self.card = model.card
        self.notes: list[str] = []
        self.first: Engine | None = None
        self.masks: Callable[[], Engine] | None = None

        def opened(file: ModelFile) -> Any:
            try:
                return onnxruntime.InferenceSession(
                    file.read(), options, providers=[*chosen, "CPUExecutionProvider"]
                )
            except Exception as error:  # the runtime's own exceptions share no parent of their own
                raise _refused(file, error) from error

        self._session = opened(model)
        preparer = survey_preparer(model)
        self._preparer = (preparer.card, opened(preparer)) if preparer else None

    def prepare(self, view: np.ndarray, guidance: Guidance) -> Guidance:
        if self._preparer is None:
            return guidance
        card, session = self._preparer
        given = asked_of_preparer(card, self.card, view, guidance)
        return with_prepared(self.card, guidance, self._run(session, given, view))

    def __call__(self, tile: np.ndarray, guidance: Guidance) -> np.ndarray:
        given = feeds(self.card, tile, guidance)
        return checked(self.card, tile, self._run(self._session, given, tile)[0])

    def _run(self, session: Any, given: dict[str, np.ndarray], seen: np.ndarray) -> Any:
        try:
            return session.run(None, given)
        except Exception as error:  # as at opening: no common parent
            raise _stopped(self.card, seen, error) from error


# TF32 would round the products to 10 bits; what we promise of float32 must hold on a GPU too.
_GPU_PROVIDERS: dict[str, dict[str, str]] = {
    "CUDAExecutionProvider": {"use_tf32": "0"},
    "ROCMExecutionProvider": {},
    "DmlExecutionProvider": {},
}


SHAPES = 6
"""Shapes of tiles for which an engine keeps a graph compiled: two a picture, with room."""


class OpenVinoEngine:
    """OpenVINO, compiled once for each shape of tile: free shapes run at half the speed.

    Args:
        model: A surveyed `.onnx` file.
        device: "cpu", "gpu", or "auto" for the CPU.
        threads: None = OpenVINO's own choice (the physical cores). Results do not depend on it.
        precision: "bf16" computes in bfloat16; a tile that does not come out finite is computed
            again in float32 (`notes` says how many).

    Raises:
        MissingError: openvino is not installed, sees no GPU, or this CPU has no bf16.
        ModelError: OpenVINO cannot read the graph.
    """

    name = "openvino"

    def __init__(
        self,
        model: ModelFile,
        *,
        device: str = "auto",
        threads: int | None = None,
        precision: Precision = "float32",
    ) -> None:
        self._core = _openvino().Core()
        self.device = "gpu" if device == "gpu" else "cpu"
        if self.device.upper() not in {d.split(".")[0] for d in self._core.available_devices}:
            raise MissingError("OpenVINO sees no GPU here. Run without --device gpu.")
        abilities = self._core.get_property(self.device.upper(), "OPTIMIZATION_CAPABILITIES")
        if precision == "bf16" and "BF16" not in abilities:
            raise MissingError("this processor has no bf16. Run with precision float32.")
        self.card = model.card
        self.precision: Precision = precision
        self.notes: list[str] = []
        self.first: Engine | None = None
        self.masks: Callable[[], Engine] | None = None
        self._settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if self.device == "cpu" and threads is not None:
            self._settings["INFERENCE_NUM_THREADS"] = _threads(threads)

        def opened(file: ModelFile) -> Any:
            try:
                return self._core.read_model(file.read(), b"")
            except Exception as error:  # as ONNX Runtime's: no common parent
                raise _refused(file, error) from error

        self._graph = opened(model)
        preparer = survey_preparer(model)
        self._preparer = (preparer.card, opened(preparer)) if preparer else None
        self._compiled: dict[tuple[Any, ...], Any] = {}
        self._again = 0

    def prepare(self, view: np.ndarray, guidance: Guidance) -> Guidance:
        if self._preparer is None:
            return guidance
        card, graph = self._preparer
        given = asked_of_preparer(card, self.card, view, guidance)
        # In float32 always: a mean over a million pixels in bfloat16 is none.
        outs = self._run(graph, given, view, "float32")
        return with_prepared(self.card, guidance, list(outs.values()))

    def __call__(self, tile: np.ndarray, guidance: Guidance) -> np.ndarray:
        given = feeds(self.card, tile, guidance)
        out = self._run(self._graph, given, tile, self.precision)[0]
        if self.precision == "bf16" and not np.isfinite(out).all():
            self._again += 1
            self.notes = [f"{self._again} tiles were not finite in bf16 and computed in float32"]
            out = self._run(self._graph, given, tile, "float32")[0]
        return checked(self.card, tile, out)

    def _run(
        self, graph: Any, given: dict[str, np.ndarray], seen: np.ndarray, precision: Precision
    ) -> Any:
        try:
            return self._request(graph, given, precision)(given, share_inputs=True)
        except Exception as error:  # as at opening: no common parent
            raise _stopped(self.card, seen, error) from error

    def _request(self, graph: Any, given: dict[str, np.ndarray], precision: Precision) -> Any:
        key = (graph is self._graph, precision, *(a.shape for a in given.values()))
        if key not in self._compiled:
            # A folder of a thousand sizes would keep a thousand graphs; each holds its memory.
            while len(self._compiled) >= SHAPES:
                self._compiled.pop(next(iter(self._compiled)))
            fixed = graph.clone()
            fixed.reshape({name: list(array.shape) for name, array in given.items()})
            hint = "bf16" if precision == "bf16" else "f32"
            settings = {**self._settings, "INFERENCE_PRECISION_HINT": hint}
            self._compiled[key] = self._core.compile_model(fixed, self.device.upper(), settings)
        else:
            self._compiled[key] = self._compiled.pop(key)  # the last one asked for goes last
        return self._compiled[key]


def _openvino() -> Any:
    """The package, without its telemetry: importing it would write an id into the home folder and
    start a sender. Without `openvino_telemetry` it takes a stub of its own.

    Raises:
        MissingError: It is not installed.
    """
    known = "openvino_telemetry" in sys.modules
    if not known:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError:
        raise MissingError(
            "openvino is not installed. Install it: uv sync --extra openvino, or "
            "pip install 'relume[openvino]'"
        ) from None
    finally:
        if not known:
            del sys.modules["openvino_telemetry"]
    return openvino


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
    opened = _opened(found, engine, device, threads, precision)
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


def _opened(
    found: ModelFile, engine: str, device: str, threads: int | None, precision: str
) -> Engine:
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


def _runs_on(found: ModelFile, engine: str) -> str:
    """The engine whose runtime a file will meet, or "" where `_opened` has another word to say."""
    kind = _kind(found, engine)
    if found.path is None or importlib.util.find_spec(_RUNTIMES[kind]) is None:
        return ""
    return kind if kind == "torch" or found.path.suffix == ".onnx" else ""


_RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}


def first_run(request: dict[str, Any], buffers: list[bytearray]) -> tuple[dict[str, Any], list]:
    """What `trial` asks for in its sandbox: open a file, and run it on one small tile.

    Raises:
        ModelError, CheckError: It cannot be opened, or does not do what its card says.
    """
    found = survey(Path(request["path"]))
    if found.sha256 != request["sha256"]:
        raise ModelError("it changed meanwhile. Run it again.")
    run_small(_opened(found, request["engine"], "cpu", 1, "float32"))
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

ENGINES = ("auto", "onnx", "openvino", "torch")


def _open_torch(model: ModelFile, device: str, threads: int | None, precision: Precision) -> Engine:
    """The lazy door to the lab."""
    if importlib.util.find_spec("torch") is None:
        raise MissingError(
            f"{model.path or model.card.name} runs on torch, which is not installed. Install it: "
            "uv sync --extra lab, or pip install 'relume[lab]'"
        )
    from .lab.engine import open_torch

    return open_torch(model, device=device, threads=threads, precision=precision)


def feeds(card: Card, tile: np.ndarray, guidance: Guidance) -> dict[str, np.ndarray]:
    """The graph's inputs: `lq`, then one array for each prior that the card reads.

    A prior that is missing is given as null: zero maps, labels, tokens, vector.

    Raises:
        ShapeError: `tile` is not (1, 3, h, w) with sides that are multiples of the card's.
        GuidanceError: A guide has another kind or shape than the card reads.
    """
    m = card.multiple_of
    if tile.ndim != 4 or tile.shape[:2] != (1, 3) or tile.shape[2] % m or tile.shape[3] % m:
        raise ShapeError(
            f"{card.name} takes tiles of (1, 3, h, w) with sides that {m} divides, got "
            f"{tile.shape}. `tiling.plan` makes them."
        )
    given = {"lq": np.ascontiguousarray(tile, np.float32)}
    for reads in card.reads:
        given[reads.prior] = _guide(card, reads, guidance, tile.shape[2], tile.shape[3])
    for reads in card.prepared:
        if reads.prior not in guidance:
            raise GuidanceError(
                f"{card.name} needs {reads.prior} of the whole picture. Call `prepare` first."
            )
        given[reads.prior] = _guide(card, reads, guidance, tile.shape[2], tile.shape[3])
        if reads.counted and label_count(card, given) > given[reads.prior].shape[1]:
            raise GuidanceError(
                f"{card.name} has {given[reads.prior].shape[1]} rows of {reads.prior}, and the "
                f"tile {label_count(card, given)} labels. Prepare and tile the same picture."
            )
    return given


def label_count(card: Card, given: Mapping[str, np.ndarray]) -> int:
    """One more than the highest label of the regions that a card reads; 1 where it reads none."""
    labels = [given[r.prior] for r in card.reads if r.kind == "regions"]
    return 1 + max((int(a.max()) for a in labels if a.size), default=0)


def asked_of_preparer(
    preparer: Card, card: Card, view: np.ndarray, guidance: Guidance
) -> dict[str, np.ndarray]:
    """The inputs of the graph that prepares: the picture, what it reads, and empty token rows where
    they are as many as labels.

    The rows say how many labels there may be. Their number is a power of two, so that a runtime
    which compiles each shape meets few.
    """
    counted = [r for r in card.prepared if r.counted]
    nulls = {r.prior: Guide(tokens=np.zeros((1, 1, r.channels), np.float32)) for r in counted}
    given = feeds(preparer, view, Guidance({**guidance, **nulls}))
    rows = 1 << max(4, (label_count(preparer, given) - 1).bit_length())
    return given | {r.prior: np.zeros((1, rows, r.channels), np.float32) for r in counted}


def with_prepared(card: Card, guidance: Guidance, outs: Sequence[np.ndarray]) -> Guidance:
    """The guidance with what a preparer gave, in the card's order.

    Raises:
        CheckError: They are not finite.
    """
    for reads, rows in zip(card.prepared, outs, strict=True):
        if not np.isfinite(rows).all():
            raise CheckError(
                f"{card.name} prepared {reads.prior} that is not finite; nothing was written."
            )
        guidance = guidance.with_guide(reads.prior, guide_of(reads, np.array(rows, np.float32)))
    return guidance


def _guide(card: Card, reads: Reads, guidance: Guidance, height: int, width: int) -> np.ndarray:
    free = [height // reads.stride, width // reads.stride]
    last = len(reads.shape)
    sides = [n or (free[i - last] if reads.spatial else 1) for i, n in enumerate(reads.shape)]
    shape = (1, *sides)
    dtype = {"regions": np.int32, "layers": np.bool_}.get(reads.kind, np.float32)
    if reads.prior not in guidance:
        return np.zeros(shape, dtype)
    guide = guidance[reads.prior]
    if guide.kind != reads.kind:
        raise GuidanceError(
            f"{card.name} reads {reads.prior} as {reads.kind}, but this one is {guide.kind}."
        )
    array = np.ascontiguousarray(guide.array, dtype)
    if array.shape != shape and not (reads.counted and array.shape[::2] == shape[::2]):
        raise GuidanceError(
            f"{card.name} reads {reads.prior} as {shape} for this tile, got {array.shape}."
        )
    # -1 would wrap silently in a gather.
    if reads.kind == "regions" and array.size and array.min() < 0:
        raise GuidanceError(f"{reads.prior} has the label {array.min()}; labels are 0 or more.")
    return array


def guide_of(reads: Reads, array: Any) -> Guide:
    """The Guide that a model reads, from its array (N first) or tensor."""
    given: dict[str, Any] = {reads.kind: array}
    return Guide(**given, stride=reads.stride, whole=reads.whole)


def checked(card: Card, tile: np.ndarray, out: np.ndarray) -> np.ndarray:
    """`out`, when it has the shape the card promises and every value is finite.

    Raises:
        CheckError: It has not.
    """
    n, _, h, w = tile.shape
    c = len(card.emits) or 3
    picture = (n, c, h * card.scale, w * card.scale)
    if out.shape != ((n, len(card.vector)) if card.vector else picture):
        raise CheckError(f"{card.name} gave {out.shape} for a tile of {tile.shape}.")
    # One pass without a mask: a sum in double is finite exactly when every term is.
    if not math.isfinite(float(out.sum(dtype=np.float64))):
        raise CheckError(f"{card.name} gave values that are not finite; nothing was written.")
    return out


def _threads(threads: int | None) -> int:
    if threads is None and hasattr(os, "sched_getaffinity"):
        return len(
            os.sched_getaffinity(0)
        )  # the cores that this process may use, not all there are
    return threads or os.cpu_count() or 1


def _refused(model: ModelFile, error: Exception) -> ModelError:
    if isinstance(error, ModelError):
        return error
    return ModelError(f"{model.path} cannot be opened: {_line(error)}")


def _stopped(card: Card, tile: np.ndarray, error: Exception) -> Exception:
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
