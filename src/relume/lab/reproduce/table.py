"""What the cells of a paper's table say, as Markdown, with the contrast that was named before."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...card import find
from ..report import Report, summary
from ..truth import INSIDE
from ..weights import named
from .bench import Bench
from .judge import learns_tiers, perceiver_of
from .system import PERCEIVER, SEEDS, STEPS_GROW, Arm, Job, System

AVERAGES = ("mean of columns", "mean of pictures")
"""Both of a test in several columns: they differ where columns are not equally long, and papers
seldom say which of them they print."""


def table(bench: Bench, rows: Sequence[str] = ()) -> str:
    """Markdown: a row an arm, a column a test set; what is not computed says why."""
    system = bench.system
    arms = [system.arm(name) for name in rows] if rows else list(system.arms)
    lines = [f"# {system.title}", ""]
    curve: dict[int, dict[str, Any]] = {}
    for times in (1, STEPS_GROW, STEPS_GROW**2):
        cells = {arm.name: reports(bench, arm, times) for arm in arms}
        schedules = {a.name: bench.recipe(Job(a, 0, times)).build_schedule() for a in arms}
        # A row that takes no step is the same at every budget, and begins no table.
        trained = [cells[name] for name, schedule in schedules.items() if schedule.steps]
        if times > 1 and not any(any(r.values()) for r in trained):
            continue
        longest = max(schedules.values(), key=lambda schedule: schedule.steps)
        lines += [
            f"{longest.steps} steps of {longest.batch} crops of {longest.crop} pixels",
            "",
            _headed(
                "row",
                *(c.title for c in system.columns),
                *(AVERAGES if system.averages else ()),
                *(("judge",) if bench.judge else ()),
                "parameters, ms per megapixel",
                "weights",
            ),
        ]
        for arm in arms:
            found = [cells[arm.name][c.name] for c in system.columns]
            measured = next((reports for reports in found if reports), [])
            digests = [r.model["sha256"][:8] for r in measured] or ["-"]
            texts = [_cell(r, bench.absent(c)) for r, c in zip(found, system.columns, strict=True)]
            texts = [
                f"{text}; paper {arm.paper[c.title]}" if c.title in arm.paper else text
                for text, c in zip(texts, system.columns, strict=True)
            ]
            texts += _averages(found) if system.averages else []
            texts += [_interval(summary(*_scores(found)), "")] if bench.judge else []
            size = _size(measured[0]) if measured else "-"
            lines.append(f"| {_named(arm)} | {' | '.join(texts)} | {size} | {' '.join(digests)} |")
        curve[longest.steps] = _named_contrast(system, cells)
        lines += ["", *_contrast(bench, cells), "", *_earned(system, arms, cells)]
        lines += _judged(bench, arms, cells)
        lines += _apart(system, arms, cells)
    lines += _who_judges(bench, arms)
    lines += _curve(system, curve)
    if set(system.columns_of_paper) - {column.title for column in system.columns}:
        lines += _paper(system, arms)
    first = next((r[0] for a in arms for r in reports(bench, a, 1).values() if r), None)
    if first is not None:
        lines += [f"Protocol: {first.protocol}.", ""]
    if bench.prior:
        lines += [f"What the rows look at: {', '.join(dict.fromkeys(bench.prior))}.", ""]
    if bench.weights:
        others = ", ".join(f"{word}={place}" for word, place in bench.weights.items())
        lines += [f"Weights of others: {others}.", ""]
    return "\n".join([*lines, *(f"- {note}" for note in system.notes)])


def reports(bench: Bench, arm: Arm, times: int) -> dict[str, list[Report]]:
    """Column -> the reports of the seeds that are there."""
    found: dict[str, list[Report]] = {}
    for column in bench.system.columns:
        found[column.name] = []
        for seed in range(SEEDS):
            path = bench.cell(Job(arm, seed, times), column)
            if path.is_file():
                document = json.loads(path.read_text(encoding="utf-8"))["report"]
                found[column.name].append(Report.from_json(document))
    return found


def _cell(found: Sequence[Report], absent: str) -> str:
    if not found:
        return absent.rstrip(".") or "not trained yet: raise --budget"
    groups = [row["photograph"] for row in found[0].rows]
    # Each picture at its mean over the seeds: the interval is over photographs.
    psnr, ssim = (
        summary(np.mean([[row[m] for row in r.rows] for r in found], 0).tolist(), groups)
        for m in ("psnr", "ssim")
    )
    low, high = psnr["ci95"] or (float("nan"),) * 2
    fell = sum(r.metrics["mcr"]["count"] for r in found)
    of = sum(r.metrics["mcr"]["n"] for r in found)
    upper = max(r.metrics["mcr"]["upper95"] or 0 for r in found)
    seeds = f", {len(found)} seeds" if len(found) > 1 else ""
    return (
        f"{psnr['mean']:.2f} [{low:.2f}, {high:.2f}] / {ssim['mean']:.4f} / {fell} of {of} "
        f"(≤ {100 * upper:.1f} %){seeds}"
    )


def _averages(found: Sequence[Sequence[Report]]) -> list[str]:
    """PSNR / SSIM over all columns, pictures at their mean over the seeds; "-" where one lacks."""
    if not all(found):
        return ["-"] * len(AVERAGES)
    scores = {
        m: [np.mean([[row[m] for row in r.rows] for r in column], 0) for column in found]
        for m in ("psnr", "ssim")
    }
    means = (lambda s: np.mean([one.mean() for one in s]), lambda s: np.concatenate(s).mean())
    return [f"{m(scores['psnr']):.2f} / {m(scores['ssim']):.4f}" for m in means]


def _earned(
    system: System, arms: Sequence[Arm], cells: Mapping[str, Mapping[str, list[Report]]]
) -> list[str]:
    """Which rows lie above the first, over the pictures of all columns, and what they cost more;
    where columns are parts of one test. Of the first seed: of one run, not of its kind."""
    first, *others = arms
    whole = {a: [r[0] for r in cells[a.name].values() if r] for a in arms}
    if not system.averages or len(whole[first]) < len(system.columns):
        return []
    lines: list[str] = []
    for arm in others:
        if arm.control or len(whole[arm]) < len(system.columns):
            continue
        pairs = list(zip(whole[arm], whole[first], strict=True))
        rows = [(x, y) for a, b in pairs for x, y in zip(a.rows, b.rows, strict=True)]
        gain = summary([x["psnr"] - y["psnr"] for x, y in rows], [x["photograph"] for x, _ in rows])
        low, high = gain["ci95"] or (float("nan"),) * 2
        times = [
            r[0].model.get("ms_per_megapixel", float("nan")) for r in (whole[arm], whole[first])
        ]
        word = "earned its cost" if low > 0 else "did not earn its cost"
        lines.append(
            f"- {arm.title}: {gain['mean']:+.2f} dB [{low:+.2f}, {high:+.2f}] at "
            f"{times[0] / times[1]:.1f} times the time: {word}"
        )
    head = f"Against {first.title}, over the pictures of all columns, one seed:"
    return [head, "", *lines, ""] if lines else []


Scored = tuple[list[float], list[str]]
"""A number of each picture, and its photograph."""


def _scores(columns: Sequence[Sequence[Report]], of: str = "") -> Scored:
    """What the judge says of the pictures of all columns, of the first seed; of none where a column
    is not measured."""
    rows = (
        [row for reports in columns for r in reports[:1] for row in r.rows] if all(columns) else []
    )
    return [row[f"tier_score{of}"] for row in rows], [row["photograph"] for row in rows]


def _interval(found: Mapping[str, Any], sign: str = "+") -> str:
    """A mean of scores with its interval; "-" of nothing."""
    if found["mean"] is None:
        return "-"
    low, high = found["ci95"] or (float("nan"),) * 2
    return f"{found['mean']:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def _judged(
    bench: Bench, arms: Sequence[Arm], cells: Mapping[str, Mapping[str, list[Report]]]
) -> list[str]:
    """Whether the rows that a perceiver taught to look excellent do so to another, by the paired
    difference from the contrast's control; and between what scores all of them lie."""
    if bench.judge is None:
        return []
    whole = {a: [cells[a.name][c.name] for c in bench.system.columns] for a in arms}
    whole = {a: columns for a, columns in whole.items() if all(columns)}
    if not whole:
        return []
    first = next(iter(whole.values()))
    before, clean = (_interval(summary(*_scores(first, of)), "") for of in ("_input", "_gt"))
    lines = [
        f"The judge's score, 0 for low and 1 for high, is {before} of what came in and {clean} of "
        "the clean pictures.",
        "",
    ]
    plain = next((arm for arm in whole if arm.name == bench.system.contrast[1]), None)
    taught = [a for a in whole if not a.control and learns_tiers(bench.recipe(Job(a)))]
    if plain is None or not taught:
        return lines
    lines += [
        f"By the judge, against {plain.title}, over the pictures of all columns, one seed:",
        "",
    ]
    theirs, groups = _scores(whole[plain])
    for arm in taught:
        mine, _ = _scores(whole[arm])
        found = summary([a - b for a, b in zip(mine, theirs, strict=True)], groups)
        low, high = found["ci95"] or (float("nan"),) * 2
        word = "better" if low > 0 else "worse" if high < 0 else "no difference is shown"
        lines.append(f"- {arm.title}: {_interval(found)}: {word}")
    return [*lines, ""]


