"""Scores of a model over pairs of pictures, as a Report that carries its protocol.

Pictures are read, damaged, restored and measured one by one. `evaluate` takes callables, so that
any engine, baseline or function of one's own can be measured in the same way.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..card import Card
from ..engine import Engine
from ..errors import CheckError, UsageError, nearest
from ..guidance import Guidance, Guide
from ..image import enlarge, read, shape_of
from ..priors import PRIORS
from ..priors.own import Told
from ..restoration import SIGMA, look, priors_of, run_model
from .controls import CONTROLS
from .degrade import Chain, parse
from .degrade.folder import damage_file, photographs
from .degrade.spec import Finish
from .metrics import (
    CLEAN_FROM,
    COLLAPSE,
    KEPT_FROM,
    TILE,
    Protocol,
    collapse_curve,
    collapsed,
    share_bounds,
    share_upper,
)

Restore = Callable[..., np.ndarray]
"""(rgb) -> out, or (rgb, guidance) -> out where a prior is given; (1, 3, H, W) float32."""

RESAMPLES = 2000
"""In the truth of damaged pairs: standard deviation of the noise that was added, vector (1, 1)."""


# Pairs


@dataclass(frozen=True, eq=False)
class Loaded:
    """The pixels of one pair: float32 RGB, (1, 3, H, W); gt may be `scale` times as large."""

    lq: np.ndarray
    gt: np.ndarray
    truth: Guidance = field(default_factory=Guidance)


@dataclass(frozen=True, eq=False)
class Pair:
    """One picture to restore and what it should become.

    Args:
        image: Its name in the report.
        photograph: What it shows. Intervals take pictures of one photograph for one sample.
        load: Reads, and damages, the pixels.
    """

    image: str
    photograph: str
    load: Callable[[], Loaded]


@dataclass(frozen=True, eq=False)
class Pairs:
    """A data set as it will be measured.

    Args:
        items: The pairs, in their order.
        data: What the report's `data` says: sha256, n, spec, seed, notes.
        noise: The protocol's `noise`.
        scale: Enlargement.
    """

    items: tuple[Pair, ...]
    data: Mapping[str, Any]
    noise: str | None = None
    scale: int = 1

    @property
    def announced(self) -> tuple[str, ...]:
        """What was changed to make pairs fit; a person has to be told."""
        return tuple(self.data.get("notes", ()))


def folder_pairs(
    lq: Path,
    gt: Path,
    *,
    scale: int = 1,
    names: Iterable[str] | None = None,
    photograph: Callable[[str], str] | None = None,
) -> Pairs:
    """Pairs of two folders.

    A picture's gt has the same stem, else the longest stem that the picture's begins with, followed
    by `_`, or by `x` and digits (`1400_1` -> `1400`, `im1_kernel2_img` -> `im1`, `babyx4` ->
    `baby`); one gt may serve many. Stems include the path below the folder. With scale > 1 gt is
    cropped to a multiple of it, at the bottom and right; a gt that is then larger by the same even
    number of pixels on both axes is cropped at the centre. Both are noted in `data`.

    Args:
        lq: Folder of what is restored.
        gt: Folder of what it should become; the same folder as lq measures clean pictures.
        scale: Size of gt over size of lq.
        names: Stems of the lq pictures to take; all others, and the gt of none, are ignored.
        photograph: A gt's name -> what it shows; by default `photograph_of` over the gt names.

    Raises:
        UsageError: A folder without images, files without a partner, or sizes that do not fit;
            the message names the files.
    """
    pictures, truths = _named(lq, names), _images(gt)
    by_stem = _by_stem(truths)
    partner: dict[str, str] = {}
    for name in pictures:
        stem = match(_stem(name), by_stem)
        if stem is not None:
            partner[name] = by_stem[stem]
    alone = [f"{lq.name}/{n}" for n in pictures if n not in partner]
    used = set(partner.values())
    unused = [f"{gt.name}/{n}" for n in truths if n not in used and names is None]
    if alone or unused:
        raise UsageError(
            f"{len(alone + unused)} files have no partner: {_listed(alone + unused)}. A gt has its "
            "lq's name, or the beginning of it before `_` or `x` and digits."
        )
    windows, notes = _windows(lq, gt, partner, scale)
    shows = photograph or photograph_of(truths)

    def pair(name: str) -> Pair:
        def load() -> Loaded:
            top, left, height, width = windows[name]
            truth = read(gt / partner[name]).rgb()[..., top : top + height, left : left + width]
            return Loaded(read(lq / name).rgb(), truth)

        return Pair(name, shows(partner[name]), load)

    files = [lq / n for n in pictures] + [gt / partner[n] for n in pictures]
    data = {
        "sha256": files_digest(files),
        "n": len(pictures),
        "spec": None,
        "seed": None,
        "notes": notes,
    }
    return Pairs(tuple(pair(n) for n in pictures), data, scale=scale)


def degraded_pairs(
    gt: Path,
    spec: str,
    *,
    seed: int,
    noise: Literal["uint8", "float"] = "uint8",
    scale: int = 1,
    names: Iterable[str] | None = None,
    photograph: Callable[[str], str] | None = None,
) -> Pairs:
    """Pairs of a folder of good pictures and the damage of `relume degrade`, made on the way.

    The picture with index i (of the sorted relative paths) is damaged with a generator seeded by
    (seed, i), so that these are the pixels which `relume degrade --spec --seed` writes.

    Args:
        gt: Folder of good pictures.
        spec: SPEC of the damage, in people's units.
        seed: Seed N of the damage.
        noise: "uint8": lq is clipped and rounded to 8 bits, as `degrade` writes it; "float":
            neither, which is what many papers measure.
        scale: Enlargement of the model, the same as of the SPEC's `down`.
        names: Stems of the pictures to take; all others are as if they were not there.
        photograph: As in `folder_pairs`.

    Raises:
        RecipeError: The SPEC cannot be read.
        UsageError: A folder without images, or names that are not in it.
    """
    chain = parse(spec)
    pictures = _named(gt, names)
    if noise not in ("uint8", "float"):
        raise UsageError(
            f"noise must be uint8 or float, got {noise!r}.{nearest(noise, ('uint8', 'float'))}"
        )
    shows = photograph or photograph_of(pictures)

    def pair(index: int, name: str) -> Pair:
        return Pair(name, shows(name), lambda: _damaged(gt / name, chain, seed, index, noise))

    data = {
        "sha256": files_digest(gt / n for n in pictures),
        "n": len(pictures),
        "spec": spec,
        "seed": seed,
        "notes": [],
    }
    items = tuple(pair(i, n) for i, n in enumerate(pictures))
    return Pairs(items, data, noise=noise, scale=scale)


def match(stem: str, known: Iterable[str]) -> str | None:
    """The gt stem that belongs to an lq stem, by the rule of `folder_pairs`, or None."""
    known = set(known)
    if stem in known:
        return stem
    fits = [k for k in known if stem.startswith(k) and re.match(r"_|x\d", stem[len(k) :])]
    return max(fits, key=len, default=None)


def photograph_of(names: Iterable[str]) -> Callable[[str], str]:
    """A file's name -> the photograph it shows: `a_d2` is a detail of `a` where there is an `a`."""
    stems = {_stem(name) for name in names}

    def photograph(name: str) -> str:
        stem = _stem(name)
        whole = re.sub(r"_d\d+$", "", stem)
        return whole if whole in stems else stem

    return photograph


