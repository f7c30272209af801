"""Training samples: functions of their number, damaged as asked, the same through a loader."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from relume.engine import open_engine
from relume.errors import RecipeError, UsageError
from relume.guidance import Guidance, Guide, area_resize
from relume.image import Picture, read, write
from relume.lab import recipe
from relume.lab.controls import CONTROLS, TOLD_THE_TRUTH
from relume.lab.data import Damage, Damaged, Paired
from relume.lab.degrade import parse
from relume.lab.folds import fold_of, left_out
from relume.lab.loader import Loader
from relume.lab.pairs import Kept, as_float, find_pairs, planes
from relume.lab.photographs import Photograph, beside, load_photographs, part_of
from relume.lab.sources import AfterModel, InTurn, LaidOut, Source
from relume.priors import PRIORS
from relume.priors.cache import Remembered
from relume.priors.partitions import VoronoiPrior
from relume.priors.regions import RegionsPrior
from relume.priors.thumbnail import SIDE, thumbnail

DAMAGE = {"noise:sigma=5..50": 1.0, "haze:beta=0.1..1": 1.0, "jpeg:quality=20..60": 1.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        y, x = np.mgrid[0:140, 0:180] / 180
        rgb = np.stack([x, y, 0.5 + 0.4 * np.sin(9 * x * rng.random())])
        rgb[:, 40:90, 50:120] = rng.random(3)[:, None, None]
        write(Picture.from_rgb(rgb[None].astype(np.float32)), path / f"{name}.png")
    return path


def source(name: str = "thumbnail", control: str = "none", dropout: float = 0.0) -> dict:
    return {name: Source(PRIORS[name](), control, dropout)}


def samples(folder: Path, **changes) -> Damaged:
    photographs = load_photographs(folder, sizes=2)
    known = {"seed": 7, "sources": source(), **changes}
    return Damaged(photographs, Damage(DAMAGE, (0.2, 0.5, 0.3)), **known)


def same(a, b) -> bool:
    thumbnails = (x.guidance["thumbnail"].maps for x in (a, b))
    return torch.equal(a.lq, b.lq) and torch.equal(a.gt, b.gt) and torch.equal(*thumbnails)


def test_a_sample_is_a_function_of_its_number(folder):
    one, two = samples(folder), samples(folder)
    two.batch(3, 5, 32)  # what ran before does not matter
    assert same(one.batch(10, 4, 48), two.batch(10, 4, 48))
    halves = [two.batch(10, 2, 48), two.batch(12, 2, 48)]
    assert torch.equal(one.batch(10, 4, 48).lq, torch.cat([h.lq for h in halves]))
    assert not torch.equal(one.batch(10, 4, 48).lq, samples(folder, seed=8).batch(10, 4, 48).lq)


def test_a_batch_is_what_a_file_would_hold(folder):
    batch = samples(folder).batch(0, 24, 32)
    for images in (batch.lq, batch.gt):
        assert images.shape == (24, 3, 32, 32)
        levels = images * 255
        torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
        assert 0 <= images.min() <= images.max() <= 1
    untouched = (batch.lq == batch.gt).flatten(1).all(1)
    assert 0 < untouched.sum() < 24  # some clean, as asked, and not all


def test_how_soft_is_said_by_the_recipe():
    kinds = {"blur:length=9..23": 1.0, "noise:sigma=5..50": 1.0}
    damage = Damage(kinds, (0.3, 0.7), soft=1.0, softest={"blur": 0.6})
    rng = np.random.default_rng(0)
    for spec in (damage.draw(rng) for _ in range(40)):
        assert spec.startswith(f"resize:factor={'0.6' if 'blur' in spec else '0.3'}..1")
    less = recipe.load("relume-quality", ["data.softest={blur=0.8}"])
    usual = recipe.load("relume-quality", ["data.softest={}"])
    assert less.data.softest == {"blur": 0.8} and less.digest != usual.digest
    assert "softest" not in usual.resolved()["data"]  # as before there was the key
    unsaid = recipe.load("relume-quality", ["data.lens=0.0"])
    assert "lens" not in unsaid.resolved()["data"] and unsaid.digest != usual.digest
    lenses = Damage(kinds, (0.0, 1.0), soft=1.0, lens=0.5)
    specs = [lenses.draw(rng) for _ in range(200)]
    assert not any("lens" in spec for spec in specs if "blur" in spec)
    assert all(spec.startswith(("resize:", "lens:")) for spec in specs)
    noisy = [spec.startswith("lens:") for spec in specs if "noise" in spec]
    assert 0.3 < np.mean(noisy) < 0.7


def test_a_damage_of_several_steps_is_drawn_as_a_whole_and_alone():
    both = "sensor:iso=800+jpeg:quality=90"
    rng = np.random.default_rng(0)
    drawn = {Damage({both: 1.0, "rain": 1.0}, (0.0, 1.0)).draw(rng) for _ in range(30)}
    assert drawn == {both, "rain"}
    never = Damage({"rain": 1.0, both: 0.0}, (0.0, 1.0))
    assert {never.draw(rng) for _ in range(30)} == {"rain"}
    with pytest.raises(UsageError, match="goes with no other"):
        Damage({both: 1.0, "rain": 1.0}, (0.0, 0.5, 0.5))


def test_photographs_are_softened_before_anything_happens_to_them(folder):
    rng = np.random.default_rng(0)
    drawn = [Damage(DAMAGE, (0.2, 0.5, 0.3), soft=0.4).draw(rng) for _ in range(400)]
    soft = [spec for spec in drawn if "resize" in spec]
    assert all(spec.startswith("resize:") for spec in soft)
    assert len(soft) / 400 == pytest.approx(0.4, abs=3 * (0.24 / 400) ** 0.5)
    assert any(spec.count(":") == 1 for spec in soft)  # an undamaged soft picture is left as it is
    made = Damaged(
        load_photographs(folder, sizes=1),
        Damage(DAMAGE, (1.0,), soft=1.0),
        seed=7,
        sources=source(),
    ).batch(0, 8, 64)
    plain = Damaged(
        load_photographs(folder, sizes=1), Damage(DAMAGE, (1.0,)), seed=7, sources=source()
    ).batch(0, 8, 64)
    torch.testing.assert_close(made.lq, made.gt, atol=0.51 / 255, rtol=0)  # lq is rounded to levels

    def edges(x: torch.Tensor) -> float:
        return float(x.diff(dim=-1).square().mean())

    assert edges(made.gt) < 0.8 * edges(plain.gt)


def test_regions_are_looked_for_where_something_follows_them(folder):
    assert Damage(DAMAGE, (1.0,)).follows_regions  # haze
    assert not Damage({"noise:sigma=25": 1.0}, (1.0,)).follows_regions
    (photo,) = load_photographs(folder, sizes=1, followed=False)[0]
    assert (photo.regions == 1).all()
    part = part_of(photo, np.random.default_rng(0), (0.5, 0.9), 96)
    assert (part.regions == 1).all() and part.regions.size


def thumbnails(folder: Path, spec: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clean, damaged then reduced, and reduced then damaged by the cheap form."""
    rgb = load_photographs(folder, sizes=1)[0][0].pixels / np.float32(255)
    chain = parse(spec)
    sampled = chain.sample(torch.Generator().manual_seed(1), rgb.shape[1:])
    clean = area_resize(rgb, 96, 96)
    true = area_resize(chain.apply(rgb, sampled).lq, 96, 96)
    return clean, true, chain.apply_small(clean, sampled)


