"""`relume triage`: photographs sorted into piles, the worst first."""

import sys
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
    Quiet,
    Recursive,
    installed,
)
from .outputs import check_free
from .program import app
from .said import Bar, plain, say_survey, teller


@app.command()
def triage(
    inputs: Inputs,
    csv: Annotated[Path | None, typer.Option(help="Write a table, a row a picture.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page that shows the piles.")] = None,
    recursive: Recursive = False,
    model: Annotated[str, typer.Option(help="A mask network: shipped name or model file.")] = MASKS,
    engine: EngineName = "auto",
    device: Device = "auto",
    limits: Limit = "",
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Sort photographs into piles, the worst first: ask, hard, easy, clean."""
    from .. import batch, survey
    from ..engine import open_engine
    from ..image import place
    from ..image.limits import Limits
    from ..priors.damage import DamagePrior
    from ..priors.quality import shipped
    from ..sorting import counts, page, rows, table, task

    check_free(csv, html)
    prior = DamagePrior(open_engine(installed(model), engine=engine, device=device))
    quality = shipped(engine, device)
    many = recursive or len(inputs) > 1 or inputs[0].is_dir()
    job = batch.Job(inputs, Path(), recursive=recursive, limits=Limits.of(limits))
    thumbnails: dict[str, bytes] = {}
    with Bar("sorting", quiet or json or not many) as bar:
        tell = teller(bar, None if json or quiet else lambda _: None)

        def show(source: Path, thumbnail: bytes) -> None:
            thumbnails[str(source)] = thumbnail

        looks = task(prior, quality, show if html else None)
        outcome = survey.run(job, looks, writes=False, progress=tell)
    found = rows(outcome.records)
    if csv is not None:
        place(table(found), csv)
    if html is not None:
        names = [p.engine.card.name for p in (prior, quality) if p is not None]
        place(page(found, thumbnails, models=names), html)
    if json:
        say_survey(outcome, "sorted", prior.identity, rows=found, piles=counts(found))
    elif not quiet:
        for row in found:
            print(f"{row['pile']:<5}  {plain(row['input'])}: {plain(_sorted(row))}")
        for target in (csv, html):
            if target is not None:
                print(plain(target))
        words = ", ".join(f"{number} {name}" for name, number in counts(found).items())
        print(f"relume: {words}", file=sys.stderr)
    raise typer.Exit(outcome.exit_code)


def _sorted(row: dict[str, Any]) -> str:
    """A row of `triage` in one line."""
    from ..checkup import sentence
    from ..diagnosis import Finding

    found = row["damage"] and sentence([Finding(**one) for one in row["damage"]])
    return f"{row['why']}; {found}" if found else row["why"]
