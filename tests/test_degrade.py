"""Laws over the table of damages, and measurements read back."""

import json

import numpy as np
import pytest
import pyvips
import torch

from relume.errors import RecipeError, ShapeError
from relume.image import Picture, reader, write
from relume.lab.degrade import (
    DEGRADATIONS,
    View,
    camera_order,
    folder,
    generator,
    parse,
)
from relume.lab.degrade.blur import disc_kernel, gaussian_kernel, motion_kernel
from relume.lab.degrade.noise import demosaic, normals
from relume.lab.degrade.tone import to_file, to_light
from relume.priors.regions import regions as find_regions

ALL = sorted(DEGRADATIONS)
SIZE = (120, 168)
REGIONS = 1 + np.arange(30)[:, None] // 10 * 4 + np.arange(42) // 11

# The mildest setting of each kind, at which a picture must come back as it went in.
NOTHING = {
    "noise": "noise:sigma=0",
    "poisson": "poisson:peak=1000000,read=0",
    "blur": "blur:length=0",
    "defocus": "defocus:radius=0",
    "regionblur": "regionblur:length=1",
    "rain": "rain:density=0",
    "raindrop": "raindrop:count=0",
    "haze": "haze:beta=0",
    "scratch": "scratch:count=0",
    "dust": "dust:count=0",
    "fade": "fade:amount=0",
    "lowlight": "lowlight:gain=1,gamma=1,read=0",
    "jpeg": "jpeg:quality=100",
    "sensor": "sensor:iso=0",
    "resize": "resize:factor=1",
    "lens": "lens:sigma=0",
    "down": "down:scale=1",
}


