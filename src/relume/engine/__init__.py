"""What runs a finished model: ONNX Runtime, OpenVINO, the lab's torch, and two without a network.

An engine takes a tile and the guidance of that tile, both numpy, and gives the restored tile. It is
the only thing restoration knows of networks. A runtime is imported when it is opened, not before.
"""

from .engine import Engine, Precision
from .failures import out_of_memory
from .inputs import feeds, guide_of
from .onnx import OnnxEngine
from .opening import ENGINES, masks_of, open_engine
from .openvino import SHAPES, OpenVinoEngine
from .outputs import checked, with_prepared
from .plain import Identity, Invert
from .rehearsal import first_run, run_small

__all__ = [
    "ENGINES",
    "SHAPES",
    "Engine",
    "Identity",
    "Invert",
    "OnnxEngine",
    "OpenVinoEngine",
    "Precision",
    "checked",
    "feeds",
    "first_run",
    "guide_of",
    "masks_of",
    "open_engine",
    "out_of_memory",
    "run_small",
    "with_prepared",
]
