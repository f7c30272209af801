"""Several damages one after the other: Chain -> Sampled -> Degraded.

A chain is drawn once per photograph, in full-frame coordinates, and applied to any view of it. Each
step says which pixels it must read to make a view (`reads`), so the chain walks backwards to learn
what to cut from the photograph and forwards to damage it: a crop of the damaged frame equals the
damaged crop. Light is converted at the edge of each run of physical steps, once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch

from ...errors import ShapeError
from ...guidance import Guidance, Guide
from .damage import Damage
from .tone import to_file, to_float, to_levels, to_light
from .view import Array, View, mirrored

STRIP = 1 << 16  # pixels of a picture that are worked on at once where nothing asks for more
Finish = Literal["clipped", "uint8", "float"]


@dataclass(frozen=True, eq=False)
class Degraded:
    """A damaged view and what is true of it.

    Attributes:
        lq: (3, h, w) float32; (3, h / scale, w / scale) after `down`.
        gt: (3, h, w) float32 in [0, 1], the view of the reference (softened by `resize`).
        truth: "damage.KIND" -> Guide of one map (1, 1, h, w) on the lq's pixels, 1 = degraded.
        params: What was drawn, in people's units; JSON-able.
    """

    lq: Array
    gt: Array
    truth: Guidance
    params: list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Sampled:
    """A chain as drawn for one photograph of `size` (height, width)."""

    size: tuple[int, int]
    steps: tuple[Damage, ...]

    @property
    def params(self) -> list[dict[str, Any]]:
        return [{"kind": step.kind, **step.drawn} for step in self.steps]

    @cached_property
    def scale(self) -> int:
        return math.prod(step.scale for step in self.steps)

    @cached_property
    def pointwise(self) -> bool:
        return all(step.pointwise for step in self.steps)

    @cached_property
    def softens(self) -> bool:
        return any(step.softens for step in self.steps)


class Chain:
    """A SPEC that was read: kinds with ranges, in the order in which they act.

    Args:
        steps: (kind's class, its ranges) pairs; `parse` makes them.
    """

    def __init__(self, steps: Sequence[tuple[type[Damage], Mapping[str, Any]]]) -> None:
        self.steps = tuple(steps)

    def __str__(self) -> str:
        """The SPEC with every default spelt out: the same text, the same chain."""

        def one(kind: type[Damage], ranges: Mapping[str, Any]) -> str:
            return f"{kind.kind}:{','.join(f'{name}={value}' for name, value in ranges.items())}"

        return "+".join(one(*step) for step in self.steps)

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(kind.kind for kind, _ in self.steps)

    @property
    def follows_regions(self) -> bool:
        """Whether `sample` makes use of regions; without, none need be looked for."""
        return any(kind.follows_regions for kind, _ in self.steps)

    def sample(
        self, rng: torch.Generator, size: tuple[int, int], regions: Any | None = None
    ) -> Sampled:
        """Draw the damage of one photograph.

        Args:
            rng: The only source of randomness.
            size: (height, width) of the photograph.
            regions: (h, w) integer label map of the whole photograph, at any resolution: what haze
                and `regionblur` follow. None: smooth depth, drawn blobs. Where `follows_regions` is
                false nothing looks at it.
        """
        labels = None if regions is None else np.asarray(regions)
        if labels is not None and labels.ndim != 2:
            raise ShapeError(f"regions must be an (h, w) label map, got shape {labels.shape}.")
        drawn: list[Damage] = []
        now = (int(size[0]), int(size[1]))
        for kind, ranges in self.steps:
            step = kind(ranges, now, rng, labels)
            now = (now[0] // step.scale, now[1] // step.scale)
            drawn.append(step)
        return Sampled((int(size[0]), int(size[1])), tuple(drawn))

    @staticmethod
    def apply(
        gt: Any,
        sampled: Sampled,
        view: View | Sequence[int] | None = None,
        *,
        truth: bool = True,
        finish: Finish = "clipped",
    ) -> Degraded:
        """Damage a view of a photograph.

        Args:
            gt: The whole photograph, (3, H, W), uint8 or float in [0, 1], array or CPU tensor.
            sampled: What `sample` drew for its size.
            view: (top, left, height, width) in gt's pixels; None for all of it, cropped to a
                multiple of `down`'s scale. With `down`, all four must be multiples of the scale.
            truth: False skips the severity maps.
            finish: "clipped" to [0, 1]; "uint8" also rounds to the 256 values of a file; "float"
                leaves what noise put outside.

        Raises:
            ShapeError: gt is not (3, H, W) of the size sampled, or the view leaves it.
        """
        frame = gt.detach().numpy() if isinstance(gt, torch.Tensor) else np.asarray(gt)
        if frame.ndim != 3 or frame.shape[0] != 3 or frame.shape[1:] != sampled.size:
            raise ShapeError(
                f"gt must be the whole photograph, (3, {sampled.size[0]}, {sampled.size[1]}) as it "
                f"was sampled, got {frame.shape}. Cut with `view`, not before."
            )
        asked = _checked(view, sampled)
        if asked.height * asked.width > STRIP and sampled.pointwise:
            x, soft, maps = _by_strips(frame, sampled, asked, truth, finish)
        else:
            x, soft, maps = _damaged(frame, sampled, asked, truth, finish)
        if soft is None:
            reference = to_float(asked.cut(frame, View(0, 0, *sampled.size)))
        else:
            reference = np.clip(to_float(soft), 0, 1)
        units = {step.kind: step.unit for step in sampled.steps} if maps else {}
        guides = {
            name: Guide(
                maps=np.ascontiguousarray(m, np.float32)[None, None],
                names=(name,),
                units=(units[name.removeprefix("damage.")],),
                provenance={"prior": "truth"},
            )
            for name, m in maps.items()
        }
        return Degraded(np.ascontiguousarray(x), reference, Guidance(guides), sampled.params)

    @staticmethod
    def apply_small(gt: Any, sampled: Sampled) -> Array:
        """The same damage in a thumbnail of the whole photograph: what averaging leaves of it.

        Haze and darkness act exactly; rain and drops by their mean coverage; noise with the sigma
        that averaging leaves; blur, JPEG and `down` do not show.

        Args:
            gt: (3, h, w) thumbnail of the whole photograph, uint8 or float in [0, 1]; the two axes
                may be reduced by different factors.

        Returns:
            (3, h, w) float32 in [0, 1].
        """
        x = gt.detach().numpy() if isinstance(gt, torch.Tensor) else np.asarray(gt)
        light = False
        for step in sampled.steps:
            if type(step).small is Damage.small:
                continue
            if step.light and not light:
                x, light = to_light(x), True
            elif light and not step.light:
                x, light = to_file(x), False
            elif not light:
                x = to_float(x)
            x = step.small(x)
            light = light and not step.develops
        return to_file(x) if light else np.clip(to_float(x), 0, 1)


def _damaged(
    frame: Array, sampled: Sampled, asked: View, truth: bool, finish: Finish
) -> tuple[Array, Array | None, dict[str, Array]]:
    """(lq, the softened reference or None, "damage.KIND" -> (h, w) severity) of one view."""
    scale = sampled.scale
    shown = asked if scale == 1 else View(*(v // scale for v in asked))
    outs, reads = [shown], []
    for step in reversed(sampled.steps):
        reads.append(step.reads(outs[-1]))
        outs.append(reads[-1].within(step.size))
    outs.reverse()
    reads.reverse()

    file = outs[0].cut(frame, View(0, 0, *sampled.size))
    soft = file if sampled.softens else None
    x, light, rounded = file, False, False
    maps: dict[str, Array] = {}
    left = scale
    for step, have, need, out in zip(sampled.steps, outs, reads, outs[1:], strict=False):
        if step.light and not light:
            x, light = to_light(x), True
        elif light and not step.light:
            x, light = to_file(x), False
        elif not light and not step.rounds:
            x = to_float(x)
        x = mirrored(x, have, need)
        left //= step.scale
        if truth and step.unit:
            step.prepare(frame)
            severity = step.truth(x, out)
            if severity is not None:
                here = shown.scaled(left).cut(severity, out)
                if left > 1:
                    h, w = shown.height, shown.width
                    here = here.reshape(h, left, w, left).mean((1, 3))
                name = f"damage.{step.kind}"
                maps[name] = np.maximum(maps[name], here) if name in maps else here
        if soft is not None:
            soft = _softened(step, soft, have, need, out) if step.softens else out.cut(soft, have)
        x = step.apply(x, out)
        light, rounded = light and not step.develops, step.rounds
    if light:
        x = to_file(x)
    elif not rounded:
        x = to_float(x)
        if finish == "clipped":
            x = np.clip(x, 0, 1)
    if finish == "uint8" and not rounded:
        x = to_levels(x)
        x *= np.float32(1 / 255)
    return x, soft, maps


def _softened(step: Damage, soft: Array, have: View, need: View, out: View) -> Array:
    """What a step makes of the reference, file values."""
    x = mirrored(to_light(soft) if step.light else to_float(soft), have, need)
    made = step.apply(x, out)
    return to_file(made) if step.light else made


def _by_strips(
    frame: Array, sampled: Sampled, asked: View, truth: bool, finish: Finish
) -> tuple[Array, None, dict[str, Array]]:
    """`_damaged` in strips that stay in the cache, where no step reads its neighbours."""
    rows = max(1, STRIP // asked.width)
    lq = np.empty((3, asked.height, asked.width), np.float32)
    parts: list[dict[str, Array]] = []
    for top in range(0, asked.height, rows):
        height = min(rows, asked.height - top)
        strip = View(asked.top + top, asked.left, height, asked.width)
        lq[:, top : top + height], _, maps = _damaged(frame, sampled, strip, truth, finish)
        parts.append(maps)
    return lq, None, {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _checked(view: View | Sequence[int] | None, sampled: Sampled) -> View:
    scale, (height, width) = sampled.scale, sampled.size
    if view is None:
        return View(0, 0, height // scale * scale, width // scale * scale)
    asked = View(*map(int, view))
    if asked.height < 1 or asked.width < 1 or asked.within(sampled.size) != asked:
        raise ShapeError(f"{asked} does not lie in a photograph of {height} x {width}.")
    if scale > 1 and any(v % scale for v in asked):
        raise ShapeError(f"After down:scale={scale} a view must be multiples of it, got {asked}.")
    return asked
