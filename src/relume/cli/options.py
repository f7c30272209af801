"""What commands take: the flags they share, the default models, and what has to be installed."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import MissingError

MODEL, MASKS = "relume-s", "relume-damage"  # card.DEFAULT, card.MASKS; a test keeps them equal

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
Limit = Annotated[
    str,
    typer.Option(
        "--limits",
        help="What one picture may cost: input=200,output=1000 (megapixels),seconds=30,memory=3.",
    ),
]
Recursive = Annotated[
    bool, typer.Option("-r", "--recursive", help="Look into folders; mirror the tree.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace earlier outputs of relume's own.")
]


def need_lab(command: str) -> None:
    if find_spec("torch") is None:
        raise MissingError(f"`relume {command}` needs the lab: pip install 'relume[lab]'")


def installed(name: str) -> str:
    if name in (MODEL, MASKS):
        from ..card import names

        if name not in names():
            raise MissingError(
                f"the default model {name} is not in this installation: "
                "pip install --force-reinstall relume"
            )
    return name
