"""The card: what a model file says of itself, and every number in it judged.

Plans and arrays are made from these numbers, so a card that says what no model can be is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from ..errors import ModelError

CARD_KEY = "relume.card"
CARD_FORMAT = 1
MAX_CARD = 1 << 20
MAX_MAPS = 64  # that one model emits; each costs four bytes a pixel

BESIDE = {"first": "first", "damage": "masks"}
"""Models that may lie beside another: WORD of NAME.WORD.onnx -> the field of its card."""


@dataclass(frozen=True)
class Reads:
    """One prior that a model reads.

    Args:
        prior: Its name in Guidance, and the name of the graph's input.
        kind: maps, regions, layers, tokens or vector.
        channels: K of maps, M of layers, D of tokens and vector; 1 for regions.
        shape: One picture's array, without the batch axis. 0 = follows the tile (its side divided
            by `stride`). A thumbnail is (3, 96, 96), rain maps are (1, 0, 0), a vector is (64,).
        stride: Picture pixels per sample of a spatial kind.
        whole: True where every tile is shown the whole picture; its sides are then fixed.
    """

    prior: str
    kind: str
    channels: int
    shape: tuple[int, ...]
    stride: int = 1
    whole: bool = False

    @property
    def spatial(self) -> bool:
        return self.kind in ("maps", "regions", "layers")

    @property
    def counted(self) -> bool:
        """Token rows, one for each label of the picture."""
        return self.kind == "tokens" and not self.shape[0]


@dataclass(frozen=True)
class Sureness:
    """How sure to be of a kind of damage, fitted on photographs whose damage is known.

    Args:
        level: Severity from which something should be done about it, in (0, 1).
        offset, mean, worst: The log-odds are offset + mean log10(m) + worst log10(w), of the
            severity above `level` on the whole picture, m, and on its worst square, w.
        told: Confidence from which it is told: above that of undamaged photographs.
    """

    level: float
    offset: float
    mean: float
    worst: float
    told: float = 0.5

    def confidence(self, mean: float, worst: float) -> float:
        """How often as much was damage, in [0, 1], from the decimal logarithms of m and w."""
        odds = self.offset + self.mean * mean + self.worst * worst
        return 1 / (1 + math.exp(-max(-60.0, min(60.0, odds))))


@dataclass(frozen=True)
class Card:
    """What a model file says of itself. JSON inside the file; `relume models show` prints it.

    Args:
        name: The one name of the model.
        scale: Output pixels per input pixel, along each axis.
        emits: Names of the maps that it gives, one channel each, where it looks at a picture and
            restores none; () for a picture.
        vector: Names of the numbers that it gives of a tile as a whole, where it judges pictures
            and neither restores them nor emits maps; () for all others.
        sureness: Of the maps, by name: what their severities say of the whole picture.
        multiple_of: What a tile's sides must be a multiple of.
        support: "local" where an output pixel depends on no input pixel further than `reach`.
        reach: That distance by structure, in input pixels.
        overlap: Context that tile plans give each side of a tile: the smallest at which the seam
            error on validation stays within half an 8-bit level.
        view_side: Longest side of the whole-picture view that `prepare` is given; 0 = the picture.
        reads: The priors it reads, in the order of the graph's inputs.
        prepared: What NAME.prepare.onnx, beside the file, makes of the whole picture once: token
            rows, as many as the picture has labels or as the shape says, or a vector. The graph
            reads them after `reads`.
        preparer: Digest of that file's tensors.
        digest: sha256 of its tensors (`tensors_digest`); the same for `.onnx` and `.safetensors`.
        recipe: The resolved recipe it was trained by.
        data: What it was trained on. `licence` and `attribution` belong to weights and data.
        figures: Measured results, each with its protocol.
        limits, bad_at: What it must not be used for, and what it does badly.
        parameters: How many numbers were trained.
        first: Digest of the tensors of NAME.first.onnx, beside the file: the model that runs before
            the priors look, which see its output; or None.
        masks: Digest of the tensors of the mask network that says `damage`: of NAME.damage.onnx,
            beside the file, or of the shipped model `masks_name`; or None.
        masks_name: By which that one is found; "" where it lies beside the file.
    """

    name: str
    scale: int = 1
    emits: tuple[str, ...] = ()
    vector: tuple[str, ...] = ()
    sureness: Mapping[str, Sureness] = field(default_factory=dict)
    multiple_of: int = 1
    support: Literal["local", "global"] = "local"
    reach: int = 0
    overlap: int = 0
    view_side: int = 0
    reads: tuple[Reads, ...] = ()
    prepared: tuple[Reads, ...] = ()
    preparer: str = ""
    digest: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    data: str = ""
    licence: str = ""
    attribution: tuple[str, ...] = ()
    date: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    bad_at: tuple[str, ...] = ()
    parameters: int = 0
    first: str | None = None
    masks: str | None = None
    masks_name: str = ""

    @property
    def beside(self) -> dict[str, str]:
        """The models that lie beside its file: a word of BESIDE -> digest of the tensors."""
        named = {word: getattr(self, key) for word, key in BESIDE.items()}
        if self.masks_name:
            del named["damage"]
        return {word: digest for word, digest in named.items() if digest is not None}

    @property
    def restores(self) -> bool:
        """Whether it gives pictures, and not maps or numbers."""
        return not (self.emits or self.vector)

    def to_json(self) -> str:
        card = {"format": CARD_FORMAT, **asdict(self)}
        if not self.vector:  # cards from before there was any keep their bytes
            del card["vector"]
        return json.dumps(card, sort_keys=True, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Card:
        """Read a card and judge every number that plans and arrays will be made from.

        Raises:
            ModelError: It is not JSON, of a later format, or a field holds what it must not.
        """
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError):
            raise ModelError("the card is not JSON") from None
        if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
            raise ModelError("the card has no name")
        if raw.get("format") != CARD_FORMAT:
            raise ModelError(
                f"the card has format {raw.get('format')!r}, this relume reads {CARD_FORMAT}; "
                "a newer relume may open it"
            )
        known = {f.name: f for f in fields(cls)}
        values = {key: value for key, value in raw.items() if key in known}
        for key in ("reads", "prepared"):
            values[key] = tuple(_reads(entry) for entry in _listed(values.get(key, ())))
        for key in ("attribution", "limits", "bad_at", "emits", "vector"):
            values[key] = tuple(str(line) for line in _listed(values.get(key, ())))
        if "sureness" in values:
            values["sureness"] = _sureness(values["sureness"])
        card = cls(**values)
        card._judge()
        return card

    def _judge(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", self.name):
            raise ModelError("the card's name is not a plain word")
        for key, low, high in (
            ("scale", 1, 8),
            ("multiple_of", 1, 256),
            ("reach", 0, 1 << 16),
            ("overlap", 0, 1024),
            ("view_side", 0, 4096),
            ("parameters", 0, 1 << 34),
        ):
            _within(f"{key} of the card", getattr(self, key), low, high)
        if self.support not in ("local", "global"):
            raise ModelError(f"support of the card is {self.support!r}, not local or global")
        for key in ("preparer", "digest", "data", "licence", "date"):
            if not isinstance(getattr(self, key), str):
                raise ModelError(f"{key} of the card is not text")
        for key in BESIDE.values():
            if not isinstance(getattr(self, key), str | None):
                raise ModelError(f"{key} of the card is not a digest")
        name = self.masks_name
        if not (isinstance(name, str) and re.fullmatch(r"[\w.-]{0,64}", name)):
            raise ModelError("masks_name of the card is not a plain word")
        for key in ("recipe", "figures"):
            if not isinstance(getattr(self, key), dict):
                raise ModelError(f"{key} of the card is not a table")
        inputs = [r.prior for r in (*self.reads, *self.prepared)]
        if len({*inputs, "lq"}) != len(inputs) + 1:
            raise ModelError("the card names one input twice")
        if len(set(self.emits)) != len(self.emits) or len(self.emits) > MAX_MAPS:
            raise ModelError("the card names one map twice, or more maps than any model gives")
        if len(set(self.vector)) != len(self.vector) or len(self.vector) > MAX_MAPS:
            raise ModelError("the card names one number twice, or more than any model gives")
        if self.vector and (self.emits or self.scale != 1 or self.prepared):
            raise ModelError("the card judges pictures with one vector, and does more besides")
        if {*self.sureness} - {*self.emits}:
            raise ModelError("the card is sure of a map that the model does not give")
        if any(r.kind not in ("tokens", "vector") for r in self.prepared):
            raise ModelError("the card prepares something else than token rows or a vector")
        if any(r.kind == "vector" and 0 in r.shape for r in self.prepared):
            raise ModelError("the card prepares a vector, but gives it no size")


def _listed(value: object) -> Iterable[Any]:
    if not isinstance(value, (list, tuple)):
        raise ModelError("the card holds something else where a list belongs")
    return value


def _within(what: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ModelError(f"{what} is {value!r}, not a whole number from {low} to {high}")


def _sureness(raw: object) -> dict[str, Sureness]:
    if not isinstance(raw, dict):
        raise ModelError("sureness of the card is not a table")
    try:
        read = {str(kind): Sureness(**said) for kind, said in raw.items()}
    except TypeError:
        raise ModelError("the card does not say how sure it is in words we know") from None
    for said in read.values():
        numbers = (said.level, said.offset, said.mean, said.worst, said.told)
        if not all(type(n) in (int, float) and abs(n) < 1e6 for n in numbers):
            raise ModelError("how sure the card is, is no number")
        if not 0 < said.level < 1:
            raise ModelError(f"the card acts from a severity of {said.level!r}, outside (0, 1)")
    return read


_RANK = {"maps": 3, "regions": 2, "layers": 3, "tokens": 2, "vector": 1}
_FEATURES = {"maps": 0, "layers": 0, "tokens": 1, "vector": 0}  # the axis that `channels` counts


def _reads(raw: object) -> Reads:
    try:
        reads = Reads(**{**raw, "shape": tuple(raw["shape"])})  # type: ignore[dict-item, index]
    except (TypeError, KeyError):
        raise ModelError("the card does not say what it reads in words we know") from None
    if reads.kind not in _RANK or not re.fullmatch(r"[\w.-]{1,64}", str(reads.prior)):
        raise ModelError(f"the card reads {reads.prior!r} of kind {reads.kind!r}, which is none")
    if len(reads.shape) != _RANK[reads.kind]:
        raise ModelError(f"the card gives {reads.prior} {len(reads.shape)} axes")
    for side in reads.shape:
        _within(f"a side of {reads.prior}", side, 0, 8192)
    _within(f"channels of {reads.prior}", reads.channels, 1, 8192)
    _within(f"stride of {reads.prior}", reads.stride, 1, 256)
    if type(reads.whole) is not bool or (reads.whole and 0 in reads.shape):
        raise ModelError(f"the card shows {reads.prior} whole, but gives it no size")
    axis = _FEATURES.get(reads.kind)
    if axis is not None and reads.shape[axis] != reads.channels:
        raise ModelError(
            f"the card gives {reads.prior} {reads.channels} channels, and another shape"
        )
    return reads
