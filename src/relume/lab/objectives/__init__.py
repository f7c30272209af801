"""What training minimises: `(batch, model) -> (loss (N,), logs)`. One file and one row each."""

from .distillation import Distillation
from .masks import Masks
from .restoration import Restoration
from .tiers import Tiers

__all__ = ["OBJECTIVES", "Distillation", "Masks", "Restoration", "Tiers"]

OBJECTIVES = {
    "distillation": Distillation,
    "masks": Masks,
    "restoration": Restoration,
    "tiers": Tiers,
}
