"""The commands of the lab: the command line's one door to it."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import OutputError, UsageError, nearest
from .options import Debug, Device, EngineName, Json, Prior, Quiet, Sam, installed, need_lab
from .program import app
from .said import Bar, fields, plain, say_json, warn


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
    need_lab("degrade")
    from ..lab.degrade.folder import degrade_folder

    with Bar("degrading", quiet or json) as bar:
        rows = degrade_folder(gt, out, spec, seed=seed, jobs=jobs, progress=bar.show)
    if json:
        say_json({"out": str(out), "spec": spec, "seed": seed, "rows": rows})
    elif not quiet:
        print(f"{plain(out)}: {len(rows)} pairs of {spec}, seed {seed}, in lq/ gt/ truth/")


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
    need_lab("train")
    from ..lab.memory import keep_memory

    keep_memory()  # before torch asks for any
    from ..lab.recipe import load
    from ..lab.runs import run_recipe

    chosen = load(recipe, set or [])
    folder = out or Path("runs") / chosen.name
    with Bar("training", quiet or json) as bar:
        total = chosen.build_schedule().steps

        def tell(step: int, figures: dict[str, float]) -> None:
            bar.show(step, total, f"loss {figures['loss']:.3f}")

        weights = run_recipe(chosen, folder, root=data, progress=tell)
    if json:
        say_json({"run": str(folder), "weights": str(weights), "recipe": chosen.digest})
    elif not quiet:
        print(plain(weights))


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
    need_lab("export")
    from dataclasses import replace

    from ..card import ModelFile, survey_first
    from ..engine import masks_of, open_engine
    from ..image import read
    from ..lab.degrade.folder import photographs
    from ..lab.export import export as write_model
    from ..lab.finished import opened, weights_at
    from ..priors.choice import priors_of
    from ..restoration import look

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
        from ..lab.engine import TorchEngine
        from ..lab.sureness import measure
        from ..priors.damage import DamagePrior

        with Bar("measuring", quiet or json) as bar:
            looks = DamagePrior(TorchEngine(restorer, replace(card, emits=emits)))
            card = replace(card, sureness=measure(looks, pictures, progress=bar.show))
    card = write_model(restorer, out, card, pictures=seen, source=source)
    if json:
        say_json({"model": str(out), **fields(card)})
    elif not quiet:
        print(
            f"{plain(out)}: {card.parameters / 1e6:.2f} M parameters, reach {card.reach}, overlap "
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
    need_lab("evaluate")
    if (lq is None) == (spec is None):
        raise UsageError("evaluate takes pairs as --lq DIR, or makes them by --degrade SPEC.")
    from dataclasses import replace

    from ..card import find
    from ..engine import open_engine
    from ..lab.datasets import degraded_pairs, folder_pairs
    from ..lab.evaluate import engine_restorer, told_by_truth
    from ..lab.evaluate import evaluate as measure
    from ..lab.metrics import Protocol
    from ..priors.choice import priors_of, settings_of, stand_ins

    found = find(installed(model))
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
        warn(note)
    restorer, prior_of = engine_restorer(runner, tile=tile, priors=asked)
    with Bar("evaluating", quiet or json) as bar:
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
        say_json(report.to_json())
    else:
        print(report)


@app.command()
def reproduce(
    system: Annotated[str, typer.Argument(help="dakd, perceive-ir, sam-deblur or spt.")],
    toy: Annotated[
        bool, typer.Option("--toy", help="Small networks, for two cores and an hour.")
    ] = False,
    data: Annotated[
        Path, typer.Option(help="The folder that the recipes' data folders lie in.")
    ] = Path(),
    sam: Sam = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="Where other networks' weights lie: clip=FOLDER, dino=FOLDER, vgg=FILE."),
    ] = None,
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
    need_lab("reproduce")
    from ..lab.memory import keep_memory

    keep_memory()
    from ..lab.reproduce import FULL, SYSTEMS, Bench, fill, located, looking_with, table

    if system not in SYSTEMS:
        raise UsageError(
            f"no table of {system!r}; there is {', '.join(SYSTEMS)}.{nearest(system, SYSTEMS)}"
        )
    if toy and sam is not None:
        raise UsageError("--toy looks with weight-free regions; leave --sam out.")
    if not toy and system not in FULL:
        raise UsageError(f"{system} has its toy table alone. Add --toy.")
    papers = SYSTEMS[system] if toy else FULL[system]
    where = located(papers, weights or [])
    runs = sum(paper.runs for paper in papers)
    tables: dict[str, str] = {}
    for paper in papers:
        bench = Bench(
            paper,
            data,
            (out or Path("runs/reproduce") / system) / paper.name,
            changes=set or [],
            prior=looking_with(sam) if sam else (),
            weights=where,
            tell=(lambda _: None) if quiet or json else _note,
        )
        known = [row for row in rows.split(",") if row]
        fill(bench, budget=budget * paper.runs / runs, rows=known)
        tables[paper.name] = table(bench, known)
        if not json:
            print(tables[paper.name], end="\n\n")
    if json:
        say_json(tables)


def _note(line: str) -> None:
    print(line, file=sys.stderr)
