"""Codes of damage drawn together and apart: the same damage alike, another one unlike.

All codes are (N, D); they are brought to length 1 here, in float32. One value per image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ShapeError


def info_nce(
    codes: Tensor,
    candidates: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    temperature: float = 0.1,
) -> Tensor:
    """-log e^(z.p / t) / (e^(z.p / t) + sum of e^(z.n / t) over the negatives), over an image's
    positives on average (van den Oord et al., arXiv 1807.03748, eq. 4).

    An image without a positive or without a negative has nothing to learn: it costs 0, and its
    gradient is 0 and finite.

    Args:
        codes: z, (N, D).
        candidates: p and n, (M, D).
        positive: (N, M) bool, which of them are alike.
        negative: (N, M) bool, which are unlike; what is neither is left out.
        temperature: t, of cosines.

    Returns:
        (N,).

    Raises:
        ShapeError: The masks are not (N, M).
    """
    wanted = (codes.shape[0], candidates.shape[0])
    if positive.shape != wanted or negative.shape != wanted:
        raise ShapeError(
            f"Masks of {wanted[0]} codes and {wanted[1]} candidates are {wanted}, got "
            f"{tuple(positive.shape)} and {tuple(negative.shape)}."
        )
    z, others = (F.normalize(c.float(), dim=1) for c in (codes, candidates))
    close = z @ others.T / temperature
    # Finite, not -inf: the gradient of a logsumexp over nothing is no number.
    against = close.masked_fill(~negative, -1e4).logsumexp(1, keepdim=True)
    each = F.softplus(against - close)  # log(1 + e^(against - close)) is the fraction's
    alike = positive & negative.any(1, keepdim=True)
    return (each * alike).sum(1) / alike.sum(1).clamp_min(1)


def by_picture(codes: Tensor, again: Tensor, tasks: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Perceive-IR's (arXiv 2408.15994), as its late release has it.

    Alike is another crop of the same damaged picture, unlike are the other pictures of the batch
    under another task, as they are: no gradient goes there. Two crops of one picture share more
    than their damage, so that a code of what is in the picture would do as well.

    Args:
        codes: (N, D).
        again: (N, D), of the second crops.
        tasks: (N, T) bool, the kinds of damage of each picture; one task where rows are equal.

    Returns:
        (N,); 0 for pictures to which the batch holds no other task. The release averages over the
        others alone.
    """
    own, none = _same(codes), torch.zeros_like(_same(codes))
    candidates = torch.cat([again, codes.detach()])
    return info_nce(
        codes,
        candidates,
        torch.cat([own, none], 1),
        torch.cat([none, _apart(tasks)], 1),
        temperature=temperature,
    )


def by_damage(
    codes: Tensor,
    elsewhere: Tensor,
    otherwise: Tensor,
    tasks: Tensor,
    *,
    temperature: float = 0.1,
) -> Tensor:
    """Ours: alike in damage and unlike in content, against alike in content and unlike in damage.

    A code of what is in the picture gets both wrong. Unlike are also the batch's other pictures
    under another task, and their partners; those under the same task are left out, for they may be
    damaged more or less.

    Args:
        codes: (N, D).
        elsewhere: (N, D), of other pictures under the same damage.
        otherwise: (N, D), of the same pictures under another damage.
        tasks: (N, T) bool, as in `by_picture`.

    Returns:
        (N,).
    """
    own, apart = _same(codes), _apart(tasks)
    none = torch.zeros_like(own)
    return info_nce(
        codes,
        torch.cat([elsewhere, otherwise, codes]),
        torch.cat([own, none, none], 1),
        torch.cat([apart, own, apart], 1),
        temperature=temperature,
    )


def _same(codes: Tensor) -> Tensor:
    return torch.eye(codes.shape[0], dtype=torch.bool, device=codes.device)


def _apart(tasks: Tensor) -> Tensor:
    """(N, N) bool: whether two pictures are of different tasks."""
    return (tasks[:, None] != tasks[None]).any(-1)


CONTRASTS = {
    "damage": by_damage,
    "release": by_picture,
}
