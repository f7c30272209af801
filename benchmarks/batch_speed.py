"""`relume restore --model identity` over a folder against a plain libvips loop, whole processes.

    python benchmarks/batch_speed.py --data ../shared/data/photos [--pictures 200] [--rounds 5]

Crops of 880 x 590 pixels of the photographs, drawn with a seed, once as JPEG (quality 85, colour
halved) and once as PNG. The loop is pyvips reading each file and writing it under the same name
with its defaults (JPEG of quality 75, colour halved; PNG of level 6), without metadata, flush or
check; relume runs with all its guarantees and one job, and writes JPEG of quality 90, 4:4:4 (1.6
times the bytes, all of which it decodes once more) and PNG of level 2. Both start as a process of
their own, one after the other in turn, first once unmeasured; the ratio is of one round, their
median and range are told. "Alike" has the loop write what relume writes, which is the fairer peer.
Seconds of the processor, the children's included, are what a busy machine changes least.
"""

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyvips

WIDTH, HEIGHT = 880, 590
LOOP = """
import sys
from pathlib import Path
import pyvips
options = {".jpg": {"Q": 90, "subsample_mode": "off"}, ".png": {"compression": 2, "filter": "up"}}
inputs, out, alike = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "alike"
out.mkdir()
for path in sorted(inputs.iterdir()):
    image = pyvips.Image.new_from_file(str(path))
    image.write_to_file(str(out / path.name), **(options[path.suffix] if alike else {}))
"""
RELUME = "from relume.cli import main; main()"


def draw(data: Path, folder: Path, suffix: str, count: int, seed: int) -> None:
    rng = random.Random(seed)
    files = sorted(path for path in data.rglob("*") if path.suffix.lower() in (".jpg", ".png"))
    folder.mkdir()
    made = 0
    while made < count:
        image: pyvips.Image = pyvips.Image.new_from_file(str(rng.choice(files)))
        if image.width < WIDTH or image.height < HEIGHT:
            continue
        left = rng.randrange(image.width - WIDTH + 1)
        top = rng.randrange(image.height - HEIGHT + 1)
        options = {"Q": 85} if suffix == ".jpg" else {}
        crop = image.crop(left, top, WIDTH, HEIGHT)
        crop.write_to_file(str(folder / f"{made:04}{suffix}"), keep="none", **options)
        made += 1


def seconds(out: Path, *command: str) -> tuple[float, float]:
    """On the clock, and of the processor."""
    shutil.rmtree(out, ignore_errors=True)
    before, began = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-c", *command], check=True, capture_output=True)
    took, after = time.perf_counter() - began, os.times()
    used = after.children_user - before.children_user
    return took, used + after.children_system - before.children_system


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a folder of photographs")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=(".jpg", ".png"), help="one kind of files")
    options = parser.parse_args()
    heads = "files | loop, s | relume, s | ratio | bar | ratio to the loop that writes alike"
    print(f"| {heads} | processor, s: loop, alike, relume |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        for suffix in (options.only,) if options.only else (".jpg", ".png"):
            inputs, out = home / suffix[1:], home / "out"
            draw(options.data, inputs, suffix, options.pictures, options.seed)
            commands = {
                "plain": (LOOP, str(inputs), str(out), "plain"),
                "relume": (
                    *(RELUME, "restore", str(inputs), "-o", str(out)),
                    *("--model", "identity", "--jobs", "1", "--quiet"),
                ),
                "alike": (LOOP, str(inputs), str(out), "alike"),
            }
            took: dict[str, list[float]] = {name: [] for name in commands}
            used: dict[str, list[float]] = {name: [] for name in commands}
            for number in range(options.rounds + 1):
                for name, command in commands.items():
                    value, processor = seconds(out, *command)
                    if number:
                        took[name].append(value)
                        used[name].append(processor)
            plain, ours, alike = (took[name] for name in ("plain", "relume", "alike"))
            ratios = [b / a for a, b in zip(plain, ours, strict=True)]
            others = statistics.median(b / a for a, b in zip(alike, ours, strict=True))
            spent = ", ".join(
                f"{statistics.median(used[n]):.2f}" for n in ("plain", "alike", "relume")
            )
            told = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
            print(
                f"| {options.pictures} {suffix[1:].upper()} | {statistics.median(plain):.2f} | "
                f"{statistics.median(ours):.2f} | {told} | 2 | {others:.2f} | {spent} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
