"""One photograph in memory: pixels in native depth, and all that its file said about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import CheckError, ShapeError
from .resize import enlarge


@dataclass(frozen=True, eq=False)
class Picture:
    """One file's picture, as shown: its orientation is already applied.

    Attributes:
        pixels: (H, W, C), C = 1 gray or 3 RGB; uint8 or uint16 over their full range, or float32
            with 1 = white (values outside [0, 1] are kept).
        alpha: (H, W) of the same kind, straight (not premultiplied), or None.
        format: "jpeg", "png", "tiff", "webp", "gif", "avif" or "heif": what the file was.
        icc: The profile, byte for byte; None means sRGB, or gray with sRGB's curve.
        exif: The TIFF structure that follows "Exif\\0\\0", as read (the writer resets orientation).
        xmp: The packet.
        iptc: Photoshop image resources ("8BIM" blocks), among which IPTC is one.
        dpi: Pixels per inch, (horizontal, vertical).
        orientation: The tag as read, 1 to 8.
        frames: How many pictures the file holds; this is the first.
        quality: 1-100, the estimated quality of a lossy file; None where it was lossless.
        subsampling: "4:4:4", "4:2:2", "4:2:0" ... of a JPEG.
        bits: Bits per sample in the file: 1, 2, 4, 8, 10, 12, 16 or 32.
        notes: What reading could not keep, each one line, to be announced.
        carried: Pieces of the container that only its own format can hold, (kind, bytes): PNG's
            text and colour chunks, JPEG's comments. Written back as they are.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    format: str = "png"
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: tuple[float, float] | None = None
    orientation: int = 1
    frames: int = 1
    quality: int | None = None
    subsampling: str | None = None
    bits: int = 8
    notes: tuple[str, ...] = ()
    carried: tuple[tuple[str, bytes], ...] = ()

    def __post_init__(self) -> None:
        shape, kind = self.pixels.shape, self.pixels.dtype
        if self.pixels.ndim != 3 or shape[2] not in (1, 3) or kind not in _PEAKS:
            raise ShapeError(
                f"pixels must be (H, W, 1 or 3) uint8, uint16 or float32, got {shape} {kind}."
            )
        if self.alpha is not None and (self.alpha.shape != shape[:2] or self.alpha.dtype != kind):
            raise ShapeError(
                f"alpha must be {shape[:2]} {kind} as the pixels are, got "
                f"{self.alpha.shape} {self.alpha.dtype}."
            )

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def gray(self) -> bool:
        return self.pixels.shape[2] == 1

    @property
    def peak(self) -> int:
        """The sample value of white: 255, 65535, or 1 for float."""
        return _PEAKS[self.pixels.dtype]

    @property
    def hidden(self) -> np.ndarray | None:
        """(H, W) bool, where alpha is 0 and no colour shows; None where all of it does, or none."""
        if self.alpha is None:
            return None
        hidden = ~(self.alpha > 0)
        return hidden if hidden.any() and not hidden.all() else None

    def rgb(self, *, fill_hidden: bool = False) -> np.ndarray:
        """(1, 3, H, W) float32 in [0, 1]; gray is spread to three equal channels.

        Args:
            fill_hidden: Give the pixels of alpha 0 the colours of what shows around them. Their own
                are often black or left over from an editor, and whoever looks at neighbours, as
                networks do, carries them across the outline.
        """
        out = planes(self.pixels, self.peak)
        if fill_hidden and self.alpha is not None and self.hidden is not None:
            fill(out, np.clip(self.alpha.astype(np.float32) / self.peak, 0, 1))
        return out[None]

    def with_rgb(self, rgb: np.ndarray, scale: int = 1) -> Picture:
        """This picture with new colours, in its own depth; gray stays gray, alpha follows.

        What a float picture holds beyond [0, 1] passes around the change, so that `rgb()` put
        back gives the same samples, bit for bit.

        Args:
            rgb: (1, 3, scale H, scale W) float, clipped to [0, 1] here.
            scale: 1, or the whole factor by which `rgb` is larger.

        Raises:
            ShapeError: The shape is another one.
            CheckError: A value is not finite; a NaN is never written.
        """
        from .colours import Canvas

        wanted = (1, 3, self.height * scale, self.width * scale)
        if rgb.shape != wanted:
            raise ShapeError(f"rgb must be {wanted}, got {rgb.shape}.")
        canvas = Canvas(self, scale)
        canvas.put(0, rgb)
        return canvas.done()

    @staticmethod
    def from_rgb(rgb: np.ndarray, format: str = "png", bits: int = 8) -> Picture:
        """A picture that was never a file, from (1, 3, H, W) or (3, H, W) float in [0, 1].

        Args:
            rgb: Clipped to [0, 1].
            format: What `write` makes of it where no suffix says otherwise.
            bits: 8, 16, or 32 for float.

        Raises:
            ShapeError: Another shape, or other bits.
            CheckError: A value is not finite.
        """
        planes = rgb[0] if rgb.ndim == 4 else rgb
        if rgb.ndim not in (3, 4) or planes.shape[0] != 3 or (rgb.ndim == 4 and len(rgb) != 1):
            raise ShapeError(f"rgb must be (1, 3, H, W) or (3, H, W), got {rgb.shape}.")
        kinds = {8: np.uint8, 16: np.uint16, 32: np.float32}
        if bits not in kinds:
            raise ShapeError(f"bits must be 8, 16 or 32, got {bits}.")
        if not np.isfinite(planes).all():
            raise CheckError("The picture holds values that are not finite; not written.")
        kind = np.dtype(kinds[bits])
        pixels = native(planes, _PEAKS[kind], kind)
        return Picture(pixels, format=format, bits=bits)


