"""Who tells a model something about a picture: the priors it reads, or who stands in for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..card import Card, shipped
from ..engine import Engine
from ..errors import UsageError, nearest
from . import PRIORS, Prior
from .damage import DamagePrior
from .own import OwnMasks
from .sam import TOGETHER, SamPrior

SIGMA = "noise.sigma"
"""What networks that are not blind read: the noise level, vector (1, 1)."""


def priors_of(
    card: Card,
    prior: str | Mapping[str, Prior] = "auto",
    *,
    sam: str | Path | None = None,
    network: bool = True,
    device: str = "auto",
    masks: Callable[[], Engine] | None = None,
) -> dict[str, Prior]:
    """The priors to ask with this model, under the names by which it reads them.

    Args:
        prior: "auto" for all that the model reads, "none", one of them, or "sam": the prior `sam`,
            or where the model reads none, SAM in the place of its region prior. Priors themselves,
            by name, are given back.
        sam: SAM's weights, a folder or a hub model's id; with "sam" or "auto".
        network: Whether a hub model that is not on this machine may be fetched.
        device: Where SAM runs: "cpu", "gpu", or "auto" for a GPU where torch sees one.
        masks: Opens the mask network that says `damage`, the engine's own `masks`; it is called
            only where that is asked.

    Raises:
        UsageError: The model does not read it, this installation does not know it, or `prior` and
            `sam` do not go together.
        ModelError, MissingError: The mask network that is to be asked was refused, or is not here.
    """
    kinds = {r.prior: r.kind for r in card.reads}
    if not isinstance(prior, str):
        if sam is not None:
            raise UsageError("sam= goes with the name of a prior; put a SamPrior among your own.")
        for name in prior:
            if name not in kinds:
                raise UsageError(_not_read(card, name))
        return dict(prior)
    places: list[str] = []
    if prior == "sam" or sam is not None:
        labelled = [name for name, kind in kinds.items() if kind == "regions"]
        places = ["sam"] if "sam" in kinds else labelled
        if not places:
            raise UsageError(_not_read(card, "sam", kind="regions", mend="leave --sam out"))
        if sam is None:
            raise UsageError(TOGETHER)
        if prior not in ("auto", "sam"):
            raise UsageError(
                f"--prior {prior} does not ask SAM; give --sam with --prior sam or auto."
            )
    names = {"auto": list(kinds), "none": [], "sam": places}.get(prior, [prior])
    made: dict[str, Prior] = {}
    for name in names:
        if name not in kinds:
            raise UsageError(_not_read(card, name))
        if name in places or name == "sam":
            gives: Any = kinds[name]
            made[name] = SamPrior(sam, gives=gives, network=network, device=device)
        elif name == "damage":
            if masks is None:
                raise UsageError(
                    f"{card.name} reads damage maps, and no mask network goes with it. Give "
                    '--prior none, or in Python restore(…, prior={"damage": DamagePrior(FILE)}) '
                    "the one it was trained beside."
                )
            made[name] = DamagePrior(masks())
        elif name in PRIORS:
            made[name] = PRIORS[name]()
        elif name == SIGMA:
            raise UsageError(
                f"{card.name} must be told the noise level, which no prior finds, so it cannot "
                "restore a photograph; `relume evaluate` tells it that of --degrade noise:sigma=25."
            )
        else:
            raise UsageError(
                f"{card.name} reads the prior {name!r}, which this version cannot make; it knows "
                f"{', '.join(sorted(PRIORS))}. Upgrade relume."
            )
    return made


def region_places(card: Card, asked: Mapping[str, Prior]) -> list[str]:
    """The names, of those asked, under which a person's own regions are told to the model.

    Raises:
        UsageError: It reads no regions, none of them is asked for, or SAM is to say them.
    """
    labelled = [r.prior for r in card.reads if r.kind == "regions"]
    places = [name for name in labelled if name in asked]
    if not labelled:
        words = _not_read(card, "regions", kind="regions", mend="leave --regions out")
        raise UsageError(words)
    if not places:
        raise UsageError(
            f"--regions stands in the place of {', '.join(labelled)}, for which --prior does not "
            "ask; use --prior auto."
        )
    if any(isinstance(p := asked[name], SamPrior) and p.source is not None for name in places):
        raise UsageError("--sam and --regions both say the regions; give one of them.")
    return places


def settings_of(
    asked: Mapping[str, Prior], own: OwnMasks | None = None, places: Sequence[str] = ()
) -> dict[str, Any]:
    """What the priors add to the settings of a job: `prior`, who is asked, and `priors`, all that
    decides what they say; `own` is who is asked at `places`.

    Raises:
        MissingError: SAM is to be asked, and its weights are not there.
    """
    mine = own.identity if own else {}
    said = {name: mine if name in places else p.identity for name, p in asked.items()}
    names = [str(identity.get("prior", name)) for name, identity in said.items()]
    return {"prior": "+".join(names) or "none", "priors": said}


def stand_ins(card: Card, asked: Mapping[str, Prior]) -> list[str]:
    """A line for each prior that another stands in for: the model was trained with the first."""
    lines: list[str] = []
    for name, prior in asked.items():
        who = str(prior.identity.get("prior", name))
        known = _trained_with(card, name)
        if who != known:
            whose = {"own": "your own masks stand", "sam": "SAM's regions stand"}
            words = whose.get(who, f"{who} stands")
            lines.append(f"{words} in the place of {known}, which {card.name} was trained with")
        elif isinstance(prior, DamagePrior) and card.masks not in (None, prior.engine.card.digest):
            lines.append(
                f"{prior.engine.card.name} stands in the place of the mask network that "
                f"{card.name} was trained with"
            )
    return lines


def _trained_with(card: Card, name: str) -> str:
    """Who said `name` in training; a recipe's row may name another prior than its own name."""
    rows: Any = card.recipe.get("priors")
    row = rows.get(name) if isinstance(rows, Mapping) else None
    kind = row.get("kind") if isinstance(row, Mapping) else None
    return kind if kind and isinstance(kind, str) else name


def _not_read(card: Card, prior: str, *, kind: str = "", mend: str = "use --prior auto") -> str:
    """`kind` is given where any prior of that kind would do."""
    cards = [m.card for m in shipped() if m.card.restores]
    known = {r.prior: c.name for c in cards for r in c.reads}
    readers = sorted({c.name for c in cards for r in c.reads if prior == r.prior or kind == r.kind})
    message = f"{card.name} does not read the prior {prior!r}"
    if readers:
        return f"{message}; {', '.join(readers)} does. Choose it with --model, or {mend}."
    reads = ", ".join(r.prior for r in card.reads) or "none"
    return (
        f"{message} (it reads {reads}), and no shipped model does; {mend}.{nearest(prior, known)}"
    )
