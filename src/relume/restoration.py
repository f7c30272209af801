"""A Picture in, a Picture out: priors, prepare, tiles, strength and map.

Decisions that need the whole picture (what the priors say, what the model prepares) are taken once,
before the first tile, so that they cannot depend on tiles.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from .card import DEFAULT, Card
from .engine import Engine, open_engine
from .errors import PictureError, ShapeError, UsageError
from .guidance import Guidance, Guide, area_resize
from .image import Picture, enlarge, is_image, read, resize_map
from .image.colours import Canvas, Colours, enlarged, hides, is_flat, is_neutral
from .image.limits import LIMITS, Limits
from .priors import Prior
from .priors.choice import priors_of, region_places, settings_of, stand_ins
from .priors.damage import ACTION, KINDS, UNKNOWN, DamagePrior
from .priors.own import OwnMasks, Told, files_digest, of_labels
from .priors.thumbnail import ThumbnailPrior
from .tiling import Plan, plan

BY_ROWS = (ThumbnailPrior, DamagePrior, Told)
"""Priors that do with rows of a picture; the others are given the whole of it."""

_ROWS = 512  # of a mask, that are looked at together

OVERLAY = ".overlay.png"
MAP_ENDINGS = (*(f".{kind}.png" for kind in KINDS), OVERLAY)
"""What `diagnose --maps` adds to a picture's name."""


@dataclass(frozen=True, eq=False)
class Restored:
    """What came of one picture.

    Attributes:
        picture: The result, in the input's depth, with its alpha, profile and metadata.
        unchanged: Nothing was asked for (strength 0, or a map that is 0 everywhere): a caller with
            a file copies its bytes instead of encoding `picture`.
        announced: One line for each thing that went otherwise than a person would expect.
        prior: Who told the model something, joined by "+" ("thumbnail+sam"), or "none".
        seconds: From pixels to pixels, without reading and writing files.
    """

    picture: Picture
    unchanged: bool
    announced: tuple[str, ...]
    prior: str
    seconds: float


