"""Weights on disk: safetensors with what they are in the header. No pickle, ever.

The header of a model's weights holds `recipe` (resolved), `digest` (of the tensors) and `card`.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from ..card import SEAL, Card, find, is_shipped, sealed, survey, tensors_digest
from ..errors import CheckError, ModelError, OutputError
from ..image.placing import flush_folder

WORDS = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Weights:
    """A model's weights as read: tensors in float32 (rounded to half where they were stored so)."""

    tensors: dict[str, Tensor]
    recipe: dict[str, Any]
    digest: str
    card: Card | None


def named(file: str) -> Path:
    """Where finished weights lie: those of a model that ships by its name, else the file itself."""
    if is_shipped(file) and (model := find(file).path):
        return model.with_suffix(".safetensors")
    return Path(file)


def to_half(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floating tensors rounded to float16, the others as they are; on the CPU, contiguous.

    Raises:
        CheckError: A number is not finite, or too large for float16 (65504).
    """
    halves: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        value = tensor.detach().to("cpu", memory_format=torch.contiguous_format).contiguous()
        if value.is_floating_point():
            value = value.to(torch.float16)
            if not torch.isfinite(value).all():
                raise CheckError(
                    f"{name} holds numbers that are not finite or above 65504, which float16 "
                    "cannot hold. Train on from an earlier checkpoint with a lower learning rate."
                )
        halves[name] = value
    return halves


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and values, as a model file's card names it."""
    return tensors_digest(
        (name, WORDS[t.dtype], tuple(t.shape), t.detach().cpu().contiguous().numpy().tobytes())
        for name, t in tensors.items()
    )


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Plain tensors and words, in a file that is there whole or not at all; with a card, sealed.

    Raises:
        OutputError: It cannot be written.
    """
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    words = {key: word for key, word in header.items() if key != SEAL}
    data = to_bytes(plain, metadata=words)
    write_whole(path, sealed(data, ".safetensors") if "card" in words else data)


def stamp(path: Path) -> None:
    """Seal a model file that was written before there were seals. Its tensors and card stay.

    Raises:
        ModelError: It is none that is opened.
        OutputError: It cannot be written.
    """
    survey(path)
    write_whole(path, sealed(path.read_bytes(), path.suffix))


def write_whole(path: Path, data: bytes) -> None:
    """Write through a temporary file beside it; what was there before is replaced at the end.

    What a killed process left of the same file, half written, is removed.

    Raises:
        OutputError: It cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            left.unlink()
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error


def save(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    recipe: Mapping[str, Any],
    card: Card | None = None,
    half: bool = True,
) -> str:
    """Write a model's weights, rounded to half precision unless `half` is False.

    Returns:
        The digest of the tensors as written.

    Raises:
        CheckError: A number cannot be stored.
        ModelError: The card names other tensors.
        OutputError: The file cannot be written.
    """
    kept = to_half(tensors) if half else {k: v.detach().cpu() for k, v in tensors.items()}
    found = digest(kept)
    header = {"recipe": json.dumps(recipe, sort_keys=True), "digest": found}
    if card is not None:
        if card.digest != found:
            raise ModelError(f"the card of {card.name} names other tensors than {path} would hold.")
        header["card"] = card.to_json()
    write_tensors(path, kept, header)
    return found


def load(path: Path) -> Weights:
    """Read a model's weights, and check that they are those the header names.

    Raises:
        ModelError: Not safetensors, broken, without a header of ours, or of another digest.
    """
    try:
        with safe_open(path, "pt") as file:
            header = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} was refused: {error}.") from None
    try:
        recipe = json.loads(header["recipe"])
    except (KeyError, ValueError):
        raise ModelError(
            f"{path} was refused: it does not say by which recipe it was made."
        ) from None
    found = digest(tensors)
    if found != header.get("digest"):
        raise ModelError(f"{path} was refused: its tensors are not those that its header names.")
    card = Card.from_json(header["card"]) if "card" in header else None
    wide = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    return Weights(wide, recipe, found, card)
