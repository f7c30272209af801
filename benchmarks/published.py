"""Published figures, computed again with the authors' own weights: ours, theirs, the difference.

    python benchmarks/published.py                       # every row, whole sets
    python benchmarks/published.py imdn --sets set5      # rows whose name holds a word, one set
    python benchmarks/published.py ffdnet --pictures 3   # the first three pictures of each set

It tests everything between a weight file and a figure: networks, engine, damage, metrics. A picture
is one tile, as in the papers. Super-resolution is measured on Y, `scale` pixels left out at each
edge, from files that MATLAB's bicubic made smaller. Denoising is measured on RGB (or gray) with
noise that is neither clipped nor rounded, as the papers have it. Beside it stands the figure for
noise in an 8-bit file, which is what a user's picture holds.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from relume.card import Card
from relume.lab.backbones import BACKBONES, Backbone, Output
from relume.lab.backbones.sites import Adapt
from relume.lab.datasets import Pairs, degraded_pairs, folder_pairs
from relume.lab.engine import TorchEngine
from relume.lab.evaluate import engine_restorer, evaluate, told_by_truth
from relume.lab.metrics import Protocol
from relume.lab.report import Report
from relume.lab.restorer import Restorer

SHARED = Path(__file__).resolve().parents[2] / "shared"
DATA = SHARED / "data"
SEED = 11
WHOLE = 1 << 12  # the side of a tile that holds any picture of these sets

Noise = Literal["uint8", "float"]


class Gray(nn.Module):
    """A network for gray pictures, run where pictures have three channels: it sees the first.

    Shape:
        (N, 3 + told, H, W) -> Output.image (N, 3, scale H, scale W), three equal channels.
    """

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.sites, self.inputs, self.reach = backbone.sites, backbone.inputs, backbone.reach
        self.scale, self.multiple_of = backbone.scale, backbone.multiple_of
        self.in_channels = 3 + len(backbone.inputs)

    def forward(self, x: Tensor, taps: Sequence[str] = (), adapt: Adapt | None = None) -> Output:
        out = self.backbone(torch.cat([x[:, :1], x[:, 3:]], 1), taps, adapt)
        return Output(out.image.expand(-1, 3, -1, -1), out.aux)


# Weight file -> row of BACKBONES, constructor arguments.
WEIGHTS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "imdn/IMDN_x2": ("imdn", {"scale": 2}),
    "imdn/IMDN_x3": ("imdn", {"scale": 3}),
    "imdn/IMDN_x4": ("imdn", {"scale": 4}),
    "ffdnet/FFDNet_color": ("ffdnet", {"depth": 12, "width": 96}),
    "ffdnet/FFDNet_gray": ("ffdnet", {"depth": 15, "width": 64, "channels": 1}),
    "cdncnn/color_sigma15": ("dncnn", {"depth": 20}),
    "cdncnn/color_sigma25": ("dncnn", {"depth": 20}),
    "cdncnn/color_sigma50": ("dncnn", {"depth": 20}),
    "dncnn_kair/dncnn_25": ("dncnn", {"depth": 17, "channels": 1}),
}


@dataclass(frozen=True)
class Figure:
    """One published figure.

    Args:
        name: Of the network, as its paper has it.
        weights: Key of WEIGHTS.
        data: Key of SETS.
        psnr: As published, in dB.
        sigma: Of the noise, on the 0-255 scale; None for super-resolution.
    """

    name: str
    weights: str
    data: str
    psnr: float
    sigma: int | None = None


# IMDN: arXiv 1909.11856, the table of PSNR/SSIM (as the tables of ESRT and LAPAR print it too).
# FFDNet: arXiv 1710.04026, the tables of Set12 and CBSD68, which hold DnCNN's and CDnCNN's figures;
# read where Restormer's table repeats FFDNet's row, and implementations of CDnCNN repeat its own.
FIGURES = (
    Figure("IMDN x2", "imdn/IMDN_x2", "set5", 38.00),
    Figure("IMDN x2", "imdn/IMDN_x2", "set14", 33.63),
    Figure("IMDN x3", "imdn/IMDN_x3", "set5", 34.36),
    Figure("IMDN x4", "imdn/IMDN_x4", "set5", 32.21),
    Figure("IMDN x4", "imdn/IMDN_x4", "set14", 28.58),
    Figure("FFDNet, gray", "ffdnet/FFDNet_gray", "set12", 30.43, 25),
    Figure("DnCNN, gray", "dncnn_kair/dncnn_25", "set12", 30.43, 25),
    Figure("FFDNet", "ffdnet/FFDNet_color", "cbsd68", 33.87, 15),
    Figure("FFDNet", "ffdnet/FFDNet_color", "cbsd68", 31.21, 25),
    Figure("FFDNet", "ffdnet/FFDNet_color", "cbsd68", 27.96, 50),
    Figure("CDnCNN", "cdncnn/color_sigma15", "cbsd68", 33.89, 15),
    Figure("CDnCNN", "cdncnn/color_sigma25", "cbsd68", 31.23, 25),
    Figure("CDnCNN", "cdncnn/color_sigma50", "cbsd68", 27.92, 50),
)


def super_resolution(folder: str) -> Callable[[Figure, int, Noise], Pairs]:
    def pairs(figure: Figure, scale: int, noise: Noise) -> Pairs:
        root = DATA / folder
        return folder_pairs(root / f"LR_bicubic/X{scale}", root / "HR", scale=scale)

    return pairs


def denoising(folder: str, ids: str | None = None) -> Callable[[Figure, int, Noise], Pairs]:
    def pairs(figure: Figure, scale: int, noise: Noise) -> Pairs:
        names = None if ids is None else (DATA / ids).read_text().split()
        spec = f"noise:sigma={figure.sigma}"
        return degraded_pairs(DATA / folder, spec, seed=SEED, noise=noise, names=names)

    return pairs


SETS = {
    "set5": super_resolution("sr/set5"),
    "set14": super_resolution("sr/set14"),
    "set12": denoising("denoise/set12"),
    "cbsd68": denoising("bsds500/images/val", "bsds500/cbsd68_ids.txt"),
}


def network(weights: str) -> tuple[Restorer, str]:
    """The network of a row of WEIGHTS, and its file's sha256."""
    kind, arguments = WEIGHTS[weights]
    path = SHARED / f"weights/{weights}.safetensors"
    tensors = load_file(path)
    if next(iter(tensors))[0].isdigit():  # a bare chain, saved without its parent
        tensors = {f"model.{name}": tensor for name, tensor in tensors.items()}
    backbone: Any = BACKBONES[kind](**arguments)
    backbone.load_state_dict(tensors)
    gray = arguments.get("channels") == 1
    whole: Backbone = Gray(backbone) if gray else backbone
    return Restorer(whole), hashlib.sha256(path.read_bytes()).hexdigest()


