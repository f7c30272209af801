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
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import UsageError, nearest
from ...guidance import Guidance
from ..degrade import generator
from ..evaluate import Loaded, Pair, Pairs, Report, evaluate, summary
from ..export import as_tensors
from ..metrics import Protocol
from ..pairs import Kept
from ..recipe import Recipe, load
from ..restorer import Restorer
from ..runs import run_recipe, training_files
from ..sources import controlled, told_by_gt
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
        at_test: Overrides when it is measured: the same weights, told otherwise.
    """

    name: str
    title: str
    changes: tuple[str, ...] = ()
    after: str = ""
    paper: Mapping[str, str] = field(default_factory=dict, hash=False)
    control: bool = False
    at_test: tuple[str, ...] = ()


def _nothing(root: Path) -> str:
    return ""


@dataclass(frozen=True)
class Column:
    """One test set.

    Args:
        pairs: data root -> the pairs; `Loaded.truth` holds what an oracle knows. Where it holds
            nothing, an oracle is told what its prior says of gt.
        protocol: How it is scored.
        out_of_domain: Whether training saw this kind of damage.
        absent: data root -> why the column cannot be measured there, one line for its cells, or "".
            Quick: no picture is opened.
    """

    name: str
    title: str
    pairs: Callable[[Path], Pairs]
    protocol: Protocol = field(default_factory=Protocol)
    out_of_domain: bool = False
    absent: Callable[[Path], str] = _nothing


@dataclass(frozen=True)
class System:
    """One paper.

    Args:
        base: Name of the shipped recipe that the arms change.
        contrast: (arm, its control, column): the one comparison that was named beforehand.
        columns_of_paper: Columns of the paper's own table, in its order. Those that are columns
            here too are comparable, as far as the notes say: their cells hold the paper's figure.
        notes: Lines below the table: what is a reconstruction, what could not be run.
        prior: Overrides of every arm with adapters: what it looks at.
        longest: Times the base's steps that are trained at most.
    """

    name: str
    title: str
    base: str
    arms: tuple[Arm, ...]
    columns: tuple[Column, ...]
    contrast: tuple[str, str, str]
    columns_of_paper: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    prior: tuple[str, ...] = ()
    longest: int = STEPS_GROW**2

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
        prior: Overrides of every arm with adapters, after the system's own, such as SAM's weights.
        tell: Called with a line for a person.
    """

    def __init__(
        self,
        system: System,
        root: Path,
        out: Path,
        *,
        changes: Sequence[str] = (),
        prior: Sequence[str] = (),
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.system, self.root, self.out = system, root, out
        self.changes, self.prior, self.tell = tuple(changes), (*system.prior, *prior), tell
        self._pairs: dict[str, Pairs] = {}
        self._absent: dict[str, str] = {}
        # What is read, damaged and looked at once serves all arms, as long as there is room.
        self._loaded = Kept[Loaded](lambda pair: pair.lq.nbytes + pair.gt.nbytes)
        self._looked = Kept[Guidance](lambda g: sum(guide.array.nbytes for guide in g.values()))
        self._digests: dict[Job, str] = {}

    def recipe(self, job: Job, *, measured: bool = False) -> Recipe:
        """The recipe of one run, or the one under which its weights are measured.

        One with `after` names the weights that run first by digest.
        """
        # The arm's own words come last: a row that takes no step takes none at any budget.
        changes = [*self.changes, *job.arm.changes, f"seed={job.seed}"]
        if self.prior and load(self.system.base, changes).adapters:
            changes = [*self.changes, *self.prior, *job.arm.changes, f"seed={job.seed}"]
        if job.arm.after:
            before = Job(self.system.arm(job.arm.after), 0, job.times)
            weights = self.run_of(before) / "model.safetensors"
            changes.append(f'priors.regions.after="{weights}"')
        steps = load(self.system.base, changes).build_schedule().steps * job.times
        at_test = job.arm.at_test if measured else ()
        return load(self.system.base, [*changes, *at_test, f"schedule.steps={steps}"])

    def run_of(self, job: Job) -> Path:
        return self.out / "runs" / self.digest(job)[:16]

    def digest(self, job: Job) -> str:
        if job not in self._digests:
            self._digests[job] = self.recipe(job).digest
        return self._digests[job]

    def cell(self, job: Job, column: Column) -> Path:
        key = f"{self.digest(job)}\0{column.name}\0{column.title}\0{column.protocol}"
        key += "".join(f"\0{change}" for change in job.arm.at_test)
        return self.out / "cells" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"

    def absent(self, column: Column) -> str:
        """Why a column cannot be measured here, or ""."""
        if column.name not in self._absent:
            self._absent[column.name] = column.absent(self.root)
        return self._absent[column.name]

    def missing(self, job: Job) -> list[Column]:
        """The columns that a run has not been measured on, and could be."""
        columns = self.system.columns
        return [c for c in columns if not self.absent(c) and not self.cell(job, c).is_file()]

    def done(self, job: Job) -> bool:
        if all(self.absent(column) for column in self.system.columns):
            return (self.run_of(job) / "model.safetensors").is_file()
        return not self.missing(job)

    def check(self, arms: Sequence[Arm]) -> None:
        """Say before the first step what else would be said after days.

        Raises:
            UsageError: There is nothing to train on.
            MissingError, ModelError: What a prior needs is not here.
        """
        recipes = [self.recipe(Job(arm)) for arm in arms]
        training_files(recipes[0], self.root)  # the arms of a table train on the same
        for recipe in recipes:
            for name, row in recipe.priors.items():
                _ = recipe.build_prior(name, row).identity

    def do(self, job: Job) -> None:
        """Train one arm and measure it on every column; what is there already is kept."""
        if job.arm.after:
            before = Job(self.system.arm(job.arm.after), 0, job.times)
            if not (self.run_of(before) / "model.safetensors").is_file():
                self.train(before)
        stored = load_weights(self.train(job))
        recipe = self.recipe(job, measured=True)
        model = recipe.build_model().eval()
        model.load_state_dict(stored.tensors)
        for column in self.missing(job):
            report = self.measure(model, recipe, column, stored.digest)
            text = json.dumps({"job": _said(job), "report": report.to_json()})
            write_whole(self.cell(job, column), text.encode())

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
            self._pairs[column.name] = column.pairs(self.root)
        pairs, sources = self._pairs[column.name], recipe.build_sources()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = model.to(device)
        said = {k: v.model_dump(exclude={"control", "dropout"}) for k, v in recipe.priors.items()}
        setting = json.dumps(said)
        numbers: dict[str, int] = {}

        def load(at: int) -> Loaded:
            pair = pairs.items[at]
            return self._loaded.get((column.name, pair.image), pair.load)

        def known(at: int, lq: np.ndarray) -> Guidance:
            return self._looked.get(
                (column.name, pairs.items[at].image, setting),
                lambda: Guidance({name: source.prior(lq) for name, source in sources.items()}),
            )

        def told(lq: np.ndarray) -> Guidance:
            at = numbers[_key(lq)]
            mine, truth, donor = known(at, lq), Guidance(), Guidance()
            controls = {source.control for source in sources.values()}
            if "shuffled" in controls:
                # Pictures of one photograph stand together: half the list away is another one.
                far = (at + len(pairs.items) // 2) % len(pairs.items)
                donor = known(far, load(far).lq)
            if "oracle" in controls:
                loaded = load(at)
                truth = loaded.truth or told_by_gt(loaded.gt, sources, _size(lq))
            return controlled(mine, sources, truth, donor, generator(0, at))

        def restore(lq: np.ndarray, guidance: Guidance | None = None) -> np.ndarray:
            tensors = as_tensors(guidance or Guidance()).map(
                lambda g: g.map(lambda a: a.to(device))
            )
            return model(torch.from_numpy(lq).to(device), tensors).cpu().numpy()

        def numbered(at: int) -> Loaded:
            loaded = load(at)
            numbers[_key(loaded.lq)] = at
            return loaded

        items = tuple(
            Pair(pair.image, pair.photograph, partial(numbered, at))
            for at, pair in enumerate(pairs.items)
        )
        self.tell(f"measuring on {column.name}")
        return evaluate(
            restore,
            replace(pairs, items=items),
            column.protocol,
            model={"name": recipe.name, "sha256": digest},
            prior=told if sources else None,
        )


def run(
    bench: Bench, *, budget: float, rows: Sequence[str] = (), clock: Callable[[], float] = time.time
) -> str:
    """Fill cells for `budget` minutes, one run at least where any is missing, and print the table.

    A run is begun only when the longest so far would still fit.
    """
    began, longest, trained = clock(), 0.0, 0
    for job in jobs(bench.system, rows):
        if job.times > bench.system.longest:
            break
        if bench.done(job):
            continue
        left = budget * 60 - (clock() - began)
        if trained and left < longest * job.times:
            break
        if not trained:
            bench.check([bench.system.arm(name) for name in rows] or bench.system.arms)
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
        schedules = [bench.recipe(Job(arm, 0, times)).build_schedule() for arm in arms]
        longest = max(schedules, key=lambda schedule: schedule.steps)
        lines += [
            f"{longest.steps} steps of {longest.batch} crops of {longest.crop} pixels",
            "",
            "| row | " + " | ".join(c.title for c in system.columns) + " | weights |",
            "|---|" + "---|" * (len(system.columns) + 1),
        ]
        for arm in arms:
            found = [cells[arm.name][c.name] for c in system.columns]
            measured = next((reports for reports in found if reports), [])
            digests = [r.model["sha256"][:8] for r in measured] or ["-"]
            mark = " (control)" if arm.control else ""
            texts = [_cell(r, bench.absent(c)) for r, c in zip(found, system.columns, strict=True)]
            texts = [
                f"{text}; paper {arm.paper[c.title]}" if c.title in arm.paper else text
                for text, c in zip(texts, system.columns, strict=True)
            ]
            lines.append(f"| {arm.title}{mark} | {' | '.join(texts)} | {' '.join(digests)} |")
        lines += ["", *_contrast(bench, cells), ""]
    if set(system.columns_of_paper) - {column.title for column in system.columns}:
        lines += _paper(system, arms)
    first = next((r[0] for a in arms for r in reports(bench, a, 1).values() if r), None)
    if first is not None:
        lines += [f"Protocol: {first.protocol}.", ""]
    if bench.prior:
        lines += [f"What the rows look at: {', '.join(dict.fromkeys(bench.prior))}.", ""]
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


def _cell(found: Sequence[Report], absent: str) -> str:
    if not found:
        return absent.rstrip(".") or "not trained yet: raise --budget"
    groups = [row["photograph"] for row in found[0].rows]
    # Each picture at its mean over the seeds: the interval is over photographs.
    psnr, ssim = (
        summary(np.mean([[row[m] for row in r.rows] for r in found], 0).tolist(), groups)
        for m in ("psnr", "ssim")
    )
    low, high = psnr["ci95"] or (float("nan"),) * 2
    fell = sum(r.metrics["mcr"]["count"] for r in found)
    of = sum(r.metrics["mcr"]["n"] for r in found)
    upper = max(r.metrics["mcr"]["upper95"] or 0 for r in found)
    seeds = f", {len(found)} seeds" if len(found) > 1 else ""
    return (
        f"{psnr['mean']:.2f} [{low:.2f}, {high:.2f}] / {ssim['mean']:.4f} / {fell} of {of} "
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
        (absent,) = [bench.absent(c) for c in bench.system.columns if c.name == column]
        why = "one photograph has no interval" if found["n"] else absent or "not computed yet"
        return [f"Named beforehand: {arm} against {control} on {column}: {why.rstrip('.')}."]
    low, high = found["ci95"]
    if found["seeds"] < SEEDS:
        verdict = f"no verdict before {SEEDS} seeds"
    elif low <= 0 <= high:
        verdict = "the interval holds 0: no difference is shown"
    else:
        verdict = f"{arm} lies {'above' if low > 0 else 'below'}; the control rows say why"
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


def _size(lq: np.ndarray) -> tuple[int, int]:
    return lq.shape[-2], lq.shape[-1]