@pytest.mark.parametrize("spec", ["haze:beta=0.8", "lowlight:gain=0.2,read=1"])
def test_the_cheap_thumbnail_is_the_true_one_where_light_changed(folder, spec):
    clean, true, cheap = thumbnails(folder, spec)
    assert np.abs(true - cheap).mean() < 0.02
    assert np.abs(true - clean).mean() > 0.06  # there was something to see


def test_the_cheap_thumbnail_is_as_noisy_as_the_true_one():
    grey = np.full((3, 480, 600), 0.5, np.float32)
    chain = parse("noise:sigma=25")
    sampled = chain.sample(torch.Generator().manual_seed(1), grey.shape[1:])
    true = area_resize(chain.apply(grey, sampled).lq, 96, 96)
    cheap = chain.apply_small(area_resize(grey, 96, 96), sampled)
    # 600 / 96 is no whole number: pixels on a border count for two samples, which averages more.
    assert cheap.std() / true.std() == pytest.approx(1, abs=0.12)


def test_a_loader_gives_what_the_source_gives(folder):
    asks = [(0, 2, 32), (2, 2, 32), (4, 1, 48), (5, 1, 48)]
    direct = samples(folder)
    following = dict(itertools.pairwise(asks)).get
    with Loader(_source, (folder,), following) as loader:
        assert all(same(loader(*ask), direct.batch(*ask)) for ask in asks)
        assert same(loader(*asks[1]), direct.batch(*asks[1]))  # a jump back


