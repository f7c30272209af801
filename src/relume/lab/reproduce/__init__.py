"""The papers' tables with the controls they lack: `relume reproduce`. One file, one row each."""

from .bench import Bench, fill
from .dakd import DAKD_BLUR, DAKD_HAZE, DAKD_RAIN, DAKD_RAINDROP
from .perceive_ir import (
    PERCEIVE_NAFNET_3,
    PERCEIVE_NAFNET_5,
    PERCEIVE_RESTORMER_3,
    PERCEIVE_RESTORMER_5,
)
from .perceive_ir_full import (
    PERCEIVE_NAFNET_3_FULL,
    PERCEIVE_NAFNET_5_FULL,
    PERCEIVE_RESTORMER_3_FULL,
    PERCEIVE_RESTORMER_5_FULL,
)
from .sam_deblur import SAM_DEBLUR, SAM_DEBLUR_PUBLISHED, looking_with
from .spt import SPT_DNCNN, SPT_DNCNN_DIV2K, SPT_IMDN, SPT_IMDN_DIV2K
from .system import Arm, Column, Job, System, located
from .table import contrast, table

__all__ = [
    "FULL",
    "SYSTEMS",
    "Arm",
    "Bench",
    "Column",
    "Job",
    "System",
    "contrast",
    "fill",
    "located",
    "looking_with",
    "table",
]

FULL = {
    "perceive-ir": (
        PERCEIVE_RESTORMER_3_FULL,
        PERCEIVE_RESTORMER_5_FULL,
        PERCEIVE_NAFNET_3_FULL,
        PERCEIVE_NAFNET_5_FULL,
    ),
    "sam-deblur": (SAM_DEBLUR_PUBLISHED,),
    "spt": (SPT_IMDN_DIV2K, SPT_DNCNN_DIV2K),
}

SYSTEMS = {
    "dakd": (DAKD_RAIN, DAKD_RAINDROP, DAKD_HAZE, DAKD_BLUR),
    "perceive-ir": (
        PERCEIVE_NAFNET_3,
        PERCEIVE_RESTORMER_3,
        PERCEIVE_NAFNET_5,
        PERCEIVE_RESTORMER_5,
    ),
    "sam-deblur": (SAM_DEBLUR,),
    "spt": (SPT_IMDN, SPT_DNCNN),
}
