"""Tiers of quality by CLIP and three learnt prompts: a perceiver, as Perceive-IR's paper has it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...priors.quality import TIERS
from ..clip import HUB_ID, TierPrompts, open_clip, word_ids
from .sites import Adapt, Output, Site, check_input


class Prompts(nn.Module):
    """`clip.TierPrompts` in the place of a backbone, so that a recipe trains it and an objective
    may name its weights: only the learnt tokens are stored, CLIP comes from where it is named.

    It has no site: nothing of ours stands inside CLIP.

    Args:
        source: A hub model's id, or a folder that `save_pretrained` wrote.
        network: Whether a hub model that is not on this machine may be fetched.
        frozen_word: As in `TierPrompts`.
        seed: Of the learnt tokens' start.

    Shape:
        (N, 3, H, W) in [0, 1] -> Output.image (N, 3), in the order of `vector`: probabilities of
        the tiers; logits of them while it is trained.

    Raises:
        MissingError: transformers is not installed, or there are no such weights here.
        ModelError: They are no CLIP, or its tokenizer is another one.
    """

    scale = 1
    multiple_of = 1
    inputs: tuple[str, ...] = ()
    in_channels = 3
    vector = TIERS
    reach = None

    def __init__(
        self,
        *,
        source: str = HUB_ID,
        network: bool = False,
        frozen_word: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        clip, tokenizer = open_clip(source, network=network)
        self.prompts = TierPrompts(clip, word_ids(tokenizer), frozen_word=frozen_word, seed=seed)
        self.sites: dict[str, Site] = {}

    def forward(self, x: Tensor, taps: Sequence[str] = (), adapt: Adapt | None = None) -> Output:
        check_input(x, self.in_channels, "Prompts")
        # The loss turns on hundredths of a cosine.
        with torch.autocast(x.device.type, enabled=False):
            logits = self.prompts(x.float())
        return Output(logits if self.training else logits.softmax(1))
