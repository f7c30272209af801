import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny import Tiny, thumbnail, tiny_model

from relume.card import find, survey
from relume.engine import Engine, OnnxEngine, OpenVinoEngine, open_engine, out_of_memory
from relume.engine.onnx import GPU_PROVIDERS
from relume.errors import (
    CheckError,
    GuidanceError,
    MissingError,
    ModelError,
    ShapeError,
    UsageError,
)
from relume.guidance import Guidance, Guide

OPENVINO = importlib.util.find_spec("openvino") is not None
needs_openvino = pytest.mark.skipif(not OPENVINO, reason="openvino is not installed")
HERE = ["onnx", "torch", *(["openvino"] * OPENVINO)]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def recipe_of_tiny(monkeypatch):
    """Tiny is no row of the lab's tables, so that no recipe builds it."""

    def restorer_of(stored):
        network = Tiny(seed=1)
        network.load_state_dict(stored.tensors)
        return network

    monkeypatch.setattr("relume.lab.engine.restorer_of", restorer_of)


@pytest.fixture
def tile():
    return np.random.default_rng(1).random((1, 3, 24, 40), np.float32)


@pytest.mark.parametrize("name", HERE)
def test_every_engine_computes_the_same(name, tile):
    engine = open_engine(tiny_model(), name)
    assert isinstance(engine, Engine)
    assert (engine.name, engine.precision) == (name, "float32")
    out = engine(tile, engine.prepare(tile, thumbnail()))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, open_engine(tiny_model(), "onnx")(tile, thumbnail()), atol=1e-5)


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("size", [(4, 4), (4, 64), (36, 20)])
def test_every_engine_takes_any_multiple(name, size):
    tile = np.zeros((1, 3, *size), np.float32)
    assert open_engine(tiny_model(), name)(tile, thumbnail()).shape == tile.shape


@pytest.mark.parametrize("name", HERE)
def test_guidance_matters_and_a_missing_prior_is_null(name, tile):
    engine = open_engine(tiny_model(), name)
    null = Guidance(thumbnail=Guide(maps=np.zeros((1, 3, 8, 8), np.float32), whole=True))
    np.testing.assert_array_equal(engine(tile, Guidance()), engine(tile, null))
    assert np.abs(engine(tile, thumbnail()) - engine(tile, null)).max() > 1e-3


@pytest.mark.parametrize("name", ["onnx", *(["openvino"] * OPENVINO)])
def test_threads_do_not_change_a_bit(name, tile):
    one, two = (open_engine(tiny_model(), name, threads=n)(tile, thumbnail()) for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_identity_and_invert(tile):
    np.testing.assert_array_equal(open_engine("identity")(tile, Guidance()), tile)
    np.testing.assert_array_equal(open_engine("invert")(tile, Guidance()), 1 - tile)


def test_auto_is_a_matter_of_what_is_installed(monkeypatch):
    assert open_engine(tiny_model()).name == ("openvino" if OPENVINO else "onnx")
    with monkeypatch.context() as bare:
        bare.setattr(importlib.util, "find_spec", lambda name: None)
        assert open_engine(tiny_model()).name == "onnx"
    assert open_engine(tiny_model().with_suffix(".safetensors")).name == "torch"


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        ((1, 3, 23, 40), ShapeError, "sides that 4 divides"),
        ((1, 1, 24, 40), ShapeError, "takes tiles of"),
        ((2, 3, 24, 40), ShapeError, "takes tiles of"),
    ],
)
def test_a_tile_of_the_wrong_shape_is_an_error(bad, error, words):
    with pytest.raises(error, match=words):
        open_engine(tiny_model(), "onnx")(np.zeros(bad, np.float32), Guidance())


@pytest.mark.parametrize(
    "guide",
    [
        Guide(maps=np.zeros((1, 3, 9, 8), np.float32)),
        Guide(maps=np.zeros((1, 2, 8, 8), np.float32)),
        Guide(vector=np.zeros((1, 3), np.float32)),
    ],
)
def test_a_guide_of_the_wrong_shape_is_an_error(guide, tile):
    with pytest.raises(GuidanceError, match="tiny reads thumbnail as"):
        open_engine(tiny_model(), "onnx")(tile, Guidance(thumbnail=guide))


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_never_returned(name, bad, tile):
    tile[0, 0, 3, 3] = bad
    with pytest.raises(CheckError, match="not finite"):
        open_engine(tiny_model(), name)(tile, thumbnail())


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"engine": "onxn"}, UsageError, "Did you mean 'onnx'"),
        ({"device": "tpu"}, UsageError, "no device called"),
        ({"precision": "int4"}, UsageError, "no precision called"),
        ({"threads": 0}, UsageError, "at least 1"),
        ({"engine": "onnx", "precision": "bf16"}, UsageError, "needs --engine openvino"),
        ({"engine": "onnx", "device": "gpu"}, MissingError, "onnxruntime-gpu"),
    ],
)
def test_what_cannot_be_opened_is_said_in_words(arguments, error, words):
    if error is MissingError and set(GPU_PROVIDERS) & set(_providers()):
        pytest.skip("this onnxruntime drives a GPU")
    with pytest.raises(error, match=words):
        open_engine(tiny_model(), **arguments)