def _damaged(path: Path, chain: Chain, seed: int, index: int, finish: Finish) -> Loaded:
    made = damage_file(path, chain, seed, index, finish)
    sigmas = [step["sigma"] / 255 for step in made.params if step["kind"] == "noise"]
    truth = made.truth
    if sigmas:
        level = np.full((1, 1), math.hypot(*sigmas), np.float32)
        truth = truth.with_guide(SIGMA, Guide(vector=level, provenance={"prior": "truth"}))
    return Loaded(made.lq[None], made.gt[None], truth)


def _images(folder: Path) -> list[str]:
    """Relative paths of the images below a folder, sorted."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder. Pairs are given as two folders of images.")
    return [name.as_posix() for _, name in photographs(folder)]


def _named(folder: Path, names: Iterable[str] | None) -> list[str]:
    """As `_images`, only those with the stems in `names` where they are given."""
    pictures = _images(folder)
    if names is None:
        return pictures
    wanted = set(names)
    absent = sorted(wanted - {_stem(picture) for picture in pictures})
    if absent:
        raise UsageError(f"{len(absent)} pictures are not in {folder}: {_listed(absent)}.")
    return [picture for picture in pictures if _stem(picture) in wanted]


def _stem(name: str) -> str:
    return Path(name).with_suffix("").as_posix()


def _by_stem(names: Sequence[str]) -> dict[str, str]:
    stems: dict[str, str] = {}
    for name in names:
        stem = _stem(name)
        if stem in stems:
            raise UsageError(f"{stems[stem]} and {name} have one stem; remove one of them.")
        stems[stem] = name
    return stems


def _windows(
    lq: Path, gt: Path, partner: Mapping[str, str], scale: int
) -> tuple[dict[str, tuple[int, int, int, int]], list[str]]:
    """(top, left, height, width) of each picture's part of its gt, and what to announce."""
    windows: dict[str, tuple[int, int, int, int]] = {}
    margins: dict[int, int] = {}
    cut, wrong = 0, []
    for name, truth in partner.items():
        (h, w), (height, width) = shape_of(lq / name)[:2], shape_of(gt / truth)[:2]
        multiple = (height - height % scale, width - width % scale)
        cut += multiple != (height, width)
        margin = multiple[0] - h * scale
        if margin != multiple[1] - w * scale or margin < 0 or margin % 2:
            wrong.append(f"{name} {w}x{h} and {truth} {width}x{height}")
            continue
        windows[name] = (margin // 2, margin // 2, h * scale, w * scale)
        if margin:
            margins[margin // 2] = margins.get(margin // 2, 0) + 1
    if wrong:
        times = f" times {scale}" if scale > 1 else ""
        raise UsageError(
            f"{len(wrong)} pairs do not fit: {_listed(wrong)}. A gt is as large as its lq{times}, "
            "or larger by the same even number of pixels on both axes."
        )
    notes = [f"gt cropped to a multiple of {scale}: {cut} of {len(partner)}"] if cut else []
    notes += [
        f"gt cropped at the centre by {margin} px on each side: {count} of {len(partner)}"
        for margin, count in sorted(margins.items())
    ]
    return windows, notes


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def files_digest(paths: Iterable[Path]) -> str:
    """sha256 over names and bytes of files, in their order."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            inner = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.name}\0{inner}\n".encode())
    return total.hexdigest()


# Reports


@dataclass(frozen=True, eq=False)
class Report:
    """Scores of one model on one data set under one protocol; the parts are the contract's JSON.

    A `{"mean", "n", "ci95"}` holds None where nothing could be measured, and an interval of None
    where fewer than two photographs were.
    """

    protocol: Protocol
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    metrics: Mapping[str, Any]
    input: Mapping[str, Any]
    gain: Mapping[str, Any]
    clean: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    against: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in _PARTS}
        return {"protocol": self.protocol.to_json(), **parts}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Report:
        """From what `to_json` gave.

        Raises:
            UsageError: It is no report.
        """
        absent = [name for name in ("protocol", *_PARTS) if name not in document]
        if absent:
            raise UsageError(f"This is no report of `relume evaluate`: no {', '.join(absent)}.")
        parts = {name: document[name] for name in _PARTS}
        return cls(Protocol.from_json(document["protocol"]), **parts)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Report:
        return cls.from_json(json.loads(path.read_text(encoding="utf-8")))

    def __str__(self) -> str:
        """A few lines for a terminal. No number without the protocol it was read under."""
        digest = self.model.get("sha256") or ""
        name = f"{self.model.get('name') or 'a model'}{f' ({digest[:12]})' if digest else ''}"
        lines = [
            f"{name} on {self.data['n']} pictures (data {self.data['sha256'][:12]})",
            f"  {self.protocol}",
        ]
        for metric, unit in (("psnr", " dB"), ("ssim", "")):
            before, after, gain = self.input[metric], self.metrics[metric], self.gain[metric]
            if after["mean"] is not None:
                lines.append(
                    f"  {metric.upper()}  {_number(before, metric)} -> {_number(after, metric)}"
                    f"{_spread(after, metric)}{unit}, gain {_number(gain, metric, '+')}"
                    f"{_spread(gain, metric, '+')} n={gain['n']}"
                )
        rate = self.metrics["mcr"]
        if rate["n"]:
            lines.append(
                f"  MCR   {rate['count']} of {rate['n']} pictures more than 3 dB below the input "
                f"(at most {100 * rate['upper95']:.1f} %)"
            )
            tiles = self.metrics["local_mcr"]
            lines.append(
                f"        {tiles['count']} of {tiles['n']} have a tile of {TILE} px that fell so "
                f"far (at most {100 * tiles['upper95']:.1f} %)"
            )
        if self.clean["n"]:
            kept = self.clean["psnr"]
            lines.append(
                f"  clean {_number(kept, 'psnr')}{_spread(kept, 'psnr')} dB from the input, "
                f"{100 * self.clean['above40']:.0f} % above 40 dB, n={self.clean['n']}"
            )
        for control, found in self.against.items():
            gain = found["gain"]["psnr"]
            lines.append(
                f"  vs {control} {_number(gain, 'psnr', '+')}{_spread(gain, 'psnr', '+')} dB "
                f"n={gain['n']}"
            )
        return "\n".join(lines + [f"  note: {note}" for note in self.data.get("notes", ())])


def compare(report: Report, other: Report, *, seed: int = 0) -> dict[str, Any]:
    """What `report` is better by than `other`, paired over the pictures of both.

    Returns:
        {"psnr": {"mean", "n", "ci95"}, "ssim": ...}.

    Raises:
        UsageError: The two were not measured under the same protocol on the same pictures; the
            message names the field.
    """
    unlike = report.protocol.difference(other.protocol)
    if unlike is None and report.data["sha256"] != other.data["sha256"]:
        unlike = "data.sha256 is not the same, so these are other pictures"
    if unlike is not None:
        raise UsageError(f"These reports cannot be compared: {unlike}. Evaluate both alike.")
    mine = {row["image"]: row for row in report.rows}
    theirs = {row["image"]: row for row in other.rows}
    if set(mine) != set(theirs):
        odd = sorted(set(mine) ^ set(theirs))
        raise UsageError(f"These reports cannot be compared: {_listed(odd)} is only in one.")
    groups = [row["photograph"] for row in report.rows]
    return {
        metric: summary([mine[i][metric] - theirs[i][metric] for i in mine], groups, seed=seed)
        for metric in ("psnr", "ssim")
    }


def summary(values: Sequence[float], groups: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """Mean, count, and the 95 % interval of the mean by a bootstrap over photographs.

    Photographs are drawn with replacement, each with all its pictures: crops of one photograph
    agree with each other, and to take them for many samples makes an interval too narrow.

    Args:
        values: One per picture.
        groups: The photograph of each.
        seed: Of the draws.

    Returns:
        {"mean", "n", "ci95"}: None for what cannot be said, of no picture or of one photograph.
    """
    x = np.asarray(values, np.float64)
    if x.size == 0:
        return {"mean": None, "n": 0, "ci95": None}
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    sums, counts = np.bincount(index, x), np.bincount(index)
    interval = None
    if len(counts) > 1:
        rng = np.random.default_rng(seed)
        drawn = rng.integers(len(counts), size=(RESAMPLES, len(counts)))
        means = sums[drawn].sum(1) / counts[drawn].sum(1)
        interval = [round(float(v), 6) for v in np.quantile(means, (0.025, 0.975))]
    return {"mean": round(float(x.mean()), 6), "n": int(x.size), "ci95": interval}


# Evaluation


def evaluate(
    restore: Restore,
    pairs: Pairs,
    protocol: Protocol | None = None,
    *,
    model: Mapping[str, Any] | None = None,
    prior: Callable[[np.ndarray], Guidance] | None = None,
    told: Sequence[str] = (),
    against: Sequence[str] = (),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Restore every pair and measure it.

    Args:
        restore: lq (1, 3, H, W) float32 -> out, `scale` times as large. With `prior` or `told` it
            is called as (lq, guidance). Its answer is clipped, and rounded as the protocol says,
            here.
        pairs: From `folder_pairs` or `degraded_pairs`.
        protocol: channels, crop, rounding, align; spec, seed, noise and scale are the pairs'.
        model: name and sha256 of what is measured, for the report.
        prior: lq -> Guidance, what can be known from lq.
        told: Names of the pairs' truth that the model is told too, as a network that is not blind
            is told `noise.sigma`. The protocol says so.
        against: Controls to put in the prior's place (names of `CONTROLS`). This shows whether the
            model *listens*; whether the prior helps needs a model trained under the control.
        seed: Of the bootstrap and of the control's donors; not of the damage.
        progress: Called with (done, all) after each picture.

    Raises:
        UsageError: `against` without a prior, an unknown control, `shuffled` with pictures of one
            photograph only, or pairs without the truth in `told`.
        CheckError: The answer is not finite, or has another size than gt; the message names it.
        PictureError: A picture cannot be read.
    """
    protocol = replace(
        protocol or Protocol(),
        spec=pairs.data["spec"],
        seed=pairs.data["seed"],
        noise=pairs.noise,
        scale=pairs.scale,
        told=tuple(told),
    )
    _check_controls(against, prior is not None or bool(told))
    donors = _donors(pairs, seed) if "shuffled" in against else None
    rng = torch.Generator().manual_seed(seed)
    rows: list[dict[str, Any]] = []
    swapped: dict[str, list[dict[str, float]]] = {name: [] for name in against}

    for done, pair in enumerate(pairs.items, 1):
        loaded = pair.load()
        guidance = _known(pair, loaded, prior, told) if prior or told else None
        scored = _scored(restore, loaded.lq, guidance, loaded.gt, pair.image, protocol)
        before = loaded.lq if pairs.scale == 1 else enlarge(loaded.lq, pairs.scale)
        at_input = protocol.score(before, loaded.gt)
        row = {"image": pair.image, "photograph": pair.photograph, **scored[0]}
        row |= {f"{name}_input": value for name, value in at_input.items()}
        if at_input["psnr"] < CLEAN_FROM:
            row["worst_tile"] = protocol.worst_tile(scored[1], before, loaded.gt)
        if at_input["psnr"] >= CLEAN_FROM:
            kept = replace(protocol, align=0).score(scored[1], before)
            row["psnr_kept"] = kept["psnr"]
        rows.append({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()})

        if guidance is not None and against:
            other = donors[done - 1] if donors else pair
            of_other = _known(other, other.load(), prior, told) if donors else guidance
            for name in against:
                instead = CONTROLS[name](guidance, loaded.truth, of_other, rng)
                found = _scored(restore, loaded.lq, instead, loaded.gt, pair.image, protocol)
                swapped[name].append(found[0])
        if progress:
            progress(done, len(pairs.items))
    return _report(protocol, model or {}, pairs.data, rows, swapped, seed)


def engine_restorer(
    engine: Engine, *, tile: int | str = "auto"
) -> tuple[Restore, Callable[[np.ndarray], Guidance] | None]:
    """(restore, prior) of an open engine, for `evaluate`: the path that `relume restore` takes.

    The prior is None where the model reads none; `restore` then takes the picture alone, and what
    `told_by_truth` names.
    """
    truth = told_by_truth(engine.card)
    found = tuple(r for r in engine.card.reads if r.prior not in truth)
    asked = priors_of(replace(engine.card, reads=found), "auto")

    def restore(rgb: np.ndarray, guidance: Guidance | None = None) -> np.ndarray:
        told = {name: Told(guide) for name, guide in (guidance or Guidance()).items()}
        out, _ = run_model(rgb, engine, told, tile)
        gray = (rgb[:, :1] == rgb).all()  # a gray file is written back as gray
        return out.mean(1, keepdims=True).repeat(3, axis=1) if gray else out

    def prior(rgb: np.ndarray) -> Guidance:
        return look(rgb, engine.card, asked)

    return restore, (prior if found else None)


def told_by_truth(card: Card) -> tuple[str, ...]:
    """What the model has to be told and no prior finds: the noise level, of one that is not blind.

    It is `evaluate`'s `told`; papers on such networks tell them the truth as well.
    """
    return tuple(r.prior for r in card.reads if r.prior == SIGMA and SIGMA not in PRIORS)


def _known(
    pair: Pair,
    loaded: Loaded,
    prior: Callable[[np.ndarray], Guidance] | None,
    told: Sequence[str],
) -> Guidance:
    """What the model is to hear of one pair: what the prior finds, and what the truth tells."""
    absent = [name for name in told if name not in loaded.truth]
    if absent:
        raise UsageError(
            f"{pair.image}: the model must be told {', '.join(absent)}, which these pairs do not "
            "say. Damage the gt on the way, such as --degrade noise:sigma=25."
        )
    found = prior(loaded.lq) if prior else Guidance()
    return Guidance({**found, **{name: loaded.truth[name] for name in told}})


def _scored(
    restore: Restore,
    lq: np.ndarray,
    guidance: Guidance | None,
    gt: np.ndarray,
    image: str,
    protocol: Protocol,
) -> tuple[dict[str, Any], np.ndarray]:
    """Scores of one answer, and the answer."""
    out = np.asarray(restore(lq) if guidance is None else restore(lq, guidance))
    if out.shape != gt.shape:
        raise CheckError(
            f"{image}: the answer has shape {tuple(out.shape)}, its gt {tuple(gt.shape)}. "
            "Is this a model of another scale?"
        )
    if not np.isfinite(out).all():
        raise CheckError(f"{image}: the answer holds values that are not finite.")
    scores = protocol.score(out, gt)
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in scores.items()}, out


def _check_controls(against: Sequence[str], listens: bool) -> None:
    for name in against:
        if name not in CONTROLS:
            known = ", ".join(CONTROLS)
            raise UsageError(
                f"There is no control {name!r}; there is {known}.{nearest(name, CONTROLS)}"
            )
    if against and not listens:
        raise UsageError(
            f"--against {','.join(against)} swaps what a prior says, but this model reads no prior."
        )


def _donors(pairs: Pairs, seed: int) -> list[Pair]:
    """For each pair one of another photograph, so that no picture is told of itself."""
    order = np.random.default_rng(seed).permutation(len(pairs.items))
    # Sorted by photograph, then moved on by the size of the largest group: nobody meets his own.
    order = sorted(order, key=lambda i: pairs.items[i].photograph)
    groups = [pairs.items[i].photograph for i in order]
    largest = max((groups.count(g) for g in set(groups)), default=0)
    if 2 * largest > len(groups):
        raise UsageError(
            "The control 'shuffled' needs pictures of several photographs, none with more than "
            "half of them. Give more pictures."
        )
    donors = dict(zip(order, order[largest:] + order[:largest], strict=True))
    return [pairs.items[donors[i]] for i in range(len(order))]


def _report(
    protocol: Protocol,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    rows: list[dict[str, Any]],
    swapped: Mapping[str, list[dict[str, float]]],
    seed: int,
) -> Report:
    groups = [row["photograph"] for row in rows]
    damaged = [row for row in rows if row["psnr_input"] < CLEAN_FROM]
    clean = [row for row in rows if row["psnr_input"] >= CLEAN_FROM]

    def over(rows: Sequence[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], float]) -> Any:
        return summary([value(r) for r in rows], [r["photograph"] for r in rows], seed=seed)

    metrics = {m: over(rows, lambda r, m=m: r[m]) for m in ("psnr", "ssim")}
    before = {m: over(rows, lambda r, m=m: r[f"{m}_input"]) for m in ("psnr", "ssim")}
    gain = {m: over(damaged, lambda r, m=m: r[m] - r[f"{m}_input"]) for m in ("psnr", "ssim")}
    fell = collapsed(*_columns(damaged, "psnr", "psnr_input"))
    local = np.array([(row["worst_tile"] or 0) > COLLAPSE for row in damaged], bool)
    kept: dict[str, Any] = {"n": len(clean)}
    if clean:
        kept["psnr"] = over(clean, lambda r: r["psnr_kept"])
        kept["above40"] = sum(r["psnr_kept"] > KEPT_FROM for r in clean) / len(clean)
    against = {
        name: {
            "psnr": summary([s["psnr"] for s in scores], groups, seed=seed),
            "gain": {
                "psnr": summary(
                    [r["psnr"] - s["psnr"] for r, s in zip(rows, scores, strict=True)],
                    groups,
                    seed=seed,
                )
            },
        }
        for name, scores in swapped.items()
    }
    return Report(
        protocol=protocol,
        model={"name": model.get("name"), "sha256": model.get("sha256"), **model},
        data=dict(data),
        metrics={
            **metrics,
            "mcr": _rate(damaged, fell),
            "mcr_curve": collapse_curve(*_columns(damaged, "psnr", "psnr_input")),
            "local_mcr": _rate(damaged, local),
        },
        input=before,
        gain=gain,
        clean=kept,
        rows=rows,
        against=against,
    )


