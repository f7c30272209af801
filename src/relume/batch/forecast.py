"""What a job will take beside the model's own time: reading and writing, and room on the disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import RelumeError
from ..image import reader, writer
from ..image.apart import decoder
from .job import Record

SAMPLES = 8  # pictures, evenly over the job, that are decoded and encoded once


@dataclass(frozen=True)
class Forecast:
    """Attributes:
    pixels: Of all pictures that are due.
    seconds: For reading and writing them, on this machine now.
    bytes: That the outputs will take.
    free: Bytes that are free where they go.
    """

    pixels: int
    seconds: float
    bytes: int
    free: int


def forecast(records: Sequence[Record], out: Path, scale: int = 1) -> Forecast:
    """From the records of a dry run; a few of its pictures are read, and encoded in memory.

    Args:
        records: Those with pixels and no output are due.
        out: Where outputs go; it need not exist yet.
        scale: Output pixels per input pixel, along each axis.
    """
    due = [r for r in records if r["status"] == "skipped" and r["pixels"] and not r["output"]]
    pixels = sum(record["pixels"] for record in due)
    size = sum(Path(record["input"]).stat().st_size for record in due)
    spent, seen, read, written = 0.0, 0, 0, 0
    for record in due[:: max(1, len(due) // SAMPLES)][:SAMPLES]:
        began = time.perf_counter()
        try:
            data = reader.read_bytes(record["input"])
            picture = decoder().decode(data)
            picture = picture.with_rgb(picture.rgb())
            format = writer.FORMATS[writer.suffix_for(picture.format, Path(record["input"]).suffix)]
            encoded = writer.encode(picture, format)
        except (RelumeError, KeyError):
            continue
        spent += time.perf_counter() - began
        seen += picture.width * picture.height
        read, written = read + len(data), written + len(encoded)
    while not out.exists() and out != out.parent:
        out = out.parent
    return Forecast(
        pixels,
        pixels * (1 + scale**2) / 2 * spent / seen if seen else 0.0,
        round(size * (written / read if read else 1) * scale**2),
        shutil.disk_usage(out).free,
    )
