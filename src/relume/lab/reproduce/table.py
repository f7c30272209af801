"""A paper's table, cell by cell: arms that are trained alike, columns that they are measured on.

A cell is cached under the digest of its recipe and of its column, so that a table grows over
several runs and a stopped one goes on. What a budget buys first is one seed of every arm, then two
more of the two arms of the contrast that was named beforehand, then the same at four times the
steps.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import UsageError, nearest
from ...guidance import Guidance
from ..controls import CONTROLS
from ..data import Source
from ..degrade import generator
from ..evaluate import Loaded, Pair, Pairs, Report, evaluate, summary
from ..export import as_tensors
from ..metrics import Protocol
from ..recipe import Recipe, load
from ..restorer import Restorer
from ..runs import run_recipe
from ..weights import load as load_weights
from ..weights import write_whole

SEEDS = 3
STEPS_GROW = 4


@dataclass(frozen=True)
class Arm:
    """One row: what is added to the system's base recipe.

    Args:
        name: Its word on the command line.
        title: As the paper calls it, or what kind of control it is.
        changes: Overrides of the base recipe, `a.b=v`.
        after: The arm whose finished network runs before the priors look, or "".
        paper: Column of the paper -> its cell, where we have read it.
        control: True where the row exists to explain away another.
    """

    name: str
    title: str
    changes: tuple[str, ...] = ()
    after: str = ""
    paper: Mapping[str, str] = field(default_factory=dict, hash=False)
    control: bool = False


@dataclass(frozen=True)
class Column:
    """One test set: pairs in memory, with the oracle's guidance of each.

    Args:
        pairs: data root -> the pairs; `Loaded.truth` holds what an oracle knows.
        protocol: How it is scored.
        out_of_domain: Whether training saw this kind of damage.
    """

    name: str
    title: str
    pairs: Callable[[Path], Pairs]
    protocol: Protocol = field(default_factory=Protocol)
    out_of_domain: bool = False


@dataclass(frozen=True)
class System:
    """One paper.

    Args:
        base: Name of the shipped recipe that the arms change.
        contrast: (arm, its control, column): the one comparison that was named beforehand.
        columns_of_paper: Columns of the paper's own table, in its order.
        notes: Lines below the table: what is a reconstruction, what could not be run.
    """

    name: str
    title: str
    base: str
    arms: tuple[Arm, ...]
    columns: tuple[Column, ...]
    contrast: tuple[str, str, str]
    columns_of_paper: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def arm(self, name: str) -> Arm:
        """The arm of that name.

        Raises:
            UsageError: There is none; the message names the nearest.
        """
        names = [arm.name for arm in self.arms]
        if name not in names:
            raise UsageError(
                f"{self.name} has no row {name!r}; it has {', '.join(names)}.{nearest(name, names)}"
            )
        return self.arms[names.index(name)]


@dataclass(frozen=True)
class Job:
    """One training run: an arm, a seed, and how many times the base recipe's steps."""

    arm: Arm
    seed: int = 0
    times: int = 1


def jobs(system: System, rows: Sequence[str] = ()) -> Iterator[Job]:
    """What to train, the most wanted first; without end."""
    arms = [system.arm(name) for name in rows] if rows else list(system.arms)
    pair = [arm for arm in arms if arm.name in system.contrast[:2]]
    times = 1
    while True:
        yield from (Job(arm, 0, times) for arm in arms)
        for seed in range(1, SEEDS):
            yield from (Job(arm, seed, times) for arm in pair)
        times *= STEPS_GROW


