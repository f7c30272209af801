"""Regions without weights, against what people drew: time, and how well the borders agree.

    python benchmarks/segment.py --data ../shared/data/bsds500 [--pictures 100] [--split val]

Boundary F-measure as BSDS500 has it (Arbelaez, Maire, Fowlkes and Malik, TPAMI 2011): pixels of two
borders correspond one to one within 0.0075 of the diagonal; precision counts border pixels that
correspond to anybody's, recall those of every person; F is taken of the counts summed over all
pictures. Simplified in two places: correspondence is the largest possible (maximum bipartite
matching) where the original also minimises distances, and no border is thinned, ours or people's.
There is one segmentation a picture, no threshold to choose, so that this is F at one point.

Rows: our regions on the picture, the same with noise; Felzenszwalb and Huttenlocher's alone, which
degradations follow; the controls `grid` and `voronoi` of the same areas; and the gPb-UCM regions
that the data set stores at two thresholds, of a learnt method that takes minutes a picture.
Intervals are bootstraps over pictures. Time is this process's CPU time for one 0.5 MP picture.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_flow
from scipy.spatial import cKDTree

from relume.image import read, resize
from relume.lab.degrade import generator, parse
from relume.lab.segmentations import every_segmentation
from relume.priors.partitions import grid, voronoi
from relume.priors.regions import RegionsPrior, regions

TOLERANCE = 0.0075  # of the picture's diagonal


def border(labels: np.ndarray) -> np.ndarray:
    """(n, 2) pixels whose right or lower neighbour has another label."""
    line = np.zeros(labels.shape, bool)
    line[:-1] |= labels[1:] != labels[:-1]
    line[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    return np.argwhere(line)


def counts(labels: np.ndarray, people: list[np.ndarray]) -> np.ndarray:
    """[ours that correspond, ours, theirs that correspond, theirs], pixels of one picture."""
    ours = border(labels)
    reach = TOLERANCE * np.hypot(*labels.shape)
    hit = np.zeros(len(ours), bool)
    found = drawn = 0
    for person in people:
        theirs = border(person)
        drawn += len(theirs)
        if not (len(ours) and len(theirs)):
            continue
        near = cKDTree(ours).sparse_distance_matrix(
            cKDTree(theirs), reach, output_type="coo_matrix"
        )
        paired = matched(near.row, near.col, *near.shape)
        hit |= paired
        found += int(paired.sum())
    return np.array([hit.sum(), len(ours), found, drawn], np.float64)


def matched(row: np.ndarray, col: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """(rows,) which rows a largest matching pairs with a column, of edges (row, col).

    As a flow of ones from a source (0) through rows and columns to a sink: Dinic's algorithm takes
    7 ms for a picture and a person where scipy's maximum_bipartite_matching took up to 34 s.
    """
    sink = 1 + rows + cols
    tail = np.concatenate([np.zeros(rows, int), 1 + row, 1 + rows + np.arange(cols)])
    head = np.concatenate([1 + np.arange(rows), 1 + rows + col, np.full(cols, sink)])
    graph = csr_matrix((np.ones(len(tail), np.int32), (tail, head)), shape=(sink + 1, sink + 1))
    flow = maximum_flow(graph, 0, sink, method="dinic").flow
    return flow[0].toarray()[0, 1 : 1 + rows] > 0


def f_measure(total: np.ndarray) -> tuple[float, float, float]:
    """F, precision, recall of counts (..., 4) summed over pictures."""
    precision = total[0] / max(1.0, total[1])
    recall = total[2] / max(1.0, total[3])
    return 2 * precision * recall / max(1e-9, precision + recall), precision, recall


def interval(rows: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of F over pictures (n, 4)."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(rows), (2000, len(rows)))
    values = [f_measure(total)[0] for total in rows[drawn].sum(1)]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def seconds(prior: Callable[[np.ndarray], object], rgb: np.ndarray, rounds: int = 5) -> float:
    """Least CPU time of `rounds` for one 0.5 MP picture, 866 x 577."""
    half = resize(rgb, 577, 866)
    prior(half)
    times = []
    for _ in range(rounds):
        began = time.process_time()
        prior(half)
        times.append(time.process_time() - began)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="bsds500")
    parser.add_argument("--split", choices=("train", "val"), default="val")
    parser.add_argument("--pictures", type=int, default=0, help="the first so many; 0 = all")
    parser.add_argument("--rows", default="", help="only rows that begin so: regions,gPb")
    given = parser.parse_args()
    files = sorted((given.data / "images" / given.split).glob("*.jpg"))[: given.pictures or None]
    prior = RegionsPrior()
    rows: dict[str, list[np.ndarray]] = {}
    many: dict[str, list[int]] = {}
    for index, file in enumerate(files):
        rgb = read(file).rgb()
        people = every_segmentation(given.data / "groundTruth" / given.split / f"{file.stem}.mat")
        noisy = damaged(rgb, "noise:sigma=25", index)
        ours = prior(rgb).array[0]
        said = {
            "regions": ours,
            "regions, noise 25": prior(noisy).array[0],
            "plain, not merged": regions(rgb).array[0],
            "plain, noise 25": regions(noisy).array[0],
            "grid, same areas": grid(ours, np.random.default_rng(index)),
            "voronoi, same areas": voronoi(ours, np.random.default_rng(index)),
        }
        for stored in sorted((given.data / "ucm_labels" / given.split).glob(f"{file.stem}_t*.png")):
            said[f"gPb-UCM, {stored.stem.split('_')[1]}"] = read(stored).pixels[..., 0]
        wanted = tuple(given.rows.split(","))
        for name, labels in said.items():
            if not name.startswith(wanted):
                continue
            rows.setdefault(name, []).append(counts(labels, people))
            many.setdefault(name, []).append(len(np.unique(labels)))
    cost = seconds(prior, read(files[0]).rgb())
    print(f"{len(files)} pictures of {given.split}; {1000 * cost:.0f} ms of CPU for 0.5 MP")
    print(f"{'':22}{'F':>6}  95 % interval   precision  recall  regions a picture")
    for name, found in rows.items():
        each = np.stack(found)
        f, precision, recall = f_measure(each.sum(0))
        low, high = interval(each)
        print(
            f"{name:22}{f:6.3f}  [{low:.3f}, {high:.3f}]{precision:12.3f}{recall:8.3f}"
            f"{np.mean(many[name]):10.0f}"
        )


def damaged(rgb: np.ndarray, spec: str, index: int) -> np.ndarray:
    chain = parse(spec)
    sampled = chain.sample(generator(11, index), (rgb.shape[2], rgb.shape[3]))
    return chain.apply(rgb[0], sampled, truth=False, finish="uint8").lq[None]


if __name__ == "__main__":
    main()
