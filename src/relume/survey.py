"""Every picture of a job, looked at: a record each, and pictures of what was seen in a folder."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import batch
from .errors import CheckError, OutputError, PictureError, ShapeError, UsageError
from .image import Picture, place, read_bytes
from .image.apart import decoder
from .image.reader import SUFFIXES


@dataclass(frozen=True)
class Seen:
    """What was seen in one picture.

    Attributes:
        record: Its fields of the report.
        drawn: Ending -> bytes of a file, to be written as NAME + ending.
        announced: What has to be said.
    """

    record: Mapping[str, Any]
    drawn: Mapping[str, bytes] = field(default_factory=dict)
    announced: Sequence[str] = ()


Look = Callable[[Path, Picture], Seen]
"""A PictureError, CheckError or ShapeError refuses that one picture."""


@dataclass(frozen=True)
class Task:
    """How pictures are looked at.

    Attributes:
        look: Looks at one.
        status: Of a picture that was looked at, in the report: "segmented".
        record: What a record holds before anything is known.
        ends: Whether a file of such a name is one that we draw: what lies in a folder of inputs and
            ends so is no input.
        fixed: Field of the record -> ending, of the files that are written for every picture. Where
            there are such, a picture whose files are finished is not looked at again.
    """

    look: Look
    status: str
    record: Mapping[str, Any]
    ends: Callable[[str], bool]
    fixed: Mapping[str, str] = field(default_factory=dict)


def run(
    job: batch.Job,
    task: Task,
    *,
    writes: bool = True,
    progress: Callable[[batch.Record, int, int], None] | None = None,
) -> batch.Outcome:
    """Look at every input; one bad file stops no other.

    Running it again skips what is done. Of two inputs with one name before the suffix, both keep
    their suffix in the name.

    Args:
        job: inputs, out (a folder, made when there is something to write), recursive, overwrite,
            settings and limits are read.
        task: What is done with each.
        writes: False writes nothing, and `out` is not looked at.
        progress: Called with each record, how many are done, and of how many.

    Returns:
        Exit code and records, as `batch.run`.

    Raises:
        UsageError: No input, or `out` is a file.
        RelumeError: Of `look`: what concerns every picture (an extra is missing).
    """
    if not writes:
        job = replace(job, out=Path(".relume"))
    elif (job.out.exists() or job.out.suffix.lower() in SUFFIXES) and not job.out.is_dir():
        raise UsageError(f"{job.out}: pictures of what is seen go into a folder; give one.")
    home = job.out / ".relume" if writes else job.out
    planned, ignored = batch.plan(replace(job, out=home))
    given = {Path(path) for path in job.inputs}
    ours = [task.ends(p.source.name) and p.source not in given for p in planned]
    planned = [p for p, our in zip(planned, ours, strict=True) if not our]
    stems = [p.target and p.target.relative_to(home).parent / p.source.stem for p in planned]
    journal = None
    if writes:
        try:
            journal = batch.Journal(home / "journal.jsonl", job.settings)
        except OSError as error:
            raise OutputError(f"{job.out}: cannot be written ({error.strerror}).") from error
    records: list[batch.Record] = []
    code = 0
    for one, stem in zip(planned, stems, strict=True):
        started = time.perf_counter()
        record = _record(one.source, task)
        try:
            if one.skipped:
                record |= {"status": "skipped", "message": one.skipped}
            elif stem is None:
                raise PictureError(f"{one.source}: {one.refusal}.")
            else:
                name = stem if stems.count(stem) == 1 else stem.parent / one.source.name
                _look(job, journal, task, one.source, job.out / name, record)
        except (PictureError, CheckError, ShapeError, OutputError) as error:
            cause = getattr(error.__cause__, "errno", errno.EEXIST)
            unwritable = isinstance(error, OutputError) and cause != errno.EEXIST
            code = 3 if unwritable else max(code, 1)
            words = " ".join(str(error).split())
            record["message"] = words if str(one.source) in words else f"{one.source}: {words}"
        except MemoryError:
            code = max(code, 1)
            record["message"] = f"{one.source}: there is not enough memory for it."
        record["seconds"] = round(time.perf_counter() - started, 3)
        records.append(record)
        if progress:
            progress(record, len(records), len(planned))
    return batch.Outcome(code, records, ignored + sum(ours))


def _record(source: Path, task: Task) -> batch.Record:
    return {
        "input": str(source),
        **dict.fromkeys(task.fixed),
        "status": "refused",
        "message": None,
        "announced": [],
        **task.record,
        "pixels": None,
        "seconds": 0.0,
    }


def _look(
    job: batch.Job,
    journal: batch.Journal | None,
    task: Task,
    source: Path,
    name: Path,
    record: batch.Record,
) -> None:
    data = read_bytes(source)
    key = journal.key(data) if journal else ""
    paths = {field: _named(name, ending) for field, ending in task.fixed.items()}
    if journal and paths:
        done = [journal.finished(key, target) for target in paths.values()]
        if done[0] and all(done):
            kept = {field: done[0].get(field) for field in ("announced", "pixels")}
            words = {field: str(path) for field, path in paths.items()}
            record |= {"status": "skipped", "message": "already done", **kept, **words}
            return
    picture = decoder(job.limits).decode(data, str(source))
    seen = task.look(source, picture)
    notes = [*seen.announced]
    if picture.frames > 1:
        notes.insert(0, f"only the first of {picture.frames} pictures in the file was looked at")
    record |= {"announced": notes, "pixels": picture.height * picture.width, **seen.record}
    if journal:
        _write(job, journal, key, {_named(name, e): d for e, d in seen.drawn.items()}, record)
    record |= {"status": task.status, **{field: str(path) for field, path in paths.items()}}


def _named(name: Path, ending: str) -> Path:
    return name.with_name(name.name + ending)


def _write(
    job: batch.Job,
    journal: batch.Journal,
    key: str,
    drawn: Mapping[Path, bytes],
    record: batch.Record,
) -> None:
    """All of them, or where one is in the way, none."""
    for target, written in drawn.items():
        _check_free(job, journal, target, written)
    _make(job.out / ".relume")
    for target, written in drawn.items():
        if journal.finished(key, target) and target.read_bytes() == written:
            continue
        _make(target.parent)
        place(written, target, replace=os.path.lexists(target))
        journal.add(key, target, written, record)


def _check_free(job: batch.Job, journal: batch.Journal, target: Path, written: bytes) -> None:
    """What lies there may be what a stopped run left of this very work; else it has to be ours.

    Raises:
        PictureError: It is something else.
    """
    if not os.path.lexists(target) or (job.overwrite and journal.is_ours(target)):
        return
    if target.is_symlink() or not target.is_file() or target.read_bytes() != written:
        mend = "--overwrite replaces it" if journal.is_ours(target) else "it is not ours"
        raise PictureError(f"{target}: there already, from something else; {mend}.")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror}).") from error
