"""Region means from a label map against the plain form, masks x pixels x channels.

    python benchmarks/regions.py
    python benchmarks/regions.py --regions 256 --size 2880 --alone

Both start from the same overlapping masks and the same picture. The plain form is the MAP unit as
SAM-Deblur's paper has it (arXiv 2309.02270): every mask times every pixel times every channel. Ours
builds the partition and the label map's means. It is measured apart with a label map at hand, as in
training, where one is made per photograph; "both ways" is forward and backward. The second line
above is a picture of 4K (8.3 megapixels), for which the plain form has not the memory. Times are
interleaved, the ratio taken pair by pair; memory is the rise of the peak resident size, each form
in its own process.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from relume.lab.regions import region_mean
from relume.priors.regions import partition


def scene(count: int, side: int, channels: int) -> tuple[Tensor, np.ndarray]:
    """A picture (1, C, side, side) and discs (count, side, side) bool, which overlap."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    masks = np.empty((count, side, side), bool)
    for mask in masks:
        centre, radius = rng.uniform(0, side, 2), side * rng.uniform(0.02, 0.15)
        np.less((y - centre[0]) ** 2 + (x - centre[1]) ** 2, radius**2, out=mask)
    return torch.from_numpy(rng.random((1, channels, side, side), np.float32)), masks


def disjoint(masks: np.ndarray) -> np.ndarray:
    """The same masks without overlap, the background first: what both forms agree on."""
    labels = partition(masks)
    return labels[None] == np.arange(1, len(masks) + 2, dtype=np.int32)[:, None, None]


def plain(f: Tensor, masks: np.ndarray) -> Tensor:
    """The average under each mask, written back under it; uncovered pixels share one average."""
    m = torch.from_numpy(masks).float()[:, None]  # (M, 1, H, W)
    mean = (m * f).sum((2, 3), keepdim=True) / (m.sum((2, 3), keepdim=True) + 1e-8)
    out = (mean * m).sum(0, keepdim=True)
    rest = 1 - m.sum(0, keepdim=True).clamp(0, 1)
    return out + rest * (rest * f).sum((2, 3), keepdim=True) / (rest.sum() + 1e-8)


def label_map(f: Tensor, masks: np.ndarray) -> Tensor:
    return region_mean(f, torch.from_numpy(partition(masks))[None], len(masks) + 2)


def truth(f: Tensor, labels: np.ndarray) -> np.ndarray:
    """Means in float64, written back: (C, H, W)."""
    flat = labels.reshape(-1)
    area = np.bincount(flat).clip(1)
    planes = f[0].double().numpy().reshape(f.shape[1], -1)
    return np.stack([(np.bincount(flat, p) / area)[labels] for p in planes])


def peak_rise(work: Callable[[], object]) -> float:
    """MiB by which the peak resident size rises while `work` runs."""

    def kib(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field))

    Path("/proc/self/clear_refs").write_text("5")  # the peak starts over from here
    before = kib("VmRSS")
    work()
    return (kib("VmHWM") - before) / 1024


def both_ways(form: Callable[[Tensor], Tensor], f: Tensor) -> None:
    leaf = f.detach().requires_grad_()
    form(leaf).square().sum().backward()


FORMS: dict[str, Callable[[Tensor, np.ndarray], Tensor]] = {"plain": plain, "label map": label_map}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--regions", type=int, default=64)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--alone", action="store_true", help="Leave the plain form out.")
    parser.add_argument("--memory-of", choices=FORMS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    f, masks = scene(args.regions, args.size, args.channels)

    if args.memory_of:
        small = scene(2, 32, args.channels)
        FORMS[args.memory_of](*small)  # libraries load what they load at first use
        print(json.dumps(peak_rise(lambda: FORMS[args.memory_of](f, masks))))
        return

    labels = torch.from_numpy(partition(masks))[None]
    count = args.regions + 2
    works: dict[str, Callable[[], object]] = {
        "plain": lambda: plain(f, masks),
        "plain, both ways": lambda: both_ways(lambda leaf: plain(leaf, masks), f),
        "label map": lambda: label_map(f, masks),
        "label map at hand": lambda: region_mean(f, labels, count),
        "label map, both ways": lambda: both_ways(lambda leaf: label_map(leaf, masks), f),
    }
    if args.alone:
        works = {name: work for name, work in works.items() if not name.startswith("plain")}
    times: dict[str, list[float]] = {name: [] for name in works}
    for round_ in range(args.rounds + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if round_:
                times[name].append(time.perf_counter() - start)

    def ratio(name: str) -> str:
        than = "plain, both ways" if name.endswith("both ways") else "plain"
        if than not in times:
            return ""
        pairs = zip(times[than], times[name], strict=True)
        return f"{statistics.median(a / b for a, b in pairs):6.1f} x faster than {than}"

    print(
        f"{args.regions} regions, {args.size} x {args.size}, {args.channels} channels, "
        f"{args.threads} threads, medians of {args.rounds} interleaved rounds"
    )
    for name, seconds in times.items():
        print(f"{name:20} {1000 * statistics.median(seconds):8.1f} ms   {ratio(name)}")
    if args.alone:
        return
    memory = {}
    for name in FORMS:
        command = [sys.executable, *sys.argv, "--memory-of", name]
        memory[name] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    for name, mib in memory.items():
        print(f"{name:20} {mib:8.1f} MiB  1/{memory['plain'] / mib:.0f} of the memory")
    expected = truth(f, labels[0].numpy())
    ours = np.abs(label_map(f, masks)[0].numpy() - expected).max()
    theirs = np.abs(plain(f, disjoint(masks))[0].numpy() - expected).max()
    print(
        f"largest difference to float64: label map {ours:.1e}, plain on the partition {theirs:.1e}"
    )


if __name__ == "__main__":
    main()
