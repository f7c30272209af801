"""What is in each picture of a job: its regions as a label map, and drawn over the photograph."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__, batch
from .errors import CheckError, OutputError, PictureError, ShapeError, UsageError
from .guidance import Guide
from .image import Picture, decode, encode, place, read_bytes
from .image.reader import SUFFIXES
from .priors import PRIORS
from .priors.own import OwnMasks
from .priors.sam import TOGETHER, SamPrior

Look = Callable[[Path, np.ndarray], tuple[Guide, Sequence[str]]]
"""(file, (1, 3, H, W) RGB) -> regions of that size, and what has to be announced."""

ENDINGS = (".regions.png", ".overlay.png")
KINDS = ("regions", "grid", "voronoi", "sam")

# Ten hues at one lightness and chroma in OKLab (Ottosson 2020), every other one darker; neighbours
# in the table are far apart on the wheel.
INKS = (
    (235, 141, 134), (118, 161, 85), (98, 180, 236), (198, 116, 157), (191, 171, 79),
    (0, 166, 180), (196, 149, 223), (197, 128, 66), (83, 194, 158), (129, 139, 216),
)  # fmt: skip


def looking(
    prior: str = "regions",
    *,
    sam: str | None = None,
    masks: Path | None = None,
    one: bool = False,
) -> tuple[Look, dict[str, Any]]:
    """What finds the regions, and the settings that decide them.

    Args:
        prior: One of KINDS.
        sam: SAM's weights, a folder or the id of a hub model, which is fetched where it is not on
            this machine.
        masks: A person's own masks instead (`priors.own`).
        one: There is but one picture.

    Raises:
        UsageError: Another prior, flags that do not go together, no masks.
        MissingError, ModelError: SAM's weights.
    """
    if (sam is not None) != (prior == "sam"):
        raise UsageError(TOGETHER)
    if masks is not None:
        if prior != "regions":
            raise UsageError("--masks takes the place of --prior; give one of them.")
        own = OwnMasks(masks, one=one)
        return lambda source, rgb: own.of(source, *rgb.shape[2:]), own.identity
    if prior not in KINDS:
        raise UsageError(f"no regions called {prior!r}; there is {', '.join(KINDS)}.")
    if prior == "sam":
        found = SamPrior(sam, network=True)
        return lambda _, rgb: (found(rgb), ()), dict(found.identity)
    kind = PRIORS[prior]()
    return lambda _, rgb: (kind(rgb), ()), {"prior": prior, "relume": __version__}


def run(
    job: batch.Job,
    look: Look,
    *,
    progress: Callable[[batch.Record, int, int], None] | None = None,
) -> batch.Outcome:
    """Write NAME.regions.png and NAME.overlay.png for every input; one bad file stops no other.

    Running it again skips what is done. Of two inputs with one name before the suffix, both keep
    their suffix in the name.

    Args:
        job: inputs, out (a folder, made when there is something to write), recursive, overwrite and
            settings are read.
        look: What finds the regions. A PictureError, CheckError or ShapeError refuses one picture.
        progress: Called with each record, how many are done, and of how many.

    Returns:
        Exit code and records, as `batch.run`.

    Raises:
        UsageError: No input, or `out` is a file.
        RelumeError: Of `look`: what concerns every picture (an extra is missing).
    """
    if (job.out.exists() or job.out.suffix.lower() in SUFFIXES) and not job.out.is_dir():
        raise UsageError(f"{job.out}: segment writes into a folder; give one.")
    home = job.out / ".relume"
    planned, ignored = batch.plan(replace(job, out=home))
    given = {Path(path) for path in job.inputs}
    ours = [p.source.name.endswith(ENDINGS) and p.source not in given for p in planned]
    planned = [p for p, our in zip(planned, ours, strict=True) if not our]
    stems = [p.target and p.target.relative_to(home).parent / p.source.stem for p in planned]
    try:
        journal = batch.Journal(home / "journal.jsonl", job.settings)
    except OSError as error:
        raise OutputError(f"{job.out}: cannot be written ({error.strerror}).") from error
    records: list[batch.Record] = []
    code = 0
    for one, stem in zip(planned, stems, strict=True):
        started = time.perf_counter()
        record = _record(one.source)
        try:
            if one.skipped:
                record |= {"status": "skipped", "message": one.skipped}
            elif stem is None:
                raise PictureError(f"{one.source}: {one.refusal}.")
            else:
                name = stem if stems.count(stem) == 1 else stem.parent / one.source.name
                _segment(job, journal, look, one.source, job.out / name, record)
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


def _record(source: Path) -> batch.Record:
    return {
        "input": str(source),
        "regions": None,
        "overlay": None,
        "status": "refused",
        "message": None,
        "announced": [],
        "count": None,
        "pixels": None,
        "seconds": 0.0,
    }


def _segment(
    job: batch.Job,
    journal: batch.Journal,
    look: Look,
    source: Path,
    name: Path,
    record: batch.Record,
) -> None:
    data = read_bytes(source)
    key = journal.key(data)
    targets = [name.with_name(name.name + ending) for ending in ENDINGS]
    paths = dict(zip(("regions", "overlay"), map(str, targets), strict=True))
    done = [journal.finished(key, target) for target in targets]
    if done[0] and done[1]:
        kept = {field: done[0].get(field) for field in ("announced", "pixels")}
        record |= {"status": "skipped", "message": "already done", **kept, **paths}
        return
    picture = decode(data, str(source))
    rgb = picture.rgb()
    guide, announced = look(source, rgb)
    labels = np.asarray(guide.regions)[0]
    if labels.max() > 65535:
        raise PictureError(f"{source}: {labels.max()} regions are more than 16 bits can count.")
    notes = [*announced]
    if picture.frames > 1:
        notes.insert(0, f"only the first of {picture.frames} pictures in the file was looked at")
    record |= {
        "announced": notes,
        "pixels": labels.size,
        "count": len(np.unique(labels[labels > 0])),
    }
    drawn = [
        encode(Picture(labels.astype(np.uint16)[..., None], bits=16), "png"),
        encode(Picture.from_rgb(overlay(rgb, labels)), "png"),
    ]
    for target, written in zip(targets, drawn, strict=True):
        _check_free(job, journal, target, written)
    _make(job.out / ".relume")
    _make(name.parent)
    for target, written in zip(targets, drawn, strict=True):
        place(written, target, replace=os.path.lexists(target))
        journal.add(key, target, written, record)
    record |= {"status": "segmented", **paths}


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


# The overlay.


def overlay(rgb: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Regions in muted colours over the photograph, with thin light borders: (1, 3, H, W).

    Regions that touch differ in colour, unless one touches more than there are colours. Light and
    shade are the photograph's. Where no region is (label 0), the photograph is left as it is.

    Args:
        rgb: (1, 3, H, W) float32 in [0, 1].
        labels: (H, W) int, >= 0.
    """
    luma = np.tensordot(np.array([0.299, 0.587, 0.114], np.float32), rgb[0], 1)
    inks = np.array(INKS, np.float32)[colours(labels)].transpose(2, 0, 1) / 255
    tinted = inks * (0.35 + 0.8 * luma)
    out = np.where(labels > 0, 0.5 * rgb[0] + 0.5 * tinted, rgb[0])
    line, shade = _borders(labels, max(1, round(max(labels.shape) / 900)))
    out = out * np.where(shade & ~line, np.float32(0.72), np.float32(1))
    out = np.where(line, 0.15 * out + 0.85 * np.float32(0.98), out)
    return np.clip(out, 0, 1).astype(np.float32)[None]


