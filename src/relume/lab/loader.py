"""Batches made ahead, in a process of their own: synthesis runs beside the step, not before it.

A batch is a function of its first sample's number, so the order in which batches are made cannot
change them, and a run with a loader is bit-equal to one without.
"""

import contextlib
import multiprocessing
import os
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from ..errors import RelumeError
from .data import Batch
from .memory import keep_memory

BLAS = "OPENBLAS_NUM_THREADS"

Ask = tuple[int, int, int]
"""Number of the first sample, how many, side of the crop."""


class Loader:
    """Call it for a batch; it has the next ones made meanwhile.

    Args:
        build: Makes the source of batches; called once, in the other process. Picklable.
        arguments: Of `build`.
        following: The batch that will be asked for after one, or None after the last.
        ahead: Batches kept ready.

    Raises:
        RelumeError: What the source raised, when its batch is asked for.
    """

    def __init__(
        self,
        build: Callable[..., Callable[[int, int, int], Batch]],
        arguments: tuple[Any, ...],
        following: Callable[[Ask], Ask | None],
        *,
        ahead: int = 3,
    ) -> None:
        self.following, self.ahead = following, ahead
        self.asked: deque[Ask] = deque()
        # spawn, not fork: the parent's threads (OpenMP, libvips) do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, build, arguments), daemon=True)
        # One thread of numpy's algebra too, which reads this when it is loaded: more of them spin
        # on the cores that the step's threads need.
        before = os.environ.get(BLAS)
        os.environ[BLAS] = "1"
        try:
            self.process.start()
        finally:
            if before is None:
                del os.environ[BLAS]
            else:
                os.environ[BLAS] = before
        theirs.close()

    def __call__(self, first: int, count: int, crop: int) -> Batch:
        wanted = (first, count, crop)
        while self.asked and self.asked[0] != wanted:  # a jump: what was made ahead is not wanted
            self._receive()
        if not self.asked:
            self._ask(wanted)
        last = self.asked[-1]
        while len(self.asked) <= self.ahead and (then := self.following(last)):
            self._ask(then)
            last = then
        return self._receive()

    def _ask(self, batch: Ask) -> None:
        self.pipe.send(batch)
        self.asked.append(batch)

    def _receive(self) -> Batch:
        self.asked.popleft()
        try:
            answer = self.pipe.recv()
        except EOFError:
            raise RelumeError(
                "The process that makes training samples ended by itself; most often memory ran "
                "out. Use fewer data.sizes, or smaller photographs."
            ) from None
        if isinstance(answer, BaseException):
            raise answer
        lq, gt, second, *told = answer
        known, truth = (g.map(lambda guide: guide.map(torch.from_numpy)) for g in told)
        looks = {word: torch.from_numpy(look) for word, look in second.items()}
        return Batch(torch.from_numpy(lq), torch.from_numpy(gt), known, truth, looks)

    def close(self) -> None:
        self.pipe.close()
        self.process.join(5)
        self.process.kill()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _serve(
    pipe: Connection,
    build: Callable[..., Callable[[int, int, int], Batch]],
    arguments: tuple[Any, ...],
) -> None:
    keep_memory()
    torch.set_num_threads(1)
    os.nice(5)  # the step's threads wait for each other: nothing may come between them
    try:
        source = build(*arguments)
    except RelumeError as error:
        with contextlib.suppress(EOFError, OSError):  # nobody may be left to be told
            pipe.recv()
            pipe.send(error)
        return
    while True:
        try:
            asked = pipe.recv()
        except (EOFError, OSError, KeyboardInterrupt):  # the other end is gone
            return
        try:
            batch = source(*asked)
            # Arrays, not tensors: torch would open a file in shared memory for each.
            told = (
                g.map(lambda guide: guide.map(Tensor.numpy)) for g in (batch.guidance, batch.truth)
            )
            second = {word: look.numpy() for word, look in batch.second.items()}
            pipe.send((batch.lq.numpy(), batch.gt.numpy(), second, *told))
        except RelumeError as error:
            pipe.send(error)
        except OSError:  # the other end was killed while a batch was on its way
            return