def restore(
    picture: Picture | str | Path | np.ndarray,
    engine: Engine | str | Path = DEFAULT,
    *,
    strength: float = 1.0,
    map: Picture | str | Path | np.ndarray | None = None,
    prior: str | Mapping[str, Prior] = "auto",
    sam: str | Path | None = None,
    regions: np.ndarray | Guide | str | Path | None = None,
    tile: int | str = "auto",
    limits: Limits = LIMITS,
) -> Restored:
    """Restore one picture.

    Args:
        picture: A Picture, the path of an image file, or an array: (1, 3, H, W) or (H, W, 3) float
            RGB in [0, 1], or (H, W), (H, W, 1), (H, W, 3) uint8 or uint16.
        engine: An open engine (open one for many pictures), or a model's name or file.
        strength: 0 returns the input, 1 the model's answer, between them a mix, in [0, 1].
        map: Where to restore: (H, W) in [0, 1] or a gray picture of any size, white = restore.
        prior: "auto" asks the priors that the model reads; "none" tells the model nothing;
            else one of the model's priors, or "sam" in the place of its regions, the others null.
            Or the priors themselves by name, as `priors_of` makes them: SAM opens once for many
            pictures.
        sam: SAM's weights, a folder or a hub model's id, which is fetched where it is not on this
            machine: SAM looks in the place of the region prior.
        regions: Your own, in the place of the region prior: labels (H, W) int, 0 = none, a Guide of
            regions, or a path as `OwnMasks` takes it.
        tile: "auto", or the side of a tile in input pixels.
        limits: What the result may cost.

    Raises:
        UsageError: A value out of range, or a prior that the model does not read.
        ShapeError: An array that is not a picture, or not regions.
        PictureError: The file was refused, or its masks, or the result would be too large.
        MissingError, ModelError: What a prior needs: scikit-image, SAM's weights, the lab.
        CheckError: The model's answer is not finite; nothing can be written from it.
    """
    began = time.perf_counter()
    if not 0 <= strength <= 1:
        raise UsageError(f"strength must lie in 0..1, got {strength}.")
    shown = as_picture(picture)
    weight = as_map(map, shown.pixels.shape[:2]) if map is not None else None
    if isinstance(engine, (str, Path)):
        engine = open_engine(engine)
    card = engine.card
    check_restores(card)
    limits.check_output(shown.width * card.scale, shown.height * card.scale)
    asked = priors_of(card, prior, sam=sam, masks=engine.masks)
    places = region_places(card, asked) if regions is not None else []
    if strength == 0 or (weight is not None and not weight.any()):
        same = shown if card.scale == 1 else _enlarged(shown, card.scale)
        return Restored(same, card.scale == 1, (), "none", time.perf_counter() - began)

    announced: list[str] = []
    if regions is not None:
        source = Path(picture) if isinstance(picture, (str, Path)) else Path()
        told, announced = as_regions(regions, shown.pixels.shape[:2], source)
        asked |= dict.fromkeys(places, Told(told))
    # Who looks at neighbours must not see the colours that alpha hides.
    looks = card.reach or card.reads or card.support == "global"
    colours = Colours(shown, fill_hidden=bool(looks))
    hidden = shown.alpha if looks and hides(shown) else None
    scale, notes = card.scale, list[str]()
    # Of a scan without colour a network makes one with a cast, six levels of it in a gray ramp.
    canvas = Canvas(shown, scale, neutral=is_neutral(shown))
    height, width = len(canvas.pixels), canvas.pixels.shape[1]
    if weight is not None and scale > 1:
        weight = resize_map(weight, (height, width))
    for top, out in strips_of(colours, engine, asked, tile, notes):
        bottom = top + out.shape[2]
        rows = slice(top, bottom)
        if strength < 1 or weight is not None:
            before = enlarged(colours.rows, shown.height, scale, top, bottom)
            mix = np.float32(strength)
            if weight is not None:
                mix = strength * weight[rows]
            out = (before * (1 - mix) + out * mix).astype(np.float32, copy=False)
        canvas.put(top, out)
        if scale == 1:  # exact by construction, in any depth
            keep(canvas.pixels[rows], shown.pixels[rows], None if weight is None else weight[rows])
            keep(canvas.pixels[rows], shown.pixels[rows], None if hidden is None else hidden[rows])
    announced += [*stand_ins(card, asked), *notes]
    result = canvas.done()
    if canvas.flat and not is_flat(shown):
        announced.append("the result is one flat colour, which the picture is not: look at it")
    names = settings_of(asked)["prior"]
    return Restored(result, False, tuple(announced), names, time.perf_counter() - began)


def keep(pixels: np.ndarray, before: np.ndarray, weight: np.ndarray | None) -> None:
    """Pixels (h, w, C) become in place what they were where a weight (h, w) is not above 0."""
    if weight is not None and (kept := ~(weight > 0)).any():
        pixels[kept] = before[kept]


def check_restores(card: Card) -> None:
    """Raise UsageError where a model gives maps or numbers and no picture."""
    if not card.restores:
        says = "where a picture is damaged" if card.emits else "how good a picture is"
        raise UsageError(f"{card.name} says {says} and restores none; give another model.")


@dataclass(frozen=True)
class Masks:
    """Where to restore and what to leave alone: files, or folders of files with the inputs' names.

    Args:
        restore: White = restore. None = everything.
        protect: White = leave alone. None = nothing.
        reads: What decodes them: in this process, or apart.

    Raises:
        UsageError: A path where there is nothing.
    """

    restore: Path | None = None
    protect: Path | None = None
    reads: Callable[[Path], Picture] = read

    def __post_init__(self) -> None:
        for flag, path in (("--map", self.restore), ("--protect", self.protect)):
            if path is not None and not path.exists():
                raise UsageError(f"{flag} {path}: there is no such file or folder.")

    @property
    def digest(self) -> str | None:
        """sha256 over the masks' names and bytes; None where there are none."""
        paths = {"+": self.restore, "-": self.protect}
        found = [sign + files_digest(path) for sign, path in paths.items() if path is not None]
        return "".join(found) or None

    def of(self, source: Path, shape: tuple[int, ...]) -> np.ndarray | None:
        """The map of one input of the given (H, W): (H, W) float32 in [0, 1], or None.

        Raises:
            PictureError: The folder holds no mask of that name, or the mask cannot be read.
        """
        weight = None
        if self.restore is not None:
            weight = _weight_of(source, self.restore, "--map", shape, self.reads)
        if self.protect is not None:
            kept = 1 - _weight_of(source, self.protect, "--protect", shape, self.reads)
            weight = kept if weight is None else weight * kept
        return weight


