"""`relume compare`: where pictures of one scene differ, in decibels, on a page, in one strip."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Debug, Json, Limit, Quiet
from .outputs import check_free
from .program import app
from .said import plain, say_json


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

    check_free(html, png)
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
