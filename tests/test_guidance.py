"""Guidance follows the picture: the same laws for every kind of Guide."""

import numpy as np
import pytest

from relume.errors import GuidanceError, ShapeError
from relume.guidance import KINDS, SPATIAL, Guidance, Guide, area_resize, stack

H, W = 24, 32  # of the picture


def guide(kind: str, stride: int = 1, n: int = 1, seed: int = 0, **more) -> Guide:
    rng = np.random.default_rng(seed)
    h, w = H // stride, W // stride
    array = {
        "maps": lambda: rng.random((n, 2, h, w), np.float32),
        "regions": lambda: rng.integers(0, 9, (n, h, w), np.int32),
        "layers": lambda: rng.random((n, 3, h, w)) < 0.5,
        "tokens": lambda: rng.random((n, 5, 4), np.float32),
        "vector": lambda: rng.random((n, 6), np.float32),
    }[kind]()
    return Guide(**{kind: array}, stride=stride, **more)


def same(a: Guide, b: Guide) -> bool:
    return (
        a.kind == b.kind
        and a.stride == b.stride
        and a.array.dtype == b.array.dtype
        and np.array_equal(a.array, b.array)
    )


every_kind = pytest.mark.parametrize("kind", KINDS)
every_spatial = pytest.mark.parametrize("kind", SPATIAL)
strides = pytest.mark.parametrize("stride", [1, 2, 8])


@every_kind
def test_four_quarter_turns_and_two_flips_are_nothing(kind):
    g = guide(kind, 2)
    assert same(g.rot90().rot90().rot90().rot90(), g)
    assert same(g.rot90(3), g.rot90(-1))
    assert same(g.flip().flip(), g)
    assert same(g.flip().rot90().flip().rot90(), g)


@every_spatial
def test_a_guide_turns_as_numpy_turns_the_picture(kind):
    g = guide(kind)
    assert np.array_equal(g.rot90().array, np.rot90(g.array, axes=(-2, -1)))
    assert np.array_equal(g.flip().array, g.array[..., ::-1])


