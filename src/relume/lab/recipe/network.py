"""The network of a recipe: a backbone with encoders, and adapters at their sites."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from ...errors import ModelError, RecipeError, nearest
from ...priors import PRIORS
from ..adapters import ADAPTERS
from ..backbones import BACKBONES
from ..encoders import ENCODERS
from ..encoders.controlled import Controlled
from ..restorer import Restorer
from ..weights import Weights
from .parts import Adapter, EncoderOf
from .written import Written


def network_of(recipe: Written) -> Restorer:
    """As `Recipe.build_model`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        encoders = {name: _encoder(name, row) for name, row in recipe.encoders.items()}
        inputs = {
            f"{row.kind}{i or ''}": _adapter(row, encoders)
            for i, row in enumerate(r for r in recipe.adapters if not r.at)
        }
        extra = sum(join.channels for join in inputs.values())
        known = {"in_channels": 3 + extra} if extra else {}
        backbone = recipe.backbone.made_of(BACKBONES, "backbone", **known)
        adapters: dict[str, nn.Module] = {}
        for row in recipe.adapters:
            for site in row.at:
                if site not in backbone.sites:
                    raise RecipeError(
                        f"adapters.at: {recipe.backbone.kind} has no site {site!r}; it has "
                        f"{', '.join(backbone.sites)}.{nearest(site, backbone.sites)}"
                    )
                if site in adapters:
                    raise RecipeError(f"adapters.at: two adapters stand at {site!r}.")
                channels, stride = backbone.sites[site].channels, backbone.sites[site].stride
                adapters[site] = _adapter(row, encoders, channels=channels, stride=stride)
        if recipe.backbone.frozen:
            backbone.requires_grad_(False).eval()
        return Restorer(backbone, encoders, adapters, inputs)


def _adapter(row: Adapter, encoders: Mapping[str, Any], **site: int) -> Any:
    """An adapter at a site, or one that joins the picture.

    Raises:
        RecipeError: It reads what nobody says, or stands in the wrong place.
    """
    kind = ADAPTERS.get(row.kind)
    several = kind is not None and "dims" in inspect.signature(kind).parameters
    for name in row.names:
        if name not in encoders and (several or name not in PRIORS):
            raise RecipeError(
                f"adapters.reads: no encoder is called {name!r}.{nearest(name, encoders)}"
            )
    first, *more = row.names
    known: dict[str, Any] = {"reads": first}
    if several:
        known = {"reads": row.names, "dims": tuple(encoders[n].dim for n in row.names)}
    elif more:
        raise RecipeError(f"adapters.reads: {row.kind} reads one, got {', '.join(row.names)}.")
    elif (source := encoders.get(first)) is not None:
        known |= {"dim": source.dim, "regions": getattr(source, "regions", "")}
    made = row.made_of(ADAPTERS, "adapters", **known, **site)
    if getattr(made, "joins", False) != (not row.at):
        where = "joins the picture: leave `at` out" if row.at else "needs sites in `at`"
        raise RecipeError(f"adapters: {row.kind} {where}.")
    return made


def _encoder(name: str, row: EncoderOf) -> nn.Module:
    """An encoder, or what stands in for what it says."""
    made = row.made_of(ENCODERS, f"encoders.{name}")
    return made if row.control == "none" else Controlled(made, row.control)


def restorer_of(stored: Weights) -> Restorer:
    """The network that a recipe builds, holding the weights stored with that recipe.

    Raises:
        ModelError: The recipe builds no network, or the weights do not fit it.
    """
    try:
        restorer = network_of(Written.model_validate(stored.recipe))
    except (ValidationError, RecipeError) as error:
        first = " ".join(str(error).split())[:200]
        raise ModelError(f"the recipe in the weights builds no network here: {first}") from None
    try:
        restorer.load_state_dict(stored.tensors)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise ModelError(f"the weights do not fit the network of their recipe: {first}") from None
    return restorer
