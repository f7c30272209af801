"""`relume models`: the models that are here, the card of one; one fetched, a pickle converted."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import UsageError
from .options import Debug, Json, Quiet, need_lab
from .program import app
from .said import Bar, fields, flat, plain, say_json


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
