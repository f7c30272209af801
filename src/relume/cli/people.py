"""The commands for people with photographs; they need nothing but the ground floor."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..errors import OutputError, UsageError
from .options import (
    MASKS,
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
from .said import Bar, estimate, fields, flat, plain, say_json, say_restored, say_survey, warn


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


@app.command()
def compare(
    pictures: Annotated[
        list[Path], typer.Argument(help="Two or more; the first is what the rest is held against.")
    ],
    html: Annotated[Path | None, typer.Option(help="Write a page with a slider.")] = None,
    png: Annotated[Path | None, typer.Option(help="Write one picture, side by side.")] = None,
    limits: Limit = "",
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show where pictures of one scene differ."""
    from .. import page
    from ..image import Picture, place, write
    from ..image.apart import decoder
    from ..image.limits import Limits

    _check_free(html, png)
    reads = decoder(Limits.of(limits)).read
    case = page.compare([(path.name, reads(path)) for path in pictures])
    first = case.pictures[0][1]
    others = zip(pictures[1:], case.pictures[1:], strict=True)
    figures = {str(path): page.psnr(rgb, first) for path, (_, rgb) in others}
    if html is not None:
        place(page.coded(page.html([case], title="relume compare")), html)
    if png is not None:
        write(Picture.from_rgb(page.strip(case)), png, replace=False)
    pages = [str(target) for target in (html, png) if target is not None]
    if json:
        say_json(
            {
                "reference": str(pictures[0]),
                "psnr": figures,
                "protocol": page.PROTOCOL,
                "written": pages,
            }
        )
    elif not quiet:
        for name, value in figures.items():
            print(f"{plain(name)}: {value:.2f} dB from {plain(pictures[0])}")
        print(page.PROTOCOL)
        for target in pages:
            print(plain(target))


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

        tell = _teller(bar, None if json or quiet else say)
        outcome = survey.run(job, task(look), progress=tell)
    if json:
        say_survey(outcome, "segmented", settings)
    raise typer.Exit(outcome.exit_code)


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

    _check_free(html)
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

        tell = _teller(bar, None if json or quiet else say)
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

    _check_free(csv, html)
    prior = DamagePrior(open_engine(installed(model), engine=engine, device=device))
    quality = shipped(engine, device)
    many = recursive or len(inputs) > 1 or inputs[0].is_dir()
    job = batch.Job(inputs, Path(), recursive=recursive, limits=Limits.of(limits))
    thumbnails: dict[str, bytes] = {}
    with Bar("sorting", quiet or json or not many) as bar:
        tell = _teller(bar, None if json or quiet else lambda _: None)

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


def _teller(
    bar: Bar, say: Callable[[dict[str, Any]], None] | None
) -> Callable[[dict[str, Any], int, int], None]:
    """What `survey.run` tells of each picture: how far it is, what was refused, and, where there is
    a `say`, its line and what was announced."""

    def tell(record: dict[str, Any], done: int, total: int) -> None:
        bar.show(done, total)
        if record["status"] == "refused":
            warn(record["message"])
        elif say is not None:
            say(record)
            for words in record["announced"]:
                warn(f"{record['input']}: {words}")

    return tell


def _check_free(*targets: Path | None) -> None:
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


@app.command()
def models(
    action: Annotated[
        Literal["list", "show", "fetch", "convert"],
        typer.Argument(help="list, show NAME, fetch NAME (opens a connection), convert FILE.pth."),
    ] = "list",
    name: Annotated[str | None, typer.Argument(help="Shipped name or model file.")] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="What fetch or convert writes.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """List the models, show the card of one, fetch one, or make a foreign pickle safetensors."""
    from ..card import find, names

    if action != "list" and name is None:
        raise UsageError("which model? `relume models` lists the names.")
    if action in ("fetch", "convert"):
        _bring(action, str(name), out, json, quiet)
        return
    if out is not None:
        raise UsageError(f"`models {action}` writes nothing; leave --out away.")
    if action == "list" and name is not None:
        raise UsageError(f"`models list` takes no name; see `relume models show {name}`.")
    found = [find(each) for each in ([name] if name is not None else names())]
    cards = [
        {**fields(model.card), "sha256": model.sha256, "file": model.path and str(model.path)}
        for model in found
    ]
    if json:
        say_json(cards[0] if action == "show" else {"models": cards})
    elif action == "list":
        for model in found:
            card = model.card
            reads = ", ".join(reads.prior for reads in card.reads) or "nothing"
            size = f"{card.parameters / 1e6:.1f} M parameters" if card.parameters else card.data
            does = f"x{card.scale}"
            if card.emits:
                does, reads = "--", f"{reads}, says where there is {', '.join(card.emits)}"
            if card.vector:
                does, reads = "--", f"{reads}, says how good a picture is: {', '.join(card.vector)}"
            print(f"{card.name:<16} {does}  {size:<20}  reads {reads}")
    else:
        if found[0].card.emits:
            print(f"{'a':>12}  mask network: says where a picture is damaged, restores none")
        if found[0].card.vector:
            print(f"{'a':>12}  quality model: says how good a picture is, restores none")
        for key, value in cards[0].items():
            if value not in (None, "", [], (), {}):
                print(f"{key:>12}  {value if isinstance(value, str) else flat(value)}")


def _bring(action: str, name: str, out: Path | None, json: bool, quiet: bool) -> None:
    if action == "convert":
        need_lab("models convert")
        from ..convert import convert

        source = Path(name)
        if not source.is_file():
            raise UsageError(f"{name}: there is no such file to convert.")
        target = out or source.with_suffix(".safetensors")
        tensors = convert(source, target)
        if json:
            say_json({"written": str(target), "tensors": tensors})
        elif not quiet:
            print(f"{plain(target)}: {len(tensors)} tensors")
        return
    from ..card import survey
    from ..fetch import fetch, named

    target = out or Path(f"{name}.onnx")
    remote = named(name)
    with Bar("fetching", quiet or json) as bar:
        fetch(remote, target, tell=bar.show)
    card = survey(target).card
    if json:
        say_json({"written": str(target), **fields(card)})
    elif not quiet:
        print(f"{plain(target)}: {card.name}, {card.licence or 'no licence named'}")


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
