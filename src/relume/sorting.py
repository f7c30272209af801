"""A folder sorted into piles, the worst first: rows, a table for spreadsheets, a page."""

from __future__ import annotations

import csv
import io
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from . import survey
from .batch import Job, Record
from .card import MASKS, QUALITY
from .diagnosis import Diagnosis, Finding, diagnose
from .image import Picture, preview
from .page import coded, frame
from .piles import LESSENED, NEAR, PILES, SLIGHT, pile, worst_first
from .priors.damage import DamagePrior
from .priors.quality import QualityPrior, shipped
from .restoration import MAP_ENDINGS
from .survey import Seen, Task

THUMBNAIL = 160
"""Longest side of a picture on the page, in pixels: about 4 kB of JPEG, 6 kB of page."""

COLUMNS = ("file", "pile", "tier", "margin", "difficulty", "damage", "why")
"""Of the table; they keep their names and their order, later ones are put behind them."""

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a spreadsheet takes for the beginning of a formula, or strips to find one behind it."""


def triage(
    inputs: Path | str | Sequence[Path | str],
    prior: DamagePrior | str | Path = MASKS,
    quality: QualityPrior | str | Path | None = QUALITY,
    *,
    recursive: bool = False,
) -> list[Record]:
    """Sort the pictures of a folder into piles, the worst first.

    How a pile is chosen: `piles.pile`; the order: `piles.worst_first`. One picture is in memory at
    a time.

    Args:
        inputs: A folder, or files and folders.
        prior: A mask network, by name or file, or opened.
        quality: A quality model in the same way; None asks none.
        recursive: Take folders with all that is below them.

    Returns:
        A row a picture, with the contract's fields: `input`, `pile`, `why`, `tier`, `tier_margin`,
        `difficulty`, `damage` and more. What cannot be read is on the pile `ask`, and `why` says
        the reason.

    Raises:
        UsageError, ModelError, MissingError: A model is none of its kind, or cannot be opened.
    """
    if isinstance(quality, (str, Path)):
        quality = shipped() if quality == QUALITY else QualityPrior(quality)
    looks = prior if isinstance(prior, DamagePrior) else DamagePrior(prior)
    given = [inputs] if isinstance(inputs, (str, Path)) else inputs
    job = Job([Path(one) for one in given], Path(), recursive=recursive)
    return rows(survey.run(job, task(looks, quality), writes=False).records)


def task(
    prior: DamagePrior,
    quality: QualityPrior | None = None,
    show: Callable[[Path, bytes], None] | None = None,
) -> Task:
    """What `survey.run` does with every picture.

    Args:
        prior: The mask network.
        quality: The quality model; None asks none.
        show: Takes each picture's thumbnail, a JPEG.
    """
    told = {kind: sure.told for kind, sure in prior.engine.card.sureness.items()}

    def look(source: Path, picture: Picture) -> Seen:
        found = diagnose(picture, prior, quality)
        if show:
            show(source, preview(picture, THUMBNAIL))
        announced, prior.engine.notes = prior.engine.notes, []
        return Seen(_placed(found, told), announced=announced)

    fields = ("pile", "why", "clean", "tier", "tier_margin", "difficulty", "damage")
    return Task(look, "sorted", dict.fromkeys(fields), lambda name: name.endswith(MAP_ENDINGS))


def _placed(found: Diagnosis, told: Mapping[str, float]) -> Record:
    name, why = pile(found, told)
    return {"pile": name, "why": why, **found.to_json()}


def rows(records: Sequence[Record]) -> list[Record]:
    """Records of `survey.run`, the worst first.

    What was refused is on the pile `ask`, with the reason; hidden files, which were skipped, have
    no row.
    """
    found = []
    for record in records:
        if record["status"] == "refused":
            why = str(record["message"]).removeprefix(f"{record['input']}: ")
            found.append({**record, "pile": "ask", "why": f"not looked at: {why}"})
        elif record["status"] != "skipped":
            found.append(record)
    return sorted(found, key=worst_first)


def counts(found: Sequence[Record]) -> dict[str, int]:
    """How many rows there are on each pile, the worst first."""
    return {name: sum(row["pile"] == name for row in found) for name in PILES}


# The table.


def table(found: Sequence[Record]) -> bytes:
    """Rows as CSV (RFC 4180): UTF-8, lines end in CRLF, one line of COLUMNS first.

    Damage is kind:severity:area, the worst first, parted by spaces. What is unknown is empty. Words
    are quoted, numbers are not. A spreadsheet runs what begins like a formula, so that no cell
    does: a file's name gets ./ before it, which is the same file still, other words an apostrophe;
    where cells are parted at semicolons instead, only the first may hold any. What is not UTF-8 in
    a name is written as \\udcNN.
    """
    out = io.StringIO(newline="")
    sheet = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\r\n")
    sheet.writerow(COLUMNS)
    for row in found:
        damage = [f"{d['kind']}:{d['severity']}:{d['area']}" for d in row["damage"] or ()]
        sheet.writerow(
            [
                _plain(row["input"], "./"),
                row["pile"],
                _plain(row["tier"] or "", "'"),
                row["tier_margin"],
                row["difficulty"],
                _plain(" ".join(damage), "'"),
                _plain(" ".join(row["why"].split()).replace(";", ","), "'"),
            ]
        )
    return out.getvalue().encode("utf-8", "backslashreplace")


def _plain(words: str, before: str) -> str:
    return before + words if words.startswith(FORMULA) else words


# The page.

REMARKS: Mapping[str, str] = {
    "ask": "a person should look",
    "hard": "the default model will leave most of it",
    "easy": "the default model mends most of it, or there is little to mend",
    "clean": "nothing to do",
}

INTRO = """What a mask network sees in each picture, sorted into four piles, the worst first. \
Severity and confidence lie between 0 and 1."""

OUTRO = f"""How the piles are chosen. Ask: the picture could not be read; or its quality tier \
contradicts what was found; or the worst finding is told with a confidence in the lowest \
{NEAR:.0%} above its threshold. Clean: nothing was found, and the tier is not low. Hard: \
scratches, dust, fading or another kind that the default model was not trained for; and where \
severity times area of {", ".join(sorted(LESSENED))} comes to {SLIGHT} or more, and to no less \
than that of the other kinds. Easy: the rest.

