"""The Report of an evaluation: means with intervals, shares with bounds, and their protocol."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from .metrics import (
    CLEAN_FROM,
    COLLAPSE,
    KEPT_FROM,
    TILE,
    Protocol,
    collapse_curve,
    collapsed,
    share_bounds,
    share_upper,
)
from .pairs import listed

RESAMPLES = 2000
"""Draws of a bootstrap."""


@dataclass(frozen=True, eq=False)
class Report:
    """Scores of one model on one data set under one protocol; the parts are the contract's JSON.

    A `{"mean", "n", "ci95"}` holds None where nothing could be measured, and an interval of None
    where fewer than two photographs were.
    """

    protocol: Protocol
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    metrics: Mapping[str, Any]
    input: Mapping[str, Any]
    gain: Mapping[str, Any]
    clean: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    against: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in _PARTS}
        return {"protocol": self.protocol.to_json(), **parts}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Report:
        """From what `to_json` gave.

        Raises:
            UsageError: It is no report.
        """
        absent = [name for name in ("protocol", *_PARTS) if name not in document]
        if absent:
            raise UsageError(f"This is no report of `relume evaluate`: no {', '.join(absent)}.")
        parts = {name: document[name] for name in _PARTS}
        return cls(Protocol.from_json(document["protocol"]), **parts)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Report:
        return cls.from_json(json.loads(path.read_text(encoding="utf-8")))

    def __str__(self) -> str:
        """A few lines for a terminal. No number without the protocol it was read under."""
        digest = self.model.get("sha256") or ""
        name = f"{self.model.get('name') or 'a model'}{f' ({digest[:12]})' if digest else ''}"
        lines = [
            f"{name} on {self.data['n']} pictures (data {self.data['sha256'][:12]})",
            f"  {self.protocol}",
        ]
        for metric, unit in (("psnr", " dB"), ("ssim", "")):
            before, after, gain = self.input[metric], self.metrics[metric], self.gain[metric]
            if after["mean"] is not None:
                lines.append(
                    f"  {metric.upper()}  {_number(before, metric)} -> {_number(after, metric)}"
                    f"{_spread(after, metric)}{unit}, gain {_number(gain, metric, '+')}"
                    f"{_spread(gain, metric, '+')} n={gain['n']}"
                )
        rate = self.metrics["mcr"]
        if rate["n"]:
            lines.append(
                f"  MCR   {rate['count']} of {rate['n']} pictures more than 3 dB below the input "
                f"(at most {100 * rate['upper95']:.1f} %)"
            )
            tiles = self.metrics["local_mcr"]
            lines.append(
                f"        {tiles['count']} of {tiles['n']} have a tile of {TILE} px that fell so "
                f"far (at most {100 * tiles['upper95']:.1f} %)"
            )
        if self.clean["n"]:
            kept = self.clean["psnr"]
            lines.append(
                f"  clean {_number(kept, 'psnr')}{_spread(kept, 'psnr')} dB from the input, "
                f"{100 * self.clean['above40']:.0f} % above 40 dB, n={self.clean['n']}"
            )
        for control, found in self.against.items():
            gain = found["gain"]["psnr"]
            lines.append(
                f"  vs {control} {_number(gain, 'psnr', '+')}{_spread(gain, 'psnr', '+')} dB "
                f"n={gain['n']}"
            )
        return "\n".join(lines + [f"  note: {note}" for note in self.data.get("notes", ())])


def compare(report: Report, other: Report, *, seed: int = 0) -> dict[str, Any]:
    """What `report` is better by than `other`, paired over the pictures of both.

    Returns:
        {"psnr": {"mean", "n", "ci95"}, "ssim": ...}.

    Raises:
        UsageError: The two were not measured under the same protocol on the same pictures; the
            message names the field.
    """
    unlike = report.protocol.difference(other.protocol)
    if unlike is None and report.data["sha256"] != other.data["sha256"]:
        unlike = "data.sha256 is not the same, so these are other pictures"
    if unlike is not None:
        raise UsageError(f"These reports cannot be compared: {unlike}. Evaluate both alike.")
    mine = {row["image"]: row for row in report.rows}
    theirs = {row["image"]: row for row in other.rows}
    if set(mine) != set(theirs):
        odd = sorted(set(mine) ^ set(theirs))
        raise UsageError(f"These reports cannot be compared: {listed(odd)} is only in one.")
    groups = [row["photograph"] for row in report.rows]
    return {
        metric: summary([mine[i][metric] - theirs[i][metric] for i in mine], groups, seed=seed)
        for metric in ("psnr", "ssim")
    }


def summary(values: Sequence[float], groups: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """Mean, count, and the 95 % interval of the mean by a bootstrap over photographs.

    Photographs are drawn with replacement, each with all its pictures: crops of one photograph
    agree with each other, and to take them for many samples makes an interval too narrow.

    Args:
        values: One per picture.
        groups: The photograph of each.
        seed: Of the draws.

    Returns:
        {"mean", "n", "ci95"}: None for what cannot be said, of no picture or of one photograph.
    """
    x = np.asarray(values, np.float64)
    if x.size == 0:
        return {"mean": None, "n": 0, "ci95": None}
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    sums, counts = np.bincount(index, x), np.bincount(index)
    interval = None
    if len(counts) > 1:
        rng = np.random.default_rng(seed)
        drawn = rng.integers(len(counts), size=(RESAMPLES, len(counts)))
        means = sums[drawn].sum(1) / counts[drawn].sum(1)
        interval = [round(float(v), 6) for v in np.quantile(means, (0.025, 0.975))]
    return {"mean": round(float(x.mean()), 6), "n": int(x.size), "ci95": interval}


def report_of(
    protocol: Protocol,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    rows: list[dict[str, Any]],
    swapped: Mapping[str, list[dict[str, float]]],
    seed: int,
) -> Report:
    """What the rows of `evaluate` add up to.

    Args:
        rows: One a picture: image, photograph, scores of the answer and (`_input`) of what came in.
        swapped: Control -> scores of the answers under it, in the rows' order.
        seed: Of the bootstrap.
    """
    groups = [row["photograph"] for row in rows]
    damaged = [row for row in rows if row["psnr_input"] < CLEAN_FROM]
    clean = [row for row in rows if row["psnr_input"] >= CLEAN_FROM]

    def over(rows: Sequence[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], float]) -> Any:
        return summary([value(r) for r in rows], [r["photograph"] for r in rows], seed=seed)

    metrics = {m: over(rows, lambda r, m=m: r[m]) for m in ("psnr", "ssim")}
    before = {m: over(rows, lambda r, m=m: r[f"{m}_input"]) for m in ("psnr", "ssim")}
    gain = {m: over(damaged, lambda r, m=m: r[m] - r[f"{m}_input"]) for m in ("psnr", "ssim")}
    fell = collapsed(*_columns(damaged, "psnr", "psnr_input"))
    local = np.array([(row["worst_tile"] or 0) > COLLAPSE for row in damaged], bool)
    kept: dict[str, Any] = {"n": len(clean)}
    if clean:
        kept["psnr"] = over(clean, lambda r: r["psnr_kept"])
        kept["above40"] = sum(r["psnr_kept"] > KEPT_FROM for r in clean) / len(clean)
    against = {
        name: {
            "psnr": summary([s["psnr"] for s in scores], groups, seed=seed),
            "gain": {
                "psnr": summary(
                    [r["psnr"] - s["psnr"] for r, s in zip(rows, scores, strict=True)],
                    groups,
                    seed=seed,
                )
            },
        }
        for name, scores in swapped.items()
    }
    return Report(
        protocol=protocol,
        model={"name": model.get("name"), "sha256": model.get("sha256"), **model},
        data=dict(data),
        metrics={
            **metrics,
            "mcr": _rate(damaged, fell),
            "mcr_curve": collapse_curve(*_columns(damaged, "psnr", "psnr_input")),
            "local_mcr": _rate(damaged, local),
        },
        input=before,
        gain=gain,
        clean=kept,
        rows=rows,
        against=against,
    )


def _columns(rows: Sequence[Mapping[str, Any]], *keys: str) -> tuple[np.ndarray, ...]:
    return tuple(np.array([row[key] for row in rows], np.float64) for key in keys)


def _rate(rows: Sequence[Mapping[str, Any]], fell: np.ndarray) -> dict[str, Any]:
    """The share of pictures that fell, with exact intervals. They count photographs, of which one
    bad picture makes a bad one: pictures of one photograph fail together, and counting each would
    promise too much."""
    if not rows:
        return {"mean": None, "n": 0, "count": 0, "photographs": 0, "ci95": None, "upper95": None}
    photographs = {r["photograph"] for r in rows}
    bad = {r["photograph"] for r, f in zip(rows, fell, strict=True) if f}
    ends = share_bounds(len(bad), len(photographs))
    return {
        "mean": round(float(fell.mean()), 6),
        "n": len(rows),
        "count": int(fell.sum()),
        "photographs": len(photographs),
        "ci95": [round(end, 6) for end in ends],
        "upper95": round(share_upper(len(bad), len(photographs)), 6),
    }


def _number(value: Mapping[str, Any], metric: str, sign: str = "") -> str:
    mean = value["mean"]
    return "-" if mean is None else format(mean, f"{sign}.{_DIGITS[metric]}f")


def _spread(value: Mapping[str, Any], metric: str, sign: str = "") -> str:
    if value["ci95"] is None:
        return ""
    low, high = (format(end, f"{sign}.{_DIGITS[metric]}f") for end in value["ci95"])
    return f" [{low}, {high}]"


_DIGITS = {"psnr": 2, "ssim": 4}
_PARTS = ("model", "data", "metrics", "input", "gain", "clean", "rows", "against")