@pytest.fixture
def gt() -> np.ndarray:
    """(3, 120, 168) uint8: edges, gradients and texture over the whole range."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]].astype(np.float32)
    rgb = np.stack([x / SIZE[1], y / SIZE[0], 0.5 + 0.4 * np.sin(x / 3) * np.cos(y / 5)])
    rgb[:, 30:60, 40:90] = np.array([0.9, 0.3, 0.02], np.float32)[:, None, None]
    return (np.clip(rgb + rng.normal(0, 0.03, rgb.shape), 0, 1) * 255).astype(np.uint8)


def spec_at_rest(name: str) -> str:
    return f"{name}:scale=2" if name == "down" else name


@pytest.mark.parametrize("regions", [None, REGIONS], ids=["plain", "regions"])
@pytest.mark.parametrize(
    "spec",
    [
        *map(spec_at_rest, ALL),
        "+".join(camera_order(set(ALL) - {"down"})),
        "blur+down:scale=2+jpeg",
        "scratch:count=40+dust:count=400+down:scale=2",
    ],
)
def test_a_crop_of_the_damage_is_the_damage_of_the_crop(spec, regions, gt):
    chain = parse(spec)
    for index in range(2):
        sampled = chain.sample(generator(5, index), SIZE, regions)
        whole = chain.apply(gt, sampled)
        s = sampled.scale
        for view in (View(0, 0, 40, 64), View(34, 58, 64, 70), View(80, 140, 40, 28)):
            part = chain.apply(gt, sampled, view)
            t, left, h, w = (v // s for v in view)
            lq = whole.lq[:, t : t + h, left : left + w]
            assert np.abs(part.lq - lq).max() <= 1e-5
            t0, l0, h0, w0 = view
            assert np.abs(part.gt - whole.gt[:, t0 : t0 + h0, l0 : l0 + w0]).max() <= 1e-5
            assert set(part.truth) == set(whole.truth)
            for name, guide in part.truth.items():
                expected = whole.truth[name].crop(t, left, h, w).array
                assert np.abs(guide.array - expected).max() <= 1e-5, name


@pytest.mark.parametrize("density", [0.0005, 0.01])
def test_a_wide_streak_hangs_into_the_view_beside_it(density, gt):
    """Near rain covers four columns to each side, and one of them may be all that a view shows."""
    chain = parse(f"rain:density={density}")
    for index in range(6):
        sampled = chain.sample(generator(9, index), SIZE)
        whole = chain.apply(gt, sampled).lq
        for left in range(20, 100, 16):
            part = chain.apply(gt, sampled, View(20, left, 50, 40)).lq
            assert np.array_equal(part, whole[:, 20:70, left : left + 40])


@pytest.mark.parametrize("name", ALL)
def test_a_file_of_bytes_is_the_clipped_damage_rounded(name, gt):
    chain = parse(spec_at_rest(name))
    sampled = chain.sample(generator(6, 1), SIZE, REGIONS)
    clipped, file = (chain.apply(gt, sampled, finish=f).lq for f in ("clipped", "uint8"))
    assert clipped.min() >= 0 and clipped.max() <= 1
    levels = np.floor(clipped * np.float32(255) + np.float32(0.5))
    assert np.array_equal(np.round(file * 255), levels)
    assert np.abs(file * 255 - levels).max() < 1e-4


@pytest.mark.parametrize("name", ALL)
def test_regions_are_looked_for_only_where_they_matter(name, gt):
    chain = parse(spec_at_rest(name))
    with_regions, without = (
        chain.apply(gt, chain.sample(generator(8, 0), SIZE, labels)).lq
        for labels in (REGIONS, None)
    )
    assert np.array_equal(with_regions, without) != chain.follows_regions


def test_a_file_is_not_searched_for_regions_that_nobody_follows(gt, tmp_path, monkeypatch):
    searched = []
    monkeypatch.setattr(folder, "regions", lambda rgb: searched.append(rgb) or find_regions(rgb))
    write(Picture.from_rgb(gt / np.float32(255)), tmp_path / "a.png")
    for spec, times in (("rain+noise", 0), ("noise+haze", 1)):
        folder.damage_file(tmp_path / "a.png", parse(spec), 0, 0, "uint8")
        assert len(searched) == times


@pytest.mark.parametrize("name", ALL)
def test_the_same_generator_gives_the_same_bytes(name, gt):
    chain = parse(name)
    first, second = (
        chain.apply(gt, chain.sample(generator(7, 2), SIZE, REGIONS)) for _ in range(2)
    )
    assert first.lq.tobytes() == second.lq.tobytes()
    assert first.params == second.params
    others = [chain.sample(generator(7, index), SIZE, REGIONS) for index in range(3, 9)]
    assert any(
        o.params != first.params or not np.array_equal(chain.apply(gt, o).lq, first.lq)
        for o in others
    )


@pytest.mark.parametrize("name", ALL)
def test_severity_reaches_down_to_the_picture_itself(name, gt):
    chain = parse(NOTHING[name])
    done = chain.apply(gt, chain.sample(generator(1, 0), SIZE, REGIONS))
    # JPEG at 100 still rounds colours; photons at 10^6 are still counted.
    most = {"jpeg": 4.01 / 255, "poisson": 0.03}.get(name, 1e-5)
    assert np.abs(done.lq - done.gt).max() <= most
    for guide in done.truth.values():
        assert guide.array.max() <= (0.04 if name == "regionblur" else 0.02)


def test_the_mildest_of_every_kind_is_listed():
    assert set(NOTHING) == set(DEGRADATIONS)


@pytest.mark.parametrize("name", ALL)
def test_truth_is_one_named_map_in_range_and_params_are_json(name, gt):
    chain = parse(spec_at_rest(name))
    done = chain.apply(gt, chain.sample(generator(2, 0), SIZE, REGIONS))
    assert json.loads(json.dumps(done.params)) == done.params
    assert done.params[0]["kind"] == name
    if not DEGRADATIONS[name].unit:
        assert not done.truth
        return
    guide = done.truth[f"damage.{name}"]
    assert guide.array.dtype == np.float32
    assert guide.array.shape == (1, 1, *done.lq.shape[1:])
    assert 0 <= guide.array.min() <= guide.array.max() <= 1
    assert guide.array.max() > 0


@pytest.mark.parametrize("name", ALL)
def test_a_thumbnail_shows_the_same_damage(name, gt):
    """Near the damaged picture's average, where averages tell nearer than no damage at all."""

    def thumbnail(x):
        return x.reshape(3, 24, 5, 24, 7).mean((2, 4))

    chain = parse(name)
    sampled = chain.sample(generator(4, 1), SIZE, REGIONS)
    expected = thumbnail(chain.apply(gt, sampled).lq) if name != "down" else None
    small = chain.apply_small(thumbnail(gt / np.float32(255)).astype(np.float32), sampled)
    assert small.shape == (3, 24, 24) and small.dtype == np.float32
    assert small.min() >= 0 and small.max() <= 1
    # Drops turn fine texture upside down, which a thumbnail has lost.
    most = {
        "haze": 0.05, "lowlight": 0.05, "fade": 0.05, "rain": 0.5, "raindrop": 0.8,
        "scratch": 0.8, "dust": 0.8,
    }.get(name)  # fmt: skip
    if most:
        untouched = np.abs(thumbnail(gt / 255) - expected).mean()
        assert np.abs(small - expected).mean() < most * untouched


