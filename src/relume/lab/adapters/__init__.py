"""Where guidance meets features: identities until trained. One file and one row each.

An adapter is `(feat, guidance) -> feat` at a site, or, with `joins`, `(lq, guidance) -> channels`
at the backbone's door. `reads` names the guidance it takes, `asks` what of that no encoder makes.
One that takes `dims` may read several guides.
"""

from .attend import PromptAttention
from .concat import Concat
from .context import Context
from .film import FiLM
from .gate import Gate
from .map import Map, RegionShift
from .maps import Maps
from .prompt import Prompt
from .spt import SptUnit

__all__ = [
    "ADAPTERS",
    "Concat",
    "Context",
    "FiLM",
    "Gate",
    "Map",
    "Maps",
    "Prompt",
    "PromptAttention",
    "RegionShift",
    "SptUnit",
]

ADAPTERS = {
    "concat": Concat,
    "context": Context,
    "film": FiLM,
    "gate": Gate,
    "map": Map,
    "maps": Maps,
    "pgca": PromptAttention,
    "prompt": Prompt,
    "region_shift": RegionShift,
    "spt": SptUnit,
}
