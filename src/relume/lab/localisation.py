"""How well severity maps say where a picture is damaged, and how badly: precision and correlation.

Average precision is the area under the precision-recall curve as a sum of steps, without
interpolation: sum of (R_n - R_(n-1)) P_n, where n walks down the predicted severities and pixels of
one bin go together. Chance scores the prevalence, not a half.

Whatever a figure needs is a sum over pixels, kept a row a photograph: a figure is that of the sums
over all of them, its interval a bootstrap over photographs, so that no picture stays in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import ShapeError, UsageError

BINS = 4096
REACH = 12.0
"""Log odds at which the bins end: severities of 6e-6 and less are one bin."""
DRAWS = 2000
"""Of a bootstrap."""
_FLAT = 1e-10  # variance over mean square below which nothing varies but the rounding of float32


@dataclass(frozen=True)
class Estimate:
    """A figure over photographs.

    Args:
        value: None where it does not exist: nothing is damaged, or nothing varies.
        n: Photographs.
        ci95: 95 % interval, percentiles of a bootstrap over photographs; None of fewer than two.
    """

    value: float | None
    n: int
    ci95: tuple[float, float] | None

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        if self.ci95 is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.ci95[0]:.3f}, {self.ci95[1]:.3f}]"


class Ranking:
    """Whether damaged pixels are called more severe than the others.

    Each photograph keeps two histograms of the predicted severity, of all pixels and of the damaged
    ones. The more pictures of one photograph are added, the more pixels it has.
    """

    def __init__(self) -> None:
        self.rows: dict[str, np.ndarray] = {}  # photograph -> (2, BINS)

    def add(
        self,
        photograph: str,
        said: np.ndarray,
        damaged: np.ndarray,
        weight: np.ndarray | None = None,
    ) -> None:
        """Count one picture.

        Args:
            photograph: What it shows; the bootstrap draws photographs.
            said: (h, w) predicted severity in [0, 1].
            damaged: (h, w) bool, what is true.
            weight: (h, w) >= 0, what a pixel counts for; None: 1.

        Raises:
            ShapeError: The arrays are not of one shape.
            UsageError: A prediction outside [0, 1].
        """
        counts = histograms(said, damaged, weight)
        self.rows[photograph] = self.rows.get(photograph, 0) + counts

    @property
    def prevalence(self) -> float | None:
        """Weight of the damaged pixels over that of all, in [0, 1]; None without any."""
        every, damaged = _stacked(self.rows, (2, BINS)).sum((0, 2))
        return float(damaged / every) if every > 0 else None

    def average_precision(self, *, seed: int = 0) -> Estimate:
        """Of all pixels of all pictures together; `seed` is of the bootstrap."""
        return estimate(_stacked(self.rows, (2, BINS)), average_precision, seed=seed)


class Agreement:
    """Whether what is worse is called worse: Pearson's correlation of severities.

    Over pictures it is that of their means, over pixels that of all pixels together.
    """

    def __init__(self) -> None:
        self.pictures: dict[str, np.ndarray] = {}  # photograph -> (6,), see `correlation`
        self.pixels: dict[str, np.ndarray] = {}

    def add(self, photograph: str, said: np.ndarray, true: np.ndarray) -> None:
        """Count one picture.

        Args:
            photograph: What it shows; the bootstrap draws photographs.
            said, true: (h, w) severity in [0, 1], predicted and true.

        Raises:
            ShapeError: The two are not of one shape.
        """
        _check(said, true)
        for rows, (s, t) in (
            (self.pictures, (said.mean(dtype=np.float64), true.mean(dtype=np.float64))),
            (self.pixels, (said, true)),
        ):
            rows[photograph] = rows.get(photograph, 0) + moments(s, t)

    @property
    def means(self) -> tuple[float, float] | None:
        """Mean over pictures of the predicted and of the true severity; None without a picture."""
        n, said, true = _stacked(self.pictures, (6,)).sum(0)[:3]
        return (float(said / n), float(true / n)) if n else None

    def over_pictures(self, *, seed: int = 0) -> Estimate:
        return estimate(_stacked(self.pictures, (6,)), correlation, seed=seed)

    def over_pixels(self, *, seed: int = 0) -> Estimate:
        return estimate(_stacked(self.pixels, (6,)), correlation, seed=seed)


def histograms(
    said: np.ndarray, damaged: np.ndarray, weight: np.ndarray | None = None
) -> np.ndarray:
    """(2, BINS) float64 weight of all pixels and of the damaged ones in each bin of `said`.

    Bins are even in log odds. Of what is rare a calibrated network says little, and even bins of
    the severity itself would take most of the damaged pixels for one.

    Args, Raises:
        As `Ranking.add`.
    """
    _check(said, damaged)
    if weight is not None:
        _check(said, weight)
    if said.size and not (said.min() >= 0 and said.max() <= 1):
        raise UsageError(
            f"A severity lies in [0, 1], got {said.min()} to {said.max()}. Clip it before."
        )
    p = np.clip(said.ravel().astype(np.float64), 1e-9, 1 - 1e-9)
    odds = np.log(p / (1 - p))
    bins = ((odds + REACH) * (BINS / (2 * REACH))).clip(0, BINS - 1).astype(np.intp)
    true = damaged.ravel().astype(np.float64)
    each = np.ones(p.shape) if weight is None else weight.ravel().astype(np.float64)
    return np.stack([np.bincount(bins, w, BINS) for w in (each, each * true)])


def average_precision(counts: np.ndarray) -> np.ndarray:
    """sum of (R_n - R_(n-1)) P_n, from the most severe bin to the least.

    Args:
        counts: (..., 2, BINS), weight of all pixels and of the damaged ones.

    Returns:
        (...) float64 in [0, 1]; nan where nothing is damaged.
    """
    falling = counts[..., ::-1].cumsum(-1)
    every, found = falling[..., 0, :], falling[..., 1, :]
    precision = np.divide(found, every, out=np.zeros_like(every), where=every > 0)
    area = (counts[..., 1, ::-1] * precision).sum(-1)
    total = found[..., -1]
    return np.divide(area, total, out=np.full_like(area, np.nan), where=total > 0)


def moments(said: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(6,) float64 sums of 1, said, true, said², true², said true, which add up over pictures."""
    s, t = (np.asarray(x, np.float64).ravel() for x in (said, true))
    return np.array([s.size, s.sum(), t.sum(), s @ s, t @ t, s @ t])


