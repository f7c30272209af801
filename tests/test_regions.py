"""Region means, dropout and partitions: against the plain form, and laws."""

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from relume.errors import MissingError, ShapeError, UsageError
from relume.lab.regions import (
    drop_regions,
    gather_regions,
    region_log_variance,
    region_mean,
    region_tokens,
    region_variance,
)
from relume.priors import PRIORS
from relume.priors.regions import RegionsPrior, partition, regions


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(n: int, c: int, h: int, w: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(n, c, h, w, generator=rng(1), dtype=dtype)


def label_map(n: int, h: int, w: int, count: int) -> Tensor:
    return torch.randint(0, count, (n, h, w), generator=rng(2), dtype=torch.int32)


def masked_average(f: Tensor, labels: Tensor) -> Tensor:
    """The plain form, mask by mask: sum of mean_k * mask_k, label 0 being the shared remainder."""
    out = torch.zeros_like(f)
    for n in range(len(f)):
        for k in labels[n].unique():
            mask = labels[n] == k
            out[n] += (f[n] * mask).sum((1, 2), keepdim=True) / mask.sum() * mask
    return out


@pytest.mark.parametrize("count", [1, 2, 7, 300])
@pytest.mark.parametrize("n", [1, 3])
def test_a_region_mean_is_the_average_under_each_mask(n, count):
    f, labels = picture(n, 5, 23, 31), label_map(n, 23, 31, count)
    torch.testing.assert_close(region_mean(f, labels), masked_average(f, labels), rtol=0, atol=1e-6)


def test_region_means_agree_with_float64_at_a_megapixel():
    f, labels = picture(1, 3, 1024, 1024), label_map(1, 1024, 1024, 3)
    f[:, 1] = 0.1  # a flat plane: long sums of one value drift furthest in float32
    flat = labels.flatten().numpy()
    truth = np.stack([np.bincount(flat, p.flatten().double()) / np.bincount(flat) for p in f[0]])
    assert np.abs(region_tokens(f, labels)[0].T.numpy() - truth).max() < 2e-6


def test_a_constant_stays_what_it_is():
    # Masks that overlap add up to 2 in the original unit; a partition cannot.
    assert torch.equal(
        region_mean(torch.ones(2, 3, 9, 9), label_map(2, 9, 9, 4)), torch.ones(2, 3, 9, 9)
    )


def test_all_that_is_dropped_shares_one_mean():
    f = picture(1, 2, 8, 8)
    labels = torch.ones(1, 8, 8, dtype=torch.int32)
    labels[:, 0], labels[:, 5] = 0, 0
    mean = region_mean(f, labels)
    assert torch.equal(mean[:, :, 0], mean[:, :, 5])
    torch.testing.assert_close(mean[0, :, 0, 0], f[:, :, [0, 5]].mean((0, 2, 3)))


def test_an_empty_label_has_a_zero_row_and_no_nan():
    tokens = region_tokens(picture(1, 3, 4, 4), torch.full((1, 4, 4), 2, dtype=torch.int32), 6)
    assert tokens.shape == (1, 6, 3)
    assert tokens[0, [0, 1, 3, 4, 5]].abs().max() == 0
    assert tokens[0, 2].min() > 0


def test_the_batch_does_not_mix():
    f, labels = picture(3, 2, 6, 7), label_map(3, 6, 7, 5)
    alone = torch.cat([region_mean(f[i : i + 1], labels[i : i + 1], 5) for i in range(3)])
    assert torch.equal(region_mean(f, labels, 5), alone)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_region_means_turn_with_the_picture(turns, flip):
    def turned(x: Tensor) -> Tensor:
        x = torch.rot90(x, turns, (-2, -1))
        return x.flip(-1) if flip else x

    f, labels = picture(2, 3, 12, 17), label_map(2, 12, 17, 4)
    torch.testing.assert_close(
        region_mean(turned(f), turned(labels)), turned(region_mean(f, labels)), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("function", [region_mean, region_variance, region_log_variance])
def test_gradients_are_right(function):
    f = picture(2, 2, 3, 4, torch.float64).requires_grad_()
    labels = label_map(2, 3, 4, 3)
    assert torch.autograd.gradcheck(lambda x: function(x, labels, 4), (f,))


def test_variance_is_numpys_and_exact_far_from_zero():
    f, labels = 100 + 0.01 * picture(1, 1, 40, 40, torch.float64), label_map(1, 40, 40, 3)
    variance = region_variance(f.float(), labels)
    for k in range(3):
        expected = f.float().double()[0, 0][labels[0] == k].numpy().var()
        assert variance[0, 0][labels[0] == k].double().numpy() == pytest.approx(expected, rel=1e-3)


def test_log_variance_of_a_flat_region_is_its_floor():
    f = torch.full((1, 1, 4, 4), 0.3)
    labels = torch.ones(1, 4, 4, dtype=torch.int32)
    assert region_log_variance(f, labels).mean().item() == pytest.approx(np.log(1e-6), rel=1e-5)


def test_half_precision_is_summed_in_float32():
    f = picture(1, 3, 256, 256).bfloat16()
    mean = region_mean(f, torch.ones(1, 256, 256, dtype=torch.int64))
    assert mean.dtype == torch.bfloat16
    expected = f.float().mean((2, 3))
    torch.testing.assert_close(mean[:, :, 0, 0].float(), expected, rtol=0, atol=2e-3)


def test_tiles_gather_the_whole_pictures_means():
    f, labels = picture(1, 3, 16, 24), label_map(1, 16, 24, 6)
    whole, tokens = region_mean(f, labels), region_tokens(f, labels)
    assert torch.equal(gather_regions(tokens, labels[:, 4:12, 8:20]), whole[:, :, 4:12, 8:20])


@pytest.mark.parametrize("bad", [-1, 5])
def test_a_label_out_of_range_is_an_error(bad):
    labels = label_map(1, 4, 4, 5)
    labels[0, 1, 1] = bad
    with pytest.raises(ShapeError, match=r"0\.\.4"):
        region_mean(picture(1, 3, 4, 4), labels, 5)
    with pytest.raises(ShapeError, match=r"0\.\.4"):
        gather_regions(torch.zeros(1, 5, 3), labels)


def test_labels_of_another_size_or_kind_are_errors():
    with pytest.raises(ShapeError, match="Resize the Guide"):
        region_mean(picture(1, 3, 4, 4), label_map(1, 8, 8, 2))
    with pytest.raises(ShapeError, match="int32 or int64"):
        region_mean(picture(1, 3, 4, 4), torch.zeros(1, 4, 4))
    with pytest.raises(ShapeError, match="floating"):
        region_mean(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), label_map(1, 4, 4, 2))


# Dropout


@pytest.mark.parametrize("share", [0.0, 0.2, 0.29, 0.5, 1.0])
@pytest.mark.parametrize("k", [1, 2, 7, 100, 300])
def test_dropout_drops_an_exact_count(share, k):
    labels = torch.arange(1, k + 1, dtype=torch.int32).repeat(
        2, 3, 1
    )  # (2, 3, k), every label there
    kept = drop_regions(labels, share, rng())
    expected = int(round(share * 100) * k // 100)
    for row in kept:
        assert len(set(row.unique().tolist()) - {0}) == k - expected
    assert torch.equal(kept[kept > 0], labels[kept > 0])


def test_dropout_counts_only_the_regions_of_each_picture():
    labels = torch.tensor([[[9, 9, 4, 0]], [[1, 2, 3, 4]]], dtype=torch.int32)
    kept = drop_regions(labels, 0.5, rng())
    assert [len(set(row.unique().tolist()) - {0}) for row in kept] == [1, 2]


def test_dropout_never_touches_its_input_and_repeats_with_its_generator():
    labels = label_map(2, 8, 8, 9)
    before = labels.clone()
    first, again = drop_regions(labels, 0.5, rng(5)), drop_regions(labels, 0.5, rng(5))
    assert torch.equal(labels, before)
    assert torch.equal(first, again)
    assert drop_regions(labels, 0.0, rng()).data_ptr() != labels.data_ptr()
    draws = {tuple(drop_regions(labels, 0.5, rng(s)).unique().tolist()) for s in range(8)}
    assert len(draws) > 1


def test_dropout_lets_every_region_go_equally_often():
    labels = torch.arange(1, 9, dtype=torch.int32)[None, None].expand(4000, 1, 8)
    gone = (drop_regions(labels, 0.25, rng()) == 0).float().mean(0)
    assert (gone - 0.25).abs().max() < 4 * (0.25 * 0.75 / 4000) ** 0.5


def test_dropout_of_a_share_beyond_one_is_an_error():
    with pytest.raises(UsageError, match=r"got 1\.5"):
        drop_regions(label_map(1, 2, 2, 2), 1.5, rng())


# Partition


def painted(layers: np.ndarray) -> np.ndarray:
    """The plain form: paint from large to small, of equals the earlier last."""
    out = np.ones(layers.shape[1:], np.int32)
    for i in sorted(range(len(layers)), key=lambda i: (-layers[i].sum(), -i)):
        out[layers[i]] = i + 2
    return out


@pytest.mark.parametrize("count", [0, 1, 5, 300])
def test_a_partition_is_masks_painted_from_large_to_small(count):
    draw = np.random.default_rng(count)
    corner = draw.integers(0, 20, (2, count, 2))
    side = draw.integers(1, 14, (2, count, 2))
    y, x = np.mgrid[:24, :31]
    layers = (
        (y >= corner[..., 0, None, None])
        & (y < (corner + side)[..., 0, None, None])
        & (x >= corner[..., 1, None, None])
        & (x < (corner + side)[..., 1, None, None])
    )
    labels = partition(layers)
    assert labels.dtype == np.int32
    for got, masks in zip(labels, layers, strict=True):
        assert np.array_equal(got, painted(masks))
    assert np.array_equal(partition(layers[0]), labels[0])


def test_of_two_equal_masks_the_earlier_wins():
    assert set(partition(np.ones((2, 3, 3), bool)).flat) == {2}


def test_masks_that_are_not_masks_are_an_error():
    with pytest.raises(ShapeError, match="bool"):
        partition(np.zeros((2, 3, 3)))


# The prior


def test_regions_follow_what_is_in_the_picture(photo):
    guide = regions(photo)
    assert guide.kind == "regions"
    labels = guide.array
    assert labels.shape == (1, 96, 128)
    assert labels.dtype == np.int32
    assert sorted(np.unique(labels)) == list(range(1, labels.max() + 1))
    inside, outside = labels[0, 35:55, 45:85], labels[0, 75:95, 5:35]
    assert np.bincount(inside.flat).max() > 0.9 * inside.size  # the red box is one region
    assert not set(np.unique(inside)) & set(np.unique(outside))


def test_regions_of_a_reduced_picture_fit_the_whole(photo):
    labels = RegionsPrior(max_side=48)(photo).array
    assert labels.shape == (1, 96, 128)
    assert labels.min() == 1
    assert np.array_equal(labels, RegionsPrior(max_side=48)(photo).array)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2)])
