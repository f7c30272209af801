"""The parts of a recipe: what each key of its tables means, and which do not go together."""

import inspect
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ...errors import RecipeError, UsageError, nearest
from ..folds import left_out
from ..tasks import REPEATS

Share = Annotated[float, Field(ge=0)]


class Part(BaseModel):
    """A table of a recipe, of the keys that are named and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Row(BaseModel):
    """A row of a table of kinds with its constructor's own arguments beside `kind`."""

    model_config = ConfigDict(extra="allow", frozen=True)
    kind: str

    def made_of(self, table: Mapping[str, Any], where: str, **known: Any) -> Any:
        """Call the table's row with the recipe's arguments and those `known` here that it takes.

        Raises:
            RecipeError: No such row, or the constructor does not take these arguments.
        """
        if self.kind not in table:
            raise RecipeError(
                f"{where}.kind: {self.kind!r} is none of {', '.join(sorted(table))}."
                f"{nearest(self.kind, table)}"
            )
        row = table[self.kind]
        takes = inspect.signature(row).parameters
        arguments = {k: v for k, v in known.items() if k in takes}
        arguments |= self.model_extra or {}
        try:
            return row(**arguments)
        except TypeError as error:
            raise RecipeError(
                f"{where}: {self.kind} does not take these arguments: {error}."
            ) from None


class BackboneOf(Row):
    """weights: a `.safetensors` below the data root to start from. frozen: only the rest learns."""

    weights: str = ""
    frozen: bool = False


