"""Finished weights on disk, and the networks they belong to: whole models, backbones, adapters."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from ..card import BESIDE, CARD_FORMAT, Card, find, is_shipped, survey
from ..errors import ModelError, UsageError
from .recipe import Recipe, restorer_of
from .restorer import Restorer
from .weights import digest, load, named, to_half, write_tensors, write_whole

BACKBONE = "backbone."
"""What the names of a backbone's tensors begin with in a whole model."""

TRUNK = f"{BACKBONE}trunk."
"""And those of a trunk, which networks of several kinds may share."""


def opened(path: Path, backbone: Path | None = None) -> tuple[Restorer, Card]:
    """The network of a file of finished weights, and what its card says.

    Args:
        path: A run's folder, or a `.safetensors` file: a whole model's, or an adapter's.
        backbone: Weights of the backbone, which go with an adapter.

    Raises:
        UsageError: There is no such file, or an adapter comes without its backbone.
        ModelError: Either cannot be read, or they do not fit each other.
    """
    path = weights_at(path)
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file. `relume train` writes it at its end.")
    stored = load(path)
    if backbone is not None:
        restorer = attach(path, backbone)
    elif any(name.startswith(BACKBONE) for name in stored.tensors):
        restorer = restorer_of(stored)
    else:
        raise UsageError(
            f"{path} holds an adapter alone. Give --backbone the weights it was trained beside."
        )
    card = stored.card
    if card is None:
        card = card_of(stored.recipe, _said_along(path))
    return restorer, replace(card, reads=tuple(restorer.reads))


def weights_at(path: Path) -> Path:
    """The file of finished weights, of it or of a run's folder."""
    return path / "model.safetensors" if path.is_dir() else path


def weights_beside(path: Path, word: str) -> Path:
    """Where the weights lie of a model that goes with another.

    Args:
        path: The other's weights, or its run's folder.
        word: Of `card.BESIDE`: `first` runs before the priors look, `damage` is the mask network.
    """
    return weights_at(path).with_suffix(f".{word}.safetensors")


def take_along(recipe: Recipe, path: Path) -> dict[str, str]:
    """Keep beside finished weights those of the models without which they are not what was trained.

    A mask network that ships with relume is found by its name at use as well, and not copied.

    Args:
        path: Of the finished weights.

    Returns:
        What their card says of these models.

    Raises:
        UsageError: There is no such model, or none with weights, or it is no mask network.
        ModelError: It was refused.
        OutputError: The copy cannot be written.
    """
    along: dict[str, str] = {}
    if recipe.after:
        along["first"] = _keep(recipe.after, path, "first").digest
    if recipe.masks:
        shipped = is_shipped(recipe.masks)
        masks = find(recipe.masks).card if shipped else _keep(recipe.masks, path, "damage")
        if not masks.emits:
            raise UsageError(f"priors.damage.model: {recipe.masks} says nothing of damage.")
        along |= {"masks": masks.digest, "masks_name": recipe.masks if shipped else ""}
    return along


def _keep(model: str, path: Path, word: str) -> Card:
    """Copy the weights of a model to where `weights_beside` looks, and those that go with it."""
    found = find(model)
    source = found.path.with_suffix(".safetensors") if found.path else None
    if source is None or not source.is_file():
        raise UsageError(f"{model} cannot go with what is trained here: it has no .safetensors.")
    kept = weights_beside(path, word)
    write_whole(kept, source.read_bytes())
    for below in found.card.beside:
        _keep(str(weights_beside(source, below)), kept, below)
    return found.card


