"""A training run on disk: recipe, log, curve, strips, checkpoints, and the finished weights."""

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ..errors import OutputError, UsageError
from ..guidance import Guidance, stack
from ..image import Picture, is_image, read, write
from ..image.drawing import line_chart
from .data import Batch
from .degrade import generator, parse
from .export import as_tensors, described
from .finished import begin_with, card_of, keep_first, load_backbone, save_adapter
from .loader import Loader
from .metrics import psnr
from .pairs import find_pairs
from .recipe import Recipe
from .restorer import Restorer
from .sources import controlled
from .train import train
from .weights import save, to_half


@dataclass(frozen=True)
class Pair:
    """One validation crop: lq and gt (1, 3, h, w) as a file would hold them, and what is known."""

    spec: str
    lq: Tensor
    gt: Tensor
    guidance: Guidance


def validation_pairs(recipe: Recipe, root: Path) -> list[Pair]:
    """Centre crops of validation photographs under each of the recipe's SPECs, and clean.

    The damage is drawn once for the whole photograph, and the guidance is read from the whole
    damaged photograph, as at use.

    Raises:
        UsageError: The folder holds no photographs.
    """
    folder = root / recipe.data.validation
    there = recipe.data.validation and folder.is_dir()
    paths = sorted(p for p in folder.iterdir() if is_image(p)) if there else []
    if not paths:
        raise UsageError(f"No photographs in {folder}. Give a folder as data.validation.")
    rules = recipe.validation
    # Crops of one photograph stand beside it in the list: take them apart.
    paths = paths[:: max(1, len(paths) // rules.photographs)][: rules.photographs]
    sources = recipe.build_sources()
    # The truth that an oracle knows is not at hand here: it is told what its prior says.
    told_apart = {name: s for name, s in sources.items() if s.control != "oracle"}
    damaged = {
        (index, spec): _damaged(path, spec, generator(rules.seed, index))
        for index, path in enumerate(paths)
        for spec in ("", *rules.specs)
    }
    told = {
        key: Guidance({name: source.prior(lq[None]) for name, source in sources.items()})
        for key, (lq, _) in damaged.items()
    }
    pairs = []
    for (index, spec), (lq, gt) in damaged.items():
        known, donor = told[index, spec], told[(index or len(paths)) - 1, spec]
        known = controlled(known, told_apart, Guidance(), donor, generator(rules.seed, index))
        height, width = (min(rules.crop, side) for side in lq.shape[-2:])
        top, left = (lq.shape[-2] - height) // 2, (lq.shape[-1] - width) // 2
        known = known.crop(top, left, height, width)
        view = np.s_[None, :, top : top + height, left : left + width]
        pairs.append(
            Pair(
                spec or "clean",
                torch.from_numpy(lq[view]),
                torch.from_numpy(gt[view]),
                known.map(lambda g: g.map(lambda a: torch.from_numpy(np.ascontiguousarray(a)))),
            )
        )
    return pairs


def _damaged(path: Path, spec: str, rng: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
    """lq and gt (3, H, W) of one whole photograph, as files would hold them."""
    gt = read(path).rgb()[0]
    if not spec:
        return gt, gt
    chain = parse(spec)
    sampled = chain.sample(rng, (gt.shape[-2], gt.shape[-1]))
    return chain.apply(gt, sampled, truth=False, finish="uint8").lq, gt


class Validation:
    """Scores averaged weights on the pairs; leaves a strip and the curve in the run's folder."""

    def __init__(self, run: Path, recipe: Recipe, pairs: list[Pair]) -> None:
        self.run, self.pairs = run, pairs
        self.model = recipe.build_model().eval()

    @torch.inference_mode()
    def __call__(self, weights: Mapping[str, Tensor], step: int) -> dict[str, float]:
        self.model.load_state_dict(dict(weights))
        found: dict[str, list[float]] = {}
        rows: dict[str, np.ndarray] = {}
        for pair in self.pairs:
            out = self.model(pair.lq, pair.guidance).clamp(0, 1)
            after, before = float(psnr(out, pair.gt)), float(psnr(pair.lq, pair.gt))
            found.setdefault(pair.spec, []).append(after)
            found.setdefault(f"{pair.spec} gain", []).append(after - before)
            if pair.spec not in rows:
                rows[pair.spec] = torch.cat([pair.lq, out, pair.gt], 3).numpy()
        strips = self.run / "strips"
        strips.mkdir(exist_ok=True)
        strip = np.concatenate(list(rows.values()), 2)
        write(Picture.from_rgb(strip), strips / f"step-{step:08d}.png")
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


def run_recipe(
    recipe: Recipe,
    run: Path,
    *,
    root: Path,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> Path:
    """Train a recipe in a folder, or go on where the folder stopped.

    Args:
        recipe: What to do.
        run: The run's folder; made if absent.
        root: The folder that the recipe's data folders lie in. It is not part of the recipe.
        progress: (step, figures) after each step.

    Returns:
        Path of the finished `model.safetensors`: the averaged weights, rounded to half precision.

    Raises:
        UsageError: The folder holds a run of another recipe, or the data is not there.
        OutputError: The folder cannot be written.
    """
    written = run / "recipe.toml"
    try:
        run.mkdir(parents=True, exist_ok=True)
        if written.exists() and written.read_text(encoding="utf-8") != recipe.toml():
            raise UsageError(
                f"{run} holds a run of another recipe. Give another --out, or train {written}."
            )
        written.write_text(recipe.toml(), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{run} cannot be written: {error.strerror}.") from None
    data = data_digest(recipe, root)
    model = recipe.build_model()
    if recipe.after:  # now, and not after the last step, is the time to miss it
        keep_first(recipe.after, run / "model.safetensors")
    if recipe.start:
        begin_with(model, Path(recipe.start))
    if recipe.backbone.weights:
        load_backbone(model, root / recipe.backbone.weights)
    pairs = validation_pairs(recipe, root) if recipe.validation.specs else []
    schedule = recipe.build_schedule()
    if not schedule.steps:  # what there is, as it is: a table's row of a frozen network
        settle(recipe, model, root)
        return save_finished(recipe, model, run)
    # torchrun names the processes in the environment before accelerate is there to be asked.
    share = (int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
    asks = [schedule.samples_at(step, *share) for step in range(schedule.steps)]
    following = dict(itertools.pairwise(asks))
    with Loader(_batches, (recipe, root), following.get) as batches:
        weights = train(
            run,
            model=model,
            objective=recipe.build_objective(),
            batches=batches,
            schedule=schedule,
            header={"recipe": recipe.digest, "data": data},
            validate=Validation(run, recipe, pairs) if pairs else None,
            progress=progress,
        )
    finished = recipe.build_model()
    finished.load_state_dict(dict(weights))
    settle(recipe, finished, root)
    return save_finished(recipe, finished, run)


def _batches(recipe: Recipe, root: Path) -> Callable[[int, int, int], Batch]:
    return recipe.build_samples(root).batch


def settle(recipe: Recipe, model: Restorer, root: Path) -> None:
    """Show encoders that doubt what is unusual the undamaged training photographs."""
    doubting = [e for e in model.encoders.values() if getattr(e, "doubt", 0)]
    if not doubting:
        return
    files = [path for name, path in training_files(recipe, root) if not name.endswith(" lq")]
    sources = recipe.build_sources()
    for encoder in cast(Iterable[Any], doubting):
        name = encoder.asks[0].prior
        guides = [Guidance({name: sources[name].prior(read(path).rgb())}) for path in files]
        encoder.eval().settle(as_tensors(stack(guides)))


def save_finished(recipe: Recipe, model: Restorer, run: Path) -> Path:
    """`model.safetensors`, and where the backbone was frozen `adapter.safetensors` too."""
    path = run / "model.safetensors"
    halves, resolved = to_half(model.state_dict()), recipe.resolved()
    first = keep_first(recipe.after, path) if recipe.after else None
    save(path, halves, recipe=resolved, card=described(model, card_of(resolved, first), halves))
    if recipe.backbone.frozen and recipe.adapters:
        save_adapter(adapter := run / "adapter.safetensors", model, recipe)
        if recipe.after:
            keep_first(recipe.after, adapter)
    return path


def training_files(recipe: Recipe, root: Path) -> list[tuple[str, Path]]:
    """(name, file) of every picture that a recipe trains on, in order; nothing is read.

    Raises:
        UsageError: There are none, or pairs of which one half is missing.
    """
    if recipe.data.lq:
        pairs = find_pairs(root, recipe.data.lq, recipe.data.photographs)
        return [(f"{p.name} {half}", f) for p in pairs for half, f in (("lq", p.lq), ("gt", p.gt))]
    folder = root / recipe.data.photographs
    paths = sorted(p for p in folder.iterdir() if is_image(p)) if folder.is_dir() else []
    if not paths:
        raise UsageError(
            f"No photographs in {folder}. Give --data the folder that the recipe's data folders "
            "lie in."
        )
    return [(path.name, path) for path in paths]


def data_digest(recipe: Recipe, root: Path) -> str:
    """sha256 over the names and bytes of all that a recipe trains on.

    Raises:
        UsageError: As `training_files`.
    """
    total = hashlib.sha256()
    for name, path in training_files(recipe, root):
        total.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