Within a pile the order is by difficulty, or where it is not known by severity times area of all \
that was found."""

STYLE = """:root { color-scheme: dark } a { color: #8cf } summary h2 { display: inline }
summary { margin: 1rem 0 } :focus-visible { outline: 2px solid #6af; outline-offset: 2px }
.piles { display: flex; flex-wrap: wrap; gap: .5rem 2rem; border: 0; padding: 0 }
.piles label { white-space: nowrap } .piles b { color: #fff }
.pile { display: grid; grid-template-columns: repeat(auto-fill, minmax(176px, 1fr)); gap: 1rem;
  list-style: none; margin: 0; padding: 0 }
.pile li { content-visibility: auto; contain-intrinsic-size: auto 260px; font-size: 13px;
  line-height: 1.35; overflow-wrap: anywhere; color: #bbb }
.pile img, .pile .none { display: block; width: 160px; height: 160px; object-fit: scale-down;
  background: #111; margin-bottom: .3rem } .pile .none { padding-top: 70px; height: 90px;
  text-align: center; color: #aaa } .pile b { color: #eee; font-weight: 600 }
.pile span { display: block }
"""
HIDES = "body:has(#show-{0}:not(:checked)) #{0} {{ display: none }}\n"


def page(
    found: Sequence[Record], thumbnails: Mapping[str, bytes], *, models: Sequence[str] = ()
) -> Iterator[bytes]:
    """The page in pieces, so that it is never in memory whole: about 6 kB a picture.

    Piles can be folded, and hidden by boxes at the top, without a line of script.

    Args:
        found: As `rows` gives them.
        thumbnails: `input` -> JPEG, of the rows that have one.
        models: What looked, for the last lines.
    """
    style = STYLE + "".join(HIDES.format(name) for name in PILES)
    looked = f"{OUTRO}\n\nLooked at by {' and '.join(models)}." if models else OUTRO
    before, after = frame(title="relume triage", intro=INTRO, outro=looked, style=style)
    yield coded(before)
    yield coded(_boxes(counts(found)))
    for name in PILES:
        here = [row for row in found if row["pile"] == name]
        opened = " open" if here else ""
        yield coded(
            f'<details{opened} id="{name}"><summary><h2>{name}</h2> {_pictures(len(here))}: '
            f'{REMARKS[name]}</summary><ul class="pile">'
        )
        for row in here:
            yield coded(_item(row, thumbnails.get(row["input"])))
        yield b"</ul></details>\n"
    yield coded(after)


def _pictures(count: int) -> str:
    return f"{count} picture{'' if count == 1 else 's'}"


def _boxes(number: Mapping[str, int]) -> str:
    boxes = "".join(
        f'<label><input type="checkbox" id="show-{name}" checked> <b>{name}</b> {count}</label>'
        for name, count in number.items()
    )
    return (
        f'<fieldset class="piles"><legend>{_pictures(sum(number.values()))}. Show</legend>'
        f"{boxes}</fieldset>\n"
    )


def _item(row: Record, thumbnail: bytes | None) -> str:
    name = escape(row["input"], quote=True)
    shown = '<span class="none">no picture</span>'
    if thumbnail is not None:
        data = b64encode(thumbnail).decode()
        shown = (
            f'<img loading="lazy" decoding="async" alt="{name}, small" '
            f'src="data:image/jpeg;base64,{data}">'
        )
    lines = [row["why"]]
    lines += [str(Finding(**one)) for one in row["damage"] or ()]
    if row["tier"] is not None:
        lead = "" if row["tier_margin"] is None else f" (margin {row['tier_margin']})"
        lines.append(f"quality {row['tier']}{lead}")
    if row["difficulty"] is not None:
        lines.append(f"difficulty {row['difficulty']}")
    said = "".join(f"<span>{escape(line)}</span>" for line in lines)
    return f"<li>{shown}<b>{name}</b>{said}</li>\n"
