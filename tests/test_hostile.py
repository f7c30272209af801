"""Weight files made to harm, a few of each kind: all are in `benchmarks/hostile_weights.py`."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import hostile

from relume import trial
from relume.card import MODELS, find, header, pack, survey
from relume.engine import open_engine
from relume.errors import ModelError
from relume.lab import pickles


@pytest.fixture
def bait(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return hostile.Bait(tmp_path / "canary", tmp_path / "secret.bin")


@pytest.mark.parametrize("index", range(33))
def test_a_broken_header_is_refused(index, bait, tmp_path):
    path, label, _ = hostile.make(
        "safetensors", index, np.random.default_rng(index), tmp_path / "x", bait
    )
    with pytest.raises(ModelError) as refused:
        find(path)
    assert "\n" not in str(refused.value), label


@pytest.mark.parametrize("index", range(40))
def test_a_hostile_graph_never_reaches_a_runtime(index, bait, tmp_path):
    path, label, _ = hostile.make("onnx", index, np.random.default_rng(index), tmp_path / "x", bait)
    bait.lay()
    if label in ("loop", "memory", "giant field") or label.startswith("card"):
        return  # some of these only a first run finds, below
    with pytest.raises(ModelError):
        find(path)
    assert not bait.read()


# torch itself ends in a warning for what is no zip file.
@pytest.mark.filterwarnings("ignore")
def test_restricted_loading_runs_nothing_by_itself(bait, tmp_path):
    """Without the sandbox around it; and the plain loader falls for the same files."""
    ways = hostile.WAYS.split(",")
    for index in (*range(len(ways)), 2 * len(ways), 3 * len(ways), 4 * len(ways)):
        if index % 10 == 9:
            continue
        rng = np.random.default_rng(index)
        path, label, _ = hostile.make("pickles", index, rng, tmp_path / "x", bait)
        with pytest.raises(ModelError):
            pickles.loaded(path.read_bytes())
        assert not bait.sprung(), label
    path, _, _ = hostile.make("pickles", 0, np.random.default_rng(0), tmp_path / "x", bait)
    hostile.load_plainly(path.read_bytes())
    assert bait.sprung()


@pytest.mark.parametrize("index", range(11))
def test_tensors_that_lie_are_refused(index, tmp_path):
    path, _, _ = hostile._lying_pickle(index, np.random.default_rng(0), tmp_path / "x")
    with pytest.raises(ModelError):
        pickles.weights_in(pickles.loaded(path.read_bytes()))


def test_convert_makes_a_file_that_others_read(relume, tmp_path):
    from safetensors.torch import load_file

    kept = {"a.weight": torch.randn(3, 4), "b": torch.ones(5, dtype=torch.bfloat16)}
    kept["none"] = torch.zeros(0)
    torch.save({"params": kept, "iteration": 3}, tmp_path / "x.pth")
    assert relume("models", "convert", "x.pth")[0] == 0
    again = load_file(tmp_path / "x.safetensors")
    assert again.keys() == kept.keys()
    assert all(torch.equal(again[name], kept[name]) for name in kept)
    metadata, _ = header((tmp_path / "x.safetensors").read_bytes())
    assert metadata["source"] == "x.pth"
    code, _, said = relume("models", "convert", "x.pth")  # it is there
    assert (code, said.count("\n")) == (3, 1)
    code, _, said = relume("models", "convert", "y.pth")
    assert (code, said.count("\n")) == (2, 1)


def test_a_pickle_that_runs_code_is_refused_in_one_line(relume, bait, tmp_path):
    path, _, _ = hostile.make("pickles", 20, np.random.default_rng(0), tmp_path / "x", bait)
    code, out, said = relume("models", "convert", path)
    assert (code, out, said.count("\n")) == (4, "", 1)
    assert "plain weights (Unsupported operand" in said
    assert not bait.sprung()
    assert not list(tmp_path.glob("*.safetensors"))


def onnx_at(path, **changes):
    path.write_bytes(hostile._small(np.random.default_rng(0), **changes).SerializeToString())
    return path


def test_an_unknown_model_is_run_small_once(tmp_path, monkeypatch):
    monkeypatch.setenv("RELUME_CACHE", str(tmp_path / "cache"))
    path, asked = onnx_at(tmp_path / "m.onnx"), []
    plain = trial.Sandbox.call
    monkeypatch.setattr(trial.Sandbox, "call", lambda *a, **k: asked.append(1) or plain(*a, **k))
    open_engine(path, "onnx")
    open_engine(path, "onnx")
    assert asked == [1]
    open_engine(onnx_at(path, limits=["another card"]), "onnx")
    assert asked == [1, 1]
    open_engine(MODELS / "relume-s.onnx", "onnx")
    assert asked == [1, 1]


@pytest.mark.parametrize("lie", [{"scale": 2}, {"emits": ["rain"]}, {"multiple_of": 2, "scale": 3}])
def test_a_graph_that_is_not_what_its_card_says_is_refused(lie, tmp_path):
    with pytest.raises(ModelError, match="run small, small gave"):
        open_engine(onnx_at(tmp_path / "m.onnx", **lie), "onnx")


@pytest.mark.parametrize("turn", range(2))
def test_a_graph_that_wants_the_machine_is_refused(turn, bait, tmp_path):
    for kind in (7, 8):
        index = kind + 10 * turn
        path, label, _ = hostile.make("onnx", index, np.random.default_rng(0), tmp_path / "x", bait)
        survey(path)  # every operator of it is allowed
        with pytest.raises(ModelError, match="run small"):
            open_engine(path, "onnx")
        assert label in ("loop", "memory")


def test_a_recipe_that_wants_the_machine_is_refused(bait, tmp_path):
    path, label, _ = hostile.make("lies", 8, np.random.default_rng(0), tmp_path / "x", bait)
    assert label == "width"
    with pytest.raises(ModelError, match="run small"):
        open_engine(path, "torch")


# What broke the survey once.


def test_a_card_with_a_list_for_a_word_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    for odd in ({"kind": [], "prior": "a", "shape": [1], "channels": 1}, {"shape": 3}):
        card = {"format": 1, "name": "x", "reads": [odd]}
        path.write_bytes(b"".join(pack([], {"card": json.dumps(card)})))
        with pytest.raises(ModelError):
            survey(path)


def test_a_file_of_words_is_no_model(tmp_path):
    model = hostile._small(np.random.default_rng(0))
    model.doc_string = "x" * (17 << 20)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="belong to no tensor"):
        survey(tmp_path / "m.onnx")


def test_fields_are_counted_before_they_are_kept(tmp_path):
    model = hostile._small(np.random.default_rng(0))
    data = model.SerializeToString() + b"\x28\x01" * 1_100_000  # model_version, again and again
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(ModelError, match="more than 1000000 fields"):
        survey(tmp_path / "m.onnx")


def test_a_tensor_of_a_thousand_axes_is_refused(tmp_path):
    model = hostile._small(np.random.default_rng(0))
    tensor = numpy_helper.from_array(np.zeros(1, np.float32), "t")
    tensor.dims[:] = [1] * 1000
    model.graph.initializer.append(tensor)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"axes|no sane shape"):
        survey(tmp_path / "m.onnx")


def test_the_runtime_would_read_what_the_survey_refuses(bait, tmp_path):
    """Why it refuses: a graph given as bytes still reads a file that it names."""
    assert hostile.runtime_reads(bait)
