import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny import tiny_model

from relume import card as cards
from relume.card import CARD_KEY, SEAL, Card, Reads, find, header, pack, survey
from relume.errors import ModelError, UsageError
from relume.lab.weights import stamp


@pytest.fixture
def graph():
    return onnx.load_model(tiny_model())


@pytest.fixture
def refused(tmp_path):
    """refused(graph) -> the one line with which the survey refuses it."""

    def line(model) -> str:
        path = tmp_path / "m.onnx"
        data = model if isinstance(model, bytes) else model.SerializeToString()
        path.write_bytes(data)
        with pytest.raises(ModelError) as caught:
            survey(path)
        assert caught.value.exit_code == 4
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
        return str(caught.value)

    return line


def node(model, kind="Identity", **attributes):
    model.graph.node.append(helper.make_node(kind, ["lq"], ["more"], **attributes))
    return model


def test_a_card_survives_its_own_json():
    card = Card(
        "relume-s",
        multiple_of=16,
        reach=63,
        overlap=16,
        reads=(
            Reads("thumbnail", "maps", 3, (3, 96, 96), whole=True),
            Reads("rain", "maps", 1, (1, 0, 0)),
        ),
        recipe={"lr": 1e-3},
        attribution=("photographs: someone, CC0",),
        figures={"cbsd68": {"psnr": 28.9}},
    )
    assert Card.from_json(card.to_json()) == card


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 0},
        {"scale": "2"},
        {"multiple_of": 1.5},
        {"overlap": -1},
        {"overlap": True},
        {"support": "some"},
        {"name": "../evil"},
        {"recipe": []},
        {"limits": "none"},
        {"format": 2},
        {"reads": [{"prior": "a", "kind": "maps", "channels": 3, "shape": [1, 0, 0]}]},
        {"reads": [{"prior": "a", "kind": "hearsay", "channels": 3, "shape": [3, 0, 0]}]},
        {"reads": [{"prior": "a", "kind": "vector", "channels": 10**9, "shape": [10**9]}]},
        {"reads": [{"prior": "lq", "kind": "vector", "channels": 2, "shape": [2]}]},
        {"reads": [{"kind": "vector"}]},
        {"reads": ["rain"]},
        {"first": 3},
        {"masks": 3},
        {"masks_name": "../masks"},
    ],
)
def test_a_card_that_lies_is_refused(change):
    raw = {**json.loads(Card("plain").to_json()), **change}
    with pytest.raises(ModelError):
        Card.from_json(json.dumps(raw))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, b"\xff\xfe"])
def test_a_card_that_is_no_card_is_refused(text):
    with pytest.raises(ModelError):
        Card.from_json(text)


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors"])
def test_an_exported_file_is_accepted_with_its_card(suffix):
    model = survey(tiny_model().with_suffix(suffix))
    assert model.card.name == "tiny"
    assert (model.card.multiple_of, model.card.reach, model.card.overlap) == (4, 11, 16)
    assert model.card.reads == (Reads("thumbnail", "maps", 3, (3, 8, 8), whole=True),)


def test_both_files_of_a_model_name_one_digest():
    path = tiny_model()
    digests = {survey(path.with_suffix(s)).card.digest for s in (".onnx", ".safetensors")}
    assert len(digests) == 1


def test_operators_outside_the_list_are_refused(graph, refused):
    assert "'Loop', which is not allowed" in refused(node(graph, "Loop"))


def test_operators_of_a_foreign_domain_are_refused(graph, refused):
    assert "'com.evil'" in refused(node(graph, "Add", domain="com.evil"))


def test_a_foreign_opset_is_refused(graph, refused):
    graph.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert "com.microsoft" in refused(graph)


def test_a_subgraph_is_walked(graph, refused):
    inner = helper.make_graph([helper.make_node("Evil", [], ["x"])], "inner", [], [])
    assert "'Evil'" in refused(node(graph, "Identity", body=inner))
    assert "'Evil'" in refused(node(graph, "Identity", bodies=[inner]))