def _who_judges(bench: Bench, arms: Sequence[Arm]) -> list[str]:
    """The judge by name and digest, what it learnt from, and the losses' perceiver."""
    if bench.unjudged:
        return [f"No judge: {bench.unjudged}.", ""]
    if bench.judge is None:
        return []
    recipe = bench.judge.card.recipe
    data = recipe.get("data", {})
    without = f"all but fold {data['without']}" if data.get("without") else "all"
    said = f"Judge: {bench.judge}, seed {recipe.get('seed', '-')}, learnt from {without} of its "
    said += "photographs"
    if start := recipe.get("start"):
        said += f", begun with {start if isinstance(start, str) else ' and '.join(start)}"
    perceivers = ", ".join(dict.fromkeys(filter(None, (_perceiver(bench, arm) for arm in arms))))
    asked = f" The losses asked {perceivers}." if perceivers else ""
    return [f"{said}. It never served as a loss.{asked}", ""]


def _perceiver(bench: Bench, arm: Arm) -> str:
    """Whom the losses of an arm ask, with its digest where it is here; "" for nobody."""
    word = perceiver_of(bench.recipe(Job(arm)))
    path = named(word)
    digest = f" ({find(path).card.digest[:8]})" if path.is_file() else ""
    return f"{arm.needs.get(PERCEIVER, word)}{digest}"


