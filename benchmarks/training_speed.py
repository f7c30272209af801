"""A training step of ours against the textbook's, and the share of it that loading takes.

    python benchmarks/training_speed.py --data ../shared/data

Both train the network of a recipe with its objective, its batch and its crops, AdamW and gradient
clipping, from the same weights on the same samples. Ours is the step of `relume.lab.train`:
channels-last, native layer norm, bf16 autocast. The textbook's is NCHW in float32, every block in
the paper's writing (`textbook.py`). Interleaved; the ratio is taken round by round.

Then a run of our steps as `relume train` makes them, each on a batch (crop, damage, thumbnail) that
the loader's own process has made meanwhile: what the loop waits for it is the share of loading and
synthesis. What a batch costs that process is printed beside it.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from textbook import textbook_form
from torch import nn

from relume.guidance import Guidance, Guide
from relume.image import Picture, write
from relume.lab import recipe as recipes
from relume.lab.data import Batch
from relume.lab.loader import Loader


def random_batch(count: int, crop: int) -> Batch:
    rng = torch.Generator().manual_seed(0)
    gt = torch.rand(count, 3, crop, crop, generator=rng)
    lq = (gt + 0.1 * torch.randn(gt.shape, generator=rng)).clamp(0, 1)
    small = torch.rand(count, 3, 96, 96, generator=rng)
    return Batch(lq, gt, Guidance(thumbnail=Guide(maps=small, whole=True)))


def stepper(model: nn.Module, objective: nn.Module, *, ours: bool) -> Callable[[Batch], None]:
    """One optimiser step on a batch: ours as the loop in relume.lab.train takes it, or plain."""
    if ours:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.9))

    def step(batch: Batch) -> None:
        lq = batch.lq.contiguous(memory_format=torch.channels_last) if ours else batch.lq
        batch = Batch(lq, batch.gt, batch.guidance)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=ours):
            loss, _ = objective(batch, model)
        loss.mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if not torch.isfinite(norm):
            raise SystemExit("A step was not finite: these figures would mean nothing.")
        optimizer.step()

    return step


def photographs(folder: Path, count: int) -> None:
    """Pictures to load where no data is given: sums of waves, 300 x 400."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:300, :400].astype(np.float32)
    for i in range(count):
        waves = [np.sin(x * a + y * b + c) for a, b, c in rng.uniform(-0.2, 0.2, (6, 3))]
        rgb = 0.5 + 0.16 * np.stack([sum(waves[j::3]) for j in range(3)])
        write(Picture.from_rgb(rgb[None].clip(0, 1).astype(np.float32)), folder / f"{i}.png")


def source(recipe: str, root: Path) -> Callable[[int, int, int], Batch]:
    """Where batches come from, in the loader's process."""
    return recipes.load(recipe).build_samples(root).batch


def loading(
    recipe: str, root: Path, step: Callable[[Batch], None], steps: int, count: int, crop: int
) -> tuple[float, float]:
    """Seconds waited for batches, and seconds in all, over `steps` steps fed by a loader."""
    asks = [(i * count, count, crop) for i in range(steps + 3)]
    following = dict(itertools.pairwise(asks))
    waited = total = 0.0
    with Loader(source, (recipe, root), following.get) as batches:
        for i, ask in enumerate(asks):
            start = time.perf_counter()
            batch = batches(*ask)
            ready = time.perf_counter()
            step(batch)
            if i >= 3:  # the photographs are loaded, and the first batches wait
                waited += ready - start
                total += time.perf_counter() - start
    return waited, total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="relume-s")
    parser.add_argument("--data", type=Path, help="Data root; without it, pictures drawn here.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--size", type=int, help="Of the crops; default: the recipe's.")
    parser.add_argument("--batch", type=int, help="Default: the recipe's.")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    recipe = recipes.load(args.recipe)
    schedule = recipe.build_schedule()
    crop, count = args.size or schedule.crop, args.batch or schedule.batch
    model = recipe.build_model()
    work: dict[str, Any] = {
        "textbook": stepper(textbook_form(model), recipe.build_objective(), ours=False),
        "ours": stepper(model, recipe.build_objective(), ours=True),
    }
    times: dict[str, list[float]] = {"textbook": [], "ours": []}
    fixed = random_batch(count, crop)
    for round_ in range(args.rounds + 2):
        for key in times:
            start = time.perf_counter()
            work[key](fixed)
            if round_ >= 2:
                times[key].append(time.perf_counter() - start)

    def median_ms(key: str) -> float:
        return 1000 * statistics.median(times[key])

    ratios = [a / b for a, b in zip(times["textbook"], times["ours"], strict=True)]
    print(
        f"{recipe.name}, {count} crops of {crop} x {crop}, {args.threads} threads, "
        f"{args.rounds} interleaved rounds"
    )
    for key in ("textbook", "ours"):
        rate = 1000 * count / median_ms(key)
        print(f"{key:10} {median_ms(key):8.1f} ms a step {rate:8.1f} images/s")
    print(
        f"ours / textbook: {statistics.median(ratios):.2f} x images/s "
        f"[{min(ratios):.2f}, {max(ratios):.2f}]"
    )

    with tempfile.TemporaryDirectory() as name:
        root = args.data or Path(name)
        if args.data is None:
            folder = root / recipe.data.photographs
            folder.mkdir(parents=True)
            photographs(folder, 8)
        waited, total = loading(args.recipe, root, work["ours"], 4 * args.rounds, count, crop)
        batches = source(args.recipe, root)
        torch.set_num_threads(1)
        start = time.perf_counter()
        for i in range(4 * args.rounds):
            batches(i * count, count, crop)
        made = (time.perf_counter() - start) / (4 * args.rounds)
    print(
        f"loading and synthesis: the loop waits {100 * waited / total:.1f} % of a step; a batch "
        f"costs the loader's process {1000 * made:.1f} ms"
    )


if __name__ == "__main__":
    main()
