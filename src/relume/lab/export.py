"""From a trained restorer to a model's two files, `.safetensors` and `.onnx`, of the same tensors.

Weights are rounded to half precision before anything is written or checked: the rounding moves
outputs by some 3e-4, the graph may then move them by no more than 1e-5. In the graph each weight is
a float16 tensor with a cast to float32 behind it, which runtimes do once, at loading.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.func import functional_call

from ..card import CARD_KEY, Card, Reads, header, sealed, survey
from ..engine import Engine, OnnxEngine, OpenVinoEngine, feeds, guide_of
from ..errors import CheckError, MissingError, ModelError, UsageError
from ..guidance import Guidance, Guide
from ..trial import remember
from . import weights
from .finished import restorer_of, weights_beside
from .reach import measure_overlap
from .restorer import as_tensors, prepared_by

OPSET = 18  # the first with everything our networks use; runtimes of 2023 read it
TOLERANCE = 1e-5
SIZES = ((1, 1), (1, 3), (2, 2), (5, 4), (9, 7))  # in units of at least 16 pixels
SMALLEST = (
    32  # pixels a side that a network without a multiple is traced for: 2 after four halvings
)
CONTEXT = 32  # of a network that looks at all: convolutions then no longer see where a tile ends


def export(
    restorer: nn.Module,
    path: Path,
    card: Card,
    *,
    pictures: Iterable[tuple[np.ndarray, Guidance]] | None = None,
    source: Path | None = None,
) -> Card:
    """Check the graph against the network, and write NAME.onnx and NAME.safetensors.

    A restorer that prepares something gets NAME.prepare.onnx beside them; one whose priors look at
    another model's output that model as NAME.first.onnx and NAME.first.safetensors, one that is
    told by a mask network that one as NAME.damage.onnx and NAME.damage.safetensors.

    Args:
        restorer: With `reads`, `scale`, `multiple_of`, `reach`, `support`; its own weights stay as
            they are.
        path: Of the `.onnx`.
        card: Name, recipe, data, licence and the like. What follows from the network (scale,
            multiple_of, support, reach, reads, parameters, digest) is filled in here.
        pictures: Validation pictures (1, 3, H, W) with their guidance, to measure `overlap` on.
            Without, the card's overlap stands, or where it has none the reach, and for a network
            that looks at the whole picture 32 pixels.
        source: The finished weights, or their run, beside which those of such models lie.

    Returns:
        The card as written.

    Raises:
        UsageError: The network cannot be exported; the message says what stands in the way. Or
            pictures are given for one that judges crops, and has no overlap.
        CheckError: The graph does not compute what the network computes.
        ModelError: A model that goes with it is not the one that the card names.
        OutputError: A file cannot be written.
    """
    if path.suffix != ".onnx":
        raise UsageError(f"A model file ends in .onnx, got {path}.")
    _exportable(restorer)
    rounded = copy.deepcopy(restorer).cpu().float().eval()
    halves = weights.to_half(rounded.state_dict())
    rounded.load_state_dict(halves)
    card = described(rounded, card, halves)
    if pictures is not None and card.vector:
        raise UsageError(f"{card.name} judges each crop by itself: leave the pictures out.")
    if pictures is not None:
        card = replace(card, overlap=measure_overlap(rounded, pictures))
    files: dict[str, bytes] = {}
    if card.prepared:
        own = _preparer_card(rounded, card, halves)
        preparer = _preparer_of(rounded, card, own, halves)
        files[".prepare.onnx"] = _bytes_of(preparer)
        card = replace(card, preparer=own.digest)
    files[".onnx"] = _bytes_of(_graph(rounded, card, halves))
    with TemporaryDirectory() as folder:
        trial = Path(folder) / path.name
        for suffix, data in files.items():
            trial.with_suffix(suffix).write_bytes(data)
        ran = check(rounded, trial)
    for word in card.beside:
        _export_beside(path, card, word, source)
    for suffix, data in files.items():
        weights.write_whole(path.with_suffix(suffix), data)
    weights.save(path.with_suffix(".safetensors"), halves, recipe=card.recipe, card=card)
    for engine in (*ran, "torch"):  # made here: nothing that has to be tried apart
        remember(survey(path), engine)
    remember(survey(path.with_suffix(".safetensors")), "torch")
    return card


def _export_beside(path: Path, card: Card, word: str, source: Path | None) -> None:
    """Write NAME.WORD.onnx, and those that go with that one."""
    kept = weights_beside(source, word) if source is not None else None
    if kept is None or not kept.is_file():
        needed = {"first": "the model that runs before its priors look", "damage": "a mask network"}
        raise UsageError(
            f"{card.name} needs {needed[word]}, and {kept or 'that'} is not there. `relume train` "
            "keeps it in the run."
        )
    stored = weights.load(kept)
    if stored.card is None or stored.card.digest != card.beside[word]:
        raise ModelError(f"{kept} was refused: {card.name} was trained with another model there.")
    export(restorer_of(stored), path.with_suffix(f".{word}.onnx"), stored.card, source=kept)


def described(restorer: nn.Module, card: Card, halves: Mapping[str, Tensor]) -> Card:
    """A card with what follows from the network and its rounded tensors."""
    reach = cast(int | None, restorer.reach) or 0
    vector = cast(tuple[str, ...], getattr(restorer, "vector", ()))
    context = CONTEXT if restorer.support == "global" else -(-reach // 8) * 8
    return replace(
        card,
        scale=restorer.scale,
        emits=cast(tuple[str, ...], getattr(restorer, "emits", ())),
        vector=vector,
        multiple_of=restorer.multiple_of,
        support=restorer.support,
        reach=reach,
        overlap=0 if vector else card.overlap or context,  # a crop is judged by itself
        reads=tuple(cast(Iterable[Reads], restorer.reads)),
        prepared=prepared_by(restorer),
        digest=weights.digest(halves),
        parameters=sum(p.numel() for p in restorer.parameters()),
    )


def check(restorer: nn.Module, path: Path) -> dict[str, float]:
    """Largest difference between the network and its graph over five sizes, for each runtime here.

    Raises:
        CheckError: A difference above 1e-5.
        ModelError: The survey refuses the file.
    """
    model = survey(path)
    engines: list[Engine] = [OnnxEngine(model, device="cpu")]
    with contextlib.suppress(MissingError):  # not installed: ONNX Runtime alone judges
        engines.append(OpenVinoEngine(model, device="cpu"))
    worst: dict[str, float] = {}
    for engine in engines:
        worst[engine.name] = difference(restorer, engine)
        if not worst[engine.name] <= TOLERANCE:
            raise CheckError(
                f"{path.name} differs from the network by {worst[engine.name]:.1e} in "
                f"{engine.name}, more than {TOLERANCE:.0e}. It is not fit for use."
            )
    return worst


@torch.no_grad()
def difference(
    restorer: nn.Module, engine: Engine, sizes: Sequence[tuple[int, int]] = SIZES
) -> float:
    """The largest absolute difference on random pictures and guidance, over `sizes`."""
    card, rng = engine.card, np.random.default_rng(0)
    unit = card.multiple_of * -(-16 // card.multiple_of)
    worst = 0.0
    for rows, columns in sizes:
        tile = rng.random((1, 3, rows * unit, columns * unit), np.float32)
        nulls = feeds(replace(card, prepared=()), tile, Guidance())
        guidance = Guidance({r.prior: _drawn(r, nulls[r.prior], rng) for r in card.reads})
        wanted = restorer(torch.from_numpy(tile), as_tensors(guidance)).numpy()
        got = engine(tile, engine.prepare(tile, guidance))
        worst = max(worst, float(np.abs(got - wanted).max()))
    return worst


def _drawn(reads: Reads, null: np.ndarray, rng: np.random.Generator) -> Guide:
    if reads.kind == "regions":
        array = rng.integers(0, 8, null.shape, np.int32)
    elif reads.kind == "layers":
        array = rng.random(null.shape) < 0.5
    else:
        array = rng.random(null.shape, np.float32)
    return guide_of(reads, array)


def with_card(path: Path, card: Card) -> None:
    """Write another card into the `.onnx` and the `.safetensors` beside it; the tensors stay.

    For what is known only after the export: the figures, measured through the exported file.

    Raises:
        ModelError: The new card contradicts the file: another digest, other inputs.
    """
    old = survey(path).card
    if (card.digest, card.reads, card.scale) != (old.digest, old.reads, old.scale):
        raise ModelError(f"{path} holds another network than the card of {card.name} describes.")
    graph = onnx.load_model(path, load_external_data=False)
    onnx.helper.set_model_props(graph, {CARD_KEY: card.to_json()})
    weights.write_whole(path, _bytes_of(graph))
    beside = path.with_suffix(".safetensors")
    if beside.is_file():
        stored = weights.load(beside)
        metadata, _ = header(beside.read_bytes())
        words = {**metadata, "card": card.to_json()}
        weights.write_tensors(beside, weights.to_half(stored.tensors), words)


def _bytes_of(model: onnx.ModelProto) -> bytes:
    return sealed(model.SerializeToString(deterministic=True), ".onnx")


def _exportable(restorer: nn.Module) -> None:
    reads = tuple(cast(Iterable[Reads], restorer.reads))
    for entry in reads:
        if entry.counted:
            raise UsageError(
                f"{entry.prior} may have any number of token rows, which runtimes compute "
                "differently. Fix the number of rows, and pad with zero rows."
            )
        if cast(int, restorer.multiple_of) % entry.stride:
            raise UsageError(
                f"{entry.prior} has a stride of {entry.stride}, which does not divide the "
                f"multiple_of {restorer.multiple_of} of the network."
            )
    for name, tensor in restorer.state_dict().items():
        if not tensor.is_floating_point():
            raise UsageError(
                f"{name} is a tensor of {tensor.dtype}, and a graph stores floating-point "
                "ones only. Register it with persistent=False, or compute it."
            )


class _Flat(nn.Module):
    """The restorer with its guidance, and its own weights, as plain inputs of one graph.

    A weight that is an input cannot be folded into another constant or merged with an equal one, so
    each arrives in the graph as it is, under its own name.
    """

    def __init__(self, restorer: nn.Module, reads: tuple[Reads, ...], names: Sequence[str]) -> None:
        super().__init__()
        self.restorer = restorer
        self.reads = reads
        self.names = tuple(names)

    def forward(self, seen: tuple[Tensor, ...], held: tuple[Tensor, ...]) -> Tensor:
        lq, *given = seen
        tensors = dict(zip(self.names, held, strict=True))
        return functional_call(self.restorer, tensors, (lq, _guidance(self.reads, given)))


class _FlatPreparer(_Flat):
    """`Restorer.prepare` in the same form; the last inputs are token rows, where it makes one for
    each label, of which only the number counts: a graph cannot read the highest label."""

    def forward(  # type: ignore[override]
        self, seen: tuple[Tensor, ...], held: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        prepared = prepared_by(self.restorer)
        view, *given = seen
        read = len(self.reads) - sum(r.counted for r in prepared)
        known = _guidance(self.reads[:read], given[:read])
        tensors = {
            f"restorer.{name}": tensor for name, tensor in zip(self.names, held, strict=True)
        }
        rows = given[-1].shape[1] if read < len(self.reads) else None
        return functional_call(
            _Preparing(self.restorer, [r.prior for r in prepared]), tensors, (view, known, rows)
        )


class _Preparing(nn.Module):
    def __init__(self, restorer: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.restorer, self.names = restorer, names

    def forward(self, view: Tensor, guidance: Guidance, rows: int | None) -> tuple[Tensor, ...]:
        ready = self.restorer.prepare(view, guidance, rows)  # type: ignore[operator]
        return tuple(ready[name].array for name in self.names)


def _guidance(reads: Sequence[Reads], given: Sequence[Tensor]) -> Guidance:
    return Guidance({r.prior: guide_of(r, tensor) for r, tensor in zip(reads, given, strict=True)})


def _of_preparer(card: Card, halves: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the encoders that prepare."""
    stems = tuple(f"encoders.{r.prior}." for r in card.prepared)
    return {name: half for name, half in halves.items() if name.startswith(stems)}


