"""Many pictures, one job: plan, restore one by one, journal, report.

Re-running is resuming: what the journal knows as finished, and whose output is still there byte
for byte, is skipped. The journal is a hint, the outputs are the truth. An input is never touched
and an existing file never replaced, unless asked to and known, by its hash, as ours.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .errors import CheckError, OutputError, PictureError, RelumeError, ShapeError, UsageError
from .image import reader, writer
from .image.apart import decoder
from .image.limits import LIMITS, Limits
from .image.picture import Picture

Record = dict[str, Any]
"""One line of the report, with the contract's fields."""

log = logging.getLogger("relume")


class Restored(Protocol):
    """What a restore function answers with: a picture (None: the input's bytes are copied) and
    what was lost. Where it has `guard`, that goes into the report."""

    @property
    def picture(self) -> Picture | None: ...

    @property
    def announced(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class Job:
    """What to restore, where to, and how careful to be.

    Attributes:
        inputs: Files and folders.
        out: A folder, or a file path with a picture's suffix where `inputs` is one file.
        recursive: Take folders with all that is below them, mirrored in `out`.
        overwrite: Replace outputs of earlier runs, known by their hash; never anything else.
        dry_run: Say what would be done, write nothing but the report.
        report: A JSONL file, one line per input.
        sidecar: Write the report's line beside each output, as NAME.json.
        settings: What decides the pixels: model, model_sha256, engine, device, strength, prior and
            more. Goes into the journal's key; the report takes its fields from here.
        jobs: How many pictures at once.
        limits: What one picture may cost; it is decoded in a process apart, which is held to them.
    """

    inputs: Sequence[Path]
    out: Path
    recursive: bool = False
    overwrite: bool = False
    dry_run: bool = False
    report: Path | None = None
    sidecar: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    jobs: int = 1
    limits: Limits = LIMITS


@dataclass(frozen=True)
class Outcome:
    """What became of a job: exit code, a record per input, and what was not an input at all."""

    exit_code: int
    records: list[Record]
    ignored: int = 0

    def count(self, status: str) -> int:
        return sum(record["status"] == status for record in self.records)


@dataclass(frozen=True)
class Planned:
    """One input and its place in the output folder, before it is read."""

    source: Path
    target: Path | None
    refusal: str | None = None
    skipped: str | None = None
    announced: tuple[str, ...] = ()


def run(
    job: Job,
    restore: Callable[[Path, Picture], Restored],
    *,
    copy_input: bool = False,
    progress: Callable[[Record, int, int], None] | None = None,
) -> Outcome:
    """Restore every input; one bad file never stops the others.

    Args:
        job: What to do.
        restore: (path, picture) -> answer. A PictureError, CheckError or ShapeError refuses that
            one picture; other errors of relume's end the run.
        copy_input: Strength 0: outputs are the inputs' bytes, `restore` is not asked.
        progress: Called with each record, how many are done, and of how many.

    Returns:
        Exit code 0, 1 where an input was refused, 3 where an output could not be written.

    Raises:
        UsageError: The inputs and `out` do not fit together.
        OutputError: The output folder or the report cannot be written.
    """
    planned, ignored = plan(job, copy_input=copy_input)
    file_out = _is_file_out(job)
    home = (job.out.parent if file_out else job.out) / ".relume"
    if not job.dry_run:
        _make(home)
    worker = _Worker(job, restore, copy_input, home, Journal(home / "journal.jsonl", job.settings))
    records: list[Record] = []
    with contextlib.ExitStack() as stack:
        report = stack.enter_context(_open_report(job)) if job.report else None
        for record in _in_order(worker, planned, job.jobs):
            records.append(record)
            if report:
                _say(report, record, job)
            if progress:
                progress(record, len(records), len(planned))
    refused = any(record["status"] == "refused" for record in records)
    return Outcome(3 if worker.unwritable else int(refused), records, ignored)


# The plan: which inputs, and which name each output gets.


def plan(job: Job, *, copy_input: bool = False) -> tuple[list[Planned], int]:
    """Every input with its output's path, and how many files in folders were no pictures.

    Names are decided here, from the first bytes of each file and before any is restored, so that
    they depend neither on order nor on what an earlier run left.

    Raises:
        UsageError: As `run`.
    """
    if not job.inputs:
        raise UsageError("No input. Name pictures, or folders of them.")
    if _is_file_out(job):
        source = Path(job.inputs[0])
        if not copy_input:
            writer.format_for(job.out)
        return [_placed(source, Path(job.out))], 0
    if job.out.exists() and not job.out.is_dir():
        raise UsageError(f"{job.out} is a file; give a folder for the results.")
    found: list[tuple[Path, Path]] = []
    hidden: list[Path] = []
    absent: list[tuple[Path, str]] = []
    ignored = 0
    for given in map(Path, job.inputs):
        if given.is_dir():
            for path in _files(given, job, absent):
                if path.name.startswith("."):
                    if path.suffix.lower() in reader.SUFFIXES:
                        hidden.append(path)
                    else:
                        ignored += 1
                elif reader.is_image(path):
                    found.append((path, path.relative_to(given)))
                else:
                    ignored += 1
        elif given.exists() or given.is_symlink():
            found.append((given, Path(given.name)))
        else:
            absent.append((given, "there is no such file or folder"))
    named = _named(found, copy_input)
    taken: dict[Path, Path] = {}
    planned: list[Planned] = [Planned(path, None, refusal) for path, refusal in absent]
    for (source, _), (relative, announced) in zip(found, named, strict=True):
        other = taken.setdefault(relative, source)
        if other is not source:
            words = f"its result would take the place of that of {other}; restore it into {{}}"
            planned.append(Planned(source, None, words.format("another folder")))
        else:
            planned.append(_placed(source, job.out / relative, announced))
    words = "a hidden file, not taken; name it to restore it"
    planned += [Planned(path, None, skipped=words) for path in hidden]
    return planned, ignored


def _is_file_out(job: Job) -> bool:
    return (
        len(job.inputs) == 1
        and not Path(job.inputs[0]).is_dir()
        and not job.out.is_dir()
        and job.out.suffix.lower() in reader.SUFFIXES | set(writer.FORMATS)
    )


def _files(folder: Path, job: Job, absent: list[tuple[Path, str]]) -> Iterator[Path]:
    """Files of a folder in a fixed order; results of this job inside it are not its inputs.

    A folder that cannot be listed joins `absent`, and the others go on.
    """
    ours = job.out.resolve()
    try:
        entries = sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name))
    except OSError as error:
        absent.append((folder, f"the folder cannot be listed ({error.strerror or error})"))
        return
    for path in entries:
        if path.is_dir():
            below = job.recursive and not path.is_symlink() and not path.name.startswith(".")
            if below and path.resolve() != ours:
                yield from _files(path, job, absent)
        elif path.is_file() or path.is_symlink():
            yield path


