import itertools

import numpy as np
import pytest

from relume.errors import GuidanceError, PictureError, ShapeError, UsageError
from relume.guidance import Guidance, Guide
from relume.tiling import plan

NOTHING = Guidance()


def same(tile, guidance):
    return tile


def local(tile, guidance):
    """Reach 9, stride 4: means over 4 x 4 cells, a 3 x 3 box over cells with zeros around, spread
    back, and a one-pixel shift at full size."""
    n, c, h, w = tile.shape
    cells = tile.reshape(n, c, h // 4, 4, w // 4, 4).mean((3, 5))
    padded = np.pad(cells, ((0, 0), (0, 0), (1, 1), (1, 1)))
    shape = cells.shape[2:]
    box = sum(padded[..., i : i + shape[0], j : j + shape[1]] for i in range(3) for j in range(3))
    spread = box.repeat(4, 2).repeat(4, 3)
    shifted = np.pad(tile, ((0, 0), (0, 0), (1, 1), (1, 1)))[..., :-2, 2:]
    return (tile + 0.3 * spread + 0.5 * shifted).astype(np.float32)


def noise(height, width):
    return np.random.default_rng(height * 1000 + width).random((1, 3, height, width), np.float32)


@pytest.mark.parametrize("multiple_of", [1, 4, 16])
@pytest.mark.parametrize("overlap", [0, 5, 16])
@pytest.mark.parametrize("size", [(1, 1), (7, 300), (129, 64), (612, 816), (4000, 6000)])
def test_a_plan_covers_the_picture_with_one_shape_on_the_grid(size, overlap, multiple_of):
    tiles = plan(*size, multiple_of=multiple_of, overlap=overlap, tile=128)
    assert not any(v % multiple_of for v in (*tiles.tops, *tiles.lefts, *tiles.tile))
    assert tiles.tile[0] * tiles.tile[1] <= 128 * 128
    for starts, side, length in zip((tiles.tops, tiles.lefts), tiles.tile, size, strict=True):
        assert starts[0] == 0
        assert length <= starts[-1] + side < length + multiple_of
        for a, b in itertools.pairwise(starts):
            assert 2 * overlap <= a + side - b < side


def test_half_a_megapixel_costs_a_seventh_more_than_its_pixels():
    tiles = plan(612, 816, multiple_of=16, overlap=16)
    assert (len(tiles), tiles.tile) == (3, (624, 304))
    assert tiles.pixels / (612 * 816) < 1.15


def test_a_plan_depends_on_sizes_alone():
    assert plan(700, 900, overlap=8) == plan(700, 900, overlap=8)


def test_a_picture_no_larger_than_a_tile_is_one_tile():
    assert len(plan(384, 384, multiple_of=16, overlap=64)) == 1


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 97), (50, 3), (33, 65), (100, 140)])
def test_tiles_put_together_are_the_picture(size, scale):
    rgb = noise(*size)
    tiles = plan(*size, scale=scale, multiple_of=8, overlap=4, tile=32)
    out = tiles.run(rgb, NOTHING, lambda t, g: t.repeat(scale, 2).repeat(scale, 3))
    np.testing.assert_allclose(out, rgb.repeat(scale, 2).repeat(scale, 3), atol=1e-6)


@pytest.mark.parametrize("size", [(64, 64), (61, 150), (203, 97), (5, 1333), (1, 1)])
@pytest.mark.parametrize("overlap", [9, 12, 20])
def test_a_local_network_in_tiles_equals_the_whole(size, overlap):
    rgb = noise(*size)
    tiles = plan(*size, multiple_of=4, overlap=overlap, tile=64)
    whole = plan(*size, multiple_of=4, overlap=overlap, tile=4096)
    assert len(whole) == 1
    assert len(tiles) > 1 or size in ((64, 64), (1, 1))
    difference = tiles.run(rgb, NOTHING, local) - whole.run(rgb, NOTHING, local)
    assert np.abs(difference).max() < 1e-5


