"""A mask network: whether it finds where pictures are damaged, and says how badly.

    python benchmarks/damage.py --data ../shared/data [--model relume-damage] [--sets where,clean]

Damage is made on CBSD68 as `relume degrade --seed 11` makes it, in 8-bit files. A pixel counts as
damaged where the true severity is above `--positive`. Five tables:

- where: average precision over the pixels of all pictures together, beside the prevalence, which is
  what chance scores, and beside that of the difference to the clean picture (the largest of the
  colours), which no network sees: where light damage lies on light ground, or covers a pixel a
  little more or less than the limit, even that tells them badly. The blur of a flat wall cannot be
  seen: there pixels weigh with the gradient energy of the clean picture, in the prevalence too.
- badly: damage of whole pictures. Pearson's correlation of severities, of the means of pictures and
  of all pixels; and the mean severities, true and said.
- two: two damages in one picture, average precision of each. What covers a whole picture leaves
  hardly a pixel without it: of such a kind the same pictures count too with the other damage alone,
  as it was drawn.
- real: raindrops photographed with and without, damaged where the difference shows (truth.visible
  above 0.5).
- clean: of clean pictures, how many are called clean, and the area above the action levels, in %:
  of the kinds that are told, and of all maps, told or not.

Intervals are 95 % bootstraps over photographs, 2000 draws.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from relume.card import find
from relume.diagnosis import Diagnosis, judged
from relume.engine import open_engine
from relume.errors import RelumeError
from relume.image import read
from relume.lab.datasets import folder_pairs, photograph_of
from relume.lab.degrade import Chain, Sampled, generator, parse
from relume.lab.degrade.folder import photographs
from relume.lab.localisation import Agreement, Ranking, gradient_energy
from relume.lab.report import summary
from relume.lab.truth import DONE_BY, INSIDE, severities, visible
from relume.priors.damage import DamagePrior
from relume.priors.regions import regions

SEED = 11
WHOLE = ("noise", "compression", "haze", "lowlight", "fade")  # cover a picture, or nearly
MAP = {done: kind for kind, dones in DONE_BY.items() for done in dones}  # jpeg -> compression

# Name -> SPEC, or folder; the table it belongs to. The SPECs of evaluation are the contract's.
SETS: dict[str, tuple[str, str]] = {
    "rain": ("where", "rain:density=0.002..0.006"),
    "raindrop": ("where", "raindrop:count=40..80"),
    "scratch": ("where", "scratch"),
    "dust": ("where", "dust"),
    "regionblur": ("where", "regionblur:length=0..31"),
    "noise25": ("badly", "noise:sigma=25"),
    "noise": ("badly", "noise:sigma=5..50"),
    "haze": ("badly", "haze:beta=0.15..0.6"),
    "haze-wide": ("badly", "haze:beta=0.05..1.2"),
    "lowlight": ("badly", "lowlight:gain=0.12..0.3"),
    "lowlight-wide": ("badly", "lowlight:gain=0.1..0.5"),
    "jpeg": ("badly", "jpeg:quality=10..30"),
    "jpeg-wide": ("badly", "jpeg:quality=10..70"),
    "fade": ("badly", "fade"),
    "rain+noise": ("two", "rain:density=0.002..0.006+noise:sigma=5..50"),
    "raindrop+jpeg": ("two", "raindrop:count=40..80+jpeg:quality=10..30"),
    "regionblur+noise": ("two", "regionblur:length=0..31+noise:sigma=5..50"),
    "haze+rain": ("two", "haze:beta=0.15..0.6+rain:density=0.002..0.006"),
    "haze+noise": ("two", "haze:beta=0.15..0.6+noise:sigma=5..50"),
    "lowlight+noise": ("two", "lowlight:gain=0.12..0.3+noise:sigma=5..50"),
    "noise+jpeg": ("two", "noise:sigma=5..50+jpeg:quality=10..30"),
    "fade+scratch": ("two", "fade+scratch"),
    "scratch+dust": ("two", "scratch+dust"),
    "raindrop-real": ("real", "raindrop/pairs"),
    "clean-cbsd68": ("clean", "bsds500/images/val"),
    "clean-set5": ("clean", "sr/set5/HR"),
    "clean-set14": ("clean", "sr/set14/HR"),
    "clean-photos": ("clean", "photos/val"),
}
TABLES = {
    "where": "Where: average precision",
    "badly": "How badly: correlation of severities",
    "two": "Two damages in one picture: average precision of each",
    "real": "Real raindrops: average precision",
    "clean": "Clean pictures: area called damaged, %",
}


@dataclass(frozen=True)
class Run:
    """What is measured, and how.

    Args:
        prior: The network.
        emits: The kinds it knows.
        data: Folder of the data sets.
        positive: Severity above which a pixel is damaged.
        limit: The first so many pictures of each set; None: all.
    """

    prior: DamagePrior
    emits: tuple[str, ...]
    data: Path
    positive: float
    limit: int | None

    def see(self, rgb: np.ndarray) -> dict[str, np.ndarray]:
        """Kind -> (H, W) severity, of a picture (1, 3, H, W)."""
        guide = self.prior(rgb)
        return dict(zip(guide.names, guide.array[0], strict=True))


def cbsd68(data: Path) -> list[Path]:
    """In the order of `relume degrade`: a picture's place is its index."""
    ids = set((data / "bsds500/cbsd68_ids.txt").read_text().split())
    return [path for path, _ in photographs(data / "bsds500/images/val") if path.stem in ids]


