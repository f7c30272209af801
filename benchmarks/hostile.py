"""Weight files made to harm, drawn by a generator; and the baits that tell whether they did."""

# ruff: noqa: E501 (rows of a table, which are read across)
from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from relume.card import CARD_KEY, MODELS, SEAL, Card, header, pack, sealed, tensors_digest

KINDS = ("safetensors", "pickles", "flips", "lies", "onnx")

Made = tuple[Path, str, bool]
"""The file, what is wrong with it, and whether it may also load, for it does no harm."""


class Bait:
    """A file that payloads would make, and one whose last access shows who read it."""

    def __init__(self, canary: Path, secret: Path) -> None:
        self.canary, self.secret = canary.absolute(), secret.absolute()
        self.secret.write_bytes(np.arange(4096, dtype=np.float32).tobytes())
        self.lay()

    def lay(self) -> None:
        self.canary.unlink(missing_ok=True)
        os.utime(self.secret, (1, 2))  # older than the change: the first read moves it

    def sprung(self) -> bool:
        return self.canary.exists()

    def read(self) -> bool:
        return self.secret.stat().st_atime > 1


def make(kind: str, index: int, rng: np.random.Generator, stem: Path, bait: Bait) -> Made:
    return {
        "safetensors": _safetensors,
        "pickles": _pickle,
        "flips": _flip,
        "lies": _lie,
        "onnx": _onnx,
    }[kind](index, rng, stem, bait)


def honest(path: Path, rng: np.random.Generator) -> None:
    if path.suffix == ".pth":
        import torch

        tensors = {f"layer.{i}.weight": torch.from_numpy(rng.random((4, 3))) for i in range(5)}
        kinds = [tensors, {"params": tensors}, {"state_dict": tensors, "iteration": 7}]
        torch.save(
            kinds[int(rng.integers(3))], path, _use_new_zipfile_serialization=path.stem[-1] < "5"
        )
    elif path.suffix == ".onnx":
        _small(rng, path)
    else:
        metadata, tensors = _base()
        card = replace(Card.from_json(metadata["card"]), name=f"honest-{int(rng.integers(1e6))}")
        _write(path, tensors, {**metadata, "card": card.to_json()})


# safetensors


def _base() -> tuple[dict[str, str], list[tuple[str, str, tuple[int, ...], Any]]]:
    metadata, tensors = header((MODELS / "relume-s.safetensors").read_bytes())
    metadata.pop(SEAL, None)  # these files are to be refused for what is wrong with them
    return metadata, [(name, *tensor) for name, tensor in tensors.items()]


def _write(path: Path, tensors: list[Any], metadata: dict[str, str]) -> None:
    path.write_bytes(b"".join(pack(tensors, metadata)))


def _framed(entries: Any, body: bytes, length: int | None = None) -> bytes:
    words = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(words) if length is None else length) + words + body


