"""OpenVINO as an engine: faster on many processors, and in bfloat16 where they have it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ..card import ModelFile, survey_preparer
from ..errors import MissingError
from ..guidance import Guidance
from .cores import cores
from .engine import Engine, Precision
from .failures import refused, stopped
from .inputs import asked_of_preparer, feeds
from .outputs import checked, with_prepared

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
            self._settings["INFERENCE_NUM_THREADS"] = cores(threads)

        def opened(file: ModelFile) -> Any:
            try:
                return self._core.read_model(file.read(), b"")
            except Exception as error:  # as ONNX Runtime's: no common parent
                raise refused(file, error) from error

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
            raise stopped(self.card, seen, error) from error

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
