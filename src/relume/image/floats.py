"""Float samples: from where to where they run, and what is announced or refused of that."""

from __future__ import annotations

import numpy as np

from ..errors import PictureError


class Span:
    """From where to where float samples run, and how many lie outside [0, 1]."""

    def __init__(self) -> None:
        self.low, self.high, self.outside, self.size = np.inf, -np.inf, 0, 0

    def take(self, samples: np.ndarray) -> None:
        """Count samples.

        Raises:
            PictureError: One is not finite.
        """
        low, high = float(samples.min()), float(samples.max())
        if not np.isfinite(high - low):
            raise PictureError(
                "it holds samples that are not finite (NaN or infinity); mend them first"
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        if low < 0 or high > 1:
            self.outside += int(((samples < 0) | (samples > 1)).sum())
        self.size += samples.size

    def note(self, notes: list[str]) -> None:
        """Announce what lies outside.

        Raises:
            PictureError: Most of it does.
        """
        if not self.outside:
            return
        outside, low, high = self.outside / self.size, self.low, self.high
        if outside > 0.5:
            raise PictureError(
                f"its float samples run from {low:.4g} to {high:.4g}; scale them to 0..1 first"
            )
        notes.append(
            f"float samples outside 0..1 ({outside:.1%}, range {low:.4g} to {high:.4g}) keep their "
            "excess"
        )
