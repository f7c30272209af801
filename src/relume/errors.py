"""Everything relume raises on purpose, as one tree.

    RelumeError
    ├── PictureError     (ValueError)    exit 1   an image file was refused
    ├── CheckError       (ValueError)    exit 1   a check did not hold
    ├── UsageError       (ValueError)    exit 2   wrong flag, data layout or argument
    │   ├── RecipeError                  exit 2   a recipe or a damage SPEC cannot be read
    │   ├── ShapeError                   exit 2   an array has the wrong shape, kind or range
    │   └── GuidanceError                exit 2   guidance and its reader do not fit
    ├── OutputError      (OSError)       exit 3   the output cannot be written
    ├── ModelError       (ValueError)    exit 4   a weight file was refused
    └── MissingError     (ImportError)   exit 5   an extra, weights or the network is missing

A message is one line: what was expected, what came, whose it was, what to do.
"""

import difflib
from collections.abc import Iterable


class RelumeError(Exception):
    """Parent of all. `exit_code` is what the command line ends with."""

    exit_code = 1


class PictureError(RelumeError, ValueError):
    """An image file was refused; the rest of a batch goes on."""


class CheckError(RelumeError, ValueError):
    """Something ran, and what it promises did not hold."""


class UsageError(RelumeError, ValueError):
    """The request itself cannot be understood or carried out."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe, or a damage SPEC, holds something it must not hold."""


class ShapeError(UsageError):
    """An array has the wrong shape, kind or range."""


class GuidanceError(UsageError):
    """What a prior says is not what its reader reads."""


class OutputError(RelumeError, OSError):
    """The output cannot be written: disk full, read-only, or already there."""

    exit_code = 3


class ModelError(RelumeError, ValueError):
    """A weight file was refused."""

    exit_code = 4


class MissingError(RelumeError, ImportError):
    """Something optional is missing; the message names the command that mends it."""

    exit_code = 5


def nearest(word: str, known: Iterable[str]) -> str:
    """ " Did you mean 'x'?", or "" where nothing known is near `word`."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""