class Bench:
    """Trains and measures a system's cells in a folder.

    Args:
        system: The paper.
        root: Data root of its recipes and columns.
        out: Folder of the cells and runs.
        changes: Overrides of every arm's recipe, such as fewer steps.
        tell: Called with a line for a person.
    """

    def __init__(
        self,
        system: System,
        root: Path,
        out: Path,
        *,
        changes: Sequence[str] = (),
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.system, self.root, self.out = system, root, out
        self.changes, self.tell = tuple(changes), tell
        self._pairs: dict[str, Pairs] = {}
        self._looked: dict[tuple[str, str, str], Guidance] = {}
        self._digests: dict[Job, str] = {}

    def recipe(self, job: Job) -> Recipe:
        """The recipe of one run. One with `after` names the weights that run first by digest."""
        changes = [*self.changes, *job.arm.changes, f"seed={job.seed}"]
        if job.arm.after:
            before = Job(self.system.arm(job.arm.after), 0, job.times)
            weights = self.run_of(before) / "model.safetensors"
            changes.append(f'priors.regions.after="{weights}"')
        base = load(self.system.base, [*self.changes])
        steps = base.build_schedule().steps * job.times
        return load(self.system.base, [*changes, f"schedule.steps={steps}"])

    def run_of(self, job: Job) -> Path:
        return self.out / "runs" / self.digest(job)[:16]

    def digest(self, job: Job) -> str:
        if job not in self._digests:
            self._digests[job] = self.recipe(job).digest
        return self._digests[job]

    def cell(self, job: Job, column: Column) -> Path:
        key = f"{self.digest(job)}\0{column.name}\0{column.title}\0{column.protocol}"
        return self.out / "cells" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"

    def done(self, job: Job) -> bool:
        return all(self.cell(job, column).is_file() for column in self.system.columns)

    def do(self, job: Job) -> None:
        """Train one arm and measure it on every column; what is there already is kept."""
        if job.arm.after:
            before = Job(self.system.arm(job.arm.after), 0, job.times)
            if not (self.run_of(before) / "model.safetensors").is_file():
                self.train(before)
        weights = self.train(job)
        recipe = self.recipe(job)
        stored = load_weights(weights)
        model = recipe.build_model().eval()
        model.load_state_dict(stored.tensors)
        for column in self.system.columns:
            path = self.cell(job, column)
            if not path.is_file():
                report = self.measure(model, recipe, column, stored.digest)
                text = json.dumps({"job": _said(job), "report": report.to_json()})
                write_whole(path, text.encode())

    def train(self, job: Job) -> Path:
        weights = self.run_of(job) / "model.safetensors"
        if weights.is_file():
            return weights
        self.tell(f"training {job.arm.name}, seed {job.seed}, {job.times}x steps")
        return run_recipe(self.recipe(job), self.run_of(job), root=self.root)

    @torch.inference_mode()
    def measure(self, model: Restorer, recipe: Recipe, column: Column, digest: str) -> Report:
        """One cell: the arm is told at test what it was told in training."""
        if column.name not in self._pairs:
            self._pairs[column.name] = _resident(column.pairs(self.root))
        pairs, sources = self._pairs[column.name], recipe.build_sources()
        images = [pair.image for pair in pairs.items]
        loaded = {pair.image: pair.load() for pair in pairs.items}
        by_pixels = {_key(one.lq): image for image, one in loaded.items()}
        setting = json.dumps({k: v.model_dump() for k, v in recipe.priors.items()})

        def known(image: str) -> Guidance:
            key = (column.name, image, setting)
            if key not in self._looked:
                lq = loaded[image].lq
                self._looked[key] = Guidance({n: s.prior(lq) for n, s in sources.items()})
            return self._looked[key]

        def told(lq: np.ndarray) -> Guidance:
            image = by_pixels[_key(lq)]
            at = images.index(image)
            # Pictures of one photograph stand together: half the list away is another photograph.
            donor = known(images[(at + len(images) // 2) % len(images)])
            return controlled(known(image), sources, loaded[image].truth, donor, at)

        def restore(lq: np.ndarray, guidance: Guidance | None = None) -> np.ndarray:
            return model(torch.from_numpy(lq), as_tensors(guidance or Guidance())).numpy()

        self.tell(f"measuring on {column.name}")
        return evaluate(
            restore,
            pairs,
            column.protocol,
            model={"name": recipe.name, "sha256": digest},
            prior=told if sources else None,
        )


def controlled(
    known: Guidance, sources: Mapping[str, Source], truth: Guidance, donor: Guidance, number: int
) -> Guidance:
    """What an arm is told of one picture at test."""
    for name, source in sources.items():
        if source.control != "none":
            one, rng = Guidance({name: known[name]}), generator(0, number)
            known = known.with_guide(name, CONTROLS[source.control](one, truth, donor, rng)[name])
    return known


def run(
    bench: Bench, *, budget: float, rows: Sequence[str] = (), clock: Callable[[], float] = time.time
) -> str:
    """Fill cells for `budget` minutes, one run at least where any is missing, and print the table.

    A run is begun only when the longest so far would still fit.
    """
    began, longest, trained = clock(), 0.0, 0
    for job in jobs(bench.system, rows):
        if job.times > STEPS_GROW**2:
            break
        if bench.done(job):
            continue
        left = budget * 60 - (clock() - began)
        if trained and left < longest * job.times:
            break
        at = clock()
        bench.do(job)
        trained += 1
        longest = max(longest, (clock() - at) / job.times)
    return table(bench, rows)


# The table


def table(bench: Bench, rows: Sequence[str] = ()) -> str:
    """Markdown: a row an arm, a column a test set; what is not computed says why."""
    system = bench.system
    arms = [system.arm(name) for name in rows] if rows else list(system.arms)
    lines = [f"# {system.title}", ""]
    for times in (1, STEPS_GROW, STEPS_GROW**2):
        cells = {arm.name: reports(bench, arm, times) for arm in arms}
        if times > 1 and not any(any(r.values()) for r in cells.values()):
            continue
        steps = bench.recipe(Job(arms[0], 0, times)).build_schedule()
        lines += [
            f"{steps.steps} steps of {steps.batch} crops of {steps.crop} pixels",
            "",
            "| row | " + " | ".join(c.title for c in system.columns) + " | weights |",
            "|---|" + "---|" * (len(system.columns) + 1),
        ]
        for arm in arms:
            found = [cells[arm.name][c.name] for c in system.columns]
            digests = [r.model["sha256"][:8] for r in found[0]] or ["-"]
            mark = " (control)" if arm.control else ""
            texts = " | ".join(_cell(r) for r in found)
            lines.append(f"| {arm.title}{mark} | {texts} | {' '.join(digests)} |")
        lines += ["", *_contrast(bench, cells), ""]
    if any(arm.paper for arm in arms):
        lines += _paper(system, arms)
    first = next((r[0] for a in arms for r in reports(bench, a, 1).values() if r), None)
    if first is not None:
        lines += [f"Protocol: {first.protocol}.", ""]
    return "\n".join([*lines, *(f"- {note}" for note in system.notes)])


def reports(bench: Bench, arm: Arm, times: int) -> dict[str, list[Report]]:
    """Column -> the reports of the seeds that are there."""
    found: dict[str, list[Report]] = {}
    for column in bench.system.columns:
        found[column.name] = []
        for seed in range(SEEDS):
            path = bench.cell(Job(arm, seed, times), column)
            if path.is_file():
                document = json.loads(path.read_text(encoding="utf-8"))["report"]
                found[column.name].append(Report.from_json(document))
    return found


def _cell(found: Sequence[Report]) -> str:
    if not found:
        return "not trained yet: raise --budget"
    psnr, ssim = (float(np.mean([r.metrics[m]["mean"] for r in found])) for m in ("psnr", "ssim"))
    low, high = found[0].metrics["psnr"]["ci95"] or (float("nan"),) * 2
    fell = sum(r.metrics["mcr"]["count"] for r in found)
    of = sum(r.metrics["mcr"]["n"] for r in found)
    upper = max(r.metrics["mcr"]["upper95"] or 0 for r in found)
    seeds = f", {len(found)} seeds" if len(found) > 1 else ""
    return (
        f"{psnr:.2f} [{low:.2f}, {high:.2f}] / {ssim:.4f} / {fell} of {of} "
        f"(≤ {100 * upper:.1f} %){seeds}"
    )


def contrast(mine: Sequence[Report], theirs: Sequence[Report], *, seed: int = 0) -> dict[str, Any]:
    """Mean PSNR difference of two arms with an interval over photographs and training seeds.

    Photographs and seeds are drawn together, both with replacement; pictures are paired by name and
    runs by seed.
    """
    both = list(zip(mine, theirs, strict=False))
    if not both:
        return {"mean": None, "n": 0, "seeds": 0, "ci95": None, "detectable": None}
    gain = np.array(
        [[a["psnr"] - b["psnr"] for a, b in zip(x.rows, y.rows, strict=True)] for x, y in both]
    )
    groups = [row["photograph"] for row in both[0][0].rows]
    if len(both) == 1:
        found = summary(gain[0], groups, seed=seed)
        return {**found, "seeds": 1, "detectable": None}
    names, index = np.unique(groups, return_inverse=True)
    per = np.stack([np.bincount(index, row, len(names)) for row in gain])
    counts = np.bincount(index, minlength=len(names))
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(2000):
        runs = rng.integers(len(both), size=len(both))
        who = rng.integers(len(names), size=len(names))
        draws.append(per[np.ix_(runs, who)].sum() / (counts[who].sum() * len(runs)))
    low, high = np.quantile(draws, (0.025, 0.975))
    return {
        "mean": float(gain.mean()),
        "n": gain.shape[1],
        "seeds": len(both),
        "ci95": [float(low), float(high)],
        # Of a two-sided test at 5 % with 80 % power.
        "detectable": float(2.8 * np.std(draws)),
    }


def _contrast(bench: Bench, cells: Mapping[str, Mapping[str, list[Report]]]) -> list[str]:
    arm, control, column = bench.system.contrast
    if arm not in cells or control not in cells:
        return []
    found = contrast(cells[arm][column], cells[control][column])
    if found["ci95"] is None:
        return [f"Named beforehand: {arm} against {control} on {column}: not computed yet."]
    low, high = found["ci95"]
    verdict = (
        "the interval holds 0: no difference is shown"
        if low <= 0 <= high
        else ("the prior helps here" if low > 0 else "the prior hurts here")
    )
    smallest = f", smallest detectable {found['detectable']:.2f} dB" if found["detectable"] else ""
    return [
        f"Named beforehand: {arm} against {control} on {column}: {found['mean']:+.3f} dB "
        f"[{low:+.3f}, {high:+.3f}], {found['n']} pictures, {found['seeds']} seeds{smallest}: "
        f"{verdict}."
    ]


def _paper(system: System, arms: Sequence[Arm]) -> list[str]:
    rows = [arm for arm in arms if arm.paper]
    return [
        "The paper's own table, as read (other data, other budget: not comparable with the above)",
        "",
        "| row | " + " | ".join(system.columns_of_paper) + " |",
        "|---|" + "---|" * len(system.columns_of_paper),
        *(
            f"| {arm.title} | "
            + " | ".join(arm.paper.get(c, "-") for c in system.columns_of_paper)
            + " |"
            for arm in rows
        ),
        "",
    ]


def _said(job: Job) -> dict[str, Any]:
    return {"arm": job.arm.name, "seed": job.seed, "times": job.times}


def _key(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _resident(pairs: Pairs) -> Pairs:
    """The same pairs, read and damaged once for all arms."""
    kept: dict[str, Loaded] = {}

    def once(pair: Pair) -> Callable[[], Loaded]:
        def load() -> Loaded:
            if pair.image not in kept:
                kept[pair.image] = pair.load()
            return kept[pair.image]

        return load

    items = tuple(Pair(p.image, p.photograph, once(p)) for p in pairs.items)
    return Pairs(items, pairs.data, pairs.noise, pairs.scale)
