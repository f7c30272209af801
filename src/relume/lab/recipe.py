"""Recipes: TOML on disk, models in between, objects out. The only reader of the tables of kinds."""

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from ..errors import RecipeError, nearest
from .adapters import ADAPTERS
from .backbones import BACKBONES
from .data import Damage, Samples, load_photographs
from .encoders import ENCODERS
from .losses import LOSSES
from .objectives import OBJECTIVES
from .restorer import Restorer
from .train import Schedule

Share = Annotated[float, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Kind(BaseModel):
    """A row of a table of kinds with its constructor's own arguments beside `kind`."""

    model_config = ConfigDict(extra="allow", frozen=True)
    kind: str

    def made_of(self, table: Mapping[str, Any], where: str, **known: Any) -> Any:
        """Call the table's row with the recipe's arguments and those `known` here.

        Raises:
            RecipeError: No such row, or the constructor does not take these arguments.
        """
        if self.kind not in table:
            raise RecipeError(
                f"{where}.kind: {self.kind!r} is none of {', '.join(sorted(table))}."
                f"{nearest(self.kind, table)}"
            )
        arguments = {**(self.model_extra or {}), **known}
        try:
            return table[self.kind](**arguments)
        except TypeError as error:
            raise RecipeError(
                f"{where}: {self.kind} does not take these arguments: {error}."
            ) from None


class Encoder(_Kind):
    """control: what the encoder is fed in training: the prior, or what stands in for it."""

    control: Literal["none", "null", "constant", "shuffled"] = "none"


class Adapter(_Kind):
    at: tuple[str, ...]
    reads: str


class Data(_Part):
    """photographs, validation: folders below the data root. damage: SPEC -> how often."""

    photographs: str
    validation: str
    damage: dict[str, Share]
    counts: tuple[Share, ...] = (0.1, 0.5, 0.3, 0.1)
    factors: tuple[float, float] = (0.7, 1.5)
    sizes: Annotated[int, Field(ge=1)] = 4


class Validation(_Part):
    """specs: damages whose PSNR is followed, on crops of `crop` pixels of so many photographs."""

    specs: tuple[str, ...] = ()
    crop: int = 256
    photographs: int = 12
    seed: int = 1


class Recipe(_Part):
    name: str
    description: str = ""
    extends: str | None = None
    seed: int = 0
    data: Data
    backbone: _Kind
    encoders: dict[str, Encoder] = {}
    adapters: tuple[Adapter, ...] = ()
    objective: _Kind
    schedule: dict[str, Any]
    validation: Validation = Validation()
    card: dict[str, Any] = {}

    def resolved(self) -> dict[str, Any]:
        """Plain values, everything said, nothing inherited."""
        values = json.loads(self.model_dump_json(exclude={"extends"}))
        values["schedule"] = json.loads(json.dumps(vars(self.build_schedule())))
        return values

    @property
    def digest(self) -> str:
        """sha256 over the resolved recipe; what it says of itself in `card` does not count."""
        values = {k: v for k, v in self.resolved().items() if k not in ("card", "description")}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

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
        """The network, initialised from the recipe's seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            backbone = self.backbone.made_of(BACKBONES, "backbone")
            encoders = {
                name: encoder.made_of(ENCODERS, f"encoders.{name}")
                for name, encoder in self.encoders.items()
            }
            adapters: dict[str, nn.Module] = {}
            for row in self.adapters:
                for site in row.at:
                    if site not in backbone.sites:
                        raise RecipeError(
                            f"adapters.at: {self.backbone.kind} has no site {site!r}; it has "
                            f"{', '.join(backbone.sites)}.{nearest(site, backbone.sites)}"
                        )
                    if row.reads not in encoders:
                        raise RecipeError(
                            f"adapters.reads: no encoder is called {row.reads!r}."
                            f"{nearest(row.reads, encoders)}"
                        )
                    adapters[site] = row.made_of(
                        ADAPTERS,
                        "adapters",
                        channels=backbone.sites[site].channels,
                        dim=encoders[row.reads].dim,
                        reads=row.reads,
                    )
            return Restorer(backbone, encoders, adapters)

    def build_objective(self) -> nn.Module:
        values = dict(self.objective.model_extra or {})
        loss = str(values.pop("loss", "charbonnier"))
        if loss not in LOSSES:
            raise RecipeError(
                f"objective.loss: {loss!r} is none of {', '.join(LOSSES)}.{nearest(loss, LOSSES)}"
            )
        return _Kind(kind=self.objective.kind, **values).made_of(
            OBJECTIVES, "objective", loss=LOSSES[loss]
        )

    def build_samples(self, root: Path) -> Samples:
        photographs = load_photographs(
            root / self.data.photographs,
            factors=self.data.factors,
            sizes=self.data.sizes,
            seed=self.seed,
        )
        damage = Damage(self.data.damage, self.data.counts)
        controls = {e.control for e in self.encoders.values() if e.kind == "thumbnail"}
        return Samples(photographs, damage, seed=self.seed, control=next(iter(controls), None))


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
        overrides: `a.b=v`, v written as in TOML; a bare word is a string.

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
        values = _merged(values, _nested(key.strip().split("."), _value(text.strip())))
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


def _nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    return {keys[0]: _nested(keys[1:], value) if len(keys) > 1 else value}


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
    if first["type"] == "missing":
        return f"{'.'.join(path)} is missing."
    return f"{'.'.join(path)}: {first['msg'].lower()}, got {first['input']!r}."