def drawn(chain: Chain, gt: np.ndarray, index: int) -> Sampled:
    """The damage of picture `index` as `relume degrade --seed 11` draws it; gt (1, 3, h, w)."""
    labels = regions(gt).regions[0] if chain.follows_regions else None
    return chain.sample(generator(SEED, index), gt.shape[-2:], labels)


def damaged(
    gt: np.ndarray, sampled: Sampled, kinds: Sequence[str]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(1, 3, h, w) as an 8-bit file holds it, and kind -> (h, w) true severity."""
    made = Chain.apply(gt[0], sampled, finish="uint8")
    truth = severities(made.truth, gt.shape[-2:], kinds).maps
    return made.lq[None], dict(zip(kinds, truth[0], strict=True))


def without(sampled: Sampled, kind: str) -> Sampled:
    """Without what makes damage of one kind; the other steps stay as they were drawn."""
    return replace(sampled, steps=tuple(s for s in sampled.steps if MAP[s.kind] != kind))


def counted(name: str, items: Sequence[Path], limit: int | None) -> Iterator[tuple[int, Path]]:
    """Each picture with its index; how far it is stands on stderr."""
    items = items[:limit]
    for index, item in enumerate(items):
        yield index, item
        done = index + 1
        if sys.stderr.isatty() or done == len(items):
            end = "\n" if done == len(items) else ""
            print(f"\r{name}: {done}/{len(items)}", end=end, file=sys.stderr, flush=True)


# Rows of the tables


def ranked(name: str, run: Run) -> list[str]:
    """Average precision of each kind of a SPEC: the tables `where` and `two`."""
    spec = SETS[name][1]
    chain = parse(spec)
    kinds = [kind for kind in map(MAP.__getitem__, chain.kinds) if kind in run.emits]
    rankings = {kind: Ranking() for kind in kinds}
    differences = {kind: Ranking() for kind in kinds}
    for index, file in counted(name, cbsd68(run.data), run.limit):
        gt = read(file).rgb()
        sampled = drawn(chain, gt, index)
        energy = gradient_energy(gt[0])
        lq, true = damaged(gt, sampled, kinds)
        said = run.see(lq)
        for kind in kinds:
            weight = energy if kind == "blur" else None
            rankings[kind].add(file.stem, said[kind], true[kind] > run.positive, weight)
            apart = np.abs(lq - gt)[0].max(0)
            differences[kind].add(file.stem, apart, true[kind] > run.positive, weight)
            if kind in WHOLE:
                lq, rest = damaged(gt, without(sampled, kind), kinds)
                other = run.see(lq)
                rankings[kind].add(file.stem, other[kind], rest[kind] > run.positive)
    rows = [precision_row(f"`{spec}`", kind, ranking) for kind, ranking in rankings.items()]
    if SETS[name][0] != "where":
        return rows
    beside = [str(d.average_precision()) for d in differences.values()]
    return [f"{row} {seen} |" for row, seen in zip(rows, beside, strict=True)]


def real_drops(name: str, run: Run) -> list[str]:
    folder = run.data / SETS[name][1]
    pairs = folder_pairs(folder / "lq", folder / "gt")
    ranking = Ranking()
    items = {folder / pair.image: pair for pair in pairs.items}
    for _, item in counted(name, list(items), run.limit):
        loaded = items[item].load()
        seen = visible(loaded.lq[0], loaded.gt[0], "raindrop") > INSIDE
        ranking.add(items[item].photograph, run.see(loaded.lq)["raindrop"], seen)
    return [precision_row("real pairs", "raindrop", ranking)]


def precision_row(title: str, kind: str, ranking: Ranking) -> str:
    found, share = ranking.average_precision(), ranking.prevalence
    percent = "-" if share is None else f"{100 * share:.2f} %"
    return f"| {title} | {kind} | {found.n} | {percent} | {found} |"


def agreed(name: str, run: Run) -> list[str]:
    """Correlation of the severities of a SPEC of one step: the table `badly`."""
    spec = SETS[name][1]
    chain = parse(spec)
    kind = MAP[chain.kinds[0]]
    agreement = Agreement()
    for index, file in counted(name, cbsd68(run.data), run.limit):
        gt = read(file).rgb()
        lq, true = damaged(gt, drawn(chain, gt, index), [kind])
        agreement.add(file.stem, run.see(lq)[kind], true[kind])
    pictures, pixels = agreement.over_pictures(), agreement.over_pixels()
    said, true = agreement.means or (float("nan"), float("nan"))
    return [
        f"| `{spec}` | {kind} | {pictures.n} | {true:.3f} | {said:.3f} | {pictures} | {pixels} |"
    ]


def areas(found: Diagnosis) -> dict[str, float]:
    """Share of a picture above the kinds' own action levels, in %: of those that are told, of any,
    and of each."""
    above = {kind: found.map_of(kind) >= level for kind, level in found.levels.items()}
    told = [above[one.kind] for one in found.damage]
    nothing = np.zeros((1, 1), bool)
    above = {"told": np.any(told or [nothing], 0), "any": np.any(list(above.values()), 0), **above}
    return {kind: 100 * float(where.mean()) for kind, where in above.items()}


def called(name: str, run: Run) -> list[str]:
    """How much of clean pictures is called damaged: the table `clean`."""
    folder = run.data / SETS[name][1]
    files = cbsd68(run.data) if name == "clean-cbsd68" else [p for p, _ in photographs(folder)]
    shows = photograph_of([str(file) for file in files])
    title = name.removeprefix("clean-")
    rows: list[dict[str, float]] = []
    clean = 0
    for _, file in counted(name, files, run.limit):
        found = judged(run.prior(read(file).rgb()), run.prior.engine.card.sureness)
        rows.append(areas(found))
        clean += found.clean
    groups = [shows(str(file)) for file in files[: len(rows)]]
    mean = summary([row["any"] for row in rows], groups)
    ends = "[one photograph]" if mean["ci95"] is None else "[{:.2f}, {:.2f}]".format(*mean["ci95"])
    told = np.mean([row["told"] for row in rows])
    worst = max(range(len(rows)), key=lambda i: rows[i]["any"])
    each = " | ".join(f"{np.mean([row[kind] for row in rows]):.2f}" for kind in run.emits)
    return [
        f"| {title} | {len(rows)} ({len(set(groups))}) | {clean} | {told:.2f} | "
        f"{mean['mean']:.2f} {ends} | {rows[worst]['any']:.1f} "
        f"({files[worst].stem}) | {each} |"
    ]


def head(table: str, run: Run) -> str:
    columns = {
        "where": "damage | kind | n | prevalence | AP | AP of the difference to gt",
        "two": "damage | kind | n | prevalence | AP",
        "badly": "damage | kind | n | true mean | said mean | r over pictures | r over pixels",
        "clean": f"set | n (photographs) | clean | told | any | worst | {' | '.join(run.emits)}",
    }
    names = columns.get(table, columns["two"])
    return f"| {names} |\n|{'---|' * (names.count('|') + 1)}"


ROWS: dict[str, Callable[[str, Run], list[str]]] = {
    "where": ranked,
    "badly": agreed,
    "two": ranked,
    "real": real_drops,
    "clean": called,
}


def known(name: str, emits: Sequence[str]) -> bool:
    """Whether a network that emits these maps says anything of a set."""
    table, spec = SETS[name]
    kinds = {"real": ["raindrop"], "clean": list(emits)}.get(table)
    if kinds is None:
        kinds = [MAP[kind] for kind in parse(spec).kinds]
    return any(kind in emits for kind in kinds)


def chosen(words: str) -> list[str]:
    """Names of sets from a comma-separated list of names and tables; all for "all"."""
    wanted = words.split(",")
    for word in wanted:
        if word not in ("all", *TABLES, *SETS):
            raise SystemExit(f"no set {word!r}; there is all, {', '.join([*TABLES, *SETS])}")
    return [n for n, (table, _) in SETS.items() if {"all", table, n} & set(wanted)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--model", default="relume-damage", help="shipped name or model file")
    parser.add_argument("--engine", default="onnx", help="auto, onnx, openvino or torch")
    parser.add_argument("--threads", type=int, help="of the engine; all cores by default")
    parser.add_argument("--sets", default="all", help="names or tables, comma-separated")
    parser.add_argument("--positive", type=float, default=0.25, help="severity of a damaged pixel")
    parser.add_argument("--limit", type=int, help="the first N pictures of each set")
    given = parser.parse_args()

    torch.set_num_threads(1)  # it only blurs here; the engine has its own
    names = chosen(given.sets)
    found = find(given.model)
    engine = open_engine(found, given.engine, "cpu", given.threads)
    prior = DamagePrior(engine)
    run = Run(prior, found.card.emits, given.data, given.positive, given.limit)
    package = {"onnx": "onnxruntime"}.get(engine.name, engine.name)
    first = f", the first {given.limit} pictures of each set" if given.limit else ""
    print(
        f"Model {found.card.name}, tensors {found.card.digest or '-'}. Engine {engine.name} "
        f"{importlib.metadata.version(package)}, {engine.device}, {engine.precision}. Damage: "
        f"CBSD68, seed {SEED}, uint8{first}. Damaged: severity above {given.positive:g}. "
        f"Intervals: 95 % bootstrap over photographs. "
        f"`python benchmarks/damage.py {' '.join(sys.argv[1:])}`",
        flush=True,
    )
    for table, title in TABLES.items():
        of = [name for name in names if SETS[name][0] == table and known(name, run.emits)]
        if not of:
            continue
        print(f"\n### {title}\n\n{head(table, run)}", flush=True)
        for name in of:
            for row in ROWS[table](name, run):
                print(row, flush=True)
        if "noise25" in of:
            print("\n`noise:sigma=25` has one severity, which correlates with nothing: its means.")


if __name__ == "__main__":
    try:
        main()
    except RelumeError as error:
        raise SystemExit(f"damage: {error}") from error
