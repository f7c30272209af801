"""A folder job killed, signalled, split over jobs: what is left, what the same command makes.

    python benchmarks/batch_stop.py [--pictures 200] [--kills 50] [--signals 20] [--seed 0]

The pictures are drawn with a seed: JPEG, PNG, 16-bit TIFF and WebP of 60 to 260 pixels a side. The
reference is one unbroken run of `--model identity` with one job. After every stop: each file in the
output folder equals the reference, byte for byte; the inputs are as they were, to the nanosecond of
their times; what else lies there is a temporary with our prefix. Then the same command runs again:
it leaves alone what was finished (inode and time), removes the temporaries and makes the reference.
Of three kills one falls at a moment of the run's time, two inside a write: for those the process
writes in pieces of 512 bytes with pauses, by a hook that lives here. A kill counts as inside
writing only where half a file was left. The control: a writer that takes the name first and fills
the file then, killed in the same way, must be caught. Prints a Markdown table; exit 1 where
anything was missed.
"""

import argparse
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from relume.image import Picture, encode

PLAIN = "from relume.cli import main; main()"
SLOW = """
import os, time
from relume.image import placing
def fill(file, pieces):
    for piece in pieces:
        for at in range(0, len(piece), 512):
            file.write(piece[at:at + 512])
            file.flush()
            time.sleep(0.002)
placing._fill = fill
"""
NAMED_FIRST = """
from pathlib import Path
from relume.image import placing
def put(data, folder):
    return data
def name(data, path, *, replace=False):
    with path.open("xb") as file:
        placing._fill(file, [data])
placing.put, placing.name, placing.drop = put, name, lambda beside: None
from relume.image import reader
reader.verify = lambda *args: None
"""
STUCK = """
import hashlib
from relume.engine.plain import Identity
def stuck(*args, **kwargs):
    hashlib.pbkdf2_hmac("sha256", b"a minute", b"of C", 200_000_000)
Identity.__call__ = stuck
"""
TEMPORARY = re.compile(r"\.relume-\d+-[0-9a-f]{12}")


def draw(folder: Path, count: int, seed: int) -> None:
    """Seeded pictures of four formats, grainy so that their files have some length."""
    folder.mkdir()
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        height, width = rng.integers(60, 260, 2)
        slope = np.linspace(0, 180, width)[None, :, None]
        pixels = (slope + rng.normal(40, 12, (height, width, 3))).clip(0, 255).astype(np.uint8)
        format, suffix = (("jpeg", "jpg"), ("png", "png"), ("tiff", "tif"), ("webp", "webp"))[
            number % 4
        ]
        deep = format == "tiff"
        picture = Picture(
            pixels.astype(np.uint16) * 257 if deep else pixels, bits=16 if deep else 8
        )
        (folder / f"{number:04}.{suffix}").write_bytes(encode(picture, format))


