"""The command line: parse, call the library, print the one fact the user wants.

Only typer loads at import, so that `--help` answers at once; everything else loads inside the
command that needs it. The lab's commands are the ground floor's one door to `lab`.
"""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .errors import MissingError, OutputError, RelumeError, UsageError, nearest

MODEL, MASKS = "relume-s", "relume-damage"  # card.DEFAULT, card.MASKS; a test keeps them equal

app = typer.Typer(
    name="relume",
    help="Restore photographs.",
    add_completion=False,
    rich_markup_mode=None,  # rich's help costs 0.2 s, twice the rest
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print only what went wrong.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
EngineName = Annotated[
    Literal["auto", "onnx", "openvino", "torch"], typer.Option(help="What runs the model.")
]
Device = Annotated[Literal["auto", "cpu", "gpu"], typer.Option(help="Where it runs.")]
Model = Annotated[str, typer.Option(help="Shipped name or model file.")]
Inputs = Annotated[
    list[Path], typer.Argument(help="Photographs, or folders of them.", metavar="INPUT...")
]
Sam = Annotated[
    str | None,
    typer.Option(help="SAM's weights: a folder, or a hub model's id, which is fetched. [lab]"),
]
Prior = Annotated[
    str,
    typer.Option(help="auto, none, the name of a prior that the model reads, or sam for regions."),
]
Recursive = Annotated[
    bool, typer.Option("-r", "--recursive", help="Look into folders; mirror the tree.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace earlier outputs of relume's own.")
]


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from . import __version__

        print(__version__)
    elif ctx.invoked_subcommand is None:
        print(ctx.get_help())


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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Restore photographs. The same command, run again, continues."""
    if sam is not None:
        _lab("restore --sam")
    from . import batch
    from .card import find
    from .engine import masks_of, open_engine
    from .priors.choice import priors_of, region_places, settings_of
    from .priors.own import OwnMasks
    from .restoration import Masks, for_files, tile_side

    many = recursive or len(inputs) > 1 or inputs[0].is_dir()
    masks, side = Masks(map, protect), tile_side(tile)
    own = OwnMasks(regions, one=not many) if regions is not None else None
    found = find(_model(model))
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
    with _Bar("restoring", quiet or json or not many) as bar:

        def tell(record: dict[str, Any], done: int, total: int) -> None:
            bar.show(done, total)
            if record["status"] == "refused":
                _warn(record["message"])
            elif not (json or quiet):
                _tell(record)

        outcome = batch.run(
            job,
            for_files(runner, masks, strength=strength, prior=asked, regions=own, tile=side),
            copy_input=strength == 0 and found.card.scale == 1,
            progress=tell,
        )
    counts = {status: outcome.count(status) for status in ("restored", "skipped", "refused")}
    document = {**counts, "failed": counts["refused"], "ignored": outcome.ignored}
    if dry_run:
        document |= _estimate(outcome.records, runner, asked)
    if json:
        _json({**document, "exit_code": outcome.exit_code, "rows": outcome.records})
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
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show where pictures of one scene differ."""
    from . import page
    from .image import Picture, place, read, write

    for target in (html, png):
        if target is not None and target.exists():
            raise OutputError(f"{target} is already there; remove it or choose another name.")
    case = page.compare([(path.name, read(path)) for path in pictures])
    first = case.pictures[0][1]
    others = zip(pictures[1:], case.pictures[1:], strict=True)
    figures = {str(path): page.psnr(rgb, first) for path, (_, rgb) in others}
    if html is not None:
        place(page.html([case], title="relume compare").encode(), html)
    if png is not None:
        write(Picture.from_rgb(page.strip(case)), png, replace=False)
    pages = [str(target) for target in (html, png) if target is not None]
    if json:
        _json(
            {
                "reference": str(pictures[0]),
                "psnr": figures,
                "protocol": page.PROTOCOL,
                "written": pages,
            }
        )
    elif not quiet:
        for name, value in figures.items():
            print(f"{_shown(name)}: {value:.2f} dB from {_shown(pictures[0])}")
        print(page.PROTOCOL)
        for target in pages:
            print(_shown(target))


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
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show what is in photographs: label maps, and their regions drawn over them."""
    if prior == "sam":
        _lab("segment --prior sam")
    from . import batch, survey
    from .segmentation import looking, task

    many = recursive or len(inputs) > 1 or inputs[0].is_dir()
    look, settings = looking(prior, sam=sam, masks=masks, one=not many)
    job = batch.Job(inputs, out, recursive=recursive, overwrite=overwrite, settings=settings)
    with _Bar("segmenting", quiet or json or not many) as bar:

        def tell(record: dict[str, Any], done: int, total: int) -> None:
            bar.show(done, total)
            if record["status"] == "refused":
                _warn(record["message"])
            elif not (json or quiet):
                said = record["message"] or f"{record['count']} regions"
                print(f"{_shown(record['overlay'] or record['input'])} ({said})")
                for words in record["announced"]:
                    _warn(f"{record['input']}: {words}")

        outcome = survey.run(job, task(look), progress=tell)
    if json:
        names = ("segmented", "skipped", "refused")
        document = {name: outcome.count(name) for name in names}
        document |= {"ignored": outcome.ignored, "exit_code": outcome.exit_code}
        _json({**document, "settings": settings, "rows": outcome.records})
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
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say what is wrong with photographs, where, how badly, and how sure that is."""
    from . import batch, survey
    from .checkup import page, task
    from .engine import open_engine
    from .image import place
    from .priors.damage import DamagePrior

    if html is not None and html.exists():
        raise OutputError(f"{html} is already there; remove it or choose another name.")
    prior = DamagePrior(open_engine(_model(model), engine=engine, device=device))
    many = recursive or len(inputs) > 1 or inputs[0].is_dir()
    job = batch.Job(
        inputs,
        maps or Path(),
        recursive=recursive,
        overwrite=overwrite,
        settings=prior.identity,
    )
    sections: list[str] = []
    with _Bar("diagnosing", quiet or json or not many) as bar:

        def tell(record: dict[str, Any], done: int, total: int) -> None:
            bar.show(done, total)
            if record["status"] == "refused":
                _warn(record["message"])
            elif not (json or quiet):
                print(f"{_shown(record['input'])}: {_shown(_diagnosed(record))}")
                for words in record["announced"]:
                    _warn(f"{record['input']}: {words}")

        looks = task(prior, maps=maps is not None, show=sections.append if html else None)
        outcome = survey.run(job, looks, writes=maps is not None, progress=tell)
    if html is not None:
        refused = [r["message"] for r in outcome.records if r["status"] == "refused"]
        place(page(sections, refused).encode(), html)
    if json:
        document = {name: outcome.count(name) for name in ("diagnosed", "skipped", "refused")}
        document |= {"ignored": outcome.ignored, "exit_code": outcome.exit_code}
        _json({**document, "settings": prior.identity, "rows": outcome.records})
    elif html is not None and not quiet:
        print(_shown(html))
    raise typer.Exit(outcome.exit_code)


def _diagnosed(record: dict[str, Any]) -> str:
    """A record of `diagnose` in one line."""
    from .checkup import sentence
    from .diagnosis import Finding

    found = record["damage"]
    if found is None:
        return record["message"] or record["status"]
    return sentence([Finding(**one) for one in found])


@app.command()
def models(
    action: Annotated[Literal["list", "show"], typer.Argument(help="list, or show NAME.")] = "list",
    name: Annotated[str | None, typer.Argument(help="Shipped name or model file.")] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """List the models, or show the card of one."""
    from .card import find, names

    if action == "show" and name is None:
        raise UsageError("which model? `relume models` lists the names.")
    if action == "list" and name is not None:
        raise UsageError(f"`models list` takes no name; see `relume models show {name}`.")
    found = [find(each) for each in ([name] if name is not None else names())]
    cards = [
        {**_card(model.card), "sha256": model.sha256, "file": model.path and str(model.path)}
        for model in found
    ]
    if json:
        _json(cards[0] if action == "show" else {"models": cards})
    elif action == "list":
        for model in found:
            card = model.card
            reads = ", ".join(reads.prior for reads in card.reads) or "nothing"
            size = f"{card.parameters / 1e6:.1f} M parameters" if card.parameters else card.data
            does = f"x{card.scale}"
            if card.emits:
                does, reads = "--", f"{reads}, says where there is {', '.join(card.emits)}"
            print(f"{card.name:<16} {does}  {size:<20}  reads {reads}")
    else:
        if found[0].card.emits:
            print(f"{'a':>12}  mask network: says where a picture is damaged, restores none")
        for key, value in cards[0].items():
            if value not in (None, "", [], (), {}):
                print(f"{key:>12}  {value if isinstance(value, str) else _flat(value)}")


@app.command()
def doctor(json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """Say what is here, what is missing, and the command that mends it."""
    from .doctor import examine

    diagnosis = examine()
    if json:
        _json(diagnosis.to_json())
    elif not quiet:
        for key, value in diagnosis.machine.items():
            shown = ", ".join(value) if isinstance(value, list) else value
            print(f"{key:>16}  {'unknown' if shown is None else shown}")
        for found in diagnosis.findings:
            mend = f"  ->  {found.mend}" if found.mend else ""
            print(f"{found.what:>16}  {found.state:<8} {found.detail}{mend}")
    missing = [found for found in diagnosis.findings if found.state == "missing"]
    for found in missing:
        _warn(f"{found.what} is missing ({found.detail.rstrip('.')}). Mend it: {found.mend}")
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
    from . import page
    from .demo import OUTRO, Shown, run
    from .engine import open_engine

    shown: list[Shown] = []

    def tell(one: Shown) -> None:
        shown.append(one)
        if not (json or quiet):
            print(
                f"{one.case.name:>8}  {one.case.spec:<24} {one.before:5.2f} -> {one.after:5.2f} dB"
                f"  {one.seconds:.1f} s\n{'':>8}  {one.case.look}"
            )

    written = run(out, open_engine(_model(model), engine=engine, device=device), tell)
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
        _json({"page": str(written), "protocol": page.PROTOCOL, "model": model, "rows": rows})
    elif not quiet:
        print(f"{page.PROTOCOL}, against the photograph before the damage.")
        print(f"Look at it: {_shown(written.resolve().as_uri())}")
        print(OUTRO)


@app.command()
def degrade(
    gt: Annotated[Path, typer.Argument(help="A clean photograph, or a folder of them.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for lq/, gt/, truth/.")],
    spec: Annotated[str, typer.Option(help="Damage, such as noise:sigma=25+jpeg:quality=10..30.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 1,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Damage clean photographs in a known way, and write down the truth. [lab]"""
    _lab("degrade")
    from .lab.degrade.folder import degrade_folder

    with _Bar("degrading", quiet or json) as bar:
        rows = degrade_folder(gt, out, spec, seed=seed, jobs=jobs, progress=bar.show)
    if json:
        _json({"out": str(out), "spec": spec, "seed": seed, "rows": rows})
    elif not quiet:
        print(f"{_shown(out)}: {len(rows)} pairs of {spec}, seed {seed}, in lq/ gt/ truth/")


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or a shipped recipe's name.")],
    out: Annotated[
        Path | None, typer.Option(help="Run folder, which a stopped run goes on in. [runs/NAME]")
    ] = None,
    set: Annotated[
        list[str] | None, typer.Option("--set", help="Change one key: schedule.lr=1e-4.")
    ] = None,
    data: Annotated[
        Path, typer.Option(help="The folder that the recipe's data folders lie in.")
    ] = Path(),
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a model from a recipe. The same command continues a stopped run. [lab]"""
    _lab("train")
    from .lab.memory import keep_memory

    keep_memory()  # before torch asks for any
    from .lab.recipe import load
    from .lab.runs import run_recipe

    chosen = load(recipe, set or [])
    folder = out or Path("runs") / chosen.name
    with _Bar("training", quiet or json) as bar:
        total = chosen.build_schedule().steps

        def tell(step: int, figures: dict[str, float]) -> None:
            bar.show(step, total, f"loss {figures['loss']:.3f}")

        weights = run_recipe(chosen, folder, root=data, progress=tell)
    if json:
        _json({"run": str(folder), "weights": str(weights), "recipe": chosen.digest})
    elif not quiet:
        print(_shown(weights))


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="Run folder or .safetensors file.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="NAME.onnx.")],
    pictures: Annotated[
        Path | None,
        typer.Option(
            help="Folder of pictures, new to it, on which the tiles' overlap and how sure a mask "
            "network may be are measured."
        ),
    ] = None,
    backbone: Annotated[
        Path | None, typer.Option(help="Weights that an adapter file was trained beside.")
    ] = None,
    sam: Sam = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make the model file that `restore` runs, and check it against the network. [lab]"""
    _lab("export")
    from dataclasses import replace

    from .card import ModelFile, survey_first
    from .engine import masks_of, open_engine
    from .image import read
    from .lab.degrade.folder import photographs
    from .lab.export import export as write_model
    from .lab.finished import opened, weights_at
    from .priors.choice import priors_of
    from .restoration import look

    if out.exists():
        raise OutputError(f"{out} is already there; remove it or choose another name.")
    restorer, card = opened(source, backbone)
    seen = None
    if pictures is not None:
        trained = ModelFile(weights_at(source), card, "")
        asked = priors_of(card, "auto", sam=sam, masks=masks_of(trained))
        first = survey_first(trained)
        ahead = open_engine(first) if first else None
        rgbs = [read(file).rgb() for file, _ in list(photographs(pictures))[:4]]
        seen = [(rgb, look(rgb, card, asked, ahead)) for rgb in rgbs]
    if pictures is not None and (emits := restorer.emits):
        from .lab.engine import TorchEngine
        from .lab.sureness import measure
        from .priors.damage import DamagePrior

        with _Bar("measuring", quiet or json) as bar:
            looks = DamagePrior(TorchEngine(restorer, replace(card, emits=emits)))
            card = replace(card, sureness=measure(looks, pictures, progress=bar.show))
    card = write_model(restorer, out, card, pictures=seen, source=source)
    if json:
        _json({"model": str(out), **_card(card)})
    elif not quiet:
        print(
            f"{_shown(out)}: {card.parameters / 1e6:.2f} M parameters, reach {card.reach}, overlap "
            f"{card.overlap}, equal to the network within 1e-5 at five sizes"
        )


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Shipped name or model file.")],
    gt: Annotated[Path, typer.Option(help="Folder of clean pictures.")],
    lq: Annotated[Path | None, typer.Option(help="Folder of damaged pictures.")] = None,
    spec: Annotated[
        str | None, typer.Option("--degrade", help="Damage the gt by this SPEC instead of --lq.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the damage.")] = 0,
    noise: Annotated[
        Literal["uint8", "float"], typer.Option(help="Rounded as in a file, or unclipped.")
    ] = "uint8",
    channels: Annotated[Literal["rgb", "y"], typer.Option(help="What is measured.")] = "rgb",
    crop: Annotated[int, typer.Option(min=0, help="Pixels left out at each edge.")] = 0,
    align: Annotated[int, typer.Option(min=0, help="Best shift within so many pixels.")] = 0,
    against: Annotated[
        str, typer.Option(help="Controls in the prior's place: null,constant,shuffled,oracle.")
    ] = "",
    prior: Prior = "auto",
    sam: Sam = None,
    tile: Annotated[str, typer.Option(help="auto, or the side of a tile in pixels.")] = "auto",
    engine: EngineName = "auto",
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure a model on pairs; every figure carries its protocol. [lab]"""
    _lab("evaluate")
    if (lq is None) == (spec is None):
        raise UsageError("evaluate takes pairs as --lq DIR, or makes them by --degrade SPEC.")
    from dataclasses import replace

    from .card import find
    from .engine import open_engine
    from .lab.datasets import degraded_pairs, folder_pairs
    from .lab.evaluate import engine_restorer, told_by_truth
    from .lab.evaluate import evaluate as measure
    from .lab.metrics import Protocol
    from .priors.choice import priors_of, settings_of, stand_ins

    found = find(_model(model))
    runner = open_engine(found, engine=engine, device=device)
    if lq is not None:
        pairs = folder_pairs(lq, gt, scale=found.card.scale)
    else:
        pairs = degraded_pairs(gt, str(spec), seed=seed, noise=noise, scale=found.card.scale)
    truth = told_by_truth(found.card)
    blind = replace(found.card, reads=tuple(r for r in found.card.reads if r.prior not in truth))
    asked = priors_of(blind, prior, sam=sam, device=device, masks=runner.masks)
    said = settings_of(asked)
    for note in (*pairs.announced, *stand_ins(blind, asked)):
        _warn(note)
    restorer, prior_of = engine_restorer(runner, tile=tile, priors=asked)
    with _Bar("evaluating", quiet or json) as bar:
        report = measure(
            restorer,
            pairs,
            Protocol(channels=channels, crop=crop, align=align),
            model={"name": found.card.name, "sha256": found.sha256, "engine": runner.name, **said},
            prior=prior_of,
            told=truth,
            against=[word for word in against.split(",") if word],
            progress=bar.show,
        )
    if json:
        _json(report.to_json())
    else:
        print(report)


@app.command()
def reproduce(
    system: Annotated[str, typer.Argument(help="Whose table: sam-deblur, spt or dakd.")],
    toy: Annotated[
        bool, typer.Option("--toy", help="Small networks, for two cores and an hour.")
    ] = False,
    data: Annotated[
        Path, typer.Option(help="The folder that the recipes' data folders lie in.")
    ] = Path(),
    sam: Sam = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of finished cells. [runs/reproduce/SYSTEM]")
    ] = None,
    budget: Annotated[float, typer.Option(min=0, help="Minutes to spend on this call.")] = 60,
    rows: Annotated[str, typer.Option(help="Only these rows: none,ours.")] = "",
    set: Annotated[
        list[str] | None, typer.Option("--set", help="Change every row: schedule.steps=100.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train and measure a paper's table with its controls; cells are kept. [lab]"""
    _lab("reproduce")
    from .lab.memory import keep_memory

    keep_memory()
    from .lab.reproduce import FULL, SYSTEMS, Bench, fill, looking_with, table

    if system not in SYSTEMS:
        raise UsageError(
            f"no table of {system!r}; there is {', '.join(SYSTEMS)}.{nearest(system, SYSTEMS)}"
        )
    if toy and sam is not None:
        raise UsageError("--toy looks with weight-free regions; leave --sam out.")
    if not toy and system not in FULL:
        raise UsageError(f"{system} has its toy table alone. Add --toy.")
    papers = SYSTEMS[system] if toy else FULL[system]
    runs = sum(paper.runs for paper in papers)
    tables: dict[str, str] = {}
    for paper in papers:
        bench = Bench(
            paper,
            data,
            (out or Path("runs/reproduce") / system) / paper.name,
            changes=set or [],
            prior=looking_with(sam) if sam else (),
            tell=(lambda _: None) if quiet or json else _note,
        )
        known = [row for row in rows.split(",") if row]
        fill(bench, budget=budget * paper.runs / runs, rows=known)
        tables[paper.name] = table(bench, known)
        if not json:
            print(tables[paper.name], end="\n\n")
    if json:
        _json(tables)


def _note(line: str) -> None:
    print(line, file=sys.stderr)


def main() -> None:
    """Run, and end with the contract's exit code; nobody sees a traceback without --debug."""
    arguments = sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file's name may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore
    sys.exit(_run(lambda: app(arguments, prog_name="relume", standalone_mode=False), arguments))


def _run(command: Callable[[], Any], arguments: list[str]) -> int:
    try:
        code = command() or 0
        if code != 130:
            return code
        message = "stopped."
    except KeyboardInterrupt:
        message, code = "stopped.", 130
    except Exception as error:
        if "--debug" in arguments:
            raise
        message, code = _explain(error)
    _warn(message)
    if "--json" in arguments:
        _json({"error": message, "exit_code": code})
    return code


def _explain(error: Exception) -> tuple[str, int]:
    """One line and the exit code for anything that can go wrong."""
    import errno

    if isinstance(error, RelumeError):
        return str(error), error.exit_code
    if isinstance(error, typer.Abort):
        return "stopped.", 130
    if hasattr(error, "format_message"):  # the parser's own: wrong flags and values
        ctx: Any = getattr(error, "ctx", None)
        said = str(error.format_message()).rstrip(".")  # pyright: ignore
        return f"{said}. See `{ctx.command_path} --help`." if ctx else f"{said}.", 2
    if isinstance(error, OSError):
        full = {errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG}
        return str(error), 3 if error.errno in full else 1
    return f"{type(error).__name__}: {error} (a bug; --debug shows where)", 1


def _tell(record: dict[str, Any]) -> None:
    """One result on stdout, what had to be announced on stderr."""
    if record["status"] == "restored":
        print(_shown(record["output"]))
    else:
        print(f"{_shown(record['output'] or record['input'])} ({_shown(record['message'])})")
    for words in record["announced"]:
        _warn(f"{record['output']}: {words}")


def _estimate(records: list[dict[str, Any]], engine: Any, asked: Any) -> dict[str, Any]:
    """Time and disk of what a dry run would do: one tile timed, files as large as they are."""
    from .restoration import seconds_per_pixel

    due = [r for r in records if r["status"] == "skipped" and r["pixels"] and not r["output"]]
    pixels = sum(r["pixels"] for r in due)
    return {
        "planned": len(due),
        "eta_s": round(pixels * seconds_per_pixel(engine, asked), 1) if pixels else 0.0,
        "bytes": sum(Path(r["input"]).stat().st_size for r in due) * engine.card.scale**2,
    }


class _Bar:
    """A progress bar with the time left, on stderr, where that is a terminal."""

    def __init__(self, what: str, silent: bool) -> None:
        self._what = what
        self._bar: Any = None
        self._task: Any = None
        self._silent = silent or not sys.stderr.isatty()

    def __enter__(self) -> "_Bar":
        return self

    def show(self, done: int, total: int, words: str = "") -> None:
        if self._silent:
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self._what)
            self._bar.start()
        self._bar.update(
            self._task, completed=done, total=total, description=f"{self._what} {words}"
        )

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _lab(command: str) -> None:
    if find_spec("torch") is None:
        raise MissingError(f"`relume {command}` needs the lab: pip install 'relume[lab]'")


def _model(name: str) -> str:
    if name in (MODEL, MASKS):
        from .card import names

        if name not in names():
            raise MissingError(
                f"the default model {name} is not in this installation: "
                "pip install --force-reinstall relume"
            )
    return name


def _card(card: Any) -> dict[str, Any]:
    from json import loads

    return loads(card.to_json())


def _flat(value: Any) -> str:
    from json import dumps

    return dumps(value, ensure_ascii=False)


def _json(document: Any) -> None:
    from json import dumps

    print(dumps(document, indent=1, default=str))


def _shown(name: object) -> str:
    """A file's name on one line, whatever it holds."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(name))


def _warn(message: str) -> None:
    print(f"relume: {_shown(' '.join(message.split()))}", file=sys.stderr)