def _size(report: Report) -> str:
    """What a row takes: its network's parameters, and a forward pass where it was measured."""
    if "parameters" not in report.model:  # a cell from before this was kept
        return "-"
    millions, took = report.model["parameters"] / 1e6, report.model["ms_per_megapixel"]
    return f"{millions:.3f} M, {took:.0f}"


def _apart(
    system: System, arms: Sequence[Arm], cells: Mapping[str, Mapping[str, list[Report]]]
) -> list[str]:
    """The scores inside the damage and outside, where pictures know of theirs."""
    columns = [
        c
        for c in system.columns
        if any("psnr_inside" in row for a in arms for r in cells[a.name][c.name] for row in r.rows)
    ]
    if not columns:
        return []
    lines = [
        f"Inside the damage (severity above {INSIDE:g}) · outside: PSNR / SSIM, means over the "
        "pictures that have such pixels",
        "",
        _headed("row", *(c.title for c in columns)),
    ]
    rows = {
        arm: [[row for r in cells[arm.name][c.name] for row in r.rows] for c in columns]
        for arm in arms
    }
    texts = [
        _parts(next(filter(None, found)), "_input") for found in zip(*rows.values(), strict=True)
    ]
    lines.append(f"| what came in | {' | '.join(texts)} |")
    for arm, found in rows.items():
        lines.append(f"| {_named(arm)} | {' | '.join(map(_parts, found))} |")
    return [*lines, ""]


def _parts(rows: Sequence[Mapping[str, Any]], of: str = "") -> str:
    return " · ".join(_part(rows, f"{part}{of}") for part in ("inside", "outside"))


def _part(rows: Sequence[Mapping[str, Any]], part: str) -> str:
    psnr, ssim = ([r[key] for r in rows if key in r] for key in (f"psnr_{part}", f"ssim_{part}"))
    return f"{np.mean(psnr):.2f} / {np.mean(ssim):.4f}" if psnr and ssim else "-"


def _named(arm: Arm) -> str:
    return f"{arm.title}{' (control)' if arm.control else ''}"


def _headed(*titles: str) -> str:
    """The head of a table in Markdown."""
    return f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}"


