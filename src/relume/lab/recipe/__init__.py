"""Recipes: TOML on disk, models in between, objects out.

A recipe is read (`reading`), its tables become parts (`parts`) of a whole that has a digest
(`written`), and that is built (`recipe`): the network, the objective, the priors and the samples,
a file each. Nothing else reads the tables of kinds.
"""

from .network import restorer_of
from .parts import Data, Validation
from .reading import load, shipped
from .recipe import Recipe

__all__ = ["Data", "Recipe", "Validation", "load", "restorer_of", "shipped"]
