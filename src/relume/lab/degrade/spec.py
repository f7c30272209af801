"""How damage is written: SPEC text -> Chain."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ...errors import RecipeError, nearest
from .chain import Chain
from .damage import Damage, Parameter, Range


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