def test_a_loader_passes_on_what_the_source_raised(folder):
    with (
        Loader(_source, (folder,), lambda _: None) as loader,
        pytest.raises(UsageError, match="crop"),
    ):
        loader(0, 1, 4096)
    with (
        Loader(_source, (folder / "nowhere",), lambda _: None) as loader,
        pytest.raises(UsageError, match="No photographs"),
    ):
        loader(0, 1, 32)


def _source(folder: Path):
    return samples(folder).batch


def test_damage_says_what_is_wrong_with_it():
    with pytest.raises(UsageError, match="shares that sum to 1"):
        Damage(DAMAGE, (0.5, 0.4))
    with pytest.raises(UsageError, match="at most one more"):
        Damage({"noise": 1.0}, (0.2, 0.2, 0.6))
    with pytest.raises(RecipeError, match="Did you mean 'noise'"):
        Damage({"nois": 1.0}, (0.5, 0.5))


def test_damages_are_drawn_as_often_as_asked():
    damage = Damage({"noise": 3.0, "jpeg": 1.0}, (0.25, 0.75))
    rng = np.random.default_rng(0)
    drawn = [damage.draw(rng) for _ in range(4000)]
    shares = {spec: drawn.count(spec) / 4000 for spec in ("", "noise", "jpeg")}
    # Four standard errors of a share of 0.25 over 4000 draws are 0.027.
    assert shares == pytest.approx({"": 0.25, "noise": 0.5625, "jpeg": 0.1875}, abs=0.03)
    both = Damage({"jpeg": 1.0, "noise": 1.0, "haze": 1.0}, (0, 0, 0, 1))
    assert both.draw(rng) == "haze+noise+jpeg"  # a camera's order


@pytest.mark.parametrize("control", ["null", "constant", "shuffled"])
def test_a_control_changes_the_thumbnail_and_nothing_else(folder, control):
    plain, changed = samples(folder), samples(folder, sources=source(control=control))
    a, b = plain.batch(0, 4, 32), changed.batch(0, 4, 32)
    assert torch.equal(a.lq, b.lq)
    assert not torch.equal(a.guidance["thumbnail"].maps, b.guidance["thumbnail"].maps)
    assert "thumbnail" not in samples(folder, sources={}).batch(0, 1, 32).guidance


def test_regions_are_looked_at_once_and_cropped_with_the_picture(folder):
    asked = []

    class Halves:
        spec, max_side = "regions", 0

        def __call__(self, rgb):
            asked.append(rgb.shape)
            labels = 1 + (rgb.mean(1) > rgb.mean())
            return Guide(regions=labels.astype(np.int32))

    fixed = samples(folder, sources={"regions": Source(Halves())}, fixed=2)
    batches = [fixed.batch(first, 8, 32) for first in (0, 8, 16, 24, 32)]
    assert len(asked) <= 3 * 2 and all(min(shape[-2:]) >= 96 for shape in asked)
    for batch in batches:
        labels = batch.guidance["regions"].regions
        assert labels.shape == (8, 32, 32)
        # The labels lie on the crop they were cut with: the brighter half is brighter there too.
        for lq, one in zip(batch.lq.mean(1), labels, strict=True):
            if one.unique().numel() == 2:
                assert lq[one == 2].min() >= lq[one == 1].max()
    again = samples(folder, sources={"regions": Source(Halves())}, fixed=2).batch(16, 8, 32)
    assert torch.equal(again.lq, batches[2].lq)