@dataclass(frozen=True, eq=False)
class Answer:
    """What a batch writes for one file; picture None means the input's own bytes."""

    picture: Picture | None
    announced: tuple[str, ...]


def for_files(
    engine: Engine,
    masks: Masks,
    *,
    strength: float = 1.0,
    prior: str | Mapping[str, Prior] = "auto",
    regions: OwnMasks | None = None,
    tile: int | str = "auto",
    limits: Limits = LIMITS,
) -> Callable[[Path, Picture], Answer]:
    """`restore` as `batch.run` calls it, with the masks and the regions of each file.

    It may be called from several threads: they decode and encode side by side, and take turns at
    the engine, whose own threads fill the machine.
    """
    check_restores(engine.card)
    asked = priors_of(engine.card, prior, masks=engine.masks)
    turn = threading.Lock()

    def one(source: Path, picture: Picture) -> Answer:
        height, width = picture.pixels.shape[:2]
        weight = masks.of(source, (height, width))
        own, notes = regions.of(source, height, width) if regions else (None, [])
        with turn:
            result = restore(
                picture,
                engine,
                strength=strength,
                map=weight,
                prior=asked,
                regions=own,
                tile=tile,
                limits=limits,
            )
            announced = (*notes, *result.announced, *engine.notes)
            engine.notes = []
        return Answer(None if result.unchanged else result.picture, announced)

    return one


def run_model(
    rgb: np.ndarray, engine: Engine, priors: Mapping[str, Prior], tile: int | str = "auto"
) -> tuple[np.ndarray, list[str]]:
    """The model's answer for (1, 3, H, W) RGB in [0, 1], and what has to be announced.

    Args:
        priors: Those to ask, by name; the engine fills in null for what else the card reads.

    Raises:
        CheckError: The answer holds values that are not finite.
        PictureError: There is not the memory for the smallest tile.
    """
    announced: list[str] = []
    tiles, guidance = _planned(rgb, engine, priors, tile)
    out = tiles.run(rgb, guidance, engine, announce=announced.append)
    return out, announced


def strips_of(
    colours: Colours,
    engine: Engine,
    priors: Mapping[str, Prior],
    tile: int | str,
    announced: list[str],
) -> Iterator[tuple[int, np.ndarray]]:
    """The model's answer as `Plan.strips` gives it; what has to be announced joins `announced`.

    Raises:
        CheckError, PictureError: As `run_model`.
    """
    tiles, guidance = _planned(colours, engine, priors, tile)
    yield from tiles.strips(colours, guidance, engine, announce=announced.append)


def _planned(
    rgb: np.ndarray | Colours, engine: Engine, priors: Mapping[str, Prior], tile: int | str
) -> tuple[Plan, Guidance]:
    """The tiles, and what is known of the whole picture before the first of them."""
    card = engine.card
    guidance = look(rgb, card, priors, engine.first, tile)
    if card.prepared or card.view_side:
        guidance = engine.prepare(view_of(rgb, card.view_side), guidance)
    height, width = rgb.shape[-2:]
    tiles = plan(
        height,
        width,
        scale=card.scale,
        multiple_of=card.multiple_of,
        overlap=card.overlap,
        tile=tile_side(tile),
    )
    return tiles, guidance