def test_graphs_nested_without_end_are_refused(graph, refused):
    inner = helper.make_graph([], "inner", [], [])
    for _ in range(20):
        inner = helper.make_graph(
            [helper.make_node("Identity", [], [], body=inner)], "inner", [], []
        )
    assert "nested too deeply" in refused(node(graph, "Identity", body=inner))


def test_functions_are_refused(graph, refused):
    one = helper.make_node("Identity", ["x"], ["y"])
    opsets = [helper.make_opsetid("", 18)]
    graph.functions.append(helper.make_function("", "Add", ["x"], ["y"], [one], opsets))
    assert "functions" in refused(graph)


def elsewhere(tensor):
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def test_tensors_in_other_files_are_refused(graph, refused):
    elsewhere(graph.graph.initializer[0])
    assert "in another file" in refused(graph)


def test_a_tensor_in_another_file_is_found_inside_an_attribute(graph, refused):
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), "t")
    elsewhere(tensor)
    assert "in another file" in refused(node(graph, "Constant", value=tensor))


@pytest.mark.parametrize("shape", [[1 << 40], [65536, 65536], [-1], [1] * 20, [3]])
def test_tensors_that_lie_about_their_size_are_refused(graph, refused, shape):
    tensor = graph.graph.initializer.add()
    tensor.CopyFrom(numpy_helper.from_array(np.zeros(2, np.float32), "liar"))
    tensor.dims[:] = shape
    assert "'liar'" in refused(graph)
    tensor.ClearField("raw_data")
    tensor.float_data[:] = [0.0, 0.0]
    if shape != [3]:  # without raw bytes the survey asks for at least a byte a number
        assert "'liar'" in refused(graph)


def test_words_and_sparse_tensors_are_refused(graph, refused):
    copy = onnx.ModelProto.FromString(graph.SerializeToString())
    copy.graph.initializer.append(helper.make_tensor("w", TensorProto.STRING, [1], [b"word"]))
    assert "kind that is not allowed" in refused(copy)
    graph.graph.sparse_initializer.add()
    assert "sparse" in refused(graph)


def test_a_changed_weight_is_refused(graph, refused):
    weight = next(t for t in graph.graph.initializer if t.data_type == TensorProto.FLOAT16)
    weight.raw_data = bytes([weight.raw_data[0] ^ 1]) + weight.raw_data[1:]
    assert "not those that its card names" in refused(graph)


def test_inputs_that_the_card_does_not_name_are_refused(graph, refused):
    graph.graph.input.add(name="more")
    assert "does not read what its card says" in refused(graph)


