"""A recipe, and what it builds: its network, its objective, and what that is trained on."""

from pathlib import Path

from torch import nn

from ...priors import Prior
from ..data import Samples
from ..restorer import Restorer
from ..sources import Source
from .network import network_of
from .objective import check_weights_of, objective_of
from .parts import PriorOf
from .priors import prior_of, sources_of
from .samples import samples_of
from .written import Written


class Recipe(Written):
    """What `load` gives: one training, from the first weight to the last sample."""

    def build_model(self) -> Restorer:
        """The network, initialised from the recipe's seed; no weights are read here.

        Raises:
            RecipeError: A row of no table, or arguments or places that do not fit.
        """
        return network_of(self)

    def check_weights(self) -> None:
        """Open what it needs of others' weights, which is else missed after what is trained first.

        Raises:
            MissingError, ModelError, UsageError: Of a network, or of VGG-16, they are not here.
            RecipeError: A perceptual loss has nothing to compare by.
        """
        check_weights_of(self)

    def build_objective(self) -> nn.Module:
        """What training minimises; its own weights are drawn from the recipe's seed.

        Raises:
            RecipeError: It is none of the table, or what it is told does not fit the network.
            UsageError: The weights of its teacher are not there.
            ModelError: They were refused.
        """
        return objective_of(self)

    def build_sources(self) -> dict[str, Source]:
        """What the network reads, and what says it in training.

        Raises:
            RecipeError: A prior that the network does not read, or one that is not known.
        """
        return sources_of(self)

    def build_prior(self, name: str, row: PriorOf) -> Prior:
        """What says `name`, before a model runs ahead of it.

        Raises:
            RecipeError: It is not known, or does not take these arguments.
        """
        return prior_of(name, row)

    def build_samples(self, root: Path) -> Samples:
        """The training set.

        Args:
            root: The data root, below which its folders lie.

        Raises:
            RecipeError: The objective must know more of a picture than this data says.
            UsageError: It is not there, or not as the recipe says.
        """
        return samples_of(self, root)
