"""The all-in-one protocol: whole lists, the published noise, both averages and both SSIMs."""

from pathlib import Path

import numpy as np
import pytest
from all_in_one import counting, every_set, picture
from skimage.metrics import structural_similarity

from relume.errors import CheckError, UsageError
from relume.lab.metrics import ssim_uniform
from relume.lab.pairs import FilePair
from relume.lab.reproduce import allinone
from relume.lab.reproduce.allinone import (
    TESTING,
    averages,
    awgn,
    centre,
    columns,
    generators,
    markdown,
    measure,
)
from relume.lab.tasks import SIGMAS, TRAINING, epoch_size, held_out, training


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """Every set of the protocol with two pictures in each half, and counts to match."""
    every_set(tmp_path)
    counting(monkeypatch)
    return tmp_path


def test_counts_and_repeats_are_the_published_ones():
    assert [(p.task, p.count) for p in TRAINING] == [
        ("noise", 5144), ("rain", 200), ("haze", 72135), ("blur", 2103), ("lowlight", 485),
    ]  # fmt: skip
    assert [(p.task, p.count) for p in TESTING] == [
        ("haze", 500), ("rain", 100), ("noise", 68), ("blur", 1111), ("lowlight", 15),
    ]  # fmt: skip
    assert [epoch_size(n) for n in (3, 5)] == [142_431, 162_646]
    assert [epoch_size(n, "perceive-ir") for n in (3, 5)] == [205_863, 336_853]
    with pytest.raises(UsageError, match="3 or 5 tasks, got 4"):
        epoch_size(4)


def test_a_training_set_is_every_pair_of_every_list(root):
    found = training(5, root)
    assert list(found) == ["noise", "rain", "haze", "blur", "lowlight"]
    assert [len(pairs) for pairs in found.values()] == [2] * 5
    assert list(training(3, root)) == ["noise", "rain", "haze"]
    hazy = found["haze"][0]
    assert (hazy.lq.name, hazy.gt.name) == ("1_0.8_0.1.png", "1.png")
    assert found["noise"][0].lq == found["noise"][0].gt
    assert found["blur"][1].name == "A/2"


def _rename_list(root):
    (root / "Denoise/denoise.txt").rename(root / "Denoise/denoise_airnet.txt")


def _one_less_listed(root):
    (root / "Denoise/denoise.txt").write_text("1.png\n")


def _gone(*names):
    return lambda root: [(root / name).unlink() for name in names]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_rename_list, "no list Denoise/denoise.txt"),
        (_rename_list, "there is denoise_airnet.txt: rename the right one"),
        (_one_less_listed, "BSD400 + WED has 2 pictures in the all-in-one protocol"),
        (_gone("Denoise/2.png"), "1 are not there: 2.png"),
        (_gone("RESIDE-OTS/clear/2.png"), "no clear one in RESIDE-OTS/clear: 2_0.8_0.1.png"),
        (_gone("Rain100L/train/rain-1.png"), "have no partner"),
        (_gone("LOL/our485/low/1.png", "LOL/our485/high/1.png"), "LOL-v1 has 2 pictures"),
        (_gone("GoPro/train/A/blur/1.png", "GoPro/train/A/blur/2.png"), "have no partner"),
    ],
)
def test_a_set_that_is_not_the_protocols_is_one_line(root, change, says):
    change(root)
    with pytest.raises(UsageError) as caught:
        training(5, root)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_variant_of_a_test_set_is_not_measured(root):
    (root / "SOTS/outdoor/hazy/2_0.8_0.2.png").unlink()
    haze = columns(3)[0]
    assert "SOTS-Outdoor has 2 pictures" in haze.absent(root)
    assert not columns(3)[1].absent(root)
    (root / "SOTS/outdoor/hazy/1_0.8_0.2.png").unlink()
    assert "expected SOTS/outdoor/hazy beside SOTS/outdoor/gt" in haze.absent(root)


def test_three_tasks_have_three_columns_of_noise_and_five_have_one():
    assert [c.name for c in columns(3)] == ["haze", "rain", "noise15", "noise25", "noise50"]
    assert [c.name for c in columns(5)] == ["haze", "rain", "noise25", "blur", "lowlight"]


def test_noise_is_the_published_realisation_to_the_last_bit(root):
    """Written again as the published test script has it: one global seed, sigma by sigma, file by
    file, each crop (H, W, 3), clipped and cast."""
    clean = [centre(np.rint(255 * picture(root / f"x/{i}.png", i)), 16) for i in (1, 2)]
    legacy = np.random.RandomState(0)
    wanted = {
        sigma: [
            np.clip(x.transpose(1, 2, 0) + legacy.randn(*x.shape[1:], 3) * sigma, 0, 255)
            .astype(np.uint8).transpose(2, 0, 1)
            for x in clean
        ]
        for sigma in SIGMAS
    }  # fmt: skip
    by_name = {c.name: c for c in (*columns(5), *columns(3))}
    for sigma in SIGMAS:
        items = by_name[f"noise{sigma}"].pairs(root).items
        for pair, noisy, good in reversed(list(zip(items, wanted[sigma], clean, strict=True))):
            loaded = pair.load()
            assert loaded.lq.shape == (1, 3, 32, 32)
            assert np.array_equal(np.rint(loaded.lq[0] * 255), noisy)
            assert np.array_equal(np.rint(loaded.gt[0] * 255), good)


