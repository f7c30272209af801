"""Training stopped by `kill -9` at random steps and continued, against the unbroken run.

    python benchmarks/kill_training.py --data ../shared/data [--kills 5] [--seed 0]

Prints one line a kill and a last line: bit-equal or not. Exit 1 where a weight or a loss differs.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors import safe_open

STEPS = 40
SETTINGS = (
    'start=""', f"schedule.steps={STEPS}", "schedule.batch=4", "schedule.save_every=5",
    "schedule.warmup=5", "schedule.last_batch=2",
    "schedule.log_every=1", "schedule.validate_every=20", "backbone.width=8", "data.sizes=1",
    "validation.specs=['noise:sigma=25']", "validation.photographs=2", "validation.crop=64",
)  # fmt: skip


def command(out: Path, data: Path) -> list[str]:
    overrides = [word for setting in SETTINGS for word in ("--set", setting)]
    return [
        *(str(Path(sys.executable).with_name("relume")), "train", "relume-s", "--quiet"),
        *("--data", str(data), "--out", str(out), *overrides),
    ]


def losses(run: Path) -> dict[int, str]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss_hex"] for line in lines if "loss_hex" in line}


def tensors(path: Path) -> dict[str, bytes]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name).numpy().tobytes() for name in file.keys()}  # noqa: SIM118


def steps_done(run: Path) -> int:
    """As the log tells; it may end in a line that is just being written."""
    log = run / "log.jsonl"
    if not log.exists():
        return 0
    whole = [line for line in log.read_text().splitlines() if line.endswith("}")]
    return max((json.loads(line)["step"] for line in whole), default=0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds photos/")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        unbroken, broken = Path(folder, "unbroken"), Path(folder, "broken")
        subprocess.run(command(unbroken, options.data), check=True)
        stops = sorted(rng.sample(range(2, STEPS - 1), options.kills))
        for stop in stops:
            process = subprocess.Popen(command(broken, options.data))
            while process.poll() is None and steps_done(broken) < stop:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.wait()
            print(f"killed at step {steps_done(broken)} (asked for {stop})", flush=True)
        subprocess.run(command(broken, options.data), check=True)
        same_losses = losses(unbroken) == losses(broken)
        same_weights = tensors(unbroken / "model.safetensors") == tensors(
            broken / "model.safetensors"
        )
    print(f"losses bit-equal: {same_losses}; weights bit-equal: {same_weights}")
    return 0 if same_losses and same_weights else 1


if __name__ == "__main__":
    raise SystemExit(main())
