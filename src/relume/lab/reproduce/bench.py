"""Trains and measures a paper's cells in a folder, and keeps what it has.

A cell is cached under the digest of its recipe and of its column, so that a table grows over
several runs and a stopped one goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import UsageError
from ...guidance import Guidance
from ..controls import TOLD_THE_TRUTH
from ..datasets import Loaded, Pair, Pairs
from ..degrade import generator
from ..encoders.controlled import Controlled
from ..evaluate import evaluate
from ..pairs import Kept
from ..recipe import Recipe, load
from ..report import Report
from ..restorer import Restorer, as_tensors
from ..runs import run_recipe, training_files
from ..sources import controlled, told_by_gt
from ..weights import load as load_weights
from ..weights import write_whole
from .judge import Judge, absent
from .system import PERCEIVER, Arm, Column, Job, System, jobs

TIMED = 256
"""Side of the part of a picture on which a network is timed, in pixels."""


class Bench:
    """Trains and measures a system's cells in a folder.

    Args:
        system: The paper.
        root: Data root of its recipes and columns.
        out: Folder of the cells and runs.
        changes: Overrides of every arm's recipe, such as fewer steps.
        prior: Overrides of every arm with adapters, after the system's own, such as SAM's weights.
        weights: Word of `Arm.weights` -> where they lie, or a hub model's id.
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
        weights: Mapping[str, str] | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.system, self.root, self.out = system, root, out
        self.changes, self.prior, self.tell = tuple(changes), (*system.prior, *prior), tell
        self.weights = dict(weights or {})
        self._judge: Judge | None = None
        self._pairs: dict[str, Pairs] = {}
        self._absent: dict[str, str] = {}
        # What is read, damaged and looked at once serves all arms, as long as there is room.
        self._loaded = Kept[Loaded](lambda pair: pair.lq.nbytes + pair.gt.nbytes)
        self._looked = Kept[Guidance](lambda g: sum(guide.array.nbytes for guide in g.values()))
        self._digests: dict[Job, str] = {}

    def recipe(self, job: Job, *, measured: bool = False) -> Recipe:
        """The recipe of one run, or the one under which its weights are measured.

        Weights that it needs are named by the digest of their recipe, which is in their path.
        """
        # The arm's own words come last: a row that takes no step takes none at any budget.
        changes = [*self.changes, *job.arm.changes, f"seed={job.seed}"]
        if self.prior and load(self.system.base, changes).adapters:
            changes = [*self.changes, *self.prior, *job.arm.changes, f"seed={job.seed}"]
        named = {key: w for key, w in job.arm.weights.items() if w in self.weights}
        changes += [f"{key}={json.dumps(self.weights[word])}" for key, word in named.items()]
        for key, before in job.needs(self.system).items():
            changes.append(f'{key}="{self.weights_of(before)}"')
        steps = load(self.system.base, changes).build_schedule().steps * job.times
        if steps and job.arm.share != 1:
            steps = max(1, round(steps * job.arm.share))
        at_test = job.arm.at_test if measured else ()
        return load(self.system.base, [*changes, *at_test, f"schedule.steps={steps}"])

    def run_of(self, job: Job) -> Path:
        return self.out / "runs" / self.digest(job)[:16]

    def weights_of(self, job: Job) -> Path:
        return self.run_of(job) / "model.safetensors"

    def digest(self, job: Job) -> str:
        if job not in self._digests:
            self._digests[job] = self.recipe(job).digest
        return self._digests[job]

    def cell(self, job: Job, column: Column) -> Path:
        key = f"{self.digest(job)}\0{column.name}\0{column.title}\0{column.protocol}"
        key += "".join(f"\0{change}" for change in job.arm.at_test)
        if self.judge is not None:
            key += f"\0judged by {self.judge.card.digest}"
        return self.out / "cells" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"

    def absent(self, column: Column) -> str:
        """Why a column cannot be measured here, or ""."""
        if column.name not in self._absent:
            self._absent[column.name] = column.absent(self.root)
        return self._absent[column.name]

    @property
    def judge(self) -> Judge | None:
        """Who judges, if it is here. As soon as it is, cells without its word are measured anew."""
        system, job = self.system, self.system.judging
        if self._judge is None and job is not None and self.weights_of(job).is_file():
            self._judge = Judge(self.weights_of(job), job.arm.title)
        elif self._judge is None and job is None and system.judge and not absent(system.judge):
            self._judge = Judge(system.judge)
        return self._judge

    @property
    def unjudged(self) -> str:
        """Why nobody judges here, in words, or ""."""
        if not self.system.judge or self.judge is not None:
            return ""
        if self.system.judging is None:
            return absent(self.system.judge)
        return "it is trained before the rows that learn from a perceiver, and was not yet"

    def columns(self, job: Job) -> list[Column]:
        """What a run is measured on: every column; a further seed on that of the contrast alone."""
        if job == self.system.judging:
            return []  # it restores nothing
        named = self.system.contrast[2]
        return [c for c in self.system.columns if not job.seed or c.name == named]

    def ahead(self, job: Job) -> int:
        """Training runs that stand before a run's weights, its own and those that it needs."""
        if self.weights_of(job).is_file():
            return 0
        return 1 + sum(self.ahead(before) for before in {*job.needs(self.system).values()})

    def missing(self, job: Job) -> list[Column]:
        """The columns that a run has not been measured on, and could be."""
        columns = self.columns(job)
        return [c for c in columns if not self.absent(c) and not self.cell(job, c).is_file()]

    def done(self, job: Job) -> bool:
        if all(self.absent(column) for column in self.columns(job)):
            return self.weights_of(job).is_file()
        return not self.missing(job)

    def check(self, arms: Sequence[Arm]) -> None:
        """Say before the first step what else would be said after days.

        Raises:
            UsageError: There is nothing to train on, or one of all arms learns from the judge.
            MissingError, ModelError: What a prior, an encoder or an objective needs is not here.
        """
        if self.judge is not None:
            # All of them: of whoever judges, the table says that it never was a loss.
            for arm in self.system.arms:
                self.judge.refuse(self.recipe(Job(arm)))
        first = self.first(arms)
        # The arms of a table train on the same, or on parts of it.
        for arm in (*arms[:1], *first):
            training_files(self.recipe(Job(arm)), self.root)
        for arm in (*arms, *first):
            recipe = self.recipe(Job(arm))
            recipe.check_weights()
            for name, row in recipe.priors.items():
                if f"priors.{name}.model" not in arm.needs:  # that is made here first
                    _ = recipe.build_prior(name, row).identity

    def first(self, arms: Sequence[Arm]) -> list[Arm]:
        """What these arms need and what that needs, of the arms that are no rows; and the judge."""
        known = {arm.name: arm for arm in self.system.trained_first}
        found: dict[str, Arm] = {}
        queue = [name for arm in arms for name in arm.needs.values()]
        if any(PERCEIVER in arm.needs for arm in arms):
            queue.append(self.system.judge)
        while queue:
            name = queue.pop()
            if name in known and name not in found:
                found[name] = known[name]
                queue += known[name].needs.values()
        return [arm for arm in self.system.trained_first if arm.name in found]

    def do(self, job: Job) -> None:
        """Train one arm and measure it on every column; what is there already is kept."""
        stored = load_weights(self.train(job))
        recipe = self.recipe(job, measured=True)
        model = recipe.build_model().eval()
        model.load_state_dict(stored.tensors)
        for column in self.missing(job):
            report = self.measure(model, recipe, column, stored.digest)
            text = json.dumps({"job": _said(job), "report": report.to_json()})
            write_whole(self.cell(job, column), text.encode())

    def train(self, job: Job) -> Path:
        """The finished weights of a run, after those that it needs; what is there is kept."""
        weights = self.weights_of(job)
        if weights.is_file():
            return weights
        for before in job.needs(self.system).values():
            self.train(before)
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
            if controls & TOLD_THE_TRUTH:
                loaded = load(at)
                truth = loaded.truth or told_by_gt(loaded.gt, sources, _size(lq))
            return controlled(mine, sources, truth, donor, generator(0, at))

        elsewhere = {
            name: encoder
            for name, encoder in model.encoders.items()
            if isinstance(encoder, Controlled) and encoder.control == "shuffled"
        }

        def restore(lq: np.ndarray, guidance: Guidance | None = None) -> np.ndarray:
            tensors = as_tensors(guidance or Guidance()).map(
                lambda g: g.map(lambda a: a.to(device))
            )
            at = numbers.get(_key(lq)) if elsewhere else None
            if at is not None:
                other = torch.from_numpy(load((at + len(pairs.items) // 2) % len(pairs.items)).lq)
                for name, encoder in elsewhere.items():
                    tensors = tensors.with_guide(name, encoder.of(other.to(device), tensors))
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
        protocol, judge = column.protocol, self.judge
        if judge is not None:
            judge.refuse(recipe)
            protocol = replace(protocol, judge=str(judge))
        report = evaluate(
            restore,
            replace(pairs, items=items),
            protocol,
            model={"name": recipe.name, "sha256": digest},
            prior=told if sources else None,
            judge=judge,
        )
        lq = load(0).lq[..., :TIMED, :TIMED]
        guidance = told(load(0).lq).crop(0, 0, *_size(lq)) if sources else None
        cost = {
            "parameters": sum(p.numel() for p in model.parameters()),
            "ms_per_megapixel": _milliseconds(lambda: restore(lq, guidance)) / lq[0, 0].size * 1e6,
        }
        return replace(report, model={**report.model, **cost})


def fill(
    bench: Bench, *, budget: float, rows: Sequence[str] = (), clock: Callable[[], float] = time.time
) -> None:
    """Fill cells for `budget` minutes, one run at least where any is missing.

    A run is begun only when the longest so far would still fit.

    Raises:
        UsageError: One of several processes calls, which would all write the same cells.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UsageError(
            "reproduce fills its table in one process. Leave torchrun out; `relume train` takes it."
        )
    began, longest, trained = clock(), 0.0, 0
    for job in jobs(bench.system, rows):
        if job.times > bench.system.longest:
            break
        if bench.done(job):
            continue
        left = budget * 60 - (clock() - began)
        effort = job.times * max(1, bench.ahead(job))
        if trained and left < longest * effort:
            break
        if not trained:
            bench.check([bench.system.arm(name) for name in rows] or bench.system.arms)
        at = clock()
        bench.do(job)
        trained += 1
        longest = max(longest, (clock() - at) / effort)


def _milliseconds(run: Callable[[], Any], times: int = 3) -> float:
    """The shortest of so many calls: what else the machine does only adds."""
    taken: list[float] = []
    for _ in range(times):
        at = time.perf_counter()
        run()
        taken.append(time.perf_counter() - at)
    return 1000 * min(taken)


def _said(job: Job) -> dict[str, Any]:
    return {"arm": job.arm.name, "seed": job.seed, "times": job.times}


def _key(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _size(lq: np.ndarray) -> tuple[int, int]:
    return lq.shape[-2], lq.shape[-1]
