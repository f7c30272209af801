"""One loop for every Objective. A stopped run continues by the same call, bit-equal on CPU.

Nothing here depends on what ran before but tensors that are in the checkpoint: a sample is a
function of its number, the learning rate of the step, and torch's generator is seeded at each step.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..errors import CheckError, OutputError, UsageError
from .data import Batch
from .weights import digest, write_tensors, write_whole


@dataclass(frozen=True)
class Schedule:
    """How long, how fast, on what crops.

    Args:
        steps: Optimiser steps in all.
        batch: Samples a step, over all processes.
        crop: Side of the crops in pixels.
        lr: Highest learning rate; cosine to `lr_last` after `warmup` steps of rising linearly.
        last_share: Share of the steps, at the end, on `last_batch` crops of `last_crop` pixels.
        clip: Largest norm of the gradient.
        ema: Decay of the averaged weights, which are what is validated and exported.
        precision: `bf16` autocasts, and repeats a step in float32 whose loss is not finite.
        save_every, validate_every, log_every: Steps between checkpoints, validations, log lines.
        keep: Checkpoints kept.
        best: Whether the finished weights are those of the validation that came out best, by the
            mean of its PSNRs, rather than the last.
    """

    steps: int
    batch: int = 16
    crop: int = 64
    lr: float = 1e-3
    lr_last: float = 1e-6
    warmup: int = 500
    betas: tuple[float, float] = (0.9, 0.9)
    weight_decay: float = 0.0
    last_share: float = 0.1
    last_crop: int = 128
    last_batch: int = 4
    clip: float = 1.0
    ema: float = 0.999
    precision: str = "bf16"
    save_every: int = 500
    validate_every: int = 2000
    log_every: int = 50
    keep: int = 2
    best: bool = False

    def lr_at(self, step: int) -> float:
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr_last + (self.lr - self.lr_last) * (1 + math.cos(math.pi * min(1, done))) / 2

    @property
    def turn(self) -> int:
        """The first step on the last crops."""
        return self.steps - int(self.steps * self.last_share)

    def samples_at(self, step: int, rank: int = 0, world: int = 1) -> tuple[int, int, int]:
        """Number of the first sample of a step, how many, and the side of their crops.

        Processes (`rank` of `world`) take equal shares of a step, one after the other.
        """
        early = min(step, self.turn) * self.batch
        first, count, crop = early, self.batch, self.crop
        if step >= self.turn:
            first, count, crop = (
                early + (step - self.turn) * self.last_batch,
                self.last_batch,
                self.last_crop,
            )
        share = count // world
        return first + rank * share, share, crop


class Ema:
    """The average of a model's weights over training: shadow += (1 - decay)(weights - shadow).

    The decay rises from 0 as (1 + t) / (10 + t), so that the random start is soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            kept = self.shadow[name]
            if kept.is_floating_point():
                kept.lerp_(value.to(kept.dtype), 1 - decay)
            else:
                kept.copy_(value)