def _preparer_card(restorer: nn.Module, card: Card, halves: dict[str, Tensor]) -> Card:
    """What the file that prepares says of itself: it reads the picture, what its encoders ask for
    (an input that nothing uses is none to OpenVINO), and the number of rows."""
    encoders = cast(Any, restorer.encoders)
    asked = {reads.prior for r in card.prepared for reads in encoders[r.prior].asks}
    read = (r for r in card.reads if r.prior in asked)
    return Card(
        card.name,
        reads=(*read, *(r for r in card.prepared if r.counted)),
        digest=weights.digest(_of_preparer(card, halves)),
        licence=card.licence,
        attribution=card.attribution,
        limits=("Prepares what the model of its name reads; it restores nothing.",),
    )


def _graph(restorer: nn.Module, card: Card, halves: dict[str, Tensor]) -> onnx.ModelProto:
    """The ONNX graph: free height and width, float16 weights under their own names, the card."""
    idle = _of_preparer(card, halves)
    names = [name for name in restorer.state_dict() if name in halves and name not in idle]
    reads = (*card.reads, *card.prepared)
    model = _traced(_Flat, restorer, replace(card, reads=reads, prepared=()), names, ["out"])
    _hold(model, card, halves, idle)
    onnx.helper.set_model_props(model, {CARD_KEY: card.to_json()})
    return model


