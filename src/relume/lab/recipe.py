"""Recipes: TOML on disk, models in between, objects out. The only reader of the tables of kinds."""

import hashlib
import inspect
import json
import tomllib
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tomli_w
import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError
from torch import nn

from ..engine import open_engine
from ..errors import ModelError, RecipeError, UsageError, nearest
from ..priors import PRIORS, Prior
from ..priors.cache import Remembered
from ..priors.damage import KINDS
from ..priors.partitions import LAYOUTS
from .adapters import ADAPTERS
from .backbones import BACKBONES
from .controls import CONTROLS
from .data import DAMAGE, Asks, Damage, Damaged, Paired, Samples
from .encoders import ENCODERS
from .encoders.controlled import Controlled
from .folds import left_out
from .losses import LOSSES
from .losses.vgg import RELEASE_AT, RELEASE_XI, load_vgg16
from .mixed import Mixed
from .objectives import OBJECTIVES
from .objectives.perception import WEIGHTS, Proxy, Tapped
from .pairs import find_pairs
from .photographs import load_photographs
from .restorer import Restorer
from .sources import AfterModel, InTurn, LaidOut, Source
from .tasks import REPEATS, scene_of, sides
from .train import Schedule
from .triplets import Triplets
from .weights import Weights, named
from .weights import load as load_weights