def colours(labels: np.ndarray) -> np.ndarray:
    """(H, W) index into INKS of every pixel's region.

    Rounds of Jones and Plassmann (SIAM J. Sci. Comput. 1993): a region chooses once it has more
    neighbours than all of those that have not chosen; it takes the colour that the fewest of its
    neighbours have, the first of these from one that its own number picks.
    """
    values, index = np.unique(labels, return_inverse=True)
    index = index.reshape(labels.shape)
    count = len(values)
    sides = [(index[1:], index[:-1]), (index[:, 1:], index[:, :-1])]
    pairs = np.concatenate([np.stack([a[a != b], b[a != b]], 1) for a, b in sides])
    a, b = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0).T
    rank = np.empty(count, np.int64)
    rank[np.argsort(np.bincount(a, minlength=count), kind="stable")] = np.arange(count)
    chosen = np.full(count, -1)
    kinds = np.arange(len(INKS))
    while (chosen < 0).any():
        waits = (chosen[a] < 0) & (chosen[b] < 0) & (rank[b] > rank[a])
        ready = (chosen < 0) & (np.bincount(a[waits], minlength=count) == 0)
        taken = np.zeros((count, len(INKS)), np.int64)
        known = chosen[b] >= 0
        np.add.at(taken, (a[known], chosen[b[known]]), 1)
        turn = (kinds + values[:, None] * 3) % len(INKS)
        first = np.take_along_axis(taken, turn, 1).argmin(1)
        chosen[ready] = turn[np.arange(count), first][ready]
    return chosen[index]


def _borders(labels: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) bool, the lines between regions, `width` pixels wide, and the pixels next to them."""
    line = np.zeros(labels.shape, bool)
    line[:-1] |= labels[1:] != labels[:-1]
    line[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    for _ in range(width - 1):
        line = _grown(line)
    return line, _grown(line)


def _grown(mask: np.ndarray) -> np.ndarray:
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:, 1:] |= mask[:, :-1]
    grown[:-1] |= mask[1:]
    grown[:, :-1] |= mask[:, 1:]
    return grown
