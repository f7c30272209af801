"""What is watched while a network trains: crops, their PSNR as a curve, and strips to look at."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from ..errors import UsageError
from ..guidance import Guidance
from ..image import Picture, is_image, read, write
from ..image.drawing import line_chart
from .controls import TOLD_THE_TRUTH
from .degrade import View, generator, parse
from .degrade.noise import normals
from .metrics import psnr
from .mixed import NOISE
from .pairs import FilePair, as_float, find_pairs, planes, scale_of
from .recipe import Recipe
from .recipe import Validation as Rules
from .restorer import as_tensors
from .sources import Source, controlled
from .tasks import SIGMAS, noisy, sides

Item = TypeVar("Item")


@dataclass(frozen=True)
class Pair:
    """One validation crop, as files would hold it, and what is known of it.

    Args:
        name: Its damage, `clean`, or `pairs` where it is a real one.
        lq: (1, 3, h, w).
        gt: (1, 3, s h, s w), s the scale.
        guidance: Of the crop, read from the whole damaged picture.
    """

    name: str
    lq: Tensor
    gt: Tensor
    guidance: Guidance

    @property
    def shown(self) -> Tensor:
        """lq as large as gt: enlarged by cubic convolution, what a network has to beat."""
        if self.lq.shape == self.gt.shape:
            return self.lq
        size = (self.gt.shape[-2], self.gt.shape[-1])
        return interpolate(self.lq, size, mode="bicubic", align_corners=False).clamp(0, 1)


def validation_pairs(recipe: Recipe, root: Path) -> list[Pair]:
    """Centre crops of what the recipe validates on; none where it names nothing.

    Photographs come under each of its SPECs, and clean: the damage is drawn once for the whole
    photograph. Real pairs come as they are, and so do those held out of tasks; their noise is drawn
    once, at each sigma. Guidance is read from the whole picture, as at use.

    Raises:
        UsageError: There are no such photographs, or pairs of which one half is missing.
    """
    rules = recipe.validation
    groups: list[tuple[str, list[Whole]]] = []
    if rules.specs:
        paths = _spread(_photographs(root, recipe.data.validation), rules.photographs)
        for spec in ("", *rules.specs):
            damaged = [_damaged(p, spec, generator(rules.seed, i)) for i, p in enumerate(paths)]
            groups.append((spec or "clean", damaged))
    if rules.lq:
        files = _spread(find_pairs(root, rules.lq, rules.gt), rules.photographs)
        scale_of(files)
        groups.append(("pairs", [(read(f.lq).rgb()[0], read(f.gt).rgb()[0]) for f in files]))
    if rules.held_out:
        groups += _held_out(recipe.data.tasks, root, rules)
    sources = recipe.build_sources() if groups else {}
    return [pair for name, whole in groups for pair in _cropped(name, whole, sources, rules)]


Whole = tuple[np.ndarray, np.ndarray]
"""lq (3, h, w) and gt (3, s h, s w) of one whole picture, as files would hold them."""


def _held_out(tasks: int, root: Path, rules: Rules) -> list[tuple[str, list[Whole]]]:
    """Of each task, noise of each sigma by itself, pictures that nobody trains on.

    Raises:
        UsageError: There are no tasks, or as `tasks.training`.
    """
    if not tasks:
        raise UsageError("validation.held_out is of data.tasks: give the recipe tasks, or specs.")
    groups: list[tuple[str, list[Whole]]] = []
    for task, (_, held) in sides(tasks, root).items():
        files = _spread(held, rules.photographs)
        if task != NOISE:
            scale_of(files)
            groups.append((task, [(read(f.lq).rgb()[0], read(f.gt).rgb()[0]) for f in files]))
            continue
        for sigma in SIGMAS:
            wholes = [_noisy(f, sigma, rules.seed + i) for i, f in enumerate(files)]
            groups.append((f"{task} {sigma}", wholes))
    return groups


def _noisy(file: FilePair, sigma: int, seed: int) -> Whole:
    clean = planes(read(file.gt))
    if clean.dtype != np.uint8:
        raise UsageError(f"{file.gt} has more than 8 bits: the protocol's noise is uint8.")
    drawn = normals(seed, View(0, 0, clean.shape[-2], clean.shape[-1]))
    return as_float(noisy(clean, sigma, drawn)), as_float(clean)


def _cropped(
    name: str, whole: Sequence[Whole], sources: Mapping[str, Source], rules: Rules
) -> Iterator[Pair]:
    # The truth that an oracle knows is not at hand here: it is told what its prior says.
    told_apart = {n: s for n, s in sources.items() if s.control not in TOLD_THE_TRUTH}
    told = [Guidance({key: s.prior(lq[None]) for key, s in sources.items()}) for lq, _ in whole]
    for index, (lq, gt) in enumerate(whole):
        donor, rng = told[index - 1], generator(rules.seed, index)
        known = controlled(told[index], told_apart, Guidance(), donor, rng)
        height, width = (min(rules.crop, side) for side in lq.shape[-2:])
        box = View((lq.shape[-2] - height) // 2, (lq.shape[-1] - width) // 2, height, width)
        known = known.crop(*box)
        yield Pair(
            name,
            _part(lq, box),
            _part(gt, box.scaled(gt.shape[-1] // lq.shape[-1])),
            as_tensors(known),
        )


def _part(picture: np.ndarray, box: View) -> Tensor:
    _, height, width = picture.shape
    part = box.cut(picture[None], View(0, 0, height, width))
    return torch.from_numpy(np.ascontiguousarray(part))


def _photographs(root: Path, name: str) -> list[Path]:
    folder = root / name
    there = name and folder.is_dir()  # no name is not the root
    paths = sorted(p for p in folder.iterdir() if is_image(p)) if there else []
    if not paths:
        raise UsageError(f"No photographs in {folder}. Give a folder as data.validation.")
    return paths


def _spread(items: list[Item], count: int) -> list[Item]:
    """So many of them, evenly: crops of one photograph, and frames of one film, are neighbours."""
    return items[:: max(1, len(items) // count)][:count]


def _damaged(path: Path, spec: str, rng: torch.Generator) -> Whole:
    gt = read(path).rgb()[0]
    if not spec:
        return gt, gt
    chain = parse(spec)
    sampled = chain.sample(rng, (gt.shape[-2], gt.shape[-1]))
    done = chain.apply(gt, sampled, truth=False, finish="uint8")
    return done.lq, done.gt


class Validation:
    """Scores averaged weights on the pairs; leaves a strip and the curve in the run's folder."""

    def __init__(self, run: Path, recipe: Recipe, pairs: list[Pair]) -> None:
        self.run, self.pairs = run, pairs
        # As long as a step takes on a GPU, a crop takes on a CPU.
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = recipe.build_model().eval().to(self.device)

    @torch.inference_mode()
    def __call__(self, weights: Mapping[str, Tensor], step: int) -> dict[str, float]:
        self.model.load_state_dict(dict(weights))
        found: dict[str, list[float]] = {}
        rows: dict[str, Tensor] = {}
        for pair in self.pairs:
            told = pair.guidance.map(lambda g: g.map(lambda a: a.to(self.device)))
            out = self.model(pair.lq.to(self.device), told).clamp(0, 1).cpu()
            after, before = float(psnr(out, pair.gt)), float(psnr(pair.shown, pair.gt))
            found.setdefault(pair.name, []).append(after)
            found.setdefault(f"{pair.name} gain", []).append(after - before)
            rows.setdefault(pair.name, torch.cat([pair.shown, out, pair.gt], 3))
        strips = self.run / "strips"
        strips.mkdir(exist_ok=True)
        width = max(row.shape[3] for row in rows.values())
        strip = torch.cat([pad(row, (0, width - row.shape[3])) for row in rows.values()], 2)
        write(Picture.from_rgb(strip.numpy()), strips / f"step-{step:08d}.png")
        figures = {name: sum(v) / len(v) for name, v in found.items()}
        self._draw(step, figures)
        return figures

    def _draw(self, step: int, figures: Mapping[str, float]) -> None:
        path = self.run / "log.jsonl"
        lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        done = [(e["step"], e["validation"]) for e in lines if "validation" in e]
        series: dict[str, list[tuple[float, float]]] = {}
        for at, known in [*done, (step, figures)]:
            for name, value in known.items():
                if name.endswith(" gain") and name != "clean gain":
                    series.setdefault(name.removesuffix(" gain"), []).append((at, value))
        chart = line_chart(series, title="PSNR gain on validation crops (dB) over steps")
        write(Picture.from_rgb(chart), self.run / "curve.png")
