"""What a costly prior said of a picture, kept on disk: the second look costs nothing.

An entry is found by the picture's pixels and by all that decides the answer (prior, settings,
digest of the weights); training, evaluation and restoration share them. The cache is never needed:
what is broken in it is made again, and what cannot be written is not.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RelumeError
from ..guidance import KINDS, Guide, Kind
from ..image import place
from ..places import default_folder
from .masks import SCORES, Masks, encode

FORMAT = 1
SUFFIX = ".prior"
ENOUGH = 2 << 30
STALE = 86_400  # seconds after which a temporary file belongs to nobody

log = logging.getLogger("relume")


def key_of(rgb: np.ndarray, identity: Mapping[str, Any]) -> str:
    """The name of an entry.

    Args:
        rgb: The picture as the prior sees it, any shape and type.
        identity: All else that decides the answer; JSON.
    """
    whole = hashlib.sha256(json.dumps([FORMAT, identity], sort_keys=True).encode())
    whole.update(f"{rgb.shape} {rgb.dtype}".encode())
    whole.update(np.ascontiguousarray(rgb).data)
    return whole.hexdigest()


class Cache:
    """Named arrays in a folder of files, the least recently used of which go first.

    Args:
        folder: Where; None = `default_folder()`. Made when the first entry is written.
        limit: Bytes of all entries together; 0 keeps nothing.
    """

    def __init__(self, folder: Path | str | None = None, *, limit: int = ENOUGH) -> None:
        self.folder = default_folder() if folder is None else Path(folder)
        self.limit = limit

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """The arrays of an entry, or None: there is none, or it is broken."""
        if self.folder is None:
            return None
        path = self.folder / (key + SUFFIX)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        body = memoryview(data)[32:]
        if hashlib.sha256(body).digest() != data[:32]:
            log.debug("a broken cache entry is made again: %s", path.name)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # used now
        with np.load(io.BytesIO(body), allow_pickle=False) as stored:
            return dict(stored)

    def put(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write an entry, whole or not at all; make room where the limit is passed."""
        buffer = io.BytesIO()
        named: dict[str, Any] = dict(arrays)
        np.savez_compressed(buffer, **named)
        body = buffer.getvalue()
        if self.folder is None or len(body) + 32 > self.limit:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            data = hashlib.sha256(body).digest() + body
            place(data, self.folder / (key + SUFFIX), replace=True)
            self._make_room()
        except (OSError, RelumeError) as error:
            log.debug("the cache cannot be written: %s", error)

    def _make_room(self) -> None:
        assert self.folder is not None
        found: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):
                said = path.stat()
                if path.suffix == SUFFIX:
                    found.append((said.st_mtime, said.st_size, path))
                elif path.name.startswith(".relume-") and said.st_mtime < time.time() - STALE:
                    path.unlink()  # of a run that was killed while it wrote
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit:
                break
            path.unlink(missing_ok=True)
            total -= size


class Remembered:
    """A prior that looks into the cache first: what it said of these very pixels is what it says.

    Args:
        prior: A prior with `identity`: all that decides its answer, JSON.
        cache: Where; by default the system's place.
    """

    def __init__(self, prior: Any, cache: Cache | None = None) -> None:
        self.prior = prior
        self.cache = cache or Cache()
        self.spec: Kind = prior.spec
        self.max_side: int = prior.max_side

    @property
    def identity(self) -> dict[str, Any]:
        """The prior's own."""
        return self.prior.identity

    def __call__(self, rgb: np.ndarray) -> Guide:
        # SAM keeps its masks here too, under its own identity: an entry of another form.
        key = key_of(rgb, {"guide": self.prior.identity})
        stored = self.cache.get(key)
        if stored is not None:
            return guide_of(stored)
        guide = self.prior(rgb)
        self.cache.put(key, arrays_of(guide))
        return guide


def arrays_of(guide: Guide) -> dict[str, np.ndarray]:
    """A Guide of one picture as arrays to keep: labels in the smallest type, layers as runs."""
    said = {
        "kind": guide.kind,
        "names": guide.names,
        "units": guide.units,
        "stride": guide.stride,
        "whole": guide.whole,
        "provenance": dict(guide.provenance),
    }
    array = np.asarray(guide.array)
    kept = {"said": np.array(json.dumps(said))}
    if guide.kind == "layers":
        counts, ends = encode(array.reshape(-1, *array.shape[2:]))
        return {**kept, "counts": counts, "ends": ends, "shape": np.array(array.shape)}
    if guide.kind == "regions" and array.size and array.min() >= 0:
        array = array.astype(np.min_scalar_type(array.max()))
    return {**kept, "array": array}


def guide_of(stored: Mapping[str, np.ndarray]) -> Guide:
    """The Guide that `arrays_of` was given."""
    said = json.loads(str(stored["said"]))
    kind = said.pop("kind")
    assert kind in KINDS
    said |= {"names": tuple(said["names"]), "units": tuple(said["units"])}
    if kind == "layers":
        shape = tuple(int(v) for v in stored["shape"])
        size, ends = (shape[2], shape[3]), stored["ends"]
        masks = Masks(size, stored["counts"], ends, np.zeros((len(ends), len(SCORES))))
        array = masks.layers().reshape(shape)
    else:
        array = stored["array"].astype(np.int32) if kind == "regions" else stored["array"]
    return Guide(**{kind: array}, **said)


def masks_to_arrays(masks: Masks) -> dict[str, np.ndarray]:
    """Masks as arrays to keep."""
    return {
        "size": np.array(masks.size),
        "counts": masks.counts,
        "ends": masks.ends,
        "scores": masks.scores,
        "said": np.array(json.dumps(dict(masks.provenance))),
    }


def masks_of(stored: Mapping[str, np.ndarray]) -> Masks:
    """The Masks that `masks_to_arrays` was given."""
    h, w = (int(v) for v in stored["size"])
    provenance = json.loads(str(stored["said"]))
    scores = stored["scores"].reshape(-1, len(SCORES))
    return Masks((h, w), stored["counts"], stored["ends"], scores, provenance)
