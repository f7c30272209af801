"""Fault hooks under `relume restore`: values that are not finite, and memory that runs out.

    python benchmarks/faults.py [--seed 7] [--side 700]

Not finite: engines whose half precision gives NaN, Inf, -Inf or one NaN pixel, in the first tile,
one drawn from the seed, or all of them (OpenVINO in bf16 where there is one, torch in bf16). Every
tile is computed again in float32: where all were spoiled the picture equals the float32 run. Where
float32 is spoiled too, also in ONNX Runtime, the picture is refused, nothing is written and the
next one is restored. The control reads what the hook gave: it must hold what is not finite. The
share of time that the check takes is that of `engine.checked` on a tile of 448 x 448 in that of the
tile.

Memory: an engine that raises above N pixels a tile, N from 2^20 to 2^12 in powers of two: a network
that looks 3 pixels far goes on to the end, relume-s as far as its overlap lets it (tiles of 128);
the result is within 1e-5 of the reference or, with an overlap below the reach, half an 8-bit level.
Below that the file is refused and the next one is restored. Exit 1 where a case fails.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from relume import batch
from relume.card import Card, find
from relume.engine import OnnxEngine, checked, open_engine
from relume.errors import MissingError
from relume.guidance import Guidance
from relume.image import Picture, read, write
from relume.priors.choice import priors_of
from relume.restoration import Masks, for_files, look, restore

SPOILS = {"NaN": np.nan, "Inf": np.inf, "-Inf": -np.inf, "one NaN": np.nan}


def drawn(side: int, rng: np.random.Generator) -> Picture:
    y, x = np.mgrid[0:side, 0 : side * 5 // 4] / side
    waves = 0.5 + 0.3 * np.sin(12 * x) * np.cos(9 * y)
    planes = np.stack([waves, 0.2 + 0.6 * x / 1.25, 0.9 - 0.5 * y], 2)
    planes = planes + rng.normal(0, 0.02, planes.shape)
    return Picture(np.rint(np.clip(planes, 0, 1) * 255).astype(np.uint8))


def spoil(engine, what: str, where: set[int] | None, precisions: set[str]) -> list[int]:
    """Hook an engine's runs; the numbers of tiles that were spoiled join the list."""
    real, hit, tile = engine._run, list[int](), [-1]

    def wrong(out: np.ndarray) -> np.ndarray:
        out = np.array(out, np.float32)
        if what == "one NaN":
            out[0, 1, 3, 5] = np.nan
        else:
            out[:] = SPOILS[what]
        hit.append(tile[0])
        return out

    def run(*given):
        precision = given[-1] if isinstance(given[-1], str) else "float32"
        if precision == engine.precision:
            tile[0] += 1
        out = real(*given)
        if precision in precisions and (where is None or tile[0] in where):
            return wrong(out) if isinstance(out, np.ndarray) else [wrong(out[0])]
        return out

    engine._run = run
    return hit


def two(folder: Path, picture: Picture, engine) -> tuple[int, list[str], list[str]]:
    """Two files through a batch: exit code, what was said of each, and what lies in the folder."""
    (folder / "in").mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        write(picture, folder / "in" / name)
    out = Path(tempfile.mkdtemp(dir=folder))
    job = batch.Job([folder / "in"], out, settings={"model": engine.card.name})
    outcome = batch.run(job, for_files(engine, Masks()))
    names = sorted(p.name for p in out.iterdir() if p.is_file())
    said = [f"{r['status']}: {r['message'] or '; '.join(r['announced'])}" for r in outcome.records]
    return outcome.exit_code, said, names


class Short:
    """An engine with room for tiles of so many pixels."""

    def __init__(self, engine, most: int) -> None:
        self.engine, self.most, self.notes = engine, most, []
        self.name, self.device, self.precision = engine.name, engine.device, engine.precision
        self.card, self.first, self.masks = engine.card, engine.first, engine.masks

    def prepare(self, view, guidance):
        return self.engine.prepare(view, guidance)

    def __call__(self, tile, guidance):
        if tile.shape[2] * tile.shape[3] > self.most:
            raise MemoryError(f"no room for {tile.shape}")
        return self.engine(tile, guidance)