def tree(folder: Path) -> dict[str, str]:
    """Relative path -> sha256, without the journal's folder."""
    found = (p for p in folder.rglob("*") if p.is_file() and ".relume" not in p.parts)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def stamps(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Relative path -> inode, time of change, size."""
    found = (p for p in folder.rglob("*") if p.is_file() and ".relume" not in p.parts)
    told = {p: p.stat() for p in found}
    return {
        str(p.relative_to(folder)): (s.st_ino, s.st_mtime_ns, s.st_size) for p, s in told.items()
    }


def start(inputs: Path, out: Path, *flags: str, hook: str = "") -> subprocess.Popen[bytes]:
    arguments = ["restore", str(inputs), "-o", str(out), "--model", "identity", "--quiet", *flags]
    return subprocess.Popen(
        [sys.executable, "-c", f"{hook}\n{PLAIN}", *arguments], stderr=subprocess.DEVNULL
    )


class Trial:
    """One stop and what follows it; `faults` says what did not hold."""

    def __init__(self, inputs: Path, out: Path, reference: dict[str, str]) -> None:
        self.inputs, self.out, self.reference = inputs, out, reference
        self.before = (tree(inputs), stamps(inputs))
        self.faults: list[str] = []
        self.inside = 0

    def expect(self, held: bool, words: str) -> None:
        if not held:
            self.faults.append(words)

    def look(self) -> None:
        """What a stopped run left."""
        self.left = tree(self.out)
        self.kept = stamps(self.out)
        wrong = [name for name, digest in self.left.items() if self.reference.get(name) != digest]
        self.expect(not wrong, f"partial or other outputs: {wrong[:3]}")
        self.expect((tree(self.inputs), stamps(self.inputs)) == self.before, "an input changed")
        home = self.out / ".relume"
        others = [p for p in home.iterdir() if p.name != "journal.jsonl"] if home.exists() else []
        self.expect(all(TEMPORARY.fullmatch(p.name) for p in others), "a temporary of another name")
        self.inside = len(others)

    def resume(self) -> None:
        report = self.out.parent / "report.jsonl"
        report.unlink(missing_ok=True)
        code = start(self.inputs, self.out, "--report", str(report)).wait()
        self.expect(code == 0, f"the second run ended with {code}")
        self.expect(tree(self.out) == self.reference, "the final tree differs")
        now = stamps(self.out)
        redone = [name for name, stamp in self.kept.items() if now.get(name) != stamp]
        self.expect(not redone, f"done again: {redone[:3]}")
        records = [json.loads(line) for line in report.read_text().splitlines()]
        skipped = sum(record["status"] == "skipped" for record in records)
        self.expect(skipped == len(self.left), f"{skipped} skipped of {len(self.left)} finished")
        names = {p.name for p in (self.out / ".relume").iterdir()}
        self.expect(names == {"journal.jsonl"}, f"left over: {sorted(names)[:3]}")


def wait_for(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    while process.poll() is None and not ready():
        time.sleep(0.001)


def half_written(out: Path, after: int) -> Callable[[], bool]:
    """Whether some results are there and another one is being written."""

    def ready() -> bool:
        if not out.exists() or sum(1 for _ in out.iterdir()) <= after:
            return False
        return any(TEMPORARY.fullmatch(p.name) for p in (out / ".relume").iterdir())

    return ready


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--signals", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    rows: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        inputs = home / "in"
        draw(inputs, options.pictures, options.seed)
        began = time.perf_counter()
        assert start(inputs, home / "reference").wait() == 0
        took = time.perf_counter() - began
        reference = tree(home / "reference")
        assert len(reference) == options.pictures

        held = inside = 0
        for number in range(options.kills):
            trial = Trial(inputs, home / f"kill{number}", reference)
            slow = number % 3 > 0
            process = start(inputs, trial.out, hook=SLOW if slow else "")
            if slow:
                wait_for(process, half_written(trial.out, rng.randrange(options.pictures // 2)))
                time.sleep(rng.uniform(0, 0.02))
            else:
                time.sleep(rng.uniform(0.2, took))
            process.send_signal(signal.SIGKILL)
            process.wait()
            trial.look()
            inside += trial.inside > 0
            trial.resume()
            held += report(f"kill {number}", trial)
        words = f"{held}/{options.kills}, {inside} inside writing"
        rows.append(("kill -9, resumed", words, f"{options.kills}/{options.kills}, >= 10 inside"))

        held = 0
        for number in range(options.signals):
            kind = (signal.SIGTERM, signal.SIGINT)[number % 2]
            trial = Trial(inputs, home / f"signal{number}", reference)
            process = start(inputs, trial.out, hook=SLOW)
            wait_for(process, half_written(trial.out, rng.randrange(options.pictures // 2)))
            process.send_signal(kind)
            began = time.perf_counter()
            code = process.wait()
            trial.expect(code == 128 + kind, f"exit code {code}")
            trial.expect(time.perf_counter() - began < 5, "longer than 5 s")
            trial.look()
            trial.resume()
            held += report(f"signal {number}", trial)
        rows.append(
            ("SIGTERM 143, SIGINT 130, in 5 s, resumed", f"{held}/{options.signals}", "all")
        )

        waits: list[float] = []
        for presses in (1, 2):
            process = start(inputs, home / f"stuck{presses}", hook=STUCK)
            time.sleep(2.5)
            for _ in range(presses):
                began = time.perf_counter()
                process.send_signal(signal.SIGINT)
                time.sleep(0.3 * (presses - 1))
            code = process.wait()
            waits.append(time.perf_counter() - began)
            if code != 130:
                waits[-1] = float("inf")
        rows.append(
            (
                "inside a library's call: one SIGINT, two",
                f"{waits[0]:.1f} s, {waits[1]:.1f} s",
                "5 s, 1 s",
            )
        )

        same = True
        for name, flags in (("jobs4", ("--jobs", "4")), ("again", ())):
            code = start(inputs, home / name, *flags).wait()
            same &= code == 0 and tree(home / name) == reference
        rows.append(
            ("sha256 of one job, four, another run", "equal" if same else "differ", "equal")
        )

        process = start(inputs, home / "control", hook=SLOW + NAMED_FIRST)
        wait_for(
            process,
            lambda: (
                (home / "control").exists() and sum(1 for _ in (home / "control").iterdir()) > 3
            ),
        )
        process.send_signal(signal.SIGKILL)
        process.wait()
        control = Trial(inputs, home / "control", reference)
        control.look()
        caught = any("partial" in fault for fault in control.faults)
        rows.append(("control: names taken first", "caught" if caught else "missed", "caught"))
    print("| what | figure | bar |", "|---|---|---|", sep="\n")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    all_held = rows[0][1].startswith(f"{options.kills}/") and rows[1][1] == (
        f"{options.signals}/{options.signals}"
    )
    return (
        0 if all_held and inside * 5 >= options.kills and same and caught and max(waits) < 5 else 1
    )


def report(name: str, trial: Trial) -> bool:
    if trial.faults:
        print(f"{name}: {'; '.join(trial.faults)}", file=sys.stderr, flush=True)
    return not trial.faults


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    raise SystemExit(main())
