"""What commands say: results on stdout, warnings and a progress bar on stderr, JSON."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def say_survey(outcome: Any, status: str, settings: dict[str, Any], **more: Any) -> None:
    """What became of a job that looks at pictures, in JSON; `status` is of those it looked at, and
    `more` stands in the place of fields, or behind them."""
    document = {name: outcome.count(name) for name in (status, "skipped", "refused")}
    document |= {"ignored": outcome.ignored, "exit_code": outcome.exit_code}
    say_json({**document, "settings": settings, "rows": outcome.records, **more})


def say_restored(record: dict[str, Any]) -> None:
    """One result on stdout, what had to be announced on stderr."""
    if record["status"] == "restored":
        print(plain(record["output"]))
    else:
        print(f"{plain(record['output'] or record['input'])} ({plain(record['message'])})")
    for words in record["announced"]:
        warn(f"{record['output']}: {words}")


def estimate(records: list[dict[str, Any]], out: Path, engine: Any, asked: Any) -> dict[str, Any]:
    """Time and disk of what a dry run would do: one tile timed, a few pictures read and encoded."""
    from ..batch.forecast import forecast
    from ..restoration import seconds_per_pixel

    told = forecast(records, out, engine.card.scale)
    model = told.pixels * seconds_per_pixel(engine, asked) if told.pixels else 0.0
    due = [r for r in records if r["status"] == "skipped" and r["pixels"] and not r["output"]]
    return {
        "planned": len(due),
        "eta_s": round(model + told.seconds, 1),
        "bytes": told.bytes,
        "free": told.free,
    }


class Bar:
    """A progress bar with the time left, on stderr, where that is a terminal.

    What was done by an earlier run does not count: it takes no time, and would promise too little
    for the rest.
    """

    def __init__(self, what: str, silent: bool) -> None:
        self._what = what
        self._bar: Any = None
        self._task: Any = None
        self._silent = silent or not sys.stderr.isatty()

    def __enter__(self) -> "Bar":
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


def teller(
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


def fields(card: Any) -> dict[str, Any]:
    from json import loads

    return loads(card.to_json())


def flat(value: Any) -> str:
    from json import dumps

    return dumps(value, ensure_ascii=False)


def say_json(document: Any) -> None:
    from json import dumps

    print(dumps(document, indent=1, default=str))


def plain(name: object) -> str:
    """A file's name on one line, whatever it holds."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(name))


def warn(message: str) -> None:
    print(f"relume: {plain(' '.join(message.split()))}", file=sys.stderr)
