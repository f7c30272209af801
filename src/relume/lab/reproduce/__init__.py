"""The papers' tables with the controls they lack: `relume reproduce`. One file, one row each."""

from .sam_deblur import SAM_DEBLUR
from .spt import SPT_DNCNN, SPT_IMDN
from .table import Arm, Bench, Column, Job, System, contrast, run, table

__all__ = ["SYSTEMS", "Arm", "Bench", "Column", "Job", "System", "contrast", "run", "table"]

SYSTEMS = {
    "sam-deblur": (SAM_DEBLUR,),
    "spt": (SPT_IMDN, SPT_DNCNN),
}
