"""Pages to look at: one self-contained HTML file, or one PNG strip.

A page holds everything it shows (pictures as data, its few lines of script and style) and asks for
nothing from outside. Every name that comes from a file is escaped.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from .errors import UsageError
from .guidance import area_resize
from .image import Picture, encode, enlarge

SHOWN_SIDE = 1280
"""Longest side of a picture on the page; crops are cut from the full size."""

CROP_SIDE = 128
PSNR_CAP = 60.0
PROTOCOL = "PSNR over RGB, 8 bit, whole picture, at most 60 dB"


@dataclass(frozen=True, eq=False)
class Case:
    """Pictures of one scene, shown on one slider.

    Attributes:
        title: Heading.
        pictures: Name and (1, 3, H, W) float32 RGB in [0, 1] of each, two or more, of one size.
        reference: Index of the picture that the others are measured against.
        note: What to look at.
        start: Indices of the two pictures the slider shows first.
    """

    title: str
    pictures: Sequence[tuple[str, np.ndarray]]
    reference: int = 0
    note: str = ""
    start: tuple[int, int] = (0, 1)


def compare(pictures: Sequence[tuple[str, Picture]]) -> Case:
    """A Case of two or more pictures; the first is what the others are measured against.

    Pictures of a whole fraction of the largest size are enlarged (antialiased bicubic) to it.

    Raises:
        UsageError: Fewer than two, or sizes that are no multiples of each other.
    """
    if len(pictures) < 2:
        raise UsageError("compare needs at least two pictures.")
    arrays = [(name, picture.rgb()) for name, picture in pictures]
    height = max(rgb.shape[2] for _, rgb in arrays)
    width = max(rgb.shape[3] for _, rgb in arrays)
    same = []
    for name, rgb in arrays:
        h, w = rgb.shape[2:]
        if height % h or width % w or height // h != width // w:
            raise UsageError(
                f"{name} is {w}x{h}, but the largest picture is {width}x{height}: pictures to "
                "compare show the same scene at one size, or at a whole fraction of it."
            )
        same.append((name, rgb if (h, w) == (height, width) else enlarge(rgb, height // h)))
    return Case(" · ".join(name for name, _ in pictures), same)


def psnr(out: np.ndarray, gt: np.ndarray) -> float:
    """In dB, by PROTOCOL; both (1, 3, H, W) in [0, 1], rounded to 8 bit as a viewer sees them."""
    error = np.mean((_levels(out) - _levels(gt)) ** 2)
    return PSNR_CAP if error == 0 else min(PSNR_CAP, 10 * math.log10(255**2 / error))


def worst(a: np.ndarray, b: np.ndarray, *, side: int = CROP_SIDE, count: int = 3) -> list[tuple]:
    """(top, left) of the squares that differ most, the worst first; they do not overlap.

    Args:
        a: (1, 3, H, W); b the same.
        side: Of a square in pixels, shortened to the picture's own edges.
        count: How many at most; squares without any difference are not listed.
    """
    error = ((a - b) ** 2).mean((0, 1))
    height, width = error.shape
    h, w = min(side, height), min(side, width)
    total = np.zeros((height + 1, width + 1))
    total[1:, 1:] = error.cumsum(0).cumsum(1)
    sums = total[h:, w:] - total[:-h, w:] - total[h:, :-w] + total[:-h, :-w]
    found: list[tuple] = []
    while len(found) < count:
        top, left = (int(i) for i in np.unravel_index(np.argmax(sums), sums.shape))
        if sums[top, left] <= 1e-9 * h * w:
            break
        found.append((top, left))
        sums[max(0, top - h + 1) : top + h, max(0, left - w + 1) : left + w] = -1
    return found


def heat(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, float]:
    """Where two pictures differ: (1, 3, H, W) from black over red and yellow to white, and the
    difference on [0, 1] that white stands for (the 99.5th percentile, at least 8 levels of 255)."""
    difference = np.abs(a - b).max(1, keepdims=True)
    top = max(float(np.quantile(difference, 0.995)), 8 / 255)
    x = np.clip(difference / top, 0, 1) * 3
    return np.concatenate([np.clip(x - i, 0, 1) for i in range(3)], 1).astype(np.float32), top


def html(cases: Sequence[Case], *, title: str, intro: str = "", outro: str = "") -> str:
    """The page. `intro` and `outro` are plain text; blank lines part paragraphs."""
    body = "\n".join(_case(number, case) for number, case in enumerate(cases))
    return document(body, title=title, intro=intro, outro=outro, protocol=PROTOCOL)


def document(body: str, *, title: str, intro: str = "", outro: str = "", protocol: str = "") -> str:
    """A page around a body of HTML; what else it is given is plain text.

    Args:
        protocol: How its figures were measured, for the last line.
    """
    before, after = frame(title=title, intro=intro, outro=outro, protocol=protocol)
    return f"{before}{body}{after}"


def frame(
    *, title: str, intro: str = "", outro: str = "", protocol: str = "", style: str = ""
) -> tuple[str, str]:
    """What stands before a body of HTML and behind it, for pages that are written piece by piece.

    Args:
        style: CSS of this page alone.
    """
    said = f"{escape(protocol)}. " if protocol else ""
    before, after = _PAGE.split("{body}")
    return (
        before.format(title=escape(title), intro=_text(intro), style=style),
        after.format(outro=_text(outro), protocol=said),
    )


def coded(text: str) -> bytes:
    """A page, or a piece of one, in UTF-8; what is none in a file's name is shown as \\udcNN."""
    return text.encode("utf-8", "backslashreplace")


