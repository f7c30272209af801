"""relume restores photographs with the help of priors.

    import relume
    relume.restore("old.jpg").picture        # a Picture in, a Picture out

Names load when they are first asked for: importing the package imports nothing heavy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .card import Card as Card
    from .card import find as find
    from .diagnosis import Diagnosis as Diagnosis
    from .diagnosis import diagnose as diagnose
    from .engine import open_engine as open_engine
    from .errors import RelumeError as RelumeError
    from .guidance import Guidance as Guidance
    from .guidance import Guide as Guide
    from .image import Picture as Picture
    from .image import read as read
    from .image import write as write
    from .restoration import Restored as Restored
    from .restoration import restore as restore
    from .sorting import triage as triage

_HOMES = {
    "Card": "card",
    "Diagnosis": "diagnosis",
    "Guidance": "guidance",
    "Guide": "guidance",
    "Picture": "image",
    "RelumeError": "errors",
    "Restored": "restoration",
    "diagnose": "diagnosis",
    "find": "card",
    "open_engine": "engine",
    "read": "image",
    "restore": "restoration",
    "triage": "sorting",
    "write": "image",
}
__all__ = ["__version__", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'relume' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
