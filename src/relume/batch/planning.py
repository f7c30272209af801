"""The plan: which inputs, and which name each output gets."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import PictureError, UsageError
from ..image import reader, writer
from .job import Job


@dataclass(frozen=True)
class Planned:
    """One input and its place in the output folder, before it is read."""

    source: Path
    target: Path | None
    refusal: str | None = None
    skipped: str | None = None
    announced: tuple[str, ...] = ()


def plan(job: Job, *, copy_input: bool = False) -> tuple[list[Planned], int]:
    """Every input with its output's path, and how many files in folders were no pictures.

    Names are decided here, from the first bytes of each file and before any is restored, so that
    they depend neither on order nor on what an earlier run left.

    Raises:
        UsageError: The inputs and `out` do not fit together.
    """
    if not job.inputs:
        raise UsageError("No input. Name pictures, or folders of them.")
    if is_file_out(job):
        source = Path(job.inputs[0])
        if not copy_input:
            writer.format_for(job.out)
        return [_placed(source, Path(job.out), _identities([source]))], 0
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
        elif given.exists() and not given.is_file():
            absent.append((given, "it is no regular file"))
        elif given.exists() or given.is_symlink():
            found.append((given, Path(given.name)))
        else:
            absent.append((given, "there is no such file or folder"))
    named = _named(found, copy_input)
    identities = _identities([source for source, _ in found])
    taken: dict[Path, Path] = {}
    planned: list[Planned] = [Planned(path, None, refusal) for path, refusal in absent]
    for (source, _), (relative, announced) in zip(found, named, strict=True):
        other = taken.setdefault(relative, source)
        if other is not source:
            words = f"its result would take the place of that of {other}; restore it into {{}}"
            planned.append(Planned(source, None, words.format("another folder")))
        else:
            planned.append(_placed(source, job.out / relative, identities, announced))
    words = "a hidden file, not taken; name it to restore it"
    planned += [Planned(path, None, skipped=words) for path in hidden]
    return planned, ignored


def is_file_out(job: Job) -> bool:
    """Whether `out` is the path of the one result, and not a folder."""
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
    own, claims = {relative for _, relative in found}, Counter(wanted)
    named: list[tuple[Path, tuple[str, ...]]] = []
    for (_, relative), new in zip(found, wanted, strict=True):
        if new == relative:
            named.append((relative, ()))
            continue
        if new in own or claims[new] > 1:
            new = relative.with_name(relative.name + new.suffix)
        why = "no other format keeps it" if relative.suffix.lower() in _UNWRITTEN else "it lied"
        was = relative.suffix or "none"
        named.append((new, (f"suffix {was} became {new.suffix}: {why}",)))
    return named


Identity = tuple[int, int]
"""Device and number of a file: what a path, a link and another spelling of it share."""


def _identities(paths: Sequence[Path]) -> set[Identity]:
    found = set[Identity]()
    for path in paths:
        with contextlib.suppress(OSError):
            there = path.stat()
            found.add((there.st_dev, there.st_ino))
    return found


def _placed(
    source: Path, target: Path, inputs: set[Identity], announced: tuple[str, ...] = ()
) -> Planned:
    """With its target, or with a refusal where an input of this job lies there."""
    if there := _identities([target]):
        if there == _identities([source]):
            return Planned(source, None, "its result would replace it; choose another folder")
        if there <= inputs:
            words = f"its result would replace {target}, an input too; choose another folder"
            return Planned(source, None, words)
    return Planned(source, target, announced=announced)


_UNWRITTEN = {".gif", ".heic", ".heif", ".hif", ".bmp"}
