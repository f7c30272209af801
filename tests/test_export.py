import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from tiny import Tiny, exported, thumbnail, tiny_model
from torch import nn

from relume.card import Card, Reads, survey
from relume.engine import feeds, open_engine
from relume.errors import CheckError, ModelError, OutputError, UsageError
from relume.guidance import Guidance
from relume.lab import recipe, weights
from relume.lab.engine import TorchEngine
from relume.lab.export import check, export, with_card
from relume.lab.finished import restorer_of
from relume.tiling import plan


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def rounded(seed=0):
    network = Tiny(seed)
    network.load_state_dict(weights.to_half(network.state_dict()))
    return network.eval()


def copy_of_tiny(folder):
    for suffix in (".onnx", ".safetensors"):
        source = tiny_model().with_suffix(suffix)
        (folder / source.name).write_bytes(source.read_bytes())
    return folder / "tiny.onnx"


def test_the_graph_computes_what_the_rounded_network_computes():
    assert max(check(rounded(), tiny_model()).values()) <= 1e-5


def test_another_network_is_noticed():
    with pytest.raises(CheckError, match="differs from the network by"):
        check(rounded(seed=1), tiny_model())


def test_export_leaves_the_network_alone():
    _, network, _ = exported()
    assert network.training
    before = Tiny().state_dict()
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_export_writes_two_files_with_one_card():
    path, network, card = exported()
    assert card == survey(path).card == survey(path.with_suffix(".safetensors")).card
    assert card.parameters == sum(p.numel() for p in network.parameters())
    assert sorted(p.name for p in path.parent.iterdir()) == ["tiny.onnx", "tiny.safetensors"]


def test_weights_are_stored_in_half_under_their_own_names():
    graph = onnx.load_model(tiny_model()).graph
    halves = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT16}
    wanted = weights.to_half(Tiny().state_dict())
    assert set(halves) == set(wanted)
    for name, half in wanted.items():
        np.testing.assert_array_equal(numpy_helper.to_array(halves[name]), half.numpy())


def test_half_storage_computes_to_the_bit_what_float32_storage_computes():
    model = onnx.load_model(tiny_model())
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            wide = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    tile = np.random.default_rng(0).random((1, 3, 32, 20), np.float32)
    given = feeds(survey(tiny_model()).card, tile, thumbnail())
    outs = [
        onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, given)[0]
        for data in (tiny_model().read_bytes(), model.SerializeToString())
    ]
    np.testing.assert_array_equal(*outs)


def test_tiles_of_the_exported_graph_equal_the_whole(photo):
    engine = open_engine(tiny_model(), "onnx")
    card = engine.card
    height, width = photo.shape[2:]
    sizes = {"multiple_of": card.multiple_of, "overlap": card.overlap}
    tiles = plan(height, width, **sizes, tile=48)
    assert len(tiles) > 4
    whole = plan(height, width, **sizes, tile=4096).run(photo, thumbnail(), engine)
    assert np.abs(tiles.run(photo, thumbnail(), engine) - whole).max() <= 1e-5


class Idle(Tiny):
    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.ones(3))


class Counting(Tiny):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))


class Branching(Tiny):
    def forward(self, lq, guidance):
        return super().forward(lq, guidance) * (1 if lq.mean() > 0.5 else 2)


class Wordy(Tiny):
    reads = (Reads("words", "tokens", 4, (0, 4)),)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Idle, "unused for one"),
        (Counting, "persistent=False"),
        (Branching, "cannot be exported"),
        (Wordy, "any number of token rows"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_words(network, words, tmp_path):
    with pytest.raises(UsageError, match=words) as caught:
        export(network(), tmp_path / "n.onnx", Card("n"))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_weights_that_half_cannot_hold_are_refused(tmp_path):
    network = Tiny()
    network.strength.data.fill_(1e6)
    with pytest.raises(CheckError, match="strength holds numbers"):
        export(network, tmp_path / "n.onnx", Card("n"))


def test_figures_enter_the_card_after_the_export(tmp_path):
    path = copy_of_tiny(tmp_path)
    card = replace(survey(path).card, figures={"cbsd68": 28.9}, bad_at=("faces",))
    with_card(path, card)
    assert survey(path).card == survey(path.with_suffix(".safetensors")).card == card
    check(rounded(), path)
    with pytest.raises(ModelError, match="another network"):
        with_card(path, replace(card, digest="1" * 64))


def test_a_weight_file_says_what_it_is(tmp_path):
    tensors = Tiny().state_dict()
    path = tmp_path / "w.safetensors"
    digest = weights.save(path, tensors, recipe={"name": "tiny", "lr": 1e-3})
    stored = weights.load(path)
    assert (stored.digest, stored.recipe, stored.card) == (
        digest,
        {"name": "tiny", "lr": 1e-3},
        None,
    )
    for name, tensor in tensors.items():
        assert stored.tensors[name].dtype == torch.float32
        assert torch.equal(stored.tensors[name], tensor.half().float())


def test_full_precision_is_kept_when_asked(tmp_path):
    tensors = Tiny().state_dict()
    weights.save(tmp_path / "w.safetensors", tensors, recipe={}, half=False)
    stored = weights.load(tmp_path / "w.safetensors").tensors
    assert all(torch.equal(stored[k], v) for k, v in tensors.items())


def test_weights_under_another_digest_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    words = {"recipe": json.dumps({}), "digest": "0" * 64}
    weights.write_tensors(path, {"a": torch.ones(2)}, words)
    with pytest.raises(ModelError, match="not those that its header names"):
        weights.load(path)
    weights.write_tensors(path, {"a": torch.ones(2)}, {})
    with pytest.raises(ModelError, match="by which recipe"):
        weights.load(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match="refused"):
        weights.load(path)


def test_what_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        weights.write_tensors(tmp_path / "file" / "w.safetensors", {"a": torch.ones(1)}, {})


def test_channels_last_weights_have_the_digest_of_plain_ones():
    tensor = torch.randn(4, 3, 2, 2)
    other = tensor.contiguous(memory_format=torch.channels_last)
    assert weights.digest({"a": tensor}) == weights.digest({"a": other})


def test_the_torch_engine_runs_a_restorer():
    engine = TorchEngine(rounded(), survey(tiny_model()).card, device="cpu")
    tile = np.random.default_rng(0).random((1, 3, 16, 12), np.float32)
    onnx_engine = open_engine(tiny_model(), "onnx")
    np.testing.assert_allclose(engine(tile, thumbnail()), onnx_engine(tile, thumbnail()), atol=1e-5)
    assert engine(tile, Guidance()).shape == tile.shape


def test_weights_carry_the_recipe_that_builds_their_network(tmp_path):
    small = ["backbone.width=4", "backbone.enc_blocks=[1]", "backbone.dec_blocks=[1]"]
    adapter = 'adapters=[{kind = "film", at = ["middle"], reads = "code"}]'
    made = recipe.load("relume-s", [*small, adapter])
    network, path = made.build_model(), tmp_path / "w.safetensors"
    network.load_state_dict(weights.to_half(network.state_dict()))
    weights.save(path, network.state_dict(), recipe=made.resolved())
    again = restorer_of(weights.load(path)).state_dict()
    assert all(torch.equal(v, again[k]) for k, v in network.state_dict().items())


def test_a_recipe_that_builds_nothing_is_a_refused_weight_file(tmp_path):
    weights.save(tmp_path / "w.safetensors", {"a": torch.ones(1)}, recipe={"name": "x"})
    with pytest.raises(ModelError, match="builds no network"):
        restorer_of(weights.load(tmp_path / "w.safetensors"))