def seconds_per_pixel(
    engine: Engine, priors: Mapping[str, Prior] | None = None, side: int = 256
) -> float:
    """Time that the engine takes for a pixel, from one tile after one that warms it up; with the
    model that runs first, and the mask network among the priors."""
    side -= side % engine.card.multiple_of
    tile = np.full((1, 3, side, side), 0.5, np.float32)
    engine(tile, Guidance())
    began = time.perf_counter()
    engine(tile, Guidance())
    own = (time.perf_counter() - began) / side**2
    with_it = [p.engine for p in (priors or {}).values() if isinstance(p, DamagePrior)]
    with_it += [engine.first] if engine.first else []
    return own + sum(seconds_per_pixel(other) for other in with_it)


def look(
    rgb: np.ndarray | Colours,
    card: Card,
    priors: Mapping[str, Prior],
    first: Engine | None = None,
    tile: int | str = "auto",
) -> Guidance:
    """What those of the priors that the card reads say of the whole picture.

    Args:
        first: The engine that runs before they look, in such tiles; they see its output.
    """
    # Who was told what to say looks at nothing.
    if first is not None and not all(isinstance(prior, Told) for prior in priors.values()):
        rgb = rgb if isinstance(rgb, np.ndarray) else rgb.whole()
        rgb, _ = run_model(rgb, first, priors_of(first.card, "auto", masks=first.masks), tile)
        rgb = np.clip(rgb, 0, 1)  # as in training, and as a file would hold it
    said: dict[str, Guide] = {}
    for prior in (r.prior for r in card.reads if r.prior in priors):
        if not isinstance(rgb, np.ndarray) and not isinstance(priors[prior], BY_ROWS):
            rgb = rgb.whole()
        said[prior] = priors[prior](rgb)  # pyright: ignore[reportArgumentType]
    return Guidance(said)


def tile_side(tile: int | str) -> int | Literal["auto"]:
    """ "auto", or the side of a tile in pixels, which may be written in words.

    Raises:
        UsageError: Neither.
    """
    if tile == "auto":
        return "auto"
    try:
        side = int(tile)
    except ValueError:
        side = 0
    if side < 1:
        raise UsageError(f"--tile takes auto or a number of pixels, got {tile!r}.")
    return side


def view_of(rgb: np.ndarray | Colours, side: int) -> np.ndarray:
    """The whole picture, no edge longer than `side`, by area means; `side` 0 leaves its size."""
    height, width = rgb.shape[-2:]
    longest = max(height, width)
    if side <= 0 or longest <= side:
        return rgb if isinstance(rgb, np.ndarray) else rgb.whole()
    shape = [max(1, round(edge * side / longest)) for edge in (height, width)]
    return area_resize(rgb, *shape)


def as_picture(picture: Picture | str | Path | np.ndarray) -> Picture:
    """A Picture from any form that `restore` takes.

    Raises:
        ShapeError: An array of another shape or type.
    """
    if isinstance(picture, Picture):
        return picture
    if isinstance(picture, (str, Path)):
        return read(Path(picture))
    array = np.asarray(picture)
    if array.ndim == 4 and array.shape[:2] == (1, 3) and np.issubdtype(array.dtype, np.floating):
        return Picture.from_rgb(array.astype(np.float32, copy=False))
    if array.ndim == 3 and array.shape[2] == 3 and np.issubdtype(array.dtype, np.floating):
        rgb = np.ascontiguousarray(array.transpose(2, 0, 1))[None]
        return Picture.from_rgb(rgb.astype(np.float32, copy=False))
    native = array[..., None] if array.ndim == 2 else array
    if native.ndim == 3 and native.shape[2] in (1, 3) and native.dtype in (np.uint8, np.uint16):
        return Picture(pixels=native, format="png")
    raise ShapeError(
        f"A picture is (1, 3, H, W) or (H, W, 3) float RGB in [0, 1], or (H, W[, 1 or 3]) uint8 or "
        f"uint16; got {tuple(array.shape)} {array.dtype}."
    )


