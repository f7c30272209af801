"""What training minimises: `(batch, model) -> (loss (N,), logs)`. One file and one row each."""

from .masks import Masks
from .restoration import Restoration

__all__ = ["OBJECTIVES", "Masks", "Restoration"]

OBJECTIVES = {
    "masks": Masks,
    "restoration": Restoration,
}
