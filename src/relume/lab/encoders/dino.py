"""Frozen DINOv2 (Oquab et al., arXiv 2304.07193) as semantic tokens: its CLS at four depths."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import MissingError, ModelError, RecipeError
from ...guidance import Guidance, Guide

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of RGB in [0, 1]


class DinoLevels(nn.Module):
    """The CLS token after some of the layers, shallow first: Perceive-IR's semantic guidance.

    The picture is squeezed to a square whatever its aspect, as there (arXiv 2408.15994); tokens are
    read before the final layer normalisation. It looks at the whole picture, once; in training at
    the crop. Frozen always: no gradient, never in training mode, in float32 under autocast.

    The weights travel in the exported files; a recipe names where they come from, and they have to
    be there whenever it is built.

    Args:
        weights: Hub id, or a folder that `save_pretrained` wrote.
        depths: Where tokens are read, in shares of the depth, rounded up: of twelve layers these
            are 1, 4, 8 and 12.
        side: Pixels of the square; a multiple of the patch.

    Raises:
        MissingError: transformers is not installed.
        ModelError: The weights are not there, or are no DINOv2's.
        RecipeError: `depths` does not rise within (0, 1], or patches do not divide `side`.

    Shape:
        view (N, 3, H, W) in [0, 1] -> tokens (N, len(depths), D).
    """

    prepared = True
    asks = ()
    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        *,
        weights: str = "facebook/dinov2-base",
        depths: Sequence[float] = (1 / 12, 1 / 3, 2 / 3, 1.0),
        side: int = 224,
    ) -> None:
        super().__init__()
        if (
            not depths
            or list(depths) != sorted(set(depths))
            or not 0 < depths[0] <= depths[-1] <= 1
        ):
            raise RecipeError(f"depths are shares of the depth that rise to 1, got {list(depths)}.")
        network = _loaded(weights)
        config = network.config
        if side % config.patch_size:
            raise RecipeError(
                f"side is a multiple of the patch of {config.patch_size} pixels, got {side}."
            )
        self.side = side
        self.taps = [math.ceil(d * config.num_hidden_layers - 1e-9) for d in depths]
        self.dim, self.shape = int(config.hidden_size), (len(depths), int(config.hidden_size))
        # Only what is used: an exported graph holds no idle tensor.
        embeddings = network.embeddings
        self.cls = embeddings.cls_token
        self.patches = embeddings.patch_embeddings.projection
        self.places = nn.Parameter(
            _places(embeddings.position_embeddings, side // config.patch_size)
        )
        self.layers = nn.ModuleList(list(network.encoder.layer)[: self.taps[-1]])
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> DinoLevels:
        return super().train(False)

    def forward(self, view: Tensor, guidance: Guidance, rows: int | None = None) -> Guide:
        # A graph knows no autocast, and the context would stand in it as a node.
        exporting = torch.compiler.is_exporting()
        kind = view.device.type
        with contextlib.nullcontext() if exporting else torch.autocast(kind, enabled=False):
            seen = squeezed(view.detach().float(), self.side)
            x = self.patches((seen - self.mean) / self.deviation).flatten(2).transpose(1, 2)
            x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.places
            tokens: list[Tensor] = []
            for depth, layer in enumerate(self.layers, 1):
                x = layer(x)
                if depth in self.taps:
                    tokens.append(x[:, 0])
        return Guide(tokens=torch.stack(tokens, 1))


def squeezed(picture: Tensor, side: int) -> Tensor:
    """Antialiased bicubic resize to a square, as two matrix products.

    In this form it is the same in every runtime at free sizes; not every one of them antialiases.

    Args:
        picture: (N, 3, H, W).

    Returns:
        (N, 3, side, side).
    """
    rows, columns = (_cubic(picture, axis, side) for axis in (2, 3))
    return rows @ picture @ columns.transpose(0, 1)


def _cubic(picture: Tensor, axis: int, to: int) -> Tensor:
    """(to, size) weights of Keys' kernel (a = -0.5), widened where the picture shrinks."""
    at = torch.arange(picture.shape[axis], device=picture.device, dtype=picture.dtype)
    step = (at[-1] + 1) / to  # as a tensor: a free size must not decide anything in a graph
    wide = step.clamp(min=1)
    middles = (torch.arange(to, device=picture.device, dtype=picture.dtype) + 0.5) * step - 0.5
    x = ((at[None] - middles[:, None]) / wide).abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    return weights / weights.sum(1, keepdim=True)


def _places(positions: Tensor, grid: int) -> Tensor:
    """Position embeddings (1, 1 + P, D) for a grid of another size, as DINOv2 itself changes them:
    bicubic, the first stays."""
    own, rest = positions.detach()[:, :1], positions.detach()[:, 1:]
    side = math.isqrt(rest.shape[1])
    if side == grid:
        return positions.detach().clone()
    square = rest.reshape(1, side, side, -1).permute(0, 3, 1, 2).float()
    square = F.interpolate(square, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([own, square.permute(0, 2, 3, 1).flatten(1, 2)], 1)


def _loaded(weights: str) -> Any:
    """A Dinov2Model in float32.

    Raises:
        MissingError: transformers is not installed.
        ModelError: It cannot be loaded.
    """
    try:
        from transformers import Dinov2Model
        from transformers.utils import logging
    except ImportError:
        raise MissingError(
            "dino needs transformers. Install it: uv sync --extra lab, or pip install 'relume[lab]'"
        ) from None
    loud = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        loaded: Any = Dinov2Model.from_pretrained(
            weights,
            use_safetensors=True,
            dtype=torch.float32,
            attn_implementation="eager",  # the fused form is the one that OpenVINO got wrong
            output_loading_info=True,
        )
    except Exception as error:  # whatever transformers raises on the way
        raise ModelError(
            f"encoders: the weights of DINOv2 cannot be loaded from {weights} "
            f"({type(error).__name__}). Give a folder that holds them, or a hub id."
        ) from error
    finally:
        logging.set_verbosity(loud)
        logging.enable_progress_bar()
    network, found = loaded
    absent = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    if absent:  # transformers would draw them at random
        raise ModelError(
            f"encoders: {weights} is no DINOv2: {len(absent)} tensors are missing, {absent[0]} "
            "first."
        )
    return network
