"""A region-guided model on photographs: tiles against the whole, the file against its network.

    python benchmarks/guided.py MODEL.onnx PHOTOGRAPH... [-o DIR] [--tile 256]

Everything before the last column runs without torch, as it does for people: the model that runs
first, the regions, what is prepared once, the tiles. Columns: the regions that were found; seconds
of `restore` with its own tiles; the largest difference, anywhere, between tiles of `--tile` pixels
and one tile that holds the picture, both as they leave the engine; the gradient energy on the
seams between those tiles over that elsewhere, and the same of the one tile, which has no seams
(goal R8: a model that looks at the whole picture stays within 1.02 times that); and the largest
difference between the file and the network it was made of, tile by tile.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from relume.card import find
from relume.engine import open_engine
from relume.image import read, write
from relume.lab.reach import seam_ratio
from relume.priors.choice import priors_of
from relume.restoration import look, restore, view_of
from relume.tiling import plan

WHOLE = 1 << 13  # the side of a tile that holds any photograph


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("photographs", type=Path, nargs="+")
    parser.add_argument("-o", "--out", type=Path, help="folder for what came of them, as PNG")
    parser.add_argument("--tile", type=int, default=256)
    given = parser.parse_args()

    found = find(given.model)
    engine = open_engine(found, "onnx")
    card, asked = found.card, priors_of(found.card, "auto", masks=engine.masks)
    measured = []
    for path in given.photographs:
        picture = read(path)
        began = time.perf_counter()
        result = restore(picture, engine, prior=asked)
        seconds = time.perf_counter() - began
        if given.out:
            given.out.mkdir(parents=True, exist_ok=True)
            write(result.picture, given.out / f"{path.stem}.png")
        rgb = picture.rgb()
        guidance = look(rgb, card, asked, engine.first)
        ready = engine.prepare(view_of(rgb, card.view_side), guidance)
        height, width = rgb.shape[2:]
        plans = [
            plan(
                height,
                width,
                scale=card.scale,
                multiple_of=card.multiple_of,
                overlap=card.overlap,
                tile=side,
            )
            for side in (given.tile, WHOLE)
        ]
        tiled, whole = (tiles.run(rgb, ready, engine) for tiles in plans)
        labels = [g.array.max() for g in guidance.values() if g.kind == "regions"]
        measured.append((path, rgb, ready, plans[0], tiled, whole, max(labels, default=0), seconds))
    assert "torch" not in sys.modules, "something on the way imported torch"

    network = open_engine(found, "torch")
    print(f"{card.name}, tensors {card.digest[:8]}, support {card.support}, overlap {card.overlap}")
    print(f"{'':34}size  regions      s  tiles/whole  seams tiled, whole   file/network")
    for path, rgb, ready, tiles, tiled, whole, regions, seconds in measured:
        height, width = rgb.shape[2:]
        theirs = tiles.run(rgb, network.prepare(view_of(rgb, card.view_side), ready), network)
        print(
            f"{path.name[:24]:24}{width:6} x {height:<5}{regions:9}{seconds:7.2f}"
            f"{np.abs(tiled - whole).max():13.1e}{seam_ratio(tiled, tiles):10.4f}"
            f"{seam_ratio(whole, tiles):8.4f}{np.abs(theirs - tiled).max():15.1e}"
        )


if __name__ == "__main__":
    main()
