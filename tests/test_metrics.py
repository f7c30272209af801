"""The metrics against scikit-image, scipy and arithmetic done by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from relume.errors import ShapeError, UsageError
from relume.lab.metrics import (
    Protocol,
    _ssim_map,
    as_uint8,
    best_shift,
    collapse_curve,
    collapsed,
    crop_border,
    mcr,
    psnr,
    share_bounds,
    share_upper,
    ssim,
    worst_tile,
    y_channel,
)


def noisy(shape, sigma, seed=0):
    rng = np.random.default_rng(seed)
    x = np.linspace(0, 1, shape[-1]) * np.linspace(0.3, 1, shape[-2])[:, None]
    gt = np.broadcast_to(x, shape).copy()
    return np.clip(gt + rng.normal(0, sigma, shape), 0, 1), gt


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.4])
@pytest.mark.parametrize("shape", [(2, 3, 40, 57), (1, 1, 11, 11), (3, 3, 64, 33)])
def test_psnr_and_ssim_are_those_of_scikit_image(shape, sigma):
    out, gt = noisy(shape, sigma)
    for i in range(shape[0]):
        expected = structural_similarity(
            out[i],
            gt[i],
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
        )
        assert ssim(out, gt)[i].item() == pytest.approx(expected, abs=1e-9)
        expected = peak_signal_noise_ratio(gt[i], out[i], data_range=1.0)
        assert psnr(out, gt)[i].item() == pytest.approx(expected, abs=1e-9)


def test_equal_pictures_score_sixty_decibels_and_one():
    x = torch.rand(2, 3, 16, 16)
    assert psnr(x, x).tolist() == [60, 60]
    assert ssim(x, x).tolist() == pytest.approx([1, 1])
    assert psnr(x, x + 1e-5).tolist() == [60, 60]


def test_an_error_of_one_level_is_48_13_decibels():
    x = torch.full((1, 3, 16, 16), 0.5)
    assert psnr(x + 1 / 255, x).item() == pytest.approx(20 * math.log10(255), abs=1e-4)


def test_y_is_matlabs_rgb2ycbcr():
    colours = torch.eye(3)[:, :, None, None]  # red, green, blue
    extremes = torch.stack([torch.zeros(3, 1, 1), torch.ones(3, 1, 1)])
    y = y_channel(torch.cat([colours, extremes])).flatten() * 255
    # rgb2ycbcr(im2uint8([1 0 0; 0 1 0; 0 0 1; 0 0 0; 1 1 1])), first column: 81 145 41 16 235
    assert y.round().tolist() == [81, 145, 41, 16, 235]


def test_rounding_is_that_of_an_eight_bit_file():
    x = torch.tensor([-0.3, 0.4999 / 255, 0.5001 / 255, 254.6 / 255, 1.7])
    assert (as_uint8(x) * 255).tolist() == [0, 0, 1, 255, 255]


def test_a_shape_that_does_not_fit_is_refused_in_one_line():
    x = torch.rand(1, 3, 20, 20)
    for bad in (x[0], torch.rand(1, 1, 20, 20)):
        with pytest.raises(ShapeError, match="one shape"):
            psnr(x, bad)
    with pytest.raises(ShapeError, match="at least 11"):
        ssim(x[..., :10], x[..., :10])
    with pytest.raises(ShapeError, match="leaves nothing"):
        crop_border(x, 10)
    with pytest.raises(ShapeError, match="RGB"):
        y_channel(x[:, :1])


def test_three_decibels_below_the_input_are_not_yet_a_collapse():
    before = np.array([30.0, 30.0, 30.0, 44.9, 45.0, 60.0])
    after = np.array([27.0, 26.99, 35.0, 41.8, 20.0, 20.0])
    assert collapsed(after, before).tolist() == [False, True, False, True, True, True]
    assert mcr(after, before) == pytest.approx(2 / 4)  # inputs from 45 dB are not judged
    assert mcr(after[4:], before[4:]) is None


@pytest.mark.parametrize(("count", "n"), [(0, 68), (1, 20), (3, 68), (10, 10), (0, 1), (50, 3000)])
def test_bounds_of_a_share_are_clopper_and_pearsons(count, n):
    low, high = share_bounds(count, n)
    expected = stats.binomtest(count, n).proportion_ci(0.95, method="exact")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    expected = stats.binomtest(count, n, alternative="less").proportion_ci(0.95, method="exact")
    assert share_upper(count, n) == pytest.approx(expected.high, abs=1e-9)


def test_none_of_n_is_the_rule_of_three():
    assert share_upper(0, 68) == pytest.approx(3 / 68, rel=0.03)
    assert share_upper(0, 0) == 1


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-4, 4)])
def test_alignment_finds_the_shift_and_judges_the_same_window(shift):
    _, gt = noisy((1, 1, 48, 40), 0.0)
    gt = torch.from_numpy(gt + 0.2 * np.random.default_rng(1).random(gt.shape))
    out = torch.roll(gt, shift, (-2, -1))
    assert best_shift(out, gt, 4) == shift
    score = Protocol(align=4).score(out.expand(1, 3, -1, -1), gt.expand(1, 3, -1, -1))
    assert score["psnr"] == 60
    assert score["shift"] == list(shift)


def test_a_protocol_clips_rounds_crops_and_takes_luma():
    out, gt = noisy((1, 3, 40, 40), 0.1)
    out = out + 0.3 * (out > 0.9)
    clipped = np.clip(out, 0, 1)
    rounded = np.round(clipped * 255) / 255
    gt8 = np.round(gt * 255) / 255

    def expected(a, b):
        return psnr(a, b).item()

    assert Protocol().score(out, gt)["psnr"] == pytest.approx(expected(rounded, gt8))
    assert Protocol(rounding="none").score(out, gt)["psnr"] == pytest.approx(expected(clipped, gt))
    inner = np.s_[..., 4:-4, 4:-4]
    found = Protocol(channels="y", crop=4).score(out, gt)["psnr"]
    assert found == pytest.approx(expected(y_channel(rounded)[inner], y_channel(gt8)[inner]))


def test_a_protocol_refuses_words_it_does_not_know():
    with pytest.raises(UsageError, match=r"channels must be one of rgb, y, got 'Y'"):
        Protocol(channels="Y")
    with pytest.raises(UsageError, match="crop counts pixels"):
        Protocol(crop=-1)
    with pytest.raises(UsageError, match="Did you mean 'uint8'"):
        Protocol(rounding="uint")


def test_protocols_survive_json_and_name_where_they_differ():
    one = Protocol(
        crop=4, channels="y", spec="noise:sigma=25", seed=11, noise="uint8", told=("noise.sigma",)
    )
    assert Protocol.from_json(one.to_json()) == one
    assert one.difference(one) is None
    assert "told" in str(Protocol(told=("noise.sigma",)).difference(Protocol()))
    assert Protocol(crop=4).difference(Protocol()) == "crop is 4 in one and 0 in the other"


def test_the_collapse_curve_falls_and_is_strict():
    curve = collapse_curve(np.array([27.0, 26.9, 31.0, 20.0]), np.array([30.0] * 4))
    assert curve["0"] == 0.75 and curve["2"] == 0.75
    assert curve["3"] == 0.5  # exactly 3 dB is no collapse
    assert curve["5"] == 0.25 and curve["10"] == 0.0
    assert collapse_curve([], []) == {}


def test_a_glitch_in_one_tile_is_found_where_psnr_hardly_sees_it():
    rng = torch.Generator().manual_seed(0)
    gt = torch.rand(1, 3, 256, 320, generator=rng)
    before = (gt + 0.1 * torch.randn(gt.shape, generator=rng)).clamp(0, 1)
    out = gt + (before - gt) * 0.5
    assert worst_tile(out, before, gt) == pytest.approx(-6.02, abs=0.01)  # every tile gained
    out[..., 64:128, 128:192] = gt[..., 64:128, 128:192] + 0.15
    assert float(psnr(out, gt) - psnr(before, gt)) > 1  # as a whole it got better
    assert worst_tile(out, before, gt) > 3
    assert worst_tile(gt, gt, gt) is None
    assert worst_tile(out[..., :9, :7], before[..., :9, :7], gt[..., :9, :7]) is not None


def test_scores_inside_a_part_and_outside_are_those_of_its_pixels():
    gt = torch.full((1, 3, 40, 60), 0.5, dtype=torch.float64)
    out = gt.clone()
    out[..., 10:20, 10:30] += 51 / 255  # an error of 0.2 inside,
    out[..., 0, :] += 5.1 / 255  # and of 0.02 in one row of 40 outside
    inside = np.zeros((40, 60), bool)
    inside[10:20, 10:30] = True
    protocol = Protocol(rounding="none")
    scores = protocol.score(out, gt, inside)
    assert scores["psnr_inside"] == pytest.approx(-10 * math.log10(0.2**2))
    assert scores["psnr_outside"] == pytest.approx(-10 * math.log10(0.02**2 * 60 / 2200))
    windows, part = _ssim_map(out, gt), torch.from_numpy(inside)[5:-5, 5:-5]
    assert scores["ssim_inside"] == pytest.approx(windows[..., part].mean().item())
    share = part.double().mean().item()
    mean = share * scores["ssim_inside"] + (1 - share) * scores["ssim_outside"]
    assert mean == pytest.approx(scores["ssim"])
    plain = protocol.score(out, gt)
    assert plain == {key: scores[key] for key in ("psnr", "ssim")}
    # Of no pixel nothing is said, and a border that is cropped is no part either.
    assert protocol.score(out, gt, np.zeros((40, 60), bool)).keys() == {
        "psnr",
        "ssim",
        "psnr_outside",
        "ssim_outside",
    }
    edge = np.zeros((40, 60), bool)
    edge[:12] = True
    assert "psnr_inside" not in Protocol(crop=12).score(out, gt, edge)
