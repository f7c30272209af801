"""What a recipe's training minimises, and the finished networks that it learns from."""

import inspect
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import RecipeError, UsageError, nearest
from ...priors.damage import KINDS
from ..losses import LOSSES
from ..losses.vgg import RELEASE_AT, RELEASE_XI, load_vgg16
from ..objectives import OBJECTIVES
from ..objectives.perception import WEIGHTS, Proxy, Tapped
from ..restorer import Restorer
from ..weights import load as load_weights
from ..weights import named
from .network import network_of, restorer_of
from .parts import Row
from .written import Written

FILES: Mapping[str, Any] = {"perceiver": "", "vgg": "", "at": (), "proxies": ()}
"""Options of `perception` that name files, and what is taken from them.

perceiver: finished weights of a quality perceiver. vgg: weights of VGG-16, whose features compare
then; without, the perceiver's do. at: the taps or sites of either. proxies: finished weights, each
a file or a table of `file`, or `folds` as priors have them, and `kinds` of damage that it knows.
"""


def objective_of(recipe: Written) -> nn.Module:
    """As `Recipe.build_objective`."""
    values = dict(recipe.objective.model_extra or {})
    loss = str(values.pop("loss", "charbonnier"))
    if loss not in LOSSES:
        raise RecipeError(
            f"objective.loss: {loss!r} is none of {', '.join(LOSSES)}.{nearest(loss, LOSSES)}"
        )
    takes = set(inspect.signature(LOSSES[loss]).parameters) - {"out", "gt"}
    options = {key: values.pop(key) for key in takes & values.keys()}
    known: dict[str, Any] = {"loss": partial(LOSSES[loss], **options)}
    row = OBJECTIVES.get(recipe.objective.kind)
    words = set(inspect.signature(row).parameters) if row else set[str]()
    if "teacher" in words:
        known |= _taught_by(recipe, str(values.pop("teacher", "")))
    if "perceiver" in words:
        known |= _perceived_by(recipe, values)
    if values.get("medium") and "medium" in words:
        row = values.pop("medium")
        known["medium"] = _several("medium", row, network_of(recipe)).networks
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        made = Row(kind=recipe.objective.kind, **values)
        return made.made_of(OBJECTIVES, "objective", **known)


def _taught_by(recipe: Written, file: str) -> dict[str, Any]:
    """What an objective with a teacher has to know: it, the student's sites, how long."""
    if not file:
        raise RecipeError("objective.teacher is missing: the finished weights to learn from.")
    student = network_of(recipe)
    teacher = _finished("teacher", file, student)
    steps = recipe.build_schedule().steps
    return {"teacher": teacher, "sites": student.backbone.sites, "steps": steps}


def _perceived_by(recipe: Written, values: dict[str, Any]) -> dict[str, Any]:
    """What `perception` has to know: who judges, what compares, the proxies and the student.

    Args:
        values: The objective's options; those that name files are taken out.
    """
    student, steps = network_of(recipe), recipe.build_schedule().steps
    files = {key: values.pop(key, default) for key, default in FILES.items()}
    weights = {key: values.get(key, default) for key, default in WEIGHTS.items()}
    known: dict[str, Any] = {"student": student, "steps": steps}
    if any(weights.values()) and student.scale != 1:
        raise RecipeError("objective.perception compares lq and gt: they must be of one size.")
    code = str(values.get("code", "degradation"))
    encoder = dict(student.encoders.items()).get(code)
    if weights["contrastive"] and (encoder is None or getattr(encoder, "asks", ())):
        raise RecipeError(
            f"objective.code: no encoder called {code!r} reads the picture alone. Add one, or "
            f"set objective.contrastive = 0.{nearest(code, recipe.encoders)}"
        )
    compares = bool(weights["perceptual"])
    tapped = compares and files["at"] and not files["vgg"]
    if files["perceiver"] and (weights["tier"] or tapped):
        known["perceiver"] = _finished("perceiver", str(files["perceiver"]), None)
        if tapped:
            known["features"] = Tapped(known["perceiver"], files["at"])
    if compares and files["vgg"]:
        at = tuple(files["at"] or RELEASE_AT)
        known["features"] = load_vgg16(Path(files["vgg"]), at)
        known |= {"xi": RELEASE_XI} if at == RELEASE_AT else {}
    if compares:
        rows = files["proxies"]
        known["proxies"] = tuple(_several("proxies", row, student) for row in rows)
    return known


def check_weights_of(recipe: Written) -> None:
    """As `Recipe.check_weights`."""
    network_of(recipe)
    if recipe.objective.kind == "perception":
        said = {**WEIGHTS, **FILES, **(recipe.objective.model_extra or {})}
        if said["perceptual"] and said["vgg"]:
            load_vgg16(Path(str(said["vgg"])))
        elif said["perceptual"] and not said["at"]:
            raise RecipeError(
                "objective.vgg is missing, by whose features pictures are compared: VGG-16 in "
                "torchvision's names. Give it to reproduce as --weights vgg=FILE."
            )


def _several(key: str, row: Any, student: Restorer) -> Proxy:
    """One of `objective.proxies`, or `objective.medium`.

    Raises:
        RecipeError: It is written otherwise.
        UsageError, ModelError: As `_finished`.
    """
    said: dict[str, Any] = {"file": row} if isinstance(row, str) else dict(row)
    folds: Mapping[str, str] = said.get("folds", {})
    numbers = {str(i) for i in range(max(2, len(folds)))}
    strange = {*said.get("kinds", ())} - {*KINDS}
    if {*said} - {"file", "folds", "kinds"} or ("file" in said) == bool(folds) or strange:
        raise RecipeError(
            f"objective.{key}: each is a file, or a table of file or folds, and kinds of damage; "
            f"got {row!r}."
        )
    if folds and {*folds} != numbers:
        raise RecipeError(f"objective.{key}: folds are numbered from 0, and two at least.")
    files = [folds[str(i)] for i in range(len(folds))] or [said["file"]]
    networks = tuple(_finished(key, file, student) for file in files)
    return Proxy(networks, tuple(said.get("kinds", ())))


def _finished(key: str, file: str, student: Restorer | None) -> Restorer:
    """The network of finished weights that an objective names; it reads no more than the student.

    Args:
        file: A `.safetensors`, or the name of a model that ships.

    Raises:
        UsageError: They are not there.
        ModelError: They were refused.
        RecipeError: It reads what nobody says.
    """
    path = named(file)
    if not path.is_file():
        raise UsageError(
            f"The recipe learns from {file}, which is not here. Train what makes it first."
        )
    network = restorer_of(load_weights(path))
    unsaid = {r.prior for r in network.reads} - {
        r.prior for r in (student.reads if student else ())
    }
    if unsaid:
        raise RecipeError(
            f"objective.{key}: {file} reads {', '.join(sorted(unsaid))}, which the network "
            "does not read, so that nobody says it in training."
        )
    return network