def measured(
    figure: Figure, noise: Noise, pictures: int | None, progress: Callable[[int, int], None]
) -> Report:
    """One row of FIGURES, through the path of `relume evaluate`."""
    restorer, digest = network(figure.weights)
    card = Card(
        figure.weights.replace("/", "-"),
        scale=restorer.scale,
        multiple_of=restorer.multiple_of,
        support="local" if restorer.reach is not None else "global",
        reads=restorer.reads,
    )
    engine = TorchEngine(restorer, card, device="cpu")
    pairs = SETS[figure.data](figure, card.scale, noise)
    pairs = replace(pairs, items=pairs.items[:pictures])
    restore, prior = engine_restorer(engine, tile=WHOLE)
    crop = card.scale if card.scale > 1 else 0
    return evaluate(
        restore,
        pairs,
        Protocol(channels="y" if crop else "rgb", crop=crop),
        model={"name": card.name, "sha256": digest},
        prior=prior,
        told=told_by_truth(card),
        progress=progress,
    )


def chosen(words: Sequence[str], sets: Sequence[str]) -> Iterator[Figure]:
    for figure in FIGURES:
        named = not words or any(w.lower() in figure.name.lower() for w in words)
        if named and (not sets or figure.data in sets):
            yield figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="only rows whose name holds one of these")
    parser.add_argument("--sets", nargs="*", default=[], choices=sorted(SETS))
    parser.add_argument("--sigma", type=int, help="only this noise level")
    parser.add_argument(
        "--pictures", type=int, help="the first N of each set; no row is the paper's"
    )
    parser.add_argument("--no-uint8", action="store_true", help="leave out noise in an 8-bit file")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    def progress(done: int, of: int) -> None:
        print(f"\r{done} of {of}", end="\r", flush=True)

    print(
        f"{'network':14}{'set':8}{'noise':>6}{'n':>4}{'ours':>9}{'paper':>8}{'diff':>8}{'uint8':>8}"
    )
    protocols: dict[str, None] = {}
    for figure in chosen(arguments.words, arguments.sets):
        if arguments.sigma is not None and figure.sigma != arguments.sigma:
            continue
        report = measured(figure, "float", arguments.pictures, progress)
        psnr, count = report.metrics["psnr"]["mean"], report.metrics["psnr"]["n"]
        file = "-"
        if figure.sigma is not None and not arguments.no_uint8:
            rounded = measured(figure, "uint8", arguments.pictures, progress)
            file = f"{rounded.metrics['psnr']['mean']:.2f}"
        whole = arguments.pictures is None
        against = f"{figure.psnr:8.2f}{psnr - figure.psnr:+8.3f}" if whole else f"{'':16}"
        noise = "-" if figure.sigma is None else str(figure.sigma)
        print(
            f"{figure.name:14}{figure.data:8}{noise:>6}{count:4}{psnr:9.3f}{against}{file:>8}",
            flush=True,
        )
        protocols[str(report.protocol)] = None
    for protocol in protocols:
        print(f"  {protocol}")


if __name__ == "__main__":
    main()
