"""ONNX files, walked before any runtime sees them: one pass over the protobuf's own bytes.

No package that parses it, no copy of a tensor. Wire format:
protobuf.dev/programming-guides/encoding; field numbers: onnx.proto of ONNX 1.18.
"""

from __future__ import annotations

import math
from typing import Any

from ..errors import ModelError
from .card import CARD_KEY, MAX_CARD, Card
from .tensors import MAX_RANK, tensors_digest

MAX_NODES = 50_000
MAX_FIELDS = 1_000_000  # of the whole file; what is read in a second
MAX_DEPTH = 4
MAX_WORDS = 16 << 20  # bytes of a file beside its tensors

OPERATORS = frozenset(
    """
    Abs Add And AveragePool Cast Ceil Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos
    CumSum DepthToSpace Div Einsum Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements
    GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GroupNormalization
    HardSigmoid HardSwish Identity InstanceNormalization LayerNormalization LeakyRelu Less
    LessOrEqual Log LogSoftmax MatMul Max MaxPool Mean Min Mish Mod Mul Neg Not OneHot Or PRelu Pad
    Pow Range Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu Reshape Resize Round ScatterElements ScatterND Shape Sigmoid Sign Sin Size
    Slice Softmax Softplus SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh Tile TopK Transpose
    Unsqueeze Where
    """.split()  # noqa: SIM905
)
_ITEM = {
    1: 4,
    2: 1,
    3: 1,
    6: 4,
    7: 8,
    9: 1,
    10: 2,
    11: 8,
}  # bytes of float, ints, bool, half, double
_HALF = 10

Field = tuple[int, int, int]  # number, then (start, end) of bytes, or (-1, value) of a number


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ModelError("it is no ONNX file, or a truncated one")


def _fields(data: bytes, at: int, end: int, most: int) -> list[Field]:
    """The fields of the message in data[at:end]."""
    found: list[Field] = []
    while at < end:
        if len(found) >= most:
            raise ModelError(f"it has more than {MAX_FIELDS} fields")
        tag, at = _varint(data, at, end)
        wire = tag & 7
        if wire == 2:
            size, at = _varint(data, at, end)
            found.append((tag >> 3, at, at + size))
            at += size
        elif wire == 0:
            value, at = _varint(data, at, end)
            found.append((tag >> 3, -1, value))
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
            found.append((tag >> 3, at - (8 if wire == 1 else 4), at))
        else:  # groups; nothing of ONNX uses them
            raise ModelError("it is no ONNX file, or a broken one")
        if at > end or tag < 8:
            raise ModelError("it is no ONNX file, or a truncated one")
    return found


def _text(data: bytes, start: int, end: int) -> str:
    if start < 0:
        raise ModelError("it has a number where a name belongs")
    return data[start:end].decode("utf-8", "replace")


def survey_graph(data: bytes) -> Card:
    """The card of an ONNX file, once everything in its graph is allowed.

    Raises:
        ModelError: Something is not, or there is no card.
    """
    return _Survey(data).model()


