"""A job, run: the pictures in order, the next one decoded meanwhile, a report as it goes."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..errors import OutputError, UsageError
from ..image.picture import Picture
from .delivery import Delivery, make
from .job import Job, Outcome, Record, Restored
from .journal import Journal, swept
from .planning import Planned, is_file_out, plan
from .working import Begun, Fetched, Worker


def run(
    job: Job,
    restore: Callable[[Path, Picture], Restored],
    *,
    copy_input: bool = False,
    progress: Callable[[Record, int, int], None] | None = None,
) -> Outcome:
    """Restore every input; one bad file never stops the others.

    Args:
        job: What to do.
        restore: (path, picture) -> answer. A PictureError, CheckError or ShapeError refuses that
            one picture; other errors of relume's end the run.
        copy_input: Strength 0: outputs are the inputs' bytes, `restore` is not asked.
        progress: Called with each record, how many are done, and of how many.

    Returns:
        Exit code 0, 1 where an input was refused, 3 where an output could not be written.

    Raises:
        UsageError: The inputs and `out` do not fit together.
        OutputError: The output folder, the journal or the report cannot be written.
    """
    planned, ignored = plan(job, copy_input=copy_input)
    home = (job.out.parent if is_file_out(job) else job.out) / ".relume"
    records: list[Record] = []
    with contextlib.ExitStack() as stack:
        if not job.dry_run:
            make(home)
            folders = {p.target.parent for p in planned if p.target}
            stack.enter_context(swept(home, folders))
        report = stack.enter_context(_open_report(job)) if job.report else None
        journal = Journal(home / "journal.jsonl", job.settings)
        delivery = Delivery(journal, home)
        worker = Worker(job, restore, copy_input, journal, delivery)
        try:
            for record in _in_order(worker, planned, job.jobs):
                records.append(record)
                if report:
                    _say(report, record, job)
                if progress:
                    progress(record, len(records), len(planned))
        except BaseException:
            delivery.close(now=True)
            raise
        delivery.close()
    refused = any(record["status"] == "refused" for record in records)
    return Outcome(3 if worker.unwritable else int(refused), records, ignored)


def _in_order(worker: Worker, planned: Sequence[Planned], jobs: int) -> Iterator[Record]:
    if jobs <= 1:
        yield from _arrived(worker, map(worker.begin, _ahead(worker.fetch, planned)))
        return
    pool = ThreadPoolExecutor(jobs, "relume-job")
    try:
        begun = pool.map(lambda one: worker.begin(worker.fetch(one)), planned)
        yield from _arrived(worker, begun)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _ahead(fetch: Callable[[Planned], Fetched], planned: Sequence[Planned]) -> Iterator[Fetched]:
    """Each input fetched while the one before it is restored. A large picture lies in a file, so
    that one more costs little memory."""
    under_way = deque[Future[Fetched]]()
    for one in planned:
        under_way.append(_beside(fetch, one))
        if len(under_way) > 1:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _beside(fetch: Callable[[Planned], Fetched], one: Planned) -> Future[Fetched]:
    """In a thread that does not hold a stopped run up: it may wait for a decoder."""
    future = Future[Fetched]()

    def work() -> None:
        try:
            future.set_result(fetch(one))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="relume-fetch", daemon=True).start()
    return future


def _arrived(worker: Worker, begun: Iterable[Begun]) -> Iterator[Record]:
    """Records in order, each once its result has its name."""
    waiting = deque[Begun]()
    for one in begun:
        waiting.append(one)
        while waiting and waiting[0].done:
            yield worker.finish(waiting.popleft())
    while waiting:
        yield worker.finish(waiting.popleft())


def _open_report(job: Job) -> Any:
    path = Path(job.report or "")
    with contextlib.suppress(OSError):
        with path.open("rb") as file:
            head = file.read(1)
        if head not in (b"", b"{"):
            raise UsageError(f"{path}: there already, and no report; choose another --report.")
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}).") from error


def _say(report: Any, record: Record, job: Job) -> None:
    try:
        report.write(json.dumps(record) + "\n")
        report.flush()
    except OSError as error:
        raise OutputError(f"{job.report}: cannot be written ({error.strerror}).") from error
