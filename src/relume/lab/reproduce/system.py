"""A paper as it is reproduced: arms that are trained alike, columns that they are measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import UsageError, nearest
from ..datasets import Pairs
from ..metrics import Protocol

SEEDS = 3
STEPS_GROW = 4
PERCEIVER = "objective.perceiver"
"""Key of a recipe: the quality perceiver whose word is a loss."""


@dataclass(frozen=True)
class Arm:
    """One row: what is added to the system's base recipe.

    Args:
        name: Its word on the command line.
        title: As the paper calls it, or what kind of control it is.
        changes: Overrides of the base recipe, `a.b=v`.
        needs: Key of the recipe -> the arm whose finished weights stand there; it is trained first,
            on the first seed and as long. `priors.regions.after`: its network runs before a prior
            looks; `objective.teacher`: it is learned from; `priors.damage.model`: it is the prior.
        paper: Column of the paper -> its cell, where we have read it.
        control: True where the row exists to explain away another.
        at_test: Overrides when it is measured: the same weights, told otherwise.
        share: Of the steps of the base recipe that it is trained for: what others need first may be
            done sooner.
        weights: Key of the recipe -> the word by which a person says where other people's weights
            lie that stand there.
    """

    name: str
    title: str
    changes: tuple[str, ...] = ()
    needs: Mapping[str, str] = field(default_factory=dict, hash=False)
    paper: Mapping[str, str] = field(default_factory=dict, hash=False)
    control: bool = False
    at_test: tuple[str, ...] = ()
    share: float = 1.0
    weights: Mapping[str, str] = field(default_factory=dict, hash=False)


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
        trained_first: Arms that others need and that are no rows: they restore no picture.
        prior: Overrides of every arm with adapters: what it looks at.
        longest: Times the base's steps that are trained at most.
        seeds: Training runs of both arms of the contrast; below SEEDS it has no verdict.
        averages: Whether the columns are parts of one test, whose averages stand beside them.
        judge: Who says how good the restored pictures look and never was a loss: a quality model,
            by its shipped name or its file, or one of `trained_first`. That one is trained, on the
            second seed, before the rows that learn from a perceiver. "" for nobody.
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
    trained_first: tuple[Arm, ...] = ()
    seeds: int = SEEDS
    averages: bool = False
    judge: str = ""

    @property
    def judging(self) -> Job | None:
        """The run that judges, where it is one of these."""
        known = {arm.name: arm for arm in self.trained_first}
        return Job(known[self.judge], 1) if self.judge in known else None

    @property
    def runs(self) -> int:
        """Training runs of the first table, with all seeds of its contrast."""
        return len(self.arms) + len(self.trained_first) + 2 * (self.seeds - 1)

    @property
    def weights(self) -> tuple[str, ...]:
        """The words of other people's weights that its arms may be told of."""
        arms = (*self.trained_first, *self.arms)
        return tuple(dict.fromkeys(word for arm in arms for word in arm.weights.values()))

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

    def needs(self, system: System) -> dict[str, Job]:
        """Key of the recipe -> the run whose weights stand there."""
        known = {arm.name: arm for arm in (*system.arms, *system.trained_first)}
        return {key: Job(known[name], 0, self.times) for key, name in self.arm.needs.items()}


def jobs(system: System, rows: Sequence[str] = ()) -> Iterator[Job]:
    """What to train, the most wanted first; without end."""
    arms = [system.arm(name) for name in rows] if rows else list(system.arms)
    pair = [arm for arm in arms if arm.name in system.contrast[:2]]
    judge = system.judging
    if judge is not None and any(PERCEIVER in arm.needs for arm in arms):
        yield judge
    times = 1
    while True:
        yield from (Job(arm, 0, times) for arm in arms)
        for seed in range(1, system.seeds):
            yield from (Job(arm, seed, times) for arm in pair)
        times *= STEPS_GROW


def located(systems: Sequence[System], said: Sequence[str]) -> dict[str, str]:
    """Word -> where weights lie, of `WORD=PLACE` as a person says it.

    A place that is there is named in full: whichever way it is typed, the cells are the same.

    Raises:
        UsageError: It is written otherwise, or is a word of none of the systems.
    """
    words = [*dict.fromkeys(word for system in systems for word in system.weights)]
    found: dict[str, str] = {}
    for one in said:
        word, _, place = one.partition("=")
        if word not in words or not place:
            raise UsageError(
                f"--weights takes WORD=PLACE, of the words {', '.join(words) or '(none here)'}; "
                f"got {one!r}.{nearest(word, words)}"
            )
        path = Path(place).expanduser()
        found[word] = str(path.resolve()) if path.exists() else place
    return found
