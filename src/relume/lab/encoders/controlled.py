"""What an encoder could say without knowing the picture: controls that are trained under."""

from typing import Any

import torch
from torch import Tensor, nn

from ...errors import RecipeError, nearest
from ...guidance import Guidance, Guide

STAND_INS = ("null", "constant", "shuffled")


class Controlled(nn.Module):
    """An encoder with something else in the place of what it says of a picture.

    `null`: zeros. `constant`: what it says of a picture of mid-grey, whatever is shown. `shuffled`:
    what it says of the picture before in the batch, of which every process needs two. At use one
    picture comes alone, and would be told of itself: who measures such a network gives it another
    picture's guide (`of`), for a guide that is given stands.

    Args:
        encoder: One that looks at the picture itself. What reads a prior is controlled by that.
        control: One of `STAND_INS`.

    Raises:
        RecipeError: It is none of them, or the encoder reads a prior.
    """

    def __init__(self, encoder: Any, control: str) -> None:
        super().__init__()
        if control not in STAND_INS:
            raise RecipeError(
                f"control: {control!r} is none of none, {', '.join(STAND_INS)}."
                f"{nearest(control, STAND_INS)}"
            )
        if encoder.asks:
            raise RecipeError(
                f"control: this encoder reads {encoder.asks[0].prior}. Give the control to that "
                "prior."
            )
        self.encoder, self.control = encoder, control
        self.prepared, self.asks, self.dim = encoder.prepared, encoder.asks, encoder.dim
        for name in ("shape", "regions", "looks"):
            if hasattr(encoder, name):
                setattr(self, name, getattr(encoder, name))

    def of(self, view: Tensor, guidance: Guidance) -> Guide:
        """What the encoder itself says of a picture (N, 3, H, W)."""
        return self.encoder(view, guidance)

    def forward(self, view: Tensor, guidance: Guidance, *rows: int | None) -> Guide:
        if self.control == "constant":
            view = torch.full_like(view, 0.5)
        said: Guide = self.encoder(view, guidance, *rows)
        if self.control == "null":
            return said.map(torch.zeros_like)
        if self.control == "shuffled":
            return said.map(lambda a: a.roll(1, 0))
        return said