def train(
    run: Path,
    *,
    model: nn.Module,
    objective: nn.Module,
    batches: Callable[[int, int, int], Batch],
    schedule: Schedule,
    header: Mapping[str, str],
    validate: Callable[[Mapping[str, Tensor], int], dict[str, float]] | None = None,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, Tensor]:
    """Train, or go on where the run in this folder stopped.

    Args:
        run: Folder of the run: `log.jsonl` and `checkpoints/` are written here.
        model: What is trained, and what `objective` calls.
        objective: (batch, model) -> (loss (N,), logs). Its own parameters train along.
        batches: (first sample's number, count, crop) -> Batch.
        schedule: See Schedule.
        header: Goes into each checkpoint's header; another header on disk is another run.
        validate: (averaged weights, step) -> figures in dB, logged; those whose names end with
            ` gain` repeat the others.
        progress: (step, figures) after each step.

    Returns:
        The averaged weights; with `schedule.best` as they were at the best validation.

    Raises:
        UsageError: The folder holds a run of another recipe, or the best is wanted of a run that
            nothing validates.
        CheckError: The loss was not finite in float32 either, ten steps in a row.
        OutputError: A checkpoint cannot be written; the one before stays.
    """
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    if schedule.best and validate is None:
        raise UsageError("schedule.best chooses by validation, and the recipe names none to do.")
    accelerator = Accelerator(mixed_precision="no")  # autocast is the step's: it may fall back
    world = accelerator.num_processes
    if schedule.batch % world or schedule.last_batch % world:
        raise UsageError(f"A batch of {schedule.batch} does not divide over {world} processes.")
    model = model.to(accelerator.device)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    objective = objective.to(accelerator.device)
    parameters = [p for p in (*model.parameters(), *objective.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters,
        lr=schedule.lr,
        betas=schedule.betas,
        weight_decay=schedule.weight_decay,
        fused=True,
    )
    ema = Ema(model, schedule.ema)
    state = _State(model, objective, ema, optimizer, parameters)
    checkpoints = run / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    start = state.restore(checkpoints, header)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    log = _Log(run / "log.jsonl", start)
    best = _Best(checkpoints / "best.safetensors", header, start) if schedule.best else None
    bad = 0
    for step in range(start, schedule.steps):
        ask = schedule.samples_at(step, accelerator.process_index, world)
        began = time.perf_counter()
        batch = batches(*ask)
        waited = time.perf_counter() - began
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr_at(step)
        set_seed(step)
        objective.begin(step, ema)  # type: ignore[operator]
        figures = _take(accelerator, optimizer, parameters, objective, wrapped, batch, schedule)
        if figures["finite"]:
            ema.update(model, step)
        bad = 0 if figures.pop("finite") else bad + 1
        if bad == 10:
            raise CheckError(
                f"The loss was not finite for ten steps before step {step}. Lower the learning "
                f"rate ({schedule.lr:g}); the last good checkpoint is kept."
            )
        done = step + 1
        last = done == schedule.steps
        if accelerator.is_main_process:
            log.add(ask[1] * world, time.perf_counter() - began, waited)
            if done % schedule.log_every == 0 or last:
                log.write(done, {**figures, "lr": schedule.lr_at(step), **log.rates()})
            # Before the checkpoint: a run that is cut in between validates again, and misses none.
            if validate and (done % schedule.validate_every == 0 or last):
                found = validate(ema.shadow, done)
                log.write(done, {"validation": found})
                if best:
                    best.see(ema.shadow, done, found)
            if done % schedule.save_every == 0 or last:
                state.save(checkpoints, done, header, schedule.keep)
        if progress:
            progress(done, figures)
    if best is None:
        return ema.shadow
    accelerator.wait_for_everyone()  # one process writes the best
    return best.weights()


class _Best:
    """The averaged weights of the best validation so far, on disk."""

    def __init__(self, path: Path, header: Mapping[str, str], start: int) -> None:
        self.path, self.header, self.score = path, dict(header), -math.inf
        if not start:  # what lies there is of a run that is begun anew
            path.unlink(missing_ok=True)
        if path.is_file():
            with safe_open(path, "pt") as file:
                self.score = float.fromhex(dict(file.metadata() or {})["score"])

    def see(self, weights: Mapping[str, Tensor], step: int, figures: Mapping[str, float]) -> None:
        """Keep these weights where they are better than all before."""
        scores = [value for name, value in figures.items() if not name.endswith(" gain")]
        score = sum(scores) / len(scores)
        if not score <= self.score:
            told = {**self.header, "step": str(step), "score": score.hex()}
            write_tensors(self.path, weights, told)
            self.score = score

    def weights(self) -> dict[str, Tensor]:
        with safe_open(self.path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _take(
    accelerator: Any,
    optimizer: Any,
    parameters: list[nn.Parameter],
    objective: nn.Module,
    model: nn.Module,
    batch: Batch,
    schedule: Schedule,
) -> dict[str, Any]:
    """One step. In bf16 first, where the schedule says so; in float32 if that is not finite."""
    batch = batch.to(accelerator.device)
    loss, logs, norm, finite = torch.zeros(1), {}, torch.zeros(1), False
    for bf16 in (True, False) if schedule.precision == "bf16" else (False,):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=bf16):
            loss, logs = objective(batch, model)
        accelerator.backward(loss.mean())
        for parameter in objective.parameters() if accelerator.num_processes > 1 else ():
            if parameter.grad is not None:  # the model's are shared on their way back
                parameter.grad = accelerator.reduce(parameter.grad, "mean")
        norm = accelerator.clip_grad_norm_(parameters, schedule.clip)
        if finite := bool(torch.isfinite(norm)) and bool(torch.isfinite(loss).all()):
            optimizer.step()
            break
    mean = float(loss.detach().mean())
    extra = {name: float(value.mean()) for name, value in logs.items()}
    return {"loss": mean, "loss_hex": mean.hex(), "norm": float(norm), "finite": finite, **extra}


class _Log:
    """log.jsonl. On going on, the lines of steps that will be run again are taken out first."""

    def __init__(self, path: Path, start: int) -> None:
        kept = [line for line in _lines(path) if line["step"] <= start]
        write_whole(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self.path = path
        self.images, self.seconds, self.waited = 0, 0.0, 0.0

    def add(self, images: int, seconds: float, waited: float) -> None:
        """Count one step: its images, how long it took, and how much of that was loading."""
        self.images += images
        self.seconds += seconds
        self.waited += waited

    def rates(self) -> dict[str, float]:
        """Since the last call: images a second, and the share of the time spent loading."""
        rates = {
            "images_per_s": self.images / self.seconds,
            "loading": self.waited / self.seconds,
        }
        self.images, self.seconds, self.waited = 0, 0.0, 0.0
        return rates

    def write(self, step: int, figures: Mapping[str, Any]) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **figures}) + "\n")
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be written: {error.strerror or error}. The same command goes "
                "on from the last checkpoint."
            ) from error


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a log; a last one that was cut is left out."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


