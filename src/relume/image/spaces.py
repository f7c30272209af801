"""Colour spaces of files: CMYK, Lab and XYZ become sRGB; RGB and gray keep a profile that fits."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ..errors import PictureError
from .containers import Survey
from .libvips import pyvips, reason


def as_rgb_or_gray(
    image: Any, samples: np.ndarray, found: Survey, notes: list[str]
) -> tuple[np.ndarray, bool]:
    """CMYK and Lab become sRGB, through the file's own profile where it has one."""
    space = str(image.interpretation)
    if space not in _OTHER_SPACES:
        return samples, False
    image, _ = to_rgb_or_gray(image, _from_array(samples, space), found, notes)
    try:
        return image.numpy(), True
    except pyvips.Error as error:
        raise _not_rgb(space, error) from None


def to_rgb_or_gray(image: Any, samples: Any, found: Survey, notes: list[str]) -> tuple[Any, bool]:
    """The same of samples that libvips holds; `image` tells what they are."""
    space = str(image.interpretation)
    if space not in _OTHER_SPACES:
        return samples, False
    depth = 16 if image.format in ("ushort", "short", "float") else 8
    # Press black is not screen black: without compensation pictures come out gray.
    options: dict[str, Any] = {"depth": depth, "intent": "perceptual"}
    options["black_point_compensation"] = True
    try:
        if space == "cmyk":
            if found.icc and found.icc[16:20] == b"CMYK":
                samples = samples.copy()
                samples.set_type(pyvips.GValue.blob_type, "icc-profile-data", found.icc)
                samples = samples.icc_transform("srgb", embedded=True, **options)
                how = "through its profile"
            else:
                samples = samples.icc_transform("srgb", input_profile="cmyk", **options)
                how = "through a generic press profile"
        else:
            samples = samples.colourspace("rgb16" if depth == 16 else "srgb")
            how = "by CIE formulas"
    except pyvips.Error as error:
        raise _not_rgb(space, error) from None
    notes.append(f"{space.upper()} became sRGB {how}")
    return samples, True


def _not_rgb(space: str, error: pyvips.Error) -> PictureError:
    return PictureError(f"its {space.upper()} colours cannot become RGB ({reason(error)})")


def _from_array(samples: np.ndarray, space: str) -> Any:
    return pyvips.Image.new_from_array(samples, interpretation=space)


def fitting_profile(icc: bytes | None, channels: int, notes: list[str]) -> bytes | None:
    """The profile, where it is one and speaks of these channels; the notes say what is dropped."""
    if icc is None:
        return None
    sound = len(icc) >= 132 and icc[36:40] == b"acsp" and int.from_bytes(icc[:4], "big") <= len(icc)
    if not sound:
        notes.append("damaged ICC profile dropped")
        return None
    # A gray picture may carry the RGB profile of the camera that took it.
    if icc[16:20] not in ((b"GRAY", b"RGB ") if channels == 1 else (b"RGB ",)):
        told = re.sub(r"[^ -~]", "?", icc[16:20].decode("latin-1")).strip()
        notes.append(f"ICC profile dropped: it is for {told}, the picture is not")
        return None
    return icc


_OTHER_SPACES = ("cmyk", "lab", "labs", "labq", "xyz")
