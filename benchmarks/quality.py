"""A quality model: whether it tells tiers apart, orders real pairs, and foresees what stays wrong.

    python benchmarks/quality.py --data ../shared/data [--model relume-quality]
        [--medium MODEL,MODEL] [--sets cbsd68,photos,real,soft] [--limit N]

Five tables:

- triplets: a picture as it was damaged (low), as a poor restorer leaves it (medium), and as it was
  (high). The damages are the contract's evaluation SPECs, as `relume degrade --seed 11` makes them,
  in 8-bit files. A medium picture keeps 0.3 of the damage, 0.3 lq + 0.7 out, out being what one of
  the models of --medium, in turn, makes of the whole picture; where that leaves more than 0.9 of
  the error, 0.3 lq + 0.7 gt, and of blur the same blur at 0.3 of its length (`triplets.between`).
  Macro accuracy is the mean over the damages of
  the share of tiers named right; "in order" means that the score rises from low to medium to high.
- real pairs: how often gt has a higher score than lq.
- soft: the same of photos/val that a lens or a small scale left soft, which gt is too, under camera
  noise; four draws of each photograph. What stands for a camera's pictures where none may be tuned
  on.
- difficulty: Spearman's rank correlation with the error (log10 of the MSE) that the default
  restorer leaves in the same damaged pictures, over all damages and within each.
- a count of what clean pictures are taken for.

Of photos/val the middle 384 pixels count. Intervals are 95 % bootstraps over photographs.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from relume.engine import Engine, open_engine
from relume.errors import RelumeError
from relume.lab.datasets import Pair, Pairs, centres, degraded_pairs, folder_pairs
from relume.lab.report import summary
from relume.lab.triplets import as_file, between, milder
from relume.priors.choice import priors_of
from relume.priors.quality import TIERS, Quality, QualityPrior, judged
from relume.restoration import run_model

SEED = 11
SIDE = 384
SHARE = 0.3
SPECS = {
    "noise": "noise:sigma=25",
    "jpeg": "jpeg:quality=10..30",
    "blur": "blur:length=11..17",
    "haze": "haze:beta=0.15..0.6",
    "rain": "rain:density=0.002..0.006",
    "raindrop": "raindrop:count=40..80",
    "lowlight": "lowlight:gain=0.12..0.3",
}
REAL: dict[str, tuple[str, str]] = {
    "PolyU (camera noise)": ("denoise_real/polyu", "lq"),
    "Rain100H": ("derain/rain100h", "lq"),
    "exposure brackets": ("lowlight/bracket_pairs", "lq"),
    "raindrop": ("raindrop/pairs", "lq"),
    "SOTS (haze)": ("dehaze/reside_SOTS", "hazy"),
    "ITS (haze)": ("dehaze/reside_ITS_v2", "hazy"),
}
SOFT = {
    "as they are": "sensor:iso=200..1600",
    "a third to half of the scale": "resize:factor=0.3..0.5+sensor:iso=200..1600",
    "Gaussian 0.6 to 1": "lens:sigma=0.6..1+sensor:iso=200..1600",
    "Gaussian 1 to 1.6": "lens:sigma=1..1.6+sensor:iso=200..1600",
    "Gaussian 1.6 to 2.4": "lens:sigma=1.6..2.4+sensor:iso=200..1600",
    "the same, saved by a camera": "lens:sigma=1.6..2.4+sensor:iso=200..1600+jpeg:quality=85..97",
}
BARS = {"macro": 0.85, "worst": 0.75, "all": 0.70, "ordered": 0.90, "worst ordered": 0.80}


@dataclass(frozen=True)
class Row:
    """One triplet: what it shows, how it was damaged, what was said of the three, and log10 MSE of
    what the restorer made of the first."""

    photograph: str
    task: str
    said: tuple[Quality, ...]
    left: float

    @property
    def right(self) -> float:
        return float(np.mean([q.tier == t for q, t in zip(self.said, TIERS, strict=True)]))

    @property
    def ordered(self) -> bool:
        low, medium, high = (q.score for q in self.said)
        return low < medium < high


def synthetic(data: Path, name: str, spec: str) -> Pairs:
    if name == "cbsd68":
        ids = (data / "bsds500/cbsd68_ids.txt").read_text().split()
        return degraded_pairs(data / "bsds500/images/val", spec, seed=SEED, names=ids)
    return centres(degraded_pairs(data / "photos/val", spec, seed=SEED), SIDE)


def triplets(
    data: Path,
    name: str,
    look: Callable[[np.ndarray], Quality],
    medium: Sequence[Engine],
    restorer: Engine,
    limit: int | None,
) -> list[Row]:
    """Of one set, all damages."""
    own = priors_of(restorer.card, "auto")
    rows: list[Row] = []
    for task, spec in SPECS.items():
        fewer = synthetic(data, name, milder(spec, SHARE)) if task == "blur" else None
        for index, pair in enumerate(synthetic(data, name, spec).items[:limit]):
            loaded = pair.load()
            out, _ = run_model(loaded.lq, restorer, own)
            mse = float(np.square(np.clip(out, 0, 1) - loaded.gt).mean())
            who = medium[index % len(medium)] if medium else None
            made = run_model(loaded.lq, who, priors_of(who.card, "auto"))[0] if who else out
            shorter = fewer.items[index] if fewer else None
            instead = (lambda one=shorter: one.load().lq) if shorter else None
            poor = between(loaded.lq, made, loaded.gt, SHARE, instead)
            said = tuple(look(rgb) for rgb in (loaded.lq, poor, as_file(loaded.gt)))
            rows.append(Row(pair.photograph, task, said, float(np.log10(mse + 1e-8))))
            print(f"{name} {task} {index}", end="\r", file=sys.stderr, flush=True)
    return rows


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Pearson's correlation of ranks; ties share theirs."""

    def ranks(values: Sequence[float]) -> np.ndarray:
        _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
        last = np.cumsum(counts)
        return ((last - (counts - 1) / 2)[index]).astype(np.float64)

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def table_of_triplets(name: str, rows: Sequence[Row]) -> list[str]:
    """Markdown."""
    lines = [
        f"### Triplets of {name}",
        "",
        "| damage | n | accuracy | low | medium | high | all three | in order | difficulty |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    macro: list[float] = []
    ordered: list[float] = []
    for task in SPECS:
        mine = [row for row in rows if row.task == task]
        each = [np.mean([row.said[i].tier == t for row in mine]) for i, t in enumerate(TIERS)]
        macro.append(float(np.mean(each)))
        ordered.append(float(np.mean([row.ordered for row in mine])))
        every = np.mean([row.right == 1 for row in mine])
        rank = spearman([row.said[0].difficulty for row in mine], [row.left for row in mine])
        tiers = " | ".join(f"{share:.2f}" for share in each)
        lines.append(
            f"| {task} | {len(mine)} | {macro[-1]:.3f} | {tiers} | {every:.2f} | "
            f"{ordered[-1]:.2f} | {rank:.2f} |"
        )
    groups = [row.photograph for row in rows]
    found = {
        "macro": summary([row.right for row in rows], groups),
        "all": summary([float(row.right == 1) for row in rows], groups),
        "ordered": summary([float(row.ordered) for row in rows], groups),
    }
    rank = spearman([row.said[0].difficulty for row in rows], [row.left for row in rows])
    lines += [
        "",
        f"Macro accuracy {_said(found['macro'])}, bar {BARS['macro']}; worst damage "
        f"{min(macro):.3f}, bar {BARS['worst']}; all three right {_said(found['all'])}, bar "
        f"{BARS['all']}; in order {_said(found['ordered'])}, bar {BARS['ordered']}, worst "
        f"{min(ordered):.3f}, bar {BARS['worst ordered']}; difficulty against the error left, "
        f"Spearman over all damages {rank:.3f}, bar 0.6.",
        "",
    ]
    clean = {row.photograph: row.said[2].tier for row in rows}
    lines += [f"Undamaged pictures are taken for: {dict(Counter(clean.values()))}.", ""]
    return lines


def _said(found: dict[str, object]) -> str:
    interval = found["ci95"]
    bounds = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if isinstance(interval, list) else ""
    return f"{found['mean']:.3f}{bounds}"


def scene(name: str) -> str:
    """PolyU cuts several crops from one scene."""
    return re.sub(r"_+\d+$", "", Path(name).stem)


def real_pairs(data: Path) -> Iterator[tuple[str, list[Pair]]]:
    for title, (folder, lq) in REAL.items():
        pairs = folder_pairs(data / folder / lq, data / folder / "gt", photograph=scene)
        yield title, list(pairs.items)


def soft_pairs(data: Path) -> Iterator[tuple[str, list[Pair]]]:
    for title, spec in SOFT.items():
        drawn = [centres(degraded_pairs(data / "photos/val", spec, seed=s), SIDE) for s in range(4)]
        yield title, [pair for pairs in drawn for pair in pairs.items]


def table_of_pairs(
    title: str,
    sets: Iterable[tuple[str, list[Pair]]],
    look: Callable[[np.ndarray], Quality],
    limit: int | None,
) -> list[str]:
    """Markdown."""
    lines = [
        f"### {title}: gt has a higher score than lq",
        "",
        "| set | n | share | mean score lq | mean score gt | tiers of lq | tiers of gt |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, pairs in sets:
        said = []
        for pair in pairs[:limit]:
            loaded = pair.load()
            said.append((pair.photograph, look(loaded.lq), look(as_file(loaded.gt))))
        share = summary([float(b.score > a.score) for _, a, b in said], [s for s, _, _ in said])
        means = [np.mean([row[i].score for row in said]) for i in (1, 2)]
        tiers = [dict(Counter(row[i].tier for row in said)) for i in (1, 2)]
        lines.append(
            f"| {name} | {len(said)} | {_said(share)} | {means[0]:.2f} | {means[1]:.2f} | "
            f"{tiers[0]} | {tiers[1]} |"
        )
    return [*lines, ""]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="relume-quality", help="shipped name or file")
    parser.add_argument("--restorer", default="relume-s", help="whose error is foreseen")
    parser.add_argument("--medium", default="", help="others that make medium pictures, by a comma")
    parser.add_argument("--sets", default="cbsd68,photos,real,soft")
    parser.add_argument("--limit", type=int, help="the first so many pictures of each set")
    parser.add_argument("--rows", type=Path, help="write what was said of each picture, JSON lines")
    args = parser.parse_args()
    torch.set_num_threads(1)
    try:
        prior = QualityPrior(args.model)
        medium = [open_engine(name) for name in args.medium.split(",") if name]
        restorer = open_engine(args.restorer, "onnx")

        def look(rgb: np.ndarray) -> Quality:
            return judged(prior(np.ascontiguousarray(rgb, np.float32)))

        card = prior.engine.card
        version = importlib.metadata.version("onnxruntime")
        print(f"{card.name}, tensors {card.digest[:12]}, onnxruntime {version}")
        makers = medium or [restorer]
        print(f"medium: {', '.join(f'{e.card.name} {e.card.digest[:12]}' for e in makers)}\n")
        for name in args.sets.split(","):
            began = time.perf_counter()
            if name == "real":
                lines = table_of_pairs("Real pairs", real_pairs(args.data), look, args.limit)
            elif name == "soft":
                lines = table_of_pairs("Soft pictures", soft_pairs(args.data), look, args.limit)
            else:
                rows = triplets(args.data, name, look, medium, restorer, args.limit)
                lines = table_of_triplets(name, rows)
                if args.rows:
                    kept = [{**vars(r), "said": [vars(q) for q in r.said]} for r in rows]
                    with args.rows.open("a") as file:
                        file.writelines(json.dumps({"set": name, **row}) + "\n" for row in kept)
            print("\n".join(lines))
            print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    except RelumeError as error:
        print(f"quality: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
