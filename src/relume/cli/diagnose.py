"""`relume diagnose`: what is wrong with photographs, where, how badly, and how sure that is."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import (
    MASKS,
    Debug,
    Device,
    EngineName,
    Inputs,
    Json,
    Limit,
    Overwrite,
    Quiet,
    Recursive,
    installed,
)
from .outputs import check_free
from .program import app
from .said import Bar, plain, say_survey, teller


@app.command()
def diagnose(
    inputs: Inputs,
    maps: Annotated[
        Path | None,
        typer.Option(help="Folder for severity maps, which `restore --map` reads, and overlays."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page that shows where.")] = None,
    recursive: Recursive = False,
    model: Annotated[str, typer.Option(help="A mask network: shipped name or model file.")] = MASKS,
    engine: EngineName = "auto",
    device: Device = "auto",
    overwrite: Overwrite = False,
    limits: Limit = "",
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say what is wrong with photographs, where, how badly, and how sure that is."""
    from .. import batch, survey
    from ..checkup import page, task
    from ..engine import open_engine
    from ..image import place
    from ..image.limits import Limits
    from ..page import coded
    from ..priors.damage import DamagePrior
    from ..priors.quality import shipped

    check_free(html)
    prior = DamagePrior(open_engine(installed(model), engine=engine, device=device))
    quality = shipped(engine, device)
    many = recursive or len(inputs) > 1 or inputs[0].is_dir()
    job = batch.Job(
        inputs,
        maps or Path(),
        recursive=recursive,
        overwrite=overwrite,
        limits=Limits.of(limits),
        settings=prior.identity,
    )
    sections: list[str] = []
    with Bar("diagnosing", quiet or json or not many) as bar:

        def say(record: dict[str, Any]) -> None:
            print(f"{plain(record['input'])}: {plain(_diagnosed(record))}")

        tell = teller(bar, None if json or quiet else say)
        show = sections.append if html else None
        looks = task(prior, maps=maps is not None, show=show, quality=quality)
        outcome = survey.run(job, looks, writes=maps is not None, progress=tell)
    if html is not None:
        refused = [r["message"] for r in outcome.records if r["status"] == "refused"]
        place(coded(page(sections, refused)), html)
    if json:
        say_survey(outcome, "diagnosed", prior.identity)
    elif html is not None and not quiet:
        print(plain(html))
    raise typer.Exit(outcome.exit_code)


def _diagnosed(record: dict[str, Any]) -> str:
    """A record of `diagnose` in one line."""
    from ..checkup import sentence
    from ..diagnosis import Finding

    found = record["damage"]
    if found is None:
        return record["message"] or record["status"]
    judged = (record[key] for key in ("tier", "tier_margin", "difficulty"))
    return sentence([Finding(**one) for one in found], *judged)
