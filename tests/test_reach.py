"""How far networks look, and what their tiles must share so that no seam shows."""

import numpy as np
import pytest
import torch
from tiny import Tiny, thumbnail
from torch import nn

from relume.errors import CheckError, UsageError
from relume.guidance import Guidance
from relume.lab.reach import measure_overlap, measure_reach, seam_ratio
from relume.lab.restorer import as_tensors
from relume.tiling import plan


def test_the_structural_reach_is_what_gradients_see():
    assert measure_reach(Tiny()) == Tiny.reach


def test_a_network_that_looks_further_than_it_says_is_noticed():
    network = Tiny()
    network.reach = 2
    with pytest.raises(CheckError, match="further than"):
        measure_reach(network)


def test_overlap_is_the_smallest_that_holds(photo):
    said = []
    pictures = [(photo, thumbnail())]
    overlap = measure_overlap(Tiny().eval(), pictures, tile=48, announce=said.append)
    assert overlap % 8 == 0 and 0 < overlap <= -(-Tiny.reach // 8) * 8
    assert len(said) == overlap // 8 + 1
    network = Tiny().eval()

    def run(rgb, guidance):
        with torch.no_grad():
            return network(torch.from_numpy(rgb), as_tensors(guidance)).numpy()

    whole = np.clip(run(photo, thumbnail()), 0, 1)
    for tried, holds in ((overlap, True), (overlap - 8, False)):
        tiles = plan(96, 128, multiple_of=4, overlap=tried, tile=48 + 2 * tried)
        seam = np.abs(np.clip(tiles.run(photo, thumbnail(), run), 0, 1) - whole).max()
        assert (seam <= 0.5 / 255) == holds


class Levelled(nn.Module):
    """Takes off a share of the mean of what it sees: each tile comes out at a level of its own."""

    scale, multiple_of, support, reach, reads = 1, 4, "global", None, ()

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor(share))

    def forward(self, lq, guidance):
        return lq + self.share * (0.5 - lq.mean((1, 2, 3), keepdim=True))


def test_the_tiles_of_a_global_network_share_what_hides_their_seams(photo):
    said, network = [], Levelled(0.5)
    pictures = [(photo, Guidance()), (photo[..., ::-1].copy(), Guidance())]
    overlap = measure_overlap(network, pictures, tile=32, announce=said.append)
    assert overlap % 8 == 0 and 0 < overlap < 64
    assert len(said) == overlap // 8 + 1

    def ratio(rgb, tried):
        tiles = plan(96, 128, multiple_of=4, overlap=tried, tile=32 + 2 * tried)
        out = tiles.run(rgb, Guidance(), lambda t, g: network(torch.from_numpy(t), g).numpy())
        whole = network(torch.from_numpy(rgb), Guidance()).numpy()
        return seam_ratio(np.clip(out, 0, 1), tiles) / seam_ratio(np.clip(whole, 0, 1), tiles)

    with torch.no_grad():
        for tried, holds in ((overlap, True), (overlap - 8, False)):
            assert (np.mean([ratio(rgb, tried) for rgb, _ in pictures]) <= 1.02) == holds


def test_a_global_network_whose_seams_never_vanish_is_refused():
    ramp = np.linspace(0, 1, 256, dtype=np.float32)
    smooth = np.broadcast_to(ramp, (1, 3, 192, 256)).copy()
    with pytest.raises(CheckError, match="whole picture, and with 64 shared pixels"):
        measure_overlap(Levelled(-3.0), [(smooth, Guidance())], tile=32)


def test_pictures_without_a_seam_measure_nothing(photo):
    with pytest.raises(UsageError, match="No picture is larger than a tile of 128 pixels"):
        measure_overlap(Tiny().eval(), [(photo, thumbnail())])


def test_a_flat_picture_has_no_steps_to_compare():
    flat = np.full((1, 3, 192, 256), 0.5, np.float32)
    assert measure_overlap(Levelled(0.5), [(flat, Guidance())], tile=32) == 0


def test_the_ratio_counts_the_steps_at_seams():
    tiles = plan(64, 64, multiple_of=4, overlap=0, tile=32)
    flat = np.random.default_rng(0).normal(0, 0.01, (1, 3, 64, 64)).astype(np.float32)
    assert 0.8 < seam_ratio(flat, tiles) < 1.25
    flat[..., 32:] += 0.1
    assert seam_ratio(flat, tiles) > 10
