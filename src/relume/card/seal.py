"""The seal: a digest over a model file as a whole, for what the digest of its tensors leaves open.

Card, graph and header are covered by nothing else. A seal tells damage, not malice: whoever changes
a file on purpose can seal it again. Files from before there was any have none, and load.
"""

from __future__ import annotations

import hashlib
import re

from ..errors import ModelError
from .tensors import header, pack

SEAL = "relume.seal"
_BLANK = "0" * 64
# Behind its key: in protobuf a tag and a length, in JSON a colon.
_FOUND = re.compile(rb'relume\.seal(?:\x12\x40|": ?")([0-9a-f]{64})')
_ENTRY = b"\x0a" + bytes((len(SEAL),)) + SEAL.encode() + b"\x12\x40" + _BLANK.encode()


def sealed(data: bytes, suffix: str) -> bytes:
    """A model file's bytes with a seal that holds.

    Tensors, card and graph stay as they are; an earlier seal is replaced.

    Args:
        suffix: ".onnx" or ".safetensors".

    Raises:
        ModelError: It is a broken safetensors file.
    """
    if not _FOUND.search(data):
        data = _with_blank(data, suffix)
    at = _place(data)
    blank = data[:at] + _BLANK.encode() + data[at + 64 :]
    return blank[:at] + hashlib.sha256(blank).hexdigest().encode() + blank[at + 64 :]


def check_seal(data: bytes) -> None:
    """Raise ModelError where a file has a seal, and is not as it was sealed."""
    if SEAL.encode() not in data:
        return
    at = _place(data)
    whole = hashlib.sha256(data[:at])
    whole.update(_BLANK.encode())
    whole.update(memoryview(data)[at + 64 :])
    if whole.hexdigest().encode() != data[at : at + 64]:
        raise ModelError("it is not as it was sealed: some of its bytes changed. Fetch it again")


def _place(data: bytes) -> int:
    found = list(_FOUND.finditer(data))
    if len(found) != 1:
        raise ModelError("its seal is broken. Fetch it again")
    return found[0].start(1)


def _with_blank(data: bytes, suffix: str) -> bytes:
    if suffix == ".safetensors":
        metadata, tensors = header(data)
        kept = [(name, *tensor) for name, tensor in tensors.items()]
        return b"".join(pack(kept, {**metadata, SEAL: _BLANK}))
    # One more entry of a ModelProto's metadata_props, which may stand anywhere.
    return data + b"\x72" + bytes((len(_ENTRY),)) + _ENTRY
