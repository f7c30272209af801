"""Models to choose among, on parts of photos/val in other lights: never on a test set.

    python benchmarks/parts.py MODEL.safetensors [ANOTHER ...] [--doubt 3.6]

Twenty-nine validation photographs show few of the pictures that come out wrong as a whole. A part
of one in another exposure, white balance and contrast is a picture that training never saw; so many
of them, under each damage, show the tail as well as the middle. The networks run as in training, on
crops of 128 pixels whose thumbnail is their part's.

Where one of them is told where the picture is damaged, the shipped mask network looks at the whole
parts, two of each photograph, and all networks get crops of those. A network that was trained under
a control of it is told what that control says.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from relume.card import MASKS
from relume.engine import open_engine
from relume.guidance import Guidance
from relume.lab.controls import CONTROLS
from relume.lab.data import DAMAGE, Batch, Damage, Damaged
from relume.lab.finished import opened
from relume.lab.metrics import as_uint8, psnr
from relume.lab.photographs import load_photographs
from relume.lab.restorer import Restorer, as_tensors
from relume.lab.sources import Source
from relume.priors import PRIORS
from relume.priors.damage import DamagePrior

VALIDATION = Path(__file__).resolve().parents[2] / "shared/data/photos/val"
PARTS, CROP, SEED = 174, 128, 77
FIXED = 2  # parts of each photograph, where a mask network looks at them whole
DAMAGES = {
    "clean": ("", 0.0),
    "clean, soft": ("", 1.0),
    "camera noise": ("sensor:iso=100..6400", 0.0),
    "camera noise, soft": ("sensor:iso=100..6400", 1.0),
    "noise 25": ("noise:sigma=25", 0.0),
    "JPEG": ("jpeg:quality=10..30", 0.0),
    "blur": ("blur:length=11..17", 0.0),
    "haze": ("haze:beta=0.15..0.6", 0.0),
    "rain": ("rain:density=0.002..0.006", 0.0),
    "drops": ("raindrop:count=100..200", 0.0),
    "low light": ("lowlight:gain=0.12..0.3", 0.0),
}
FELL, CLEAN = -3.0, 30.0


def parts(spec: str, soft: float, count: int, masks: DamagePrior | None) -> Batch:
    """`count` damaged parts, what their thumbnails show, and what `masks` says of them."""
    photographs = load_photographs(VALIDATION, sizes=1)
    shares = [0.0, 1.0] if spec else [1.0]
    damage = Damage({spec or "noise:sigma=25": 1.0}, shares, soft=soft)
    sources = {"thumbnail": Source(PRIORS["thumbnail"]())}
    if masks:
        sources[DAMAGE] = Source(masks)
    samples = Damaged(
        photographs,
        damage,
        seed=SEED,
        sources=sources,
        windows=(0.3, 1.0),
        fixed=FIXED if masks else 0,
    )
    return samples.batch(0, count, CROP)


def under(control: str, batch: Batch) -> Batch:
    """The batch with what a control of the mask network says in its place."""
    if control == "none":
        return batch
    known = Guidance({DAMAGE: batch.guidance[DAMAGE].map(lambda a: a.numpy())})
    said = as_tensors(CONTROLS[control](known, Guidance(), Guidance(), torch.Generator()))
    return Batch(batch.lq, batch.gt, batch.guidance.with_guide(DAMAGE, said[DAMAGE]))


@torch.inference_mode()
def gains(model: Restorer, batch: Batch) -> np.ndarray:
    """dB gained of each part; PSNR(in, out), at most 60, where the part is undamaged."""
    outs = [
        model(batch.lq[i : i + 8], batch.guidance.map(lambda g, i=i: g.map(lambda a: a[i : i + 8])))
        for i in range(0, len(batch.lq), 8)
    ]
    out, lq, gt = (as_uint8(a.numpy()) for a in (torch.cat(outs), batch.lq, batch.gt))
    after = np.array([psnr(o[None], g[None]) for o, g in zip(out, gt, strict=True)])
    before = np.array([psnr(i[None], g[None]) for i, g in zip(lq, gt, strict=True)])
    return np.where(before >= 60, after, after - before).ravel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, help="finished weights or run folders")
    parser.add_argument(
        "--doubt", type=float, help="of the thumbnail's encoder, instead of its own"
    )
    parser.add_argument("--parts", type=int, default=PARTS, help="a damage")
    arguments = parser.parse_args()
    networks = []
    for path in arguments.models:
        network, stored = opened(path)
        control = stored.recipe.get("priors", {}).get(DAMAGE, {}).get("control", "none")
        if arguments.doubt is not None:
            network.encoders["code"].doubt = arguments.doubt
        networks.append((network.eval(), control))
    told = any(r.prior == DAMAGE for network, _ in networks for r in network.reads)
    masks = DamagePrior(open_engine(MASKS, "onnx")) if told else None  # OpenVINO compiles each size
    print(
        f"{arguments.parts} parts of photos/val a damage, {CROP} pixels, seed {SEED}, RGB, uint8."
    )
    print("Gain in dB, mean (median; worst); clean: PSNR(in, out). Fell: more than 3 dB, or clean")
    print("below 30 dB.\n\n| damage | " + " | ".join(str(p) for p in arguments.models) + " |")
    print("|---|" + "---|" * len(networks))
    fallen = [0] * len(networks)
    for title, (spec, soft) in DAMAGES.items():
        batch = parts(spec, soft, arguments.parts, masks)
        cells = []
        for at, (network, control) in enumerate(networks):
            found = gains(network, under(control, batch))
            fell = int((found < (FELL if spec else CLEAN)).sum())
            fallen[at] += fell
            cells.append(
                f"{found.mean():+.2f} ({np.median(found):+.2f}; {found.min():+.2f}), {fell} fell"
            )
        print(f"| {title} | " + " | ".join(cells) + " |", flush=True)
    total = arguments.parts * len(DAMAGES)
    print(f"| all | {' | '.join(f'{n} of {total} fell' for n in fallen)} |")


if __name__ == "__main__":
    main()
