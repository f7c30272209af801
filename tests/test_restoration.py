"""Restoration: what happens around the model, shown with engines that need none."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from relume.card import Card, Reads
from relume.errors import CheckError, ShapeError, UsageError
from relume.guidance import Guidance
from relume.image import Picture, enlarge
from relume.restoration import as_map, as_picture, priors_of, restore, view_of


@dataclass
class Spy:
    """An engine that inverts, and writes down what it was shown."""

    card: Card = Card("spy")  # noqa: RUF009
    name: str = "spy"
    device: str = "cpu"
    precision: str = "float32"
    notes: list[str] = field(default_factory=list)
    views: list[np.ndarray] = field(default_factory=list)
    tiles: list[tuple[np.ndarray, Guidance]] = field(default_factory=list)

    def prepare(self, view, guidance):
        self.views.append(view)
        return guidance

    def __call__(self, tile, guidance):
        self.tiles.append((tile, guidance))
        s = self.card.scale
        return 1 - tile.repeat(s, 2).repeat(s, 3)


THUMBNAIL = Reads("thumbnail", "maps", 3, (3, 96, 96), whole=True)


def noise(dtype, channels=3, size=(33, 47)) -> Picture:
    peak = np.iinfo(dtype).max
    drawn = np.random.default_rng(0).integers(
        0, peak, (*size, channels), endpoint=True, dtype=dtype
    )
    return Picture(pixels=drawn)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_identity_returns_every_sample_in_its_depth(dtype, channels):
    picture = noise(dtype, channels)
    result = restore(picture, "identity").picture
    assert result.pixels.dtype == dtype
    assert np.array_equal(result.pixels, picture.pixels)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (257, 3)])
def test_any_size_is_restored(size):
    picture = noise(np.uint8, size=size)
    assert np.array_equal(restore(picture, "invert").picture.pixels, 255 - picture.pixels)


def test_strength_zero_is_the_input_and_says_so():
    picture, engine = noise(np.uint8), Spy()
    result = restore(picture, engine, strength=0)
    assert result.unchanged
    assert result.picture is picture
    assert not engine.tiles


def test_distance_to_the_input_rises_with_strength(photo):
    out = [restore(photo, "invert", strength=s).picture.rgb() for s in (0.25, 0.5, 0.75, 1)]
    distance = [float(np.abs(o - photo).mean()) for o in out]
    assert distance == sorted(distance)
    assert np.allclose(out[1], 0.5, atol=1 / 255)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_where_the_map_is_zero_the_input_stands_exactly(dtype):
    picture = noise(dtype)
    weight = np.zeros((33, 47), np.float32)
    weight[:, 20:] = np.linspace(0.1, 1, 27)
    out = restore(picture, "invert", map=weight).picture.pixels
    assert np.array_equal(out[:, :20], picture.pixels[:, :20])
    assert np.array_equal(out[:, -1], np.iinfo(dtype).max - picture.pixels[:, -1])


def test_a_map_of_zeros_asks_for_nothing():
    picture = noise(np.uint8)
    assert restore(picture, "invert", map=np.zeros((4, 4))).unchanged


def test_a_map_of_another_size_is_fitted():
    half = Picture(pixels=np.array([[[0], [255]]], np.uint8))
    weight = as_map(half, (10, 20))
    assert weight.shape == (10, 20)
    assert weight[:, 0].max() == 0
    assert weight[:, -1].min() == 1


@pytest.mark.parametrize(
    "bad", [np.full((3, 3), 2.0), np.zeros((3, 3, 3)), np.full((2, 2), np.nan)]
)
def test_a_map_that_is_none_is_refused(bad):
    with pytest.raises(ShapeError, match="A map is"):
        as_map(bad, (3, 3))


def test_priors_look_once_at_the_whole_picture(photo):
    engine = Spy(Card("spy", reads=(THUMBNAIL,), view_side=32))
    restore(photo, engine, tile=64)
    assert len(engine.views) == 1
    assert engine.views[0].shape == (1, 3, 24, 32)
    assert len(engine.tiles) > 1
    seen = [guidance["thumbnail"] for _, guidance in engine.tiles]
    assert all(np.array_equal(guide.array, seen[0].array) for guide in seen)
    assert np.allclose(seen[0].array.mean((2, 3)), photo.mean((2, 3)), atol=1e-3)


def test_prior_none_tells_the_model_nothing(photo):
    engine = Spy(Card("spy", reads=(THUMBNAIL,)))
    result = restore(photo, engine, prior="none")
    assert result.prior == "none"
    assert len(engine.tiles[0][1]) == 0
    assert restore(photo, engine).prior == "thumbnail"


def test_a_prior_that_the_model_does_not_read_is_a_wrong_flag():
    with pytest.raises(UsageError, match="does not read the prior 'regions'"):
        priors_of(Card("spy", reads=(THUMBNAIL,)), "regions")


def test_a_prior_nobody_can_make_is_named():
    with pytest.raises(UsageError, match="Upgrade"):
        priors_of(Card("spy", reads=(Reads("aura", "vector", 4, (4,)),)), "auto")


def test_for_a_larger_output_the_enlargement_stands_for_the_input(photo):
    engine = Spy(Card("spy", scale=2))
    whole = restore(photo, engine)
    assert whole.picture.pixels.shape == (192, 256, 3)
    same = restore(photo, engine, strength=0)
    assert not same.unchanged  # the file has another size: its bytes cannot be copied
    wanted = np.clip(enlarge(as_picture(photo).rgb(), 2), 0, 1)
    assert np.abs(same.picture.rgb() - wanted).max() <= 0.5 / 255 + 1e-6
    left = np.zeros((96, 128), np.float32)
    left[:, :64] = 1
    mixed = restore(photo, engine, map=left).picture.rgb()
    assert np.array_equal(mixed[..., -32:], same.picture.rgb()[..., -32:])


def test_what_is_not_finite_is_never_returned(photo):
    class Broken(Spy):
        def __call__(self, tile, guidance):
            return tile * np.float32(np.nan)

    with pytest.raises(CheckError, match="not finite"):
        restore(photo, Broken())


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_strength_out_of_range_is_refused(photo, strength):
    with pytest.raises(UsageError, match=r"0\.\.1"):
        restore(photo, "identity", strength=strength)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((1, 3, 8, 8), np.float32),
        np.zeros((8, 8, 3)),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 1), np.uint16),
    ],
)
def test_arrays_of_every_promised_form_are_pictures(array):
    assert as_picture(array).pixels.shape[:2] == (8, 8)


@pytest.mark.parametrize("array", [np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.int64)])
def test_other_arrays_are_refused_in_words(array):
    with pytest.raises(ShapeError, match="A picture is"):
        as_picture(array)


def test_a_view_keeps_the_shape_of_the_picture(photo):
    assert view_of(photo, 0) is photo
    assert view_of(photo, 64).shape == (1, 3, 48, 64)
    assert view_of(photo, 1000) is photo


def test_what_alpha_hides_stays_hidden_and_touches_nothing():
    """Of two pictures that differ only under alpha 0 a network sees the same."""
    shown = noise(np.uint8, size=(40, 48)).pixels
    alpha = np.full((40, 48), 255, np.uint8)
    alpha[10:30, 12:36] = 0
    seen = []
    for colour in (0, 255):
        pixels = shown.copy()
        pixels[alpha == 0] = colour
        spy = Spy(Card("spy", reach=4))
        result = restore(Picture(pixels=pixels, format="png", alpha=alpha), spy).picture
        assert (result.pixels[alpha == 0] == colour).all()
        np.testing.assert_array_equal(result.pixels[alpha > 0], 255 - shown[alpha > 0])
        seen.append(spy.tiles[0][0])
    np.testing.assert_array_equal(*seen)
