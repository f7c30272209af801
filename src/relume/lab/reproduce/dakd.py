"""DAKD (Suin et al., JSTSP 2021), a reconstruction: does it help to be told where it is damaged?

Only the abstract is known to us (doi 10.1109/JSTSP.2020.3043622), so no figure of the paper stands
here. A network that predicts masks is trained first, then used twice: as the frozen teacher of the
restorer's features, and as the prior whose masks guide the restorer. A table for each of its four
tasks; what the two uses and the two modules are worth is a grid, and controls say what else it may
have been.

Masks are cross-fitted: those that a restorer is told of a training photograph come from a mask
network that was trained without it. At test they come from one that was trained on all. It saw
twice as many photographs as either of the two, none of the test's; the mean of the two would cost a
second look at every picture at use, and be smoother than what the restorer was trained on. It is
the teacher as well: what it makes of a photograph it knows shapes features, and is told nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ..data import DAMAGE
from ..datasets import Loaded, Pair, Pairs, centres, degraded_pairs
from ..truth import residual, severities
from .system import Arm, Column, System

SEED = 11
CBSD68 = "bsds500/cbsd68_ids.txt"

# What the arms are made of

JOIN = '{kind="maps", reads="damage", at=["intro"]}'
CONTEXT = '{kind="context", reads="damage", at=["encoder.2", "middle"]}'


def _gate(gated: bool = True) -> str:
    at = '["encoder.0", "encoder.1", "decoder.1", "decoder.0"]'
    return f'{{kind="gate", reads="damage", gated={str(gated).lower()}, at={at}}}'


def _told(*adapters: str) -> str:
    return f"adapters=[{', '.join(adapters)}]"


def _taught(distill: str) -> tuple[str, ...]:
    # The mean over the four levels weighs 0.1.
    at = 'objective.at=["encoder.0", "encoder.1", "encoder.2", "middle"]'
    kind = 'objective.kind="distillation"'
    return (kind, at, f'objective.distill="{distill}"', "objective.weight=0.025")


PLAIN, ATTENTIVE = _taught("l2"), _taught("attentive")
MASK = _told(JOIN)
ALL = (_told(JOIN, _gate(), CONTEXT), *ATTENTIVE)

TEACHER = {"objective.teacher": "masks"}
MASKS = {
    "priors.damage.model": "masks",
    "priors.damage.folds.0.model": "masks-0",
    "priors.damage.folds.1.model": "masks-1",
}
BOTH = {**TEACHER, **MASKS}


def _controlled(control: str, title: str) -> Arm:
    """The whole of it, told something else."""
    return Arm(control, title, (*ALL, f'priors.damage.control="{control}"'), BOTH, control=True)


BASE = Arm("base", "encoder-decoder")
WHOLE = Arm("all", "mask + attentive + gate + context", ALL, BOTH)
CONSTANT = _controlled("constant", "all, the mask's mean everywhere")
ORACLE = _controlled("oracle", "all, the physical severity")

GRID = (
    BASE,
    Arm("plain", "plain distillation", PLAIN, TEACHER),
    Arm("attentive", "attentive distillation", ATTENTIVE, TEACHER),
    Arm("mask", "mask", (MASK,), MASKS),
    Arm("mask-plain", "mask + plain", (MASK, *PLAIN), BOTH),
    Arm("mask-attentive", "mask + attentive", (MASK, *ATTENTIVE), BOTH),
    Arm("gate", "mask + attentive + gate", (_told(JOIN, _gate()), *ATTENTIVE), BOTH),
    Arm("context", "mask + attentive + context", (_told(JOIN, CONTEXT), *ATTENTIVE), BOTH),
    WHOLE,
    CONSTANT,
    _controlled("shuffled", "all, another picture's mask"),
    Arm(
        "ungated",
        "all, the gate's block without its product",
        (_told(JOIN, _gate(False), CONTEXT), *ATTENTIVE),
        BOTH,
        control=True,
    ),
    ORACLE,
    _controlled("oracle_residual", "all, told the difference to the good picture, which leaks it"),
)
FEW = (BASE, WHOLE, CONSTANT, ORACLE)


def _mask_networks(kind: str) -> tuple[Arm, ...]:
    """Of the restorer's own shape, so that levels pair: trained on all, and without either fold."""
    masks = (
        'backbone.kind="masknet"',
        "backbone.fold=1",
        f'backbone.emits=["{kind}"]',
        'objective.kind="masks"',
    )
    folds = (
        Arm(f"masks-{i}", f"masks without fold {i}", (*masks, f'data.without="{i}/2"'))
        for i in range(2)
    )
    return (Arm("masks", "masks", masks), *folds)


