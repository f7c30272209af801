"""The inside of `relume models convert`: a foreign pickle read for its tensors, for nothing else.

torch's restricted unpickler refuses what is no tensor. It has failed twice (CVE-2025-32434,
CVE-2026-24747), so it runs in a sandbox alone, and from torch 2.10 on.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import MissingError, ModelError
from .weights import WORDS

MOST_TENSORS = 100_000
NESTED = ("params_ema", "params", "state_dict", "model_state_dict", "model", "generator")
"""Where people keep the weights inside what they save; the first that is there."""


def answer(
    request: dict[str, Any], buffers: list[bytearray]
) -> tuple[dict[str, Any], list[memoryview]]:
    """The tensors of a file: name, kind and shape of each, and their bytes, little-endian.

    Raises:
        ModelError: It holds something else, or tensors that are not what they say.
        MissingError: This torch is too old to be trusted with it.
    """
    check_torch()
    found = weights_in(loaded(bytes(buffers.pop())))
    told, given = [], []
    for name, tensor in found.items():
        plain = tensor.detach().contiguous()
        told.append([name, WORDS[plain.dtype], list(plain.shape)])
        flat: Any = plain.reshape(-1).view(torch.uint8).numpy() if plain.numel() else b""
        given.append(memoryview(flat).cast("B"))
    return {"tensors": told}, given


def check_torch() -> None:
    """Raise MissingError where torch is older than 2.10."""
    known = re.match(r"(\d+)\.(\d+)", torch.__version__)
    if known is None or (int(known[1]), int(known[2])) < (2, 10):
        raise MissingError(
            f"pickles are opened with torch 2.10 or later, this is {torch.__version__}: "
            "pip install --upgrade 'torch>=2.10'"
        )


def loaded(data: bytes) -> Any:
    """What torch's restricted unpickler makes of a file.

    Raises:
        ModelError: It refuses it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # whatever a hostile pickle makes it raise
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named:
            raise ModelError(f"it names {named[1]!r:.80}, which is no weight") from None
        said = re.search(r"WeightsUnpickler error:\s*([^\n]+)", str(error))
        words = said[1] if said else f"{type(error).__name__}: {error}"
        words = " ".join(words.split())[:120].rstrip(". ")
        raise ModelError(f"it is no file of plain weights ({words})") from None


def weights_in(found: Any) -> dict[str, Tensor]:
    """The tensors by name in what was loaded.

    Raises:
        ModelError: There are none, or something lies among them; or one is not dense, not finite,
            of a kind that no file of ours holds, or larger than what is stored of it.
    """
    for _ in range(3):
        inner = [found[k] for k in NESTED if isinstance(found, Mapping) and k in found]
        inner = [part for part in inner if isinstance(part, Mapping)]
        if not inner:
            break
        found = inner[0]
    if not isinstance(found, Mapping) or not 0 < len(found) <= MOST_TENSORS:
        raise ModelError("it holds no table of tensors")
    for name, tensor in found.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ModelError(f"it holds {type(tensor).__name__} under {name!r:.80}, and no tensor")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.dtype not in WORDS:
            raise ModelError(f"tensor {name!r:.80} is of a kind that is not allowed")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ModelError(f"tensor {name!r:.80} is not as large as it says")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelError(f"tensor {name!r:.80} holds numbers that are not finite")
    return dict(found)


def warm() -> None:
    """Load what reading loads at its first file of each kind."""
    for zipped in (True, False):
        file = io.BytesIO()
        kept = {"a": torch.ones(2, 2), "b": torch.ones(2, dtype=torch.bfloat16)}
        torch.save(kept, file, _use_new_zipfile_serialization=zipped)
        answer({}, [bytearray(file.getvalue())])
