"""Results on their way to the disk: encoded, written beside, decoded once, journalled, named.

A few are under way at a time, while the next picture is restored.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from ..errors import OutputError
from ..image import Picture, placing, reader, writer
from ..image.pieces import Data
from .job import Record, one_line
from .journal import Journal

THREADS = 4  # flushes of one moment cost a disk little more than one
ROOM = 96 << 20  # bytes on their way; one larger result still goes alone


@dataclass(frozen=True, eq=False)
class Result:
    """One file to be.

    Attributes:
        content: What it holds: the very bytes, or a picture, which is encoded on the way.
        target: Its name.
        key: Its key in the journal.
        record: Of the report; what encoding loses is announced there.
        replace: Whether what lies there now is known as ours, and to be replaced.
        sidecar: Whether the record is to be written beside it.
    """

    content: Data | Picture
    target: Path
    key: str
    record: Record
    replace: bool = False
    sidecar: bool = False

    @property
    def size(self) -> int:
        """Bytes in memory."""
        if isinstance(self.content, Picture):
            return self.content.pixels.nbytes
        return len(self.content)


class Delivery:
    """Takes results to their places. The order of steps is what a killed run relies on: a name is
    given last, to a file that is whole, decodes, is on the disk and stands in the journal.

    Args:
        home: Where files lie that are not whole yet.
    """

    def __init__(self, journal: Journal, home: Path) -> None:
        self._journal, self.home = journal, home
        self._pool = ThreadPoolExecutor(THREADS, "relume-delivery")
        self._free = threading.Condition()
        self._under_way = 0

    def send(self, result: Result) -> Future[None]:
        """Waits while too much is under way, and for a large result to arrive, so that its memory
        is free before the next picture is read. The future raises RelumeError."""
        size = result.size
        with self._free:
            self._free.wait_for(lambda: not self._under_way or self._under_way + size <= ROOM)
            self._under_way += size
        future = self._pool.submit(self._deliver, result)
        future.add_done_callback(lambda _: self._arrived(size))
        if size > ROOM:
            wait([future])
        return future

    def close(self, *, now: bool = False) -> None:
        """Wait for what is under way; or, `now`, leave out what has not begun."""
        self._pool.shutdown(wait=not now, cancel_futures=now)
        if not now:
            self._journal.close()

    def _arrived(self, size: int) -> None:
        with self._free:
            self._under_way -= size
            self._free.notify_all()

    def _deliver(self, result: Result) -> None:
        target, data = result.target, result.content
        if isinstance(data, Picture):
            data, lost = writer.render(data, writer.format_for(target))
            told = [*result.record["announced"], *map(one_line, lost)]
            result.record["announced"] = list(dict.fromkeys(told))
        with placing.explained(target):
            home = self.home.stat()  # gone with the folder above it: nothing is made anew
            make(target.parent)
            same = home.st_dev == target.parent.stat().st_dev
            # A folder below OUT may be another file system's, where nothing can be moved to.
            folder = self.home if same else target.parent
            beside = placing.put(data, folder)
            try:
                if isinstance(result.content, Picture):
                    shape = result.content.pixels.shape
                    reader.verify(beside, writer.format_for(target), shape)
                self._journal.add(result.key, target, data, result.record)
                placing.name(beside, target, replace=result.replace)
            finally:
                placing.drop(beside)
        if result.sidecar:
            self.write_sidecar(target, result.key, result.record)

    def write_sidecar(self, target: Path, key: str, record: Record) -> None:
        """The record beside its output, as NAME.json, unless something else is there."""
        path = sidecar(target)
        data = (json.dumps(record, indent=1) + "\n").encode()
        there = os.path.lexists(path)
        if there and not self._journal.is_ours(path):
            record["announced"].append(f"sidecar not written: {path.name} is there, and not ours")
            return
        self._journal.add(key, path, data, None)
        placing.place(data, path, replace=there)


def sidecar(target: Path) -> Path:
    return target.with_name(target.name + ".json")


def make(folder: Path) -> None:
    """Raises OutputError where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror}).") from error


def final(error: OutputError) -> bool:
    """Whether no output can be written any more: the disk is full, read-only, or gone."""
    return getattr(error.__cause__, "errno", None) in _FINAL


_FINAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EIO}