# What they are measured on


def _damaged(
    folder: str, spec: str, kind: str, side: int, ids: str = ""
) -> Callable[[Path], Pairs]:
    """Centre crops under a SPEC, with what oracles are told: whole photographs would take hours."""

    def pairs(root: Path) -> Pairs:
        names = (root / ids).read_text(encoding="utf-8").split() if ids else None
        found = centres(degraded_pairs(root / folder, spec, seed=SEED, names=names), side)
        return replace(found, items=tuple(_with_truth(pair, (kind,)) for pair in found.items))

    return pairs


def _with_truth(pair: Pair, kinds: Sequence[str]) -> Pair:
    def load() -> Loaded:
        loaded = pair.load()
        size = (loaded.lq.shape[-2], loaded.lq.shape[-1])
        truth = loaded.truth.with_guide(DAMAGE, severities(loaded.truth, size, kinds))
        shown = residual(loaded.lq[0], loaded.gt[0], kinds)
        return replace(loaded, truth=truth.with_guide(f"{DAMAGE}.residual", shown))

    return replace(pair, load=load)


def _absent(root: Path) -> str:
    return "" if (root / CBSD68).is_file() else f"no CBSD68 below {root}: expected {CBSD68}."


NOTES = (
    "A reconstruction: of the paper only the abstract is known, and no figure.",
    "A row that is told masks runs the mask network too, of about the size and time of the first "
    "row. All rows are told by the same three, trained on the first seed.",
    "Attentive: weighted by where the teacher's features are large; by no channel, so that it is "
    "the same with the mask and without.",
    "Each task has one kind of damage: another picture's mask is one of the same kind.",
    "Test pictures are centre crops, of 256 pixels, of CBSD68 128.",
)


def _task(
    kind: str, words: str, arms: tuple[Arm, ...], spec: str, shifted: str, *notes: str
) -> System:
    """The table of one task.

    Args:
        kind: Of damage, as maps are called.
        words: The same for a reader.
        spec: SPEC of the tests, within what the recipe trains on.
        shifted: Another, which is not.
    """
    val, shift, other = (
        _damaged("photos/val", spec, kind, 256),
        _damaged("photos/val", shifted, kind, 256),
        _damaged("bsds500/images/val", spec, kind, 128, CBSD68),
    )
    return System(
        name=f"dakd-{kind}",
        title=f"DAKD on {words} (reconstruction): PSNR [95 %] / SSIM / collapsed pictures",
        base=f"dakd-{kind}-toy",
        arms=arms,
        columns=(
            Column("in", "in domain", val),
            Column("shifted", shifted, shift, out_of_domain=True),
            Column("cbsd68", "CBSD68", other, out_of_domain=True, absent=_absent),
        ),
        contrast=("all", "constant", "in"),
        notes=(*NOTES, *notes),
        trained_first=_mask_networks(kind),
    )


DAKD_RAIN = _task(
    "rain",
    "rain streaks",
    GRID,
    "rain:density=0.002..0.006",
    "rain:density=0.01..0.02,length=31..45,angle=45..60",
)
DAKD_RAINDROP = _task(
    "raindrop",
    "raindrops",
    GRID,
    "raindrop:count=40..80",
    "raindrop:count=40..80,radius=40..60,blur=8..12",
)
DAKD_HAZE = _task(
    "haze",
    "haze",
    FEW,
    "haze:beta=0.15..0.6",
    "haze:beta=0.8..1.2",
    "Haze of `haze:beta=0.15..0.6` is nowhere worse than a half: it has no inside.",
)
DAKD_BLUR = _task(
    "blur",
    "motion blur",
    FEW,
    "regionblur:length=5..21",
    "regionblur:length=21..31,curve=0.3..0.5",
)