def contrast(mine: Sequence[Report], theirs: Sequence[Report], *, seed: int = 0) -> dict[str, Any]:
    """Mean PSNR difference of two arms with an interval over photographs and training seeds.

    Photographs and seeds are drawn together, both with replacement; pictures are paired by name and
    runs by seed.
    """
    both = list(zip(mine, theirs, strict=False))
    if not both:
        return {"mean": None, "n": 0, "seeds": 0, "ci95": None, "detectable": None}
    gain = np.array(
        [[a["psnr"] - b["psnr"] for a, b in zip(x.rows, y.rows, strict=True)] for x, y in both]
    )
    groups = [row["photograph"] for row in both[0][0].rows]
    if len(both) == 1:
        found = summary(gain[0], groups, seed=seed)
        return {**found, "seeds": 1, "detectable": None}
    names, index = np.unique(groups, return_inverse=True)
    per = np.stack([np.bincount(index, row, len(names)) for row in gain])
    counts = np.bincount(index, minlength=len(names))
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(2000):
        runs = rng.integers(len(both), size=len(both))
        who = rng.integers(len(names), size=len(names))
        draws.append(per[np.ix_(runs, who)].sum() / (counts[who].sum() * len(runs)))
    low, high = np.quantile(draws, (0.025, 0.975))
    return {
        "mean": float(gain.mean()),
        "n": gain.shape[1],
        "seeds": len(both),
        "ci95": [float(low), float(high)],
        # Of a two-sided test at 5 % with 80 % power.
        "detectable": float(2.8 * np.std(draws)),
    }


def _named_contrast(
    system: System, cells: Mapping[str, Mapping[str, list[Report]]]
) -> dict[str, Any]:
    arm, control, column = system.contrast
    if arm not in cells or control not in cells:
        return contrast([], [])
    return contrast(cells[arm][column], cells[control][column])


def _curve(system: System, curve: Mapping[int, Mapping[str, Any]]) -> list[str]:
    """The contrast at each budget, where there are several: does it grow with training?"""
    points = {steps: found for steps, found in curve.items() if found["ci95"] is not None}
    if len(points) < 2:
        return []
    arm, control, column = system.contrast
    return [
        f"{arm} against {control} on {column}, by budget",
        "",
        "| steps | dB | seeds |",
        "|---|---|---|",
        *(
            f"| {steps} | {found['mean']:+.3f} [{found['ci95'][0]:+.3f}, {found['ci95'][1]:+.3f}] "
            f"| {found['seeds']} |"
            for steps, found in points.items()
        ),
        "",
    ]


def _contrast(bench: Bench, cells: Mapping[str, Mapping[str, list[Report]]]) -> list[str]:
    arm, control, column = bench.system.contrast
    if arm not in cells or control not in cells:
        return []
    found = _named_contrast(bench.system, cells)
    if found["ci95"] is None:
        (absent,) = [bench.absent(c) for c in bench.system.columns if c.name == column]
        why = "one photograph has no interval" if found["n"] else absent or "not computed yet"
        return [f"Named beforehand: {arm} against {control} on {column}: {why.rstrip('.')}."]
    low, high = found["ci95"]
    if found["seeds"] < SEEDS:
        verdict = f"no verdict before {SEEDS} seeds"
    elif low <= 0 <= high:
        verdict = "the interval holds 0: no difference is shown"
    else:
        verdict = f"{arm} lies {'above' if low > 0 else 'below'}; the control rows say why"
    smallest = f", smallest detectable {found['detectable']:.2f} dB" if found["detectable"] else ""
    return [
        f"Named beforehand: {arm} against {control} on {column}: {found['mean']:+.3f} dB "
        f"[{low:+.3f}, {high:+.3f}], {found['n']} pictures, {found['seeds']} seeds{smallest}: "
        f"{verdict}."
    ]


def _paper(system: System, arms: Sequence[Arm]) -> list[str]:
    rows = [arm for arm in arms if arm.paper]
    return [
        "The paper's own table, as read (other data, other budget: not comparable with the above)",
        "",
        _headed("row", *system.columns_of_paper),
        *(
            f"| {arm.title} | "
            + " | ".join(arm.paper.get(c, "-") for c in system.columns_of_paper)
            + " |"
            for arm in rows
        ),
        "",
    ]
