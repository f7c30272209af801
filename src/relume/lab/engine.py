"""The lab's engine: a restorer run by torch, on the CPU or a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..card import Card, ModelFile, Reads, survey
from ..engine import (
    Engine,
    Precision,
    checked,
    feeds,
    guide_of,
    out_of_memory,
    run_small,
    with_prepared,
)
from ..errors import MissingError, ModelError, UsageError
from ..guidance import Guidance
from . import weights
from .finished import restorer_of


class TorchEngine:
    """Runs a restorer as an engine.

    Args:
        restorer: (lq, guidance) -> out.
        card: Its card.
        device: "cpu", "gpu", or "auto" for a GPU where torch sees one.
        threads: Of one operator; None leaves torch's setting, which is the process's.
        precision: "bf16" computes under autocast; a tile that does not come out finite is computed
            again in float32 (`notes` says how many).

    Raises:
        MissingError: A GPU was asked for and torch sees none.
    """

    name = "torch"

    def __init__(
        self,
        restorer: nn.Module,
        card: Card,
        *,
        device: str = "auto",
        threads: int | None = None,
        precision: Precision = "float32",
    ) -> None:
        if device == "gpu" and not torch.cuda.is_available():
            raise MissingError("torch sees no GPU here. Run with --device cpu.")
        self.device = "gpu" if device != "cpu" and torch.cuda.is_available() else "cpu"
        self._device = torch.device("cuda" if self.device == "gpu" else "cpu")
        if threads is not None:
            torch.set_num_threads(threads)
        self.card = card
        self.precision: Precision = precision
        self.notes: list[str] = []
        self.first: Engine | None = None
        self.masks: Callable[[], Engine] | None = None
        self._again = 0
        self.restorer = restorer.to(self._device).eval()

    @torch.inference_mode()
    def prepare(self, view: np.ndarray, guidance: Guidance) -> Guidance:
        if not self.card.prepared:
            return guidance
        whole = replace(self.card, prepared=(), multiple_of=1)
        given = feeds(whole, view, guidance)
        seen = torch.from_numpy(given["lq"]).to(self._device)
        known = self._guidance(whole.reads, given)
        ready = self.restorer.prepare(seen, known)  # type: ignore[operator]
        outs = [ready[r.prior].array.float().cpu().numpy() for r in self.card.prepared]
        return with_prepared(self.card, guidance, outs)

    def __call__(self, tile: np.ndarray, guidance: Guidance) -> np.ndarray:
        given = feeds(self.card, tile, guidance)
        out = self._run(given, self.precision)
        if self.precision == "bf16" and not np.isfinite(out).all():
            self._again += 1
            self.notes = [f"{self._again} tiles were not finite in bf16 and computed in float32"]
            out = self._run(given, "float32")
        return checked(self.card, tile, out)

    @torch.inference_mode()
    def _run(self, given: dict[str, np.ndarray], precision: Precision) -> np.ndarray:
        lq = torch.from_numpy(given["lq"]).to(self._device)
        lq = lq.contiguous(memory_format=torch.channels_last)
        guidance = self._guidance((*self.card.reads, *self.card.prepared), given)
        try:
            with torch.autocast(self._device.type, torch.bfloat16, enabled=precision == "bf16"):
                out = self.restorer(lq, guidance)
        except RuntimeError as error:  # on the CPU torch has no class of its own for it
            if out_of_memory(error):
                raise MemoryError(str(error)) from error
            raise
        return out.float().contiguous().cpu().numpy()

    def _guidance(self, reads: Iterable[Reads], given: dict[str, np.ndarray]) -> Guidance:
        tensors = {r: torch.from_numpy(given[r.prior]).to(self._device) for r in reads}
        return Guidance({r.prior: guide_of(r, tensor) for r, tensor in tensors.items()})


def first_run(request: dict[str, Any], buffers: list[bytearray]) -> tuple[dict[str, Any], list]:
    """As the ground floor's, with the weights beside the file, or in it."""
    found = survey(Path(request["path"]))
    if found.sha256 != request["sha256"]:
        raise ModelError("it changed meanwhile. Run it again.")
    run_small(open_torch(found, device="cpu", threads=1, precision="float32"))
    return {}, []


def open_torch(
    model: ModelFile, *, device: str, threads: int | None, precision: Precision
) -> TorchEngine:
    """The torch engine of a `.safetensors` model, or of the one that lies beside an `.onnx`.

    Raises:
        UsageError: An `.onnx` without its `.safetensors`.
        ModelError: The weights were refused, or are not those of the `.onnx`.
    """
    assert model.path is not None
    path = model.path.with_suffix(".safetensors")
    if not path.is_file():
        raise UsageError(
            f"the engine torch needs {path.name} beside {model.path}. Run with --engine onnx."
        )
    stored = weights.load(path)
    if stored.digest != model.card.digest:
        raise ModelError(
            f"{path} was refused: {model.path.name} beside it was made of other tensors."
        )
    restorer = restorer_of(stored)
    return TorchEngine(restorer, model.card, device=device, threads=threads, precision=precision)