def test_a_file_needs_exactly_one_card(graph, refused):
    copy = onnx.ModelProto.FromString(graph.SerializeToString())
    copy.metadata_props.add(key=CARD_KEY, value=Card("other").to_json())
    assert "no card" in refused(copy)
    del graph.metadata_props[:]
    assert "`relume export`" in refused(graph)


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors"])
def test_a_file_cut_anywhere_is_refused(suffix, tmp_path):
    data = tiny_model().with_suffix(suffix).read_bytes()
    path = tmp_path / f"cut{suffix}"
    for length in [*range(0, len(data), len(data) // 50), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(ModelError):
            survey(path)


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors"])
def test_a_flipped_bit_is_refused_or_harmless_and_never_another_error(suffix, tmp_path):
    original = tiny_model().with_suffix(suffix)
    data, path = bytearray(original.read_bytes()), tmp_path / f"flipped{suffix}"
    rng = np.random.default_rng(0)
    digest = survey(original).card.digest
    key = data.index(SEAL.encode())
    places = [*rng.integers(0, len(data), 300), *range(key, key + len(SEAL))]
    kept = set[int]()
    for at in places:
        flipped = bytearray(data)
        flipped[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            assert survey(path).card.digest == digest
            kept.add(int(at) - key)
        except ModelError:
            continue
    # What makes of it a file without a seal, and changes nothing else.
    assert kept and kept <= set(range(-4, len(SEAL) + 4))


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors"])
def test_a_file_without_a_seal_loads_and_a_stamp_seals_it(suffix, tmp_path):
    whole = tiny_model().with_suffix(suffix)
    path = tmp_path / f"old{suffix}"
    card = survey(whole).card
    if suffix == ".onnx":
        model = onnx.load_model(whole)
        onnx.helper.set_model_props(model, {CARD_KEY: card.to_json()})
        path.write_bytes(model.SerializeToString())
    else:
        metadata, tensors = header(whole.read_bytes())
        del metadata[SEAL]
        parts = pack([(name, *tensor) for name, tensor in tensors.items()], metadata)
        path.write_bytes(b"".join(parts))
    bare = path.read_bytes()
    assert SEAL.encode() not in bare
    assert survey(path).card == card
    stamp(path)
    stamped = path.read_bytes()
    assert survey(path).card == card
    stamp(path)
    assert path.read_bytes() == stamped
    word = b"limits"
    path.write_bytes(stamped.replace(word, b"Limits", 1))
    with pytest.raises(ModelError, match="not as it was sealed"):
        survey(path)
    path.write_bytes(bare.replace(word, b"Limits", 1))
    assert survey(path).card.digest == card.digest


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors"])
def test_noise_is_refused(suffix, tmp_path):
    path = tmp_path / f"noise{suffix}"
    for seed in range(50):
        path.write_bytes(np.random.default_rng(seed).bytes(seed * 7))
        with pytest.raises(ModelError):
            survey(path)


def safetensors(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


HALF = {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "data",
    [
        safetensors({"a": HALF}, b"123"),
        safetensors({"a": HALF}, b"12345"),
        safetensors({"a": {**HALF, "shape": [3]}}, b"1234"),
        safetensors({"a": {**HALF, "shape": [-2]}}, b"1234"),
        safetensors({"a": {**HALF, "dtype": "OBJ"}}, b"1234"),
        safetensors({"a": HALF, "b": HALF}, b"1234"),
        safetensors({"a": HALF, "b": {**HALF, "data_offsets": [6, 10]}}, b"1234567890"),
        safetensors(b'{"a":1,"a":2}'),
        safetensors({"a": None}),
        safetensors([]),
        safetensors({"__metadata__": {"card": 3}}),
        safetensors({"__metadata__": {"card": Card("x").to_json()}, "a": HALF}, b"1234"),
        (1 << 62).to_bytes(8, "little") + b"{}",
    ],
)
def test_broken_safetensors_are_refused(data, tmp_path):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelError):
        survey(path)


def test_built_in_models_are_found_by_name():
    assert find("identity").card.scale == 1
    assert find("invert").path is None


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(UsageError, match=r"no model called 'identiy'. Did you mean 'identity'\?"):
        find("identiy")


def test_shipped_models_are_found_by_name(monkeypatch):
    monkeypatch.setattr(cards.files, "MODELS", tiny_model().parent)
    assert find("tiny").card.name == "tiny"
    assert [m.card.name for m in cards.shipped()] == ["tiny"]
    assert cards.names() == ["tiny", "identity", "invert"]


def test_a_file_that_is_not_there_is_wrong_usage():
    with pytest.raises(UsageError, match="no model file at"):
        find("nowhere/model.onnx")


def test_a_pickle_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=r"ends in .onnx or .safetensors"):
        find(path)


def test_a_file_exchanged_after_the_survey_is_not_opened(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(tiny_model().read_bytes())
    model = find(path)
    path.write_bytes(b"something else")
    with pytest.raises(ModelError, match="changed while"):
        model.read()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_refused(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"")
    path.chmod(0)
    with pytest.raises(ModelError, match="cannot be read"):
        find(path)


def test_surveying_imports_neither_onnx_nor_a_runtime():
    code = (
        "import sys; from relume.card import survey; from pathlib import Path\n"
        f"survey(Path({str(tiny_model())!r}))\n"
        "bad = {'onnx', 'onnxruntime', 'torch', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_card_of_other_tensors_is_refused(tmp_path):
    path = tmp_path / "other.onnx"
    model = onnx.load_model(tiny_model())
    card = replace(survey(tiny_model()).card, digest="0" * 64)
    helper.set_model_props(model, {CARD_KEY: card.to_json()})
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="Fetch it again"):
        survey(Path(path))