def test_details_of_a_photograph_lie_in_its_fold():
    names = [f"budgie_{i}" for i in range(200)]
    for count in (2, 3):
        folds = [fold_of(f"{name}.jpg", count) for name in names]
        assert set(folds) == set(range(count))
        assert folds == [fold_of(f"{name}_d2.png", count) for name in names]
        for name, fold in zip(names, folds, strict=True):
            assert [left_out(name, f"{i}/{count}") for i in range(count)].index(True) == fold
    assert not left_out("a", "")
    for wrong in ("2/2", "0/1", "a/2", "1"):
        with pytest.raises(UsageError, match="a fold is written as 0/2"):
            left_out("a", wrong)


def test_a_prior_looks_at_a_part_where_there_are_windows(folder):
    asked = []

    class Bright:
        spec, max_side = "maps", 0

        def __call__(self, rgb):
            asked.append(rgb.shape[-2:])
            return Guide(maps=rgb.mean(1, keepdims=True))

    parts = samples(
        folder, sources={"bright": Source(Bright())}, fixed=1, windows=(0.6, 0.7)
    ).batch(0, 12, 32)
    assert len(asked) <= 3 and all(height < 140 for height, _ in asked)
    # What it said lies on the crop that it was cut with, and is kept in half precision.
    said = parts.guidance["bright"].maps[:, 0]
    assert said.dtype == torch.float32
    assert torch.allclose(said, parts.lq.mean(1), atol=2**-12, rtol=0)  # half a step below 1


def test_what_leaks_is_told_of_the_very_crop(folder):
    class Silent:
        spec, max_side = "maps", 0

        def __call__(self, rgb):
            return Guide(maps=0 * rgb[:, :1], names=("noise",))

    told = {"damage": Source(Silent(), "oracle_residual")}
    batch = Damaged(
        load_photographs(folder, sizes=1),
        Damage({"noise:sigma=25": 1.0}, (0.0, 1.0)),
        seed=7,
        sources=told,
        fixed=1,
    ).batch(0, 2, 48)
    shown = batch.guidance["damage"].maps
    assert shown.shape == (2, 1, 48, 48)
    # Between no difference and sigma 50: a half, but for what lies at 0 and 1 and is cut off there.
    assert 0.3 < float(shown.mean()) < 0.6


def test_what_is_seen_behind_a_model_is_kept_on_disk(photo, tmp_path, monkeypatch):
    monkeypatch.setenv("RELUME_CACHE", str(tmp_path))
    engine = open_engine("invert")
    priors = (RegionsPrior(64), RegionsPrior(64), VoronoiPrior(64))
    labels = [Remembered(AfterModel(prior, engine))(photo).array for prior in priors]
    assert np.array_equal(labels[0], RegionsPrior(64)(1 - photo).array)
    assert np.array_equal(labels[0], labels[1])
    assert not np.array_equal(labels[1], labels[2])
    assert len(list(tmp_path.iterdir())) == 2


def test_parts_in_another_light_leave_nothing_to_learn_by_heart(folder):
    plain, parts = samples(folder), samples(folder, windows=(0.6, 1.0))
    seen = [s.batch(0, 60, 32).guidance["thumbnail"].maps.mean((2, 3)) for s in (plain, parts)]
    # Three photographs at two sizes: their own thumbnails repeat, those of parts never do.
    spread = [float(one.std(0).mean()) for one in seen]
    assert len(seen[1].unique(dim=0)) == 60
    assert spread[1] > spread[0]
    one = parts.batch(5, 1, 32)
    assert torch.equal(one.lq, samples(folder, windows=(0.6, 1.0)).batch(5, 1, 32).lq)


