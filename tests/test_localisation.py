"""Average precision and correlation of severity maps, against sorting, scipy and loops."""

import numpy as np
import pytest
import torch
from scipy import stats

from relume.errors import ShapeError, UsageError
from relume.lab import localisation
from relume.lab.localisation import (
    BINS,
    REACH,
    Agreement,
    Ranking,
    average_precision,
    correlation,
    estimate,
    gradient_energy,
    histograms,
    moments,
)
from relume.lab.objectives import masks


def by_sorting(said, damaged, weight=None):
    """Average precision pixel by pixel; pixels of one score are one step."""
    said, damaged = said.ravel(), damaged.ravel()
    weight = np.ones(said.size) if weight is None else weight.ravel()
    area = recall = every = found = 0.0
    for score in sorted(set(said.tolist()), reverse=True):
        here = said == score
        every += weight[here].sum()
        found += weight[here & damaged].sum()
        now = found / weight[damaged].sum()
        area += (now - recall) * (found / every)
        recall = now
    return area


def picture(seed, size=(24, 30), prevalence=0.1):
    """What is said of a picture, where it is damaged, and weights."""
    rng = np.random.default_rng(seed)
    damaged = rng.random(size) < prevalence
    odds = rng.normal(-4, 1.5, size) + 2 * damaged
    return 1 / (1 + np.exp(-odds)), damaged, rng.random(size) ** 4


def rounded(said):
    """Severities in the middles of their bins."""
    middles = (np.arange(BINS) + 0.5) * (2 * REACH / BINS) - REACH
    at = np.digitize(np.log(said / (1 - said)), middles[:-1] + REACH / BINS)
    return 1 / (1 + np.exp(-middles[at]))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("prevalence", [0.003, 0.1, 0.9])
def test_average_precision_is_that_of_sorted_pixels(prevalence, weighted):
    said, damaged, weight = picture(1, prevalence=prevalence)
    weight = weight if weighted else None
    found, binned = average_precision(histograms(said, damaged, weight)), rounded(said)
    assert found == pytest.approx(by_sorting(binned, damaged, weight), abs=1e-12)
    odds = [np.log(p / (1 - p)) for p in (said, binned)]
    assert np.abs(odds[0] - odds[1]).max() <= REACH / BINS + 1e-9  # all that bins cost


def test_pixels_of_one_severity_are_one_step():
    said = np.array([[0.9, 0.5, 0.5, 0.5, 0.1]])
    damaged = np.array([[True, True, False, False, True]])
    # A third found at precision 1, then two of four, then three of five.
    expected = (1 + 2 / 4 + 3 / 5) / 3
    assert average_precision(histograms(said, damaged)) == pytest.approx(expected)
    assert by_sorting(said, damaged) == pytest.approx(expected)
    same = np.full((1, 5), 0.3)
    assert average_precision(histograms(same, damaged)) == pytest.approx(3 / 5)  # the prevalence


def test_severities_of_zero_and_one_have_bins():
    said, damaged = np.array([[0, 1, 1e-30]]), np.array([[False, True, False]])
    counts = histograms(said, damaged)
    assert counts.sum() == 4 and counts[0, 0] == 2 and counts[1, -1] == 1
    assert average_precision(counts) == 1


def test_pictures_are_pooled_and_weights_are_relative(monkeypatch):
    monkeypatch.setattr(localisation, "DRAWS", 20)
    pooled, double = Ranking(), Ranking()
    pictures = [picture(seed)[:2] for seed in range(3)]
    for i, (said, damaged) in enumerate(pictures):
        pooled.add(f"{i}", said, damaged)
        double.add(f"{i}", said, damaged, np.full(said.shape, 2.0))
    said, damaged = (np.concatenate(x) for x in zip(*pictures, strict=True))
    expected = by_sorting(rounded(said), damaged)
    assert pooled.average_precision().value == pytest.approx(expected, abs=1e-12)
    assert pooled.prevalence == pytest.approx(damaged.mean())
    assert double.average_precision() == pooled.average_precision()
    # Two pictures of one photograph are one row: its pixels.
    twice = Ranking()
    for said, damaged in pictures:
        twice.add("one", said, damaged)
    assert twice.average_precision().value == pytest.approx(expected, abs=1e-12)
    assert (twice.average_precision().n, twice.average_precision().ci95) == (1, None)


