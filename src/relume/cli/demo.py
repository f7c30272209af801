"""`relume demo`: four damaged photographs that come with relume, restored, and their page."""

from pathlib import Path
from typing import Annotated

import typer

from .options import MODEL, Debug, Device, EngineName, Json, Model, Quiet, installed
from .program import app
from .said import plain, say_json


@app.command()
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder.")] = Path("relume-demo"),
    model: Model = MODEL,
    engine: EngineName = "auto",
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Restore four damaged photographs that come with relume, and write a page about it."""
    from .. import page
    from ..demo import OUTRO, Shown, run
    from ..engine import open_engine

    shown: list[Shown] = []

    def tell(one: Shown) -> None:
        shown.append(one)
        if not (json or quiet):
            print(
                f"{one.case.name:>8}  {one.case.spec:<24} {one.before:5.2f} -> {one.after:5.2f} dB"
                f"  {one.seconds:.1f} s\n{'':>8}  {one.case.look}"
            )

    written = run(out, open_engine(installed(model), engine=engine, device=device), tell)
    if json:
        rows = [
            {
                "name": one.case.name,
                "spec": one.case.spec,
                "seed": one.case.seed,
                "output": str(one.output),
                "psnr_before": one.before,
                "psnr_after": one.after,
                "seconds": one.seconds,
            }
            for one in shown
        ]
        say_json({"page": str(written), "protocol": page.PROTOCOL, "model": model, "rows": rows})
    elif not quiet:
        print(f"{page.PROTOCOL}, against the photograph before the damage.")
        print(f"Look at it: {plain(written.resolve().as_uri())}")
        print(OUTRO)
