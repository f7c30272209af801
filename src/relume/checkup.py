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
from .restoration import MAP_ENDINGS, OVERLAY
from .survey import Seen, Task

PICTURED = 200
"""Pictures that are shown on a page; of ten thousand the others are a line each."""

SHOWN_SIDE = 560
PLAIN = (221, 221, 221)

INTRO = """What a mask network sees in each picture. Severity and confidence lie between 0 and 1; \
severity 0 is no damage, and 1 is as heavy as the network knows. Confidence says how often as much \
evidence was damage indeed, on photographs that were damaged on purpose."""


def task(prior: DamagePrior, *, maps: bool, show: Callable[[str], None] | None = None) -> Task:
    """What `survey.run` does with every picture.

    Args:
        prior: The mask network.
        maps: Draw NAME.KIND.png, 16-bit gray, for each kind that was found, and NAME.overlay.png.
        show: Takes each picture's part of the page.
    """
    shown = 0

    def look(source: Path, picture: Picture) -> Seen:
        nonlocal shown
        found = diagnose(picture, prior)
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


def sentence(found: Sequence[Finding]) -> str:
    """Findings in one line."""
    return "; ".join(map(str, found)) or "nothing wrong found"


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
    said = escape(sentence(found.damage))
    if small is None:
        return f"<p><b>{escape(str(source))}</b>: {said}</p>"
    pictures = [(small, "as it came")]
    pictures += [(overlay(small, found, [one.kind]), str(one)) for one in found.damage]
    figures = [figure(rgb, words, side=SHOWN_SIDE) for rgb, words in pictures]
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
