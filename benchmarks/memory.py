"""Resident memory of `relume restore` on pictures of 100 megapixels, and `identity` on a gigapixel.

    python benchmarks/memory.py [--pixels 100] [--cases jpeg,png,tiff] [--model relume-s]
    python benchmarks/memory.py --cases bigtiff --pixels 1000 --model identity

Pictures are drawn by libvips from a seed: waves, a gradient and noise, 8 bits in JPEG and PNG, 16
in the TIFF (deflate), 8 in the BigTIFF (tiles of 256, uncompressed). Each is restored at x1 by a
process of its own. `peak` is the larger of two figures: the kernel's own (ru_maxrss, over the
process and its children, each for itself) and the sum of the resident memory of all of them, looked
at twenty times a second. With `identity` a lossless result is compared with its input, sample by
sample. The control reads the same file into memory with `relume.read` and must come out above the
picture's own size: a meter that shows nothing would show nothing there. Exit 1 where a bar is
missed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from relume.image.libvips import pyvips

BARS = {"jpeg": 2.0, "png": 2.0, "tiff": 3.0, "bigtiff": 1.5}
"""GiB."""
SUFFIXES = {"jpeg": ".jpg", "png": ".png", "tiff": ".tif", "bigtiff": ".tif"}
MAIN = "from relume.cli import main; main()"
READ = "import sys, relume; relume.read(sys.argv[1])"


def draw(path: Path, case: str, pixels: int, seed: int) -> tuple[int, int]:
    """A picture of about so many pixels, 3 : 2; its (width, height)."""
    width = int((1.5 * pixels) ** 0.5)
    height = pixels // width
    waves = pyvips.Image.sines(width, height, hfreq=9, vfreq=5).linear(40, 100)
    noise = pyvips.Image.gaussnoise(width, height, mean=0, sigma=6, seed=seed)
    slope = pyvips.Image.xyz(width, height)[0].linear(60 / width, 0)
    image = waves.bandjoin([waves.linear(0.5, 50) + slope, slope.linear(1, 70)]) + noise
    image.set_progress(False)
    if case == "tiff":
        image = image.linear(257, 0).cast("ushort").copy(interpretation="rgb16")
        image.tiffsave(str(path), compression="deflate")
        return width, height
    image = image.cast("uchar").copy(interpretation="srgb")
    if case == "jpeg":
        image.jpegsave(str(path), Q=92)
    elif case == "png":
        image.pngsave(str(path), compression=2, filter="up")
    else:
        image.tiffsave(str(path), tile=True, tile_width=256, tile_height=256, bigtiff=True)
    return width, height


def resident(root: int) -> int:
    """Bytes of a process and of all below it, together."""
    parents: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "stat").read_text().rpartition(")")[2].split()
                pages = int((entry / "statm").read_text().split()[1])
            except (OSError, IndexError):
                continue
            parents[int(entry.name)] = int(words[1])
            sizes[int(entry.name)] = pages * os.sysconf("SC_PAGESIZE")
    total = 0
    for process in parents:
        above = process
        while above not in (root, 0):
            above = parents.get(above, 0)
        total += sizes[process] if above == root else 0
    return total


def measured(command: list[str]) -> tuple[int, float, int, float]:
    """Exit code, peak of the sum and of the largest process in GiB, seconds."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    most = 0
    while True:
        most = max(most, resident(process.pid))
        done, status, usage = os.wait4(process.pid, os.WNOHANG)
        if done:
            break
        time.sleep(0.05)
    process.returncode = os.waitstatus_to_exitcode(status)
    largest = usage.ru_maxrss * 1024
    return process.returncode, most / 2**30, largest, time.perf_counter() - began


def same(first: Path, second: Path) -> bool:
    """Whether two files hold the same samples; they are read a few rows at a time."""
    a, b = (pyvips.Image.new_from_file(str(p), access="sequential") for p in (first, second))
    return (a.width, a.height, a.bands, a.format) == (b.width, b.height, b.bands, b.format) and (
        (a != b).max() == 0
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pixels", type=float, default=100, help="megapixels")
    parser.add_argument("--cases", default="jpeg,png,tiff", help=", ".join(BARS))
    parser.add_argument("--model", default="relume-s")
    parser.add_argument("--engine", default="onnx")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary one by default")
    options = parser.parse_args()
    pixels, good = int(options.pixels * 1e6), True
    limits = f"input={options.pixels * 1.1:g},output={options.pixels * 1.1:g},seconds=600"
    print("| picture | model | peak, GiB | largest process | bar | seconds | control, GiB | same |")
    print("|---|---|---|---|---|---|---|---|")
    for case in options.cases.split(","):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            source, out = Path(folder, f"drawn{SUFFIXES[case]}"), Path(folder, "out")
            width, height = draw(source, case, pixels, options.seed)
            control = measured([sys.executable, "-c", READ, str(source)]) if pixels < 2e8 else None
            code, total, largest, seconds = measured(
                [
                    *(sys.executable, "-c", MAIN, "restore", str(source), "-o", str(out)),
                    *("--model", options.model, "--engine", options.engine, "--limits", limits),
                    "--quiet",
                ]
            )
            peak = max(total, largest / 2**30)
            result, equal = out / source.name, "-"
            if code == 0 and options.model == "identity" and case != "jpeg":
                equal = "yes" if same(source, result) else "NO"
            left = [p.name for p in (out / ".relume").iterdir()] if out.exists() else []
            samples = 3 * width * height * (2 if case == "tiff" else 1) / 2**30
            good = good and code == 0 and peak <= BARS[case] and equal != "NO"
            good = good and left == ["journal.jsonl"]
            told = f"{control[1]:.2f} of {samples:.2f}" if control else "not held"
            good = good and (control is None or control[1] > samples)
            print(
                f"| {case}, {width} x {height} | {options.model} | {peak:.2f} | "
                f"{largest / 2**30:.2f} | {BARS[case]} | {seconds:.0f} | {told} | {equal} |",
                flush=True,
            )
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
