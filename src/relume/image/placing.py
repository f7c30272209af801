"""A file is there whole, or not at all: written beside its place, safe on the disk, then named."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import secrets
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import OutputError


def place(
    data: bytes | Iterable[bytes],
    path: Path,
    *,
    replace: bool = False,
    temporary: Path | None = None,
) -> None:
    """Give bytes a name in one step: a file is there whole, or not at all.

    Args:
        data: The whole file, or its pieces in order.
        path: Where; its folder exists.
        replace: False leaves an existing file alone, also one that appears meanwhile.
        temporary: A folder on the same file system; the path's own by default.

    Raises:
        OutputError: It cannot be written, or is already there; the OSError is its cause.
    """
    with explained(path):
        beside = put(data, temporary or path.parent)
        try:
            name(beside, path, replace=replace)
        finally:
            drop(beside)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """An OSError inside becomes the OutputError of `path`, in one line."""
    try:
        yield
    except OutputError:
        raise
    except FileExistsError as error:
        raise OutputError(f"{path}: there already; it is not replaced.") from error
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}).") from error


def put(data: bytes | Iterable[bytes], folder: Path) -> Path:
    """Bytes under a name of their own in a folder, and on its disk; nothing where that fails.

    Raises:
        OSError: They cannot be written.
    """
    beside = folder / f".relume-{os.getpid()}-{secrets.token_hex(6)}"
    try:
        with beside.open("xb") as file:
            _fill(file, [data] if isinstance(data, bytes) else data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        drop(beside)
        raise
    return beside


def _fill(file: BinaryIO, pieces: Iterable[bytes]) -> None:
    file.writelines(pieces)


def name(beside: Path, path: Path, *, replace: bool = False) -> None:
    """Give a file that is whole its name, and see the name on the disk.

    Raises:
        OSError: It cannot be; FileExistsError where a file is there and not to be replaced.
    """
    if replace:
        beside.replace(path)
    else:
        _take(beside, path)
    flush_folder(path.parent)


def flush_folder(path: Path) -> None:
    """See the names in a folder on the disk; not every system opens folders, or flushes them."""
    with contextlib.suppress(OSError):
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def drop(beside: Path) -> None:
    with contextlib.suppress(OSError):
        beside.unlink(missing_ok=True)


def left_over(folder: Path) -> list[Path]:
    """Files that were never whole, of runs that were killed."""
    try:
        return [path for path in folder.iterdir() if _OURS.fullmatch(path.name)]
    except OSError:
        return []


def _take(beside: Path, path: Path) -> None:
    """A hard link fails where the name is taken, even in a race; not all file systems have it."""
    try:
        path.hardlink_to(beside)
        return
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    if sys.platform == "win32":
        beside.rename(path)  # refuses a name that is taken
    elif not _renamed_alone(beside, path):
        # A file system that knows neither: a foreign file that appears in the next instant is lost.
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        beside.rename(path)


def _renamed_alone(beside: Path, path: Path) -> bool:
    """renameat2 with RENAME_NOREPLACE; False where the system or its file system has none."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    here, no_replace = -100, 1
    if rename(here, os.fsencode(beside), here, os.fsencode(path), no_replace) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EPERM):
        return False
    raise OSError(number, os.strerror(number), str(path))


_OURS = re.compile(r"\.relume-\d+-[0-9a-f]{12}")
_NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_NO_LINKS |= {errno.EMLINK, errno.EINVAL}
