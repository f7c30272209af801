"""What `restore --map` leaves alone, on photographs: differences inside a rectangle, and its seam.

    python benchmarks/obedience.py --data ../shared/data/photos/val [--count 10] [--model relume-s]

Photographs at half size, by means of 2 x 2 pixels, so that 16 bits hold values of their own, are
saved as PNG and TIFF of 8 and 16 bits and as JPEG (Pillow's, quality 75 with halved colour, and 95
without), and restored by the command itself with a mask that is 0 in a rectangle: with a hard edge,
and with one that rises from there to 1 over 16 pixels outside. Printed, in levels of 8 bits:

- inside the rectangle, the largest difference to the input. Lossless files must have 0, or the
  benchmark fails; of JPEG, which is written once more, what lies 16 pixels and more from the edge,
  with the root mean square, and whether it is what restoring with `--model identity` writes.
- the seam, over the photographs as they are, and with two damages that change much when they are
  mended: the mean absolute step across the edge in the output less that in the input, and energies
  (sums of squared steps at right angles to the edge) over those of the result without a mask, of
  the steps across the edge, and of all from there to 16 pixels outside. Means over photographs, and
  the largest.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from relume.image import Picture, read, write, write_gray16
from relume.lab.degrade import generator, parse

RELUME = (sys.executable, "-c", "from relume.cli import main; main()")
LOSSLESS = {"png8": ".png", "png16": ".png", "tiff8": ".tif", "tiff16": ".tif"}
JPEG = {"jpeg75": (75, 2), "jpeg95": (95, 0)}
DAMAGES = ("", "noise:sigma=25", "haze:beta=0.5")
SOFT = 16
Box = tuple[int, int, int, int]
"""top, bottom, left, right."""


def halved(path: Path) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1]: means of 2 x 2 pixels."""
    rgb = read(path).rgb()[0].transpose(1, 2, 0)
    h, w = rgb.shape[0] // 2, rgb.shape[1] // 2
    return rgb[: 2 * h, : 2 * w].reshape(h, 2, w, 2, 3).mean((1, 3))


def box_of(shape: Sequence[int]) -> Box:
    """Half as high and wide as the picture, on no grid of 8."""
    height, width = shape[:2]
    return height // 4 + 3, height * 3 // 4 + 2, width // 4 + 1, width * 3 // 4 + 3


def mask_of(shape: Sequence[int], soft: int) -> np.ndarray:
    """(H, W) in [0, 1]: 0 in the box, and 1 from `soft` pixels outside it on."""
    top, bottom, left, right = box_of(shape)
    y, x = np.arange(shape[0]), np.arange(shape[1])
    away_y = np.maximum(0, np.maximum(top - y, y - bottom + 1))
    away_x = np.maximum(0, np.maximum(left - x, x - right + 1))
    away = np.hypot(away_y[:, None], away_x)
    return np.clip(away / (soft + 1), 0, 1) if soft else (away > 0).astype(np.float64)


def save(rgb: np.ndarray, kind: str, folder: Path, name: str) -> None:
    """One file of one kind; `rgb` is (H, W, 3) in [0, 1]."""
    bits = 16 if kind.endswith("16") else 8
    peak = (1 << bits) - 1
    pixels = np.round(np.clip(rgb, 0, 1) * peak).astype(np.uint16 if bits == 16 else np.uint8)
    if kind in JPEG:
        quality, subsampling = JPEG[kind]
        path = folder / f"{name}.{kind}.jpg"
        Image.fromarray(pixels).save(path, quality=quality, subsampling=subsampling)
    else:
        write(Picture(pixels=pixels, bits=bits), folder / f"{name}.{kind}{LOSSLESS[kind]}")


def restored(inputs: Path, out: Path, *words: object) -> Path:
    """A folder through the command."""
    command = [*RELUME, "restore", inputs, "-o", out, "--quiet", *words]
    subprocess.run([str(word) for word in command], check=True)
    return out


def steps(pixels: np.ndarray, box: Box, outside: int) -> list[np.ndarray]:
    """For each side of the box the steps at right angles to it, (outside + 1, length, 3): first the
    one across its edge, then those further and further outside."""
    top, bottom, left, right = box
    sides = (
        pixels[top - outside - 1 : top + 1, left:right][::-1],
        pixels[bottom - 1 : bottom + outside + 1, left:right],
        pixels[top:bottom, left - outside - 1 : left + 1].swapaxes(0, 1)[::-1],
        pixels[top:bottom, right - 1 : right + outside + 1].swapaxes(0, 1),
    )
    return [np.diff(side.astype(np.float64), axis=0) for side in sides]


def across(pixels: np.ndarray, box: Box) -> float:
    """Mean absolute step across the edge."""
    return float(np.mean([np.abs(s[0]).mean() for s in steps(pixels, box, SOFT)]))


def energy(pixels: np.ndarray, box: Box, lines: int) -> float:
    return float(sum(np.square(s[:lines]).sum() for s in steps(pixels, box, SOFT)))