class Near:
    """A mean over 7 x 7 pixels, the simplest network that looks around."""

    name, device, precision, first, masks = "onnx", "cpu", "float32", None, None

    def __init__(self) -> None:
        self.card, self.notes = Card("near", reach=3, overlap=3, multiple_of=8), []

    def prepare(self, view, guidance):
        return guidance

    def __call__(self, tile, guidance):
        wide = np.pad(tile, ((0, 0), (0, 0), (3, 3), (3, 3)), mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(wide, (7, 7), axis=(2, 3))
        return windows.mean((-1, -2), dtype=np.float32)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--side", type=int, default=700)
    options = parser.parse_args()
    rng, failed = np.random.default_rng(options.seed), 0
    picture, model = drawn(options.side, rng), find("relume-s")
    print("| what | cases | held |\n|---|---|---|")

    def row(what: str, held: list[bool]) -> None:
        nonlocal failed
        failed += held.count(False)
        print(f"| {what} | {len(held)} | {sum(held)} |", flush=True)

    for name in ("openvino", "torch"):
        try:
            engines = {
                p: open_engine("relume-s", name, "cpu", None, p) for p in ("float32", "bf16")
            }
        except MissingError as error:
            print(f"| {name} | 0 | {error} |")
            continue
        right = restore(picture, engines["float32"]).picture.pixels
        half, held = restore(picture, engines["bf16"]).picture.pixels, list[bool]()
        for what in SPOILS:
            for where in (None, {0}, {int(rng.integers(1, 6))}):
                engine = open_engine("relume-s", name, "cpu", None, "bf16")
                hit = spoil(engine, what, where, {"bf16"})
                out = restore(picture, engine).picture.pixels
                near = np.abs(out.astype(int) - half.astype(int)).max() <= 3
                same = np.array_equal(out, right) if where is None else near
                again = bool(engine.notes) and engine.notes[0].startswith(f"{len(hit)} tiles")
                held.append(bool(hit) and same and again)
        row(f"{name}, bf16 spoiled: computed again in float32", held)
        with tempfile.TemporaryDirectory() as folder:
            engine = open_engine("relume-s", name, "cpu", None, "bf16")
            spoil(engine, "NaN", {1}, {"bf16", "float32"})
            code, said, names = two(Path(folder), picture, engine)
            refused = said[0].startswith("refused") and "not finite" in said[0]
            row(f"{name}, float32 too: refused", [code == 1 and refused and names == ["b.png"]])
    held = []
    for what in SPOILS:
        with tempfile.TemporaryDirectory() as folder:
            engine = OnnxEngine(model, device="cpu")
            spoil(engine, what, {2}, {"float32"})
            code, said, names = two(Path(folder), picture, engine)
            refused = said[0].startswith("refused") and "not finite" in said[0]
            held.append(code == 1 and refused and names == ["b.png"])
    row("onnx, float32 spoiled: refused, the next one restored", held)

    onnx = OnnxEngine(model, device="cpu")
    tile = picture.rgb()[..., :448, :448]
    known: Guidance = look(tile, onnx.card, priors_of(onnx.card))
    onnx(tile, known)
    began = time.process_time()
    out = onnx(tile, known)
    whole, began = time.process_time() - began, time.process_time()
    for _ in range(20):
        checked(onnx.card, tile, out)
    share = (time.process_time() - began) / 20 / whole
    row(f"the check takes {100 * share:.2f} % of a tile's time, at most 1", [share <= 0.01])

    for engine, least in ((Near(), 1 << 12), (onnx, 1 << 14)):
        reference = restore(picture, engine).picture.pixels.astype(int)
        held = []
        for power in range(20, 11, -1):
            with tempfile.TemporaryDirectory() as folder:
                code, said, names = two(Path(folder), picture, Short(engine, 1 << power))
                if 1 << power >= least:
                    after = read(next(Path(folder).glob("tmp*/a.png"))).pixels
                    apart = int(np.abs(after.astype(int) - reference).max())
                    told = "memory ran out" in said[0] or 1 << power >= 448 * 448
                    held.append(code == 0 and apart <= 1 and told and len(names) == 2)
                else:
                    held.append(code == 1 and "memory" in said[0] and not names)
        row(f"{engine.card.name}, room for 2^20 to 2^12 pixels a tile", held)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