def test_a_mosaic_shows_two_photographs_where_the_crop_is_of_one(folder):
    black, white = (
        Photograph(
            "a",
            np.full((3, 128, 160), level, np.uint8),
            np.full((3, SIDE, SIDE), level / 255, np.float32),
            np.full((3, 32, 40), level, np.uint8),
            np.zeros((32, 40), np.int32),
        )
        for level in (0, 255)
    )
    shares, across = [], set()
    for seed in range(20):
        both = beside(black, white, np.random.default_rng(seed), (0.5, 1.0))
        assert both.pixels is black.pixels
        assert both.small.shape == (3, SIDE, SIDE)
        other = both.small[0] > 0.3  # the darkest light leaves 0.6 * 0.9 of white
        lines = (other.all(0), other.all(1))
        across.add(bool(lines[0].any()))
        assert lines[0].sum() + lines[1].sum() > 0
        shares.append(float(other.mean()))
    assert min(shares) >= 0.29
    assert max(shares) <= 0.71
    assert across == {True, False}
    one, two = (samples(folder, windows=(0.6, 1.0), mosaic=share) for share in (0.0, 1.0))
    maps = [s.batch(0, 8, 32).guidance["thumbnail"].maps for s in (one, two, two)]
    assert not torch.equal(maps[0], maps[1])
    assert torch.equal(maps[1], maps[2])


def test_a_part_is_the_photographs_own_pixels_relit(folder):
    photo = load_photographs(folder, sizes=1)[0][0]
    part = part_of(photo, np.random.default_rng(3), (0.7, 0.9), 96)
    height, width = part.pixels.shape[-2:]
    assert height % 4 == 0 and width % 4 == 0 and min(height, width) >= 96
    # Each channel goes through one rising curve: the order of its values is the photograph's.
    for channel in range(3):
        values = np.unique(part.pixels[channel])
        assert len(values) <= len(np.unique(photo.pixels[channel]))
    true = area_resize(part.pixels / np.float32(255), 96, 96)
    assert np.abs(part.small - true).mean() < 0.01


def test_a_prior_that_sees_whole_pictures_needs_fixed_damages(folder):
    with pytest.raises(UsageError, match=r"data\.fixed"):
        samples(folder, sources=source("regions"))


def test_a_whole_prior_is_dropped_as_often_as_asked(folder):
    told = samples(folder, sources=source("thumbnail", dropout=0.5)).batch(0, 200, 8)
    silent = (told.guidance["thumbnail"].maps == 0).flatten(1).all(1).float().mean()
    assert float(silent) == pytest.approx(0.5, abs=0.14)  # four standard errors


@pytest.mark.parametrize("name", sorted(set(CONTROLS) - TOLD_THE_TRUTH))
def test_a_probe_keeps_shape_and_kind_and_takes_nothing_from_the_picture(name, photo):
    mine, donor = (Guidance(thumbnail=thumbnail(p)) for p in (photo, photo[..., ::-1] * 0.5))
    swapped = CONTROLS[name](mine, Guidance(), donor, torch.Generator())
    was, now = mine["thumbnail"], swapped["thumbnail"]
    assert now.array.shape == was.array.shape
    assert now.whole
    spread = now.array.std((-2, -1)).max()
    assert (
        spread < 1e-6 if name != "shuffled" else np.array_equal(now.array, donor["thumbnail"].array)
    )


def test_photographs_smaller_than_a_thumbnail_are_enlarged(tmp_path):
    write(Picture.from_rgb(np.full((1, 3, 40, 50), 0.5, np.float32)), tmp_path / "small.png")
    ((first, *_),) = load_photographs(tmp_path, sizes=1)
    assert isinstance(first, Photograph)
    assert first.small.shape == (3, 96, 96)


# Real pairs

BLUR, SHARP = "set/*/blur", "set/*/sharp"


