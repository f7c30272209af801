"""A recipe as it is written: all its keys, and the digest of what they say."""

import hashlib
import json
from typing import Annotated, Any

import tomli_w
from pydantic import BaseModel, ConfigDict, Field

from ...errors import RecipeError, nearest
from ..train import Schedule
from .parts import Adapter, BackboneOf, Data, EncoderOf, PriorOf, Row, Validation


class Written(BaseModel):
    """All that a recipe says; `recipe.Recipe` builds it."""

    # The title is what pydantic calls it where it complains.
    model_config = ConfigDict(extra="forbid", frozen=True, title="Recipe")

    name: str
    description: str = ""
    extends: str | None = None
    seed: int = 0
    # Finished weights that training begins with: a file or a shipped name, or several, whose mean.
    start: str | Annotated[tuple[str, ...], Field(min_length=1)] = ""
    data: Data
    backbone: BackboneOf
    priors: dict[str, PriorOf] = {}
    encoders: dict[str, EncoderOf] = {}
    adapters: tuple[Adapter, ...] = ()
    objective: Row
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
