"""Where guidance meets features: identities until trained. One file and one row each."""

from .film import FiLM

__all__ = ["ADAPTERS", "FiLM"]

ADAPTERS = {
    "film": FiLM,
}