def _named(
    found: Sequence[tuple[Path, Path]], copy_input: bool
) -> list[tuple[Path, tuple[str, ...]]]:
    """The relative path of each output. A suffix changes where the format cannot be written or
    the suffix lied; where that name is another input's, the old suffix stays inside it."""
    wanted: list[Path] = []
    for source, relative in found:
        try:
            format = reader.format_of(source)
        except PictureError:
            format = None  # refused later, under its own name
        suffix = relative.suffix
        if format and not copy_input:
            suffix = writer.suffix_for(format, relative.suffix)
        wanted.append(relative if suffix == relative.suffix else relative.with_suffix(suffix))
    own = {relative for _, relative in found}
    named: list[tuple[Path, tuple[str, ...]]] = []
    for (_, relative), new in zip(found, wanted, strict=True):
        if new == relative:
            named.append((relative, ()))
            continue
        if new in own or wanted.count(new) > 1:
            new = relative.with_name(relative.name + new.suffix)
        why = "no other format keeps it" if relative.suffix.lower() in _UNWRITTEN else "it lied"
        was = relative.suffix or "none"
        named.append((new, (f"suffix {was} became {new.suffix}: {why}",)))
    return named


def _placed(source: Path, target: Path, announced: tuple[str, ...] = ()) -> Planned:
    with contextlib.suppress(OSError):
        if target.samefile(source):
            return Planned(source, None, "its result would replace it; choose another folder")
    return Planned(source, target, announced=announced)


# The work on one input.


