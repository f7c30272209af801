"""A training run on disk: its recipe, log, checkpoints and finished weights."""

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

from ..card import find, survey
from ..errors import OutputError, UsageError
from ..guidance import Guidance, stack
from ..image import is_image, read
from ..trial import remember
from .data import Batch
from .export import described
from .finished import begin_with, card_of, load_backbone, save_adapter, take_along
from .loader import Loader
from .pairs import find_pairs
from .recipe import Recipe
from .restorer import Restorer, as_tensors
from .tasks import training
from .train import train
from .validation import Validation, validation_pairs
from .weights import digest, save, to_half, write_whole


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
    data = data_digest(recipe, root)
    model = recipe.build_model()
    if recipe.start:
        begin_with(model, recipe)
    if recipe.backbone.weights:
        load_backbone(model, root / recipe.backbone.weights)
    pairs = validation_pairs(recipe, root)
    objective = recipe.build_objective()
    teacher = getattr(objective, "teacher", None)
    header = {"recipe": recipe.digest, "data": data}
    if teacher is not None:  # the recipe only knows where it lies, not who it was
        header["teacher"] = digest(teacher.state_dict())
    for name, network in getattr(objective, "held", {}).items():
        header[name] = digest(network.state_dict())
    for place, file in enumerate(recipe.data.medium):
        header[f"medium.{place}"] = find(file).card.digest
    _claim(run, recipe)  # nothing is missing: from here on the folder is this recipe's
    # Now, and not after the last step, is the time to miss a model that has to go with this one.
    take_along(recipe, run / "model.safetensors")
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
            objective=objective,
            batches=batches,
            schedule=schedule,
            header=header,
            validate=Validation(run, recipe, pairs) if pairs else None,
            progress=progress,
        )
    finished = recipe.build_model()
    finished.load_state_dict(dict(weights))
    settle(recipe, finished, root)
    return save_finished(recipe, finished, run)


def _claim(run: Path, recipe: Recipe) -> None:
    """The run's folder, with its recipe in it."""
    written = run / "recipe.toml"
    try:
        run.mkdir(parents=True, exist_ok=True)
        if written.exists() and written.read_text(encoding="utf-8") != recipe.toml():
            raise UsageError(
                f"{run} holds a run of another recipe. Give another --out, or train {written}."
            )
    except OSError as error:
        raise OutputError(f"{run} cannot be written: {error.strerror}.") from None
    if not written.exists():
        write_whole(written, recipe.toml().encode())


def _batches(recipe: Recipe, root: Path) -> Callable[[int, int, int], Batch]:
    return recipe.build_samples(root).batch


def settle(recipe: Recipe, model: Restorer, root: Path) -> None:
    """Show encoders that doubt what is unusual the undamaged training photographs."""
    encoders = cast(Iterable[Any], model.encoders.values())
    doubting = [e for e in encoders if getattr(e, "doubt", 0) and not e.settled]
    if not doubting:
        return
    files = [path for name, path in training_files(recipe, root) if not name.endswith(" lq")]
    sources = recipe.build_sources()
    for encoder in doubting:
        name = encoder.asks[0].prior
        guides = [Guidance({name: sources[name].prior(read(path).rgb())}) for path in files]
        encoder.eval().settle(as_tensors(stack(guides)))


def save_finished(recipe: Recipe, model: Restorer, run: Path) -> Path:
    """`model.safetensors`, and where the backbone was frozen `adapter.safetensors` too."""
    path = run / "model.safetensors"
    halves, resolved = to_half(model.state_dict()), recipe.resolved()
    along = take_along(recipe, path)
    save(path, halves, recipe=resolved, card=described(model, card_of(resolved, along), halves))
    remember(survey(path), "torch")
    if recipe.backbone.frozen and recipe.adapters:
        adapter = run / "adapter.safetensors"
        save_adapter(adapter, model, recipe, take_along(recipe, adapter))
    return path


def training_files(recipe: Recipe, root: Path) -> list[tuple[str, Path]]:
    """(name, file) of every picture that a recipe trains on, in order; nothing is read.

    Raises:
        UsageError: There are none, or pairs of which one half is missing.
    """
    if recipe.data.tasks:
        # Those that choose the checkpoint too: with others the run is another.
        found = training(recipe.data.tasks, root)
        halves = {
            file: f"{task} {pair.name} {half}"
            for task, pairs in found.items()
            for pair in pairs
            for half, file in (("lq", pair.lq), ("gt", pair.gt))
        }
        return [(name, file) for file, name in halves.items()]
    if recipe.data.lq:
        pairs = find_pairs(root, recipe.data.lq, recipe.data.photographs)
        return [(f"{p.name} {half}", f) for p in pairs for half, f in (("lq", p.lq), ("gt", p.gt))]
    folder = root / recipe.data.photographs
    found = sorted(p for p in folder.iterdir() if is_image(p)) if folder.is_dir() else []
    if not found:
        raise UsageError(
            f"No photographs in {folder}. Give --data the folder that the recipe's data folders "
            "lie in."
        )
    paths = [path for path in found if not recipe.data.leaves_out(path.name)]
    if not paths:
        raise UsageError(
            f"data.without {recipe.data.without} leaves none of {len(found)} photographs in "
            f"{folder}. Give more of them."
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