def as_map(map: Picture | str | Path | np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(H, W) float32 in [0, 1] of the given shape: 1 = restore, 0 = leave alone.

    Raises:
        ShapeError: An array that is not (h, w), or values outside [0, 1].
    """
    if isinstance(map, (str, Path)):
        map = read(Path(map))
    if isinstance(map, Picture):
        weight = np.empty(map.pixels.shape[:2], np.float32)
        for top in range(0, map.height, _ROWS):
            rows = Colours(map).rows(top, min(map.height, top + _ROWS))
            weight[top : top + _ROWS] = rows[0].mean(0)
    else:
        weight = np.asarray(map, np.float32)
        if weight.ndim != 2 or not (weight.size and 0 <= weight.min() <= weight.max() <= 1):
            raise ShapeError(f"A map is (H, W) in [0, 1]; got shape {tuple(weight.shape)}.")
    if weight.shape != tuple(shape[:2]):
        weight = resize_map(weight, (shape[0], shape[1]))
    return np.clip(weight, 0, 1).astype(np.float32)


def as_regions(
    regions: np.ndarray | Guide | str | Path, shape: tuple[int, ...], source: Path = Path()
) -> tuple[Guide, list[str]]:
    """Regions of a picture of the given (H, W), from any form that `restore` takes, and what has to
    be announced.

    Args:
        source: The picture's file, whose name finds its masks in a folder.

    Raises:
        ShapeError: They are no label map.
        UsageError: There is nothing at the path.
        PictureError: What lies there cannot be read as masks.
    """
    height, width = shape[:2]
    if isinstance(regions, (str, Path)):
        return OwnMasks(regions, one=True).of(source, height, width)
    if not isinstance(regions, Guide):
        return of_labels(np.asarray(regions), height, width)
    if regions.kind != "regions" or regions.array.shape != (1, height, width):
        raise ShapeError(
            f"Regions of this picture are a Guide of regions (1, {height}, {width}), got "
            f"{regions.kind} {tuple(regions.array.shape)}."
        )
    return regions, []


def _weight_of(
    source: Path,
    masks: Path,
    flag: str,
    shape: tuple[int, ...],
    reads: Callable[[Path], Picture],
) -> np.ndarray:
    """The mask itself, or what a folder of masks holds for an input, (H, W) in [0, 1].

    That is a mask with the input's name, and of several the one that has the most of its path in
    its own; or what `diagnose --maps` wrote, where only the overlay says that nothing was found.
    """
    if not masks.is_dir():
        return as_map(reads(masks), shape)
    for depth in range(len(source.parts)):
        wanted = Path(*source.parts[depth:])
        folder = masks / wanted.parent if not wanted.is_absolute() else None
        if folder is None or not folder.is_dir():
            continue
        if (folder / wanted.name).is_file():
            return as_map(reads(folder / wanted.name), shape)
        alike = sorted(p for p in folder.iterdir() if p.stem == wanted.stem and is_image(p))
        if alike:
            return as_map(reads(alike[0]), shape)
        for name in (wanted.name, wanted.stem):
            found = {kind: folder / f"{name}.{kind}.png" for kind in KINDS}
            found = {kind: path for kind, path in found.items() if path.is_file()}
            # What `segment` writes has an overlay too, and says nothing of damage.
            segmented = (folder / f"{name}.regions.png").is_file()
            if found or ((folder / f"{name}{OVERLAY}").is_file() and not segmented):
                weight = np.zeros(shape[:2], np.float32)
                for kind, path in found.items():
                    np.maximum(weight, to_act(as_map(reads(path), shape), kind), out=weight)
                return weight
    raise PictureError(
        f"{source}: {masks} holds no mask called {source.name}; add it, or drop {flag}."
    )


def to_act(severity: np.ndarray, kind: str) -> np.ndarray:
    """The map for `restore` of a severity map: 1 from the action level on, 0 up to half of it.

    Between them it rises evenly, so that no edge shows.

    Args:
        severity: (H, W) in [0, 1], 1 = degraded.
        kind: Of damage.
    """
    return np.clip(severity / np.float32(ACTION.get(kind, UNKNOWN) / 2) - 1, 0, 1)


def _enlarged(picture: Picture, scale: int) -> Picture:
    return picture.with_rgb(enlarge(picture.rgb(fill_hidden=True), scale), scale)