def drawn(seed: int, height: int = 60, width: int = 80, levels: int = 255) -> np.ndarray:
    """(1, 3, H, W) patches of colour, at whole levels."""
    rgb = np.random.default_rng(seed).integers(0, levels + 1, (1, 3, 6, 8))
    rgb = np.kron(rgb, np.ones((1, 1, -(-height // 6), -(-width // 8))))[..., :height, :width]
    return (rgb / levels).astype(np.float32)


@pytest.fixture(scope="module")
def negatives(tmp_path_factory) -> Path:
    """Pairs of which one is the other's negative, in two scenes with the same frame numbers."""
    root = tmp_path_factory.mktemp("pairs")
    for scene, name in (("b", "01"), ("a", "02"), ("a", "01")):
        for folder in ("blur", "sharp"):
            (root / "set" / scene / folder).mkdir(parents=True, exist_ok=True)
        gt = drawn(100 * ord(scene) + int(name))
        write(Picture.from_rgb(gt), root / f"set/{scene}/sharp/{name}.png")
        write(Picture.from_rgb(1 - gt), root / f"set/{scene}/blur/{name}.png")
    (root / "set" / "a" / "blur" / "._01.png").write_bytes(b"left behind by another system")
    return root


class Brighter:
    """Regions 1 and 2: what is darker than the mean, and what is brighter."""

    spec, max_side = "regions", 0

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []
        self.identity = {"prior": "brighter"}

    def __call__(self, rgb):
        self.asked.append(rgb.shape)
        return Guide(regions=(1 + (rgb.mean(1) > rgb.mean())).astype(np.int32))


def looking(prior, control: str = "none") -> dict:
    return {"regions": Source(prior, control)}


def test_pairs_are_where_the_stars_stand_for_the_same_words(negatives, tmp_path):
    pairs = find_pairs(negatives, BLUR, SHARP)
    assert [pair.name for pair in pairs] == ["a/01", "a/02", "b/01"]
    assert all(p.lq.parent.parent == p.gt.parent.parent and p.lq != p.gt for p in pairs)
    for name in ("hr/0001.png", "lr/0001x4.png", "both/s1_blur.png", "both/s1_sharp.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(Picture.from_rgb(drawn(1)), tmp_path / name)
    (pair,) = find_pairs(tmp_path, "lr/*x4.png", "hr/*.png")
    assert (pair.name, pair.gt.name) == ("0001", "0001.png")
    (pair,) = find_pairs(tmp_path, "both/*_blur.png", "both/*_sharp.png")
    assert pair.name == "s1"
    with pytest.raises(UsageError, match=r"2 files .* no partner: lr \(0001x4\), hr \(0001\)"):
        find_pairs(tmp_path, "lr", "hr")
    with pytest.raises(UsageError, match=r"No pictures in .*nowhere"):
        find_pairs(tmp_path, "nowhere/*", "elsewhere/*")
    write(Picture.from_rgb(drawn(1)), tmp_path / "hr/0001.tif")
    with pytest.raises(UsageError, match="have one name"):
        find_pairs(tmp_path, "hr", "hr")


def test_a_crop_of_a_pair_is_one_place_of_both_files(negatives):
    pairs = find_pairs(negatives, BLUR, SHARP)
    batch = Paired(pairs, seed=3).batch(0, 12, 16)
    assert batch.lq.shape == batch.gt.shape == (12, 3, 16, 16) and not batch.guidance
    torch.testing.assert_close(batch.lq, 1 - batch.gt, atol=1e-6, rtol=0)
    assert len(batch.lq.flatten(1).unique(dim=0)) == 12


@pytest.mark.parametrize("room", [0, 3 * 60 * 80 * 2, 1 << 30])
def test_what_is_kept_of_pairs_does_not_change_a_batch(negatives, room):
    pairs = find_pairs(negatives, BLUR, SHARP)
    one, two = Paired(pairs, seed=7, room=room), Paired(pairs, seed=7)
    two.batch(2, 5, 16)  # what ran before does not matter
    assert torch.equal(one.batch(10, 4, 24).lq, two.batch(10, 4, 24).lq)
    halves = torch.cat([two.batch(10, 2, 24).gt, two.batch(12, 2, 24).gt])
    assert torch.equal(one.batch(10, 4, 24).gt, halves)
    assert not torch.equal(one.batch(10, 4, 24).lq, Paired(pairs, seed=8).batch(10, 4, 24).lq)


def test_a_whole_pair_is_looked_at_once_whoever_asks(negatives, tmp_path, monkeypatch):
    monkeypatch.setenv("RELUME_CACHE", str(tmp_path))
    pairs, prior = find_pairs(negatives, BLUR, SHARP), Brighter()
    for room in (0, 1 << 20):  # the second set of samples finds it on disk
        told = Paired(pairs, seed=0, sources=looking(Remembered(InTurn(prior))), room=room)
        told.batch(0, 3, 16)
        assert prior.asked == [(1, 3, 60, 80)] * 3
        batch = told.batch(3, 12, 16)
        labels = batch.guidance["regions"].regions
        assert labels.dtype == torch.int32 and labels.shape == (12, 16, 16)
        for lq, one in zip(batch.lq.mean(1), labels, strict=True):
            assert one.unique().numel() < 2 or lq[one == 2].min() >= lq[one == 1].max()
    assert prior.asked == [(1, 3, 60, 80)] * 3


def test_the_oracle_of_a_pair_is_what_its_prior_says_of_the_good_picture(negatives):
    pairs = find_pairs(negatives, BLUR, SHARP)
    mine, truth = (
        Paired(pairs, seed=0, sources=looking(Brighter(), control)).batch(0, 6, 16)
        for control in ("none", "oracle")
    )
    a, b = (batch.guidance["regions"].regions for batch in (mine, truth))
    assert torch.equal(a, 3 - b)  # of a negative, what is brighter is what was darker


def test_a_gt_may_be_larger_and_then_all_are(tmp_path):
    for folder in ("lr", "hr"):
        (tmp_path / folder).mkdir()
    for index in range(2):
        lr = drawn(index, 40, 50)
        write(Picture.from_rgb(lr), tmp_path / f"lr/{index}x2.png")
        hr = np.kron(lr, np.ones((2, 2), np.float32))
        write(Picture.from_rgb(hr), tmp_path / f"hr/{index}.png")
    pairs = find_pairs(tmp_path, "lr/*x2.png", "hr/*.png")
    batch = Paired(pairs, seed=0).batch(0, 4, 20)
    assert batch.gt.shape == (4, 3, 40, 40)
    assert torch.equal(batch.gt[..., ::2, ::2], batch.lq)
    with pytest.raises(UsageError, match="0 is 50x40, smaller than crops of 48"):
        Paired(pairs[:1], seed=0).batch(0, 1, 48)
    write(Picture.from_rgb(drawn(3, 40, 50)), tmp_path / "hr/1.png")
    with pytest.raises(UsageError, match="1 pairs do not fit: 1"):
        Paired(pairs, seed=0)


@pytest.mark.parametrize("levels", [255, 65535])
def test_pairs_are_kept_in_the_depth_of_their_files(levels, tmp_path):
    kind = np.uint8 if levels == 255 else np.uint16
    for channels in (1, 3):
        pixels = (drawn(5, levels=levels)[0].transpose(1, 2, 0) * levels).round().astype(kind)
        write(Picture(pixels[..., :channels]), tmp_path / "one.png")
        picture = read(tmp_path / "one.png")
        assert planes(picture).dtype == kind
        assert np.array_equal(as_float(planes(picture)), picture.rgb()[0])


def test_what_there_is_no_room_for_is_made_again():
    made: list[int] = []

    def make(key: int) -> np.ndarray:
        made.append(key)
        return np.zeros(10, np.uint8)

    kept = Kept[np.ndarray](lambda array: array.nbytes, room=25)
    for key in (1, 2, 3, 1, 2, 3):
        kept.get(key, lambda key=key: make(key))
    assert made == [1, 2, 3, 3]


def test_threads_ask_a_prior_one_after_the_other(photo):
    inside, most = [], []

    class Slow(Brighter):
        def __call__(self, rgb):
            inside.append(1)
            time.sleep(0.002)
            most.append(len(inside))
            inside.pop()
            return super().__call__(rgb)

    prior = InTurn(Slow())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(prior, [photo] * 8))
    assert most == [1] * 8


def test_regions_laid_out_elsewhere_keep_their_areas(photo):
    moved, own = LaidOut(RegionsPrior(64), "voronoi"), RegionsPrior(64)
    areas = [np.bincount(prior(photo).array.ravel()) for prior in (moved, own)]
    assert not np.array_equal(moved(photo).array, own(photo).array)
    assert np.abs(areas[0] - areas[1]).sum() <= 0.02 * photo[0, 0].size
    assert moved.identity != own.identity
