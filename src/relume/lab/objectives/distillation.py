"""Train a restorer to give the clean picture back, and to hold what a teacher's features hold."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...errors import RecipeError, nearest
from ..adapters.gate import maps_at
from ..backbones import Site
from ..data import Batch
from ..losses import ATTENTIONS, DISTILLATIONS
from ..losses.distill import effective, separability
from .restoration import Restoration


class Distillation(Restoration):
    """Restoration, plus weight(step) times the sum over sites of a distillation between features.

    DAKD's distillation (Suin et al., IEEE JSTSP 2021, doi 10.1109/JSTSP.2020.3043622; a
    reconstruction: only the abstract is known to us): the teacher solves another task, it predicts
    where the picture is damaged, on the same lq. At each site in `at` the student's feature passes
    a 1x1 convolution into the teacher's channels, which is trained here and thrown away with the
    objective. The weight falls linearly to 0 over the last part of training: what the teacher knows
    is a start, the picture decides the end.

    The teacher is no part of this module: it is frozen, in eval mode, in no checkpoint, and nobody
    moves it by moving the objective; it follows the batch.

    Logs, beside restoration's: `distill`, the sum over sites, unweighted; with `attentive`
    `pixels.SITE` and, with `reads`, `channels.SITE`, over how many of them the weights spread.

    Args:
        loss, harm: As in `Restoration`.
        teacher: A Restorer, which reads no more than the student does.
        sites: The student's, by name: what its backbone promises.
        steps: Of the whole training.
        at: Sites that teacher and student both have, of one stride.
        distill: Row of DISTILLATIONS. `attention_transfer` compares features as they are, without
            the convolutions: their channels may differ in number.
        attention: Row of ATTENTIONS, for `attentive`.
        reads: Name of damage maps in the student's guidance, for the channel weights of
            `attentive`; "" weights channels alike. A control or dropout of that prior holds here
            too: of silent maps all channels are alike.
        weight: Of the sum until `last`. 0 is `Restoration`, and never runs the teacher.
        last: Share of the steps, at the end, over which the weight falls to 0.

    Raises:
        RecipeError: A site that either has not, or of another stride; a word of no table; a number
            out of range.
        GuidanceError: On a batch whose guidance has no maps called `reads`.
        ShapeError: On a batch where the teacher's padding differs from the student's.
    """

    def __init__(
        self,
        loss: Callable[[Tensor, Tensor], Tensor],
        teacher: nn.Module,
        sites: Mapping[str, Site],
        steps: int,
        at: Sequence[str],
        distill: str = "attentive",
        attention: str = "energy",
        reads: str = "",
        weight: float = 0.1,
        last: float = 0.2,
        harm: float = 0.0,
    ) -> None:
        super().__init__(loss, harm)
        for key, word, table in (
            ("distill", distill, DISTILLATIONS),
            ("attention", attention, ATTENTIONS),
        ):
            if word not in table:
                raise RecipeError(
                    f"objective.{key}: {word!r} is none of {', '.join(table)}."
                    f"{nearest(str(word), table)}"
                )
        if weight < 0 or not 0 <= last <= 1:
            raise RecipeError(
                f"objective.weight must be 0 or more and last a share, got {weight} and {last}."
            )
        theirs = cast(Any, teacher).backbone.sites
        _check_sites(at, sites, theirs)
        teacher = teacher.eval().requires_grad_(False)
        # A tuple is no submodule: what it holds is neither saved, trained nor moved.
        self._held = (teacher.to(memory_format=torch.channels_last),)  # type: ignore[call-overload]
        self.at, self.reads, self.steps = tuple(at), reads, steps
        self.weight, self.last, self.now = weight, last, weight
        self.attention = attention if distill == "attentive" else ""
        row = DISTILLATIONS[distill]
        self.distill = partial(row, attention=attention) if self.attention else row
        self.strides = {site: sites[site].stride for site in at}
        self.into = nn.ModuleDict(
            {
                site.replace(".", "_"): nn.Conv2d(sites[site].channels, theirs[site].channels, 1)
                for site in (at if distill != "attention_transfer" else ())
            }
        )

    @property
    def teacher(self) -> nn.Module:
        return self._held[0]

    def begin(self, step: int, ema: Any) -> None:
        """Set the weight of this step."""
        left = (self.steps - step) / max(1e-9, self.last * self.steps)
        self.now = self.weight * max(0.0, min(1.0, left))

    def forward(self, batch: Batch, model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
        if not self.now:
            return super().forward(batch, model)
        output = model(batch.lq, batch.guidance, self.at)
        loss, logs = self.judged(output.image, batch)
        with torch.no_grad():
            teacher = cast(Any, self.teacher.to(batch.lq.device))
            taught = teacher.run(batch.lq, batch.guidance, self.at).aux
        total = torch.zeros_like(loss)
        for site in self.at:
            theirs, mask = taught[site], self._mask(batch, site, taught[site])
            total = total + self.distill(self._into(site, output.aux[site]), theirs, mask)
            if self.attention:
                logs[f"pixels.{site}"] = effective(ATTENTIONS[self.attention](theirs))
            if mask is not None:
                logs[f"channels.{site}"] = effective(separability(theirs, mask)[None])
        return loss + self.now * total, {**logs, "distill": total.detach()}

    def _into(self, site: str, feature: Tensor) -> Tensor:
        """The student's feature in the teacher's channels."""
        key = site.replace(".", "_")
        return self.into[key](feature) if key in self.into else feature

    def _mask(self, batch: Batch, site: str, feature: Tensor) -> Tensor | None:
        """How degraded each sample of a site is, by the worst of the maps: (N, 1, h, w)."""
        if not self.attention or not self.reads:
            return None
        maps = batch.guidance[self.reads].maps.amax(1, keepdim=True)
        return maps_at(maps, self.strides[site], feature.shape[-2:], mean=True)


def _check_sites(at: Sequence[str], ours: Mapping[str, Site], theirs: Mapping[str, Site]) -> None:
    if not at or isinstance(at, str):
        raise RecipeError(f"objective.at lists the sites to learn at, got {at!r}.")
    for site in at:
        for who, sites in (("network", ours), ("teacher", theirs)):
            if site not in sites:
                raise RecipeError(
                    f"objective.at: the {who} has no site {site!r}; it has {', '.join(sites)}."
                    f"{nearest(site, sites)}"
                )
        if ours[site].stride != theirs[site].stride:
            raise RecipeError(
                f"objective.at: {site} has a stride of {ours[site].stride} in the network and of "
                f"{theirs[site].stride} in the teacher. Choose sites of one stride."
            )