Share = Annotated[float, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Kind(BaseModel):
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


class BackboneOf(_Kind):
    """weights: a `.safetensors` below the data root to start from. frozen: only the rest learns."""

    weights: str = ""
    frozen: bool = False


class EncoderOf(_Kind):
    """control: what stands in for what it says: one of `encoders.controlled.STAND_INS`."""

    control: str = "none"

    @model_serializer(mode="wrap")
    def _said(self, said: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a control that is none: recipes from before there were any keep their digest."""
        none = {"control"} if self.control == "none" else set[str]()
        return {key: value for key, value in said(self).items() if key not in none}


class PriorOf(_Part):
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


class Adapter(_Kind):
    """at: sites, or nothing where the adapter joins the picture. reads: an encoder or a prior, or
    a list of encoders where the adapter takes several."""

    at: tuple[str, ...] = ()
    reads: str | Annotated[tuple[str, ...], Field(min_length=1)]

    @property
    def names(self) -> tuple[str, ...]:
        """What it reads."""
        return (self.reads,) if isinstance(self.reads, str) else self.reads


class Data(_Part):
    """photographs, validation, segmentations: folders below the data root.

    damage: SPEC -> how often. windows: each sample sees a part of its photograph, of such shares of
    its sides, in another light. mosaic: share of the samples, where there are windows, whose
    thumbnail shows a part of another photograph too. soft: share of the samples whose photograph is
    softened first, as photographs are at full size. softest: kind of damage -> scale of at most so
    much softness beside it. fixed: damages of each photograph, or of parts of it where there are
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
        new = ("tasks", "mosaic", "soft", "softest", "without", "medium", "restorer")
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


class Validation(_Part):
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


class Recipe(_Part):
    name: str
    description: str = ""
    extends: str | None = None
    seed: int = 0
    start: str = ""  # finished weights that training begins with: a file, or a shipped name
    data: Data
    backbone: BackboneOf
    priors: dict[str, PriorOf] = {}
    encoders: dict[str, EncoderOf] = {}
    adapters: tuple[Adapter, ...] = ()
    objective: _Kind
    schedule: dict[str, Any]
    validation: Validation = Validation()
    card: dict[str, Any] = {}

    def resolved(self) -> dict[str, Any]:
        """Plain values, everything said, nothing inherited."""
        values = json.loads(self.model_dump_json(exclude={"extends"}))
        values["schedule"] = json.loads(json.dumps(vars(self.build_schedule())))
        if not values["schedule"]["best"]:  # recipes from before there was it keep their digest
            del values["schedule"]["best"]
        return values

    @property
    def digest(self) -> str:
        """sha256 over the resolved recipe; what it says of itself in `card` does not count."""
        values = {k: v for k, v in self.resolved().items() if k not in ("card", "description")}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @property
    def after(self) -> str:
        """The model whose output the priors look at, or ""."""
        return next((row.after for row in self.priors.values() if row.after), "")

    @property
    def masks(self) -> str:
        """The mask network that says `damage` at use, by name or file, or "". Those of `folds` know
        less than it: they are for training photographs alone."""
        row = self.priors.get("damage", PriorOf())
        return str((row.model_extra or {}).get("model", "")) if row.kind in ("", "damage") else ""

    def toml(self) -> str:
        return tomli_w.dumps(self.resolved())

    def build_schedule(self) -> Schedule:
        known = Schedule.__dataclass_fields__
        for key in self.schedule:
            if key not in known:
                raise RecipeError(f"schedule.{key} is no key of a recipe.{nearest(key, known)}")
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in self.schedule.items()
        }
        try:
            return Schedule(**values)
        except TypeError as error:
            raise RecipeError(f"schedule: {error}.") from None

    def build_model(self) -> Restorer:
        """The network, initialised from the recipe's seed; no weights are read here."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            encoders = {name: _encoder(name, row) for name, row in self.encoders.items()}
            inputs = {
                f"{row.kind}{i or ''}": self._adapter(row, encoders)
                for i, row in enumerate(r for r in self.adapters if not r.at)
            }
            extra = sum(join.channels for join in inputs.values())
            known = {"in_channels": 3 + extra} if extra else {}
            backbone = self.backbone.made_of(BACKBONES, "backbone", **known)
            adapters: dict[str, nn.Module] = {}
            for row in self.adapters:
                for site in row.at:
                    if site not in backbone.sites:
                        raise RecipeError(
                            f"adapters.at: {self.backbone.kind} has no site {site!r}; it has "
                            f"{', '.join(backbone.sites)}.{nearest(site, backbone.sites)}"
                        )
                    if site in adapters:
                        raise RecipeError(f"adapters.at: two adapters stand at {site!r}.")
                    channels, stride = backbone.sites[site].channels, backbone.sites[site].stride
                    adapters[site] = self._adapter(row, encoders, channels=channels, stride=stride)
            if self.backbone.frozen:
                backbone.requires_grad_(False).eval()
            return Restorer(backbone, encoders, adapters, inputs)

    def check_weights(self) -> None:
        """Open what it needs of others' weights, which is else missed after what is trained first.

        Raises:
            MissingError, ModelError, UsageError: Of a network, or of VGG-16, they are not here.
            RecipeError: A perceptual loss has nothing to compare by.
        """
        self.build_model()
        if self.objective.kind == "perception":
            said = {**WEIGHTS, **FILES, **(self.objective.model_extra or {})}
            if said["perceptual"] and said["vgg"]:
                load_vgg16(Path(str(said["vgg"])))
            elif said["perceptual"] and not said["at"]:
                raise RecipeError(
                    "objective.vgg is missing, by whose features pictures are compared: VGG-16 in "
                    "torchvision's names. Give it to reproduce as --weights vgg=FILE."
                )

    def _adapter(self, row: Adapter, encoders: Mapping[str, Any], **site: int) -> Any:
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

    def build_objective(self) -> nn.Module:
        """What training minimises; its own weights are drawn from the recipe's seed.

        Raises:
            RecipeError: It is none of the table, or what it is told does not fit the network.
            UsageError: The weights of its teacher are not there.
            ModelError: They were refused.
        """
        values = dict(self.objective.model_extra or {})
        loss = str(values.pop("loss", "charbonnier"))
        if loss not in LOSSES:
            raise RecipeError(
                f"objective.loss: {loss!r} is none of {', '.join(LOSSES)}.{nearest(loss, LOSSES)}"
            )
        takes = set(inspect.signature(LOSSES[loss]).parameters) - {"out", "gt"}
        options = {key: values.pop(key) for key in takes & values.keys()}
        known: dict[str, Any] = {"loss": partial(LOSSES[loss], **options)}
        row = OBJECTIVES.get(self.objective.kind)
        words = set(inspect.signature(row).parameters) if row else set[str]()
        if "teacher" in words:
            known |= self._taught_by(str(values.pop("teacher", "")))
        if "perceiver" in words:
            known |= self._perceived_by(values)
        if values.get("medium") and "medium" in words:
            row = values.pop("medium")
            known["medium"] = _several("medium", row, self.build_model()).networks
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            made = _Kind(kind=self.objective.kind, **values)
            return made.made_of(OBJECTIVES, "objective", **known)

    def _taught_by(self, file: str) -> dict[str, Any]:
        """What an objective with a teacher has to know: it, the student's sites, how long."""
        if not file:
            raise RecipeError("objective.teacher is missing: the finished weights to learn from.")
        student = self.build_model()
        teacher = _finished("teacher", file, student)
        steps = self.build_schedule().steps
        return {"teacher": teacher, "sites": student.backbone.sites, "steps": steps}

    def _perceived_by(self, values: dict[str, Any]) -> dict[str, Any]:
        """What `perception` has to know: who judges, what compares, the proxies and the student.

        Args:
            values: The objective's options; those that name files are taken out.
        """
        student, steps = self.build_model(), self.build_schedule().steps
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
                f"set objective.contrastive = 0.{nearest(code, self.encoders)}"
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

    def build_sources(self) -> dict[str, Source]:
        """What the network reads, and what says it in training.

        Raises:
            RecipeError: A prior that the network does not read, or one that is not known.
        """
        read = [r.prior for r in self.build_model().reads]
        for name in self.priors:
            if name not in read:
                raise RecipeError(
                    f"priors.{name}: the network does not read it; it reads "
                    f"{', '.join(read) or 'none'}.{nearest(name, read)}"
                )
        # At use one model runs before all priors look: in training as well.
        if any(self.priors.get(name, PriorOf()).after != self.after for name in read):
            raise RecipeError(
                "priors.after: all priors look at the same picture. Give each of "
                f"{', '.join(read)} the same after, or none of them."
            )
        sources: dict[str, Source] = {}
        for name in read:
            row = self.priors.get(name, PriorOf())
            if row.control not in ("none", *CONTROLS):
                raise RecipeError(
                    f"priors.{name}.control: {row.control!r} is none of none, "
                    f"{', '.join(CONTROLS)}.{nearest(row.control, CONTROLS)}"
                )
            if row.folds and self.data.lq:
                raise RecipeError(
                    f"priors.{name}.folds: real pairs have none. Leave folds out, or data.lq."
                )
            # What is said of pictures that come again is kept: the fixed damages of one seed are
            # the same in every arm of a table.
            again = self.data.fixed and name != "thumbnail"
            kept = bool(row.after or row.folds or self.data.lq or again)
            rows = [row, *(row.of_fold(i) for i in range(len(row.folds)))]
            prior, *folds = (self._looking(name, one, kept) for one in rows)
            sources[name] = Source(prior, row.control, row.dropout, tuple(folds))
        return sources

    def _looking(self, name: str, row: PriorOf, kept: bool) -> Prior:
        """A prior with what runs before it, and a memory where its answers are `kept`."""
        prior = self.build_prior(name, row)
        if row.after:
            prior = AfterModel(prior, open_engine(row.after))
        return Remembered(InTurn(prior)) if kept else prior

    def build_prior(self, name: str, row: PriorOf) -> Prior:
        """What says `name`, before a model runs ahead of it.

        Raises:
            RecipeError: It is not known, or does not take these arguments.
        """
        kind = _Kind(kind=row.kind or name, **(row.model_extra or {}))
        prior: Prior = kind.made_of(PRIORS, f"priors.{name}")
        if row.layout and row.layout not in LAYOUTS:
            raise RecipeError(
                f"priors.{name}.layout: {row.layout!r} is none of {', '.join(LAYOUTS)}."
                f"{nearest(row.layout, LAYOUTS)}"
            )
        return LaidOut(prior, row.layout) if row.layout else prior

    def build_samples(self, root: Path) -> Samples:
        """The training set.

        Raises:
            UsageError: It is not there, or not as the recipe says.
        """
        sources = self.build_sources()
        row = OBJECTIVES.get(self.objective.kind)
        asked = getattr(row, "asks", lambda options: Asks())(self.objective.model_extra or {})
        if self.data.tasks:
            kind, medium = self.objective.kind, (self.objective.model_extra or {}).get("medium")
            if kind == "masks" or (kind == "tiers" and not medium):
                raise RecipeError(
                    f"objective.kind: {kind} must know more of a picture's damage than pairs of "
                    "data.tasks say. Give data.damage in their place, or tiers their medium."
                )
            trained = {
                task: [pair for pair in kept[0] if not self.data.leaves_out(scene_of(pair))]
                for task, kept in sides(self.data.tasks, root).items()
            }
            return Mixed(
                trained,
                REPEATS[self.data.repeats],
                seed=self.seed,
                sources=sources,
                severities=asked.severities,
                second=asked.second,
                folds=asked.folds,
            )
        if self.data.lq:
            if asked:
                raise RecipeError(
                    f"objective.kind: {self.objective.kind} must know how crops were damaged, "
                    "which real pairs do not say. Leave data.lq out, or choose restoration."
                )
            pairs = find_pairs(root, self.data.lq, self.data.photographs)
            return Paired(pairs, seed=self.seed, sources=sources)
        damage = Damage(
            self.data.damage,
            self.data.counts,
            soft=self.data.soft,
            softest=self.data.softest,
        )
        told = {name for name, source in sources.items() if source.control == "oracle"} - {DAMAGE}
        photographs = load_photographs(
            root / self.data.photographs,
            factors=self.data.factors,
            sizes=self.data.sizes,
            seed=self.seed,
            segmentations=root / self.data.segmentations if self.data.segmentations else None,
            without=self.data.leaves_out,
            followed=damage.follows_regions or bool(told),
        )
        if self.data.medium:
            names = dict.fromkeys((*self.data.medium, *filter(None, [self.data.restorer])))
            made = {name: open_engine(name, threads=1) for name in names}
            return Triplets(
                photographs,
                damage,
                seed=self.seed,
                medium=[made[name] for name in self.data.medium],
                restorer=made.get(self.data.restorer),
                windows=self.data.windows or None,
                fixed=self.data.fixed,
            )
        return Damaged(
            photographs,
            damage,
            seed=self.seed,
            sources=sources,
            windows=self.data.windows or None,
            mosaic=self.data.mosaic,
            fixed=self.data.fixed,
            severities=self.build_model().emits or asked.severities,
            second=asked.second,
            folds=asked.folds,
        )


FILES: Mapping[str, Any] = {"perceiver": "", "vgg": "", "at": (), "proxies": ()}
"""Options of `perception` that name files, and what is taken from them.

perceiver: finished weights of a quality perceiver. vgg: weights of VGG-16, whose features compare
then; without, the perceiver's do. at: the taps or sites of either. proxies: finished weights, each
a file or a table of `file`, or `folds` as priors have them, and `kinds` of damage that it knows.
"""


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


def _encoder(name: str, row: EncoderOf) -> nn.Module:
    """An encoder, or what stands in for what it says."""
    made = row.made_of(ENCODERS, f"encoders.{name}")
    return made if row.control == "none" else Controlled(made, row.control)


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


def restorer_of(stored: Weights) -> Restorer:
    """The network that a recipe builds, holding the weights stored with that recipe.

    Raises:
        ModelError: The recipe builds no network, or the weights do not fit it.
    """
    try:
        restorer = Recipe.model_validate(stored.recipe).build_model()
    except (ValidationError, RecipeError) as error:
        first = " ".join(str(error).split())[:200]
        raise ModelError(f"the recipe in the weights builds no network here: {first}") from None
    try:
        restorer.load_state_dict(stored.tensors)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise ModelError(f"the weights do not fit the network of their recipe: {first}") from None
    return restorer


def shipped() -> list[str]:
    """Names of the recipes inside the package."""
    folder = resources.files("relume.lab").joinpath("recipes")
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


def load(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or path, with its parent and the overrides.

    Args:
        source: The name of a shipped recipe, or a TOML file.
        overrides: `a.b=v`, v written as in TOML; a bare word is a string. A table takes the place
            of the one before: `encoders={}` leaves none.

    Raises:
        RecipeError: No such recipe, not TOML, an unknown key (the nearest is named), a wrong value.
    """
    values = _read(source)
    parent = values.get("extends")
    if parent is not None:
        inherited = _read(parent)
        if "extends" in inherited:
            raise RecipeError(
                f"{source} extends {parent}, which extends {inherited['extends']}: one level only."
            )
        values = _merged(inherited, values)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise RecipeError(f"--set takes a.b=v, got {override!r}.")
        values = _with(values, key.strip().split("."), _value(text.strip()))
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{source}: {_explained(error)}") from None
    recipe.build_schedule()
    return recipe


def _read(source: str | Path) -> dict[str, Any]:
    path = Path(source)
    if path.suffix == ".toml":
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise RecipeError(f"{path} cannot be read: {error.strerror}.") from None
    elif str(source) in shipped():
        text = resources.files("relume.lab").joinpath(f"recipes/{source}.toml").read_text("utf-8")
    else:
        raise RecipeError(
            f"No recipe called {str(source)!r}; there is {', '.join(shipped()) or 'none'}."
            f"{nearest(str(source), shipped())}"
        )
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source} is not TOML: {error}.") from None


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(old, value)
        else:
            merged[key] = value
    return merged


def _with(table: Any, keys: Sequence[str], value: Any) -> Any:
    """The table with one value set; a table that is set stands in the place of the one before.
    A number names a row of a list that is there."""
    first, *rest = keys
    if isinstance(table, list):
        rows = [*cast(list[Any], table)]
        if not first.isdecimal() or int(first) >= len(rows):
            raise RecipeError(f"--set: a list of {len(rows)} has no row {first!r}.")
        rows[int(first)] = _with(rows[int(first)], rest, value) if rest else value
        return rows
    if rest:
        below = table.get(first)
        value = _with(below if isinstance(below, Mapping | list) else {}, rest, value)
    return {**table, first: value}


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _explained(error: ValidationError) -> str:
    """The first of pydantic's complaints, in one line."""
    first = error.errors()[0]
    path = [str(p) for p in first["loc"]]
    if first["type"] == "extra_forbidden":
        model: Any = Recipe
        for step in path[:-1]:
            model = model.model_fields[step].annotation if step in model.model_fields else model
        return f"{'.'.join(path)} is no key of a recipe.{nearest(path[-1], model.model_fields)}"
    if first["type"] == "recipe":  # our own words
        return f"{'.'.join(path)}: {first['msg']}."
    if first["type"] == "missing":
        return f"{'.'.join(path)} is missing."
    return f"{'.'.join(path)}: {first['msg'].lower()}, got {first['input']!r}."
