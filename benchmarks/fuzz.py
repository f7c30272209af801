"""Mutants of pictures through the command line: no crash, no hang, no traceback, no broken output.

    python benchmarks/fuzz.py --corpus DIR [--count 2000] [--seed 0] [--keep DIR]

Protocol: mutant i is drawn from (seed, i): a file of the corpus with bits flipped, a piece cut out,
a piece of another file spliced in, bytes of its header edited, or several of these. A hundred at a
time they are the inputs of one `relume restore --model identity --report`, a process of its own
with its decoder in another. Every mutant must have one record, restored with an output that an
independent reader (Pillow, and libvips by itself) decodes whole, or refused in one line; the
command must end with 0 or 1, nothing but lines that begin with "relume: " on stderr, and no mutant
may take more than 30 seconds. With --keep, whatever broke a rule is copied there.
"""

import argparse
import json
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

BATCH, SECONDS = 100, 30.0
MAIN = "from relume.cli import main; main()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    corpus = load(given.corpus)
    total: Counter[str] = Counter()
    slowest = 0.0
    for start in range(0, given.count, BATCH):
        count = min(BATCH, given.count - start)
        made = {f"{i:05}{s}": d for i, (s, d) in mutants(corpus, given.seed, start, count)}
        faults, seconds, statuses = judge(made)
        total.update(statuses)
        slowest = max(slowest, seconds)
        for name, words in faults.items():
            total[words.split(":")[0]] += 1
            print(f"  {name}: {words}", flush=True)
            if given.keep and name in made:
                given.keep.mkdir(parents=True, exist_ok=True)
                (given.keep / name).write_bytes(made[name])
    print("| mutants | restored | refused | faults | slowest file |\n|---|---|---|---|---|")
    faults = sum(n for word, n in total.items() if word not in ("restored", "refused", "skipped"))
    told = (
        f"| {given.count} | {total['restored']} | {total['refused']} | {faults} | {slowest:.1f} s |"
    )
    print(told)
    sys.exit(faults > 0)


def load(folder: Path) -> list[tuple[str, bytes]]:
    """(suffix, bytes) of the files that a mutant may begin as, in the order of their names."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and 0 < p.stat().st_size < 1 << 20)
    return [(p.suffix.lower() or ".png", p.read_bytes()) for p in files]


def mutants(
    corpus: list[tuple[str, bytes]], seed: int, start: int, count: int
) -> list[tuple[int, tuple[str, bytes]]]:
    """(number, (suffix, bytes)) of each."""
    made = []
    for index in range(start, start + count):
        rng = np.random.default_rng([seed, index])
        suffix, data = corpus[int(rng.integers(len(corpus)))]
        for _ in range(int(rng.integers(1, 4))):
            data = mutated(data, corpus, rng)
        made.append((index, (suffix, data)))
    return made


def mutated(data: bytes, corpus: list[tuple[str, bytes]], rng: np.random.Generator) -> bytes:
    out = bytearray(data)
    kind = int(rng.integers(6))
    if len(out) < 16:
        return bytes(out) + rng.bytes(16)
    if kind == 0:  # bits anywhere
        for at in rng.integers(0, len(out), int(rng.integers(1, 20))):
            out[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:  # a piece gone
        at = int(rng.integers(8, len(out)))
        del out[at : at + int(rng.integers(1, len(out)))]
    elif kind == 2:  # a piece of another file in the middle
        other = corpus[int(rng.integers(len(corpus)))][1]
        at, size = int(rng.integers(8, len(out))), int(rng.integers(1, 2000))
        begin = int(rng.integers(len(other)))
        out[at:at] = other[begin : begin + size]
    elif kind == 3:  # numbers of the header
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(4, min(len(out) - 8, 400) + 1)) if len(out) > 20 else 4
            number = [0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 65535, int(rng.integers(1 << 32))]
            order = "<>"[int(rng.integers(2))]
            struct.pack_into(f"{order}I", out, at, number[int(rng.integers(6))])
    elif kind == 4:  # a run of one byte
        at = int(rng.integers(8, len(out)))
        size = min(len(out) - at, int(rng.integers(1, 300)))
        out[at : at + size] = bytes((int(rng.integers(256)),)) * size
    else:  # a piece twice
        at, size = int(rng.integers(8, len(out))), int(rng.integers(1, 500))
        out[at:at] = out[at : at + size]
    # Half of the mutants of PNG get their checksums right, so that they reach the decoder.
    return mended(bytes(out)) if rng.random() < 0.5 else bytes(out)


def mended(data: bytes) -> bytes:
    """A PNG with the checksums of what it holds; other files as they are."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return data
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        size = struct.unpack_from(">I", out, at)[0]
        if at + 12 + size > len(out):
            break
        struct.pack_into(">I", out, at + 8 + size, zlib.crc32(out[at + 4 : at + 8 + size]))
        at += 12 + size
    return bytes(out)


def judge(made: dict[str, bytes]) -> tuple[dict[str, str], float, Counter[str]]:
    """What went wrong by the file's name, the seconds of the slowest, and how many ended how."""
    faults: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as place:
        folder, out, report = Path(place, "in"), Path(place, "out"), Path(place, "report.jsonl")
        folder.mkdir()
        for name, data in made.items():
            (folder / name).write_bytes(data)
        words = [str(folder / name) for name in made]
        command = [sys.executable, "-c", MAIN, "restore", *words, "-o", str(out)]
        command += ["--model", "identity", "--report", str(report), "--quiet"]
        began = time.monotonic()
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=SECONDS * BATCH
            )
        except subprocess.TimeoutExpired:
            return {"": f"hang: {time.monotonic() - began:.0f} s"}, SECONDS * BATCH, Counter()
        if done.returncode not in (0, 1):
            faults["code"] = f"exit: {done.returncode}, {done.stderr[-300:]}"
        for line in done.stderr.splitlines():
            if not line.startswith("relume: ") or "unexpected" in line:
                faults[f"stderr {line[:40]}"] = f"traceback: {line[:300]}"
        lines = report.read_text().splitlines() if report.exists() else []
        records = {Path(r["input"]).name: r for r in map(json.loads, lines)}
        for name in made:
            record = records.get(name)
            if record is None:
                faults[name] = "no record: the file is not in the report"
            elif record["status"] == "restored":
                if words_ := undecodable(Path(record["output"])):
                    faults[name] = f"undecodable: {words_}"
            elif not record["message"] or "\n" in record["message"]:
                faults[name] = f"no line: {record['message']!r}"
            if record is not None and record["seconds"] > SECONDS:
                faults[name] = f"slow: {record['seconds']:.0f} s"
        left = list(out.rglob(".relume-*")) if out.exists() else []
        if left:
            faults["left"] = f"left over: {left[0].name}"
        for path in out.iterdir() if out.exists() else ():
            if path.name != ".relume" and path.name not in {
                Path(r["output"]).name for r in records.values() if r["output"]
            }:
                faults[path.name] = "stranger: an output that no record names"
        shutil.rmtree(out, ignore_errors=True)
    ends = Counter(r["status"] for r in records.values())
    return faults, max((r["seconds"] for r in records.values()), default=0.0), ends


def undecodable(path: Path) -> str:
    """What Pillow or libvips says of an output, or ""."""
    import pyvips
    from PIL import Image

    try:
        image = pyvips.Image.new_from_file(str(path), fail_on="error")
        image.avg()
        if path.suffix != ".avif" and image.format in ("uchar", "ushort"):
            with Image.open(path) as opened:
                opened.load()
    except Exception as error:
        return " ".join(str(error).split())[:200]
    return ""


if __name__ == "__main__":
    main()