def _said_along(path: Path) -> dict[str, str]:
    """What an adapter's file says of the models that go with it, in the fields of a card.

    Raises:
        ModelError: It cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            said = json.loads(file.metadata().get("along", "{}"))
    except ValueError:
        raise ModelError(f"{path} was refused: its header cannot be read.") from None
    beside = {key: weights_beside(path, word) for word, key in BESIDE.items()}
    return {key: survey(kept).card.digest for key, kept in beside.items() if kept.is_file()} | said


def card_of(recipe: Mapping[str, Any], along: Mapping[str, str] | None = None) -> Card:
    """What a resolved recipe says of its model, before anything is known of the network.

    Args:
        along: What `take_along` gave.

    Raises:
        ModelError: Its `card` holds what no card may.
    """
    none = {"first": None, "masks": None, "masks_name": ""}
    said = {**recipe.get("card", {}), "name": recipe["name"], "recipe": recipe}
    return Card.from_json(json.dumps({"format": CARD_FORMAT, **said, **none, **(along or {})}))


def begin_with(model: Restorer, recipe: Recipe) -> None:
    """The finished weights of another run of the same network, or of one that shares its trunk.

    Of several runs their mean: what begins alike and is trained on in two ways lies in one basin
    (Wortsman et al., Model soups, arXiv 2203.05482), and the mean often has of both.

    Adapters that it had none of begin as they are drawn, changing nothing, and so do encoders: what
    a network is told in addition is learnt from where it stood. A network of another kind gives
    its `trunk`, encoders and adapters: a perceiver begins with what a mask network has learnt.

    Args:
        recipe: Its `start` is a `.safetensors`, or the name of a model that ships, or several.

    Raises:
        UsageError: They are not there.
        ModelError: They cannot be read, or are another network's.
    """
    words = (recipe.start,) if isinstance(recipe.start, str) else recipe.start
    for word in words:
        if not named(word).is_file():
            raise UsageError(
                f"The recipe begins with {word}, which is not here. Train what makes it first, "
                """or begin from nothing with --set 'start=""'."""
            )
    path = named(words[0])
    stored = load(path)
    tensors = _mean({word: load(named(word)).tensors for word in words})
    # What is measured after training, buffers, may be missing: it is measured anew.
    kept = dict(model.named_buffers())
    parts = {f"adapters.{site}.": adapter for site, adapter in model.adapters.items()}
    parts |= {f"encoders.{name}.": encoder for name, encoder in model.encoders.items()}
    for own, part in parts.items():
        if not any(name.startswith(own) for name in tensors):
            kept |= {own + name: tensor for name, tensor in part.state_dict().items()}
    kind = stored.recipe.get("backbone", {}).get("kind", recipe.backbone.kind)
    if kind != recipe.backbone.kind:
        mine = {k: v for k, v in model.state_dict().items() if k.startswith(BACKBONE)}
        kept |= {k: v for k, v in mine.items() if not k.startswith(TRUNK)}
        trunk = {k for k in mine if k.startswith(TRUNK)}
        tensors = {k: v for k, v in tensors.items() if k in trunk or not k.startswith(BACKBONE)}
    try:
        model.load_state_dict(kept | tensors)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:200]
        raise ModelError(f"{path} does not fit the recipe's network: {first}") from None


def _mean(tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Of the tensors of finished weights, by the words that name them."""
    (first, wanted), *others = tensors.items()
    shapes = {name: tensor.shape for name, tensor in wanted.items()}
    for word, more in others:
        if {name: tensor.shape for name, tensor in more.items()} != shapes:
            raise ModelError(f"{word} and {first} are of two networks: there is no mean of them.")
    if not others:
        return dict(wanted)
    return {
        name: torch.stack([each[name].double() for each in tensors.values()]).mean(0).to(one.dtype)
        for name, one in wanted.items()
    }


def load_backbone(model: Restorer, path: Path) -> None:
    """Pre-trained weights, in the authors' key names, into a restorer's backbone.

    Raises:
        ModelError: No safetensors, or the weights of another network.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read as weights of a backbone: {error}.") from None
    try:
        model.backbone.load_state_dict(tensors)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:200]
        raise ModelError(f"{path} does not fit the recipe's backbone: {first}") from None


def save_adapter(
    path: Path, model: Restorer, recipe: Recipe, along: Mapping[str, str] | None = None
) -> None:
    """What was trained beside a frozen backbone, in a file that names the backbone by its digest.

    Args:
        along: What `take_along` gave.

    Raises:
        OutputError: It cannot be written.
    """
    tensors = model.state_dict()
    own = to_half({k: v for k, v in tensors.items() if not k.startswith(BACKBONE)})
    header = {
        "recipe": json.dumps(recipe.resolved(), sort_keys=True),
        "digest": digest(own),
        "backbone": backbone_digest(model),
        "along": json.dumps(dict(along or {}), sort_keys=True),
    }
    write_tensors(path, own, header)


def attach(adapter: Path, backbone: Path) -> Restorer:
    """The restorer of an adapter file on the backbone it was trained beside.

    Args:
        adapter: What `save_adapter` wrote.
        backbone: The backbone's weights, in the authors' key names.

    Raises:
        ModelError: Either cannot be read, or the adapter was trained beside another backbone.
    """
    stored = load(adapter)
    with safe_open(adapter, "pt") as file:
        wanted = file.metadata().get("backbone", "")
    model = Recipe.model_validate(stored.recipe).build_model()
    load_backbone(model, backbone)
    if (found := backbone_digest(model)) != wanted:
        raise ModelError(
            f"{adapter} was trained beside a backbone with the digest {wanted[:12]}, but "
            f"{backbone} has {found[:12]}. Give the weights it was trained with."
        )
    missing, unknown = model.load_state_dict(stored.tensors, strict=False)
    if unknown or any(not name.startswith(BACKBONE) for name in missing):
        raise ModelError(f"{adapter} does not hold what its own recipe builds. Train it again.")
    return model


def backbone_digest(model: Restorer) -> str:
    """sha256 over the backbone's tensors, as they are."""
    return digest(model.backbone.state_dict())