class _Worker:
    """Turns a planned input into a record. Safe to call from several threads."""

    def __init__(
        self,
        job: Job,
        restore: Callable[[Path, Picture], Restored],
        copy_input: bool,
        home: Path,
        journal: Journal,
    ) -> None:
        self.job, self.restore, self.copy_input = job, restore, copy_input
        self.home, self.journal = home, journal
        self.decoder = decoder(job.limits)
        self.unwritable = False  # some output could not be written: exit code 3
        self.full = False  # and none can be any more

    def __call__(self, planned: Planned) -> Record:
        started = time.perf_counter()
        record = _record(planned, self.job.settings)
        try:
            if planned.skipped:
                record |= {"status": "skipped", "message": planned.skipped}
            elif planned.refusal or planned.target is None:
                raise PictureError(f"{planned.source}: {planned.refusal}.")
            elif self.full:
                raise OutputError(f"{planned.source}: not tried, there is no space left.")
            else:
                self._restore(planned.source, planned.target, record)
        except (PictureError, CheckError, ShapeError, OutputError) as error:
            if isinstance(error, OutputError):
                self._unwritable(error)
            _refuse(record, str(error), planned.source)
        except RelumeError:
            raise
        except MemoryError:
            _refuse(record, "there was not enough memory; try a smaller --tile.", planned.source)
        except Exception as error:  # a bug of ours, and the other pictures' turn
            log.debug("unexpected error at %s", planned.source, exc_info=True)
            words = f"unexpected {type(error).__name__}: {error} (--debug shows more)."
            _refuse(record, words, planned.source)
        record["seconds"] = round(time.perf_counter() - started, 3)
        return record

    def _restore(self, source: Path, target: Path, record: Record) -> None:
        data = reader.read_bytes(source)
        key = self.journal.key(data)
        done = self.journal.finished(key, target)
        if done is not None:
            record |= {"status": "skipped", "message": "already done", "output": str(target)}
            record |= {"announced": done.get("announced", []), "pixels": done.get("pixels")}
            return
        self._check_free(target)
        if self.job.dry_run:
            height, width = self.decoder.shape_of(data, str(source))
            words = f"dry run: would be written to {target}"
            record |= {"status": "skipped", "message": words, "pixels": height * width}
            return
        picture = self.decoder.decode(data, str(source))
        record["pixels"] = picture.height * picture.width
        answer = None if self.copy_input else self._ask(source, picture)
        announced = list(record["announced"])
        announced += list(answer.announced) if answer else []
        written = answer.picture if answer else None
        if written is None and _same_kind(source, target, picture):
            output = data
        else:
            output, lost = writer.render(written or picture, writer.format_for(target))
            announced += [*picture.notes, *lost]
        announced = list(dict.fromkeys(_one_line(words) for words in announced))
        record |= {"status": "restored", "output": str(target), "announced": announced}
        record["guard"] = list(getattr(answer, "guard", None) or [])
        self._place(output, target)
        self.journal.add(key, target, output, record)
        if self.job.sidecar:
            self._write_sidecar(target, key, record)

    def _ask(self, source: Path, picture: Picture) -> Restored:
        if picture.frames > 1:
            if picture.format != "jpeg":
                kind = "an animation" if picture.format in _ANIMATED else "a file"
                raise PictureError(
                    f"{source}: it is {kind} of {picture.frames} pictures, and all but the first "
                    "would be lost; split it first."
                )
            # A telephone's depth or gain map, or a stereo pair, behind the photograph itself.
            note = f"only the first of {picture.frames} pictures in the JPEG is kept"
            answer = self.restore(source, picture)
            return _Answer(answer.picture, (note, *answer.announced), getattr(answer, "guard", ()))
        return self.restore(source, picture)

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

    def _place(self, data: bytes, target: Path) -> None:
        _make(target.parent)
        writer.place(data, target, replace=os.path.lexists(target), temporary=self.home)

    def _write_sidecar(self, target: Path, key: str, record: Record) -> None:
        path = target.with_name(target.name + ".json")
        data = (json.dumps(record, indent=1) + "\n").encode()
        if os.path.lexists(path) and not self.journal.is_ours(path):
            record["announced"].append(f"sidecar not written: {path.name} is there, and not ours")
            return
        writer.place(data, path, replace=os.path.lexists(path), temporary=self.home)
        self.journal.add(key, path, data, None)

    def _unwritable(self, error: OutputError) -> None:
        number = getattr(error.__cause__, "errno", None)
        if isinstance(error.__cause__, OSError) and not isinstance(
            error.__cause__, FileExistsError
        ):
            self.unwritable = number != errno.ENAMETOOLONG or self.unwritable
        self.full = self.full or number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def _same_kind(source: Path, target: Path, picture: Picture) -> bool:
    """Whether the input's bytes may lie under the output's name."""
    suffix = target.suffix.lower()
    return suffix == source.suffix.lower() or writer.FORMATS.get(suffix) == picture.format


