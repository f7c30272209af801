"""What a job is asked to do, and what became of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..image.limits import LIMITS, Limits
from ..image.picture import Picture

Record = dict[str, Any]
"""One line of the report, with the contract's fields."""


class Restored(Protocol):
    """What a restore function answers with: a picture (None: the input's bytes are copied) and
    what was lost. Where it has `guard`, that goes into the report."""

    @property
    def picture(self) -> Picture | None: ...

    @property
    def announced(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class Job:
    """What to restore, where to, and how careful to be.

    Attributes:
        inputs: Files and folders.
        out: A folder, or a file path with a picture's suffix where `inputs` is one file.
        recursive: Take folders with all that is below them, mirrored in `out`.
        overwrite: Replace outputs of earlier runs, known by their hash; never anything else.
        dry_run: Say what would be done, write nothing but the report.
        report: A JSONL file, one line per input.
        sidecar: Write the report's line beside each output, as NAME.json.
        settings: What decides the pixels: model, model_sha256, engine, device, strength, prior and
            more. Goes into the journal's key; the report takes its fields from here.
        jobs: How many pictures at once.
        limits: What one picture may cost; it is decoded in a process apart, which is held to them.
    """

    inputs: Sequence[Path]
    out: Path
    recursive: bool = False
    overwrite: bool = False
    dry_run: bool = False
    report: Path | None = None
    sidecar: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    jobs: int = 1
    limits: Limits = LIMITS


@dataclass(frozen=True)
class Outcome:
    """What became of a job: exit code, a record per input, and what was not an input at all."""

    exit_code: int
    records: list[Record]
    ignored: int = 0

    def count(self, status: str) -> int:
        return sum(record["status"] == status for record in self.records)


def one_line(words: str) -> str:
    """Without control characters: a file name may hold a newline or a terminal's escape."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", "?", words)
