"""A restored picture near the truth and far from what is worse, by features of a frozen network.

Perceive-IR's difficulty-adaptive perceptual loss (arXiv 2408.15994), after C2PNet's curricular
contrastive regularisation (Zheng et al., CVPR 2023). R is the restored picture, G the truth
and D the damaged one; the proxies P_k are what other restorers, or earlier states of this one, make
of D. D is the easy negative; P_k is a hard one where the network is usually better than it is on
this crop, else a very hard one, which pushes less.

Features are lists of taps (N, C, h, w). Distances and sums run in float32. One value per image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import ShapeError

EASY, HARD, VERY_HARD = 2.0, 1.25, 0.75
"""Weights of the negatives, before they are normalised."""

Taps = Sequence[Tensor]


def distances(a: Taps, b: Taps) -> Tensor:
    """d(a, b): the mean absolute difference of each tap and image, (N, taps).

    Raises:
        ShapeError: They are not of the same taps.
    """
    if [x.shape for x in a] != [x.shape for x in b]:
        raise ShapeError(
            f"Features to compare have one shape at each tap, got {[tuple(x.shape) for x in a]} "
            f"and {[tuple(x.shape) for x in b]}."
        )
    apart = ((x.float() - y.float()).abs().flatten(1).mean(1) for x, y in zip(a, b, strict=True))
    return torch.stack(list(apart), 1)


def decibels(out: Tensor, gt: Tensor) -> Tensor:
    """PSNR in dB of pictures clamped to [0, 1], at most 60, without a gradient: (N, C, h, w) twice
    -> (N,)."""
    apart = out.detach().float().clamp(0, 1) - gt.detach().float().clamp(0, 1)
    return -10 * apart.square().mean((1, 2, 3)).clamp_min(1e-6).log10()


def negative_weights(proxies: Tensor, reference: Tensor, covers: Tensor) -> Tensor:
    """What each negative weighs in an image: the damaged picture first, then the proxies.

    Args:
        proxies: PSNR in dB of what each proxy made of this crop, (N, K).
        reference: PSNR in dB that the network itself usually reaches, (N,) or of one element.
        covers: (N, K) bool, whether a proxy counts for an image.

    Returns:
        (N, 1 + K): EASY, then HARD where the proxy is no better than the reference, VERY_HARD
        where it is better, 0 where it does not count.
    """
    hard = proxies <= reference.reshape(-1, 1)
    easy = proxies.new_full((proxies.shape[0], 1), EASY)
    return torch.cat([easy, torch.where(hard, HARD, VERY_HARD) * covers], 1)


def ratio(
    out: Taps,
    gt: Taps,
    lq: Taps,
    proxies: Sequence[Taps],
    weights: Tensor,
    xi: Sequence[float],
    *,
    floor: float = 1e-3,
    eps: float = 0.1,
) -> Tensor:
    """sum over taps i of xi_i d(R, G) / (sum over negatives of w d(R, N) + floor + eps d(G, D)).

    With weights that sum to 1, as C2PNet's do, an image with many proxies is pushed no harder than
    one with few. eps d(G, D) bounds the loss where training starts, at R = D: xi_i / eps.

    No gradient reaches anything but R.

    Args:
        out, gt, lq: Taps of R, G and D.
        proxies: Taps of each P_k.
        weights: (N, 1 + K) of `negative_weights`.
        xi: How much each tap counts.
        floor, eps: Of the denominator, in the features' units and as a share.

    Returns:
        (N,), 0 where R = G.
    """
    pull, push, damage = _measured(out, gt, lq, proxies)
    w = weights / weights.sum(1, keepdim=True)
    below = (w[:, :, None] * push).sum(1) + floor + eps * damage
    return ((pull / below) * pull.new_tensor(xi)).sum(1)


def release(
    out: Taps,
    gt: Taps,
    lq: Taps,
    proxies: Sequence[Taps],
    weights: Tensor,
    xi: Sequence[float],
) -> Tensor:
    """sum over taps i of xi_i d(R, G) / max(sum over negatives of w d(R, N), 1e-6).

    Perceive-IR's late release. Weights are as they are, so that a task with more proxies weighs
    less; where R = D and there is no proxy, the loss is a million times d(R, G).

    Args, returns: As `ratio`.
    """
    pull, push, _ = _measured(out, gt, lq, proxies)
    below = (weights[:, :, None] * push).sum(1).clamp_min(1e-6)
    return ((pull / below) * pull.new_tensor(xi)).sum(1)


def margin(
    out: Taps,
    gt: Taps,
    lq: Taps,
    proxies: Sequence[Taps],
    weights: Tensor,
    xi: Sequence[float],
    *,
    delta: float = 0.5,
) -> Tensor:
    """sum over taps i of xi_i times the weighted mean over negatives N of
    max(0, d(R, G) - d(R, N) + delta d(G, N)) / d(G, D).

    A difference where `ratio` divides: a negative that R has left behind pushes no more. With delta
    at most 1 it is 0 where R = G. Ours.

    Args:
        delta: How far ahead of a negative R has to be, as a share of the negative's own error.

    Args, returns: Others as `ratio`.
    """
    pull, push, damage = _measured(out, gt, lq, proxies)
    with torch.no_grad():
        errors = torch.stack([distances(n, gt) for n in (lq, *proxies)], 1)
    w = weights / weights.sum(1, keepdim=True)
    behind = (pull[:, None] - push + delta * errors).clamp_min(0)
    each = (w[:, :, None] * behind).sum(1) / damage.clamp_min(1e-3)
    return (each * pull.new_tensor(xi)).sum(1)


def _measured(
    out: Taps, gt: Taps, lq: Taps, proxies: Sequence[Taps]
) -> tuple[Tensor, Tensor, Tensor]:
    """d(R, G) (N, taps), d(R, N) of all negatives (N, 1 + K, taps), d(G, D) (N, taps)."""
    gt, lq = ([tap.detach() for tap in taps] for taps in (gt, lq))
    negatives = [lq, *([tap.detach() for tap in taps] for taps in proxies)]
    push = torch.stack([distances(out, negative) for negative in negatives], 1)
    return distances(out, gt), push, distances(gt, lq)


PERCEPTUAL = {
    "margin": margin,
    "ratio": ratio,
    "release": release,
}
