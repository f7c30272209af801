"""What training minimises: `(batch, model) -> (loss (N,), logs)`. One file and one row each."""

from .distillation import Distillation
from .masks import Masks
from .perception import Perception, Proxy
from .restoration import Restoration
from .tiers import Tiers

__all__ = ["OBJECTIVES", "Distillation", "Masks", "Perception", "Proxy", "Restoration", "Tiers"]

OBJECTIVES = {
    "distillation": Distillation,
    "masks": Masks,
    "perception": Perception,
    "restoration": Restoration,
    "tiers": Tiers,
}
