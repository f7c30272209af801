"""What Perceive-IR's parts cost: parameters, training speed, memory, and time at a megapixel.

    python benchmarks/perceive_ir.py [--side 1024] [--rounds 5] [--steps 12]

Of the toy networks of `relume reproduce perceive-ir --toy`, with weights as they are drawn, which
take the time of trained ones: every arm, on both backbones, three tasks.

- images/s and peak memory of training: `--steps` steps of 8 crops of 64 pixels, of noise, forward,
  losses, backward and Adam, on one thread, each arm in a process of its own; the first two steps
  do not count. What makes the crops is not in it.
- time at side x side pixels: the whole restoration as `restore` does it, the exported graph through
  ONNX Runtime with what is prepared from the whole picture, tiles and blending; backbone alone and
  with guidance in turn, `--rounds` times, and the median of the ratios.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from relume.engine import open_engine
from relume.guidance import Guidance, Guide
from relume.lab.data import DAMAGE, Batch
from relume.lab.export import export
from relume.lab.finished import card_of
from relume.lab.recipe import Recipe
from relume.lab.reproduce import SYSTEMS, Bench, Job
from relume.lab.restorer import Restorer
from relume.priors.choice import priors_of
from relume.priors.damage import KINDS
from relume.restoration import run_model

BATCH, CROP = 8, 64


def bench(name: str) -> Bench:
    (paper,) = [paper for paper in SYSTEMS["perceive-ir"] if paper.name == name]
    return Bench(paper, Path(), Path())


def crops(seed: int = 0) -> Batch:
    """A batch as a run makes it, of noise."""
    rng = torch.Generator().manual_seed(seed)
    lq, gt, *looks = (torch.rand(BATCH, 3, CROP, CROP, generator=rng) for _ in range(5))
    severity = torch.full((BATCH, len(KINDS), CROP, CROP), 0.0)
    severity[:, 0] = 0.5
    known = Guidance(thumbnail=Guide(maps=torch.rand(BATCH, 3, 96, 96, generator=rng)))
    truth = Guidance({DAMAGE: Guide(maps=severity, names=KINDS)})
    words = ("again", "elsewhere", "otherwise")
    return Batch(lq, gt, known, truth, dict(zip(words, looks, strict=True)))


def trained(recipe: Recipe, steps: int) -> dict[str, float]:
    """Images a second of some steps, and the most memory that the process held."""
    torch.set_num_threads(1)
    model: Restorer = recipe.build_model().train()
    objective = recipe.build_objective()
    optimiser = torch.optim.Adam(model.parameters(), 1e-4)
    taken: list[float] = []
    for step in range(steps):
        batch = crops(step)
        began = time.perf_counter()
        objective.begin(step, model)
        loss, _ = objective(batch, model)
        loss.mean().backward()
        optimiser.step()
        optimiser.zero_grad()
        taken.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"images_per_s": BATCH / statistics.median(taken[2:]), "peak_mib": peak / 1024}


def apart(name: str, arm: str, steps: int) -> dict[str, float]:
    """`trained` in a process of its own: memory never shrinks."""
    command = [sys.executable, __file__, "--arm", f"{name}:{arm}", "--steps", str(steps)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def seconds(name: str, arms: list[str], side: int, rounds: int) -> list[list[float]]:
    """Of each round, of each arm: a whole restoration."""
    table = bench(name)
    picture = np.random.default_rng(0).random((1, 3, side, side), np.float32)
    engines = []
    with tempfile.TemporaryDirectory() as folder:
        for arm in arms:
            recipe = table.recipe(Job(table.system.arm(arm)))
            file = Path(folder) / f"{arm}.onnx"
            export(recipe.build_model().eval(), file, card_of(recipe.resolved()))
            engines.append(open_engine(file, "onnx"))
        for engine in engines:  # the first call of a runtime is not like the others
            run_model(picture, engine, priors_of(engine.card, "auto"))
        return [[_timed(picture, engine) for engine in engines] for _ in range(rounds)]


def _timed(picture: np.ndarray, engine: object) -> float:
    began = time.perf_counter()
    run_model(picture, engine, priors_of(engine.card, "auto"))
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.arm:
        name, arm = args.arm.split(":")
        table = bench(name)
        print(json.dumps(trained(table.recipe(Job(table.system.arm(arm))), args.steps)))
        return 0
    for name in ("perceive-ir-nafnet-3", "perceive-ir-restormer-3"):
        table = bench(name)
        print(f"### {name}\n\n| arm | parameters | images/s in training | peak memory, MiB |")
        print("|---|---|---|---|")
        for arm in table.system.arms:
            if arm.control:  # costs what the arm costs that it controls
                continue
            size = sum(p.numel() for p in table.recipe(Job(arm)).build_model().parameters())
            cost = apart(name, arm.name, args.steps)
            speed, peak = cost["images_per_s"], cost["peak_mib"]
            print(f"| {arm.title} | {size:,} | {speed:.0f} | {peak:.0f} |", flush=True)
        rounds = seconds(name, ["plain", "l1"], args.side, args.rounds)
        alone, guided = (statistics.median(times) for times in zip(*rounds, strict=True))
        more = statistics.median(guided / alone for alone, guided in rounds)
        print(
            f"\n{args.side} x {args.side} pixels, {args.rounds} rounds: backbone alone "
            f"{alone:.2f} s, with guidance {guided:.2f} s, {more:.2f} times (median of ratios).\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
