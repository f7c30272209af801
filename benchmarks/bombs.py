"""Pictures that promise, repeat or swell, each through the command line: refused or done, cheaply.

    python benchmarks/bombs.py [--corpus DIR]

Protocol: every bomb of `tests/bombs.py`, and with --corpus every file of that folder whose name
begins with "bomb", through `relume restore --model identity` in a process of its own that may take
3 GiB of address space (its children inherit that) and 60 seconds. It must end with 0 or 1, in one
line on stderr for each refusal and without a traceback. What is told: seconds of the processor, of
the whole command with its decoder (what a busy machine does not change), and the larger one's
memory. No bomb may take more than 30; where the header suffices, the whole command less than one.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from bombs import BOMBS

MAIN = "from relume.cli import main; main()"
SPACE, SECONDS, MEMORY = 3 << 30, 60, 2 << 20  # bytes, seconds, KiB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path)
    given = parser.parse_args()
    files = list(BOMBS)
    if given.corpus:
        found = sorted(given.corpus.glob("bomb*"))
        files += [(path.name, path.read_bytes, False) for path in found]
    bad, slowest, largest, ends = 0, 0.0, 0, {"restored": 0, "refused": 0}
    for name, make, header in files:
        record, code, said, memory, seconds = run(name, make())
        status = record.get("status", "none")
        ends[status] = ends.get(status, 0) + 1
        lines = [line for line in said.splitlines() if not line.startswith("relume: ")]
        right = status in ("restored", "refused") and code in (0, 1) and not lines
        right &= memory <= MEMORY and seconds <= 30 and not (header and seconds >= 1)
        right &= not (header and status != "refused")
        bad += not right
        slowest, largest = max(slowest, seconds), max(largest, memory)
        words = (record.get("message") or "; ".join(record.get("announced", [])))[-150:]
        mark = "ok " if right else "BAD"
        print(f"{mark} {name}: {status}, {seconds:.2f} s, {memory >> 10} MiB. {words}", flush=True)
        for line in lines[:3]:
            print(f"      {line[:200]}")
    print("\n| bombs | restored | refused | wrong | slowest | largest |\n|---|---|---|---|---|---|")
    told = f"| {len(files)} | {ends['restored']} | {ends['refused']} | {bad} | {slowest:.1f} s |"
    print(f"{told} {largest >> 10} MiB |")
    sys.exit(bad > 0)


def run(name: str, data: bytes) -> tuple[dict, int, str, int, float]:
    """The record, the exit code, what stood on stderr, the largest memory in KiB, seconds."""
    with tempfile.TemporaryDirectory() as place:
        path, report, errors = Path(place, name), Path(place, "report"), Path(place, "stderr")
        path.write_bytes(data)
        command = [sys.executable, "-c", MAIN, "restore", str(path), "-o", f"{place}/out"]
        command += ["--model", "identity", "--report", str(report)]
        child = os.fork()
        if child == 0:
            resource.setrlimit(resource.RLIMIT_AS, (SPACE, SPACE))
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.execv(command[0], command)
        _, status, usage = os.wait4(child, 0)
        said = errors.read_text(errors="replace")
        lines = report.read_text().splitlines() if report.exists() else []
        record = json.loads(lines[0]) if lines else {}
        seconds = usage.ru_utime + usage.ru_stime
        return record, os.waitstatus_to_exitcode(status), said, usage.ru_maxrss, seconds


if __name__ == "__main__":
    main()