def test_too_small_an_overlap_shows():
    rgb = noise(150, 150)
    tiles = plan(150, 150, multiple_of=4, overlap=1, tile=64)
    whole = plan(150, 150, multiple_of=4, tile=4096)
    difference = tiles.run(rgb, NOTHING, local) - whole.run(rgb, NOTHING, local)
    assert np.abs(difference).max() > 1e-2


def test_between_two_tiles_the_blend_is_gradual():
    tiles = plan(64, 300, multiple_of=4, overlap=8, tile=100)
    left = {start: float(i) for i, start in enumerate(tiles.lefts)}
    seen = iter(tiles)
    out = tiles.run(noise(64, 300), NOTHING, lambda t, g: np.full_like(t, left[next(seen)[1]]))
    steps = np.diff(out[0, 0, 0])
    assert (steps >= -1e-6).all()
    assert steps.max() <= 1 / 8 + 1e-6


def test_guidance_is_cropped_with_the_picture():
    rgb = noise(90, 70)
    guidance = Guidance(
        full=Guide(maps=rgb[:, :1]),
        labels=Guide(regions=np.arange(90 * 70, dtype=np.int32).reshape(1, 90, 70)),
        coarse=Guide(maps=np.zeros((1, 2, 23, 18), np.float32), stride=4),
        small=Guide(maps=np.ones((1, 3, 8, 8), np.float32), whole=True),
        code=Guide(vector=np.ones((1, 5), np.float32)),
    )

    def compare(tile, g):
        np.testing.assert_array_equal(tile[:, :1], g["full"].maps)
        assert g["labels"].regions.shape[1:] == tile.shape[2:]
        assert [4 * n for n in g["coarse"].maps.shape[2:]] == list(tile.shape[2:])
        assert g["small"].maps.shape == (1, 3, 8, 8)
        assert g["code"].vector.shape == (1, 5)
        return tile

    plan(90, 70, multiple_of=4, overlap=4, tile=32).run(rgb, guidance, compare)


def test_a_guide_of_another_picture_is_refused():
    tiles = plan(90, 70, multiple_of=4)
    with pytest.raises(GuidanceError, match="shows 50 x 70 pixels"):
        tiles.run(noise(90, 70), Guidance(m=Guide(maps=np.zeros((1, 1, 50, 70)))), same)
    with pytest.raises(GuidanceError, match="stride 3"):
        tiles.run(noise(90, 70), Guidance(m=Guide(maps=np.zeros((1, 1, 30, 24)), stride=3)), same)


def test_running_out_of_memory_makes_tiles_smaller_and_says_so():
    def hungry(tile, guidance):
        if tile.shape[2] * tile.shape[3] > 10_000:
            raise MemoryError
        return local(tile, guidance)

    rgb, said = noise(300, 200), []
    tiles = plan(300, 200, multiple_of=4, overlap=12)
    out = tiles.run(rgb, NOTHING, hungry, announce=said.append)
    assert said and all("memory ran out; tiles of" in line for line in said)
    np.testing.assert_allclose(out, tiles.run(rgb, NOTHING, local), atol=1e-5)
    with pytest.raises(MemoryError):
        tiles.run(rgb, NOTHING, hungry)


def test_a_picture_that_never_fits_is_refused():
    def never(tile, guidance):
        raise MemoryError

    with pytest.raises(PictureError, match="not the memory"):
        plan(300, 200, multiple_of=4, overlap=12).run(noise(300, 200), NOTHING, never, announce=len)


def test_wrong_sizes_are_errors():
    with pytest.raises(UsageError, match="tile must be a whole number"):
        plan(10, 10, tile=0)
    with pytest.raises(UsageError, match="height"):
        plan(0, 10)
    with pytest.raises(ShapeError, match="came back"):
        plan(8, 8, scale=2).run(noise(8, 8), NOTHING, same)
    with pytest.raises(ShapeError, match="plan is for"):
        plan(8, 8).run(noise(8, 9), NOTHING, same)


def test_progress_counts_tiles():
    told = []
    tiles = plan(100, 100, overlap=4, tile=64)
    tiles.run(noise(100, 100), NOTHING, same, progress=lambda *a: told.append(a))
    assert told == [(i + 1, len(tiles)) for i in range(len(tiles))]
