"""Networks from picture to picture that know nothing of priors. One file and one row each."""

from .dncnn import DnCNN
from .ffdnet import FFDNet
from .guest import Guest
from .imdn import IMDN
from .nafnet import NAFNet
from .sites import Backbone, Output, Site

__all__ = ["BACKBONES", "Backbone", "Output", "Site"]

BACKBONES = {
    "dncnn": DnCNN,
    "ffdnet": FFDNet,
    "guest": Guest,
    "imdn": IMDN,
    "nafnet": NAFNet,
}
