"""The work on one input: read and known as finished, or decoded; restored; sent on its way."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckError, OutputError, PictureError, RelumeError, ShapeError
from ..image import frames, reader, writer
from ..image.apart import decoder
from ..image.picture import Picture
from ..image.pieces import Data
from .delivery import Delivery, Result, final, sidecar
from .job import Job, Record, Restored, one_line
from .journal import Journal
from .planning import Planned

log = logging.getLogger("relume")


@dataclass(frozen=True)
class Begun:
    """An input whose record is known, but for whether its result arrives."""

    source: Path
    record: Record
    arrival: Future[None] | None = None

    @property
    def done(self) -> bool:
        return self.arrival is None or self.arrival.done()


@dataclass(eq=False)
class Fetched:
    """An input that was read, and decoded where it is due.

    Attributes:
        record: Of the report, as far as it is known.
        data: Its bytes; None where nothing is left to do.
        error: What went wrong; it is told when its turn comes.
        seconds: That this took.
    """

    planned: Planned
    record: Record
    key: str = ""
    data: Data | None = None
    picture: Picture | None = None
    replace: bool = False
    error: Exception | None = None
    seconds: float = 0.0


class Worker:
    """Turns a planned input into a record, in three steps: `fetch` and `begin` in any thread, the
    first while another input is at the second; then `finish`."""

    def __init__(
        self,
        job: Job,
        restore: Callable[[Path, Picture], Restored],
        copy_input: bool,
        journal: Journal,
        delivery: Delivery,
    ) -> None:
        self.job, self.restore, self.copy_input = job, restore, copy_input
        self.journal, self.delivery = journal, delivery
        self.decoder = decoder(job.limits)
        self.unwritable = False  # some output could not be written: exit code 3
        self.full = False  # and none can be any more

    def fetch(self, planned: Planned) -> Fetched:
        """Read an input, and decode it where it was not done before. Raises nothing."""
        started = time.perf_counter()
        fetched = Fetched(planned, _record(planned, self.job.settings))
        try:
            if planned.skipped:
                fetched.record |= {"status": "skipped", "message": planned.skipped}
            elif planned.refusal or planned.target is None:
                raise PictureError(f"{planned.source}: {planned.refusal}.")
            else:
                self._check_full(planned.source)
                self._fetch(fetched, planned.source, planned.target)
        except Exception as error:
            fetched.error, fetched.data = error, None
        fetched.seconds = time.perf_counter() - started
        return fetched

    def begin(self, fetched: Fetched) -> Begun:
        """Restore, and send the result on its way."""
        started = time.perf_counter() - fetched.seconds
        source, record, arrival = fetched.planned.source, fetched.record, None
        try:
            if fetched.error is not None:
                raise fetched.error
            if fetched.data is not None:
                self._check_full(source)
                arrival = self._restore(fetched, fetched.data, started)
        except RelumeError as error:
            self._refused(record, error, source)
        except MemoryError:
            _refuse(record, "there was not enough memory; try a smaller --tile.", source)
        except Exception as error:  # a bug of ours, and the other pictures' turn
            log.debug("unexpected error at %s", source, exc_info=True)
            words = f"unexpected {type(error).__name__}: {error} (--debug shows more)."
            _refuse(record, words, source)
        record["seconds"] = record["seconds"] or round(time.perf_counter() - started, 3)
        return Begun(source, record, arrival)

    def finish(self, begun: Begun) -> Record:
        """The record, once the result has arrived."""
        try:
            if begun.arrival is not None:
                begun.arrival.result()
        except RelumeError as error:
            self._refused(begun.record, error, begun.source)
        return begun.record

    def _refused(self, record: Record, error: RelumeError, source: Path) -> None:
        if not isinstance(error, (PictureError, CheckError, ShapeError, OutputError)):
            raise error
        number = getattr(error.__cause__, "errno", None)
        if isinstance(error, OutputError) and number is not None and number != errno.EEXIST:
            # A name that is too long is that picture's trouble, not the folder's.
            self.unwritable = self.unwritable or number != errno.ENAMETOOLONG
            self.full = self.full or final(error)
        _refuse(record, str(error), source)

    def _check_full(self, source: Path) -> None:
        if self.full:
            raise OutputError(f"{source}: not tried, nothing can be written any more.")

    def _fetch(self, fetched: Fetched, source: Path, target: Path) -> None:
        record, data = fetched.record, reader.contents(source)
        fetched.key = self.journal.key(data)
        done = self.journal.finished(fetched.key, target)
        if done is not None:
            record |= {"status": "skipped", "message": "already done", "output": str(target)}
            record |= {"announced": done.get("announced", []), "pixels": done.get("pixels")}
            if self.job.sidecar and not self.job.dry_run and not os.path.lexists(sidecar(target)):
                told = {**record, "status": "restored", "message": None}
                self.delivery.write_sidecar(target, fetched.key, told)
            return
        self._check_free(target)
        fetched.replace = os.path.lexists(target)
        if self.job.dry_run:
            height, width = self.decoder.shape_of(data, str(source))
            words = f"dry run: would be written to {target}"
            record |= {"status": "skipped", "message": words, "pixels": height * width}
            return
        fetched.picture = self.decoder.decode(data, str(source), self.delivery.home)
        fetched.data = data

    def _restore(self, fetched: Fetched, data: Data, started: float) -> Future[None] | None:
        planned, record, picture = fetched.planned, fetched.record, fetched.picture
        source, target = planned.source, planned.target
        if picture is None or target is None:
            return None
        record["pixels"] = picture.height * picture.width
        announced = [*record["announced"], *picture.notes]
        content: Data | Picture = data
        if not (self.copy_input and _same_kind(source, target, picture)):
            answer = self._asked(source, target, picture, data)
            record["guard"] = list(getattr(answer, "guard", None) or [])
            announced += answer.announced
            own = data if _same_kind(source, target, picture) else picture
            content = own if answer.content is None else answer.content
        if content is data:  # with all that it holds
            announced = [words for words in announced if words not in picture.notes]
        record |= {"status": "restored", "output": str(target)}
        record["announced"] = list(dict.fromkeys(one_line(words) for words in announced))
        record["seconds"] = round(time.perf_counter() - started, 3)
        result = Result(content, target, fetched.key, record, fetched.replace, self.job.sidecar)
        return self.delivery.send(result)

    def _asked(self, source: Path, target: Path, picture: Picture, data: Data) -> _Answer:
        if picture.frames == 1 or picture.format == "jpeg":
            if self.copy_input:
                return _Answer(None, ())
            answer = self.restore(source, picture)
            announced = tuple(answer.announced)
            if (
                picture.frames > 1
            ):  # a telephone's gain map, or a stereo pair, behind the photograph
                note = f"only the first of {picture.frames} pictures in the JPEG is kept"
                announced = (note, *announced)
            return _Answer(answer.picture, announced, getattr(answer, "guard", ()))
        format = frames.JOINED.get(picture.format, "")
        if writer.format_for(target) != format:
            raise PictureError(
                f"{source}: it holds {picture.frames} pictures, and all but the first would be "
                f"lost in {target.name}; give a folder, or split it first."
            )
        parts, told = list[bytes](), list[str]()
        unchanged = True
        for page in self.decoder.each(data, picture, str(source)):
            one = None if self.copy_input else self.restore(source, page)
            restored = one.picture if one else None
            unchanged = unchanged and restored is None
            part, lost = writer.render(restored or page, format)
            parts.append(part if isinstance(part, bytes) else b"".join(part))
            told += [*(one.announced if one else ()), *page.notes, *lost]
        if unchanged and _same_kind(source, target, picture):
            return _Answer(None, told)
        whole = frames.joined(parts, format, self.decoder.timing(data, str(source)))
        if frames.count(whole) != len(parts):
            raise CheckError(f"{source}: what was written of it does not decode to all its pages.")
        return _Answer(whole, told)

    def _check_free(self, target: Path) -> None:
        if not os.path.lexists(target):
            return
        if not self.journal.is_ours(target):
            raise PictureError(f"{target}: there already, and not ours; it is not replaced.")
        if not self.job.overwrite:
            raise PictureError(
                f"{target}: there already, from an earlier run with other settings or another "
                "input; --overwrite replaces it."
            )


def _same_kind(source: Path, target: Path, picture: Picture) -> bool:
    """Whether the input's bytes may lie under the output's name."""
    suffix = target.suffix.lower()
    return suffix == source.suffix.lower() or writer.FORMATS.get(suffix) == picture.format


@dataclass(frozen=True)
class _Answer:
    """What is to be written: a picture, the bytes of several, or None for the input's own bytes."""

    content: Data | Picture | None
    announced: Sequence[str]
    guard: Sequence[Any] = ()


def _record(planned: Planned, settings: Mapping[str, Any]) -> Record:
    told = {name: settings.get(name) for name in _TOLD}
    return {
        "input": str(planned.source),
        "output": None,
        "status": "refused",
        "message": None,
        "announced": list(planned.announced),
        "seconds": 0.0,
        "pixels": None,
        **told,
        "guard": [],
    }


def _refuse(record: Record, words: str, source: Path) -> None:
    words = one_line(words)
    if one_line(str(source)) not in words:
        words = f"{one_line(str(source))}: {words}"
    record |= {"status": "refused", "output": None, "message": words, "announced": []}


_TOLD = ("model", "model_sha256", "engine", "device", "strength", "prior")