class EncoderOf(Row):
    """control: what stands in for what it says: one of `encoders.controlled.STAND_INS`."""

    control: str = "none"

    @model_serializer(mode="wrap")
    def _said(self, said: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a control that is none: recipes from before there were any keep their digest."""
        none = {"control"} if self.control == "none" else set[str]()
        return {key: value for key, value in said(self).items() if key not in none}


class PriorOf(Part):
    """What a prior says in training, beside its own arguments.

    kind: row of PRIORS; left out, the prior's own name. control: what stands in for it. dropout:
    share of the samples that are told nothing. after: a model, by name or file, whose output the
    prior looks at instead of the damaged picture, in training and at use. layout: row of LAYOUTS;
    the regions keep their areas and are laid out so instead.

    folds: of a prior that was trained itself, number of a fold of the training photographs -> the
    arguments in which who looks at them differs. That one was trained with `data.without` the fold,
    so that in training too it says what it makes of a picture that is new to it.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    kind: str = ""
    control: str = "none"
    dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    after: str = ""
    layout: str = ""
    folds: dict[str, dict[str, Any]] = {}

    @model_validator(mode="after")
    def _fit(self) -> "PriorOf":
        if self.folds and {*self.folds} != {str(i) for i in range(max(2, len(self.folds)))}:
            raise PydanticCustomError("recipe", "folds are numbered from 0, and two at least")
        return self

    @model_serializer(mode="wrap")
    def _said(self, said: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is none: recipes from before there was any keep their digest."""
        none = {key for key in ("layout", "folds") if not getattr(self, key)}
        return {key: value for key, value in said(self).items() if key not in none}

    def of_fold(self, number: int) -> "PriorOf":
        """Who looks at the training photographs of a fold."""
        said = self.model_dump(exclude={"folds"})
        return PriorOf.model_validate({**said, **self.folds[str(number)]})


class Adapter(Row):
    """at: sites, or nothing where the adapter joins the picture. reads: an encoder or a prior, or
    a list of encoders where the adapter takes several."""

    at: tuple[str, ...] = ()
    reads: str | Annotated[tuple[str, ...], Field(min_length=1)]

    @property
    def names(self) -> tuple[str, ...]:
        """What it reads."""
        return (self.reads,) if isinstance(self.reads, str) else self.reads


class Data(Part):
    """photographs, validation, segmentations: folders below the data root.

    damage: SPEC -> how often. windows: each sample sees a part of its photograph, of such
    shares of its sides, in another light. mosaic: share of the samples, where there are
    windows, whose thumbnail shows a part of another photograph too. soft: share of the samples
    whose photograph is softened first, as photographs are at full size. softest: kind of damage
    -> scale of at most so much softness beside it. lens: share of the samples, but for blurred
    ones, whose photograph is as soft as a lens at full size leaves it; of triplets the order
    alone is learnt there. fixed: damages of each photograph, or of parts of it where there are
    windows, where a prior must look at it whole; 0 draws them anew. without: the fold of the
    photographs that is left out, `0/2` the first of two (`folds.fold_of`).

    medium: where given, samples are triplets of crops of low, medium and high quality
    (`triplets`), and these are the restorers, by name or file, that make the medium ones of each
    fold, `0/2` first, trained `without` it; or one for all. restorer: the model whose error is the
    difficulty of a crop; "" measures none.

    lq: where given, samples are crops of real pairs. It and `photographs`, the good pictures, are
    patterns then (`pairs.find_pairs`), and nothing that makes damage applies.

    tasks: where given, 3 or 5, samples are crops of the training pictures of so many tasks of the
    all-in-one protocol (`tasks`), whose places are the protocol's, less those that are held out;
    `without` may leave out a fold of them, and nothing else applies. repeats: row of
    `tasks.REPEATS`, how often an epoch shows each.
    """

    photographs: str = ""
    lq: str = ""
    tasks: Literal[0, 3, 5] = 0
    repeats: str = "promptir"
    validation: str = ""
    segmentations: str = ""
    windows: tuple[Share, Share] | tuple[()] = ()
    mosaic: Annotated[float, Field(ge=0, le=1)] = 0.0
    soft: Annotated[float, Field(ge=0, le=1)] = 0.0
    softest: dict[str, Annotated[float, Field(ge=0.1, le=1)]] = {}
    lens: Annotated[float, Field(ge=0, le=1)] = 0.0
    fixed: Annotated[int, Field(ge=0)] = 0
    without: str = ""
    medium: tuple[str, ...] = ()
    restorer: str = ""
    damage: dict[str, Share] = {}
    counts: tuple[Share, ...] = (0.1, 0.5, 0.3, 0.1)
    factors: tuple[float, float] = (0.7, 1.5)
    sizes: Annotated[int, Field(ge=1)] = 4

    @model_validator(mode="after")
    def _fit(self) -> "Data":
        given = self.model_fields_set
        if self.tasks:
            strange = [k for k in type(self).model_fields if k in given and k not in OF_TASKS]
            if strange:
                raise PydanticCustomError(
                    "recipe",
                    "tasks name their pictures by the all-in-one protocol: leave out {keys}",
                    {"keys": ", ".join(strange)},
                )
        elif "photographs" not in given:
            raise PydanticCustomError("recipe", "photographs is missing, or tasks in their place")
        elif "repeats" in given:
            raise PydanticCustomError("recipe", "repeats goes with tasks: give both or neither")
        if self.repeats not in REPEATS:
            raise PydanticCustomError(
                "recipe",
                "repeats {word} is none of {rows}",
                {"word": repr(self.repeats), "rows": ", ".join(REPEATS)},
            )
        if not self.lq and not self.tasks and "damage" not in given:
            raise PydanticCustomError("recipe", "damage is missing, or lq where there are pairs")
        if self.mosaic and not self.windows:
            raise PydanticCustomError("recipe", "mosaic goes with windows: give both or neither")
        try:
            left_out("", self.without)
        except UsageError as error:
            raise PydanticCustomError(
                "recipe", "without: {why}", {"why": str(error)[:-1]}
            ) from None
        made = [key for key in MADE if key in self.model_fields_set]
        if self.lq and made:
            raise PydanticCustomError(
                "recipe",
                "lq gives real pairs, in which nothing is made: leave out {keys}",
                {"keys": ", ".join(made)},
            )
        return self

    @model_serializer(mode="wrap")
    def _said(self, said: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Only what applies to such data."""
        if self.tasks:
            of = {key for key in OF_TASKS if getattr(self, key)}
            return {key: value for key, value in said(self).items() if key in of}
        # Recipes from before there were these keep their digest.
        new = ("tasks", "mosaic", "soft", "softest", "lens", "without", "medium", "restorer")
        none = {key for key in new if not getattr(self, key)}
        unsaid = {*MADE, "tasks"} if self.lq else {"lq", *none}
        unsaid |= {"repeats"}
        return {key: value for key, value in said(self).items() if key not in unsaid}

    def leaves_out(self, photograph: str) -> bool:
        """Whether it trains without a photograph, by its file's name."""
        return left_out(photograph, self.without)


MADE = (
    "segmentations",
    "windows",
    "mosaic",
    "soft",
    "softest",
    "lens",
    "fixed",
    "without",
    "medium",
    "restorer",
    "damage",
    "counts",
    "factors",
    "sizes",
)
"""Keys of data that is damaged as it is drawn."""

OF_TASKS = ("tasks", "repeats", "without")
"""Keys of data of the all-in-one protocol."""


class Validation(Part):
    """What is followed while a network trains, on crops of `crop` pixels of so many photographs.

    specs: damages, of the photographs in `data.validation`. lq, gt: real pairs, patterns below the
    data root as in `data`. held_out: so many of each task's pictures that `data.tasks` holds out of
    training, noise at each sigma.
    """

    specs: tuple[str, ...] = ()
    lq: str = ""
    gt: str = ""
    held_out: bool = False
    crop: Annotated[int, Field(ge=1)] = 256
    photographs: Annotated[int, Field(ge=1)] = 12
    seed: int = 1

    @model_validator(mode="after")
    def _fit(self) -> "Validation":
        if bool(self.lq) != bool(self.gt):
            raise PydanticCustomError("recipe", "lq and gt are halves of pairs: give both")
        return self

    @model_serializer(mode="wrap")
    def _said(self, said: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without pairs that are none: recipes from before there were any keep their digest."""
        none = {key for key in ("lq", "gt", "held_out") if not getattr(self, key)}
        return {key: value for key, value in said(self).items() if key not in none}
