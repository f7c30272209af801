"""The demo: damaged copies of CC0 photographs, shipped with their clean originals, restored.

Each `NAME.damaged.jpg` was made from `NAME.jpg` with the lab (`tests/test_demo.py` makes it anew);
restoring and showing them needs the plain installation only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .. import page
from ..engine import Engine
from ..errors import OutputError
from ..image import read, write
from ..restoration import restore

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """One photograph of the demo: what was done to it before it was saved as JPEG of `quality`, and
    where to look."""

    name: str
    spec: str
    seed: int
    quality: int
    look: str

    @property
    def original(self) -> Path:
        return HERE / f"{self.name}.jpg"

    @property
    def damaged(self) -> Path:
        return HERE / f"{self.name}.damaged.jpg"


@dataclass(frozen=True)
class Shown:
    """What the demo made of one case; `before` and `after` are PSNR in dB by page.PROTOCOL."""

    case: Case
    output: Path
    before: float
    after: float
    seconds: float


def run(out: Path, engine: Engine, progress: Callable[[Shown], None] = lambda _: None) -> Path:
    """Restore every case into OUT (`damaged/`, `restored/`, `truth/`) and write OUT/index.html.

    An existing OUT is the demo's own and is written over, file by file.

    Returns:
        The page.

    Raises:
        OutputError: OUT cannot be written.
    """
    try:
        for folder in ("damaged", "restored", "truth"):
            (out / folder).mkdir(parents=True, exist_ok=True)
        return _run(out, engine, progress)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{out}: cannot write the demo there: {error.strerror}.") from None


def _run(out: Path, engine: Engine, progress: Callable[[Shown], None]) -> Path:
    cases = []
    for case in CASES:
        truth, damaged = read(case.original), read(case.damaged)
        name = case.original.name
        (out / "truth" / name).write_bytes(case.original.read_bytes())
        (out / "damaged" / name).write_bytes(case.damaged.read_bytes())
        result = restore(damaged, engine)
        target = out / "restored" / name
        target.unlink(missing_ok=True)
        write(result.picture, target)
        shown = page.Case(
            f"{case.name}: {case.spec}, saved at quality {case.quality}",
            [
                ("damaged", damaged.rgb()),
                ("restored", result.picture.rgb()),
                ("truth", truth.rgb()),
            ],
            reference=2,
            note=case.look,
        )
        before, after = (page.psnr(rgb, truth.rgb()) for _, rgb in shown.pictures[:2])
        cases.append(shown)
        progress(Shown(case, target, before, after, result.seconds))
    text = page.html(cases, title="relume demo", intro=INTRO, outro=OUTRO)
    (out / "index.html").write_text(text, encoding="utf-8")
    return out / "index.html"


INTRO = (
    "Four photographs under CC0, damaged by known physics with a known seed, restored by the model "
    "that ships with relume. Drag the white line; choose with the two menus what stands left and "
    "right of it. The truth is the photograph before the damage."
)
OUTRO = (
    "Try next: relume restore YOUR.jpg -o restored · relume compare YOUR.jpg restored/YOUR.jpg "
    "--html page.html · relume restore YOUR.jpg -o gentle --strength 0.5"
)
CASES = (
    Case(
        "budgie",
        "noise:sigma=25",
        1,
        60,
        "The feathers' fine bars should stay while the grain in the dark background goes.",
    ),
    Case(
        "lake",
        "haze:beta=0.5",
        2,
        90,
        "The far mountains and the colour of the sky come back; look for blotches in the sky.",
    ),
    Case(
        "osprey",
        "rain:density=0.004",
        3,
        90,
        "Streaks should go and pine needles stay: both are thin and bright.",
    ),
    Case(
        "spices",
        "lowlight:gain=0.25",
        4,
        90,
        "Brightness and colour come back; what noise has swallowed in the shadows does not. "
        "Saved at quality 85, which takes the noise away, it stays dark: it might be meant so.",
    ),
)