@dataclass(frozen=True)
class _Answer:
    picture: Picture | None
    announced: Sequence[str]
    guard: Sequence[Any] = ()


def _in_order(worker: _Worker, planned: Sequence[Planned], jobs: int) -> Iterator[Record]:
    if jobs <= 1:
        yield from map(worker, planned)
        return
    with ThreadPoolExecutor(jobs) as pool:
        try:
            yield from pool.map(worker, planned)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


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
    words = _one_line(words)
    if _one_line(str(source)) not in words:
        words = f"{_one_line(str(source))}: {words}"
    record |= {"status": "refused", "output": None, "message": words, "announced": []}


def _one_line(words: str) -> str:
    """Without control characters: a file name may hold a newline or a terminal's escape."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", "?", words)


# The journal.


class Journal:
    """Finished outputs, one JSON line each, appended; a torn last line is passed over.

    An entry's key is made of the input's bytes and the settings, so that either changing makes it
    another job. `output` is relative to the folder that holds `.relume`.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self.root = path, path.parent.parent
        self.settings = json.dumps(settings, sort_keys=True, default=str)
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str], Record] = {}
        self._hashes: dict[str, set[str]] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    self._take(json.loads(line))

    def key(self, data: bytes) -> str:
        """Of one input's bytes under these settings, in hex."""
        whole = hashlib.sha256(self.settings.encode())
        whole.update(hashlib.sha256(data).digest())
        return whole.hexdigest()

    def finished(self, key: str, target: Path) -> Record | None:
        """The entry of this very output, where the file is still as it was written."""
        entry = self._entries.get((key, self._name(target)))
        return entry if entry and _sha256(target) == entry["output_sha256"] else None

    def is_ours(self, target: Path) -> bool:
        """Whether a file holds what some run of ours wrote under this name."""
        known = self._hashes.get(self._name(target))
        return bool(known) and not target.is_symlink() and _sha256(target) in known

    def add(self, key: str, target: Path, data: bytes, record: Record | None) -> None:
        """Append what was written.

        Raises:
            OutputError: The journal cannot be written.
        """
        entry = {"key": key, "output": self._name(target)}
        entry["output_sha256"] = hashlib.sha256(data).hexdigest()
        if record is not None:
            entry |= {name: record[name] for name in ("input", "announced", "pixels")}
        try:
            with self._lock, self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
                self._take(entry)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}).") from error

    def _take(self, entry: Record) -> None:
        name, written = entry["output"], entry["output_sha256"]
        self._entries[entry["key"], name] = entry
        self._hashes.setdefault(name, set()).add(written)

    def _name(self, target: Path) -> str:
        return os.path.relpath(target, self.root)


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


# Folders and the report.


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror}).") from error


def _open_report(job: Job) -> Any:
    path = Path(job.report or "")
    with contextlib.suppress(OSError):
        with path.open("rb") as file:
            head = file.read(1)
        if head not in (b"", b"{"):
            raise UsageError(f"{path}: there already, and no report; choose another --report.")
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}).") from error


def _say(report: Any, record: Record, job: Job) -> None:
    try:
        report.write(json.dumps(record) + "\n")
        report.flush()
    except OSError as error:
        raise OutputError(f"{job.report}: cannot be written ({error.strerror}).") from error


_TOLD = ("model", "model_sha256", "engine", "device", "strength", "prior")
_ANIMATED = {"gif", "webp", "png"}
_UNWRITTEN = {".gif", ".heic", ".heif", ".hif", ".bmp"}