@every_spatial
@strides
def test_a_crop_of_a_crop_is_a_crop(kind, stride):
    g = guide(kind, stride)
    twice = g.crop(8, 8, 16, 24).crop(8, 0, 8, 16)
    assert same(twice, g.crop(16, 8, 8, 16))
    assert twice.array.shape[-2:] == (8 // stride, 16 // stride)


@every_spatial
@strides
def test_cropping_and_flipping_commute(kind, stride):
    g = guide(kind, stride)
    top, left, height, width = 8, 0, 16, 24
    assert same(
        g.crop(top, left, height, width).flip(),
        g.flip().crop(top, W - left - width, height, width),
    )


@every_spatial
@strides
def test_cropping_undoes_padding(kind, stride):
    g = guide(kind, stride)
    padded = g.pad(8, 16, 0, 8)
    assert padded.array.shape[-2:] == ((H + 8) // stride, (W + 24) // stride)
    assert same(padded.crop(8, 16, H, W), g)


def test_padding_is_label_0_no_layer_and_the_edge_of_a_map():
    assert not guide("regions").pad(8, 0, 0, 0).array[:, :8].any()
    assert not guide("layers").pad(8, 0, 0, 0).array[:, :, :8].any()
    maps = guide("maps").pad(8, 0, 0, 0).array
    assert np.array_equal(maps[:, :, :8], np.repeat(maps[:, :, 8:9], 8, axis=2))


@every_spatial
def test_resizing_to_its_own_size_is_nothing(kind):
    assert same(guide(kind).resize(H, W), guide(kind))


@every_spatial
def test_doubling_repeats_and_halving_takes_it_back(kind):
    g = guide(kind)
    doubled = g.resize(2 * H, 2 * W)
    np.testing.assert_allclose(doubled.array[..., ::2, 1::2], g.array, rtol=1e-6)
    np.testing.assert_allclose(doubled.resize(H, W).array, g.array, rtol=1e-6)


def test_a_resized_map_keeps_its_mean_and_labels_stay_labels():
    maps = guide("maps")
    assert maps.resize(7, 5).array.mean() == pytest.approx(maps.array.mean(), abs=1e-6)
    labels = guide("regions")
    assert set(np.unique(labels.resize(7, 45).array)) <= set(np.unique(labels.array))
    assert labels.resize(7, 45).array.dtype == np.int32


def test_area_resize_is_the_mean_under_each_sample():
    x = np.arange(12, dtype=np.float32).reshape(1, 12)
    assert area_resize(x, 1, 4).tolist() == [[1, 4, 7, 10]]
    assert area_resize(x[:, :3], 1, 2)[0] == pytest.approx([1 / 3, 5 / 3])


@pytest.mark.parametrize("kind", ["tokens", "vector"])
def test_what_has_no_place_stays_where_it_is(kind):
    g = guide(kind)
    assert g.crop(3, 5, 7, 9) is g
    assert g.pad(1, 1, 1, 1) is g
    assert g.resize(3, 3) is g
    assert g.rot90() is g


def test_a_thumbnail_turns_with_the_picture_but_is_never_cropped():
    g = guide("maps", whole=True)
    assert g.crop(3, 5, 7, 9) is g
    assert g.pad(1, 1, 1, 1) is g
    assert g.resize(3, 3) is g
    assert np.array_equal(g.rot90().array, np.rot90(g.array, axes=(-2, -1)))


@every_kind
def test_null_is_zero_whatever_was_said(kind):
    g = guide(kind, n=2)
    if g.array.dtype.kind == "f":
        g.array[...] = np.inf  # 0 * inf is not 0
    null = g.null()
    assert not null.array.any()
    assert null.array.dtype == g.array.dtype
    expected = (2, 1, 4) if kind == "tokens" else g.array.shape
    assert null.array.shape == expected


def test_no_tokens_at_all_are_still_one_null_row():
    assert Guide(tokens=np.zeros((2, 0, 4), np.float32)).null().array.shape == (2, 1, 4)


@every_kind
def test_a_batch_holds_every_picture_in_order(kind):
    guides = [guide(kind, 2, seed=s) for s in range(3)]
    joined = stack([Guidance({"a": g}) for g in guides])["a"]
    assert joined.batch == 3
    assert joined.stride == 2
    for i, g in enumerate(guides):
        assert np.array_equal(joined.array[i : i + 1], g.array)


@pytest.mark.parametrize(("kind", "axis"), [("tokens", 1), ("layers", 1)])
def test_a_batch_pads_to_the_longest(kind, axis):
    long = guide(kind)
    short = long.map(lambda a: a[:, :1])
    joined = stack([Guidance(a=short), Guidance(a=long)])["a"]
    assert joined.array.shape == (2, *long.array.shape[1:])
    assert np.array_equal(joined.array[:1, :1], short.array)
    assert not joined.array[0, 1:].any()
    assert joined.array.dtype == long.array.dtype


def test_a_batch_of_what_does_not_belong_together_is_an_error():
    with pytest.raises(GuidanceError, match="same priors"):
        stack([Guidance(a=guide("maps")), Guidance(b=guide("maps"))])
    with pytest.raises(GuidanceError, match="stride"):
        stack([Guidance(a=guide("maps", 1)), Guidance(a=guide("maps", 2))])
    with pytest.raises(GuidanceError, match="at least one"):
        stack([])


@every_spatial
def test_what_does_not_lie_on_the_grid_is_an_error(kind):
    g = guide(kind, 8)
    with pytest.raises(GuidanceError, match="stride 8"):
        g.crop(4, 0, 8, 8)
    with pytest.raises(GuidanceError, match="stride 8"):
        g.pad(0, 0, 3, 0)


@every_spatial
@pytest.mark.parametrize("box", [(-8, 0, 8, 8), (16, 0, 16, 8), (0, 24, 8, 16)])
def test_a_crop_beyond_the_picture_is_an_error(kind, box):
    with pytest.raises(GuidanceError, match="beyond"):
        guide(kind, 8).crop(*box)


def test_a_guide_is_exactly_one_kind_with_fitting_names():
    maps = np.zeros((1, 2, 3, 3), np.float32)
    with pytest.raises(GuidanceError, match="exactly one"):
        Guide()
    with pytest.raises(GuidanceError, match="exactly one"):
        Guide(maps=maps, vector=np.zeros((1, 3)))
    with pytest.raises(GuidanceError, match="names"):
        Guide(maps=maps, names=("rain",))
    with pytest.raises(GuidanceError, match="units"):
        Guide(maps=maps, names=("rain", "haze"), units=("",))
    with pytest.raises(ShapeError, match="4 dimensions"):
        Guide(maps=maps[0])
    with pytest.raises(ShapeError, match="int"):
        Guide(regions=np.zeros((1, 3, 3), np.float32))
    with pytest.raises(ShapeError, match="bool"):
        Guide(layers=np.zeros((1, 2, 3, 3), np.float32))


def test_guidance_acts_on_all_its_guides_in_picture_pixels():
    g = Guidance({k: guide(k, 2) for k in KINDS})
    for changed in (g.crop(8, 8, 8, 16), g.flip(), g.rot90(), g.pad(0, 0, 2, 2), g.null()):
        assert set(changed) == set(KINDS)
    assert g.crop(8, 8, 8, 16)["layers"].array.shape[-2:] == (4, 8)
    assert g.resize(48, 96)["maps"].array.shape[-2:] == (24, 48)
    assert g["maps"].array.shape[-2:] == (12, 16)  # nothing above changed it


def test_unknown_guidance_names_the_nearest():
    g = Guidance({"damage.rain": guide("maps")})
    with pytest.raises(GuidanceError, match=r"Did you mean 'damage\.rain'"):
        g["damage.rains"]
    assert "damage.rains" not in g
    assert g.get("damage.rain") is g["damage.rain"]


def test_tensors_keep_their_type_as_null():
    torch = pytest.importorskip("torch")
    null = Guide(layers=torch.ones(1, 2, 3, 3, dtype=torch.bool)).null()
    assert null.array.dtype == torch.bool
    assert not null.array.any()
