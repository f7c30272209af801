"""Distillation: a student's features drawn towards a teacher's, where and in what the teacher acts.

All are functions of features at one site, student and teacher (N, C, h, w), one value per image. No
gradient reaches the teacher. Sums run in float32 at least, whatever the features are in.
"""

import torch
from torch import Tensor

from ...errors import ShapeError

_TINY = 1e-12


def l2(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of (student - standardised(teacher))^2 over channels and pixels: the plain baseline.

    A student that says nothing costs 1 at every site, so that no level drowns another.

    Args:
        student: (N, C, h, w), already in the teacher's channels.
        teacher: The same shape.
        mask: Not read.

    Returns:
        (N,).

    Raises:
        ShapeError: The two differ in shape.
    """
    return _apart(student, teacher).mean((1, 2, 3))


def attention_transfer(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """|| Q_S / ||Q_S|| - Q_T / ||Q_T|| ||, Q = sum over c of F_c^2 (arXiv 1612.03928, eq. 2, p 2).

    Zagoruyko & Komodakis' activation-based attention: where the energy is, not of what kind. The
    channels of the two may differ in number.

    Args:
        student: (N, C, h, w).
        teacher: (N, C', h, w).
        mask: Not read.

    Returns:
        (N,), in [0, sqrt 2].

    Raises:
        ShapeError: The two differ in batch or size.
    """
    student, teacher = _pair(student, teacher, channels=False)
    ours, theirs = (
        q / (q.norm(dim=1, keepdim=True) + _TINY)
        for q in (f.square().sum(1).flatten(1) for f in (student, teacher))
    )
    # The root has no gradient at 0, and a student that has arrived must not make a NaN.
    return ((ours - theirs).square().sum(1) + _TINY).sqrt()


def attentive(
    student: Tensor, teacher: Tensor, mask: Tensor | None = None, *, attention: str = "energy"
) -> Tensor:
    """`l2` weighted by where the teacher is active and by the channels that tell in from out.

    mean over p, c of a(p) rho_c (student_c(p) - standardised(teacher)_c(p))^2, with a of mean 1
    over the pixels of an image and rho of mean 1 over channels: with both 1 it is `l2`. DAKD's
    attentive distillation is known to us by name alone (Suin et al., IEEE JSTSP 2021, doi
    10.1109/JSTSP.2020.3043622), the equation is ours. Neither weight is learned: by this loss they
    would settle where it is easiest to match.

    Args:
        student: (N, C, h, w), already in the teacher's channels.
        teacher: The same shape.
        mask: (N, 1, h, w) in [0, 1], 1 = degraded, for `separability`; None: rho is 1.
        attention: Row of ATTENTIONS, from the teacher to a.

    Returns:
        (N,).

    Raises:
        ShapeError: Student and teacher differ in shape, or the mask in batch or size.
    """
    error = _apart(student, teacher)
    if mask is not None:
        error = error * separability(teacher, mask)[:, None, None]
    return (error * ATTENTIONS[attention](teacher)).mean((1, 2, 3))


def standardised(teacher: Tensor) -> Tensor:
    """Each channel with mean 0 and variance 1 over batch and pixels; one that is constant is 0."""
    f = _wide(teacher.detach())
    apart = f - f.mean((0, 2, 3), keepdim=True)
    variance = apart.square().mean((0, 2, 3), keepdim=True)
    return apart / (variance + 1e-8).sqrt()


def energy(teacher: Tensor) -> Tensor:
    """|F(p)|^2 over its mean in the image: (N, C, h, w) -> (N, 1, h, w) of mean 1."""
    q = _wide(teacher.detach()).square().sum(1, keepdim=True)
    return (q + _TINY) / (q + _TINY).mean((2, 3), keepdim=True)


def softened(teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """n softmax over p of z(p) / temperature, z the z-score of |F(p)| in the image, n its pixels.

    The softmax of |F| itself is all but one-hot: norms of some hundred channels differ by tens.
    A z-score knows no scale; at temperature 2 a pixel three deviations out weighs 4.5 times the
    usual one.

    Shape:
        (N, C, h, w) -> (N, 1, h, w) of mean 1.
    """
    norm = _wide(teacher.detach()).square().sum(1, keepdim=True).sqrt()
    apart = norm - norm.mean((2, 3), keepdim=True)
    z = apart / (apart.square().mean((2, 3), keepdim=True) + _TINY).sqrt()
    weights = torch.softmax(z.flatten(2) / temperature, -1).view_as(z)
    return weights * z[0, 0].numel()


def separability(teacher: Tensor, mask: Tensor) -> Tensor:
    """How well each channel tells degraded from clean: its Fisher ratio, over the mean of all.

    (mean in - mean out)^2 / (variance in + variance out) over batch and pixels, weighted by the
    mask and by 1 - mask. Where either side has less than one pixel, or no channel tells anything,
    all are 1.

    Args:
        teacher: (N, C, h, w).
        mask: (N, 1, h, w) in [0, 1], 1 = degraded.

    Returns:
        (C,) of mean 1.

    Raises:
        ShapeError: The mask differs in batch or size.
    """
    f, inside = standardised(teacher), mask.detach().clamp(0, 1)
    if inside.shape != (f.shape[0], 1, *f.shape[2:]):
        raise ShapeError(
            f"A mask on features of {tuple(f.shape)} is ({f.shape[0]}, 1, *{tuple(f.shape[2:])}), "
            f"got {tuple(inside.shape)}. Pool it to their grid first."
        )
    inside = inside.to(f.dtype)

    def moments(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        total = weight.sum()
        share = weight / total.clamp_min(_TINY)
        mean = (share * f).sum((0, 2, 3), keepdim=True)
        return total, mean, (share * (f - mean).square()).sum((0, 2, 3), keepdim=True)

    (n_in, mean_in, var_in), (n_out, mean_out, var_out) = moments(inside), moments(1 - inside)
    ratio = ((mean_in - mean_out).square() / (var_in + var_out + 1e-3)).flatten()
    tells = (n_in >= 1) & (n_out >= 1) & (ratio.mean() > _TINY)
    return torch.where(tells, ratio / ratio.mean().clamp_min(_TINY), torch.ones_like(ratio))


def effective(weights: Tensor) -> Tensor:
    """Over how many a weighting spreads, (sum w)^2 / sum w^2: (N, ...) >= 0 -> (N,).

    All of them where they are alike, 1 where one has everything.
    """
    w = weights.flatten(1)
    return w.sum(1).square() / w.square().sum(1).clamp_min(_TINY)


def _apart(student: Tensor, teacher: Tensor) -> Tensor:
    student, teacher = _pair(student, teacher)
    return (student - standardised(teacher)).square()


def _pair(student: Tensor, teacher: Tensor, channels: bool = True) -> tuple[Tensor, Tensor]:
    """Both wide, the teacher detached, once their shapes fit."""
    axes = (0, 1, 2, 3) if channels else (0, 2, 3)
    if any(student.shape[axis] != teacher.shape[axis] for axis in axes):
        raise ShapeError(
            f"Features of student and teacher must have one shape, got {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}. Tap sites of one stride, on crops that are multiples of both."
        )
    return _wide(student), _wide(teacher.detach())


def _wide(f: Tensor) -> Tensor:
    return f if f.dtype == torch.float64 else f.float()


ATTENTIONS = {
    "energy": energy,
    "softmax": softened,
}
DISTILLATIONS = {
    "attention_transfer": attention_transfer,
    "attentive": attentive,
    "l2": l2,
}
