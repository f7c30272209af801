"""What a recipe trains on: damaged photographs, triplets, real pairs, or crops of several tasks."""

from pathlib import Path

from ...engine import open_engine
from ...errors import RecipeError
from ..data import DAMAGE, Asks, Damage, Damaged, Paired, Samples
from ..mixed import Mixed
from ..objectives import OBJECTIVES
from ..pairs import find_pairs
from ..photographs import load_photographs
from ..tasks import REPEATS, scene_of, sides
from ..triplets import Triplets
from .network import network_of
from .priors import sources_of
from .written import Written


def samples_of(recipe: Written, root: Path) -> Samples:
    """As `Recipe.build_samples`."""
    data, sources = recipe.data, sources_of(recipe)
    row = OBJECTIVES.get(recipe.objective.kind)
    asked = getattr(row, "asks", lambda options: Asks())(recipe.objective.model_extra or {})
    if data.tasks:
        kind, medium = recipe.objective.kind, (recipe.objective.model_extra or {}).get("medium")
        if kind == "masks" or (kind == "tiers" and not medium):
            raise RecipeError(
                f"objective.kind: {kind} must know more of a picture's damage than pairs of "
                "data.tasks say. Give data.damage in their place, or tiers their medium."
            )
        trained = {
            task: [pair for pair in kept[0] if not data.leaves_out(scene_of(pair))]
            for task, kept in sides(data.tasks, root).items()
        }
        return Mixed(
            trained,
            REPEATS[data.repeats],
            seed=recipe.seed,
            sources=sources,
            severities=asked.severities,
            second=asked.second,
            folds=asked.folds,
        )
    if data.lq:
        if asked:
            raise RecipeError(
                f"objective.kind: {recipe.objective.kind} must know how crops were damaged, "
                "which real pairs do not say. Leave data.lq out, or choose restoration."
            )
        pairs = find_pairs(root, data.lq, data.photographs)
        return Paired(pairs, seed=recipe.seed, sources=sources)
    damage = Damage(data.damage, data.counts, soft=data.soft, softest=data.softest, lens=data.lens)
    told = {name for name, source in sources.items() if source.control == "oracle"} - {DAMAGE}
    photographs = load_photographs(
        root / data.photographs,
        factors=data.factors,
        sizes=data.sizes,
        seed=recipe.seed,
        segmentations=root / data.segmentations if data.segmentations else None,
        without=data.leaves_out,
        followed=damage.follows_regions or bool(told),
    )
    if data.medium:
        names = dict.fromkeys((*data.medium, *filter(None, [data.restorer])))
        made = {name: open_engine(name, threads=1) for name in names}
        return Triplets(
            photographs,
            damage,
            seed=recipe.seed,
            medium=[made[name] for name in data.medium],
            restorer=made.get(data.restorer),
            windows=data.windows or None,
            fixed=data.fixed,
        )
    return Damaged(
        photographs,
        damage,
        seed=recipe.seed,
        sources=sources,
        windows=data.windows or None,
        mosaic=data.mosaic,
        fixed=data.fixed,
        severities=network_of(recipe).emits or asked.severities,
        second=asked.second,
        folds=asked.folds,
    )
