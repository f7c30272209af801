"""Cross-fitting: a learned prior must not say of a training photograph what it learned by heart.

The photographs fall into folds by their names. What looks at those of one fold while another
network trains was itself trained without them, so that it errs there as it will on new ones.
"""

import hashlib
import re
from pathlib import Path

from ..errors import UsageError


def fold_of(name: str, count: int) -> int:
    """The fold, 0 to count - 1, of a picture's file.

    By the digest of the name, so that pictures that come or go move no other. `a_d2` is taken for a
    detail of `a` whether there is an `a` or not: two folds that share a photograph leak, two
    photographs in one fold cost nothing.
    """
    photograph = re.sub(r"_d\d+$", "", Path(name).stem)
    return int.from_bytes(hashlib.sha256(photograph.encode()).digest()[:8], "big") % count


def left_out(name: str, fold: str) -> bool:
    """Whether a picture lies in a fold written as `0/2`; in "" lies nothing.

    Raises:
        UsageError: It is written otherwise, or there is no such fold.
    """
    if not fold:
        return False
    written = re.fullmatch(r"(\d+)/(\d+)", fold)
    if written is None or not int(written[1]) < int(written[2]) > 1:
        raise UsageError(f"a fold is written as 0/2, the first of two; got {fold!r}.")
    return fold_of(name, int(written[2])) == int(written[1])