def _providers():
    import onnxruntime

    return onnxruntime.get_available_providers()


def test_safetensors_run_on_torch_only():
    with pytest.raises(UsageError, match="`relume export"):
        open_engine(tiny_model().with_suffix(".safetensors"), "onnx")


def test_a_missing_openvino_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingError, match=r"uv sync --extra openvino") as caught:
        open_engine(tiny_model(), "openvino")
    assert caught.value.exit_code == 5


def test_a_missing_torch_names_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"uv sync --extra lab"):
        open_engine(tiny_model(), "torch")


def test_a_graph_that_no_runtime_opens_is_refused(tmp_path, monkeypatch):
    import onnx

    from relume.card import sealed

    graph = onnx.load_model(tiny_model())
    graph.graph.output[0].name = "nobody"
    path = tmp_path / "m.onnx"
    path.write_bytes(sealed(graph.SerializeToString(), ".onnx"))
    with pytest.raises(ModelError, match="cannot be opened") as caught:
        OnnxEngine(survey(path))
    assert "\n" not in str(caught.value)
    with pytest.raises((ModelError, CheckError)):
        out = OpenVinoEngine(survey(path)) if OPENVINO else OnnxEngine(survey(path))
        out(np.zeros((1, 3, 4, 4), np.float32), Guidance())
        pytest.skip("OpenVINO opened it and ran it")


def test_running_out_of_memory_is_a_memory_error(tile, monkeypatch):
    engine = open_engine(tiny_model(), "onnx")

    class Full:
        def run(self, *_):
            raise RuntimeError("Failed to allocate memory for requested buffer of size 123")

    monkeypatch.setattr(engine, "_session", Full())
    with pytest.raises(MemoryError, match="for a tile of"):
        engine(tile, thumbnail())


@needs_openvino
def test_a_tile_that_bf16_spoils_is_computed_again(tile, monkeypatch):
    engine = OpenVinoEngine(find(tiny_model()))
    right = engine(tile, thumbnail())
    engine.precision = "bf16"
    honest = engine._request

    def spoiled(graph, given, precision):
        if precision == "float32":
            return honest(graph, given, precision)
        return lambda *_, **__: [np.full((1, 3, 24, 40), np.nan, np.float32)]

    monkeypatch.setattr(engine, "_request", spoiled)
    np.testing.assert_array_equal(engine(tile, thumbnail()), right)
    np.testing.assert_array_equal(engine(tile, thumbnail()), right)
    assert engine.notes == ["2 tiles were not finite in bf16 and computed in float32"]


@needs_openvino
def test_bf16_is_close_or_said_to_be_missing(tile):
    try:
        engine = open_engine(tiny_model(), "openvino", precision="bf16")
    except MissingError as error:
        assert "no bf16" in str(error)
        return
    right = open_engine(tiny_model(), "openvino")(tile, thumbnail())
    assert np.abs(engine(tile, thumbnail()) - right).max() < 0.05


def test_torch_in_bf16_is_close(tile):
    engine = open_engine(tiny_model(), "torch", precision="bf16")
    right = open_engine(tiny_model(), "torch")(tile, thumbnail())
    assert 0 < np.abs(engine(tile, thumbnail()) - right).max() < 0.05


@needs_openvino
def test_openvino_is_silent(tmp_path):
    code = (
        "import sys, threading, numpy as np\n"
        "from relume.engine import open_engine\n"
        "from relume.guidance import Guidance\n"
        f"engine = open_engine({str(tiny_model())!r}, 'openvino')\n"
        "engine(np.zeros((1, 3, 8, 8), np.float32), Guidance())\n"
        "assert not [m for m in sys.modules if m.startswith('openvino_telemetry')]\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert not list(tmp_path.iterdir())


def test_opening_and_running_say_nothing(capfd, tile):
    open_engine(tiny_model(), "onnx")(tile, thumbnail())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "words",
    [
        "std::bad_alloc",
        "bad allocation",
        "Failed to allocate memory for requested buffer of size 4294967296",
        "CUDA failure 2: out of memory ; GPU=0",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
        "[GPU] clEnqueueMapBuffer, error code: -5 CL_OUT_OF_RESOURCES",
        "[GPU] Exceeded max size of memory object allocation: requested 5 bytes",
        "CL_MEM_OBJECT_ALLOCATION_FAILURE",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes.",
    ],
)
def test_every_runtime_is_understood_when_it_runs_out_of_memory(words):
    assert out_of_memory(RuntimeError(words))
    assert not out_of_memory(RuntimeError("Got invalid dimensions for input: lq"))


def test_torch_out_of_memory_on_the_cpu_is_a_memory_error(tile, monkeypatch):
    engine = open_engine(tiny_model(), "torch", "cpu")

    def full(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    monkeypatch.setattr(engine, "restorer", full)
    with pytest.raises(MemoryError):
        engine(tile, thumbnail())
