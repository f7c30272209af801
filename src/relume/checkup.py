"""What is wrong with each picture of a job: findings, maps that `restore --map` reads, one page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from .diagnosis import INKS, Diagnosis, Finding, diagnose, overlay
from .image import Picture, encode
from .image.drawing import caption
from .page import document, figure, fit
from .priors.damage import DamagePrior
from .priors.quality import QualityPrior, said
from .restoration import MAP_ENDINGS, OVERLAY
from .survey import Seen, Task

PICTURED = 200
"""Pictures that are shown on a page; of ten thousand the others are a line each."""

SHOWN_SIDE = 560
PLAIN = (221, 221, 221)

INTRO = """What a mask network sees in each picture. Severity and confidence lie between 0 and 1; \
severity 0 is no damage, and 1 is as heavy as the network knows. Confidence says how often as much \
evidence was damage indeed, on photographs that were damaged on purpose. Quality is low (damaged), \
medium (restored, not quite) or high; the margin says by how much that is more probable than the \
next. Difficulty 0 is a picture in which the default restorer leaves nothing wrong, 1 one in which \
nothing can be hoped for; a tenth is 3 dB."""


def task(
    prior: DamagePrior,
    *,
    maps: bool,
    show: Callable[[str], None] | None = None,
    quality: QualityPrior | None = None,
) -> Task:
    """What `survey.run` does with every picture.

    Args:
        prior: The mask network.
        maps: Draw NAME.KIND.png, 16-bit gray, for each kind that was found, and NAME.overlay.png.
        show: Takes each picture's part of the page.
        quality: The quality model; None asks none.
    """
    shown = 0

    def look(source: Path, picture: Picture) -> Seen:
        nonlocal shown
        found = diagnose(picture, prior, quality)
        kinds = [one.kind for one in found.damage]
        drawn: dict[str, bytes] = {}
        rgb = picture.rgb() if maps or show else None
        if maps and rgb is not None:
            for kind in kinds:
                drawn[f".{kind}.png"] = _gray16(found.map_of(kind))
            drawn[OVERLAY] = encode(Picture.from_rgb(_with_legend(rgb, found)), "png")
        if show and rgb is not None:
            show(_section(source, fit(rgb, SHOWN_SIDE) if shown < PICTURED else None, found))
            shown += 1
        announced, prior.engine.notes = prior.engine.notes, []
        return Seen(found.to_json(), drawn, announced)

    fields = ("clean", "tier", "tier_margin", "difficulty", "damage")
    return Task(look, "diagnosed", dict.fromkeys(fields), lambda name: name.endswith(MAP_ENDINGS))


def sentence(
    found: Sequence[Finding],
    tier: str | None = None,
    tier_margin: float | None = None,
    difficulty: float | None = None,
) -> str:
    """Findings in one line, and behind them how good the picture is where that was judged."""
    words = "; ".join(map(str, found)) or "nothing wrong found"
    if tier is None or tier_margin is None or difficulty is None:
        return words
    return f"{words}; {said(tier, tier_margin, difficulty if found else None)}"


def page(sections: Sequence[str], refused: Sequence[str] = ()) -> str:
    """The page of all pictures.

    Args:
        sections: As `task` shows them.
        refused: A line for each picture that could not be looked at.
    """
    lines = "".join(f"<li>{escape(line)}</li>" for line in refused)
    body = "".join(sections) + (f"<h2>Refused</h2><ul>{lines}</ul>" if lines else "")
    outro = ""
    if len(sections) > PICTURED:
        outro = f"The first {PICTURED} pictures are shown, the others are lines."
    return document(body, title="relume diagnose", intro=INTRO, outro=outro)


def _section(source: Path, small: np.ndarray | None, found: Diagnosis) -> str:
    words = escape(sentence(found.damage, found.tier, found.tier_margin, found.difficulty))
    if small is None:
        return f"<p><b>{escape(str(source))}</b>: {words}</p>"
    pictures = [(small, "as it came")]
    pictures += [(overlay(small, found, [one.kind]), str(one)) for one in found.damage]
    figures = [figure(rgb, under, side=SHOWN_SIDE) for rgb, under in pictures]
    return (
        f"<section><h2>{escape(str(source))}</h2><p>{said}</p>"
        f'<div class="row">{"".join(figures)}</div></section>'
    )


def _gray16(severity: np.ndarray) -> bytes:
    values = np.rint(severity * 65535).astype(np.uint16)
    return encode(Picture(values[..., None], bits=16), "png")


def _with_legend(rgb: np.ndarray, found: Diagnosis) -> np.ndarray:
    """The overlay of all kinds that were found, over a line of words for each."""
    kinds = [one.kind for one in found.damage]
    drawn = overlay(rgb, found, kinds)
    width = drawn.shape[3]
    points = max(9, round(width / 90))
    lines = [
        _line(words, INKS.get(one.kind, PLAIN), width, points)
        for one in found.damage
        for words in _broken(str(one), width, points)
    ]
    lines = lines or [_line("nothing wrong found", PLAIN, width, points)]
    return np.concatenate([drawn, *lines], 2)


def _broken(words: str, width: int, points: int) -> list[str]:
    """In two where the picture is too narrow for one line."""
    if caption(words, points).shape[1] <= width - points:
        return [words]
    finding, where = words.split(" (", 1)
    return [finding, f"({where}"]


def _line(words: str, ink: tuple[int, int, int], width: int, points: int) -> np.ndarray:
    """Words in a colour on black, (1, 3, h, width); what does not fit is cut off."""
    said = caption(words, points)[:, : max(1, width - points)]
    band = np.zeros((said.shape[0] + points, width), np.float32)
    band[points // 2 : points // 2 + said.shape[0], points // 2 :][:, : said.shape[1]] = said
    return (np.array(ink, np.float32)[:, None, None] / 255 * band)[None]
