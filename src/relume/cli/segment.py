"""`relume segment`: what is in photographs, as label maps and drawn over them."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .options import Debug, Inputs, Json, Limit, Overwrite, Quiet, Recursive, Sam, need_lab
from .program import app
from .said import Bar, plain, say_survey, teller


@app.command()
def segment(
    inputs: Inputs,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder.")],
    recursive: Recursive = False,
    prior: Annotated[
        Literal["regions", "sam", "grid", "voronoi"],
        typer.Option(help="What finds the regions; grid and voronoi look at nothing (controls)."),
    ] = "regions",
    sam: Sam = None,
    masks: Annotated[
        Path | None,
        typer.Option(help="Masks of your own: a label map, a folder of masks, or run-length JSON."),
    ] = None,
    overwrite: Overwrite = False,
    limits: Limit = "",
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show what is in photographs: label maps, and their regions drawn over them."""
    if prior == "sam":
        need_lab("segment --prior sam")
    from .. import batch, survey
    from ..image.limits import Limits
    from ..segmentation import looking, task

    many = recursive or len(inputs) > 1 or inputs[0].is_dir()
    look, settings = looking(prior, sam=sam, masks=masks, one=not many)
    job = batch.Job(
        inputs,
        out,
        recursive=recursive,
        overwrite=overwrite,
        limits=Limits.of(limits),
        settings=settings,
    )
    with Bar("segmenting", quiet or json or not many) as bar:

        def say(record: dict[str, Any]) -> None:
            said = record["message"] or f"{record['count']} regions"
            print(f"{plain(record['overlay'] or record['input'])} ({said})")

        tell = teller(bar, None if json or quiet else say)
        outcome = survey.run(job, task(look), progress=tell)
    if json:
        say_survey(outcome, "segmented", settings)
    raise typer.Exit(outcome.exit_code)
