"""What training minimises: `(batch, model) -> (loss (N,), logs)`. One file and one row each."""

from .restoration import Restoration

__all__ = ["OBJECTIVES", "Restoration"]

OBJECTIVES = {
    "restoration": Restoration,
}
