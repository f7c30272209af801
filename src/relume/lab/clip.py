"""CLIP held against learnt prompts: the tiers of Perceive-IR as its paper has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import MissingError, ModelError
from ..priors.quality import TIERS

HUB_ID = "openai/clip-vit-base-patch32"
WORDS = ("terrible", "mediocre", "excellent")
"""What the last token of each tier's prompt begins as."""

CONTEXT = 16
LENGTH = 77
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
SPREAD = 0.02


def open_clip(source: str | Path = HUB_ID, *, network: bool = False) -> tuple[Any, Any]:
    """A frozen CLIP and its tokenizer.

    Args:
        source: A folder that `save_pretrained` wrote, or a hub model's id.
        network: Whether a hub model that is not on this machine may be fetched.

    Raises:
        MissingError: transformers is not installed, or there are no such weights here.
        ModelError: They are no CLIP.
    """
    try:
        from transformers import AutoConfig, AutoTokenizer, CLIPModel
        from transformers.utils import logging
    except ImportError:
        raise MissingError(
            "CLIP needs transformers, which is not installed: pip install 'relume[lab]'"
        ) from None
    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(source, local_files_only=not network)
        if config.model_type != "clip":
            raise ModelError(f"{source} holds a {config.model_type} model, not CLIP.")
        clip = CLIPModel.from_pretrained(
            source, local_files_only=not network, use_safetensors=True, torch_dtype=torch.float32
        )
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=not network)
    except (OSError, ValueError) as error:
        first = " ".join(str(error).split())[:160]
        raise MissingError(
            f"no CLIP at {source}: {first}. Give a folder with its weights, or allow the network."
        ) from None
    finally:
        logging.enable_progress_bar()
    return frozen(clip), tokenizer


def frozen(clip: nn.Module) -> nn.Module:
    """The same network, for inference; nothing in it learns."""
    return clip.eval().requires_grad_(False)


def word_ids(tokenizer: Any, words: Sequence[str] = WORDS) -> tuple[int, ...]:
    """The one token of each word.

    Raises:
        ModelError: A word takes more tokens than one, or is none that the tokenizer knows.
    """
    found: list[int] = []
    for word in words:
        ids = tokenizer(word, add_special_tokens=False)["input_ids"]
        if len(ids) != 1 or ids[0] == getattr(tokenizer, "unk_token_id", None):
            raise ModelError(
                f"the tokenizer makes {len(ids)} tokens of {word!r}; each tier begins as one. "
                "Give CLIP's own tokenizer."
            )
        found.append(int(ids[0]))
    return tuple(found)


