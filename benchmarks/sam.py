"""Segment Anything everywhere: our path against transformers' own generator, same model, one run.

    python benchmarks/sam.py [--model vit-b|sam2-tiny|toy] [--grid 32] [--size 683 1024]

Weights are random, of the named model's shape: costs are real, masks are not. What random weights
draw reaches from edge to edge, so the logits are lifted around each point into discs of three
sizes, and the predicted IoUs spread over 0.76 to 1, for both paths alike and inside the model.
Both get the published settings: predicted IoU above 0.88, stability 0.95 at offset 1, box IoU 0.7,
no crops. Rounds are interleaved; the ratio is taken round by round. Agreement is the mean over one
path's masks of the IoU with the other's best. A second look at a picture must not call the model.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

from relume.lab.sam import sam_of, segment_everything
from relume.priors.cache import Cache
from relume.priors.sam import Everything, SamPrior


def model_of(name: str, side: int) -> Any:
    """A model with random weights; `toy` is for trying the script."""
    torch.manual_seed(0)
    if name == "sam2-tiny":
        return transformers.Sam2Model(transformers.Sam2Config())
    if name == "vit-b":
        # transformers draws this encoder's weights at 1e-10: numbers below the smallest normal one
        # take a processor ten times as long, which no real model costs.
        vision = {"initializer_range": 0.02}
        return transformers.SamModel(transformers.SamConfig(vision_config=vision))
    vision = {"hidden_size": 32, "output_channels": 32, "num_hidden_layers": 2, "mlp_dim": 64}
    vision |= {"num_attention_heads": 2, "global_attn_indexes": [1], "num_pos_feats": 16}
    decoder = {
        "hidden_size": 32,
        "mlp_dim": 64,
        "num_attention_heads": 4,
        "iou_head_hidden_dim": 32,
    }
    prompt = {"hidden_size": 32, "image_size": side, "image_embedding_size": side // 16}
    return transformers.SamModel(
        transformers.SamConfig(
            vision_config={**vision, "image_size": side},
            mask_decoder_config=decoder,
            prompt_encoder_config=prompt,
        )
    )


def focused(model: Any, side: int) -> Any:
    """Discs around the points, and predicted IoUs of which half pass; in the model's own output."""

    def lift(_: Any, args: Any, given: Any, out: Any) -> None:
        points = given["input_points"][0, :, 0].float()
        at = (torch.arange(out.pred_masks.shape[-1]) + 0.5) * side / out.pred_masks.shape[-1]
        off = (at[None, None] - points[:, :1, None]) ** 2
        off = off + (at[None, :, None] - points[:, 1:, None]) ** 2
        radius = side * torch.tensor([0.03, 0.08, 0.2])
        sharp = 40 + 160 * (points.sum(1) * 0.618 % 1)
        lifted = sharp[:, None, None, None] * (1 - off[:, None] / radius[:, None, None].square())
        out.pred_masks.add_(lifted.clamp(-30, 30))
        promised = (points[:, :1] * 0.618 + points[:, 1:] * 0.414 + torch.arange(3) * 0.3) % 1
        out.iou_scores.copy_(0.76 + 0.24 * promised)

    model.register_forward_hook(lift, with_kwargs=True)
    return model.requires_grad_(False).eval()


def best_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over the masks of `a` (M, H, W) of the IoU with the one of `b` that fits best."""
    flat = [torch.from_numpy(x.reshape(len(x), -1)).float() for x in (a, b)]
    common = flat[0] @ flat[1].T
    areas = [x.sum(1) for x in flat]
    return float((common / (areas[0][:, None] + areas[1] - common)).amax(1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", choices=("vit-b", "sam2-tiny", "toy"), default="vit-b")
    parser.add_argument("--grid", type=int, default=32)
    parser.add_argument("--size", type=int, nargs=2, default=(683, 1024), help="height width")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    side = 256 if args.model == "toy" else 1024
    height, width = args.size
    if args.model == "sam2-tiny" and height != width:
        parser.error("transformers' points miss a part of SAM 2's square: --size of a square")
    levels = np.random.default_rng(0).integers(0, 256, (height // 16 + 1, width // 16 + 1, 3))
    levels = levels.repeat(16, 0).repeat(16, 1)[:height, :width].astype(np.uint8)
    rgb = np.ascontiguousarray(levels.transpose(2, 0, 1)[None], np.float32) / 255
    settings = Everything(grid=args.grid)

    theirs = focused(model_of(args.model, side), side)
    if args.model == "sam2-tiny":
        processor: Any = transformers.Sam2ImageProcessor()
    else:
        square = {"height": side, "width": side}
        processor = SamImageProcessorPil(size={"longest_edge": side}, pad_size=square)
    pipeline = transformers.MaskGenerationPipeline(model=theirs, image_processor=processor)
    ours = focused(model_of(args.model, side), side)
    sam = sam_of(ours)

    def peer() -> np.ndarray:
        said = pipeline(Image.fromarray(levels), points_per_crop=args.grid, points_per_batch=64)
        return np.stack([np.asarray(mask) for mask in said["masks"]])

    def own() -> np.ndarray:
        return segment_everything(sam, rgb, settings).layers()

    times: dict[str, list[float]] = {"transformers": [], "relume": []}
    masks: dict[str, np.ndarray] = {}
    for _ in range(args.rounds):
        for name, work in (("transformers", peer), ("relume", own)):
            began = time.perf_counter()
            masks[name] = work()
            times[name].append(time.perf_counter() - began)
    ratio = statistics.median(
        a / b for a, b in zip(times["transformers"], times["relume"], strict=True)
    )
    print(
        f"{args.model}, random weights, {width} x {height}, grid {args.grid}, "
        f"{args.threads} threads, medians of {args.rounds} interleaved rounds"
    )
    for name, seconds in times.items():
        print(f"{name:14} {statistics.median(seconds):8.1f} s   {len(masks[name])} masks")
    print(f"{ratio:.2f} x faster end to end")
    a, b = masks["transformers"], masks["relume"]
    print(f"mean IoU: theirs in ours {best_iou(a, b):.4f}, ours in theirs {best_iou(b, a):.4f}")

    with tempfile.TemporaryDirectory() as folder:
        model_of(args.model, side).save_pretrained(f"{folder}/model")
        prior = SamPrior(f"{folder}/model", cache=Cache(f"{folder}/cache"), grid=2)
        looks = []
        for _ in range(2):
            began = time.perf_counter()
            prior(rgb)
            looks.append(time.perf_counter() - began)
        print(
            f"looks {looks[0]:.2f} s, then {looks[1]:.3f} s (grid 2); "
            f"calls of the model: {prior.calls}"
        )


if __name__ == "__main__":
    main()
