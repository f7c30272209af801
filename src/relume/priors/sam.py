"""Segment Anything, everything in the picture: SAM, SAM-HQ and SAM 2 through transformers.

Here are the prior, its settings and its weights; `lab.sam` holds what runs them.

The one door of the priors to the lab: `lab.sam` and with it torch load inside a function, and only
when the cache does not know the picture.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import MissingError, ModelError, ShapeError, UsageError
from ..guidance import Guide, Kind
from .cache import Cache, key_of, masks_of, masks_to_arrays
from .masks import Masks

# How a model is shown a picture: fitted into a square and padded, or squeezed into it.
VIEWS = {"sam": "pad", "sam_hq": "pad", "sam2": "squeeze", "sam2_video": "squeeze"}
FILES = ("config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json")
LAB = "pip install 'relume[lab]'"
TOGETHER = "--prior sam and --sam FOLDER or HUB_ID go together."


@dataclass(frozen=True)
class Everything:
    """What is asked and what is kept. The defaults are those published with SAM.

    Args:
        grid: Points along each side of the picture.
        predicted_iou: A mask is kept above this (SAM 2's own generator takes 0.8).
        stability: And from this stability on: the IoU of the mask cut at `offset` above and below.
        offset: In logits.
        overlap: Box IoU above which the mask of lower predicted IoU is dropped.
    """

    grid: int = 32
    predicted_iou: float = 0.88
    stability: float = 0.95
    offset: float = 1.0
    overlap: float = 0.7


class SamPrior:
    """What Segment Anything sees in the whole picture.

    Args:
        source: Name of a model of the Hugging Face hub ("facebook/sam-vit-base"), or a folder that
            holds one: config.json and .safetensors. None can be made, but cannot look.
        gives: "regions", the masks painted from large to small, the background label 1; "layers",
            every mask; "tokens", a row of scores (predicted IoU, stability, share of the picture)
            for each label of the regions.
        max_side: Longest side, in pixels, at which masks are drawn; SAM itself looks at 1024.
        most: Masks at most, those of the largest area; 0 = all.
        network: Whether a hub model that is not on this machine may be fetched.
        device: "cpu", "gpu", or "auto" for a GPU where torch sees one.
        cache: Where masks are kept; by default the system's place for caches.
        grid, predicted_iou, stability, offset, overlap: As `Everything` has them.

    Attributes:
        calls: Pictures that the model itself has looked at.

    Raises:
        UsageError: Another `gives`, or a setting out of range.
    """

    spec: Kind = "regions"

    def __init__(
        self,
        source: str | Path | None = None,
        *,
        gives: Literal["regions", "layers", "tokens"] = "regions",
        max_side: int = 1024,
        most: int = 0,
        network: bool = False,
        device: str = "auto",
        cache: Cache | None = None,
        grid: int = 32,
        predicted_iou: float = 0.88,
        stability: float = 0.95,
        offset: float = 1.0,
        overlap: float = 0.7,
    ) -> None:
        if gives not in ("regions", "layers", "tokens"):
            raise UsageError(f"sam gives regions, layers or tokens, not {gives!r}.")
        if grid < 1 or max_side < 1 or most < 0:
            raise UsageError(
                f"sam needs a grid and a max_side of at least 1, got {grid} and {max_side}."
            )
        self.settings = Everything(grid, predicted_iou, stability, offset, overlap)
        self.source = source
        self.spec = gives
        self.max_side = max_side
        self.most = most
        self.network = network
        self.device = device
        self.cache = cache or Cache()
        self.calls = 0
        self._folder: Path | None = None
        self._identity: dict[str, Any] = {}
        self._model: Any = None

    def __call__(self, rgb: np.ndarray) -> Guide:
        """Segment one whole picture.

        Args:
            rgb: (1, 3, H, W) float32 RGB in [0, 1].

        Returns:
            Guide of the kind asked for, at the picture's own size.

        Raises:
            ShapeError: `rgb` is not one picture.
            MissingError: The lab, the weights, or the network to fetch them, are missing.
            ModelError: The weights were refused.
        """
        masks = self.masks(rgb)
        if self.most:
            masks = masks.best(self.most)
        return masks.guide(self.spec, *rgb.shape[2:])

    def masks(self, rgb: np.ndarray) -> Masks:
        """All masks, of falling predicted IoU, no larger than `max_side`; raises as a call does."""
        if rgb.ndim != 4 or rgb.shape[:2] != (1, 3):
            raise ShapeError(f"rgb must be (1, 3, H, W) float32 in [0, 1], got {rgb.shape}.")
        key = key_of(rgb, self.identity)
        stored = self.cache.get(key)
        if stored is not None:
            return masks_of(stored)
        if importlib.util.find_spec("torch") is None:
            raise MissingError(f"SAM needs the lab: {LAB}.")
        from ..lab.sam import open_sam, segment_everything

        if self._model is None:
            self._model = open_sam(self.folder, self.device, name=str(self.source))
        self.calls += 1
        masks = segment_everything(
            self._model, rgb, self.settings, max_side=self.max_side, provenance=self.identity
        )
        self.cache.put(key, masks_to_arrays(masks))
        return masks

    @property
    def folder(self) -> Path:
        """The folder of the weights; a hub model is fetched here, where that is allowed."""
        if self._folder is None:
            self._folder = find_weights(self.source, network=self.network)
        return self._folder

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the masks, as JSON; where the weights lie does not."""
        if not self._identity:
            digest = weights_digest(self.folder, self.cache)
            self._identity = {"prior": "sam", "weights": digest, "max_side": self.max_side}
            self._identity |= vars(self.settings)
        return self._identity


# The weights.


def find_weights(source: str | Path | None, *, network: bool = False) -> Path:
    """The folder of a model, whole: every file that its index names is there, at its full length.

    Raises:
        MissingError: There is none, or a part of it; the line says what to do.
        ModelError: It is no model that is known here, or its weights may hold code.
    """
    if source is None:
        raise MissingError(
            "SAM's weights are not part of relume: give --sam FOLDER or HUB_ID, such as "
            "facebook/sam-vit-base."
        )
    folder = Path(source).expanduser()
    if folder.is_dir():
        check_folder(folder, str(source))
        return folder
    name = str(source)
    # "weights/sam" is a mistyped path where there is a folder called weights.
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name[0] in ".~" or folder.parent.is_dir():
        raise MissingError(
            f"{name}: there is no such folder. --sam takes one, or a hub model's id."
        )
    return _from_hub(name, network)


def _from_hub(name: str, network: bool) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingError(f"Models of the hub need the lab: {LAB}.") from None
    why = "it is not on this machine"
    for local in (True, False) if network else (True,):
        try:
            found = snapshot_download(name, allow_patterns=list(FILES), local_files_only=local)
        except Exception as error:  # of whatever the hub's client speaks through
            why = why if local else f"the hub did not give it ({type(error).__name__})"
            continue
        try:
            check_folder(Path(found), name)
            return Path(found)
        except MissingError as error:
            why = str(error).removeprefix(f"{name}: ").rstrip(".")
    mend = "check its name and the network" if network else f"--sam {name} fetches it"
    raise MissingError(f"{name}: {why}; {mend}, or give a folder.")


def check_folder(folder: Path, name: str) -> str:
    """The model's type, where the folder holds a whole one; only lengths are read, no weights.

    Raises:
        MissingError, ModelError: As `find_weights`.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = config.get("model_type")
    except (OSError, ValueError, AttributeError):
        raise MissingError(
            f"{name}: it holds no config.json that can be read; fetch it anew."
        ) from None
    if kind not in VIEWS:
        raise ModelError(f"{name}: a model of type {kind!r}; relume runs {', '.join(VIEWS)}.")
    missing = [file.name for file in weight_files(folder) if not _whole(file)]
    if missing:
        raise MissingError(f"{name}: {missing[0]} is not there in full; fetch it anew.")
    if not weight_files(folder):
        if any(p.suffix in (".bin", ".pt", ".pth") for p in folder.iterdir()):
            raise ModelError(f"{name}: its weights may hold code; relume opens .safetensors only.")
        raise MissingError(f"{name}: it holds no model.safetensors; fetch it anew.")
    return kind


def weight_files(folder: Path) -> list[Path]:
    """model.safetensors, or the parts that its index names; [] where there is neither."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
            parts = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            return [folder / Path(part).name for part in sorted(set(parts))]
    single = folder / "model.safetensors"
    return [single] if single.is_file() else []


def _whole(file: Path) -> bool:
    """Whether a .safetensors file is as long as its header says (the format's own section)."""
    try:
        with file.open("rb") as stored:
            length = int.from_bytes(stored.read(8), "little")
            header = json.loads(stored.read(min(length, 100 << 20)))
        last = max(v["data_offsets"][1] for k, v in header.items() if k != "__metadata__")
        return file.stat().st_size == 8 + length + last
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def weights_digest(folder: Path, cache: Cache) -> str:
    """sha256 over the settings and weights of a model, remembered by the files' sizes and times."""
    files = sorted({*weight_files(folder), *folder.glob("*config.json")})
    stats = [(file, file.stat()) for file in files]
    looks = [[str(f.resolve()), s.st_size, s.st_mtime_ns] for f, s in stats]
    key = key_of(np.zeros(0), {"digest_of": looks})
    known = cache.get(key)
    if known is not None:
        return str(known["sha256"])
    whole = hashlib.sha256()
    for file in files:
        with file.open("rb") as stored:
            whole.update(file.name.encode() + hashlib.file_digest(stored, "sha256").digest())
    digest = whole.hexdigest()
    cache.put(key, {"sha256": np.array(digest)})
    return digest
