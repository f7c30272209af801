"""`relume models fetch`: the one command that opens a connection, to an address that ships with it.

Bytes are believed when their sha256 is the pinned one, and not before. What was cut is gone on with
where it stopped, by range; it waits in the cache's folder, under its digest, and never beside the
finished file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import MissingError, ModelError, OutputError, UsageError, nearest
from .places import default_folder

PIECE = 1 << 16
TRIES = 5
PATIENCE = 20.0  # seconds without a byte
SLOWEST = 1000  # bytes a second, over PATIENCE: slower is a server that holds us


@dataclass(frozen=True)
class Remote:
    """A file elsewhere.

    Args:
        url: https; http only on this machine.
        sha256: Of its bytes.
        size: Of them, in bytes.
    """

    url: str
    sha256: str
    size: int


def named(name: str, known: Mapping[str, Remote] | None = None) -> Remote:
    """The file of a model that can be fetched.

    Raises:
        UsageError: There is none of that name.
    """
    known = CATALOGUE if known is None else known
    if name not in known:
        some = "all that there are ship"
        if known:
            some = f"there is {', '.join(sorted(known))}"
        raise UsageError(f"no model called {name!r} to fetch; {some}.{nearest(name, known)}")
    return known[name]


def fetch(
    remote: Remote,
    target: Path,
    *,
    parts: Path | None = None,
    patience: float = PATIENCE,
    tell: Callable[[int, int], None] | None = None,
) -> None:
    """Bring a file here, whole and right or not at all.

    Args:
        target: In an existing folder; replaced only by the very bytes that are pinned.
        parts: Folder of what was cut; None = in the cache's.
        patience: Seconds without a byte after which a server is left.
        tell: Told (bytes here, bytes in all).

    Raises:
        UsageError: The address is none that is opened.
        MissingError: It cannot be reached, or stops every time.
        ModelError: It gives other bytes than those that are pinned.
        OutputError: It cannot be written.
    """
    _check(remote.url)
    folder = parts or (default_folder() or target.parent) / "parts"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part, shared = _claimed(folder / f"{remote.sha256}.part")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}).") from error
    try:
        with part:  # the name is ours while it is open, and another's from then on
            try:
                _fill(part, remote, patience, tell)
                os.replace(part.name, target)  # noqa: PTH105
            except BaseException as error:
                # Of wrong bytes there is nothing to go on from; from a part of our own nobody does.
                if isinstance(error, ModelError) or not shared:
                    with contextlib.suppress(OSError):
                        Path(part.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{target}: cannot be written ({error.strerror}).") from error


def _claimed(path: Path) -> tuple[Any, bool]:
    """The file of what was cut, ours alone while it is open; where another process has it, one of
    our own, and False."""
    part = path.open("a+b")
    try:
        import fcntl

        fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.exists() and os.fstat(part.fileno()).st_ino == path.stat().st_ino:
            return part, True
    except (ImportError, OSError):
        pass
    part.close()
    own = path.with_suffix(f".{os.getpid()}-{secrets.token_hex(4)}.part")
    return own.open("x+b"), False


def _fill(
    part: Any, remote: Remote, patience: float, tell: Callable[[int, int], None] | None
) -> None:
    said = "it cannot be reached"
    for attempt in range(TRIES):
        at = part.seek(0, os.SEEK_END)
        if at > remote.size:
            part.truncate(0)
            at = 0
        if at < remote.size:
            try:
                _receive(part, remote, at, patience, tell)
            except _CutError as error:
                said = str(error)
                if part.tell() == at:  # nothing came: do not hurry
                    time.sleep(min(0.1 * 2**attempt, 2))
                continue
        part.flush()
        part.seek(0)
        if hashlib.file_digest(part, "sha256").hexdigest() == remote.sha256:
            os.fsync(part.fileno())
            return
        part.truncate(0)
        if at == 0:  # the whole of it in one go, and wrong
            raise ModelError(
                f"{remote.url} was refused: it gives other bytes than those that are pinned "
                f"(sha256 {remote.sha256[:12]}). Nothing was kept; try it later."
            )
    raise MissingError(f"{remote.url}: {said}. Try it later; what came is gone on with.")


class _CutError(Exception):
    pass


def _receive(
    part: Any,
    remote: Remote,
    at: int,
    patience: float,
    tell: Callable[[int, int], None] | None,
) -> None:
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import HTTPRedirectHandler, Request, build_opener

    class OnlyHttps(HTTPRedirectHandler):
        def redirect_request(
            self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str
        ):
            _check(newurl)
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    asked = Request(remote.url, headers={"Accept-Encoding": "identity", "User-Agent": "relume"})
    if at:
        asked.add_header("Range", f"bytes={at}-")
    try:
        with build_opener(OnlyHttps).open(asked, timeout=patience) as answer:
            if answer.status != (206 if at else 200):
                part.truncate(0)  # it starts anew, whatever was asked
                at = 0
            if answer.headers.get_content_type() == "text/html":
                raise ModelError(
                    f"{remote.url} was refused: it answers with a page, not with a file. "
                    "Is this machine behind a portal?"
                )
            began, came = time.monotonic(), 0
            while piece := answer.read1(PIECE):
                at += len(piece)
                came += len(piece)
                if at > remote.size:
                    part.truncate(0)
                    raise ModelError(f"{remote.url} was refused: it gives more than it should.")
                part.write(piece)
                if tell:
                    tell(at, remote.size)
                waited = time.monotonic() - began
                if waited > patience and came < waited * SLOWEST:
                    raise _CutError("it sends too slowly")
    except HTTPError as error:
        if error.code == 416:
            part.truncate(0)
        raise _CutError(f"it answers {error.code}") from None
    except (HTTPException, OSError) as error:
        if isinstance(error, ModelError | UsageError):
            raise
        why = getattr(error, "reason", None) or error
        raise _CutError(f"it cannot be reached or was cut ({why})") from None
    if at < remote.size:
        raise _CutError("it was cut")


def _check(url: str) -> None:
    parts = urlsplit(url)
    here = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and here):
        raise UsageError(f"{url}: models are fetched over https only.")


CATALOGUE: dict[str, Remote] = {}
"""Models that do not ship with relume. There is none yet."""
