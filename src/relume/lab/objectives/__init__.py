"""What training minimises: `(batch, model) -> (loss (N,), logs)`. One file and one row each."""

from .distillation import Distillation
from .restoration import Restoration

__all__ = ["OBJECTIVES", "Distillation", "Restoration"]

OBJECTIVES = {
    "distillation": Distillation,
    "restoration": Restoration,
}
