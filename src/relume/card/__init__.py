"""Model cards and model files: what a model says of itself; finding, surveying and refusing."""

from .card import BESIDE, CARD_FORMAT, CARD_KEY, Card, Reads, Sureness
from .files import (
    BUILT_IN,
    DEFAULT,
    MASKS,
    MODELS,
    QUALITY,
    ModelFile,
    find,
    is_shipped,
    names,
    shipped,
    survey,
    survey_first,
    survey_masks,
    survey_preparer,
)
from .seal import SEAL, sealed
from .tensors import ITEM, header, pack, tensors_digest

__all__ = [
    "BESIDE",
    "BUILT_IN",
    "CARD_FORMAT",
    "CARD_KEY",
    "DEFAULT",
    "ITEM",
    "MASKS",
    "MODELS",
    "QUALITY",
    "SEAL",
    "Card",
    "ModelFile",
    "Reads",
    "Sureness",
    "find",
    "header",
    "is_shipped",
    "names",
    "pack",
    "sealed",
    "shipped",
    "survey",
    "survey_first",
    "survey_masks",
    "survey_preparer",
    "tensors_digest",
]
