"""A folder of good photographs made a folder of pairs, with the truth: `relume degrade`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ...errors import OutputError, UsageError
from ...image import Picture, is_image, read, write, write_gray16
from ...priors.regions import regions
from .chain import Chain, Degraded, Finish
from .damage import generator
from .spec import parse

PARAMS = "params.jsonl"


def damage_file(path: Path, chain: Chain, seed: int, index: int, finish: Finish) -> Degraded:
    """One photograph damaged: picture `index` under `seed`, whatever else is in its folder.

    Raises:
        PictureError: The file was refused.
    """
    gt = read(path).rgb()
    labels = regions(gt).regions[0] if chain.follows_regions else None
    sampled = chain.sample(generator(seed, index), gt.shape[-2:], labels)
    return chain.apply(gt[0], sampled, finish=finish)


def degrade_folder(
    gt: Path,
    out: Path,
    spec: str,
    *,
    seed: int = 0,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Write `lq/`, `gt/`, `truth/` and `params.jsonl` below `out`.

    Pictures are 8-bit RGB PNG below their own relative paths. `truth/NAME.KIND.png` is the severity
    of one kind in 16 bits of gray, 1 = 65535; labels are written as they are.

    Args:
        gt: One photograph, or a folder of them with all that is below it.
        out: New, empty, or of an earlier run: its files are replaced then.
        spec: What is done, in people's units.
        seed: The picture with index i of the sorted relative paths is drawn from (seed, i), so the
            same seed gives the same bytes, whatever `jobs`.
        jobs: Pictures at a time.
        progress: Called with (done, all).

    Returns:
        The lines of params.jsonl: image, index, seed, spec, params (what was drawn).

    Raises:
        RecipeError: The SPEC cannot be read.
        UsageError: There is no image, or `out` holds something else.
        PictureError: A photograph was refused.
        OutputError: `out` cannot be written.
    """
    chain = parse(spec)
    found = photographs(gt)
    names = _png_names([relative for _, relative in found])
    try:
        if out.exists() and not (out / PARAMS).exists() and any(out.iterdir()):
            raise UsageError(f"{out} holds other files; give a new folder for the pairs.")
        (out / "truth").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}.") from None

    def one(index: int) -> dict[str, Any]:
        path, relative = found[index]
        made = damage_file(path, chain, seed, index, "uint8")
        _write_pair(out, names[index], made)
        params = {"image": names[index].as_posix(), "source": relative.as_posix(), "index": index}
        return {**params, "seed": seed, "spec": spec, "params": made.params}

    rows: list[dict[str, Any]] = []
    with ThreadPoolExecutor(jobs) as pool:
        for row in pool.map(one, range(len(found))):
            rows.append(row)
            if progress:
                progress(len(rows), len(found))
    try:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (out / PARAMS).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{out / PARAMS} cannot be written: {error.strerror}.") from None
    return rows


def photographs(gt: Path) -> list[tuple[Path, Path]]:
    """(path, path relative to the folder) of one file, or of every image below a folder, sorted.

    Raises:
        UsageError: There is none.
    """
    if gt.is_file():
        return [(gt, Path(gt.name))]
    if not gt.is_dir():
        raise UsageError(f"{gt}: there is no such file or folder.")
    found = [(path, path.relative_to(gt)) for path in gt.rglob("*") if path.is_file()]
    shown = [
        (p, r) for p, r in found if not any(n.startswith(".") for n in r.parts) and is_image(p)
    ]
    if not shown:
        raise UsageError(f"There are no images in {gt}.")
    return sorted(shown, key=lambda pair: pair[1].as_posix())


def _png_names(names: list[Path]) -> list[Path]:
    """a.jpg -> a.png; where there is an a.tif too, both keep their suffix inside the name."""
    short = [name.with_suffix(".png") for name in names]
    return [
        s if short.count(s) == 1 else name.with_name(f"{name.name}.png")
        for name, s in zip(names, short, strict=True)
    ]


def _write_pair(out: Path, name: Path, made: Degraded) -> None:
    for folder, rgb in (("lq", made.lq), ("gt", made.gt)):
        path = out / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(Picture.from_rgb(rgb), path)
    for kind, array in _maps(made):
        path = out / "truth" / name.with_name(f"{name.stem}.{kind}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_gray16(array, path)


def _maps(made: Degraded) -> Iterator[tuple[str, Any]]:
    for prior, guide in made.truth.items():
        if guide.kind == "regions":
            yield prior, guide.array[0]
        elif guide.kind == "maps":
            for name, array in zip(guide.names or (prior,), guide.array[0], strict=True):
                yield name.removeprefix("damage."), array
