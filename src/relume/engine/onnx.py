"""ONNX Runtime as an engine, on the CPU or a GPU."""

from __future__ import annotations

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
        options.intra_op_num_threads = cores(threads)
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised; its log would be a second line
        # Waiting threads sleep: a spinning pool takes the cores from decoding and from other jobs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = [p for p in GPU_PROVIDERS if p in onnxruntime.get_available_providers()]
        if device == "gpu" and not providers:
            raise MissingError(
                "this onnxruntime drives no GPU. Exchange it: pip uninstall onnxruntime && "
                "pip install onnxruntime-gpu"
            )
        self.device = "gpu" if providers and device != "cpu" else "cpu"
        chosen = [(p, GPU_PROVIDERS[p]) for p in providers if self.device == "gpu"]
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
                raise refused(file, error) from error

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
            raise stopped(self.card, seen, error) from error


# TF32 would round the products to 10 bits; what we promise of float32 must hold on a GPU too.
GPU_PROVIDERS: dict[str, dict[str, str]] = {
    "CUDAExecutionProvider": {"use_tf32": "0"},
    "ROCMExecutionProvider": {},
    "DmlExecutionProvider": {},
}
