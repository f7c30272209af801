"""`relume triage`: seconds and memory a picture, and whether what it calls easy is mended.

    python benchmarks/triage.py --data ../shared/data/photos/val [--count 200] [--engine onnx]
    python benchmarks/triage.py --data ../shared/data/photos/val --piles

The first makes `--count` crops of 864 x 576 pixels (0.5 MP) from photographs, as JPEG of quality
90, each with its own damage or none, and times the command over them as a whole process, with
`--csv` and `--html`: seconds a picture by the clock and of processor time, the load of the machine
before and after, peak memory, and how large the page is.

The second damages parts of 320 x 320 pixels of photographs, one of each, by every SPEC below, and
holds the piles against what the default model leaves of the squared error: `hard` should leave half
of it or more, `easy` less. The sets of kinds
and SLIGHT in `relume.piles` were chosen on photos/val, so that figures of that folder are kind.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from relume.card import DEFAULT, MASKS
from relume.diagnosis import diagnose
from relume.engine import open_engine
from relume.guidance import area_resize
from relume.image import Picture, encode, read
from relume.lab.degrade import generator, parse
from relume.piles import PILES, pile
from relume.priors.damage import DamagePrior
from relume.restoration import restore

WIDTH, HEIGHT = 864, 576
SIDE = 320
SPECS = (
    "",
    "noise:sigma=10..50",
    "jpeg:quality=10..60",
    "blur:length=7..25",
    "rain:density=0.001..0.01",
    "haze:beta=0.15..1.2",
    "lowlight:gain=0.1..0.4",
    "raindrop:count=40..200",
    "sensor:iso=800..6400",
    "noise:sigma=10..30+jpeg:quality=40..80",
)


def photographs(data: Path) -> list[Path]:
    """Without the details of photographs that are there themselves."""
    return sorted(p for p in data.iterdir() if "_d" not in p.stem[-3:])


def damaged(rgb: np.ndarray, spec: str, index: int) -> np.ndarray:
    """(3, h, w) in steps of 8 bits, damaged by a SPEC ("" is none)."""
    lq = rgb
    if spec:
        chain = parse(spec)
        sampled = chain.sample(generator(5, index), (rgb.shape[1], rgb.shape[2]))
        lq = np.asarray(chain.apply(rgb, sampled, truth=False, finish="uint8").lq)
    return (np.rint(np.clip(lq, 0, 1) * 255) / 255).astype(np.float32)


def crops(data: Path, count: int) -> Iterator[bytes]:
    """JPEGs of WIDTH x HEIGHT pixels, each from another place."""
    paths = photographs(data)
    rng = np.random.default_rng(1)
    for index in range(count):
        rgb = read(paths[index % len(paths)]).rgb()[0]
        grow = max(1.0, HEIGHT / rgb.shape[1], WIDTH / rgb.shape[2])
        if grow > 1:
            size = [int(np.ceil(side * grow)) for side in rgb.shape[1:]]
            rgb = area_resize(rgb, size[0], size[1]).astype(np.float32)
        top = rng.integers(rgb.shape[1] - HEIGHT + 1)
        left = rng.integers(rgb.shape[2] - WIDTH + 1)
        part = np.ascontiguousarray(rgb[:, top : top + HEIGHT, left : left + WIDTH])
        lq = damaged(part, SPECS[index % len(SPECS)], index)
        yield encode(Picture.from_rgb(lq[None]), "jpeg", 90)


def speed(data: Path, count: int, engine: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        for index, coded in enumerate(crops(data, count)):
            (folder / "in" / f"{index:04}.jpg").write_bytes(coded)
        command = [sys.executable, "-c", "from relume.cli import main; main()", "triage"]
        command += [str(folder / "in"), "--engine", engine, "--quiet"]
        command += ["--csv", str(folder / "t.csv"), "--html", str(folder / "t.html")]
        load = os.getloadavg()[0]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        subprocess.run(command, check=True)
        wall = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        size = (folder / "t.html").stat().st_size
    print(f"{count} pictures of {WIDTH} x {HEIGHT}, {MASKS}, {engine}, {os.cpu_count()} cores")
    print(f"load before {load:.1f}, after {os.getloadavg()[0]:.1f}")
    print(f"a picture: {wall / count:.3f} s by the clock, {spent / count:.3f} s of processors")
    print(f"peak {after.ru_maxrss / 1024:.0f} MB; page {size / count / 1000:.1f} kB a picture")


def piles(data: Path) -> None:
    prior, default = DamagePrior(MASKS), open_engine(DEFAULT)
    told = {kind: sure.told for kind, sure in prior.engine.card.sureness.items()}
    seen: dict[str, Counter[str]] = {spec: Counter() for spec in SPECS}
    for number, path in enumerate(photographs(data)):
        rgb = read(path).rgb()[0]
        ratio = 1.2 * SIDE / min(rgb.shape[1:])
        height, width = (max(SIDE, round(side * ratio)) for side in rgb.shape[1:])
        gt = area_resize(rgb, height, width).astype(np.float32)[:, :SIDE, :SIDE]
        for index, spec in enumerate(SPECS):
            lq = damaged(gt, spec, 100 * number + index)[None]
            name, _ = pile(diagnose(lq, prior), told)
            out = restore(Picture.from_rgb(lq), default).picture.rgb()
            before, after = (float(np.square(x - gt).mean()) for x in (lq, out))
            kept = "undamaged" if not spec else "half left" if after >= before / 2 else "mended"
            seen[spec][f"{name}, {kept}"] += 1
    for spec, counted in [*seen.items(), ("all", sum(seen.values(), Counter[str]()))]:
        said = "; ".join(f"{key} {counted[key]}" for key in sorted(counted, key=_order))
        print(f"{spec or 'undamaged':40} {said}")


def _order(key: str) -> tuple[int, str]:
    return PILES.index(key.split(",")[0]), key


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--engine", default="onnx")
    parser.add_argument("--piles", action="store_true", help="what becomes of each pile")
    given = parser.parse_args()
    if given.piles:
        piles(given.data)
    else:
        speed(given.data, given.count, given.engine)


if __name__ == "__main__":
    main()
