"""The journal: finished outputs, one JSON line each."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..image import pieces, placing
from ..image.pieces import Data
from .job import Record


class Journal:
    """Outputs, one JSON line each, appended before a file takes its name.

    An entry says what will lie there: only where a file with that hash does is it finished. So a
    run that is cut between the line and the name does that picture again, and one that is cut
    after the name never does. A torn line is passed over.

    An entry's key is made of the input's bytes and the settings, so that either changing makes it
    another job. `output` is relative to the folder that holds `.relume`.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self.root = path, path.parent.parent
        self.settings = json.dumps(settings, sort_keys=True, default=str)
        self._lock = threading.Lock()
        self._file: int | None = None
        self._entries: dict[tuple[str, str], Record] = {}
        self._hashes: dict[str, set[str]] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    self._take(json.loads(line))

    def key(self, data: Data) -> str:
        """Of one input's bytes under these settings, in hex."""
        whole = hashlib.sha256(self.settings.encode())
        whole.update(pieces.sha256(data).digest())
        return whole.hexdigest()

    def finished(self, key: str, target: Path) -> Record | None:
        """The entry of this very output, where the file is still as it was written."""
        entry = self._entries.get((key, self._name(target)))
        if entry is None or target.is_symlink():
            return None
        return entry if _sha256(target) == entry["output_sha256"] else None

    def is_ours(self, target: Path) -> bool:
        """Whether a file holds what some run of ours wrote under this name."""
        known = self._hashes.get(self._name(target))
        return bool(known) and not target.is_symlink() and _sha256(target) in known

    def add(self, key: str, target: Path, data: Data, record: Record | None) -> None:
        """Append what is about to be written, and see it on the disk.

        Raises:
            OutputError: The journal cannot be written.
        """
        entry = {"key": key, "output": self._name(target)}
        entry["output_sha256"] = pieces.sha256(data).hexdigest()
        if record is not None:
            entry |= {name: record[name] for name in ("input", "announced", "pixels")}
        line = json.dumps(entry).encode() + b"\n"
        try:
            with self._lock:
                if self._file is None:
                    self._file = self._opened()
                if os.write(self._file, line) < len(line):
                    os.write(self._file, b"\n")
                    raise OSError(28, "No space left on device")
                self._take(entry)
            os.fsync(self._file)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}).") from error

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                os.close(self._file)
            self._file = None

    def _opened(self) -> int:
        """For appending, at the start of a line: a killed run may have left half of one."""
        torn = False
        with contextlib.suppress(OSError), self.path.open("rb") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                torn = file.read(1) != b"\n"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        file = os.open(self.path, flags, 0o666)
        if torn:
            os.write(file, b"\n")
        return file

    def _take(self, entry: Record) -> None:
        name, written = entry["output"], entry["output_sha256"]
        self._entries[entry["key"], name] = entry
        self._hashes.setdefault(name, set()).add(written)

    def _name(self, target: Path) -> str:
        return os.path.relpath(target, self.root)


@contextlib.contextmanager
def swept(home: Path, folders: Iterable[Path] = ()) -> Iterator[None]:
    """Remove what killed runs left in `home` and `folders`, unless another run is at work there.

    The lock is on the folder, and goes with the process, however that ends.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            with contextlib.suppress(ImportError):  # Windows, where nobody removes an open file
                import fcntl

                folder = os.open(home, os.O_RDONLY)
                stack.callback(os.close, folder)
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for folder in (home, *folders):
                for left in placing.left_over(folder):
                    left.unlink()
        yield


def _sha256(path: Path) -> str | None:
    try:
        if not path.is_file():
            return None  # a pipe would wait for a writer
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
