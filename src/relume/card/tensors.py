"""Tensors by name: their digest, and the header of a safetensors file, read and doubted.

safetensors: 8 bytes of header length, a JSON header, the tensors without hole or overlap (its
format section).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import ModelError
from .card import Card

MAX_HEADER = 8 << 20  # bytes; that of 2,000 tensors has 200 KB, and what is parsed takes ten times
MAX_RANK = 8


def tensors_digest(tensors: Iterable[tuple[str, str, tuple[int, ...], Any]]) -> str:
    """sha256 over (name, dtype, shape, little-endian bytes) in the order of the names.

    `dtype` in the words of safetensors: "F16", "F32", "I64".
    """
    digest = hashlib.sha256()
    for name, dtype, shape, data in sorted(tensors, key=lambda t: t[0]):
        digest.update(f"{name}\0{dtype}\0{','.join(map(str, shape))}\0".encode())
        digest.update(data)
    return digest.hexdigest()


# safetensors: 8 bytes of header length, a JSON header, the tensors without hole or overlap.

ITEM = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1}
ITEM["BOOL"] = 1
"""Bytes of a number, by the word for its kind."""


def header(data: bytes) -> tuple[dict[str, str], dict[str, tuple[str, tuple[int, ...], Any]]]:
    """The metadata and the tensors (dtype, shape, bytes) of a safetensors file.

    Raises:
        ModelError: Broken, truncated, or lying about its sizes.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise ModelError("it is no safetensors file, or a truncated one")
    if length > MAX_HEADER:
        raise ModelError(f"its header is larger than {MAX_HEADER >> 20} MB")
    try:
        raw = json.loads(data[8 : 8 + length], object_pairs_hook=_once)
        metadata = raw.pop("__metadata__", {})
        body, tensors, at = memoryview(data)[8 + length :], {}, 0
        for name, entry in sorted(raw.items(), key=lambda item: item[1]["data_offsets"]):
            (begin, end), shape = entry["data_offsets"], tuple(entry["shape"])
            if len(shape) > MAX_RANK or any(type(n) is not int or n < 0 for n in shape):
                raise ModelError(f"the shape of tensor {name!r:.80} is none")
            size = math.prod(shape) * ITEM[entry["dtype"]]
            if begin != at or end - begin != size or end > len(body):
                raise ModelError(f"tensor {name!r:.80} does not lie where the header says")
            tensors[name], at = (entry["dtype"], shape, body[begin:end]), end
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError("its header cannot be read") from None
    if at != len(body):
        raise ModelError("it has bytes that belong to no tensor")
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ModelError("its metadata is not a table of words")
    return metadata, tensors


def pack(
    tensors: Iterable[tuple[str, str, tuple[int, ...], Any]], metadata: Mapping[str, str]
) -> list[bytes]:
    """A safetensors file in pieces.

    Args:
        tensors: (name, kind, shape, little-endian bytes), as `tensors_digest` takes them.
        metadata: Words for its header.
    """
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    body, at = list[bytes](), 0
    for name, kind, shape, data in tensors:
        end = at + len(data)
        entries[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, end]}
        body.append(bytes(data))
        at = end
    words = json.dumps(entries).encode()
    words += b" " * (-len(words) % 8)  # tensors begin on a multiple of eight
    return [len(words).to_bytes(8, "little"), words, *body]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ModelError("a key stands twice in its header")
    return dict(pairs)


def survey_tensors(data: bytes) -> Card:
    """The card of a safetensors file, once its header and its digest hold.

    Raises:
        ModelError: They do not, or there is no card.
    """
    metadata, tensors = header(data)
    if "card" not in metadata:
        raise ModelError(
            "it carries no card. `relume train` and `relume export` write files that do"
        )
    card = Card.from_json(metadata["card"])
    if tensors_digest((name, *tensor) for name, tensor in tensors.items()) != card.digest:
        raise ModelError("its tensors are not those that its card names. Fetch it again")
    return card