@pytest.mark.parametrize("name", sorted(set(PRIORS) - {"damage", "quality", "sam"}))
def test_a_prior_speaks_of_pictures_of_any_size(name, size):
    guide = PRIORS[name]()(np.full((1, 3, *size), 0.5, np.float32))
    assert guide.kind == PRIORS[name].spec
    assert guide.batch == 1
    if guide.kind == "regions":
        assert guide.array.shape == (1, *size)


def test_sam_without_weights_is_refused_once_it_is_to_look(photo):
    prior = PRIORS["sam"]()
    assert prior.spec == "regions"
    with pytest.raises(MissingError, match="--sam FOLDER or HUB_ID") as error:
        prior(photo)
    assert "\n" not in str(error.value)


def test_without_scikit_image_the_command_that_mends_it_is_named(photo, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(MissingError, match=r"relume\[regions\]"):
        regions(photo)


# The exported graph


class Means(torch.nn.Module):
    """The count is the size of an extra input: a row per label."""

    def forward(self, f: Tensor, labels: Tensor, slots: Tensor) -> Tensor:
        return region_mean(f, labels, slots.shape[1])


def test_region_means_export_with_free_sizes_and_count(tmp_path):
    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "means.onnx"
    free = torch.export.Dim.DYNAMIC
    torch.onnx.export(
        Means().eval(),
        (picture(2, 3, 24, 32), label_map(2, 24, 32, 5), torch.zeros(2, 6, 1)),
        path,
        input_names=["f", "labels", "slots"],
        dynamic_shapes=(
            {0: free, 2: free, 3: free},
            {0: free, 1: free, 2: free},
            {0: free, 1: free},
        ),
        dynamo=True,
        verbose=False,
    )
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for n, h, w, count in [(2, 24, 32, 6), (2, 65, 40, 300), (1, 128, 96, 2), (1, 7, 9, 1)]:
        f, labels = picture(n, 3, h, w), label_map(n, h, w, count)
        feed = {
            "f": f.numpy(),
            "labels": labels.numpy(),
            "slots": np.zeros((n, count, 1), np.float32),
        }
        (out,) = session.run(None, feed)
        assert np.abs(out - region_mean(f, labels, count).numpy()).max() < 1e-6