class _State:
    """All that a run has to remember, as plain tensors under plain names."""

    def __init__(
        self,
        model: nn.Module,
        objective: nn.Module,
        ema: Ema,
        optimizer: torch.optim.Optimizer,
        parameters: list[nn.Parameter],
    ) -> None:
        self.model, self.objective, self.ema = model, objective, ema
        self.optimizer, self.parameters = optimizer, parameters

    def save(self, folder: Path, step: int, header: Mapping[str, str], keep: int) -> None:
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"objective.{k}": v for k, v in self.objective.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.shadow.items()}
        for index, parameter in enumerate(self.parameters):
            for name, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
        path = folder / f"step-{step:08d}.safetensors"
        told = {**header, "step": str(step), "tensors": digest(tensors)}
        write_tensors(path, tensors, told)
        for old in sorted(folder.glob("step-*.safetensors"))[:-keep]:
            old.unlink()
        for left in folder.glob(".step-*.part"):  # of processes that were killed
            left.unlink()

    def restore(self, folder: Path, header: Mapping[str, str]) -> int:
        """Load the newest whole checkpoint; the step it was written at, 0 where there is none."""
        for path in sorted(folder.glob("step-*.safetensors"), reverse=True):
            try:
                with safe_open(path, "pt") as file:
                    found = dict(file.metadata() or {})
                    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                step, whole = int(found.pop("step")), found.pop("tensors", None)
                if whole is not None and whole != digest(tensors):
                    raise OSError("its bytes are not those that were written")
            except (SafetensorError, OSError, KeyError, ValueError) as error:
                print(
                    f"relume: {path.name} is not whole ({error}); going on from the one before.",
                    file=sys.stderr,
                )
                continue
            if found != dict(header):
                raise UsageError(
                    f"{folder.parent} holds a run of another recipe. Give another --out, or the "
                    "recipe.toml of that folder."
                )
            self._load(tensors)
            return step
        return 0

    def _load(self, tensors: Mapping[str, Tensor]) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(part("model."))
        self.objective.load_state_dict(part("objective."))
        for name, value in part("ema.").items():
            self.ema.shadow[name].copy_(value)
        for key, value in part("optimizer.").items():
            index, name = key.split(".", 1)
            parameter = self.parameters[int(index)]
            kept = value if name == "step" else value.to(parameter.device)
            # Moments follow the parameter's memory order, or sums would round otherwise.
            if kept.ndim == 4 and parameter.is_contiguous(memory_format=torch.channels_last):
                kept = kept.contiguous(memory_format=torch.channels_last)
            self.optimizer.state[parameter][name] = kept