def test_the_same_kind_twice_keeps_the_worse(gt):
    chain = parse("noise:sigma=10+noise:sigma=30+noise:sigma=20")
    done = chain.apply(gt, chain.sample(generator(0, 0), SIZE))
    assert list(done.truth) == ["damage.noise"]
    assert done.truth["damage.noise"].array.min() == pytest.approx(0.6)


def test_damages_compose_into_named_maps(gt):
    chain = parse("haze+rain+jpeg")
    done = chain.apply(gt, chain.sample(generator(0, 0), SIZE))
    assert set(done.truth) == {"damage.haze", "damage.rain", "damage.jpeg"}


def test_light_comes_back_from_the_file():
    levels = np.arange(256, dtype=np.uint8)
    assert np.abs(to_file(to_light(levels)) * 255 - levels).max() < 1e-3
    assert to_light(np.float32([0.5]))[0] == pytest.approx(0.21404, abs=1e-5)  # IEC 61966-2-1


@pytest.mark.parametrize("sigma", [5, 25, 50])
def test_noise_has_the_sigma_that_was_asked_for(sigma):
    gray = np.full((3, 256, 256), 0.5, np.float32)
    chain = parse(f"noise:sigma={sigma}")
    noise = chain.apply(gray, chain.sample(generator(0, 1), (256, 256)), finish="float").lq - 0.5
    # 196,608 draws: the estimate's own error is 0.16 %.
    assert noise.std() * 255 == pytest.approx(sigma, rel=0.01)
    assert abs(noise.mean()) * 255 < sigma * 0.01
    assert abs(np.corrcoef(noise[0, :, 1:].ravel(), noise[0, :, :-1].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.02


def test_normals_are_normal():
    z = normals(9, View(-7, 1000, 400, 400)).ravel().astype(np.float64)
    assert z.mean() == pytest.approx(0, abs=0.006)
    assert z.std() == pytest.approx(1, abs=0.004)
    assert (z**4).mean() == pytest.approx(3, abs=0.05)


@pytest.mark.parametrize("level", [0.02, 0.2, 0.7])
def test_photons_have_their_own_mean_and_variance(level):
    light = np.full((3, 256, 256), level, np.float32)
    chain = parse("poisson:peak=100,read=0")
    sampled = chain.sample(generator(0, 4), (256, 256))
    seen = to_light(chain.apply(to_file(light), sampled).lq)
    assert seen.mean() == pytest.approx(level, rel=0.02)
    assert seen.var() == pytest.approx(level / 100, rel=0.1)


def test_camera_noise_is_coloured_correlated_and_grows_with_iso():
    gray = np.full((3, 192, 192), 0.5, np.float32)

    def noise(iso, index):
        chain = parse(f"sensor:iso={iso}")
        sampled = chain.sample(generator(0, index), (192, 192))
        return chain.apply(gray, sampled, finish="float").lq - 0.5

    deviations = [noise(iso, 2).std() for iso in (100, 800, 6400)]
    assert deviations[0] < 0.02 and deviations == sorted(deviations)
    beside, between, chroma = [], [], []
    for index in range(6):
        d = noise(1600, index)
        beside.append(np.corrcoef(d[0, :, 1:].ravel(), d[0, :, :-1].ravel())[0, 1])
        between.append(np.corrcoef(d[0].ravel(), d[1].ravel())[0, 1])
        chroma.append(np.std(d[0] - d[1]) / d.std())
    assert min(beside) > 0.2 and np.mean(between) > 0.2 and min(chroma) > 0.3


# Near black, clipped noise is no longer normal, and what is left of it is only roughly known.
@pytest.mark.parametrize(("level", "within"), [(0.1, 0.2), (0.3, 0.1), (0.7, 0.1)])
def test_camera_noise_is_as_strong_as_its_truth(level, within):
    gray = np.full((3, 192, 192), level, np.float32)
    chain = parse("sensor:iso=200..1600")
    for index in range(4):
        done = chain.apply(gray, chain.sample(generator(1, index), (192, 192)), finish="float")
        found = (done.lq - done.gt).std((1, 2)).mean() * 255 / 50
        assert done.truth["damage.sensor"].array.mean() == pytest.approx(found, rel=within)


@pytest.mark.parametrize("malvar", [False, True])
@pytest.mark.parametrize("phase", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_demosaic_keeps_flat_colours_and_ramps(malvar, phase):
    y, x = np.mgrid[0:24, 0:24].astype(np.float32)
    for plane in (np.full((24, 24), 0.3, np.float32), 0.01 * x + 0.02 * y):
        colours = demosaic(plane, phase, malvar=malvar)
        assert np.abs(colours - plane)[:, 4:-4, 4:-4].max() < 1e-5


@pytest.mark.parametrize("length", [0, 1, 7, 15.5, 31])
@pytest.mark.parametrize("curve", [0, 0.5])
def test_a_motion_kernel_holds_all_the_light_and_does_not_shift_it(length, curve):
    for angle in (0, 30, 90, 145):
        kernel = motion_kernel(length, angle, curve)
        r = kernel.shape[0] // 2
        g = np.arange(-r, r + 1)
        assert kernel.sum() == pytest.approx(1, abs=1e-6) and kernel.min() >= 0
        assert abs((kernel.sum(0) * g).sum()) < 0.02 and abs((kernel.sum(1) * g).sum()) < 0.02


@pytest.mark.parametrize("radius", [0, 0.2, 1, 4.5])
def test_a_disc_holds_all_the_light(radius):
    kernel = disc_kernel(radius)
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    assert np.abs(kernel - kernel[::-1, ::-1]).max() < 1e-6


def test_blur_adds_light_not_file_values():
    edge = np.zeros((3, 64, 64), np.float32)
    edge[:, :, 32:] = 1
    chain = parse("blur:length=21,angle=0,curve=0")
    row = chain.apply(edge, chain.sample(generator(0, 0), (64, 64))).lq[0, 30]
    assert np.interp(31.5, np.arange(64), row) == pytest.approx(0.735, abs=0.02)  # sRGB of 0.5


def test_haze_follows_objects():
    gray = np.full((3, 96, 96), 0.2, np.float32)
    regions = np.ones((96, 96), int)
    regions[24:72, 30:60] = 2
    chain = parse("haze:beta=1")
    t = chain.apply(gray, chain.sample(generator(3, 0), (96, 96), regions)).truth["damage.haze"]
    steps = np.abs(np.diff(t.array[0, 0], axis=1))
    assert steps[30:66, 28:31].max(1).min() > 5 * np.median(steps)


def test_haze_depth_runs_from_near_to_far():
    gray = np.full((3, 200, 100), 0.2, np.float32)
    chain = parse("haze:beta=1,airlight=0.9")
    truth = chain.apply(gray, chain.sample(generator(0, 0), (200, 100))).truth["damage.haze"].array
    assert truth.min() == pytest.approx(1 - np.exp(-0.2), abs=0.02)
    assert truth.max() == pytest.approx(1 - np.exp(-1.0), abs=0.02)


def test_darkness_knows_how_much_it_took(gt):
    chain = parse("lowlight")
    for index in range(4):
        done = chain.apply(gt, chain.sample(generator(0, index), SIZE))
        severity = float(done.truth["damage.lowlight"].array.max())
        assert severity == pytest.approx(1 - done.lq.mean() / done.gt.mean(), abs=0.03)


def test_regions_blur_apart():
    rng = np.random.default_rng(0)
    texture = rng.uniform(0, 1, (3, 120, 168)).astype(np.float32)
    chain = parse("regionblur")
    done = chain.apply(texture, chain.sample(generator(6, 0), SIZE, REGIONS))
    truth = done.truth["damage.regionblur"].array[0, 0]
    assert len(np.unique(np.round(truth, 3))) > 2
    # A border of flat light does not glow: all kernels agree on a flat picture.
    flat = np.full((3, *SIZE), 0.5, np.float32)
    assert (
        np.abs(chain.apply(flat, chain.sample(generator(6, 0), SIZE, REGIONS)).lq - 0.5).max()
        < 1e-3
    )


def test_drops_cover_what_the_truth_says(gt):
    chain = parse("raindrop:count=6,radius=8..20")
    done = chain.apply(gt, chain.sample(generator(1, 3), SIZE))
    cover = done.truth["damage.raindrop"].array[0, 0]
    assert 0.02 < cover.mean() < 0.9
    assert np.abs(done.lq - done.gt)[:, cover == 0].max() < 1e-5
    assert ((cover > 0.05) & (cover < 0.95)).sum() > 50  # soft borders


def test_rain_is_brighter_where_the_truth_says(gt):
    chain = parse("rain:density=0.004")
    done = chain.apply(gt // 2, chain.sample(generator(1, 3), SIZE))
    cover = done.truth["damage.rain"].array[0, 0]
    change = (to_light(done.lq) - to_light(done.gt)).mean(0)
    assert np.corrcoef(cover.ravel(), change.ravel())[0, 1] > 0.8
    layers = {chain.sample(generator(0, i), SIZE).params[0]["layers"] for i in range(40)}
    assert layers == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("name", ["scratch", "dust"])
def test_what_marks_hide_of_the_light_is_their_truth(name):
    """Two flat pictures, alike damaged, differ by what still shows: (1 - a (1 - keep)) of it."""
    chain, opaque = parse(name), 0
    dark, bright = (np.full((3, *SIZE), level, np.float32) for level in (0.3, 0.8))
    apart = to_light(bright) - to_light(dark)
    for index in range(8):
        sampled = chain.sample(generator(3, index), SIZE)
        low, high = (chain.apply(gt, sampled) for gt in (dark, bright))
        cover = low.truth[f"damage.{name}"].array[0, 0]
        hidden = 1 - (to_light(high.lq) - to_light(low.lq)) / apart
        # Light, twice through the file's curve in float32, is off by some 1e-6, as in every test
        # of this curve; the difference of 0.53 in light doubles it.
        assert np.abs(hidden[:, cover == 0]).max() < 1e-5
        assert (hidden <= cover + 1e-5).all()
        assert (hidden[:, cover > 0.01] > 0).any(0).all()
        assert np.abs(low.lq - dark)[:, cover == 0].max() < 1e-5
        if name == "dust":  # nothing shows through dust but what it does not cover
            assert np.abs(hidden - cover).max() < 1e-5
        opaque = max(opaque, cover.max())
    assert opaque > 0.9


@pytest.mark.parametrize(
    ("spec", "within"), [("dust:count=60,radius=6", 0.03), ("scratch:count=4", 0.08)]
)
def test_as_much_is_covered_as_the_marks_are_large(spec, within):
    """The truth's mean is that of the marks as points, which a thumbnail shows.

    Points count overlaps twice (under 1 %) and leave out the round ends of hairs (1 to 2 % of 30
    to 120 pixels). A scratch is looked at in 64 points, each off by a third or so of its strength:
    4 % for one scratch; its profile's mean is taken as 1 - peaked / 4, which is within 4 %.
    """
    size, chain, covered, told = (600, 800), parse(spec), 0.0, 0.0
    gray = np.full((3, *size), 0.5, np.float32)
    for index in range(12):
        sampled = chain.sample(generator(2, index), size)
        (guide,) = chain.apply(gray, sampled).truth.values()
        y, x, area, _ = sampled.steps[0].points()
        inside = (y >= 0) & (y < size[0]) & (x >= 0) & (x < size[1])
        covered, told = covered + guide.array.sum(), told + area[inside].sum()
    assert covered == pytest.approx(told, rel=within)


def test_a_scratch_is_long_and_thin():
    chain, size = parse("scratch:count=1"), (300, 400)
    gray = np.full((3, *size), 0.5, np.float32)
    lengths = []
    for index in range(60):
        done = chain.apply(gray, chain.sample(generator(4, index), size))
        cover = done.truth["damage.scratch"].array[0, 0]
        rows, columns = np.nonzero(cover > 0.01)
        if not rows.size:
            continue
        lengths.append(np.hypot(np.ptp(rows), np.ptp(columns)))
        # At most 3 pixels, a quarter more where it is ragged; sqrt(1 + 1.4^2) across the axis that
        # it keeps closer to, with its bend and kink.
        assert min(cover.sum(0).max(), cover.sum(1).max()) < 3 * 1.25 * 1.72
    assert len(lengths) > 50 and np.median(lengths) > 60


def test_marks_look_as_their_original_lets_them():
    """On a negative, turned about, dust is white; on a slide it is black; on a print it is both."""
    chain = parse("dust:count=100")
    gray = np.full((3, *SIZE), 0.5, np.float32)
    change: dict[str, list[float]] = {}
    for index in range(40):
        done = chain.apply(gray, chain.sample(generator(0, index), SIZE))
        by = change.setdefault(done.params[0]["original"], [])
        by += [float((done.lq - gray).min()), float((done.lq - gray).max())]
    assert min(change["negative"]) > -1e-5 and max(change["slide"]) < 1e-5
    assert min(change["print"]) < -0.1 and max(change["print"]) > 0.1


@pytest.mark.parametrize("amount", [0.2, 0.5, 0.8])
def test_fading_takes_the_share_of_dyes_that_it_says(amount):
    """Read back from a gray wedge: contrast in density is M left; the lefts' mean is 1 - amount."""
    wedge = np.broadcast_to(np.linspace(0, 1, 64, dtype=np.float32), (3, 8, 64))
    chain, dyes = parse(f"fade:amount={amount}"), DEGRADATIONS["fade"].dyes
    for index in range(6):
        done = chain.apply(wedge, chain.sample(generator(5, index), wedge.shape[1:]))
        black = 10 ** -done.params[0]["black_density"]
        before, after = (
            -np.log10(black + (1 - black) * to_light(x).astype(np.float64))[:, 0]
            for x in (wedge, done.lq)
        )
        contrast = (after[:, 8] - after[:, 56]) / (before[:, 8] - before[:, 56])
        left = np.linalg.solve(dyes, contrast)
        # float32 light is off by 1e-6 of white, on a patch of 0.014 a 2e-4 of its density's 1.7.
        assert left == pytest.approx(done.params[0]["dyes_left_cmy"], abs=1e-3)
        assert np.exp(np.log(left).mean()) == pytest.approx(1 - amount, abs=1e-3)
        assert done.truth["damage.fade"].array == pytest.approx(amount, abs=1e-6)
        # Grays keep their order, shadows lift, white turns yellow.
        assert (np.diff(done.lq[:, 0], axis=1) > 0).all()
        assert done.lq[:, 0, 0].min() > 0.02
        assert done.lq[0, 0, -1] > done.lq[1, 0, -1] > done.lq[2, 0, -1]


def test_a_scan_leaves_three_maps(gt, tmp_path):
    write(Picture.from_rgb(gt / np.float32(255)), tmp_path / "a.png")
    rows = folder.degrade_folder(tmp_path / "a.png", tmp_path / "out", "scratch+dust+fade", seed=1)
    names = sorted(path.name for path in (tmp_path / "out" / "truth").iterdir())
    assert names == ["a.dust.png", "a.fade.png", "a.scratch.png"]
    fade = reader.read(tmp_path / "out" / "truth" / "a.fade.png").pixels
    amount = rows[0]["params"][2]["amount"]
    assert fade.dtype == np.uint16 and np.abs(fade / 65535 - amount).max() < 1e-5


@pytest.mark.parametrize("quality", [30, 92])
def test_jpeg_takes_bytes_and_their_floats_alike(quality, gt):
    chain = parse(f"jpeg:quality={quality}")
    sampled = chain.sample(generator(0, 0), SIZE)
    for view in (None, View(13, 40, 50, 60)):
        of_bytes = chain.apply(gt, sampled, view).lq
        assert np.array_equal(of_bytes, chain.apply(gt / np.float32(255), sampled, view).lq)


@pytest.mark.parametrize("quality", [10, 50, 95])
def test_jpeg_is_what_another_writer_of_jpeg_leaves(quality, gt):
    chain = parse(f"jpeg:quality={quality}")
    whole = pyvips.Image.new_from_array(np.ascontiguousarray(gt.transpose(1, 2, 0)))
    seen = set()
    for index in range(6):
        sampled = chain.sample(generator(0, index), SIZE)
        chroma = sampled.params[0]["subsampling"]
        mode = {"4:2:0": "on", "4:4:4": "off"}[chroma]
        file = whole.jpegsave_buffer(Q=quality, subsample_mode=mode)
        expected = pyvips.Image.jpegload_buffer(file).numpy().transpose(2, 0, 1)
        assert np.array_equal(np.round(chain.apply(gt, sampled).lq * 255), expected)
        seen.add(chroma)
    assert seen == ({"4:4:4"} if quality >= 90 else {"4:2:0", "4:4:4"})


def test_resize_reads_all_that_its_taps_reach():
    """Six taps each way: at factor 0.3 a margin of 4 + 4 / 0.3 was too small once in a while."""
    for factor in np.linspace(0.1, 4, 60):
        chain = parse(f"resize:factor={factor}")
        (step,) = chain.sample(generator(0, 0), (311, 311)).steps
        for first in range(0, 311 - 97, 13):
            view = View(first, first, 97, 97)
            outer = step.reads(view)
            start, weights = step.there_and_back(0, first, 97)
            assert outer.top <= start
            assert start + weights.shape[1] <= outer.top + outer.height


def test_resize_softens_the_reference_alike(gt):
    chain = parse("resize:factor=0.5+noise:sigma=0")
    done = chain.apply(gt, chain.sample(generator(0, 0), SIZE))
    assert np.abs(done.lq - done.gt).max() < 1e-6
    assert np.abs(done.gt - gt / 255).mean() > 0.01


def test_a_lens_softens_the_reference_alike_in_light(gt):
    chain = parse("lens:sigma=2+noise:sigma=0")
    done = chain.apply(gt, chain.sample(generator(0, 0), SIZE))
    assert np.abs(done.lq - done.gt).max() < 1e-5
    assert np.abs(done.gt - gt / 255).mean() > 0.01
    # Of a picture in black and white the light is kept: the middle gray of a fine grid is 188.
    grid = np.broadcast_to((np.indices(SIZE).sum(0) % 2 * 255).astype(np.uint8), (3, *SIZE))
    chain = parse("lens:sigma=2")
    even = chain.apply(grid, chain.sample(generator(0, 0), SIZE)).gt * 255
    np.testing.assert_allclose(even, 187.5, atol=0.5)
    # As wide as it says.
    kernel = gaussian_kernel(1.5)
    at = np.arange(len(kernel)) - len(kernel) // 2
    assert (kernel.sum(0) * at**2).sum() == pytest.approx(1.5**2, rel=0.01)
    assert kernel.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "scale"), [("set5", 2), ("set5", 3), ("set5", 4), ("set14", 2), ("set14", 4)]
)
def test_down_reproduces_the_stored_files(name, scale, shared):
    folder = shared(f"data/sr/{name}")
    found = 0
    for path in sorted((folder / "HR").glob("*.png")):
        stored = folder / f"LR_bicubic/X{scale}" / f"{path.stem}x{scale}.png"
        if not stored.exists():
            continue
        # MATLAB resizes a gray picture as any one channel of a colour one.
        hr = np.broadcast_to(reader.read(path).pixels, (*reader.shape_of(path), 3))
        hr = hr.transpose(2, 0, 1)
        chain = parse(f"down:scale={scale}")
        lq = chain.apply(hr, chain.sample(generator(0, 0), hr.shape[1:])).lq
        expected = reader.read(stored).pixels.transpose(2, 0, 1)
        assert np.array_equal(np.round(lq * 255), np.broadcast_to(expected, lq.shape)), path.name
        found += 1
    assert found >= 5


def test_camera_order():
    assert camera_order(["jpeg", "noise", "blur", "haze", "raindrop"]) == [
        "haze", "blur", "raindrop", "noise", "jpeg",
    ]  # fmt: skip
    # A print ages after it was taken, and before it is scanned.
    assert camera_order(["jpeg", "dust", "noise", "scratch", "lowlight", "fade", "sensor"]) == [
        "lowlight", "fade", "scratch", "dust", "sensor", "noise", "jpeg",
    ]  # fmt: skip
    with pytest.raises(RecipeError, match="'haze'"):
        camera_order(["hase"])


def test_a_spec_says_the_same_when_read_again():
    for text in ("noise", "haze:beta=0.15..0.6+noise:sigma=25+jpeg", "down:scale=3,kernel=bicubic"):
        assert str(parse(str(parse(text)))) == str(parse(text))
    assert str(parse("noise:sigma=25")) == "noise:sigma=25"


def test_log_ranges_draw_alike_in_every_octave():
    chain = parse("sensor:iso=100..6400")
    isos = [chain.sample(generator(0, i), (8, 8)).params[0]["iso"] for i in range(400)]
    assert np.median(isos) == pytest.approx(800, rel=0.25)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "noise:sigma=25"),
        ("noise+", "noise:sigma=25"),
        ("hase", "'haze'"),
        ("haze:bata=1", "'beta'.*beta=0..8"),
        ("noise:sigma=300", "0..255"),
        ("noise:sigma=-1", "0..255"),
        ("noise:sigma=nan", "number"),
        ("noise:sigma=9..5", "backwards"),
        ("noise:sigma=1..2..3", "low..high"),
        ("noise:sigma", "needs a value"),
        ("down:kernel=cubic", "'bicubic'"),
    ],
)
def test_a_wrong_spec_is_one_line_that_helps(text, says):
    with pytest.raises(RecipeError, match=says) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_a_view_outside_or_a_cut_picture_is_refused(gt):
    chain = parse("noise")
    sampled = chain.sample(generator(0, 0), SIZE)
    with pytest.raises(ShapeError, match="does not lie"):
        chain.apply(gt, sampled, View(100, 0, 64, 64))
    with pytest.raises(ShapeError, match="whole photograph"):
        chain.apply(gt[:, :64], sampled)
    down = parse("down:scale=2")
    with pytest.raises(ShapeError, match="multiples"):
        down.apply(gt, down.sample(generator(0, 0), SIZE), View(1, 0, 64, 64))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (17, 5)])
