"""Priors inside the network, which travel in the exported graph. One file and one row each."""

from .thumbnail import ThumbnailEncoder

__all__ = ["ENCODERS", "ThumbnailEncoder"]

ENCODERS = {
    "thumbnail": ThumbnailEncoder,
}