def _safetensors(index: int, rng: np.random.Generator, stem: Path, bait: Bait) -> Made:
    path = stem.with_suffix(".safetensors")
    card = Card("liar", licence="Apache-2.0").to_json()
    size = int(rng.integers(2, 64)) * 2
    one = {"dtype": "F16", "shape": [size // 2], "data_offsets": [0, size]}
    two = {"dtype": "F16", "shape": [2], "data_offsets": [size, size + 4]}
    said, body = {"__metadata__": {"card": card}, "a": one, "b": two}, rng.bytes(size + 4)
    big = int(rng.integers(1 << 33, 1 << 62))
    cut = int(rng.integers(0, 40))
    words = json.dumps(said).encode()
    cases: list[tuple[str, Callable[[], bytes]]] = [
        ("cut", lambda: _framed(said, body)[: int(rng.integers(0, len(words) + 8))]),
        ("header of no JSON", lambda: _framed(rng.bytes(60), body)),
        ("header longer than the file", lambda: _framed(said, body, length=big)),
        ("header shorter than it is", lambda: _framed(said, body, length=len(words) - 1 - cut)),
        ("header of 0 bytes", lambda: _framed(b"", body)),
        ("overlap", lambda: _framed({**said, "b": {**two, "data_offsets": [2, 6]}}, body)),
        (
            "hole",
            lambda: _framed(
                {**said, "b": {**two, "data_offsets": [size + 8, size + 12]}}, body + bytes(8)
            ),
        ),
        ("bytes of nobody", lambda: _framed(said, body + rng.bytes(1 + cut))),
        (
            "offsets beyond the file",
            lambda: _framed({**said, "b": {**two, "data_offsets": [size, big]}}, body),
        ),
        (
            "shape larger than its bytes",
            lambda: _framed({**said, "a": {**one, "shape": [big]}}, body),
        ),
        (
            "shape of huge product",
            lambda: _framed({**said, "a": {**one, "shape": [1 << 40] * 8}}, body),
        ),
        (
            "shape of huge rank",
            lambda: _framed({**said, "a": {**one, "shape": [1] * 100_000}}, body),
        ),
        (
            "negative shape",
            lambda: _framed({**said, "a": {**one, "shape": [-1, -(size // 2)]}}, body),
        ),
        (
            "negative offsets",
            lambda: _framed({**said, "a": {**one, "data_offsets": [-size, 0]}}, body),
        ),
        (
            "offsets that are words",
            lambda: _framed({**said, "a": {**one, "data_offsets": ["0", "8"]}}, body),
        ),
        (
            "offsets in fractions",
            lambda: _framed({**said, "a": {**one, "data_offsets": [0.0, float(size)]}}, body),
        ),
        ("unknown kind", lambda: _framed({**said, "a": {**one, "dtype": "OBJECT"}}, body)),
        ("kind that is a list", lambda: _framed({**said, "a": {**one, "dtype": ["F16"]}}, body)),
        (
            "a key twice",
            lambda: _framed(words[:-1] + b', "a": ' + json.dumps(one).encode() + b"}", body),
        ),
        ("nested without end", lambda: _framed(b'{"a":' + b"[" * 200_000, body)),
        ("number without end", lambda: _framed(b'{"a":' + b"9" * 300_000 + b"}", body)),
        (
            "infinite numbers",
            lambda: _framed(
                b'{"a":{"dtype":"F16","shape":[Infinity],"data_offsets":[0,NaN]}}', body
            ),
        ),
        ("not UTF-8", lambda: _framed(words.replace(b'"b"', b'"\xff\xfe"'), body)),
        (
            "a name of controls",
            lambda: _framed({**said, "\x1b[2J\n" * 999: {**two, "shape": [9]}}, body),
        ),
        ("metadata that is a list", lambda: _framed({**said, "__metadata__": [card]}, body)),
        ("metadata of numbers", lambda: _framed({**said, "__metadata__": {"card": 3}}, body)),
        ("no card", lambda: _framed({**said, "__metadata__": {}}, body)),
        ("a card of other tensors", lambda: _framed(said, body)),
        ("a header above 100 MB", lambda: _framed(b'{"a":"' + b"x" * (101 << 20) + b'"}', b"")),
        ("a pickle inside", lambda: _framed(_payload(bait, rng, "os system"), body)),
        ("a pickle by another name", lambda: _payload(bait, rng, "os system")),
        (
            "a card that nests",
            lambda: _framed({**said, "__metadata__": {"card": "[" * 100_000}}, body),
        ),
        (
            "a card of wrong kinds",
            lambda: _framed({**said, "__metadata__": {"card": _odd_card(rng)}}, body),
        ),
    ]
    label, made = cases[index % len(cases)]
    path.write_bytes(made())
    return path, label, False


def _odd_card(rng: np.random.Generator) -> str:
    """One whose one field holds what it must not."""
    card = {"format": 1, **json.loads(Card("odd").to_json())}
    key = sorted(card)[int(rng.integers(len(card)))]
    odd = [
        None,
        [],
        {},
        -1,
        1e308,
        "x" * 99,
        [[[]]],
        {"kind": []},
        True,
        10**400,
        [{"prior": "a", "kind": []}],
    ]
    return json.dumps({**card, key: odd[int(rng.integers(len(odd)))]})


# pickles


def _payload(bait: Bait, rng: np.random.Generator, how: str) -> bytes:
    """A bare pickle that makes the canary."""
    touch = f"touch {bait.canary}".encode()
    code = f"open({str(bait.canary)!r}, 'w').close()".encode()
    word = b"S" + repr(touch.decode()).encode() + b"\n"
    text = b"S" + repr(code.decode()).encode() + b"\n"
    path = b"S" + repr(str(bait.canary)).encode() + b"\n"
    module = [b"os", b"posix"][int(rng.integers(2))]

    def short(s: bytes) -> bytes:
        return b"\x8c" + bytes((len(s),)) + s

    ways = {
        "os system": b"c" + module + b"\nsystem\n(" + word + b"tR.",
        "stack": b"\x80\x04" + short(module) + short(b"system") + b"\x93(" + word + b"tR.",
        "inst": b"(" + word + b"i" + module + b"\nsystem\n.",
        "obj": b"(c" + module + b"\nsystem\n" + word + b"o.",
        "eval": b"cbuiltins\n" + [b"eval", b"exec"][int(rng.integers(2))] + b"\n(" + text + b"tR.",
        "open": b"cbuiltins\nopen\n(" + path + b"S'w'\ntR.",
        "touch": b"cpathlib\nPath.touch\n(cpathlib\nPath\n(" + path + b"tRtR.",
        "touch4": b"\x80\x04" + short(b"pathlib") + short(b"Path.touch") + b"\x93(cpathlib\nPath\n(" + path + b"tRtR.",
        "popen": b"csubprocess\nPopen\n((S'touch'\n" + path + b"ltR.",
        "call": b"csubprocess\ncheck_call\n((S'touch'\n" + path + b"ltR.",
        "getattr": b"cbuiltins\ngetattr\n(cimportlib\nimport_module\n(S'os'\ntRS'system'\ntR(" + word + b"tR.",
        "build": b"ctypes\nSimpleNamespace\n)R}S'__setstate__'\ncos\nsystem\nsb" + word + b"b.",
        "ext": b"ccopyreg\nadd_extension\n(S'os'\nS'system'\nI" + b"77" + b"\ntR0\x82\x4d(" + word + b"tR.",
        "newobj": b"\x80\x02csubprocess\nPopen\n)\x81}S'x'\nI1\nsb0cos\nsystem\n(" + word + b"tR.",
        "copyfile": b"cshutil\ncopyfile\n(S" + repr(str(bait.secret)).encode() + b"\n" + path + b"tR.",
        "persid": b"(S'storage'\ncos\nsystem\n(" + word + b"tRS'0'\nS'cpu'\nI4\ntQ.",
        "runpy": b"crunpy\nrun_path\n(" + path + b"tR0cos\nsystem\n(" + word + b"tR.",
        "torch": b"ctorch.serialization\nos.system\n(" + word + b"tR.",
        "torch4": b"\x80\x04" + short(b"torch.serialization") + short(b"os.system") + b"\x93(" + word + b"tR.",
        "dict": b"}S'a'\nc" + module + b"\nsystem\n(" + word + b"tRs.",
        "timeit": b"ctimeit\ntimeit\n(S" + repr(f"open({str(bait.canary)!r},'w')").encode() + b"\nS'pass'\ncbuiltins\nint\nI1\ntR0ctimeit\nrepeat\n.",
    }  # fmt: skip
    return ways[how]


WAYS = "os system,stack,inst,obj,eval,open,touch4,popen,call,getattr,build,ext,newobj,copyfile"
WAYS += ",persid,runpy,torch4,dict"


def _pickle(index: int, rng: np.random.Generator, stem: Path, bait: Bait) -> Made:
    path, ways = stem.with_suffix(".pth"), WAYS.split(",")
    if index % 10 == 9:  # no code: too much of something
        label = ["laughs", "deep", "long", "memo"][index // 10 % 4]
        path.write_bytes(_too_much(label))
        return path, label, False
    how = ways[index % len(ways)]
    inside = _payload(bait, rng, how)
    box = ["bare", "zip", "legacy", "tar", "script"][index // len(ways) % 5]
    path.write_bytes(_BOXES[box](inside))
    return path, f"{how} in {box}", False


def _too_much(label: str) -> bytes:
    if label == "laughs":  # lists of lists: a few hundred bytes name ten to the tenth
        return (
            b"(lp0\n"
            + b"".join(b"(lp%d\n" % i + b"g%d\na" % (i - 1) * 10 for i in range(1, 12))
            + b"."
        )
    if label == "deep":
        return b"(" * 200_000 + b"t" * 200_000 + b"."
    if label == "long":
        return b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1) + b"\xff" * 999 + b"."
    return b"\x80\x04" + b"\x8e" + struct.pack("<Q", 1 << 50) + b"x."


def _zipped(data: bytes, extra: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/data/0", bytes(16))
        for name, body in extra.items():
            archive.writestr(f"archive/{name}", body)
    return file.getvalue()


def _legacy(data: bytes) -> bytes:
    known = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    heads = [0x1950A86A20F9469CFC6C, 1001, known]
    return b"".join(pickle.dumps(h, 2) for h in heads) + data + pickle.dumps([], 2)


def _tarred(data: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, body in (("storages", pickle.dumps(0, 2)), ("tensors", data), ("pickle", data)):
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))
    return file.getvalue()


_BOXES: dict[str, Callable[[bytes], bytes]] = {
    "bare": lambda data: data,
    "zip": lambda data: _zipped(data, {}),
    "legacy": _legacy,
    "tar": _tarred,
    "script": lambda data: _zipped(data, {"constants.pkl": data, "code/__torch__.py": b"pass"}),
}


# Flipped bytes, and tensors that lie


def _flip(index: int, rng: np.random.Generator, stem: Path, bait: Bait) -> Made:
    """Of sealed files; a flip that breaks the seal's own name alone leaves the rest as it was. The
    numbers of a foreign pickle have no digest: what such a file says stays as harmless."""
    suffix = (".onnx", ".safetensors", ".pth")[index % 3]
    path = stem.with_suffix(suffix)
    if suffix == ".pth":
        honest(path, rng)
    else:
        path.write_bytes(sealed((MODELS / f"relume-s{suffix}").read_bytes(), suffix))
    data = bytearray(path.read_bytes())
    head = suffix == ".safetensors" and index % 2
    for at in rng.integers(0, 4000 if head else len(data), int(rng.integers(1, 6))):
        data[at] ^= int(rng.integers(1, 256))
    path.write_bytes(data)
    return path, suffix, True


def _lie(index: int, rng: np.random.Generator, stem: Path, bait: Bait) -> Made:
    if index % 2:
        return _lying_pickle(index // 2, rng, stem)
    path = stem.with_suffix(".safetensors")
    metadata, tensors = _base()
    recipe = json.loads(metadata["recipe"])
    at = int(rng.integers(len(tensors)))
    name, kind, shape, data = tensors[at]
    label = ("nan", "shape", "dropped", "added", "width", "guest", "dino", "start", "blocks")[
        index // 2 % 9
    ]
    if label == "nan":
        halves = np.frombuffer(bytes(data), np.float16).copy()
        halves[:] = [np.nan, np.inf, 65504][int(rng.integers(2))]
        tensors[at] = (name, kind, shape, halves.tobytes())
    elif label == "shape":
        tensors[at] = (name, kind, (int(np.prod(shape)), 1, 1), data)
    elif label == "dropped":
        del tensors[at]
    elif label == "added":
        tensors.append(("x", "F16", (2,), bytes(4)))
    elif label == "width":
        recipe["backbone"]["width"] = int(rng.integers(10**5, 10**9))
    elif label == "guest":
        recipe["backbone"] = {"kind": "guest", "architecture": "SwinIR", "embed_dim": 6 * 10**6}
    elif label == "dino":
        recipe["encoders"] = {"semantics": {"kind": "dino", "weights": str(bait_folder(stem))}}
    elif label == "start":
        recipe["backbone"]["middle"] = [10**7]
    else:
        recipe["backbone"]["encoder"] = [10**6] * 4
        recipe["backbone"]["blocks"] = 10**7
    digest = tensors_digest(tensors)
    card = replace(Card.from_json(metadata["card"]), digest=digest, recipe=recipe)
    words = {"recipe": json.dumps(recipe), "digest": digest, "card": card.to_json()}
    _write(path, tensors, words)
    return path, label, False


def bait_folder(stem: Path) -> Path:
    return stem.absolute().parent.parent


def _lying_pickle(index: int, rng: np.random.Generator, stem: Path) -> Made:
    import torch

    path = stem.with_suffix(".pth")
    small = torch.from_numpy(rng.random(8, np.float32))
    cases: list[tuple[str, Any]] = [
        ("NaN", {"a": torch.full((3, 3), float("nan"))}),
        ("infinite", {"a": torch.full((3, 3), float("inf"))}),
        ("stride 0", {"a": small[:1].expand(1 << 36)}),
        ("stride 0, square", {"a": small[:1, None].expand(1 << 18, 1 << 18)}),
        ("overlapping rows", {"a": small.as_strided((1 << 20, 8), (0, 1))}),
        ("numbers in the place of tensors", {"a": 3, "b": [1, 2]}),
        ("no table", [small, small]),
        ("an empty table", {}),
        ("names that are no words", {3: small}),
        ("complex", {"a": torch.zeros(2, dtype=torch.complex64)}),
        ("sparse", {"a": torch.eye(4).to_sparse()}),
    ]
    label, kept = cases[index % len(cases)]
    torch.save(kept, path)
    if index % 3 == 2:  # sizes in the pickle that the archive does not have
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        label += ", cut"
    return path, label, False


# ONNX


def _small(rng: np.random.Generator, path: Path | None = None, **changes: Any) -> onnx.ModelProto:
    """One convolution with its card."""
    weight = numpy_helper.from_array(rng.normal(0, 0.1, (3, 3, 3, 3)).astype(np.float16), "w")
    shape = [1, 3, "h", "w"]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["w"], ["w32"], to=TensorProto.FLOAT),
            helper.make_node("Conv", ["lq", "w32"], ["out"], pads=[1, 1, 1, 1]),
        ],
        "small",
        [helper.make_tensor_value_info("lq", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    carded(model, **changes)
    if path is not None:
        path.write_bytes(model.SerializeToString())
    return model


def carded(model: onnx.ModelProto, **changes: Any) -> onnx.ModelProto:
    """With a card that names its tensors, whatever they are."""
    halves = [
        (t.name, "F16", tuple(t.dims), t.raw_data)
        for t in model.graph.initializer
        if t.data_type == TensorProto.FLOAT16
    ]
    card = {
        **json.loads(Card("small", licence="Apache-2.0", digest=tensors_digest(halves)).to_json())
    }
    helper.set_model_props(model, {CARD_KEY: json.dumps({**card, **changes})})
    return model


def _outside(model: onnx.ModelProto, bait: Bait, rng: np.random.Generator, where: str) -> None:
    """A tensor that lies in the bait."""
    relative = os.path.relpath(bait.secret)
    place = [str(bait.secret), relative, f"./{relative}", f"../{Path.cwd().name}/{relative}"]
    tensor = TensorProto(name="far", data_type=TensorProto.FLOAT, dims=[3])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place[int(rng.integers(4))])
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="length", value="12")
    graph = model.graph
    if where == "initializer":
        graph.initializer.append(tensor)
        graph.node.append(helper.make_node("Identity", ["far"], ["far2"]))
    elif where == "attribute":
        graph.node.append(helper.make_node("Constant", [], ["far2"], value=tensor))
    elif where == "subgraph":
        inner = helper.make_graph([], "inner", [], [], [tensor])
        graph.node.append(helper.make_node("Identity", ["lq"], ["far2"], body=inner))
    elif where == "sparse":
        graph.sparse_initializer.add().values.CopyFrom(tensor)
    else:  # told outside, but without saying where
        tensor.ClearField("data_location")
        graph.initializer.append(tensor)


def _onnx(index: int, rng: np.random.Generator, stem: Path, bait: Bait) -> Made:
    path, model = stem.with_suffix(".onnx"), _small(rng)
    graph, turn = model.graph, index // 10
    label = (
        "cut",
        "outside",
        "operator",
        "shape",
        "card",
        "nested",
        "giant",
        "loop",
        "memory",
        "inputs",
    )[index % 10]

    def last(kind: str, inputs: list[str], **attributes: Any) -> None:
        graph.node[-1].output[0] = "before"
        graph.node.append(helper.make_node(kind, inputs, ["out"], **attributes))

    def constant(values: Any, name: str = "c") -> None:
        graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))

    if label == "cut":
        data = model.SerializeToString()
        path.write_bytes(data[: int(rng.integers(1, len(data)))])
        return path, label, False
    if label == "outside":
        where = ("initializer", "attribute", "subgraph", "sparse", "untold")[turn % 5]
        _outside(model, bait, rng, where)
        label += f", {where}"
    elif label == "operator":
        kinds = (
            "Loop",
            "If",
            "Scan",
            "Evil",
            "RegexFullMatch",
            "EPContext",
            "StringConcat",
            "PyOp",
        )
        kind, domain = (
            kinds[turn % 8],
            ("", "com.evil", "com.microsoft", "ai.onnx.contrib")[turn % 4],
        )
        graph.node.append(helper.make_node(kind, ["lq"], ["more"], domain=domain))
        if turn % 3 == 0 and domain:
            model.opset_import.append(helper.make_opsetid(domain, 1))
        label += f" {domain}.{kind}"
    elif label == "shape":
        shape = ([1 << 40], [65536, 65536], [-1], [1] * 20, [1 << 20] * 3, [7])[turn % 6]
        tensor = graph.initializer.add(name="t", data_type=(1, 10, 7, 9)[turn % 4], dims=shape)
        tensor.raw_data = bytes(8)
    elif label == "card":
        lies: list[dict[str, Any]] = [
            {"scale": 4}, {"scale": 0}, {"emits": ["rain"]}, {"vector": ["a"]}, {"digest": "0" * 64},
            {"multiple_of": 10**9}, {"reads": [{"prior": "x", "kind": "maps", "channels": 3, "shape": [3, 0, 0]}]},
            {"name": "../../x"}, {"format": 99}, {"reads": {"kind": []}}, {"overlap": 10**6}, {"first": "0" * 64},
            {"prepared": [{"prior": "v", "kind": "vector", "channels": 3, "shape": [3]}]},
        ]  # fmt: skip
        lie = lies[turn % len(lies)]
        carded(model, **lie)
        label += f" {next(iter(lie))}"
    elif label == "nested":
        inner = helper.make_graph([], "inner", [], [])
        for _ in range((5, 10, 20)[turn % 3]):
            inner = helper.make_graph(
                [helper.make_node("Identity", [], [], body=inner)], "in", [], []
            )
        graph.node.append(helper.make_node("Identity", ["lq"], ["more"], body=inner))
    elif label == "giant":
        if turn % 2:
            data = carded(
                model
            ).SerializeToString()  # two hundred megabytes of nothing, and a field
            path.write_bytes(data + b"\x32" + _varint(200 << 20) + bytes(200 << 20))
            return path, f"{label} field", False
        node = graph.node.add(op_type="Identity", name="n")
        node.attribute.add(name="x").ints.extend(range(200_000))
        for _ in range(60_000):
            graph.node.add(op_type="Identity")
    elif label == "loop":  # of allowed operators: it fits the survey, and nothing else
        constant(np.array(1 << 33), "limit")
        constant(np.array(0), "zero")
        constant(np.array(1), "step")
        graph.node.append(helper.make_node("Range", ["zero", "limit", "step"], ["many"]))
        graph.node.append(helper.make_node("ReduceSum", ["many"], ["sum"], keepdims=0))
        graph.node.append(helper.make_node("Cast", ["sum"], ["sumf"], to=TensorProto.FLOAT))
        last_add(graph, "sumf")
    elif label == "memory":
        constant(np.array([1, 1, 1 << 12, 1 << 12], np.int64), "times")
        if turn % 2:
            graph.node.append(helper.make_node("Tile", ["lq", "times"], ["much"]))
        else:
            constant(np.array([1 << 17, 1 << 17], np.int64), "big")
            graph.node.append(helper.make_node("ConstantOfShape", ["big"], ["much"]))
        graph.node.append(helper.make_node("ReduceMax", ["much"], ["most"], keepdims=0))
        last_add(graph, "most")
    else:
        graph.input.add(name="more")
        if turn % 2:
            graph.node.append(helper.make_node("Identity", ["nowhere"], ["x"]))
    path.write_bytes(model.SerializeToString())
    return path, label, False


def last_add(graph: Any, name: str) -> None:
    graph.node[1].output[0] = "before"
    graph.node.append(helper.make_node("Add", ["before", name], ["out"]))


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes((value & 127 | 128,))
        value >>= 7
    return out + bytes((value,))


# Controls


def trips(path: Path, bait: Bait, load: Callable[[bytes], None]) -> bool:
    """Whether a loader, in a process of its own, lets a file make the canary."""
    bait.lay()
    data = path.read_bytes()
    child = os.fork()
    if child == 0:
        try:
            for fd in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
            import resource

            resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
            load(data)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return bait.sprung()


def load_plainly(data: bytes) -> None:
    import torch

    for load in (
        lambda: torch.load(io.BytesIO(data), weights_only=False),
        lambda: pickle.loads(data),
        lambda: pickle.loads(zipfile.ZipFile(io.BytesIO(data)).read("archive/data.pkl")),
    ):
        try:
            load()
        except BaseException:
            continue


def load_restricted(data: bytes) -> None:
    from relume.lab.pickles import loaded

    loaded(data)


def runtime_reads(bait: Bait) -> bool:
    """Whether ONNX Runtime, given bytes, reads a file that a tensor names: why the survey must not
    let such a graph pass. With its optimisers off, which happen to refuse it in this version."""
    import onnxruntime

    model = _small(np.random.default_rng(0))
    tensor = model.graph.initializer.add(name="far", data_type=TensorProto.FLOAT, dims=[1, 3, 1, 1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=os.path.relpath(bait.secret))
    last_add(model.graph, "far")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    bait.lay()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    session.run(None, {"lq": np.zeros((1, 3, 8, 8), np.float32)})
    return bait.read()
