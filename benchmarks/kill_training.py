"""Training stopped by `kill -9` at random moments and continued, against the unbroken run.

    python benchmarks/kill_training.py --data ../shared/data [--steps 200] [--kills 10] [--seed 0]

A small relume-s (width 8, batches of 4, augmented, its thumbnail silent in a tenth of the samples)
on the CPU, with the loader's process beside it. A third of the kills, at least, fall inside the
writing of a checkpoint, between the halves of the file: the process waits there. After each kill
every checkpoint that has its name must hold what was written. Then a checkpoint is cut, and one has
a byte changed: each time one line says so and the run goes on from the one before. Then the disk is
full (a limit on the size of files; with --tmpfs FOLDER one of 4 MB that is mounted there, for which
one has to be root): the run ends with 3 and goes on later. At the end losses (hexadecimal),
weights, their averages and the optimiser's state are compared bit by bit. Exit 1 where anything
differs.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open

EVERY = 5
PAUSE = 1.5  # seconds between the halves of a checkpoint, where one is to be killed


def settings(steps: int) -> list[str]:
    return [
        *(
            'start=""',
            f"schedule.steps={steps}",
            "schedule.batch=4",
            f"schedule.save_every={EVERY}",
        ),
        *("schedule.warmup=5", "schedule.last_batch=2", "schedule.log_every=1", "schedule.crop=48"),
        *("schedule.last_crop=48", f"schedule.validate_every={steps}", "backbone.width=8"),
        *("data.sizes=1", "validation.specs=['noise:sigma=25']", "validation.photographs=1"),
        *("validation.crop=64", "priors.thumbnail.dropout=0.1"),
    ]


def command(out: Path, data: Path, steps: int, mark: Path | None = None) -> list[str]:
    words = [word for setting in settings(steps) for word in ("--set", setting)]
    return [
        *(sys.executable, __file__, "--inside", str(mark or ""), "train", "relume-s", "--quiet"),
        *("--data", str(data), "--out", str(out), *words),
    ]


def inside(mark: str, arguments: list[str]) -> None:
    """The command line itself; with a mark, checkpoints are written in two halves."""
    from relume.cli import main

    if mark:
        opened = Path.open

        class Slow:
            def __init__(self, file):
                self.file = file

            def __enter__(self):
                return self

            def __exit__(self, *_):
                self.file.close()

            def __getattr__(self, name):
                return getattr(self.file, name)

            def write(self, data):
                self.file.write(data[: len(data) // 2])
                self.file.flush()
                Path(mark).touch()
                time.sleep(PAUSE)
                return self.file.write(data[len(data) // 2 :])

        def open_slowly(path, *given, **named):
            file = opened(path, *given, **named)
            return Slow(file) if path.name.startswith(".step-") else file

        Path.open = open_slowly  # type: ignore[method-assign]
    sys.argv[1:] = arguments
    main()


def losses(run: Path) -> dict[int, str]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss_hex"] for line in lines if "loss_hex" in line}


def tensors(path: Path) -> dict[str, bytes]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name).numpy().tobytes() for name in file.keys()}  # noqa: SIM118


def checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-*.safetensors"))


def whole(path: Path) -> bool:
    """Whether a checkpoint holds what its header says was written."""
    from relume.lab.weights import digest

    with safe_open(path, "pt") as file:
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return file.metadata()["tensors"] == digest(held)


def steps_done(run: Path) -> int:
    """As the log tells; it may end in a line that is just being written."""
    log = run / "log.jsonl"
    if not log.exists():
        return 0
    lines = [line for line in log.read_text().splitlines() if line.endswith("}")]
    return max((json.loads(line)["step"] for line in lines), default=0)


def killed(words: list[str], now: Callable[[], bool]) -> bool:
    """Start a run and kill it when `now`; False where it ended before."""
    process = subprocess.Popen(words)
    while process.poll() is None and not now():
        time.sleep(0.005)
    ended = process.poll() is not None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return not ended


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds photos/")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tmpfs", type=Path, help="an empty folder, where a small disk is mounted")
    options = parser.parse_args()
    rng, steps, data = random.Random(options.seed), options.steps, options.data.resolve()
    good = True

    def said(what: str, right: bool) -> None:
        nonlocal good
        good = good and right
        print(f"| {what} | {'yes' if right else 'NO'} |", flush=True)

    print("| what | holds |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        unbroken, broken, mark = Path(folder, "unbroken"), Path(folder, "broken"), Path(folder, "m")
        subprocess.run(command(unbroken, data, steps), check=True)
        for number, stop in enumerate(
            sorted(rng.sample(range(2, steps - 2 * EVERY), options.kills))
        ):
            writing = number % 3 == 0
            mark.unlink(missing_ok=True)
            if writing:  # the first checkpoint from there on, half written
                late = rng.uniform(0, 0.5 * PAUSE)

                def now(stop: int = stop, late: float = late) -> bool:
                    if not mark.exists() or steps_done(broken) < stop:
                        mark.unlink(missing_ok=True)
                        return False
                    time.sleep(late)
                    return True
            else:

                def now(stop: int = stop) -> bool:
                    return steps_done(broken) >= stop

            hit = killed(command(broken, data, steps, mark if writing else None), now)
            half = list((broken / "checkpoints").glob(".step-*.part"))
            right = hit and all(map(whole, checkpoints(broken))) and bool(half) >= writing
            where = "half a checkpoint" if writing else "a step"
            said(f"killed in {where} after step {steps_done(broken)}; checkpoints are whole", right)

        for what in ("cut", "one byte changed"):
            newest = checkpoints(broken)[-1]
            held = bytearray(newest.read_bytes())
            held[-1000] ^= 1
            newest.write_bytes(held[: len(held) // 2] if what == "cut" else held)
            before = steps_done(broken)
            process = subprocess.Popen(command(broken, data, steps), stderr=subprocess.PIPE)
            while process.poll() is None and steps_done(broken) < before + EVERY + 1:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            lines = process.communicate()[1].decode().splitlines()
            told = [line for line in lines if "is not whole" in line]
            said(f"newest checkpoint {what}: one line, and the one before", len(told) == 1)

        full = broken
        if options.tmpfs:
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", options.tmpfs], check=True
            )
            full = options.tmpfs / "run"
            shutil.copytree(broken, full, ignore=shutil.ignore_patterns("strips", "curve.png"))
            room = shutil.disk_usage(full).free - newest.stat().st_size // 2
            (options.tmpfs / "other").write_bytes(bytes(max(0, room)))
        kept = {path.name: path.read_bytes() for path in checkpoints(full)}

        def limited() -> None:
            if not options.tmpfs:
                size = newest.stat().st_size // 2
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        ended = subprocess.run(
            command(full, data, steps), stderr=subprocess.PIPE, preexec_fn=limited, check=False
        )
        lines = [line for line in ended.stderr.decode().splitlines() if "cannot be written" in line]
        same = {path.name: path.read_bytes() for path in checkpoints(full)} == kept
        halves = list((full / "checkpoints").glob(".*.part"))
        said(
            f"disk full: exit 3 (it was {ended.returncode}), one line, the last good state stays",
            ended.returncode == 3 and len(lines) == 1 and same and not halves,
        )
        if options.tmpfs:
            subprocess.run(["umount", options.tmpfs], check=True)

        subprocess.run(command(broken, data, steps), check=True)
        said(f"losses of all {steps} steps bit-equal", losses(unbroken) == losses(broken))
        files = ("model.safetensors", os.path.relpath(checkpoints(unbroken)[-1], unbroken))
        for name in files:
            said(f"{name} bit-equal", tensors(unbroken / name) == tensors(broken / name))
        left = [p.name for p in (broken / "checkpoints").iterdir() if p.name.startswith(".")]
        said("nothing half written is left", not left)
    return 0 if good else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(sys.argv[2], sys.argv[3:])
    else:
        raise SystemExit(main())
