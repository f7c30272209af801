"""How far a result is from the truth, one number per picture, and the protocol it was read under.

PSNR = 10 log10(1 / MSE), peak 1, over all pixels and channels together. SSIM is that of Wang et
al. (2004): Gaussian window of 11 pixels and sigma 1.5, K1 = 0.01, K2 = 0.03, population
covariance, the mean over the windows that lie wholly inside the picture and over the channels.
scikit-image computes the same and is the oracle of the tests.

MCR, the mode collapse rate of SAM-Deblur (Li et al., 2023): the share of pictures whose output
lies more than 3 dB below the input. Their letters do not say whether 3 dB itself counts; here it
does not.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ShapeError, UsageError, nearest

Array = np.ndarray | Tensor

PSNR_CAP = 60.0  # dB. Two equal pictures have no PSNR; 60 is beyond what 8 bits can show.
CLEAN_FROM = 45.0  # dB of the input from which a picture counts as clean already.
COLLAPSE = 3.0  # dB
FALLS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)  # dB, thresholds of the collapse curve
TILE = 64  # pixels, of local collapse
KEPT_FROM = 40.0  # dB between input and output: a clean picture that was left alone.

_WINDOW, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03


def psnr(out: Array, gt: Array, *, cap: float = PSNR_CAP) -> Tensor:
    """Peak signal to noise ratio in dB, at most `cap`.

    Args:
        out: (N, C, H, W) on [0, 1]. Neither clipped nor rounded here: that is the Protocol's.
        gt: Reference, same shape.
        cap: What equal pictures score, and the most that any pair scores.

    Returns:
        (N,) float64.

    Raises:
        ShapeError: The two are not (N, C, H, W) of one shape.
    """
    x, y = _pair(out, gt)
    mse = (x - y).square().mean(dim=(1, 2, 3))
    return (-10 * mse.clamp_min(10 ** (-cap / 10)).log10()).clamp_max(cap)


def ssim(out: Array, gt: Array) -> Tensor:
    """Structural similarity, Gaussian window 11 / 1.5, on [0, 1] with a data range of 1.

    Args:
        out: (N, C, H, W) on [0, 1], H and W at least 11.
        gt: Reference, same shape.

    Returns:
        (N,) float64: the mean over whole windows ("valid") and over channels.

    Raises:
        ShapeError: The shapes differ, or a side is shorter than the window.
    """
    return _ssim_map(out, gt).mean((2, 3)).mean(1)


def ssim_uniform(out: Array, gt: Array, *, side: int = 7) -> Tensor:
    """Structural similarity with a window in which all pixels count alike, scikit-image's default:
    the sample covariance, so divided by one less than the window's pixels. No Protocol's; the
    all-in-one papers print it.

    Args:
        out: (N, C, H, W) on [0, 1], H and W at least `side`.
        gt: Reference, same shape.

    Returns:
        (N,) float64: the mean over whole windows and over channels.

    Raises:
        ShapeError: The shapes differ, or a side is shorter than the window.
    """
    x, y = _pair(out, gt)
    if min(x.shape[-2:]) < side:
        raise ShapeError(
            f"SSIM needs at least {side} pixels on each side, got {tuple(x.shape[-2:])}."
        )

    def mean(a: Tensor) -> Tensor:
        return F.avg_pool2d(a, side, stride=1)

    mean_x, mean_y = mean(x), mean(y)
    product, squares = mean_x * mean_y, mean_x.square() + mean_y.square()
    sample = side**2 / (side**2 - 1)
    covariance = sample * (mean(x * y) - product)
    variances = sample * (mean(x.square() + y.square()) - squares)
    c1, c2 = _K1**2, _K2**2
    top = (2 * product + c1) * (2 * covariance + c2)
    return (top / ((squares + c1) * (variances + c2))).mean((1, 2, 3))


def _ssim_map(out: Array, gt: Array) -> Tensor:
    """SSIM of every whole window: (N, C, H, W) twice -> (N, C, H - 10, W - 10)."""
    x, y = _pair(out, gt)
    if min(x.shape[-2:]) < _WINDOW:
        raise ShapeError(
            f"SSIM needs at least {_WINDOW} pixels on each side, got {tuple(x.shape[-2:])}. "
            "Crop less, or leave such small pictures out."
        )
    # Plane by plane: a plane and its blurs stay in the CPU's cache, which is ten times faster.
    planes = zip(x.flatten(0, 1), y.flatten(0, 1), strict=True)
    return torch.stack([_plane_ssim(a, b) for a, b in planes]).unflatten(0, x.shape[:2])


def y_channel(rgb: Array) -> Tensor:
    """Luma of ITU-R BT.601 as MATLAB's rgb2ycbcr has it: 16 to 235 of 255.

    Y = (16 + 65.481 R + 128.553 G + 24.966 B) / 255, which is not rounded again (MATLAB rounds
    where its input is uint8; in PSNR that is a hundredth of a decibel).

    Shape:
        (N, 3, H, W) on [0, 1] -> (N, 1, H, W) float64 in [16/255, 235/255].

    Raises:
        ShapeError: `rgb` does not have three channels.
    """
    x = torch.as_tensor(rgb)
    if x.ndim != 4 or x.shape[1] != 3:
        raise ShapeError(f"The Y channel is read from (N, 3, H, W) RGB, got {tuple(x.shape)}.")
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64)
    return (torch.einsum("nchw,c->nhw", x.double(), weights)[:, None] + 16) / 255


def as_uint8(image: Array) -> Tensor:
    """Clipped to [0, 1] and rounded to the 256 levels of an 8-bit file, still on [0, 1]."""
    return (torch.as_tensor(image).double().clamp(0, 1) * 255).round() / 255


def crop_border(image: Tensor, pixels: int) -> Tensor:
    """(..., H, W) without `pixels` on each of the four sides.

    Raises:
        ShapeError: Nothing would be left.
    """
    if pixels == 0:
        return image
    if 2 * pixels >= min(image.shape[-2:]):
        raise ShapeError(
            f"A border of {pixels} pixels leaves nothing of a picture of "
            f"{image.shape[-2]} x {image.shape[-1]}. Use a smaller --crop or --align."
        )
    return image[..., pixels:-pixels, pixels:-pixels]


def best_shift(out: Tensor, gt: Tensor, within: int) -> tuple[int, int]:
    """The whole-pixel shift of `out` that comes nearest to `gt`, by brute force.

    Every shift is judged on the same window of gt, its inside without `within` pixels on each
    side, so that none wins by leaving pixels out. Of equal ones the first, row by row, is taken.

    Args:
        out: (1, C, H, W).
        gt: Same shape.
        within: Largest shift N on each axis, in pixels.

    Returns:
        (rows, columns): out at (y + rows, x + columns) belongs to gt at (y, x).
    """
    inside = crop_border(gt, within)
    height, width = inside.shape[-2:]
    steps = range(-within, within + 1)

    def error(shift: tuple[int, int]) -> float:
        top, left = within + shift[0], within + shift[1]
        return (out[..., top : top + height, left : left + width] - inside).square().sum().item()

    return min(((dy, dx) for dy in steps for dx in steps), key=error)


def collapsed(psnr_out: Array, psnr_input: Array) -> np.ndarray:
    """(N,) bool: the output lies strictly more than 3 dB below the input."""
    return np.asarray(psnr_input) - np.asarray(psnr_out) > COLLAPSE


def mcr(psnr_out: Array, psnr_input: Array) -> float | None:
    """Share of collapsed pictures among those whose input lies below 45 dB; None without any."""
    judged = np.asarray(psnr_input) < CLEAN_FROM
    return float(collapsed(psnr_out, psnr_input)[judged].mean()) if judged.any() else None


def collapse_curve(psnr_out: Array, psnr_input: Array) -> dict[str, float]:
    """MCR over thresholds: share of pictures more than so many dB below the input, strictly.

    One threshold hides whether pictures fall by a little or by much; 3 dB is the published one.
    """
    fall = np.asarray(psnr_input) - np.asarray(psnr_out)
    return {f"{t:g}": float((fall > t).mean()) for t in FALLS} if fall.size else {}


def worst_tile(out: Tensor, before: Tensor, gt: Tensor, *, side: int = TILE) -> float | None:
    """The largest loss of PSNR in any tile of one picture, in dB; negative where every tile gained.

    A small glitch in a large picture moves its PSNR by little; a mild change of all of it moves no
    tile by much. Ours.

    Args:
        out, before, gt: (1, C, H, W) on [0, 1].
        side: Of the tiles in pixels; those at the right and lower edge may be smaller.

    Returns:
        None where every tile of the input is clean already.
    """
    after, was = (
        (x - gt).square().mean(1, keepdim=True).double() for x in (out.to(gt), before.to(gt))
    )
    size = [min(side, n) for n in gt.shape[-2:]]

    def decibels(error: Tensor) -> Tensor:
        mse = F.avg_pool2d(error, size, size, ceil_mode=True)
        return (-10 * mse.clamp_min(10 ** (-PSNR_CAP / 10)).log10()).clamp_max(PSNR_CAP)

    judged = decibels(was) < CLEAN_FROM
    return float((decibels(was) - decibels(after))[judged].max()) if judged.any() else None


def share_bounds(count: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's exact two-sided interval of a share, `count` of `n`."""
    half = (1 - confidence) / 2
    lower = 0.0 if count == 0 else 1 - _share_bound(n - count, n, half)
    return lower, _share_bound(count, n, half)


