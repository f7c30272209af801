"""Networks from picture to picture, maps or a vector; they know no priors. One file, one row."""

from .dncnn import DnCNN
from .ffdnet import FFDNet
from .guest import Guest
from .imdn import IMDN
from .masknet import MaskNet
from .nafnet import NAFNet
from .perceiver import Perceiver
from .prompts import Prompts
from .restormer import Restormer
from .sites import Backbone, Output, Site
from .unet import UNet

__all__ = ["BACKBONES", "Backbone", "Output", "Site"]

BACKBONES = {
    "dncnn": DnCNN,
    "ffdnet": FFDNet,
    "guest": Guest,
    "imdn": IMDN,
    "masknet": MaskNet,
    "nafnet": NAFNet,
    "perceiver": Perceiver,
    "prompts": Prompts,
    "restormer": Restormer,
    "unet": UNet,
}
