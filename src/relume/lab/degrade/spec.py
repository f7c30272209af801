"""How damage is written, drawn and applied: SPEC text -> Chain -> Sampled -> Degraded.

A chain is drawn once per photograph, in full-frame coordinates, and applied to any view of it. Each
step says which pixels it must read to make a view (`reads`), so the chain walks backwards to learn
what to cut from the photograph and forwards to damage it: a crop of the damaged frame equals the
damaged crop. Light is converted at the edge of each run of physical steps, once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch

from ...errors import RecipeError, ShapeError, nearest
from ...guidance import Guidance, Guide

Array = np.ndarray
STRIP = 1 << 16  # pixels of a picture that are worked on at once where nothing asks for more
Finish = Literal["clipped", "uint8", "float"]


class View(NamedTuple):
    """A rectangle of a frame, in that frame's pixels. It may reach beyond the frame."""

    top: int
    left: int
    height: int
    width: int

    def grown(self, margin: int) -> View:
        m = margin
        return View(self.top - m, self.left - m, self.height + 2 * m, self.width + 2 * m)

    def aligned(self, grid: int) -> View:
        """The smallest view on a grid of `grid` pixels that holds this one."""
        top, left = self.top // grid * grid, self.left // grid * grid
        bottom = -(-(self.top + self.height) // grid) * grid
        right = -(-(self.left + self.width) // grid) * grid
        return View(top, left, bottom - top, right - left)

    def within(self, size: tuple[int, int]) -> View:
        """The part that lies in a frame of (height, width)."""
        top, left = max(self.top, 0), max(self.left, 0)
        bottom = min(self.top + self.height, size[0])
        right = min(self.left + self.width, size[1])
        return View(top, left, bottom - top, right - left)

    def scaled(self, scale: int) -> View:
        return View(*(v * scale for v in self))

    def cut(self, array: Array, outer: View) -> Array:
        """This view of an array (..., h, w) that shows `outer`."""
        if self == outer:
            return array
        top, left = self.top - outer.top, self.left - outer.left
        return array[..., top : top + self.height, left : left + self.width]


@dataclass(frozen=True)
class Parameter:
    """One number of a kind: its default range, what it may be, and how a range is drawn."""

    low: float
    high: float
    least: float
    most: float
    log: bool = False

    @property
    def allowed(self) -> str:
        return f"{self.least:g}..{self.most:g}"


class Range(NamedTuple):
    """What a SPEC says of one parameter. `draw` is uniform, or log-uniform."""

    low: float
    high: float
    log: bool = False

    def at(self, u: Any) -> Any:
        """The value at u in [0, 1], a number or an array."""
        if self.log and self.low > 0:
            return self.low * (self.high / self.low) ** u
        return self.low + u * (self.high - self.low)

    def __str__(self) -> str:
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g}..{self.high:g}"


def uniform(rng: torch.Generator, n: int) -> Array:
    """(n,) float64 in [0, 1)."""
    return torch.rand(n, generator=rng, dtype=torch.float64).numpy()


def seed(rng: torch.Generator) -> int:
    return int(torch.randint(2**62, (1,), generator=rng).item())


def generator(seed: int, index: int) -> torch.Generator:
    """The generator of picture `index` under `seed`: both numbers mixed, so that none repeats."""
    z = (seed * 0x9E3779B97F4A7C15 + index * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return torch.Generator().manual_seed((z ^ (z >> 31)) % 2**63)


# Light. A file holds what the sRGB curve made of it (IEC 61966-2-1).


def to_light(file: Array) -> Array:
    """File values, uint8 or float, to linear light, float32. What is outside [0, 1] is clipped."""
    if file.dtype == np.uint8:
        return _LIGHT_OF_BYTE.take(file, mode="clip")  # no byte leaves the table: nothing to check
    x = np.clip(file, 0, 1)
    light = np.power((x + np.float32(0.055)) * np.float32(1 / 1.055), np.float32(2.4))
    # The straight toe; its exact inverse in `to_file` takes whichever of toe and curve is higher.
    return np.minimum(light, x * np.float32(1 / 12.92), out=light, where=x <= 0.04045)


def to_file(light: Array) -> Array:
    """Linear light to file values, float32 in [0, 1]: what is brighter than white is clipped."""
    x = np.clip(light, 0, 1)
    file = np.power(x, np.float32(1 / 2.4))
    file *= np.float32(1.055)
    file -= np.float32(0.055)
    # The straight toe below 0.0031308, where the curve dips under it (they part by 1e-5 at most).
    toe = np.minimum(x, np.float32(0.0031308), out=x)
    toe *= np.float32(12.92)
    return np.maximum(file, toe, out=file)


def to_float(file: Array) -> Array:
    """File values, uint8 or float, to float32 in [0, 1]."""
    if file.dtype == np.uint8:
        return np.multiply(file, np.float32(1 / 255), dtype=np.float32)
    return file.astype(np.float32, copy=False)


def to_levels(file: Array) -> Array:
    """The nearest of the 256 values of a file, as float32 whole numbers 0..255."""
    levels = np.clip(file, 0, 1)
    levels *= np.float32(255)
    levels += np.float32(0.5)
    return np.floor(levels, out=levels)


_LIGHT_OF_BYTE = to_light(np.arange(256, dtype=np.float32) / 255)


def mirrored(x: Array, inner: View, outer: View) -> Array:
    """An array that shows `inner` continued to `outer` by reflection about its border pixels."""
    if inner == outer:
        return x

    def index(start: int, length: int, have: int, count: int) -> Array:
        period = max(2 * (count - 1), 1)
        i = np.abs(np.arange(start - have, start - have + length)) % period
        return np.where(i < count, i, period - i)

    rows = index(outer.top, outer.height, inner.top, inner.height)
    columns = index(outer.left, outer.width, inner.left, inner.width)
    return x.take(rows, axis=-2).take(columns, axis=-1)


class Damage(ABC):
    """One step as drawn for one photograph. A subclass is one kind of the SPEC table.

    `drawn` holds what was drawn, in people's units, JSON-able: it goes to `params.jsonl`.

    Args:
        ranges: The kind's parameters as the SPEC gives them.
        size: (height, width) of the frame that the step sees.
        rng: Drawn from once; nothing is drawn later.
        regions: (h, w) integer label map of the whole photograph at any resolution, or None.
    """

    kind: ClassVar[str]
    parameters: ClassVar[Mapping[str, Parameter]]
    words: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    light: ClassVar[bool] = False  # acts on linear light, not on the file's values
    develops: ClassVar[bool] = False  # reads light and hands back the file's values
    pointwise: ClassVar[bool] = False  # reads no neighbours, so that strips cost nothing extra
    softens: ClassVar[bool] = False  # happens to the reference too: not damage
    rounds: ClassVar[bool] = False  # takes bytes as they are, hands back the 256 values of a file
    follows_regions: ClassVar[bool] = False  # looks at the regions, which cost a search
    unit: ClassVar[str] = ""  # of the truth map; "" = the kind leaves none
    size: tuple[int, int]
    scale: int = 1

    def __init__(
        self,
        ranges: Mapping[str, Range],
        size: tuple[int, int],
        rng: torch.Generator,
        regions: Array | None,
    ) -> None:
        self.size = size
        self.drawn: dict[str, Any] = {}
        self.draw(ranges, rng, regions)

    @abstractmethod
    def draw(
        self, ranges: Mapping[str, Range], rng: torch.Generator, regions: Array | None
    ) -> None: ...

    @abstractmethod
    def apply(self, x: Array, view: View) -> Array:
        """The damaged view (3, h, w) from x, which shows `self.reads(view)` and stays as it is."""

    def reads(self, view: View) -> View:
        """What must be seen to make `view`; beyond the frame the picture is mirrored."""
        return view

    def prepare(self, gt: Array) -> None:  # noqa: B027  most kinds need no look
        """See the whole reference, where a severity needs it. (3, H, W), uint8 or float."""

    def truth(self, x: Array, view: View) -> Array | None:
        """(h, w) severity of `view`, from the same x as `apply`."""
        return None

    def small(self, x: Array) -> Array:
        """The same damage as a thumbnail (3, h, w) of the whole frame shows it."""
        return x

    def number(self, ranges: Mapping[str, Range], name: str, u: float) -> float:
        """Draw one number and note it."""
        value = float(ranges[name].at(u))
        self.drawn[name] = round(value, 6)
        return value


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
            soft = (
                step.apply(mirrored(to_float(soft), have, need), out)
                if step.softens
                else out.cut(soft, have)
            )
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


# Reading a SPEC.


def parse(text: str) -> Chain:
    """Read a SPEC such as "haze:beta=0.15..0.6+noise:sigma=25+jpeg".

    Raises:
        RecipeError: In one line: an unknown kind or parameter with the nearest known one, or a
            value outside its allowed range.
    """
    from . import DEGRADATIONS  # the table ends the package, so it is read when it is there

    parts = [part.strip() for part in text.split("+")]
    if not all(parts):
        raise RecipeError(
            f"A damage SPEC is kind:name=value+kind:..., such as noise:sigma=25+jpeg; got {text!r}."
        )
    return Chain([_step(part, DEGRADATIONS) for part in parts])


def _step(part: str, table: Mapping[str, type[Damage]]) -> tuple[type[Damage], Mapping[str, Any]]:
    name, _, rest = part.partition(":")
    name = name.strip()
    if name not in table:
        raise RecipeError(
            f"No damage is called {name!r}.{nearest(name, table)} There is {', '.join(table)}."
        )
    kind = table[name]
    ranges: dict[str, Any] = {
        key: Range(p.low, p.high, p.log) for key, p in kind.parameters.items()
    }
    ranges |= {key: choices[0] for key, choices in kind.words.items()}
    for item in filter(None, (i.strip() for i in rest.split(","))):
        key, equals, value = (s.strip() for s in item.partition("="))
        if key not in ranges:
            takes = [f"{k}={p.allowed}" for k, p in kind.parameters.items()]
            takes += [f"{k}={'|'.join(w)}" for k, w in kind.words.items()]
            raise RecipeError(
                f"{name} has no parameter {key!r}.{nearest(key, ranges)} "
                f"It takes {', '.join(takes)}."
            )
        if not equals or not value:
            raise RecipeError(f"{name}:{key} needs a value, such as {key}={ranges[key]}.")
        if key in kind.words:
            if value not in kind.words[key]:
                raise RecipeError(
                    f"{name}:{key} must be one of {', '.join(kind.words[key])}; got {value!r}."
                    f"{nearest(value, kind.words[key])}"
                )
            ranges[key] = value
        else:
            ranges[key] = _range(f"{name}:{key}", value, kind.parameters[key])
    return kind, ranges


def _range(where: str, text: str, parameter: Parameter) -> Range:
    ends = text.split("..")
    try:
        numbers = [float(end) for end in ends]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or not all(map(math.isfinite, numbers)):
        raise RecipeError(
            f"{where} must be a number or low..high in {parameter.allowed}, got {text!r}."
        )
    low, high = numbers[0], numbers[-1]
    if low > high:
        raise RecipeError(f"{where}={text} runs backwards; write {high:g}..{low:g}.")
    if low < parameter.least or high > parameter.most:
        raise RecipeError(f"{where} must lie in {parameter.allowed}, got {text}.")
    return Range(low, high, parameter.log)


def camera_order(kinds: Iterable[str]) -> list[str]:
    """Kinds in the order in which a camera meets them: light, optics, sensor, codec.

    Raises:
        RecipeError: A kind that is not in the table.
    """
    from . import DEGRADATIONS

    listed = list(kinds)
    for name in listed:
        if name not in DEGRADATIONS:
            raise RecipeError(f"No damage is called {name!r}.{nearest(name, DEGRADATIONS)}")
    return sorted(listed, key=list(DEGRADATIONS).index)