def _preparer_of(
    restorer: nn.Module, card: Card, own: Card, halves: dict[str, Tensor]
) -> onnx.ModelProto:
    """The graph of `prepare`: free height, width and number of rows; `own` is its card."""
    kept = _of_preparer(card, halves)
    outs = [f"{r.prior}.rows" for r in card.prepared]
    model = _traced(_FlatPreparer, restorer, own, list(kept), outs)
    _hold(model, own, kept, {})
    onnx.helper.set_model_props(model, {CARD_KEY: own.to_json()})
    return model


def _traced(
    flat: type[_Flat], restorer: nn.Module, card: Card, names: Sequence[str], outs: Sequence[str]
) -> onnx.ModelProto:
    """The graph of a flat form, with the inputs of a card and the named weights behind them."""
    m = card.multiple_of
    unit = m * -(-16 // m)
    tile = torch.zeros(1, 3, 3 * unit, 4 * unit)
    rows = {
        r.prior: Guide(tokens=np.zeros((1, 5, r.channels), np.float32))
        for r in card.reads
        if r.counted
    }
    given = {k: torch.from_numpy(a) for k, a in feeds(card, tile.numpy(), Guidance(rows)).items()}
    tensors = [restorer.state_dict()[name] for name in names]
    # Where strides halve a free side, torch must be told that more than one sample is left. The
    # graph computes smaller ones just so, and `check` shows it one of 16 pixels.
    least = SMALLEST if m == 1 else 1
    sides = [torch.export.Dim(name, min=least, max=1 << 12) for name in ("rows", "columns")]
    labels = torch.export.Dim("labels", min=1, max=1 << 20)

    def free(rank: int, fixed: Sequence[int], step: int) -> dict[int, Any]:
        """Height and width as multiples of one unknown, where the input does not fix them."""
        axes = {rank - 2: sides[0], rank - 1: sides[1]}
        return {a: step * d if step > 1 else d for a, d in axes.items() if not fixed[a - rank]}

    def freed(r: Reads) -> dict[int, Any]:
        if r.prior in rows:
            return {1: labels}
        return free(len(r.shape) + 1, r.shape, m // r.stride) if r.spatial else {}

    shapes = ((free(4, (0, 0), m), *(freed(r) for r in card.reads)), tuple({} for _ in tensors))
    seen = (given["lq"], *(given[r.prior] for r in card.reads))
    try:
        with _quiet():
            # In two steps, because torch.onnx tries what failed again in other ways: minutes, and
            # then the message of the last.
            traced = torch.export.export(
                flat(restorer, card.reads, names).eval(),
                (seen, tuple(tensors)),
                dynamic_shapes=shapes,
                strict=False,
            )
            program = torch.onnx.export(
                traced,
                dynamo=True,
                input_names=[*given, *names],
                output_names=list(outs),
                opset_version=OPSET,
                optimize=True,
                verbose=False,
            )
    except Exception as error:  # the exporter raises whatever the step that failed raises
        reason = " ".join(str(error).split())[:300]
        raise UsageError(
            f"{card.name} cannot be exported with free height and width: {reason}"
        ) from error
    assert program is not None
    model = cast(onnx.ModelProto, program.model_proto)
    _slim(model)
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's own progress and warnings are not the reader's."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _slim(model: onnx.ModelProto) -> None:
    """Drop what only a debugger reads: source lines, inferred shapes, long names."""
    del model.graph.value_info[:]
    del model.metadata_props[:]
    model.producer_name, model.producer_version, model.doc_string = "relume", "", ""
    for part in (model.graph, *model.graph.node, *model.graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = ""
        del value.metadata_props[:]


def _hold(
    model: onnx.ModelProto, card: Card, halves: dict[str, Tensor], elsewhere: Mapping[str, Tensor]
) -> None:
    """Turn the inputs that are weights into float16 tensors with a cast behind each.

    What the preparer uses `elsewhere` is kept too: both files of a model hold the same tensors.
    """
    graph = model.graph
    used = {name for node in graph.node for name in node.input}
    unused = sorted(set(halves) - used - set(elsewhere))
    if unused:
        raise UsageError(
            f"{card.name} has {len(unused)} tensors that its graph does not use, {unused[0]} for "
            "one. "
            "Take them out of the network before the export."
        )
    inputs = [value for value in graph.input if value.name not in halves]
    del graph.input[:]
    graph.input.extend(inputs)
    casts: list[onnx.NodeProto] = []
    wide: dict[str, str] = {}
    for name, half in halves.items():
        graph.initializer.append(numpy_helper.from_array(half.numpy(), name))
        if half.is_floating_point() and name in used:
            wide[name] = f"{name}.float32"
            to = onnx.TensorProto.FLOAT
            casts.append(onnx.helper.make_node("Cast", [name], [wide[name]], to=to))
    for node in graph.node:
        node.input[:] = [wide.get(name, name) for name in node.input]
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
