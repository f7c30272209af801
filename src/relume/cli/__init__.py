"""The command line: parse, call the library, print the one fact the user wants.

Only typer loads at import, so that `--help` answers at once; everything else loads inside the
command that needs it.
"""

import sys
from collections.abc import Callable
from typing import Any

import typer

from ..errors import RelumeError

# `--help` lists the commands in the order in which they are imported: those for people with
# photographs first, which need nothing but the ground floor.
# isort: off
from . import restore as restore
from . import compare as compare
from . import segment as segment
from . import diagnose as diagnose
from . import triage as triage
from . import models as models
from . import doctor as doctor
from . import demo as demo
from . import lab as lab

# isort: on
from .options import MASKS as MASKS
from .options import MODEL as MODEL
from .program import app
from .said import say_json, warn
from .stopping import Stop


def main() -> None:
    """Run, and end with the contract's exit code; nobody sees a traceback without --debug."""
    arguments = sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file's name may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore
    stop = Stop()
    code = _run(lambda: app(arguments, prog_name="relume", standalone_mode=False), arguments)
    sys.exit(code if stop.code is None else stop.code)


def _run(command: Callable[[], Any], arguments: list[str]) -> int:
    try:
        code = command() or 0
        if code != 130:
            return code
        message = _stopped(arguments)
    except KeyboardInterrupt:
        message, code = _stopped(arguments), 130
    except Exception as error:
        if "--debug" in arguments:
            raise
        message, code = _explain(error)
    warn(message)
    if "--json" in arguments:
        say_json({"error": message, "exit_code": code})
    return code


def _stopped(arguments: list[str]) -> str:
    goes_on = arguments[:1] and arguments[0] in ("restore", "segment", "train")
    return "stopped. The same command, run again, continues." if goes_on else "stopped."


def _explain(error: Exception) -> tuple[str, int]:
    """One line and the exit code for anything that can go wrong."""
    import errno

    if isinstance(error, RelumeError):
        return str(error), error.exit_code
    if isinstance(error, typer.Abort):
        return _stopped(sys.argv[1:]), 130
    if hasattr(error, "format_message"):  # the parser's own: wrong flags and values
        ctx: Any = getattr(error, "ctx", None)
        said = str(error.format_message()).rstrip(".")  # pyright: ignore
        return f"{said}. See `{ctx.command_path} --help`." if ctx else f"{said}.", 2
    if isinstance(error, OSError):
        full = {errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG}
        return str(error), 3 if error.errno in full else 1
    return f"{type(error).__name__}: {error} (a bug; --debug shows where)", 1