def planes(pixels: np.ndarray, peak: int) -> np.ndarray:
    """Samples (h, w, 1 or 3) as (3, h, w) float32 in [0, 1]."""
    out = np.empty((3, *pixels.shape[:2]), np.float32)
    channels = pixels.shape[2]
    for c in range(channels):  # a plane at a time: thrice as fast as all at once
        if peak == 1:
            np.clip(pixels[..., c], 0, 1, out=out[c])
        else:
            np.multiply(pixels[..., c], np.float32(1 / peak), out=out[c])
    if channels == 1:
        out[1:] = out[0]
    return out


def fill(colours: np.ndarray, weight: np.ndarray) -> None:
    """Colours (3, h, w) of weight (h, w) 0 become, in place, those of the nearest others, smoothly.

    Pull and push (Gortler et al., The Lumigraph, 1996): weighted means of 2 x 2, and of those
    again, until every cell has some weight; what had none takes the next coarser level's colours.
    """
    empty = ~(weight > 0)
    if not empty.any():
        return
    h, w = weight.shape
    sums = np.zeros((4, h + h % 2, w + w % 2), np.float32)
    np.multiply(colours, weight, out=sums[:3, :h, :w], where=~empty)
    np.copyto(sums[3, :h, :w], weight, where=~empty)
    sums = sums[:, ::2] + sums[:, 1::2]
    sums = sums[..., ::2] + sums[..., 1::2]
    coarse = sums[:3] / np.maximum(sums[3], np.finfo(np.float32).tiny)
    fill(coarse, sums[3])
    finer = np.clip(enlarge(coarse, 2), 0, 1)[:, :h, :w]
    np.copyto(colours, finer, where=empty)


def native(planes: np.ndarray, peak: int, kind: np.dtype) -> np.ndarray:
    """(C, H, W) float in [0, 1] to (H, W, C) samples, rounded to the nearest; float stays as it is,
    clipped."""
    out = np.empty((*planes.shape[1:], len(planes)), kind)
    for c, plane in enumerate(planes):
        values = np.clip(plane, 0, 1, dtype=np.float32)
        if peak != 1:
            values *= np.float32(peak)
            values += np.float32(0.5)
        out[..., c] = values
    return out


_PEAKS = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.float32): 1}