def test_noise_is_cut_and_not_rounded():
    state = generators(((32, 32),))[0]
    clean = np.full((3, 32, 32), 128, np.uint8)
    drawn = np.random.RandomState(0).randn(32, 32, 3).transpose(2, 0, 1)
    assert np.array_equal(awgn(clean, 0.5, state), np.floor(128 + 0.5 * drawn))
    assert awgn(clean, 0.5, state).mean() < 127.7  # half a level darker than rounding makes it


@pytest.mark.parametrize("base", [1, 16])
def test_pictures_are_cut_at_the_centre(base):
    rows = np.arange(35)[None, :, None] * np.ones((3, 1, 50))
    cut = centre(rows, base)
    assert cut.shape == ((3, 32, 48) if base == 16 else (3, 35, 50))
    assert cut[0, 0, 0] == (1 if base == 16 else 0)  # of a rest of 3, one above and two below
    with pytest.raises(UsageError, match="no multiple of 16"):
        centre(rows[:, :9], 16)


def test_ssim_is_scikit_images_default():
    rng = np.random.default_rng(0)
    a = rng.random((1, 3, 24, 30))
    b = np.clip(a + 0.2 * rng.standard_normal(a.shape), 0, 1)
    wanted = structural_similarity(a[0], b[0], channel_axis=0, data_range=1.0)
    assert float(ssim_uniform(a, b)) == pytest.approx(wanted, abs=1e-9)
    assert float(ssim_uniform(a, a)) == 1


def test_a_measured_table_says_both_averages_and_both_ssims(root):
    def darker(lq):
        return lq * 0.9 + 2 * (lq > 0.99)  # what is out of range is clipped

    scores = [measure(darker, column, root) for column in columns(3)]
    again = measure(darker, columns(3)[2], root)
    assert again.inputs == scores[2].inputs != scores[3].inputs
    haze = scores[0]
    lq, gt = (columns(3)[0].pairs(root).items[0].load().__dict__[k] for k in ("lq", "gt"))
    out = np.clip(darker(lq), 0, 1)[0].astype(float)
    assert haze.psnr[0] == pytest.approx(-10 * np.log10(((out - gt[0]) ** 2).mean()), abs=1e-4)
    for found, options in (
        (haze.uniform[0], {}),
        (
            haze.gaussian[0],
            {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
        ),
    ):
        assert found == pytest.approx(
            structural_similarity(
                out, gt[0].astype(float), channel_axis=0, data_range=1.0, **options
            ),
            abs=1e-6,
        )
    text = markdown(scores)
    assert "mean of columns | 5 |" in text and "mean of pictures | 10 |" in text
    assert haze.inputs[:12] in text
    with pytest.raises(CheckError, match="in which 1 values are not"):
        measure(lambda lq: np.where(np.arange(lq.size).reshape(lq.shape) == 5, np.nan, lq),
                columns(3)[0], root)  # fmt: skip


def test_columns_weigh_alike_and_pictures_weigh_alike():
    """Perceive-IR's own columns give 32.63 and 31.91, and 29.84 and 29.56 of five tasks."""
    three = ((30.87, 500), (38.29, 100), (34.13, 68), (31.53, 68), (28.31, 68))
    five = ((28.19, 500), (37.25, 100), (31.44, 68), (29.46, 1111), (22.88, 15))
    for rows, wanted in ((three, (32.63, 31.91)), (five, (29.84, 29.56))):
        scores = [
            allinone.Score("", *(np.full(n, value) for _ in range(3)), "") for value, n in rows
        ]
        found = averages(scores)
        for name, value in zip(("columns", "images"), wanted, strict=True):
            assert found[name][0] == pytest.approx(value, abs=0.005)


def test_what_is_held_out_is_a_fiftieth_of_the_clean_pictures():
    def hazy(folder):
        return [
            FilePair(name := f"{i:04}_0.{j}_0.1", folder / f"{name}.jpg", folder / f"{i:04}.jpg")
            for i in range(200)
            for j in range(5)
        ]  # fmt: skip

    trained, kept = held_out(hazy(Path("/one")))
    assert len(trained) == 980 and len(kept) == 20
    stems = {pair.gt.stem for pair in kept}
    assert len(stems) == 4 and not stems & {pair.gt.stem for pair in trained}
    assert [p.name for p in held_out(hazy(Path("/two/three")))[1]] == [p.name for p in kept]
    frames = [FilePair(f"S{s}/{i}", Path(f"S{s}/b/{i}"), Path(f"S{s}/s/{i}")) for s in range(5)
              for i in range(10)]  # fmt: skip
    assert len(held_out(frames)[1]) == 1
    assert len(held_out(frames[:1])[1]) == 1
