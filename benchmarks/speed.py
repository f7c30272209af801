"""Exported models in each engine against the textbook form in eager torch.

    python benchmarks/speed.py

NAFNet width 32 at 256 x 256 and relume-s at 512 x 512 (its own weights where they ship, else
random ones: costs, not quality). The peer is the same network in the textbook's writing
(`textbook.py`): NCHW, layer norm by hand, float32, eager, without gradients. Every candidate runs
in a process of its own with the same number of threads; a round asks each in turn for one tile,
the ratio is taken round by round. The last column is the largest difference to the peer's output.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from relume.card import Card, find, names
from relume.engine import feeds, open_engine
from relume.errors import MissingError
from relume.guidance import Guidance, Guide

CANDIDATES = {
    "textbook": "textbook, eager torch, float32",
    "onnx": "ONNX Runtime, float32",
    "openvino": "OpenVINO, float32",
    "openvino-bf16": "OpenVINO, bf16",
}


def nafnet32() -> dict[str, Any]:
    """A recipe of the paper's network for the width of 32, with nothing attached."""
    from relume.lab import recipe

    backbone = {
        "kind": "nafnet",
        "width": 32,
        "enc_blocks": [1, 1, 1, 28],
        "middle_blocks": 1,
        "dec_blocks": [1, 1, 1, 1],
    }
    values = recipe.load("relume-s").resolved()
    return {**values, "name": "nafnet-32", "backbone": backbone, "encoders": {}, "adapters": []}


def exported(recipe: dict[str, Any], folder: Path) -> Path:
    """The recipe's network with random weights as a model file."""
    import torch

    from relume.lab.export import export
    from relume.lab.recipe import Recipe

    network = Recipe.model_validate(recipe).build_model()
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in network.named_parameters():
            if name.endswith(("beta", "gamma")):  # zero at first: the blocks would do nothing
                p.normal_(0, 0.1, generator=rng)
    path = folder / f"{recipe['name']}.onnx"
    export(network, path, Card(recipe["name"], recipe=recipe))
    return path


def worker(candidate: str, path: Path, size: int, threads: int) -> None:
    """Say "ready", then answer every line on stdin with the seconds of one tile."""
    rng = np.random.default_rng(0)
    model = find(path)
    lq = rng.random((1, 3, size, size), np.float32)
    drawn = {}
    for reads in model.card.reads:
        array = rng.random(feeds(model.card, lq, Guidance())[reads.prior].shape, np.float32)
        drawn[reads.prior] = Guide(**{reads.kind: array}, stride=reads.stride, whole=reads.whole)
    guidance = Guidance(drawn)

    run: Callable[[], np.ndarray]
    if candidate == "textbook":
        import torch
        from textbook import NAFNet, textbook_form

        from relume.lab import weights
        from relume.lab.finished import restorer_of

        torch.set_num_threads(threads)
        network = restorer_of(weights.load(path.with_suffix(".safetensors"))).eval()
        tensors = guidance.map(lambda g: g.map(torch.from_numpy))
        if model.card.reads:
            peer = textbook_form(network)
            given = (torch.from_numpy(lq), tensors)
        else:
            peer = NAFNet().eval()
            peer.load_state_dict(network.backbone.state_dict())
            given = (torch.from_numpy(lq),)

        def run() -> np.ndarray:
            with torch.no_grad():
                return peer(*given).numpy()
    else:
        name, _, precision = candidate.partition("-")
        engine = open_engine(
            model, engine=name, device="cpu", threads=threads, precision=precision or "float32"
        )

        def run() -> np.ndarray:
            return engine(lq, guidance)

    for _ in range(3):
        out = run()
    np.save(path.parent / f"{candidate}.npy", out)
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(json.dumps(time.perf_counter() - start), flush=True)


def measure(path: Path, size: int, rounds: int, threads: int, folder: Path) -> None:
    """Time all candidates on one model, and print a line for each."""
    here = folder / path.stem
    here.mkdir()
    for suffix in (".onnx", ".safetensors"):
        here.joinpath(path.stem + suffix).symlink_to(path.with_suffix(suffix).resolve())
    processes: dict[str, subprocess.Popen[str]] = {}
    for candidate in CANDIDATES:
        command = [sys.executable, __file__, "--worker", candidate, "--model"]
        command += [str(here / path.name), "--size", str(size), "--threads", str(threads)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        if said(process) != "ready":
            print(f"{CANDIDATES[candidate]:34} not here: {process.wait()} (see above)")
            continue
        processes[candidate] = process
    times: dict[str, list[float]] = {candidate: [] for candidate in processes}
    for _ in range(rounds):
        for candidate, process in processes.items():
            assert process.stdin is not None
            process.stdin.write("one\n")
            process.stdin.flush()
            times[candidate].append(float(said(process)))
    expected = np.load(here / "textbook.npy")
    print(f"{path.stem} at {size} x {size}, {threads} threads, {rounds} interleaved rounds")
    for candidate, seconds in times.items():
        ratios = [a / b for a, b in zip(times["textbook"], seconds, strict=True)]
        difference = np.abs(np.load(here / f"{candidate}.npy") - expected).max()
        print(
            f"  {CANDIDATES[candidate]:32} {1000 * statistics.median(seconds):8.1f} ms"
            f"   {statistics.median(ratios):5.2f} x   [{min(ratios):.2f}, {max(ratios):.2f}]"
            f"   {difference:.1e}"
        )
    for process in processes.values():
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--size", type=int, help="of both tiles; default 256 and 512")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", choices=["nafnet-32", "relume-s"])
    parser.add_argument("--worker", choices=CANDIDATES, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        try:
            worker(args.worker, args.model, args.size, args.threads)
        except MissingError as error:
            print(error, file=sys.stderr)
            raise SystemExit(5) from None
        return

    from relume.lab import recipe

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.only != "relume-s":
            path = exported(nafnet32(), folder)
            measure(path, args.size or 256, args.rounds, args.threads, folder)
        if args.only != "nafnet-32":
            shipped = find("relume-s").path if "relume-s" in names() else None
            if shipped is None or not shipped.with_suffix(".safetensors").exists():
                shipped = exported(recipe.load("relume-s").resolved(), folder)
            measure(shipped, args.size or 512, args.rounds, args.threads, folder)


if __name__ == "__main__":
    main()