class _Survey:
    """What one walk finds; refuses by raising ModelError."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.nodes = 0
        self.fields = 0
        self.stored = 0  # bytes of tensors
        self.inputs: list[str] = []
        self.outputs: list[list[int]] = []  # of each its axes, 0 where one is free
        self.halves: dict[str, tuple[str, str, tuple[int, ...], Any]] = {}

    def messages(self, start: int, end: int) -> list[Field]:
        if start < 0:
            raise ModelError("it has a number where a message belongs")
        found = _fields(self.data, start, end, MAX_FIELDS - self.fields)
        self.fields += len(found)
        return found

    def model(self) -> Card:
        cards: list[str] = []
        graphs = 0
        for number, start, end in self.messages(0, len(self.data)):
            if number == 7:
                graphs += 1
                self.graph(start, end, depth=0)
            elif number == 8:
                self.opset(start, end)
            elif number == 14:
                entry = {n: _text(self.data, s, e) for n, s, e in self.messages(start, end)}
                if entry.get(1) == CARD_KEY:
                    cards.append(entry.get(2, "")[: MAX_CARD + 1])
            elif number in (20, 25):
                raise ModelError("it brings functions or training steps of its own")
        if len(self.data) - self.stored > MAX_WORDS:
            raise ModelError(f"it holds more than {MAX_WORDS >> 20} MB that belong to no tensor")
        if graphs != 1:
            raise ModelError("it is no ONNX file" if not graphs else "it holds more than one graph")
        if len(cards) != 1 or len(cards[0]) > MAX_CARD:
            raise ModelError("it carries no card of relume's. `relume export` writes files that do")
        card = Card.from_json(cards[0])
        if self.inputs != ["lq", *(r.prior for r in (*card.reads, *card.prepared))]:
            raise ModelError("its graph does not read what its card says")
        if card.vector and self.outputs != [[1, len(card.vector)]]:
            raise ModelError("its graph does not give the one vector that its card names")
        if tensors_digest(self.halves.values()) != card.digest:
            raise ModelError("its tensors are not those that its card names. Fetch it again")
        return card

    def opset(self, start: int, end: int) -> None:
        for number, s, e in self.messages(start, end):
            if number == 1 and _text(self.data, s, e) not in ("", "ai.onnx"):
                raise ModelError(f"it needs operators of {_text(self.data, s, e)!r:.80}")

    def graph(self, start: int, end: int, *, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise ModelError("its graphs are nested too deeply")
        given: list[str] = []
        held: set[str] = set()
        for number, s, e in self.messages(start, end):
            if number == 1:
                self.node(s, e, depth)
            elif number == 5:
                held.add(self.tensor(s, e, weight=depth == 0))
            elif number == 11:
                given += [_text(self.data, a, b) for n, a, b in self.messages(s, e) if n == 1]
            elif number == 12 and depth == 0:
                self.outputs.append(self.axes(s, e))
            elif number == 15:
                raise ModelError("it holds sparse tensors")
        if depth == 0:
            self.inputs += [name for name in given if name not in held]

    def axes(self, start: int, end: int) -> list[int]:
        """The lengths of an output's axes; 0 of one that is free, and none of what is no tensor."""
        inside = [(start, end)]
        for step in (2, 1, 2):  # its type, of a tensor, its shape
            inside = [(s, e) for a, b in inside for n, s, e in self.messages(a, b) if n == step]
        axes = [(s, e) for a, b in inside for n, s, e in self.messages(a, b) if n == 1]
        found = [[e for n, s, e in self.messages(a, b) if n == 1 and s < 0] for a, b in axes]
        return [lengths[0] if lengths else 0 for lengths in found]

    def node(self, start: int, end: int, depth: int) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise ModelError(f"it has more than {MAX_NODES} operators")
        kinds: list[str] = []
        for number, s, e in self.messages(start, end):
            if number == 4:
                kinds.append(_text(self.data, s, e))
            elif number == 7 and _text(self.data, s, e) not in ("", "ai.onnx"):
                raise ModelError(f"it uses an operator of {_text(self.data, s, e)!r:.80}")
            elif number == 5:
                self.attribute(s, e, depth)
        if len(kinds) != 1 or kinds[0] not in OPERATORS:
            raise ModelError(f"it uses the operator {''.join(kinds)!r:.80}, which is not allowed")

    def attribute(self, start: int, end: int, depth: int) -> None:
        for number, s, e in self.messages(start, end):
            if number in (5, 10):
                self.tensor(s, e)
            elif number in (6, 11):
                self.graph(s, e, depth=depth + 1)
            elif number in (22, 23):
                raise ModelError("it holds sparse tensors")

    def tensor(self, start: int, end: int, *, weight: bool = False) -> str:
        """Refuse a tensor that lies elsewhere or is not as large as it says; return its name."""
        shape: list[int] = []
        kind, name, stored, raw = 0, "", 0, None
        for number, s, e in self.messages(start, end):
            if number == 1:
                shape += [e] if s < 0 else self.packed(s, e)
            elif number == 2:
                kind = e if s < 0 else 0
            elif number == 8:
                name = _text(self.data, s, e)
            elif number == 9:
                raw = memoryview(self.data)[s:e] if raw is None and s >= 0 else b""
            elif number in (4, 5, 7, 10, 11):
                stored += 1 if s < 0 else e - s  # at least a byte a number
            elif number in (13, 14) and not (number == 14 and s < 0 and e == 0):
                raise ModelError("it keeps tensors in another file")
        self.stored += len(raw) if raw is not None else stored
        label = f"tensor {name or 'without a name'!r:.80}"
        if kind not in _ITEM:
            raise ModelError(f"{label} is of a kind that is not allowed")
        size = math.prod(shape)
        if len(shape) > MAX_RANK or max(shape, default=0) >= 1 << 31:
            raise ModelError(f"{label} has no sane shape")
        if (len(raw) != size * _ITEM[kind]) if raw is not None else stored < size:
            raise ModelError(f"{label} is not as large as it says")
        if weight and kind == _HALF:
            if name in self.halves or raw is None:
                raise ModelError(f"{label} stands twice, or is not stored plainly")
            self.halves[name] = (name, "F16", tuple(shape), raw)
        return name

    def packed(self, start: int, end: int) -> list[int]:
        values: list[int] = []
        while start < end:
            value, start = _varint(self.data, start, end)
            values.append(value)
            if len(values) > MAX_RANK:
                raise ModelError("a tensor has more axes than any of ours")
        return values