def correlation(sums: np.ndarray) -> np.ndarray:
    """Pearson's correlation of `moments`, (..., 6) -> (...); nan where either does not vary."""
    n, s, t, ss, tt, st = np.moveaxis(sums, -1, 0)
    spread_s, spread_t = n * ss - s * s, n * tt - t * t
    varies = (spread_s > _FLAT * n * ss) & (spread_t > _FLAT * n * tt)
    both = np.sqrt(np.where(varies, spread_s * spread_t, 1))
    return np.where(varies, ((n * st - s * t) / both).clip(-1, 1), np.nan)


def estimate(
    rows: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], *, seed: int = 0
) -> Estimate:
    """A statistic of sums, with the percentile interval of a bootstrap over the rows.

    Args:
        rows: (n, ...) sums of n photographs.
        statistic: (m, ...) sums -> (m,) values, nan where there is none. Draws without a value, in
            which nothing was damaged, are left out of the interval.
        seed: Of the draws.
    """
    n = len(rows)
    if not n:
        return Estimate(None, 0, None)
    value = float(statistic(rows.sum(0, keepdims=True))[0])
    if np.isnan(value):
        return Estimate(None, n, None)
    if n < 2:
        return Estimate(value, n, None)
    # How often each row was drawn, times the rows: the sums of a draw without a copy of its rows.
    often = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), DRAWS).astype(np.float64)
    flat = rows.reshape(n, -1)
    values = [
        statistic((part @ flat).reshape(len(part), *rows.shape[1:]))
        for part in np.array_split(often, 20)  # all draws of all bins at once take 130 MB an array
    ]
    low, high = np.nanquantile(np.concatenate(values), (0.025, 0.975))
    return Estimate(value, n, (float(low), float(high)))


def gradient_energy(rgb: np.ndarray) -> np.ndarray:
    """Squared central differences of the mean of the colours, borders repeated: what blur can show.

    Shape:
        (3, h, w) -> (h, w), as the objective `masks` has it.
    """
    gray = np.pad(rgb.mean(0), 1, mode="edge")
    across = (gray[1:-1, 2:] - gray[1:-1, :-2]) / 2
    down = (gray[2:, 1:-1] - gray[:-2, 1:-1]) / 2
    return across**2 + down**2


def _stacked(rows: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    return np.stack(list(rows.values())) if rows else np.zeros((0, *shape))


def _check(said: np.ndarray, other: np.ndarray) -> None:
    if said.shape != other.shape:
        raise ShapeError(
            f"What is said and what is true must be of one shape, got {said.shape} and "
            f"{other.shape}."
        )
