"""Outputs that a command names: free, and in a folder that is there, before the work begins."""

from pathlib import Path

from ..errors import OutputError, UsageError


def check_free(*targets: Path | None) -> None:
    """Before the work, not after it: a name is taken, or its folder is not there.

    Raises:
        OutputError, UsageError: It is so; or two targets are one.
    """
    given = [target for target in targets if target is not None]
    for target in given:
        if target.exists():
            raise OutputError(f"{target} is already there; remove it or choose another name.")
        if not target.parent.is_dir():
            raise OutputError(f"{target}: its folder {target.parent} is not there; make it first.")
    if len({target.resolve() for target in given}) < len(given):
        raise UsageError(f"{given[0]} is named twice; give every output its own name.")
