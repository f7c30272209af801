"""The default model over every set of its card: synthetic damage, clean pictures, real pairs.

    python benchmarks/relume_s.py --baselines          # all sets, Markdown for RESULTS.md on stdout
    python benchmarks/relume_s.py --sets noise15,clean --model identity
    python benchmarks/relume_s.py --model ONE.onnx --beside OTHER.onnx   # paired differences too

The model runs as `relume restore` runs it: its own file, whole pictures, the usual tile plan. One
that was trained under a control of a prior is told what the control says. Each
finished set is kept in runs/benchmarks and not measured again for the same model, engine, pictures
and code; `--fresh` measures all.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from baselines import BESIDE, SHARED, fitted, gain_oracle

import relume
from relume.card import find
from relume.engine import Engine, open_engine
from relume.errors import RelumeError
from relume.guidance import Guidance
from relume.lab.controls import CONTROLS
from relume.lab.datasets import Pairs, degraded_pairs, folder_pairs
from relume.lab.evaluate import engine_restorer, evaluate
from relume.lab.metrics import CLEAN_FROM, Protocol
from relume.lab.report import Report, compare, summary

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "runs/benchmarks"
DATA = SHARED / "data"
SEED = 11


@dataclass(frozen=True)
class Set:
    """One row of a table.

    Args:
        title: What a reader calls it.
        table: synthetic, clean or real.
        pairs: Finds the pictures; nothing is read before the set is measured.
        spec: SPEC of the damage of a synthetic set.
        window: Where the mean input PSNR must lie, in dB, if anywhere.
        bars: What is aimed at when trained on a CPU, and on a GPU: dB of gain; of PSNR for noise.
    """

    title: str
    table: str
    pairs: Callable[[], Pairs]
    spec: str = ""
    window: tuple[float, float] | None = None
    bars: tuple[float, float] | None = None


def cbsd68(spec: str) -> Pairs:
    names = (DATA / "bsds500/cbsd68_ids.txt").read_text().split()
    return degraded_pairs(DATA / "bsds500/images/val", spec, seed=SEED, names=names)


def clean_cbsd68() -> Pairs:
    folder, ids = DATA / "bsds500/images/val", DATA / "bsds500/cbsd68_ids.txt"
    return folder_pairs(folder, folder, names=ids.read_text().split())


def synthetic(
    spec: str, window: tuple[float, float] | None, bars: tuple[float, float] | None
) -> Set:
    return Set(f"`{spec}`", "synthetic", lambda: cbsd68(spec), spec, window, bars)


def clean(title: str, folder: str) -> Set:
    return Set(title, "clean", lambda: folder_pairs(DATA / folder, DATA / folder))


def real(
    title: str, folder: str, lq: str = "lq", photograph: Callable[[str], str] | None = None
) -> Set:
    def pairs() -> Pairs:
        return folder_pairs(DATA / folder / lq, DATA / folder / "gt", photograph=photograph)

    return Set(title, "real", pairs)


def scene(name: str) -> str:
    """PolyU cuts several crops from one scene: Canon80D_8_8_3200_ball_4.jpg shows `..._ball`."""
    return re.sub(r"_+\d+$", "", Path(name).stem)


SETS: dict[str, Set] = {
    "noise15": synthetic("noise:sigma=15", None, (31.4, 32.8)),
    "noise25": synthetic("noise:sigma=25", (20.3, 20.8), (28.6, 30.0)),
    "noise50": synthetic("noise:sigma=50", None, (24.9, 26.2)),
    "haze": synthetic("haze:beta=0.15..0.6", (12, 16), (7, 9)),
    "rain": synthetic("rain:density=0.002..0.006", (18, 21), (5, 8)),
    "raindrop": synthetic("raindrop:count=40..80", (16, 24), (2.5, 4)),
    "blur": synthetic("blur:length=11..17", (21, 24), (0.5, 2)),
    "lowlight": synthetic("lowlight:gain=0.12..0.3", (8, 12), (7, 9)),
    "jpeg": synthetic("jpeg:quality=10..30", (27, 29), (0.4, 0.9)),
    "clean-cbsd68": Set("CBSD68", "clean", clean_cbsd68),
    "clean-set5": clean("Set5", "sr/set5/HR"),
    "clean-set14": clean("Set14", "sr/set14/HR"),
    "clean-photos": clean("photos/val", "photos/val"),
    "polyu": real("PolyU (camera noise)", "denoise_real/polyu", photograph=scene),
    "rain100h": real("Rain100H", "derain/rain100h"),
    "raindrop-real": real("raindrop", "raindrop/pairs"),
    "sots": real("SOTS (haze)", "dehaze/reside_SOTS", "hazy"),
    "its": real("ITS (haze)", "dehaze/reside_ITS_v2", "hazy"),
    "brackets": real("exposure brackets", "lowlight/bracket_pairs"),
}


def kept(
    path: Path, key: str, data: str, measure: Callable[[], Report], *, fresh: bool
) -> tuple[Report, float]:
    """The report in `path` where it is of this key and data; else `measure()`, which is kept there.

    Returns:
        The report, and the seconds it took when it was measured.
    """
    if path.exists() and not fresh:
        document = json.loads(path.read_text())
        if document["key"] == key and document["report"]["data"]["sha256"] == data:
            return Report.from_json(document["report"]), document["seconds"]
    began = time.perf_counter()
    report = measure()
    seconds = round(time.perf_counter() - began, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps({"key": key, "seconds": seconds, "report": report.to_json()}))
    unfinished.replace(path)
    return report, seconds


def code_digest() -> str:
    """sha256 of the code that a figure depends on."""
    package = Path(relume.__file__).parent
    files = [package / name for name in ("restoration.py", "tiling.py")]
    for folder in ("engine", "image", "priors", "lab/degrade"):
        files += sorted((package / folder).glob("*.py"))
    files += [
        package / "lab/metrics.py",
        package / "lab/evaluate.py",
        package / "lab/datasets.py",
        package / "lab/report.py",
        ROOT / "benchmarks/baselines.py",
    ]
    total = hashlib.sha256()
    for file in files:
        total.update(file.read_bytes())
    return total.hexdigest()


def bar(name: str, what: str) -> Callable[[int, int], None]:
    def show(done: int, count: int) -> None:
        if sys.stderr.isatty() or done == count:
            end = "\n" if done == count else ""
            print(f"\r{name}: {what} {done}/{count}", end=end, file=sys.stderr, flush=True)

    return show


def baselines_of(name: str, code: str, *, fresh: bool) -> dict[str, Report]:
    """Reports of the baselines that stand beside a synthetic set, and of the per-picture gain."""
    row = SETS[name]
    pairs = row.pairs()
    kind = row.spec.partition(":")[0]
    reports: dict[str, Report] = {}
    for baseline in BESIDE[kind]:

        def measure(baseline: str = baseline) -> Report:
            restore, dials = fitted(baseline, row.spec, seed=SEED)
            model = {"name": baseline, "dials": dials}
            return evaluate(restore, pairs, model=model, progress=bar(name, baseline))

        path = CACHE / "baselines" / re.sub(r"\W+", "-", baseline) / f"{name}.json"
        reports[baseline], _ = kept(path, code, pairs.data["sha256"], measure, fresh=fresh)
    if kind == "lowlight":
        told: dict[bytes, float] = {}

        def measure_bound() -> Report:
            for pair in pairs.items:
                loaded = pair.load()
                told[hashlib.sha256(loaded.lq.tobytes()).digest()] = gain_oracle(loaded)
            return evaluate(
                lambda rgb: told[hashlib.sha256(rgb.tobytes()).digest()] * rgb,
                pairs,
                model={"name": "best gain of each picture, told"},
                progress=bar(name, "gain, told"),
            )

        path = CACHE / "baselines/gain-told" / f"{name}.json"
        reports["best gain of each picture (told; a bound)"], _ = kept(
            path, code, pairs.data["sha256"], measure_bound, fresh=fresh
        )
    return reports


@dataclass(frozen=True)
class Measured:
    """One model on the sets: what it is, how it ran, its reports, the seconds it took."""

    engine: Engine
    sha256: str
    runtime: str
    reports: dict[str, Report]
    seconds: float


Ask = Callable[[Any], Guidance]


def controlled(engine: Engine, ask: Ask | None) -> Ask | None:
    """What the priors say, under the controls with which the model was trained."""
    if ask is None:
        return None
    recipe = engine.card.recipe.get("priors", {})
    under = {name: row["control"] for name, row in recipe.items() if row["control"] != "none"}

    def said(rgb: Any) -> Guidance:
        known = ask(rgb)
        for name, control in under.items():
            of = Guidance({name: known[name]})
            told = CONTROLS[control](of, Guidance(), Guidance(), torch.Generator())
            known = known.with_guide(name, told[name])
        return known

    return said


def measured(model: str, names: list[str], given: argparse.Namespace) -> Measured:
    """A model on the sets of these names; what is kept of the same files is not measured again."""
    found = find(model)
    engine = open_engine(found, given.engine, given.device, precision=given.precision)
    restore, ask = engine_restorer(engine)
    prior = controlled(engine, ask)
    runtime = f"{engine.name}, {engine.device}, {engine.precision}"
    versions = {p: importlib.metadata.version(p) for p in ("onnxruntime", "openvino", "torch")}
    version = versions.get({"onnx": "onnxruntime"}.get(engine.name, engine.name), "")
    runtime = f"{runtime} {version}".strip()
    masks = engine.masks().card.digest if engine.masks else ""
    key = hashlib.sha256(f"{code_digest()} {found.sha256} {masks}{runtime}".encode()).hexdigest()
    folder = CACHE / f"{found.card.name}-{found.sha256[:8]}-{engine.name}-{engine.precision}"
    reports: dict[str, Report] = {}
    spent = 0.0
    for name in names:
        pairs = SETS[name].pairs()

        def measure(name: str = name, pairs: Pairs = pairs) -> Report:
            model = {"name": found.card.name, "sha256": found.sha256, "engine": runtime}
            return evaluate(
                restore, pairs, Protocol(), model=model, prior=prior, progress=bar(name, "restored")
            )

        reports[name], seconds = kept(
            folder / f"{name}.json", key, pairs.data["sha256"], measure, fresh=given.fresh
        )
        spent += seconds
    return Measured(engine, found.sha256, runtime, reports, spent)


# Tables


def difference_table(ours: Mapping[str, Report], theirs: Mapping[str, Report]) -> list[str]:
    """What one model gives above the other, picture by picture."""
    lines = ["| set | n | output dB | the other's | difference dB |", "|---|---|---|---|---|"]
    for name, report in ours.items():
        if SETS[name].table == "clean":
            pairs = zip(report.rows, theirs[name].rows, strict=True)
            apart = [a["psnr_kept"] - b["psnr_kept"] for a, b in pairs]
            value = summary(apart, [row["photograph"] for row in report.rows])
            mean, other = report.clean["psnr"]["mean"], theirs[name].clean["psnr"]["mean"]
        else:
            value = compare(report, theirs[name])["psnr"]
            mean = report.metrics["psnr"]["mean"]
            other = theirs[name].metrics["psnr"]["mean"]
        lines.append(
            f"| {SETS[name].title} | {report.data['n']} | {mean:.2f} | {other:.2f} | "
            f"{interval(value, 3, '+')} |"
        )
    return lines


def interval(value: Mapping[str, Any], digits: int = 2, sign: str = "") -> str:
    if value["mean"] is None:
        return "-"
    text = format(value["mean"], f"{sign}.{digits}f")
    if value["ci95"] is None:
        return f"{text} [one photograph]"
    low, high = (format(end, f"{sign}.{digits}f") for end in value["ci95"])
    return f"{text} [{low}, {high}]"


def rate(report: Report) -> str:
    """`0/68 (<= 4.3 %)`: pictures that fell, and the upper bound over photographs."""
    mcr = report.metrics["mcr"]
    if not mcr["n"]:
        return "-"
    return f"{mcr['count']}/{mcr['n']} (≤ {100 * mcr['upper95']:.1f} %)"


def ssims(report: Report) -> str:
    return f"{report.input['ssim']['mean']:.3f} → {report.metrics['ssim']['mean']:.3f}"


def held(value: float, bars: tuple[float, float]) -> str:
    """The bars on CPU and GPU, and which of them hold."""
    return " / ".join(f"{b:g} {'✓' if value >= b else '✗'}" for b in bars)


def synthetic_table(
    reports: Mapping[str, Report], beside: Mapping[str, Mapping[str, Report]]
) -> list[str]:
    lines = [
        "| SPEC | n | input dB (window) | output dB | gain dB | bar CPU / GPU | SSIM | MCR |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, report in reports.items():
        row, before = SETS[name], report.input["psnr"]["mean"]
        window = ""
        if row.window is not None:
            low, high = row.window
            window = f" ({low:g}-{high:g} {'✓' if low <= before <= high else '✗'})"
        noise = row.spec.startswith("noise")
        value = report.metrics["psnr"]["mean"] if noise else report.gain["psnr"]["mean"]
        bars = held(value, row.bars) + (" (PSNR)" if noise else "") if row.bars else "-"
        lines.append(
            f"| {row.title} | {report.data['n']} | {before:.2f}{window} | "
            f"{interval(report.metrics['psnr'])} | {interval(report.gain['psnr'], sign='+')} | "
            f"{bars} | {ssims(report)} | {rate(report)} |"
        )
    if any(beside.values()):
        lines += [
            "",
            "| SPEC | baseline | chosen on photos/val | output dB | gain dB | ours above it, dB |",
            "|---|---|---|---|---|---|",
        ]
    for name, found in beside.items():
        for baseline, report in found.items():
            dials = report.model.get("dials") or {}
            ours = compare(reports[name], report)["psnr"]
            gain = interval(report.gain["psnr"], sign="+")
            lines.append(
                f"| {SETS[name].title} | {baseline} | "
                f"{', '.join(f'{k} {v:g}' for k, v in dials.items()) or '-'} | "
                f"{report.metrics['psnr']['mean']:.2f} | {gain} | "
                f"{interval(ours, sign='+')} |"
            )
    return lines


def clean_table(reports: Mapping[str, Report]) -> list[str]:
    lines = [
        "| set | n | PSNR(input, output) dB | worst dB | above 40 dB |",
        "|---|---|---|---|---|",
    ]
    for name, report in reports.items():
        worst = min(row["psnr_kept"] for row in report.rows)
        lines.append(
            f"| {SETS[name].title} | {report.clean['n']} | {interval(report.clean['psnr'])} | "
            f"{worst:.2f} | {100 * report.clean['above40']:.0f} % |"
        )
    return lines


def real_table(reports: Mapping[str, Report]) -> list[str]:
    lines = [
        "| set | pictures (photographs) | before dB | after dB | gain dB | SSIM | MCR |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, report in reports.items():
        photographs = len({row["photograph"] for row in report.rows})
        already = sum(row["psnr_input"] >= CLEAN_FROM for row in report.rows)
        note = f", {already} clean already" if already else ""
        lines.append(
            f"| {SETS[name].title} | {report.data['n']} ({photographs}){note} | "
            f"{interval(report.input['psnr'])} | {interval(report.metrics['psnr'])} | "
            f"{interval(report.gain['psnr'], sign='+')} | {ssims(report)} | {rate(report)} |"
        )
    return lines


def figures(reports: Mapping[str, Report]) -> dict[str, Any]:
    """What goes into the model's card: each set's figure with the protocol it was read under."""
    short: dict[str, Any] = {}
    for name, report in reports.items():
        entry: dict[str, Any] = {
            "set": SETS[name].title.strip("`"),
            "n": report.data["n"],
            "protocol": str(report.protocol),
        }
        if SETS[name].table == "clean":
            entry["psnr_kept"] = round(report.clean["psnr"]["mean"], 2)
        else:
            entry["psnr_input"] = round(report.input["psnr"]["mean"], 2)
            entry["psnr"] = round(report.metrics["psnr"]["mean"], 2)
            entry["gain"] = round(report.gain["psnr"]["mean"], 2)
            entry["gain_ci95"] = [round(v, 2) for v in report.gain["psnr"]["ci95"] or []]
            entry["mcr"] = report.metrics["mcr"]["mean"]
            entry["mcr_upper95"] = report.metrics["mcr"]["upper95"]
        short[name] = entry
    return short


TABLES = {
    "synthetic": "Synthetic damage, CBSD68, seed 11",
    "clean": "Clean pictures",
    "real": "Real pairs, never trained on",
}


def chosen(words: str) -> list[str]:
    """Names of sets from a comma-separated list of names and tables; all for "all"."""
    names: list[str] = []
    for word in words.split(","):
        found = [n for n, row in SETS.items() if word in ("all", n, row.table)]
        if not found:
            raise SystemExit(f"no set {word!r}; there is all, {', '.join([*TABLES, *SETS])}")
        names += [n for n in found if n not in names]
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="relume-s", help="shipped name or model file")
    parser.add_argument("--engine", default="onnx", help="auto, onnx, openvino or torch")
    parser.add_argument("--device", default="cpu", help="auto, cpu or gpu")
    parser.add_argument("--precision", default="float32", help="float32 or bf16")
    parser.add_argument("--sets", default="all", help="names or tables, comma-separated")
    parser.add_argument("--baselines", action="store_true", help="measure the baselines too")
    parser.add_argument("--beside", default="", help="another model, for paired differences")
    parser.add_argument("--figures", type=Path, help="write the card's figures as JSON here")
    parser.add_argument("--fresh", action="store_true", help="measure what is kept once more")
    arguments = parser.parse_args()

    torch.set_num_threads(1)  # the engine has its own; the metrics' would only wait for it
    names = chosen(arguments.sets)
    one = measured(arguments.model, names, arguments)
    card, reports = one.engine.card, one.reports
    beside: dict[str, dict[str, Report]] = {}
    for name in names if arguments.baselines else ():
        if SETS[name].table == "synthetic":
            beside[name] = baselines_of(name, code_digest(), fresh=arguments.fresh)

    print(
        f"Model {card.name}, file sha256 {one.sha256}, tensors {card.digest or '-'}. "
        f"Engine {one.runtime}. `python benchmarks/relume_s.py {' '.join(sys.argv[1:])}`, "
        f"{one.seconds:.0f} s of measuring.\n\n{Protocol()}. MCR: outputs more than 3 dB below "
        "their input, of inputs below 45 dB, with the 95 % upper bound over photographs "
        "(one-sided, Clopper-Pearson). Intervals: 95 % bootstrap, clustered by photograph."
    )
    for table, title in TABLES.items():
        rows = {n: r for n, r in reports.items() if SETS[n].table == table}
        if not rows:
            continue
        print(f"\n### {title}\n")
        if table == "synthetic":
            lines = synthetic_table(rows, beside)
        else:
            lines = clean_table(rows) if table == "clean" else real_table(rows)
        print("\n".join(lines))
        notes = [f"{SETS[n].title}: {note}" for n, r in rows.items() for note in r.data["notes"]]
        if notes:
            print("\n" + "\n".join(f"- {note}" for note in notes))
    if arguments.beside:
        other = measured(arguments.beside, names, arguments)
        card = other.engine.card
        print(f"\n### Beside {card.name}, tensors {card.digest or '-'}\n")
        print("\n".join(difference_table(reports, other.reports)))
    if arguments.figures:
        arguments.figures.write_text(json.dumps(figures(reports), indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except RelumeError as error:
        raise SystemExit(f"relume_s: {error}") from error
