"""Weight files made to harm: whether any runs code, reads what is not its own, or costs too much.

    python benchmarks/hostile_weights.py [--count 250] [--seed 0] [--only pickles,onnx]

Five kinds, `count` files each, drawn by the seed: safetensors with broken headers; pickles that
name what is no weight, bare, zipped, in both of torch's old forms and as TorchScript; honest files
with flipped bytes; files whose tensors, recipes and sizes lie; ONNX graphs. Each goes through the
real command line (`restore --model FILE`, or `models convert` for a pickle), many in one process:
that weakens nothing, for what is dangerous happens in a child of its own, started for each file.

What is watched. A canary file that every payload would make. The interpreter of the sandbox, which
ends the child when something runs a program, opens a socket or writes: such an end is counted as
code that ran. Another canary whose time of last access shows who read it. The time of each file, on
the clock and of the processor (the children's included: what a busy machine does not change), and
the largest memory of any process. Controls: the plain loaders (`pickle`, `torch.load` without
restriction, ONNX Runtime given bytes) on the same files must trip the canaries, honest files must
load; and the restricted loader by itself, outside the sandbox, must not trip them either.
"""

import argparse
import contextlib
import io
import json
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

import hostile

from relume import cli
from relume.card import MODELS
from relume.image import Picture, write

SECONDS, MEMORY = 10.0, 1 << 20  # KiB
CAUGHT = "tried to do what no such file may do"


def main() -> None:
    given = arguments()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        os.environ["RELUME_CACHE"] = str(place / "cache")
        os.chdir(place)
        bait = hostile.Bait(place / "canary", place / "secret.bin")
        picture = place / "picture.png"
        write(Picture(np.full((16, 16, 3), 99, np.uint8)), picture)
        heads = "kind | files | exit 4 | harmless | wrong | code ran | foreign reads"
        print(f"| {heads} | slowest | busiest |")
        print("|---|---|---|---|---|---|---|---|---|")
        bad = 0
        kinds = given.only.split(",") if given.only else hostile.KINDS
        for kind in kinds:
            bad += judge(kind, given, bait, picture)
        honest(given, place, picture)
        if "pickles" in kinds:
            controls(given, bait)
    own, children = (
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(f"\nlargest memory: {children >> 10} MiB in a child, {own >> 10} MiB here")
    sys.exit(bad > 0 or max(own, children) > MEMORY)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=250, help="files of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="kinds, joined by commas")
    parser.add_argument("--show", action="store_true", help="a line for each file")
    return parser.parse_args()


def run(*words: str) -> tuple[int, str, float]:
    """Exit code, what was said on stderr, seconds."""
    said, began = io.StringIO(), time.monotonic()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = cli._run(lambda: cli.app(list(words), standalone_mode=False), list(words))
    return code, said.getvalue(), time.monotonic() - began


def processor() -> float:
    """Seconds of it that this process and its finished children have taken."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def command(path: Path, picture: Path, engine: str) -> list[str]:
    if path.suffix == ".pth":
        return ["models", "convert", str(path), "-o", f"{path}.safetensors"]
    out = path.with_suffix(".out")
    return ["restore", str(picture), "-o", str(out), "--model", str(path), "--engine", engine]


def judge(kind: str, given: argparse.Namespace, bait: hostile.Bait, picture: Path) -> int:
    rng = np.random.default_rng([given.seed, hostile.KINDS.index(kind)])
    folder = Path(kind)
    folder.mkdir()
    tally: Counter[str] = Counter()
    slowest, busiest, worst = 0.0, 0.0, ""
    for index in range(given.count):
        path, label, harmless = hostile.make(kind, index, rng, folder / f"{index:04}", bait)
        bait.lay()
        used = processor()
        engine = "onnx" if path.suffix == ".onnx" and index % 4 else "auto"
        code, said, seconds = run(*command(path, picture, engine))
        busiest = max(busiest, processor() - used)
        ran = CAUGHT in said or bait.sprung()
        read = bait.read()
        one_line = said.count("\n") == 1 and "Traceback" not in said
        right = (code == 4 and one_line) or (code == 0 and harmless)
        slow = seconds > SECONDS
        tally.update(
            {
                "refused": code == 4,
                "harmless": code == 0 and harmless,
                "wrong": not right,
                "ran": ran,
                "read": read,
                "slow": slow,
            }
        )
        if seconds > slowest:
            slowest, worst = seconds, label
        if given.show or not right or ran or read or slow:
            print(f"  {path.name} {label}: exit {code}, {seconds:.1f} s, {said.strip()[:220]}")
        for left in folder.glob(f"{index:04}*"):
            if left.is_file():
                left.unlink()
    print(
        f"| {kind} | {given.count} | {tally['refused']} | {tally['harmless']} | {tally['wrong']} | "
        f"{tally['ran']} | {tally['read']} | {slowest:.1f} s ({worst}) | {busiest:.1f} s |",
        flush=True,
    )
    return tally["wrong"] + tally["ran"] + tally["read"] + tally["slow"]


def honest(given: argparse.Namespace, place: Path, picture: Path) -> None:
    """Twenty files with nothing wrong: each must load and run."""
    rng, loaded = np.random.default_rng(given.seed), 0
    for index in range(20):
        path = place / f"honest-{index}{('.onnx', '.safetensors', '.pth')[index % 3]}"
        hostile.honest(path, rng)
        code, said, _ = run(*command(path, picture, "auto"))
        loaded += code == 0
        if code:
            print(f"  {path.name}: exit {code}, {said.strip()}")
    print(f"\nhonest files that load: {loaded} of 20 (copies of {MODELS.name}/, renamed; pickles)")


def controls(given: argparse.Namespace, bait: hostile.Bait) -> None:
    """The same pickles and graphs, in loaders that trust them; and the restricted one, alone."""
    rng = np.random.default_rng([given.seed, hostile.KINDS.index("pickles")])
    plain = restricted = 0
    for index in range(given.count):
        path, _, _ = hostile.make("pickles", index, rng, Path(f"control-{index}"), bait)
        plain += hostile.trips(path, bait, hostile.load_plainly)
        restricted += hostile.trips(path, bait, hostile.load_restricted)
        path.unlink()
    print(f"pickles whose canary the plain loader trips: {plain} of {given.count}")
    print(f"pickles whose canary the restricted loader trips, no sandbox around it: {restricted}")
    print(
        json.dumps({"graph that reads a foreign file, plain runtime": hostile.runtime_reads(bait)})
    )


if __name__ == "__main__":
    main()