def test_tiny_pictures_can_be_damaged(name, size):
    chain = parse("down:scale=1" if name == "down" else name)
    gt = torch.rand(3, *size, generator=generator(0, 0))
    done = chain.apply(gt, chain.sample(generator(0, 1), size))
    assert done.lq.shape == (3, *size) and np.isfinite(done.lq).all()


@pytest.mark.parametrize(
    ("spec", "low", "high"),
    [
        ("noise:sigma=25", 20.3, 20.8),
        ("haze:beta=0.15..0.6", 12, 16),
        ("rain:density=0.002..0.006", 18, 21),
        ("raindrop:count=40..80", 16, 24),
        ("blur:length=11..17", 21, 24),
        ("lowlight:gain=0.12..0.3", 8, 12),
        ("jpeg:quality=10..30", 27, 29),
    ],
)
def test_the_evaluation_damages_are_as_severe_as_they_should_be(spec, low, high, shared):
    root = shared("data/bsds500")
    chain, values = parse(spec), []
    for index, name in enumerate((root / "cbsd68_ids.txt").read_text().split()[::5]):
        gt = reader.read(root / f"images/val/{name}.jpg").pixels.transpose(2, 0, 1)
        sampled = chain.sample(generator(11, index), gt.shape[1:])
        done = chain.apply(gt, sampled, truth=False, finish="uint8")
        values.append(-10 * np.log10(np.mean((done.lq - done.gt) ** 2)))
    # Every fifth picture; benchmarks/degrade.py prints the figures of all 68.
    assert low <= np.mean(values) <= high