def test_intervals_are_those_of_drawing_one_by_one(monkeypatch):
    monkeypatch.setattr(localisation, "DRAWS", 60)
    ranking, agreement = Ranking(), Agreement()
    for i in range(4):
        said, damaged, weight = picture(i, prevalence=0.1 * (i + 1))
        ranking.add(f"{i}", said, damaged, weight)
        agreement.add(f"{i}", said, 0.5 * damaged)
    often = np.random.default_rng(7).multinomial(4, [1 / 4] * 4, 60)
    for rows, statistic, found in (
        (ranking.rows, average_precision, ranking.average_precision(seed=7)),
        (agreement.pixels, correlation, agreement.over_pixels(seed=7)),
        (agreement.pictures, correlation, agreement.over_pictures(seed=7)),
    ):
        values = [
            float(statistic(sum(k * row for k, row in zip(times, rows.values(), strict=True))))
            for times in often.tolist()
        ]
        assert found.n == 4
        assert found.ci95 == pytest.approx(np.nanquantile(values, (0.025, 0.975)), abs=1e-9)


def test_the_interval_of_a_mean_is_that_of_the_textbook():
    x = np.random.default_rng(0).normal(5, 1, 200)
    found = estimate(np.stack([x, np.ones(200)], 1), lambda sums: sums[:, 0] / sums[:, 1])
    half = 1.96 * x.std() / 200**0.5
    # A 2.5 % quantile of 2000 draws has a standard error of 0.06 standard deviations: 3 % of half.
    assert found.value == pytest.approx(x.mean())
    assert found.ci95 == pytest.approx((x.mean() - half, x.mean() + half), abs=0.1 * half)


def test_correlation_is_pearsons_over_pixels_and_over_pictures():
    rng = np.random.default_rng(0)
    agreement, pairs = Agreement(), []
    for i in range(6):
        true = np.clip(rng.random() + 0.1 * rng.normal(size=(9, 11)), 0, 1).astype(np.float32)
        said = np.clip(0.2 + 0.5 * true + 0.1 * rng.normal(size=true.shape), 0, 1)
        said = said.astype(np.float32)
        agreement.add(f"{i}", said, true)
        pairs.append((said, true))
    said, true = (np.concatenate([p.ravel() for p in x]) for x in zip(*pairs, strict=True))
    expected = stats.pearsonr(said.astype(np.float64), true.astype(np.float64)).statistic
    assert agreement.over_pixels().value == pytest.approx(expected, abs=1e-9)
    means = np.array([(s.mean(dtype=float), t.mean(dtype=float)) for s, t in pairs])
    expected = stats.pearsonr(*means.T).statistic
    assert agreement.over_pictures().value == pytest.approx(expected, abs=1e-9)
    assert agreement.means == pytest.approx(means.mean(0))


def test_what_does_not_exist_is_not_said():
    ranking, agreement = Ranking(), Agreement()
    assert ranking.average_precision().value is None and ranking.prevalence is None
    assert agreement.over_pixels().value is None and agreement.means is None
    said = picture(0)[0]
    for i in range(3):  # one severity for all, as of noise:sigma=25; and nothing damaged
        ranking.add(f"{i}", said, np.zeros(said.shape, bool))
        agreement.add(f"{i}", said, np.full(said.shape, 0.3, np.float32))
    assert ranking.average_precision().value is None and ranking.prevalence == 0
    assert str(agreement.over_pixels()) == str(agreement.over_pictures()) == "-"


def test_draws_in_which_nothing_is_damaged_are_left_out(monkeypatch):
    monkeypatch.setattr(localisation, "DRAWS", 100)
    said, damaged, _ = picture(0)
    counts = histograms(said, damaged)
    rows = np.stack([counts, histograms(said, np.zeros_like(damaged))])
    found = estimate(rows, average_precision)
    # Of two rows a draw holds the damaged one once or twice, or says nothing.
    assert found.ci95 == pytest.approx((found.value, float(average_precision(counts))))


def test_sums_are_of_float64_whatever_the_maps_are():
    said = np.full((1000, 1000), 0.1, np.float32)
    assert moments(said, said)[1] == pytest.approx(1e6 * float(np.float32(0.1)), rel=1e-12)


def test_gradient_energy_is_that_of_the_objective():
    rgb = np.random.default_rng(0).random((3, 13, 17), np.float32)
    expected = masks.gradient_energy(torch.from_numpy(rgb)[None])[0, 0].numpy()
    np.testing.assert_allclose(gradient_energy(rgb), expected, atol=1e-6)
    assert not gradient_energy(np.full((3, 5, 6), 0.4)).any()


def test_other_shapes_and_no_severities_are_refused():
    said, damaged, weight = picture(0)
    with pytest.raises(ShapeError, match="of one shape"):
        histograms(said, damaged[1:])
    with pytest.raises(ShapeError, match="of one shape"):
        histograms(said, damaged, weight[1:])
    with pytest.raises(ShapeError, match="of one shape"):
        Agreement().add("a", said, damaged[1:])
    for wrong in (1.5, np.nan):
        with pytest.raises(UsageError, match=r"lies in \[0, 1\]"):
            histograms(np.full_like(said, wrong), damaged)
