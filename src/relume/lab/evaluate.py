"""Scores of a model over a data set, as a Report that carries its protocol.

`evaluate` takes callables, so that any engine, baseline or function of one's own can be measured in
the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..card import Card
from ..engine import Engine
from ..errors import CheckError, UsageError, nearest
from ..guidance import Guidance
from ..image import enlarge
from ..priors import PRIORS, Prior
from ..priors.choice import SIGMA, priors_of
from ..priors.own import Told
from ..restoration import check_restores, look, run_model
from .controls import CONTROLS
from .data import DAMAGE
from .datasets import Loaded, Pair, Pairs
from .metrics import CLEAN_FROM, Protocol, as_uint8
from .report import Report, report_of
from .truth import inside, residual, severities

Restore = Callable[..., np.ndarray]
"""(rgb) -> out, or (rgb, guidance) -> out where a prior is given; (1, 3, H, W) float32."""


def evaluate(
    restore: Restore,
    pairs: Pairs,
    protocol: Protocol | None = None,
    *,
    model: Mapping[str, Any] | None = None,
    prior: Callable[[np.ndarray], Guidance] | None = None,
    told: Sequence[str] = (),
    against: Sequence[str] = (),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    judge: Callable[[np.ndarray], float] | None = None,
) -> Report:
    """Restore every pair and measure it; where the pairs know of their damage, also apart inside it
    and outside (`truth.inside`), in the report's rows.

    The oracle of damage maps is told the physics of the pairs' SPEC, for the kinds that the prior
    names; oracle_residual what the difference to gt shows of them, which leaks it.

    Args:
        restore: lq (1, 3, H, W) float32 -> out, `scale` times as large. With `prior` or `told` it
            is called as (lq, guidance). Its answer is clipped, and rounded as the protocol says,
            here.
        pairs: From `folder_pairs` or `degraded_pairs`.
        protocol: channels, crop, rounding, align; spec, seed, noise and scale are the pairs'.
        model: name and sha256 of what is measured, for the report.
        prior: lq -> Guidance, what can be known from lq.
        told: Names of the pairs' truth that the model is told too, as a network that is not blind
            is told `noise.sigma`. The protocol says so.
        against: Controls to put in the prior's place (names of `CONTROLS`). This shows whether the
            model *listens*; whether the prior helps needs a model trained under the control.
        seed: Of the bootstrap and of the control's donors; not of the damage.
        progress: Called with (done, all) after each picture.
        judge: Picture, as a file of 8 bits holds it -> how good it looks, `tier_score` of the rows;
            of what came in and of gt (`_input`, `_gt`) too. The protocol says who it is.

    Raises:
        UsageError: `against` without a prior, an unknown control, `shuffled` with pictures of one
            photograph only, or pairs without the truth in `told`.
        CheckError: The answer is not finite, or has another size than gt; the message names it.
        PictureError: A picture cannot be read.
    """
    protocol = replace(
        protocol or Protocol(),
        spec=pairs.data["spec"],
        seed=pairs.data["seed"],
        noise=pairs.noise,
        scale=pairs.scale,
        told=tuple(told),
    )
    _check_controls(against, prior is not None or bool(told))
    donors = _donors(pairs, seed) if "shuffled" in against else None
    rng = torch.Generator().manual_seed(seed)
    rows: list[dict[str, Any]] = []
    swapped: dict[str, list[dict[str, float]]] = {name: [] for name in against}

    for done, pair in enumerate(pairs.items, 1):
        loaded = pair.load()
        guidance = _known(pair, loaded, prior, told) if prior or told else None
        # The truth lies on the pixels of lq.
        part = inside(loaded.truth) if pairs.scale == 1 else None
        scored = _scored(restore, loaded.lq, guidance, loaded.gt, pair.image, protocol, part)
        before = loaded.lq if pairs.scale == 1 else enlarge(loaded.lq, pairs.scale)
        at_input = protocol.score(before, loaded.gt, part)
        row = {"image": pair.image, "photograph": pair.photograph, **scored[0]}
        row |= {f"{name}_input": value for name, value in at_input.items()}
        if at_input["psnr"] < CLEAN_FROM:
            row["worst_tile"] = protocol.worst_tile(scored[1], before, loaded.gt)
        if at_input["psnr"] >= CLEAN_FROM:
            kept = replace(protocol, align=0).score(scored[1], before)
            row["psnr_kept"] = kept["psnr"]
        if judge is not None:
            shown = {"": scored[1], "_input": before, "_gt": loaded.gt}
            row |= {f"tier_score{of}": judge(_as_file(rgb)) for of, rgb in shown.items()}
        rows.append({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()})

        if guidance is not None and against:
            other = donors[done - 1] if donors else pair
            of_other = _known(other, other.load(), prior, told) if donors else guidance
            truth = _damage_of(pairs, loaded, guidance, against)
            for name in against:
                instead = CONTROLS[name](guidance, truth, of_other, rng)
                found = _scored(restore, loaded.lq, instead, loaded.gt, pair.image, protocol)
                swapped[name].append(found[0])
        if progress:
            progress(done, len(pairs.items))
    return report_of(protocol, model or {}, pairs.data, rows, swapped, seed)


def engine_restorer(
    engine: Engine, *, tile: int | str = "auto", priors: Mapping[str, Prior] | None = None
) -> tuple[Restore, Callable[[np.ndarray], Guidance] | None]:
    """(restore, prior) of an open engine, for `evaluate`: the path that `relume restore` takes.

    The prior is None where none is asked; `restore` then takes the picture alone, and what
    `told_by_truth` names.

    Args:
        engine: Of a model that restores.
        tile: As `relume.restore` takes it.
        priors: Those to ask, by name; None for all that the model reads.

    Raises:
        UsageError: It is a mask network, or needs a prior that cannot be made.
        ModelError, MissingError: The mask network that goes with it was refused, or is not here.
    """
    check_restores(engine.card)
    truth = told_by_truth(engine.card)
    found = tuple(r for r in engine.card.reads if r.prior not in truth)
    if priors is None:
        priors = priors_of(replace(engine.card, reads=found), "auto", masks=engine.masks)
    asked = priors

    def restore(rgb: np.ndarray, guidance: Guidance | None = None) -> np.ndarray:
        told = {name: Told(guide) for name, guide in (guidance or Guidance()).items()}
        out, _ = run_model(rgb, engine, told, tile)
        gray = (rgb[:, :1] == rgb).all()  # a gray file is written back as gray
        return out.mean(1, keepdims=True).repeat(3, axis=1) if gray else out

    def prior(rgb: np.ndarray) -> Guidance:
        return look(rgb, engine.card, asked, engine.first, tile)

    return restore, (prior if asked else None)


def told_by_truth(card: Card) -> tuple[str, ...]:
    """What the model has to be told and no prior finds: the noise level, of one that is not blind.

    It is `evaluate`'s `told`; papers on such networks tell them the truth as well.
    """
    return tuple(r.prior for r in card.reads if r.prior == SIGMA and SIGMA not in PRIORS)


def _known(
    pair: Pair,
    loaded: Loaded,
    prior: Callable[[np.ndarray], Guidance] | None,
    told: Sequence[str],
) -> Guidance:
    """What the model is to hear of one pair: what the prior finds, and what the truth tells."""
    absent = [name for name in told if name not in loaded.truth]
    if absent:
        raise UsageError(
            f"{pair.image}: the model must be told {', '.join(absent)}, which these pairs do not "
            "say. Damage the gt on the way, such as --degrade noise:sigma=25."
        )
    found = prior(loaded.lq) if prior else Guidance()
    return Guidance({**found, **{name: loaded.truth[name] for name in told}})


def _damage_of(
    pairs: Pairs, loaded: Loaded, guidance: Guidance, against: Sequence[str]
) -> Guidance:
    """The truth of one pair with that of its damage as maps, of the kinds that the prior names."""
    truth = loaded.truth
    kinds = guidance[DAMAGE].names if DAMAGE in guidance else ()
    if not kinds:
        return truth
    # Of pairs that are read nobody knows what was done; no damage by a SPEC is known to be none.
    if DAMAGE not in truth and pairs.data["spec"] is not None:
        size = (loaded.lq.shape[-2], loaded.lq.shape[-1])
        truth = truth.with_guide(DAMAGE, severities(loaded.truth, size, kinds))
    leaks = f"{DAMAGE}.residual"
    if "oracle_residual" in against and leaks not in truth and loaded.lq.shape == loaded.gt.shape:
        truth = truth.with_guide(leaks, residual(loaded.lq[0], loaded.gt[0], kinds))
    return truth


def _scored(
    restore: Restore,
    lq: np.ndarray,
    guidance: Guidance | None,
    gt: np.ndarray,
    image: str,
    protocol: Protocol,
    part: np.ndarray | None = None,
) -> tuple[dict[str, Any], np.ndarray]:
    """Scores of one answer, and the answer."""
    out = np.asarray(restore(lq) if guidance is None else restore(lq, guidance))
    if out.shape != gt.shape:
        raise CheckError(
            f"{image}: the answer has shape {tuple(out.shape)}, its gt {tuple(gt.shape)}. "
            "Is this a model of another scale?"
        )
    if not np.isfinite(out).all():
        raise CheckError(f"{image}: the answer holds values that are not finite.")
    scores = protocol.score(out, gt, part)
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in scores.items()}, out


def _as_file(rgb: np.ndarray) -> np.ndarray:
    return as_uint8(rgb).float().numpy()


def _check_controls(against: Sequence[str], listens: bool) -> None:
    for name in against:
        if name not in CONTROLS:
            known = ", ".join(CONTROLS)
            raise UsageError(
                f"There is no control {name!r}; there is {known}.{nearest(name, CONTROLS)}"
            )
    if against and not listens:
        raise UsageError(
            f"--against {','.join(against)} swaps what a prior says, but this model reads no prior."
        )


def _donors(pairs: Pairs, seed: int) -> list[Pair]:
    """For each pair one of another photograph, so that no picture is told of itself."""
    order = np.random.default_rng(seed).permutation(len(pairs.items))
    # Sorted by photograph, then moved on by the size of the largest group: nobody meets his own.
    order = sorted(order, key=lambda i: pairs.items[i].photograph)
    groups = [pairs.items[i].photograph for i in order]
    largest = max((groups.count(g) for g in set(groups)), default=0)
    if 2 * largest > len(groups):
        raise UsageError(
            "The control 'shuffled' needs pictures of several photographs, none with more than "
            "half of them. Give more pictures."
        )
    donors = dict(zip(order, order[largest:] + order[:largest], strict=True))
    return [pairs.items[donors[i]] for i in range(len(order))]
