"""Networks from picture to picture, or to maps, that know nothing of priors. One file, one row."""

from .dncnn import DnCNN
from .ffdnet import FFDNet
from .guest import Guest
from .imdn import IMDN
from .masknet import MaskNet
from .nafnet import NAFNet
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
    "restormer": Restormer,
    "unet": UNet,
}
