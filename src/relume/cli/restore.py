"""`relume restore`: photographs, restored; the same command, run again, continues."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import (
    MODEL,
    Debug,
    Device,
    EngineName,
    Inputs,
    Json,
    Limit,
    Model,
    Overwrite,
    Prior,
    Quiet,
    Recursive,
    Sam,
    installed,
    need_lab,
)
from .program import app
from .said import Bar, estimate, say_json, say_restored, warn


@app.command()
def restore(
    inputs: Inputs,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder, or a file name for one input.")],
    recursive: Recursive = False,
    model: Model = MODEL,
    strength: Annotated[float, typer.Option(min=0, max=1, help="0 returns the input.")] = 1.0,
    map: Annotated[
        Path | None, typer.Option("--map", help="Gray mask or folder of masks; white = restore.")
    ] = None,
    protect: Annotated[
        Path | None, typer.Option(help="Gray mask or folder of masks; white = leave alone.")
    ] = None,
    prior: Prior = "auto",
    sam: Sam = None,
    regions: Annotated[
        Path | None,
        typer.Option(help="Regions of your own: a label map, a folder of masks, run-length JSON."),
    ] = None,
    tile: Annotated[str, typer.Option(help="auto, or the side of a tile in pixels.")] = "auto",
    engine: EngineName = "auto",
    device: Device = "auto",
    jobs: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 1,
    report: Annotated[Path | None, typer.Option(help="JSON lines, one object per input.")] = None,
    sidecar: Annotated[
        bool,
        typer.Option("--sidecar", help="Write each report line beside its output, as OUTPUT.json."),
    ] = False,
    overwrite: Overwrite = False,
    limits: Limit = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Restore photographs. The same command, run again, continues."""
    if sam is not None:
        need_lab("restore --sam")
    from ..image.apart import decoder
    from ..image.limits import Limits
    from .memory import keep_small

    keep_small()
    bounds = Limits.of(limits)
    decoder(bounds).start()  # it loads while the rest does
    from .. import batch
    from ..card import find
    from ..engine import masks_of, open_engine
    from ..priors.choice import priors_of, region_places, settings_of
    from ..priors.own import OwnMasks
    from ..restoration import Masks, for_files, tile_side

    many = recursive or len(inputs) > 1 or inputs[0].is_dir()
    reads = decoder(bounds).read
    masks, side = Masks(map, protect, reads), tile_side(tile)
    own = OwnMasks(regions, one=not many, reads=reads) if regions is not None else None
    found = find(installed(model))
    asked = priors_of(
        found.card,
        prior,
        sam=sam,
        network=not dry_run,
        device=device,
        masks=masks_of(found, engine, device),
    )
    places = region_places(found.card, asked) if own else []
    told = settings_of(asked, own, places)
    runner = open_engine(found, engine=engine, device=device)
    job = batch.Job(
        inputs,
        out,
        recursive=recursive,
        overwrite=overwrite,
        dry_run=dry_run,
        report=report,
        sidecar=sidecar,
        jobs=jobs,
        limits=bounds,
        settings={
            "model": found.card.name,
            "model_sha256": found.sha256,
            "engine": runner.name,
            "precision": runner.precision,
            "device": runner.device,
            "strength": strength,
            **told,
            "tile": side,
            "masks": masks.digest,
        },
    )
    skipped = 0
    with Bar("restoring", quiet or json or not many) as bar:

        def tell(record: dict[str, Any], done: int, total: int) -> None:
            nonlocal skipped
            skipped += record["status"] == "skipped"
            bar.show(done - skipped, total - skipped)
            if record["status"] == "refused":
                warn(record["message"])
            elif not (json or quiet):
                say_restored(record)

        outcome = batch.run(
            job,
            for_files(
                runner,
                masks,
                strength=strength,
                prior=asked,
                regions=own,
                tile=side,
                limits=bounds,
            ),
            copy_input=strength == 0 and found.card.scale == 1,
            progress=tell,
        )
    counts = {status: outcome.count(status) for status in ("restored", "skipped", "refused")}
    document = {**counts, "failed": counts["refused"], "ignored": outcome.ignored}
    if dry_run:
        document |= estimate(outcome.records, out, runner, asked)
        if document["bytes"] > document["free"]:
            warn(f"{out}: {document['bytes']} bytes are needed, {document['free']} are free.")
    if json:
        say_json({**document, "exit_code": outcome.exit_code, "rows": outcome.records})
    elif not quiet and (many or dry_run):
        words = ", ".join(f"{value} {key}" for key, value in document.items() if key != "failed")
        print(f"relume: {words}", file=sys.stderr)
    raise typer.Exit(outcome.exit_code)
