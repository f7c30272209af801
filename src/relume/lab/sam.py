"""Segment Anything asked everywhere: the masks of a grid of points, by transformers' models.

Each point (Kirillov et al., arXiv 2304.02643, appendix B) answers with three masks, their predicted
IoU and, from their logits, their stability. The published path enlarges every mask to the picture
before it judges it. Here a mask stays at the decoder's size until it has passed all that can be
told there; only those that would be kept are enlarged, and judged as the published path does.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import MissingError, ModelError
from ..priors.masks import Masks
from ..priors.sam import LAB, VIEWS, Everything
from .sam_decoder import share_picture

IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
HALF = torch.finfo(torch.half).max
AT_ONCE = 1 << 24  # pixels of enlarged masks that are held at a time


@dataclass(frozen=True, eq=False)
class Sam:
    """An open model.

    Attributes:
        model: transformers' SamModel, SamHQModel or Sam2Model, for inference.
        view: "pad" or "squeeze".
        side: Of the square that it looks at, in pixels.
        mean, std: Of its pixels, on [0, 1].
    """

    model: Any
    view: str
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def open_sam(folder: Path, device: str = "auto", *, name: str = "") -> Sam:
    """Load a model from its folder, which messages call `name`; the network is not asked.

    Args:
        device: "cpu", "gpu", or "auto" for a GPU where torch sees one.

    Raises:
        MissingError: The lab is not installed, or torch sees no GPU.
        ModelError: The weights do not fit the model, or cannot be loaded.
    """
    try:
        from transformers import AutoModelForMaskGeneration
        from transformers.utils import logging
    except ImportError:
        raise MissingError(f"SAM needs the lab: {LAB}.") from None
    sees = torch.cuda.is_available()
    if device == "gpu" and not sees:
        raise MissingError("torch sees no GPU here. Run with --device cpu.")
    name = name or folder.name
    loud = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, found = AutoModelForMaskGeneration.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # whatever transformers raises on the way
        raise ModelError(
            f"{name}: its weights cannot be loaded ({type(error).__name__}); fetch it anew."
        ) from error
    finally:
        logging.set_verbosity(loud)
        logging.enable_progress_bar()
    absent = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    if absent:  # transformers would draw them at random
        raise ModelError(f"{name}: {len(absent)} tensors are missing, {absent[0]} first.")
    said: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        text = (folder / "preprocessor_config.json").read_text(encoding="utf-8")
        said = json.loads(text)
    return sam_of(model.to("cuda" if sees and device != "cpu" else "cpu"), said)


def sam_of(model: Any, preprocessor: Mapping[str, Any] | None = None) -> Sam:
    """An open model from one of transformers' own, made ready for many prompts.

    Args:
        model: SamModel, SamHQModel or Sam2Model.
        preprocessor: What its preprocessor_config.json says; its mean and std are taken.
    """
    said = preprocessor or {}
    model.requires_grad_(False).eval()
    share_picture(model.mask_decoder.transformer)
    view = VIEWS[model.config.model_type]
    side = int(model.prompt_encoder.input_image_size)
    mean, std = (tuple(said.get(k, v)) for k, v in IMAGENET.items())
    return Sam(model, view, side, mean, std)


def segment_everything(
    sam: Sam,
    rgb: np.ndarray,
    settings: Everything | None = None,
    *,
    max_side: int = 1024,
    prompts: int = 0,
    provenance: Mapping[str, Any] | None = None,
) -> Masks:
    """Every mask that a grid of points finds, of falling predicted IoU.

    Args:
        sam: An open model.
        rgb: (1, 3, H, W) float32 RGB in [0, 1], the whole picture.
        settings: What is asked and kept.
        max_side: Longest side of the masks, in pixels; no more than the picture's.
        prompts: Points decoded at a time; 0 = 4 on a CPU, whose caches more would overflow, 64
            elsewhere.
        provenance: Of the masks.
    """
    settings = settings or Everything()
    height, width = rgb.shape[2:]
    ratio = min(1.0, max_side / max(height, width))
    size = (max(1, round(height * ratio)), max(1, round(width * ratio)))
    device = sam.model.device
    prompts = prompts or (4 if device.type == "cpu" else 64)
    logits: list[Tensor] = []
    ious: list[Tensor] = []
    boxes: list[Tensor] = []
    with torch.inference_mode():
        pixels, used = _shown(sam, rgb)
        embedded = sam.model.get_image_embeddings(pixels)
        given: dict[str, Any] = {"image_embeddings": embedded}
        if isinstance(embedded, tuple):  # SAM-HQ
            given = {"image_embeddings": embedded[0], "intermediate_embeddings": embedded[1]}
        frame = None
        for points in _points(settings.grid, used).to(device).split(prompts, dim=1):
            out = sam.model(
                input_points=points,
                input_labels=torch.ones_like(points[..., 0], dtype=torch.long),
                multimask_output=True,
                **given,
            )
            masks, iou = out.pred_masks.flatten(0, 2), out.iou_scores.flatten()
            frame = frame or Frame.of(sam, masks.shape[1:], used, size)
            sure = iou > settings.predicted_iou
            masks, iou = frame.cut(masks[sure]), iou[sure]
            near = frame.maybe_stable(masks, settings)
            # There may be 3 grid^2 of them. Beyond what half precision holds, all is far from 0.
            logits.append(masks[near].clamp(-HALF, HALF).half())
            ious.append(iou[near])
            boxes.append(frame.boxes(masks[near]))
        assert frame is not None
        best = torch.cat(ious).argsort(descending=True, stable=True)
        layers, scores = _kept(
            torch.cat(logits)[best], torch.cat(ious)[best], torch.cat(boxes)[best], frame, settings
        )
    return Masks.of(layers, scores, provenance)


def _shown(sam: Sam, rgb: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
    """The picture as the model looks at it, and the (height, width) of the square that it fills."""
    height, width = rgb.shape[2:]
    used = (sam.side, sam.side)
    if sam.view == "pad":
        ratio = sam.side / max(height, width)
        used = (max(1, int(height * ratio + 0.5)), max(1, int(width * ratio + 0.5)))
    x = torch.from_numpy(np.ascontiguousarray(rgb, np.float32))
    x = F.interpolate(x, used, mode="bilinear", align_corners=False, antialias=True)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (sam.mean, sam.std))
    x = F.pad((x - mean) / std, (0, sam.side - used[1], 0, sam.side - used[0]))
    return x.to(sam.model.device), used


def _points(grid: int, used: tuple[int, int]) -> Tensor:
    """(1, grid^2, 1, 2) points (x, y) at the centres of a grid's cells, in the model's pixels.

    Over all that the picture fills. transformers' generator keeps the picture's proportions for
    SAM 2 as well, whose square has none: there its points miss a part of every long picture.
    """
    y, x = ((torch.arange(grid) + 0.5) / grid * edge for edge in used)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(1, -1, 1, 2)


@dataclass(frozen=True, eq=False)
class Frame:
    """How the decoder's logits lie in the picture.

    Enlarging is bilinear to the model's square, there cut to what the picture fills, and bilinear
    to the picture; SAM 2 does it in one step. Both are a product, rows @ logits @ columns.T.

    Attributes:
        rows: (H, h), without the logits that only padding reads.
        columns: (W, w).
        steps: Pixels of the picture per logit, down and across.
    """

    rows: Tensor
    columns: Tensor
    steps: tuple[float, float]

    @staticmethod
    def of(sam: Sam, low: tuple[int, ...], used: tuple[int, int], size: tuple[int, int]) -> Frame:
        """For logits of `low`, a picture that fills `used` of the square, and masks of `size`."""
        made = []
        for axis in (0, 1):
            each = torch.eye(low[axis], device=sam.model.device)[None, None]
            if sam.view == "pad":
                each = F.interpolate(each, (sam.side, low[axis]), mode="bilinear")
                each = each[:, :, : used[axis]]
            each = F.interpolate(each, (size[axis], low[axis]), mode="bilinear")[0, 0]
            made.append(each[:, : int(each.any(0).nonzero().max()) + 1].contiguous())
        steps = [sam.side / low[i] * size[i] / used[i] for i in (0, 1)]
        return Frame(made[0], made[1], (steps[0], steps[1]))

    @property
    def size(self) -> tuple[int, int]:
        return len(self.rows), len(self.columns)

    def cut(self, logits: Tensor) -> Tensor:
        return logits[:, : self.rows.shape[1], : self.columns.shape[1]]

    def enlarge(self, logits: Tensor) -> Tensor:
        """(n, h, w) to (n, H, W)."""
        return self.rows @ logits @ self.columns.T

    def maybe_stable(self, logits: Tensor, settings: Everything) -> Tensor:
        """(n,) bool: False where the enlarged mask cannot be stable enough.

        Counting logits instead of pixels errs by what the border does inside of them: of b logits
        some sqrt(border) / b, at most 1 / sqrt(b). Twice that is allowed for, and 0.05 more for the
        corners that interpolation cuts.
        """
        down, across = self.rows.sum(0), self.columns.sum(0)

        def area(threshold: float) -> Tensor:
            return ((logits > threshold).to(down.dtype) @ across) @ down

        inner, outer = area(settings.offset), area(-settings.offset)
        margin = 0.05 + 2 * (self.steps[0] * self.steps[1] / outer.clamp(min=1e-9)).sqrt()
        return (outer > 0) & (inner >= (settings.stability - margin) * outer)

    def boxes(self, logits: Tensor) -> Tensor:
        """(n, 4) left, top, right, bottom pixel of the masks, to about a pixel.

        Along each axis to where the surface falls through 0; of the outermost line of positive
        logits, that is the furthest of the crossings towards the next line.
        """
        sides = []
        for lines, step, last in (
            (logits, self.steps[1], len(self.columns) - 1),
            (logits.mT, self.steps[0], len(self.rows) - 1),
        ):
            low = lines.shape[2] - 1 - _reach(lines.flip(2))
            near, far = ((x + 0.5) * step - 0.5 for x in (low, _reach(lines)))
            sides += [near.ceil().clamp(0, last), far.floor().clamp(0, last)]
        left, right, top, bottom = sides
        return torch.stack([left, top, right, bottom], 1)


def _reach(logits: Tensor) -> Tensor:
    """(n,): how far along the last axis the surface is positive, in samples."""
    count, _, width = logits.shape
    last = width - 1 - (logits > 0).any(1).flip(1).long().argmax(1)
    each = torch.arange(count, device=logits.device)
    a, b = logits[each, :, last], logits[each, :, (last + 1).clamp(max=width - 1)]
    beyond = torch.where(a > 0, a / (a - b), 0.0)  # at the edge b is a, and there is no end
    return last + beyond.clamp(max=1).amax(1)


def _kept(
    logits: Tensor, ious: Tensor, boxes: Tensor, frame: Frame, settings: Everything
) -> tuple[np.ndarray, np.ndarray]:
    """Of candidates of falling predicted IoU, the masks that are kept and their scores.

    Which masks are stable is certain only once they are enlarged, and which are suppressed depends
    on which are stable. A suppressed mask changes nothing, stable or not: so only those that would
    be kept are enlarged; what turns out unstable is dropped, and suppression decided anew, until
    all that is kept has been judged.

    Returns:
        (M, H, W) bool; (M, 3) predicted IoU, stability, share of the picture.
    """
    height, width = frame.size
    iou, box = ious.float().cpu().numpy(), boxes.cpu().numpy()
    alive, judged = np.ones(len(iou), bool), np.zeros(len(iou), bool)
    scores = np.stack([iou, 0 * iou, 0 * iou], 1)
    bits = np.zeros((len(iou), 0), np.uint8)
    while True:
        kept = suppress(box, alive, settings.overlap)
        due = np.flatnonzero(kept & ~judged)
        if not len(due):
            break
        if not bits.shape[1]:
            bits = np.zeros((len(iou), height, -(-width // 8)), np.uint8)
        many = max(1, AT_ONCE // (height * width))
        for part in np.split(due, range(many, len(due), many)):
            chosen = logits[torch.from_numpy(part).to(logits.device)]
            full = frame.enlarge(chosen.to(frame.rows.dtype))
            inner, outer = ((full > s * settings.offset).sum((1, 2)) for s in (1, -1))
            masks = (full > 0).cpu().numpy()
            scores[part, 1] = (inner / outer.clamp(min=1)).cpu().numpy()
            scores[part, 2] = masks.mean((1, 2))
            box[part] = _pixel_boxes(masks)
            bits[part] = np.packbits(masks, axis=-1)
        judged[due] = True
        alive[due] = scores[due, 1] >= settings.stability
    found = np.unpackbits(bits[kept], axis=-1, count=width) if kept.any() else np.zeros((0, 1, 1))
    return found.reshape(-1, height, width).astype(bool), scores[kept]


def suppress(boxes: np.ndarray, alive: np.ndarray, overlap: float) -> np.ndarray:
    """Greedy suppression: those that no kept box before them overlaps too much, (n,) bool.

    Args:
        boxes: (n, 4) left, top, right, bottom; the best first.
        alive: (n,) bool, those that may be kept and may suppress.
        overlap: IoU above which a box is suppressed. Two empty boxes have none.

    Returns:
        The fixed point of "alive, and no kept one before it overlaps", which is what one by one
        gives; it takes as many rounds as boxes suppress each other in a chain.
    """
    left, top, right, bottom = boxes.T
    wide = np.minimum(right[:, None], right) - np.maximum(left[:, None], left)
    high = np.minimum(bottom[:, None], bottom) - np.maximum(top[:, None], top)
    common = np.maximum(wide, 0) * np.maximum(high, 0)
    area = (right - left) * (bottom - top)
    over = np.tril(common > overlap * (area[:, None] + area - common), -1)
    kept, now = alive, alive & ~(over & alive).any(1)
    while (now != kept).any():
        kept, now = now, alive & ~(over & now).any(1)
    return kept


def _pixel_boxes(masks: np.ndarray) -> np.ndarray:
    """(n, 4) left, top, right, bottom pixel of masks (n, H, W); zeros for an empty one."""
    sides = []
    for inside in (np.any(masks, axis=1), np.any(masks, axis=2)):
        sides += [inside.argmax(1), inside.shape[1] - 1 - inside[:, ::-1].argmax(1)]
    left, right, top, bottom = sides
    return np.stack([left, top, right, bottom], 1) * np.any(masks, axis=(1, 2))[:, None]
