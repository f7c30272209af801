"""What training minimises: `(batch, model) -> (loss (N,), logs)`. One file and one row each."""

from .distillation import Distillation
from .masks import Masks
from .restoration import Restoration

__all__ = ["OBJECTIVES", "Distillation", "Masks", "Restoration"]

OBJECTIVES = {
    "distillation": Distillation,
    "masks": Masks,
    "restoration": Restoration,
}