def obeyed(folder: Path, names: Sequence[str], models: Sequence[object]) -> bool:
    """Print what became of the inside of the rectangle, kind by kind; False where it must not."""
    kinds = [*LOSSLESS, *JPEG]
    runs = {
        edge: restored(folder / "in", folder / f"out-{edge}", "--map", folder / edge, *models)
        for edge in ("hard", "soft")
    }
    protect = folder / "protect"
    runs["protect"] = restored(folder / "in", folder / "out-protect", "--protect", protect, *models)
    again = restored(folder / "in", folder / "out-again", "--model", "identity")
    good = True
    print(f"inside the rectangle, {len(names)} photographs, levels of 8 bits")
    print(f"{'':8} {'hard':>10} {'soft':>10} {'protect':>10}   largest difference to the input")
    for kind in kinds:
        worst: dict[str, float] = dict.fromkeys(runs, 0.0)
        squares: list[float] = []
        same = True
        for name in names:
            file = next((folder / "in").glob(f"{name}.{kind}.*")).name
            before = read(folder / "in" / file)
            top, bottom, left, right = box_of(before.pixels.shape)
            edge = 16 if kind in JPEG else 0
            inside = np.s_[top + edge : bottom - edge, left + edge : right - edge]
            level = 255 / before.peak
            for run, out in runs.items():
                pixels = read(out / file).pixels
                apart = (pixels[inside].astype(np.float64) - before.pixels[inside]) * level
                worst[run] = max(worst[run], float(np.abs(apart).max()))
                if kind in JPEG:
                    squares.append(float(np.square(apart).mean()))
                    plain = read(again / file).pixels
                    same &= np.array_equal(pixels[inside], plain[inside])
        words = "".join(f" {value:10.2f}" for value in worst.values())
        if kind in JPEG:
            good &= same
            words += f"   16 px inside; root mean square {np.sqrt(np.mean(squares)):.2f}; "
            words += "what --model identity writes" if same else "NOT what --model identity writes"
        else:
            good &= not any(worst.values())
        print(f"{kind:8}{words}")
    return good


def seam(folder: Path, names: Sequence[str], spec: str, models: Sequence[object]) -> None:
    """Print the seams of one damage."""
    masks = {"hard": ("--map", folder / "hard"), "soft": ("--map", folder / "soft"), "none": ()}
    label = spec.split(":")[0] or "none"
    inputs = folder / f"in-{label}"
    outs = {
        edge: restored(inputs, folder / f"out-{label}-{edge}", *words, *models)
        for edge, words in masks.items()
    }
    for edge in ("hard", "soft"):
        rows = []
        for name in names:
            file = f"{name}.png8.png"
            before, out, whole = (
                read(place / file).pixels.astype(np.float64)
                for place in (inputs, outs[edge], outs["none"])
            )
            box = box_of(before.shape)
            rise = across(out, box) - across(before, box)
            ratios = [energy(out, box, n) / energy(whole, box, n) for n in (1, SOFT + 1)]
            rows.append((rise, *ratios))
        mean, most = np.mean(rows, 0), np.max(rows, 0)
        shown = "".join(f"  {a:7.2f} ({b:6.2f})" for a, b in zip(mean, most, strict=True))
        print(f"{spec or 'as they are':16} {edge:5}{shown}")


def prepared(folder: Path, data: Path, count: int) -> list[str]:
    """Inputs and masks of the first `count` photographs; their names."""
    # Details of photographs that are there themselves are left out.
    paths = sorted(p for p in data.iterdir() if "_d" not in p.stem[-3:])[:count]
    places = [
        "in",
        "hard",
        "soft",
        "protect",
        *(f"in-{s.split(':')[0] or 'none'}" for s in DAMAGES),
    ]
    for place in places:
        (folder / place).mkdir()
    for index, path in enumerate(paths):
        rgb, name = halved(path), path.stem
        kinds = (*LOSSLESS, *JPEG)
        for kind in kinds:
            save(rgb, kind, folder / "in", name)
        for edge, soft in (("hard", 0), ("soft", SOFT), ("protect", 0)):
            mask = mask_of(rgb.shape, soft)
            for kind in kinds:  # masks are found by the inputs' names
                write_gray16(
                    1 - mask if edge == "protect" else mask, folder / edge / f"{name}.{kind}.png"
                )
        for spec in DAMAGES:
            save(
                damaged(rgb, spec, index),
                "png8",
                folder / f"in-{spec.split(':')[0] or 'none'}",
                name,
            )
    return [path.stem for path in paths]


def damaged(rgb: np.ndarray, spec: str, index: int) -> np.ndarray:
    if not spec:
        return rgb
    gt = np.ascontiguousarray(rgb.transpose(2, 0, 1))
    chain = parse(spec)
    sampled = chain.sample(generator(11, index), (gt.shape[1], gt.shape[2]))
    return chain.apply(gt, sampled, truth=False, finish="uint8").lq.transpose(1, 2, 0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--model", default="relume-s")
    parser.add_argument("--engine", default="onnx")
    given = parser.parse_args()
    models = ("--model", given.model, "--engine", given.engine)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        names = prepared(folder, given.data, given.count)
        good = obeyed(folder, names, models)
        print("\nthe seam: mean over photographs (largest)")
        print(f"{'':22}  step out - in     energy across the edge   to 16 px outside")
        for spec in DAMAGES:
            seam(folder, names, spec, models)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
