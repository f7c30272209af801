"""What one picture may cost: pixels in, pixels out, seconds and memory of its decoder."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import PictureError, UsageError, nearest


@dataclass(frozen=True)
class Limits:
    """Beyond these a picture is refused; by its header where that suffices.

    Args:
        input: Pixels that a file may promise.
        output: Pixels that its result may have.
        seconds: Of the processor, for decoding one file.
        memory: Bytes, for decoding one file.
    """

    input: int = 200_000_000
    output: int = 1_000_000_000
    seconds: float = 30.0
    memory: int = 3 << 30

    @classmethod
    def of(cls, words: str) -> Limits:
        """From "input=400,output=2000,seconds=60,memory=8", in megapixels, seconds and GiB.

        What is not named keeps its default.

        Raises:
            UsageError: Another word, or no number above 0.
        """
        found = {}
        for part in filter(None, words.split(",")):
            name, _, said = part.partition("=")
            if name not in _UNITS:
                raise UsageError(
                    f"--limits knows {', '.join(_UNITS)}, not {name!r}.{nearest(name, _UNITS)}"
                )
            try:
                value = float(said)
            except ValueError:
                value = 0.0
            if not 0 < value < 1e6:
                raise UsageError(f"--limits {name} takes a number above 0, got {said!r}.")
            unit = _UNITS[name]
            found[name] = value if unit is None else max(1, round(value * unit))
        return replace(cls(), **found)

    def check_input(self, width: int, height: int) -> None:
        """Raise PictureError where a header promises more than `input`."""
        if width * height > self.input:
            raise PictureError(
                f"its header promises {width} x {height} pixels, more than "
                f"{self.input / 1e6:g} million; make it smaller first, or raise --limits input"
            )

    def check_output(self, width: int, height: int) -> None:
        """Raise PictureError where a result would have more than `output` pixels."""
        if width * height > self.output:
            raise PictureError(
                f"its result would have {width} x {height} pixels, more than "
                f"{self.output / 1e6:g} million; use a model of a smaller scale, or raise "
                "--limits output"
            )


LIMITS = Limits()

_UNITS = {"input": 1e6, "output": 1e6, "seconds": None, "memory": 1 << 30}
