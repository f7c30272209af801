"""What damage costs, against the best plain way to do it, and how severe the evaluation specs are.

    python benchmarks/degrade.py                          one thread, this process's own CPU time
    python benchmarks/degrade.py --photographs CBSD68     mean input PSNR of the evaluation specs

Ours is what a training sample asks for: a view of a photograph of bytes, rounded as a file is. It
stands beside a plain form of the same damage without physics (no linear light, no depth, no views
that agree, floats in and out), measured in the same run, and beside the mark: twice what the best
plain form took on the machine of the goals. Below 1 in a column of ratios is faster.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import conv2d

from relume.image import is_image, read
from relume.lab.degrade import View, generator, parse

# kind -> (SPEC, mark for 64 x 64, mark for 1 MP; ms). Haze has 0.05 where twice the best is 0.02:
# to make light of bytes and bytes of the light takes more than that before there is any haze.
COSTS = {
    "noise": ("noise:sigma=25", 0.106, 26.0),
    "blur": ("blur:length=15,curve=0.2", 0.26, 70.0),
    "rain": ("rain:density=0.005,length=20", 0.16, 36.0),
    "haze": ("haze:beta=0.6", 0.05, 4.4),
    "jpeg": ("jpeg:quality=30", 0.10, 17.8),
    "sensor": ("sensor:iso=1600", None, None),
    "lowlight": ("lowlight", None, None),
    "raindrop": ("raindrop:count=40", None, None),
    "defocus": ("defocus:radius=4", None, None),
    "poisson": ("poisson", None, None),
}
WINDOWS = {
    "noise:sigma=25": (20.3, 20.8),
    "haze:beta=0.15..0.6": (12, 16),
    "rain:density=0.002..0.006": (18, 21),
    "raindrop:count=40..80": (16, 24),
    "blur:length=11..17": (21, 24),
    "lowlight:gain=0.12..0.3": (8, 12),
    "jpeg:quality=10..30": (27, 29),
}


def cost(run: Callable[[], object], rounds: int) -> float:
    """Least of `rounds` CPU times in ms, all threads: what others do on the machine only adds."""
    run()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times) * 1e3


def plain(kind: str, side: int) -> Callable[[], object] | None:
    """The damage in its plainest form on a (3, side, side) picture."""
    x = np.random.default_rng(0).random((3, side, side), dtype=np.float32)
    tensor, depth = torch.from_numpy(x), x[0].copy()
    if kind == "noise":
        return lambda: tensor + torch.randn(tensor.shape) * (25 / 255)
    if kind == "blur":
        line = torch.eye(15)[None, None] / 15
        return lambda: conv2d(tensor[:, None], line, padding=7)
    if kind == "rain":
        line = torch.full((1, 1, 20, 1), 0.6)

        def streaks() -> torch.Tensor:
            drops = (torch.rand(1, 1, side, side) < 0.005).float()
            cover = conv2d(drops, line, padding=(10, 0))[0, :, :side].clamp_(max=1)
            return tensor + cover * (1 - tensor)

        return streaks
    if kind == "haze":
        return lambda: x * depth + np.float32(0.8) * (1 - depth)
    if kind == "jpeg":
        pixels = (x.transpose(1, 2, 0) * 255).astype(np.uint8)

        def saved() -> np.ndarray:
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=30)
            return np.asarray(Image.open(file))

        return saved
    return None


def costs() -> None:
    torch.set_num_threads(1)
    clouds = torch.nn.functional.interpolate(
        torch.rand(1, 3, 48, 48, generator=generator(0, 0)), size=(1024, 1024), mode="bicubic"
    )
    gt = (clouds[0].clamp(0, 1) * 255).byte().numpy()
    thumbnail = np.ascontiguousarray(gt[:, ::10, ::10][:, :96, :96])
    print(f"{'ms':10}|{'64 x 64':^34}|{'1 MP':^34}|{'once a photograph':^18}")
    group = f"{'ours':>8}{'mark':>8}{'/mark':>6}{'plain':>6}{'/plain':>6}"
    print(f"{'kind':10}|{group}|{group}|{'draw':>9}{'small':>9}")
    for kind, (spec, *marks) in COSTS.items():
        crops, whole, draw, small = ours(spec, gt, thumbnail)
        forms = plain(kind, 64), plain(kind, 1024)
        peers = [None if f is None else cost(f, n) for f, n in zip(forms, (60, 5), strict=True)]
        cells = [
            f"{shown(t):>8}{shown(mark):>8}{ratio(t, mark):>6}{shown(peer):>6}{ratio(t, peer):>6}"
            for t, mark, peer in zip((crops, whole), marks, peers, strict=True)
        ]
        print(f"{kind:10}|{cells[0]}|{cells[1]}|{draw:>9.3f}{small:>9.3f}", flush=True)


def shown(ms: float | None) -> str:
    return "-" if ms is None else f"{ms:.3f}" if ms < 1 else f"{ms:.1f}"


def ratio(ms: float, other: float | None) -> str:
    return "-" if other is None else f"{ms / other:.1f}"


def ours(spec: str, gt: np.ndarray, thumbnail: np.ndarray) -> tuple[float, float, float, float]:
    """Times of a 64 x 64 view (mean over drawn damages), 1 MP, drawing, a thumbnail."""
    chain = parse(spec)
    drawn = [chain.sample(generator(1, i), gt.shape[1:]) for i in range(8)]
    crops = []
    for index, sampled in enumerate(drawn):
        places = torch.randint(0, 960, (4, 2), generator=generator(2, index)).tolist()

        def views(sampled=sampled, places=places) -> None:  # by turns, so that none is remembered
            for top, left in places:
                chain.apply(gt, sampled, View(top, left, 64, 64), truth=False, finish="uint8")

        crops.append(cost(views, 20) / len(places))
    return (
        statistics.mean(crops),
        cost(lambda: chain.apply(gt, drawn[0], truth=False, finish="uint8"), 5),
        cost(lambda: chain.sample(generator(1, 0), (768, 512)), 20),
        cost(lambda: chain.apply_small(thumbnail, drawn[0]), 20),
    )


def windows(folder: Path, names: list[str] | None) -> None:
    from relume.priors.regions import regions

    files = [f for f in sorted(folder.iterdir()) if is_image(f) and (not names or f.stem in names)]
    pictures = [read(f).rgb() for f in files]
    labels = [regions(rgb).regions[0] for rgb in pictures]
    print(f"{len(files)} photographs, seed 11")
    for spec, (low, high) in WINDOWS.items():
        chain, values = parse(spec), []
        for index, (rgb, label) in enumerate(zip(pictures, labels, strict=True)):
            sampled = chain.sample(generator(11, index), rgb.shape[-2:], label)
            done = chain.apply(rgb[0], sampled, truth=False, finish="uint8")
            values.append(-10 * np.log10(np.mean((done.lq - done.gt) ** 2)))
        mean = float(np.mean(values))
        verdict = "inside" if low <= mean <= high else "OUTSIDE"
        spread = f"{min(values):.1f}..{max(values):.1f}"
        print(f"{spec:28} {mean:6.2f} dB ({spread}), {verdict} {low}-{high}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--photographs", type=Path, help="folder of good photographs")
    parser.add_argument("--names", type=Path, help="file with the stems to take, one a line")
    given = parser.parse_args()
    if given.photographs:
        windows(given.photographs, given.names and given.names.read_text().split())
    else:
        costs()
