"""Who says in training what the network of a recipe reads."""

from ...engine import open_engine
from ...errors import RecipeError, nearest
from ...priors import PRIORS, Prior
from ...priors.cache import Remembered
from ...priors.partitions import LAYOUTS
from ..controls import CONTROLS
from ..sources import AfterModel, InTurn, LaidOut, Source
from .network import network_of
from .parts import PriorOf, Row
from .written import Written


def sources_of(recipe: Written) -> dict[str, Source]:
    """As `Recipe.build_sources`."""
    read = [r.prior for r in network_of(recipe).reads]
    for name in recipe.priors:
        if name not in read:
            raise RecipeError(
                f"priors.{name}: the network does not read it; it reads "
                f"{', '.join(read) or 'none'}.{nearest(name, read)}"
            )
    # At use one model runs before all priors look: in training as well.
    if any(recipe.priors.get(name, PriorOf()).after != recipe.after for name in read):
        raise RecipeError(
            "priors.after: all priors look at the same picture. Give each of "
            f"{', '.join(read)} the same after, or none of them."
        )
    sources: dict[str, Source] = {}
    for name in read:
        row = recipe.priors.get(name, PriorOf())
        if row.control not in ("none", *CONTROLS):
            raise RecipeError(
                f"priors.{name}.control: {row.control!r} is none of none, "
                f"{', '.join(CONTROLS)}.{nearest(row.control, CONTROLS)}"
            )
        if row.folds and recipe.data.lq:
            raise RecipeError(
                f"priors.{name}.folds: real pairs have none. Leave folds out, or data.lq."
            )
        # What is said of pictures that come again is kept: the fixed damages of one seed are
        # the same in every arm of a table.
        again = recipe.data.fixed and name != "thumbnail"
        kept = bool(row.after or row.folds or recipe.data.lq or again)
        rows = [row, *(row.of_fold(i) for i in range(len(row.folds)))]
        prior, *folds = (_looking(name, one, kept) for one in rows)
        sources[name] = Source(prior, row.control, row.dropout, tuple(folds))
    return sources


def _looking(name: str, row: PriorOf, kept: bool) -> Prior:
    """A prior with what runs before it, and a memory where its answers are `kept`."""
    prior = prior_of(name, row)
    if row.after:
        prior = AfterModel(prior, open_engine(row.after))
    return Remembered(InTurn(prior)) if kept else prior


def prior_of(name: str, row: PriorOf) -> Prior:
    """As `Recipe.build_prior`."""
    kind = Row(kind=row.kind or name, **(row.model_extra or {}))
    prior: Prior = kind.made_of(PRIORS, f"priors.{name}")
    if row.layout and row.layout not in LAYOUTS:
        raise RecipeError(
            f"priors.{name}.layout: {row.layout!r} is none of {', '.join(LAYOUTS)}."
            f"{nearest(row.layout, LAYOUTS)}"
        )
    return LaidOut(prior, row.layout) if row.layout else prior
