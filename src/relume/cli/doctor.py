"""`relume doctor`: what is here, what is missing, and the command that mends it."""

import typer

from .options import Debug, Json, Quiet
from .program import app
from .said import say_json, warn


@app.command()
def doctor(json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """Say what is here, what is missing, and the command that mends it."""
    from ..doctor import examine

    diagnosis = examine()
    if json:
        say_json(diagnosis.to_json())
    elif not quiet:
        for key, value in diagnosis.machine.items():
            shown = ", ".join(value) if isinstance(value, list) else value
            print(f"{key:>16}  {'unknown' if shown is None else shown}")
        for found in diagnosis.findings:
            mend = f"  ->  {found.mend}" if found.mend else ""
            print(f"{found.what:>16}  {found.state:<8} {found.detail}{mend}")
    missing = [found for found in diagnosis.findings if found.state == "missing"]
    for found in missing:
        warn(f"{found.what} is missing ({found.detail.rstrip('.')}). Mend it: {found.mend}")
    raise typer.Exit(5 if missing else 0)
