"""Words and lines on pictures: captions of strips, and the curve of a training run."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from .libvips import pyvips

INKS = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189),
    (140, 86, 75), (227, 119, 194), (127, 127, 127), (188, 189, 34), (23, 190, 207),
)  # fmt: skip


def caption(text: str, points: int = 11) -> np.ndarray:
    """The words as coverage, (h, w) float32 in [0, 1]; set in the system's sans-serif."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    image = pyvips.Image.text(escaped, font=f"sans {points}", dpi=96)
    return image.numpy().reshape(image.height, image.width).astype(np.float32) / 255


def line_chart(
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    width: int = 900,
    height: int = 520,
) -> np.ndarray:
    """A line per series over a shared pair of axes.

    Args:
        series: Name -> points (x, y); names stand beside the last point.
        title: Set above.

    Returns:
        (1, 3, height, width) float32 in [0, 1].
    """
    left, right, top, bottom = 60, 190, 36, 36
    points = [p for line in series.values() for p in line] or [(0.0, 0.0)]
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    x0, x1, y0, y1 = min(xs), max(max(xs), min(xs) + 1e-9), min(ys), max(max(ys), min(ys) + 1e-9)
    plot = (width - left - right, height - top - bottom)

    def place(x: float, y: float) -> tuple[int, int]:
        across, up = (x - x0) / (x1 - x0), (y - y0) / (y1 - y0)
        return left + round(across * plot[0]), top + round((1 - up) * plot[1])

    canvas = pyvips.Image.black(width, height, bands=3).new_from_image([255, 255, 255])
    canvas = (
        canvas.cast("uchar")
        .copy(interpretation="srgb")
        .draw_rect([200, 200, 200], left, top, *plot)
    )
    for index, line in enumerate(series.values()):
        for a, b in itertools.pairwise(line):
            canvas = canvas.draw_line(list(INKS[index % len(INKS)]), *place(*a), *place(*b))
    rgb = canvas.numpy().astype(np.float32) / 255

    def write(text: str, x: int, y: int, ink: Sequence[float] = (0.2, 0.2, 0.2)) -> None:
        cover = caption(text)[: height - y, : max(0, width - x), None]
        part = rgb[y : y + cover.shape[0], x : x + cover.shape[1]]
        part[:] = part * (1 - cover) + np.asarray(ink, np.float32) * cover

    write(title, left, 8)
    write(f"{y1:.4g}", 6, top - 6)
    write(f"{y0:.4g}", 6, top + plot[1] - 10)
    write(f"{x0:g}", left, height - 26)
    write(f"{x1:g}", left + plot[0] - 40, height - 26)
    ends = sorted((place(*line[-1])[1], name) for name, line in series.items() if line)
    lowest = top - 20
    for y, name in ends:
        lowest = max(lowest + 18, y - 8)  # neighbours must not cover each other
        ink = INKS[list(series).index(name) % len(INKS)]
        write(name, left + plot[0] + 8, min(lowest, height - 20), [v / 255 for v in ink])
    return np.ascontiguousarray(rgb.transpose(2, 0, 1)[None])