def share_upper(count: int, n: int, *, confidence: float = 0.95) -> float:
    """Clopper and Pearson's one-sided upper bound; for none of n it is the rule of three, ~3/n."""
    return _share_bound(count, n, 1 - confidence)


def _share_bound(count: int, n: int, tail: float) -> float:
    """The share p at which seeing at most `count` of n has probability `tail`."""
    if n == 0 or count >= n:
        return 1.0

    def at_most(p: float) -> float:
        ways = (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in seen)
        logs = (
            w + k * math.log(p) + (n - k) * math.log1p(-p) for k, w in zip(seen, ways, strict=True)
        )
        return math.fsum(map(math.exp, logs))

    seen = range(count + 1)

    low, high = count / n, 1.0
    for _ in range(60):  # at_most falls with p; 60 halvings are float precision
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(middle) > tail else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True)
class Protocol:
    """All that a score depends on besides the model and the pictures. Scores carry it.

    Args:
        channels: "rgb", or "y": luma of BT.601 from 16 to 235.
        crop: Pixels left out on each side, after alignment.
        rounding: "uint8": outputs, inputs and gt are clipped and rounded to 8 bits, as a file
            holds them, before anything is measured. "none": clipped only.
        noise: How damage was handed to the model: "uint8", clipped and rounded; "float", neither;
            None for damage that lies in files.
        ssim: The window; there is one, "gaussian-11-1.5".
        align: Largest shift in pixels, tried for input and output each; 0 does not align.
        scale: Enlargement; the input is then the antialiased bicubic enlargement of lq.
        spec: SPEC of the damage, or None for damage that lies in files.
        seed: Seed of the damage, or None.
        told: What the model was told of the damage and did not find by itself: `noise.sigma`.
        judge: Name and digest of the quality model that judged answers (`tier_score` of a report's
            rows); "" for none.

    Raises:
        UsageError: A value that is none of these.
    """

    channels: str = "rgb"
    crop: int = 0
    rounding: str = "uint8"
    noise: str | None = None
    ssim: str = "gaussian-11-1.5"
    align: int = 0
    scale: int = 1
    spec: str | None = None
    seed: int | None = None
    told: tuple[str, ...] = ()
    judge: str = ""

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                words = [word for word in known if word]
                hint = nearest(str(value), words)
                raise UsageError(f"{name} must be one of {', '.join(words)}, got {value!r}.{hint}")
        for name in ("crop", "align"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} counts pixels and cannot be {getattr(self, name)}.")

    def score(self, out: Array, gt: Array, inside: np.ndarray | None = None) -> dict[str, Any]:
        """PSNR in dB and SSIM of one picture, and the shift where the protocol aligns.

        Args:
            out: (1, 3, H, W) on [0, 1], clipped here.
            gt: Same shape.
            inside: (H, W) bool, a part of gt. Where it is given, `psnr_inside` and `ssim_inside`
                are those of its pixels (SSIM: of the windows around them), `psnr_outside` and
                `ssim_outside` of all others; of no pixel, nothing is said.

        Raises:
            ShapeError: The shapes differ, or nothing is left after the crop.
        """
        x, y, shift = self._seen(out, gt)
        windows = _ssim_map(x, y)
        mean = windows.mean((2, 3)).mean().item()
        scores = {"psnr": psnr(x, y).item(), "ssim": mean, **shift}
        if inside is None:
            return scores
        part = crop_border(torch.from_numpy(inside), self.align + self.crop)
        inner, outer = (_of_part(x, y, windows, where) for where in (part, ~part))
        scores |= {f"{metric}_inside": value for metric, value in inner.items()}
        return scores | {f"{metric}_outside": value for metric, value in outer.items()}

    def worst_tile(self, out: Array, before: Array, gt: Array) -> float | None:
        """`worst_tile` of what this protocol sees of an answer and of its input."""
        x, y, _ = self._seen(out, gt)
        return worst_tile(x, self._seen(before, gt)[0], y)

    def _seen(self, out: Array, gt: Array) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Both pictures as they are measured, and the shift where the protocol aligns."""
        x, y = _pair(out, gt)
        x, y = (as_uint8(a) if self.rounding == "uint8" else a.clamp(0, 1) for a in (x, y))
        if self.channels == "y":
            x, y = y_channel(x), y_channel(y)
        shift: dict[str, Any] = {}
        if self.align:
            rows, columns = best_shift(x, y, self.align)
            x = torch.roll(x, (-rows, -columns), (-2, -1))  # what wraps lies in the cropped border
            shift["shift"] = [rows, columns]
        x, y = (crop_border(a, self.align + self.crop) for a in (x, y))
        return x, y, shift

    def to_json(self) -> dict[str, Any]:
        words = {**asdict(self), "told": list(self.told)}
        return {**words, "range": "[0, 1], peak 1", "psnr_cap": PSNR_CAP}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Protocol:
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        return cls(**{**known, "told": tuple(values.get("told", ()))})

    def difference(self, other: Protocol) -> str | None:
        """The first field in which two protocols differ, in words, or None."""
        for f in fields(self):
            mine, theirs = getattr(self, f.name), getattr(other, f.name)
            if mine != theirs:
                return f"{f.name} is {mine!r} in one and {theirs!r} in the other"
        return None

    def __str__(self) -> str:
        words = [f"PSNR/SSIM on {self.channels.upper()}", f"border {self.crop}"]
        words.append("outputs rounded to uint8" if self.rounding == "uint8" else "outputs float")
        if self.spec:
            words.append(f"{self.spec}, seed {self.seed}, lq {self.noise}")
        if self.told:
            words.append(f"told {', '.join(self.told)}")
        if self.align:
            words.append(f"best shift within {self.align} px")
        if self.scale > 1:
            words.append(f"x{self.scale}")
        if self.judge:
            words.append(f"judged by {self.judge}")
        return ", ".join([*words, f"SSIM {self.ssim}"])


def _pair(out: Array, gt: Array) -> tuple[Tensor, Tensor]:
    x, y = torch.as_tensor(out), torch.as_tensor(gt)
    if x.ndim != 4 or x.shape != y.shape:
        raise ShapeError(
            "out and gt must be (N, C, H, W) of one shape, "
            f"got {tuple(x.shape)} and {tuple(y.shape)}."
        )
    return x.detach().cpu().double(), y.detach().cpu().double()


def _of_part(x: Tensor, y: Tensor, windows: Tensor, part: Tensor) -> dict[str, float]:
    """PSNR and SSIM of two (1, C, H, W) pictures where `part`, (H, W), is true; `windows` is their
    SSIM map. Of nothing nothing is said."""
    half = _WINDOW // 2
    whole = part[half:-half, half:-half]
    scores: dict[str, float] = {}
    if part.any():
        scores["psnr"] = psnr(x[..., part][..., None], y[..., part][..., None]).item()
    if whole.any():
        scores["ssim"] = windows[..., whole].mean().item()
    return scores


def _plane_ssim(x: Tensor, y: Tensor) -> Tensor:
    """SSIM of the windows of two (H, W) float64 planes."""
    mean_x, mean_y = _blur(x), _blur(y)
    product, squares = mean_x * mean_y, mean_x.square() + mean_y.square()
    covariance = _blur(x * y) - product
    variances = _blur(x.square() + y.square()) - squares
    c1, c2 = _K1**2, _K2**2
    top = (2 * product + c1) * (2 * covariance + c2)
    return top / ((squares + c1) * (variances + c2))


def _blur(x: Tensor) -> Tensor:
    """Gaussian mean of every whole window: (H, W) -> (H - 10, W - 10)."""
    at = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    weights = torch.exp(-0.5 * (at / _SIGMA) ** 2)
    weights = (weights / weights.sum()).tolist()
    # Eleven shifted sums an axis are faster here than a float64 convolution.
    for axis in (-2, -1):
        length = x.shape[axis] - _WINDOW + 1
        total = x.narrow(axis, 0, length) * weights[0]
        for i in range(1, _WINDOW):
            total.add_(x.narrow(axis, i, length), alpha=weights[i])
        x = total
    return x


_CHOICES: dict[str, tuple[str | None, ...]] = {
    "channels": ("rgb", "y"),
    "rounding": ("uint8", "none"),
    "noise": ("uint8", "float", None),
    "ssim": ("gaussian-11-1.5",),
}
