"""The program that the commands join: its name, its help and its version."""

from typing import Annotated

import typer

app = typer.Typer(
    name="relume",
    help="Restore photographs.",
    add_completion=False,
    rich_markup_mode=None,  # rich's help costs 0.2 s, twice the rest
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from .. import __version__

        print(__version__)
    elif ctx.invoked_subcommand is None:
        print(ctx.get_help())