def _columns(rows: Sequence[Mapping[str, Any]], *keys: str) -> tuple[np.ndarray, ...]:
    return tuple(np.array([row[key] for row in rows], np.float64) for key in keys)


def _rate(rows: Sequence[Mapping[str, Any]], fell: np.ndarray) -> dict[str, Any]:
    """The share of pictures that fell, with exact intervals. They count photographs, of which one
    bad picture makes a bad one: pictures of one photograph fail together, and counting each would
    promise too much."""
    if not rows:
        return {"mean": None, "n": 0, "count": 0, "photographs": 0, "ci95": None, "upper95": None}
    photographs = {r["photograph"] for r in rows}
    bad = {r["photograph"] for r, f in zip(rows, fell, strict=True) if f}
    ends = share_bounds(len(bad), len(photographs))
    return {
        "mean": round(float(fell.mean()), 6),
        "n": len(rows),
        "count": int(fell.sum()),
        "photographs": len(photographs),
        "ci95": [round(end, 6) for end in ends],
        "upper95": round(share_upper(len(bad), len(photographs)), 6),
    }


def _number(value: Mapping[str, Any], metric: str, sign: str = "") -> str:
    mean = value["mean"]
    return "-" if mean is None else format(mean, f"{sign}.{_DIGITS[metric]}f")


def _spread(value: Mapping[str, Any], metric: str, sign: str = "") -> str:
    if value["ci95"] is None:
        return ""
    low, high = (format(end, f"{sign}.{_DIGITS[metric]}f") for end in value["ci95"])
    return f" [{low}, {high}]"


_DIGITS = {"psnr": 2, "ssim": 4}
_PARTS = ("model", "data", "metrics", "input", "gain", "clean", "rows", "against")
