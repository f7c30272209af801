"""Model cards: what a model file says of itself; finding, surveying and refusing model files.

A model file is an ONNX graph with its card inside, or the `.safetensors` it was exported from.
Neither may hold code, point outside itself, or claim sizes it does not have: the survey reads the
file's own bytes before any runtime opens it. Wire format: protobuf.dev/programming-guides/encoding;
field numbers: onnx.proto of ONNX 1.18; safetensors: its format section.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from .errors import MissingError, ModelError, UsageError, nearest

DEFAULT = "relume-s"
MASKS = "relume-damage"
QUALITY = "relume-quality"
MODELS = Path(__file__).parent / "models"
CARD_KEY = "relume.card"
CARD_FORMAT = 1

MAX_FILE = 1 << 30  # bytes; a 200 M parameter model in half precision is 400 MB
MAX_CARD = 1 << 20
MAX_HEADER = 100 << 20  # what safetensors itself allows
MAX_NODES = 50_000
MAX_DEPTH = 4
MAX_RANK = 8
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


@dataclass(frozen=True)
class ModelFile:
    """A model that was found and surveyed. `path` is None for the built-in ones."""

    path: Path | None
    card: Card
    sha256: str

    def read(self) -> bytes:
        """The bytes that were surveyed.

        Raises:
            ModelError: The file is gone, or is not the one that was surveyed.
        """
        data = _bytes(self.path) if self.path else b""
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise ModelError(f"{self.path} changed while it was being opened. Run it again.")
        return data


BUILT_IN = {
    name: ModelFile(
        None,
        Card(name, data=data, licence="Apache-2.0", limits=("For testing what surrounds pixels.",)),
        hashlib.sha256(b"").hexdigest(),
    )
    for name, data in (("identity", "returns the picture"), ("invert", "1 minus the picture"))
}


def names() -> list[str]:
    """Every name that `find` knows: the shipped models, then the built-in ones."""
    return sorted(path.stem for path in _shipped_paths()) + sorted(BUILT_IN)


def shipped() -> list[ModelFile]:
    """The models in the package, surveyed."""
    return [survey(path) for path in _shipped_paths()]


def _shipped_paths() -> list[Path]:
    beside = (".prepare.onnx", *(f".{word}.onnx" for word in BESIDE))
    return sorted(p for p in MODELS.glob("*.onnx") if not p.name.endswith(beside))


def is_shipped(word: str) -> bool:
    """Whether a model in the package has that name."""
    return word in {path.stem for path in _shipped_paths()}


def find(model: str | Path) -> ModelFile:
    """The model of that name, or in that file.

    Args:
        model: A shipped or built-in name, or the path of an `.onnx` or `.safetensors` file.

    Raises:
        UsageError: No such name, no such file.
        ModelError: The file was refused; the message says why.
    """
    word = str(model)
    if word in BUILT_IN:
        return BUILT_IN[word]
    if is_shipped(word):
        return survey(MODELS / f"{word}.onnx")
    path = Path(model)
    if path.is_file():
        return survey(path)
    if path.suffix in (".onnx", ".safetensors") or len(path.parts) > 1:
        raise UsageError(
            f"no model file at {word}. `relume models` lists the names that need none."
        )
    raise UsageError(
        f"no model called {word!r}.{nearest(word, names())} `relume models` lists all."
    )


def survey(path: Path) -> ModelFile:
    """A model file's card, once everything in the file is allowed. No runtime is involved.

    Refused in ONNX: operators outside `OPERATORS` or of a foreign domain (in subgraphs too),
    functions, training steps, sparse tensors, tensors in other files or of sizes they do not have,
    graph inputs that the card does not name. In both formats: tensors of another digest.

    Raises:
        ModelError: It is not a model file, or one that we refuse; one line that says why.
    """
    data = _bytes(path)
    try:
        if path.suffix == ".safetensors":
            card = _survey_safetensors(data)
        elif path.suffix == ".onnx":
            card = _Survey(data).model()
        else:
            raise ModelError("a model file ends in .onnx or .safetensors; nothing else is opened")
    except ModelError as error:
        raise ModelError(f"{path} was refused: {error}.") from None
    return ModelFile(path, card, hashlib.sha256(data).hexdigest())


def survey_preparer(model: ModelFile) -> ModelFile | None:
    """The file beside a model that prepares its token rows; None where the model needs none.

    Raises:
        ModelError: It is not there, was refused, or belongs to another model.
    """
    if not model.card.prepared or model.path is None:
        return None
    return _beside(model.path, ".prepare.onnx", model.card.preparer)


def survey_first(model: ModelFile) -> ModelFile | None:
    """The model that runs before another's priors look; None where they look at the picture.

    Raises:
        ModelError: It is not beside the model, was refused, or is another than the card names.
    """
    if model.card.first is None or model.path is None:
        return None
    return _beside(model.path, f".first{model.path.suffix}", model.card.first)


def survey_masks(model: ModelFile) -> ModelFile | None:
    """The mask network that tells a model where a picture is damaged; None where it names none.

    Raises:
        ModelError: It is not beside the model, was refused, or is another than the card names.
        MissingError: It ships with relume, and not in this installation.
    """
    card, name = model.card, model.card.masks_name
    if card.masks is None or model.path is None:
        return None
    if not name:
        return _beside(model.path, f".damage{model.path.suffix}", card.masks, UNTOLD)
    if not is_shipped(name):
        raise MissingError(
            f"{card.name} is told where a picture is damaged by {name}, which is not in this "
            f"installation: pip install --upgrade relume.{UNTOLD}"
        )
    found = find(name)
    if found.card.digest != card.masks:
        raise ModelError(
            f"{name} was refused: {card.name} was trained beside tensors {card.masks[:8]}, this "
            f"installation has {found.card.digest[:8]}.{UNTOLD}"
        )
    return found


UNTOLD = " It runs untold with --prior none."


def _beside(path: Path, suffix: str, digest: str, otherwise: str = "") -> ModelFile:
    """The file that goes with a model: NAME with that suffix, and those tensors."""
    wanted = path.with_suffix(suffix)
    if not wanted.is_file():
        raise ModelError(
            f"{path} needs {wanted.name} beside it. Copy both files together.{otherwise}"
        )
    found = survey(wanted)
    if found.card.digest != digest:
        raise ModelError(
            f"{wanted} was refused: it belongs to another model than {path}.{otherwise}"
        )
    return found


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE:
            raise ModelError(f"{path} was refused: it is larger than {MAX_FILE >> 20} MB.")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}.") from None


def tensors_digest(tensors: Iterable[tuple[str, str, tuple[int, ...], Any]]) -> str:
    """sha256 over (name, dtype, shape, little-endian bytes) in the order of the names.

    `dtype` in the words of safetensors: "F16", "F32", "I64".
    """
    digest = hashlib.sha256()
    for name, dtype, shape, data in sorted(tensors, key=lambda t: t[0]):
        digest.update(f"{name}\0{dtype}\0{','.join(map(str, shape))}\0".encode())
        digest.update(data)
    return digest.hexdigest()


# safetensors: 8 bytes of header length, a JSON header, the tensors without hole or overlap.

_SAFE = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1}
_SAFE["BOOL"] = 1


def header(data: bytes) -> tuple[dict[str, str], dict[str, tuple[str, tuple[int, ...], Any]]]:
    """The metadata and the tensors (dtype, shape, bytes) of a safetensors file.

    Raises:
        ModelError: Broken, truncated, or lying about its sizes.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(MAX_HEADER, len(data) - 8):
        raise ModelError("it is no safetensors file, or a truncated one")
    try:
        raw = json.loads(data[8 : 8 + length], object_pairs_hook=_once)
        metadata = raw.pop("__metadata__", {})
        body, tensors, at = memoryview(data)[8 + length :], {}, 0
        for name, entry in sorted(raw.items(), key=lambda item: item[1]["data_offsets"]):
            (begin, end), shape = entry["data_offsets"], tuple(entry["shape"])
            if len(shape) > MAX_RANK or any(type(n) is not int or n < 0 for n in shape):
                raise ModelError(f"the shape of tensor {name!r:.80} is none")
            size = math.prod(shape) * _SAFE[entry["dtype"]]
            if begin != at or end - begin != size or end > len(body):
                raise ModelError(f"tensor {name!r:.80} does not lie where the header says")
            tensors[name], at = (entry["dtype"], shape, body[begin:end]), end
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError("its header cannot be read") from None
    if at != len(body):
        raise ModelError("it has bytes that belong to no tensor")
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ModelError("its metadata is not a table of words")
    return metadata, tensors


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ModelError("a key stands twice in its header")
    return dict(pairs)


def _survey_safetensors(data: bytes) -> Card:
    metadata, tensors = header(data)
    if "card" not in metadata:
        raise ModelError(
            "it carries no card. `relume train` and `relume export` write files that do"
        )
    card = Card.from_json(metadata["card"])
    if tensors_digest((name, *tensor) for name, tensor in tensors.items()) != card.digest:
        raise ModelError("its tensors are not those that its card names. Fetch it again")
    return card


# ONNX. One pass over the protobuf's own bytes: no package that parses it, no copy of a tensor.

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


def _fields(data: bytes, at: int, end: int) -> list[Field]:
    """The fields of the message in data[at:end]."""
    found: list[Field] = []
    while at < end:
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


class _Survey:
    """What one walk finds; refuses by raising ModelError."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.nodes = 0
        self.inputs: list[str] = []
        self.outputs: list[list[int]] = []  # of each its axes, 0 where one is free
        self.halves: dict[str, tuple[str, str, tuple[int, ...], Any]] = {}

    def messages(self, start: int, end: int) -> list[Field]:
        if start < 0:
            raise ModelError("it has a number where a message belongs")
        return _fields(self.data, start, end)

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
        return values
