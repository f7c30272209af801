"""Networks from picture to picture that know nothing of priors. One file and one row each."""

from .nafnet import NAFNet
from .sites import Backbone, Output, Site

__all__ = ["BACKBONES", "Backbone", "Output", "Site"]

BACKBONES = {
    "nafnet": NAFNet,
}
