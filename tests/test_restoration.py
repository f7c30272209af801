"""Restoration: what happens around the model, shown with engines that need none."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from relume.card import Card, Reads
from relume.engine import Engine, Invert
from relume.errors import CheckError, MissingError, PictureError, ShapeError, UsageError
from relume.guidance import Guidance, Guide
from relume.image import Picture, enlarge, write
from relume.priors.choice import priors_of, region_places, settings_of, stand_ins
from relume.priors.damage import DamagePrior
from relume.priors.own import OwnMasks, Told
from relume.priors.sam import SamPrior
from relume.restoration import as_map, as_picture, as_regions, restore, view_of


@dataclass
class Spy:
    """An engine that inverts, and writes down what it was shown."""

    card: Card = Card("spy")  # noqa: RUF009
    name: str = "spy"
    device: str = "cpu"
    precision: str = "float32"
    first: Engine | None = None
    masks: Callable[[], Engine] | None = None
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
REGIONS = Reads("regions", "regions", 1, (0, 0))
SAM = Reads("sam", "regions", 1, (0, 0))
SIGMA = Reads("noise.sigma", "vector", 1, (1,))


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


# Regions: whose, and in which place.


def test_sam_looks_where_the_model_reads_regions():
    both = priors_of(Card("spy", reads=(THUMBNAIL, REGIONS)), "auto", sam="folder")
    assert list(both) == ["thumbnail", "regions"]
    assert isinstance(both["regions"], SamPrior)
    alone = priors_of(Card("spy", reads=(THUMBNAIL, REGIONS)), "sam", sam="folder")
    assert list(alone) == ["regions"]
    own = priors_of(Card("spy", reads=(REGIONS, SAM)), "auto", sam="folder")
    assert [isinstance(prior, SamPrior) for prior in own.values()] == [False, True]
    layers = Card("spy", reads=(Reads("sam", "layers", 8, (8, 0, 0)),))
    assert priors_of(layers, "sam", sam="folder")["sam"].spec == "layers"


def test_a_model_that_reads_sam_misses_its_weights_when_it_is_asked(photo):
    card = Card("spy", reads=(SAM,))
    asked = priors_of(card, "auto")
    for ask in (lambda: restore(photo, Spy(card)), lambda: settings_of(asked)):
        with pytest.raises(MissingError, match="--sam FOLDER or HUB_ID") as error:
            ask()
        assert error.value.exit_code == 5
    assert restore(photo, Spy(card), prior="none").prior == "none"
    told = restore(photo, Spy(card), regions=np.ones((96, 128), np.uint8))
    assert told.prior == "own"  # SAM is not asked


def test_own_regions_take_the_place_of_the_region_prior_alone(photo):
    engine = Spy(Card("spy", reads=(THUMBNAIL, REGIONS)))
    labels = np.zeros((96, 128), np.int64)
    labels[:, 50:] = 7  # counted without gaps
    result = restore(photo, engine, regions=labels, tile=4096)
    assert result.prior == "thumbnail+own"
    assert len(result.announced) == 1
    guidance = engine.tiles[0][1]
    assert np.array_equal(guidance["regions"].array[0], labels // 7)
    assert guidance["thumbnail"].kind == "maps"


def test_labels_of_another_size_are_resized_and_that_is_said(photo):
    engine = Spy(Card("spy", reads=(REGIONS,)))
    result = restore(photo, engine, regions=np.array([[1, 2]]), tile=4096)
    assert [line.split(" ")[0] for line in result.announced] == ["the", "your"]
    assert "was resized to the picture's 128 x 96" in result.announced[0]
    labels = engine.tiles[0][1]["regions"].array[0]
    assert (labels[:, :64] == 1).all()
    assert (labels[:, 64:] == 2).all()


@pytest.mark.parametrize(
    "bad",
    [
        np.ones((4, 4)),
        np.full((4, 4), -1),
        np.ones((1, 4, 4), int),
        np.zeros((0, 4), int),
        Guide(regions=np.ones((1, 4, 5), np.int32)),
        Guide(maps=np.ones((1, 1, 4, 4), np.float32)),
    ],
    ids=lambda bad: type(bad).__name__,
)
def test_what_is_no_label_map_is_refused_in_words(bad):
    with pytest.raises(ShapeError, match="got"):
        as_regions(bad, (4, 4))


def test_masks_are_found_by_the_pictures_name(tmp_path, photo):
    (tmp_path / "masks").mkdir()
    write(Picture(pixels=np.array([[[1], [2]]], np.uint8)), tmp_path / "masks/a.png")
    write(Picture(pixels=np.array([[[1], [2], [3]]], np.uint8)), tmp_path / "masks/b.png")
    guide, _ = as_regions(tmp_path / "masks", (1, 3), tmp_path / "b.jpg")
    assert guide.array.tolist() == [[[1, 2, 3]]]
    with pytest.raises(UsageError, match="no masks"):
        as_regions(tmp_path / "nowhere", (1, 3))
    (tmp_path / "words.png").write_text("no picture")
    with pytest.raises(PictureError):
        as_regions(tmp_path / "words.png", (1, 3))


def test_priors_of_ones_own_are_asked_by_name(photo):
    class Halves:
        spec, max_side, identity = "regions", 1, {"prior": "halves"}

        def __call__(self, rgb):
            labels = np.ones((1, *rgb.shape[2:]), np.int32)
            labels[..., rgb.shape[3] // 2 :] = 2
            return Guide(regions=labels)

    engine = Spy(Card("spy", reads=(THUMBNAIL, REGIONS)))
    result = restore(photo, engine, prior={"regions": Halves()})
    assert result.prior == "halves"
    assert "halves stands in the place of regions" in result.announced[0]
    assert set(engine.tiles[0][1]) == {"regions"}
    with pytest.raises(UsageError, match="does not read the prior 'halves'"):
        restore(photo, engine, prior={"halves": Halves()})


def test_who_only_says_what_was_given_needs_no_model_before_it(photo):
    card = Card("spy", reads=(REGIONS,))
    spy = Spy(card, first=Invert())
    seen = []

    class Looks:
        spec, max_side, identity = "regions", 0, {"prior": "regions"}  # at the picture as it is

        def __call__(self, rgb):
            seen.append(rgb)
            return Guide(regions=np.ones((1, *rgb.shape[2:]), np.int32))

    restore(photo, spy, prior={"regions": Looks()})
    rgb = as_picture(photo).rgb()
    assert np.abs(seen[0] - (1 - rgb)).max() < 1e-6  # it looks at what the first model made
    spy.first = Spy()
    assert restore(photo, spy, regions=np.ones((96, 128), int)).prior == "own"
    assert not spy.first.tiles


def test_settings_name_all_that_decides(tmp_path):
    card = Card("spy", reads=(THUMBNAIL, REGIONS))
    asked = priors_of(card, "auto")
    (tmp_path / "masks/a").mkdir(parents=True)
    (tmp_path / "masks/a/1.png").write_bytes(b"one")
    own = OwnMasks(tmp_path / "masks")

    def told():
        return settings_of(asked, own, region_places(card, asked))

    first = told()
    assert first["prior"] == "thumbnail+own"
    assert first["priors"]["thumbnail"] == asked["thumbnail"].identity
    assert settings_of(asked)["priors"]["regions"] == asked["regions"].identity
    assert told() == first
    (tmp_path / "masks/a").rename(tmp_path / "masks/b")  # the same bytes, of another picture
    moved = told()
    (tmp_path / "masks/b/1.png").write_bytes(b"two")
    assert len({str(said) for said in (first, moved, told())}) == 3


def test_nothing_is_announced_where_nothing_stands_in():
    card = Card("spy", reads=(THUMBNAIL, REGIONS))
    assert stand_ins(card, priors_of(card, "auto")) == []
    recipe = {"priors": {"regions": {"kind": "sam"}, "thumbnail": "no row"}}
    line = "regions stands in the place of sam, which spy was trained with"
    assert stand_ins(replace(card, recipe=recipe), priors_of(card, "auto")) == [line]
    assert stand_ins(replace(card, recipe={"priors": 1}), priors_of(card, "auto")) == []


def test_another_mask_network_than_the_trained_one_is_announced():
    card = Card("told", reads=(Reads("damage", "maps", 1, (1, 0, 0)),), masks="1" * 64)
    trained = DamagePrior(Spy(Card("masks", emits=("noise",), digest="1" * 64)))
    other = DamagePrior(Spy(Card("other", emits=("noise",), digest="2" * 64)))
    assert stand_ins(card, {"damage": trained}) == []
    (line,) = stand_ins(card, {"damage": other})
    assert line == "other stands in the place of the mask network that told was trained with"
    assert stand_ins(replace(card, masks=None), {"damage": other}) == []  # nobody knows which


def test_a_model_that_must_be_told_the_noise_level_says_so(photo):
    card = Card("ffdnet", reads=(SIGMA,))
    with pytest.raises(UsageError, match="must be told the noise level") as error:
        restore(photo, Spy(card))
    words = str(error.value)
    assert "evaluate" in words
    assert "Upgrade" not in words
    assert "\n" not in words
    level = Guide(vector=np.full((1, 1), 0.1, np.float32))
    engine = Spy(card)
    restore(photo, engine, prior={"noise.sigma": Told(level)})
    assert engine.tiles[0][1]["noise.sigma"] is level


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


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_a_scan_without_colour_gets_no_cast(kind):
    class Warm(Spy):
        def __call__(self, tile, guidance):
            return tile * np.array([1.0, 0.97, 0.9], np.float32)[:, None, None]

    values = np.random.default_rng(0).random((20, 30, 1))
    gray = (values if kind is np.float32 else values * np.iinfo(kind).max).astype(kind)
    out = restore(Picture(gray.repeat(3, 2)), Warm()).picture.pixels
    assert (out == out[..., :1]).all()
    assert np.array_equal(out[..., :1], restore(Picture(gray), Warm()).picture.pixels)
    coloured = gray.repeat(3, 2)
    coloured[3, 4, 1] = 0
    out = restore(Picture(coloured), Warm()).picture.pixels
    assert (out != out[..., :1]).any()