class TierPrompts(nn.Module):
    """Three prompts of learnt tokens, and CLIP's judgement of pictures by them.

    Stage 1 of Perceive-IR (Zhang et al., arXiv 2408.15994; prompts as CoOp learns them, Zhou et
    al., arXiv 2109.01134). A prompt is the start token, sixteen learnt embeddings, the end token,
    and as many ends more as fill 77 places; its feature is read at the end token, place 17, behind
    the text encoder's last norm and its projection, and has length 1. CLIP itself is frozen, and no
    part of this module's state.

    Args:
        clip: transformers' CLIPModel.
        words: Ids of the tokens that the last learnt place of each tier begins as.
        frozen_word: Whether that place stays the word. The released code lets it learn.
        seed: The other places begin as N(0, 0.02^2) drawn by it.

    Shape:
        features: pictures (N, 3, H, W) in [0, 1] -> (N, D); texts: () -> (3, D); both of length 1.
        forward: pictures -> logits (N, 3), cosines times CLIP's own exp(logit_scale), near 100.
    """

    word: Tensor
    start: Tensor
    end: Tensor

    def __init__(
        self, clip: nn.Module, words: Sequence[int], *, frozen_word: bool = False, seed: int = 0
    ) -> None:
        super().__init__()
        # In a list, where nn.Module does not look: CLIP is in no checkpoint.
        self._frozen: list[Any] = [frozen(clip)]
        text = self.clip.text_model
        config = self.clip.config.text_config
        table: Tensor = text.embeddings.token_embedding.weight
        place = text.embeddings.position_embedding.num_embeddings
        if place != LENGTH or len(words) != len(TIERS):
            raise ModelError(
                f"prompts are {LENGTH} places of {len(TIERS)} words; this CLIP has {place}, and "
                f"there are {len(words)}."
            )
        rng = torch.Generator().manual_seed(seed)
        drawn = SPREAD * torch.randn(len(TIERS), CONTEXT, table.shape[1], generator=rng)
        last = table[list(words)].detach().clone()[:, None]
        self.frozen_word = frozen_word
        if frozen_word:
            self.context = nn.Parameter(drawn[:, :-1])
            self.register_buffer("word", last)
        else:
            self.context = nn.Parameter(torch.cat([drawn[:, :-1], last], 1))
        # The tokenizer's own ids: configs of the first CLIPs give wrong ones.
        start, end = table.shape[0] - 2, table.shape[0] - 1
        if config.eos_token_id != 2:
            start, end = config.bos_token_id, config.eos_token_id
        self.register_buffer("start", table[start].detach().clone(), persistent=False)
        self.register_buffer("end", table[end].detach().clone(), persistent=False)

    @property
    def clip(self) -> Any:
        return self._frozen[0]

    def _apply(self, fn: Any, recurse: bool = True) -> TierPrompts:
        super()._apply(fn, recurse)
        self.clip._apply(fn, recurse)  # no part of this module, and yet it goes where it goes
        return self

    @property
    def eot(self) -> int:
        """The place of the end token, where the feature is read."""
        return 1 + CONTEXT

    def prompts(self) -> Tensor:
        """(3, 77, D): what goes into the text encoder, before positions."""
        context = torch.cat([self.context, self.word], 1) if self.frozen_word else self.context
        n = context.shape[0]
        start = self.start.expand(n, 1, -1)
        suffix = self.end.expand(n, LENGTH - 1 - CONTEXT, -1)
        return torch.cat([start, context, suffix], 1)

    def texts(self) -> Tensor:
        """(3, D) features of the tiers, of length 1."""
        return unit(encoded(self.clip, self.prompts(), self.eot))

    def features(self, pictures: Tensor) -> Tensor:
        """(N, D) features of pictures, of length 1, differentiable in them. Native crops of 224
        pixels are looked at as they are; what is larger or smaller is resized."""
        return unit(seen(self.clip, pictures))

    def logits(self, features: Tensor) -> Tensor:
        """(N, 3) of features of length 1."""
        return self.clip.logit_scale.exp() * features @ self.texts().T

    def forward(self, pictures: Tensor) -> Tensor:
        return self.logits(self.features(pictures))


def unit(rows: Tensor) -> Tensor:
    """Rows of length 1."""
    return F.normalize(rows, dim=-1)


def encoded(clip: Any, embedded: Tensor, at: int) -> Tensor:
    """CLIP's text encoder on embeddings in the place of tokens.

    Args:
        embedded: (N, T, D), before positions.
        at: The place at which the feature is read.

    Returns:
        (N, P), projected.
    """
    text = clip.text_model
    length = embedded.shape[1]
    places = torch.arange(length, device=embedded.device)
    hidden = embedded + text.embeddings.position_embedding(places)
    # No token sees one behind it.
    mask = torch.full((length, length), -math.inf, device=embedded.device).triu(1)
    out = text.encoder(inputs_embeds=hidden, attention_mask=mask[None, None], is_causal=False)
    return clip.text_projection(text.final_layer_norm(out.last_hidden_state)[:, at])


def seen(clip: Any, pictures: Tensor) -> Tensor:
    """CLIP's image encoder: (N, 3, H, W) in [0, 1] -> (N, P), projected; differentiable."""
    side = clip.config.vision_config.image_size
    if pictures.shape[-2:] != (side, side):
        pictures = F.interpolate(
            pictures, (side, side), mode="bicubic", align_corners=False, antialias=True
        ).clamp(0, 1)
    mean, std = (pictures.new_tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    out = clip.vision_model(pixel_values=(pictures - mean) / std)
    return clip.visual_projection(out.pooler_output)
