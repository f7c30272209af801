"""Which pile a picture belongs on: nothing to do, easy, hard, or for a person to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .diagnosis import Diagnosis, Finding

PILES = ("ask", "hard", "easy", "clean")
"""The worst first."""

TOLD = 0.5
"""Confidence from which a kind is told, where the mask network's card does not say."""

NEAR = 0.2
"""A finding is a close call in the lowest fifth of the way from the confidence at which it is told
to certainty: 0.5 to 0.6, 0.8 to 0.84. Undamaged photographs that are told anything lie there most,
and a wrong word on them costs more than a look."""

MENDED = frozenset({"noise", "rain", "haze", "lowlight"})
"""Kinds of which the default restorer takes away five sixths of the squared error and more: 8 dB
and above on its own SPECs, by its card. Real haze and heavy rain, of which it mends little, look
the same from here."""

LESSENED = frozenset({"blur", "compression", "raindrop"})
"""Kinds of which it leaves more than half: +0.5, +0.6 and +2.6 dB. What stands in neither set
(scratch, dust, fade, and kinds of other networks) it was never trained for and leaves whole."""

SLIGHT = 0.1
"""Severity times area of what is only lessened, below which it does not make a picture hard: less
than half of it at the action level of blur."""


def pile(found: Diagnosis, told: Mapping[str, float] | None = None) -> tuple[str, str]:
    """The pile of one picture, and why, in a few words.

    `ask` comes first: the tier contradicts the findings, or the worst finding is a close call. Of
    what is then left a picture without findings is `clean`. One with a kind that the default
    restorer was never trained for is `hard`. Otherwise severity times area of the findings decides:
    a picture is `hard` where that of what the default only lessens is no less than that of what it
    mends, and not SLIGHT. Where no tier is known, the damage alone decides.

    Difficulty does not: it foresees what error is left, not how much of it is taken away, and held
    against that it sorted worse than the damage (docs/log.md). A tier `medium` contradicts nothing:
    many a photograph straight from a camera is soft.

    Args:
        found: A diagnosis.
        told: Kind -> the confidence from which it is told (`Sureness.told` of the network's card).
    """
    if found.clean:
        if found.tier == "low":
            return "ask", "quality low, yet nothing wrong found"
        return "clean", "nothing wrong found"
    worst = found.damage[0]
    if found.tier == "high":
        return "ask", f"quality high, yet {worst.kind} found"
    least = (told or {}).get(worst.kind, TOLD)
    if worst.confidence is not None and worst.confidence < least + NEAR * (1 - least):
        return "ask", f"{worst.kind}: a close call"
    foreign = [one for one in found.damage if one.kind not in MENDED | LESSENED]
    if foreign:
        return "hard", f"{_kinds(foreign)}: not what the default model was trained for"
    lessened = [one for one in found.damage if one.kind in LESSENED]
    rest = [one for one in found.damage if one.kind not in LESSENED]
    if burden(lessened) >= max(SLIGHT, burden(rest)):
        return "hard", f"{_kinds(lessened)}: only lessened by the default model"
    return (
        "easy",
        f"{_kinds(rest)}: what the default model mends" if rest else f"{worst.kind}: slight",
    )


def _kinds(damage: Sequence[Finding]) -> str:
    return ", ".join(one.kind for one in damage)


def burden(damage: Sequence[Finding]) -> float:
    """Severity times area, added up over the findings, at most 1."""
    return min(1.0, sum(one.severity * one.area for one in damage))


def worst_first(row: Mapping[str, Any]) -> tuple[int, float, str]:
    """The key that sorts rows, the worst first.

    The pile, in the order of PILES; within it what could not be looked at, then the difficulty,
    or where nobody judged it the burden, from the highest down; then the file's name.

    Args:
        row: A row of `sorting`.
    """
    weight = 2.0  # what could not be looked at
    if row["damage"] is not None:
        weight = row["difficulty"]
        if weight is None:
            weight = burden([Finding(**one) for one in row["damage"]])
    return PILES.index(row["pile"]), -weight, row["input"]