def figure(rgb: np.ndarray, caption: str, *, side: int = 480) -> str:
    """A picture (1, 3, H, W) in [0, 1], no side longer than `side`, over its caption (text)."""
    return (
        f'<figure><img src="{_data(fit(rgb, side))}" alt="">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def strip(case: Case, *, side: int = 480) -> np.ndarray:
    """The pictures of a case side by side over the crops where they differ most, (1, 3, H, W)."""
    gap = 6
    arrays = [rgb for _, rgb in case.pictures]
    small = [fit(rgb, side) for rgb in arrays]
    rows = [_beside(small, gap)]
    other = next(i for i in range(len(arrays)) if i != case.reference)
    for top, left in worst(arrays[case.reference], arrays[other], count=2):
        crops = [a[..., top : top + CROP_SIDE, left : left + CROP_SIDE] for a in arrays]
        ratios = zip(small[0].shape[2:], crops[0].shape[2:], strict=True)
        grow = max(1, min(wide // own for wide, own in ratios))
        rows.append(_beside([c.repeat(grow, 2).repeat(grow, 3) for c in crops], gap))
    width = max(row.shape[3] for row in rows)
    height = sum(row.shape[2] for row in rows) + gap * (len(rows) - 1)
    sheet = np.ones((1, 3, height, width), np.float32)
    top = 0
    for row in rows:
        sheet[..., top : top + row.shape[2], : row.shape[3]] = row
        top += row.shape[2] + gap
    return sheet


def _case(number: int, case: Case) -> str:
    names = [name for name, _ in case.pictures]
    arrays = [rgb for _, rgb in case.pictures]
    reference = arrays[case.reference]
    shown = [_data(fit(rgb, SHOWN_SIDE)) for rgb in arrays]
    height, width = fit(reference, SHOWN_SIDE).shape[2:]

    def menu(side: str, chosen: int) -> str:
        options = "".join(
            f'<option value="{i}"{" selected" if i == chosen else ""}>{escape(name)}</option>'
            for i, name in enumerate(names)
        )
        return f'<label>{side} <select class="{side}">{options}</select></label>'

    images = "".join(
        f'<img class="p{i}" src="{data}" alt="{escape(names[i], quote=True)}">'
        for i, data in enumerate(shown)
    )
    figures, maps, crops = [], [], []
    for i, (name, rgb) in enumerate(case.pictures):
        if i == case.reference:
            continue
        figures.append(f"<li>{escape(name)}: {psnr(rgb, reference):.2f} dB</li>")
        picture, top = heat(reference, rgb)
        maps.append(figure(picture, f"{name}, difference; white = {round(top * 255)} of 255"))
    other = next(i for i in range(len(arrays)) if i != case.reference)
    changed = case.start[1] if case.start[1] != case.reference else other
    for top, left in worst(reference, arrays[changed]):
        cells = "".join(
            f'<figure><img class="crop" src="'
            f'{_data(rgb[..., top : top + CROP_SIDE, left : left + CROP_SIDE])}" alt="">'
            f"<figcaption>{escape(name)}</figcaption></figure>"
            for name, rgb in case.pictures
        )
        crops.append(f'<p>row {top}, column {left}</p><div class="row">{cells}</div>')
    told = f"<p>{escape(case.note)}</p>" if case.note else ""
    worst_places = (
        f"<details open><summary>Where {escape(names[changed])} differs most from "
        f"{escape(names[case.reference])}</summary>{''.join(crops)}</details>"
        if crops
        else f"<p>{escape(names[changed])} equals {escape(names[case.reference])}.</p>"
    )
    return (
        f'<section class="case" id="case{number}"><h2>{escape(case.title)}</h2>{told}'
        f"<p>{menu('left', case.start[0])} {menu('right', case.start[1])}</p>"
        f'<div class="stage" style="aspect-ratio:{width}/{height};max-width:{width}px">{images}'
        '<div class="bar"></div>'
        '<input type="range" min="0" max="100" step="0.1" value="50" aria-label="slider"></div>'
        f"<p>Against {escape(names[case.reference])}:</p><ul>{''.join(figures)}</ul>"
        f"{worst_places}"
        f'<details><summary>Differences</summary><div class="row">{"".join(maps)}</div></details>'
        "</section>"
    )


def _levels(rgb: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(rgb, 0, 1).astype(np.float64) * 255)


def fit(rgb: np.ndarray, side: int) -> np.ndarray:
    """A picture (1, 3, H, W), made smaller by area means where a side is longer than `side`."""
    height, width = rgb.shape[2:]
    ratio = side / max(height, width)
    if ratio >= 1:
        return rgb
    return area_resize(rgb, max(1, round(height * ratio)), max(1, round(width * ratio)))


def _beside(arrays: Sequence[np.ndarray], gap: int) -> np.ndarray:
    between = np.ones((*arrays[0].shape[:3], gap), np.float32)
    parts = [part for array in arrays for part in (array, between)]
    return np.concatenate(parts[:-1], 3)


def _data(rgb: np.ndarray) -> str:
    """A data URI: PNG for small pictures, so that crops are exact; JPEG 92 for large ones."""
    small = rgb.shape[2] * rgb.shape[3] <= CROP_SIDE**2
    kind = "png" if small else "jpeg"
    picture = Picture.from_rgb(rgb.astype(np.float32, copy=False), kind)
    coded = encode(picture, kind, None if small else 92)
    return f"data:image/{kind};base64,{base64.b64encode(coded).decode()}"


def _text(plain: str) -> str:
    return "".join(f"<p>{escape(part)}</p>" for part in plain.split("\n\n") if part.strip())


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1320px;
  padding: 0 1rem; background: #1b1b1b; color: #ddd }}
h1, h2 {{ font-weight: 600 }} section {{ margin: 3rem 0 }}
.stage {{ position: relative; overflow: hidden; background: #000 }}
.stage img {{ position: absolute; inset: 0; width: 100%; height: 100%; visibility: hidden }}
.stage input {{ position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0;
  cursor: ew-resize }}
.stage .bar {{ position: absolute; top: 0; bottom: 0; width: 2px; margin-left: -1px;
  background: #fff; pointer-events: none }}
.stage:focus-within {{ outline: 2px solid #6af }}
.row {{ display: flex; flex-wrap: wrap; gap: 8px }} figure {{ margin: 0 }}
figcaption {{ font-size: 13px; color: #aaa }}
.crop {{ width: 256px; image-rendering: pixelated }}
select {{ font: inherit }} summary {{ cursor: pointer }}
{style}</style></head><body>
<h1>{title}</h1>{intro}
{body}
{outro}<p><small>{protocol}Made by relume; this page needs no network.</small></p>
<script>
for (const box of document.querySelectorAll(".case")) {{
  const left = box.querySelector(".left"), right = box.querySelector(".right");
  const slider = box.querySelector("input"), bar = box.querySelector(".bar");
  const images = [...box.querySelectorAll(".stage img")];
  const draw = () => {{
    const at = Number(slider.value);
    images.forEach((image, i) => {{
      const l = i == left.value, r = i == right.value;
      image.style.visibility = l || r ? "visible" : "hidden";
      image.style.zIndex = l ? 1 : 0;
      image.style.clipPath = l && !r ? `inset(0 ${{100 - at}}% 0 0)` : "none";
    }});
    bar.style.left = at + "%";
  }};
  for (const control of [left, right, slider]) control.addEventListener("input", draw);
  bar.style.zIndex = slider.style.zIndex = 2;
  draw();
}}
</script></body></html>
"""
