"""What `--map` and `--protect` leave alone comes back from a file as it was, whatever the file."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from relume.image import Picture, read, write, write_gray16

SIZE = (48, 64)
LEFT_ALONE = np.s_[13:37, 22:51]  # no multiple of a block


def samples(dtype, size=SIZE, channels=3) -> np.ndarray:
    peak = np.iinfo(dtype).max
    rng = np.random.default_rng(0)
    return rng.integers(0, peak, (*size, channels), endpoint=True, dtype=dtype)


def mask(size=SIZE, where=LEFT_ALONE, value=0) -> np.ndarray:
    drawn = np.full((*size, 1), 255, np.uint8)
    drawn[where] = value
    return drawn


def inverted(pixels: np.ndarray) -> np.ndarray:
    return np.iinfo(pixels.dtype).max - pixels


@pytest.mark.parametrize("flag", ["--map", "--protect"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_rectangle_of_a_lossless_file_is_left_alone_to_the_sample(
    relume, tmp_path, suffix, dtype, flag
):
    pixels = samples(dtype)
    write(Picture(pixels=pixels), tmp_path / f"a{suffix}")
    drawn = mask() if flag == "--map" else 255 - mask()
    write(Picture(pixels=drawn), tmp_path / "m.png")
    words = ("restore", f"a{suffix}", "-o", "out", "--model", "invert", flag, "m.png")
    assert relume(*words)[::2] == (0, "")
    out = read(f"out/a{suffix}").pixels
    wanted = inverted(pixels)
    wanted[LEFT_ALONE] = pixels[LEFT_ALONE]
    assert out.dtype == dtype
    assert np.array_equal(out, wanted)


@pytest.mark.parametrize("factor", [0.5, 2])
def test_a_mask_of_another_size_leaves_alone_what_it_leaves_alone(relume, tmp_path, factor):
    """A small mask is enlarged by straight lines, which begin in the middle of its outer pixels."""
    pixels = samples(np.uint16)
    write(Picture(pixels=pixels), tmp_path / "a.png")
    size = tuple(int(side * factor) for side in SIZE)
    top, bottom, left, right = (int(at * factor) for at in (12, 36, 20, 52))
    drawn = mask(size, np.s_[top:bottom, left:right])
    write(Picture(pixels=drawn), tmp_path / "m.png")
    words = ("restore", "a.png", "-o", "out", "--model", "invert", "--map", "m.png")
    assert relume(*words)[::2] == (0, "")
    out, wanted = read("out/a.png").pixels, inverted(pixels)
    edge = 1 if factor < 1 else 0
    inside = np.s_[12 + edge : 36 - edge, 20 + edge : 52 - edge]
    assert np.array_equal(out[inside], pixels[inside])
    outside = np.ones(SIZE, bool)
    outside[12 - edge : 36 + edge, 20 - edge : 52 + edge] = False
    assert np.array_equal(out[outside], wanted[outside])


def test_a_soft_mask_mixes_and_nothing_falls_outside_the_two(relume, tmp_path):
    pixels = samples(np.uint16)
    write(Picture(pixels=pixels), tmp_path / "a.tif")
    ramp = np.tile(np.clip((np.arange(SIZE[1]) - 20) / 32, 0, 1), (SIZE[0], 1))
    write_gray16(ramp, tmp_path / "m.png")
    words = ("restore", "a.tif", "-o", "out", "--model", "invert", "--map", "m.png")
    assert relume(*words)[::2] == (0, "")
    out = read("out/a.tif").pixels.astype(np.float64)
    other, weight = inverted(pixels).astype(np.float64), ramp[..., None]
    # Half a level of the mask's 16 bits and of the file's, float32 in between.
    assert np.abs(out - (pixels * (1 - weight) + other * weight)).max() <= 1.1
    assert np.array_equal(out[:, :21], pixels[:, :21])


@pytest.mark.parametrize("turn", [3, 6, 7])
@pytest.mark.parametrize("format", ["png", "tiff"])
def test_the_mask_of_a_turned_photograph_is_as_it_is_shown(relume, tmp_path, format, turn):
    exif = Image.Exif()
    exif[274] = turn
    path = tmp_path / f"a.{format}"
    Image.fromarray(samples(np.uint8)).save(path, exif=exif)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    write(Picture(pixels=mask(shown.shape[:2], np.s_[5:30, 7:19])), tmp_path / "m.png")
    words = ("restore", path, "-o", "out", "--model", "invert", "--map", "m.png")
    assert relume(*words)[::2] == (0, "")
    out = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "out" / path.name)))
    wanted = 255 - shown
    wanted[5:30, 7:19] = shown[5:30, 7:19]
    assert np.array_equal(out, wanted)


@pytest.mark.parametrize(("quality", "halved"), [(60, True), (96, False)])
def test_in_a_jpeg_what_is_left_alone_is_encoded_once_more_and_nothing_else(
    relume, photo, tmp_path, quality, halved
):
    """From 16 pixels inside its edge on, a rectangle is what encoding the untouched picture at the
    written quality, 90 at least, gives; which moves a coefficient of the cosine transform by half a
    step of its quantisation at most."""
    rgb = np.round(np.tile(photo[0], (1, 1, 2)) * 255).astype(np.uint8).transpose(1, 2, 0)
    Image.fromarray(rgb).save(tmp_path / "a.jpg", quality=quality, subsampling=2 if halved else 0)
    where = np.s_[3:91, 21:231]
    write(Picture(pixels=mask(rgb.shape[:2], where)), tmp_path / "m.png")
    words = ("restore", "a.jpg", "-o")
    assert relume(*words, "masked", "--model", "invert", "--map", "m.png")[::2] == (0, "")
    assert relume(*words, "again", "--model", "identity")[::2] == (0, "")
    before, masked, again = (read(f"{p}a.jpg").pixels for p in ("", "masked/", "again/"))
    deep = np.s_[3 + 16 : 91 - 16, 21 + 16 : 231 - 16]
    assert np.array_equal(masked[deep], again[deep])
    assert not np.array_equal(masked[where], again[where])  # blocks across the edge do differ

    Image.fromarray(rgb).save(tmp_path / "least.jpg", quality=max(90, quality), subsampling=0)
    tables = []
    for name in ("masked/a.jpg", "least.jpg"):
        with Image.open(tmp_path / name) as written:
            tables.append([np.array(written.quantization[min(i, 1)]) for i in range(3)])
    assert np.array_equal(*tables)
    # Parseval: the root mean square over a block is that of the coefficients, of which each of Y,
    # Cb and Cr moves by half a step, and by half a level in rounding before and after.
    moved = [np.sqrt(np.square(t / 2).mean()) + 1 for t in tables[0]]
    bound = 0.5 + moved[0] + np.array([1.402 * moved[2], 0.715 * moved[2] + 0.345 * moved[1], 0])
    bound[2] += 1.772 * moved[1]
    change = (masked.astype(np.float64) - before)[24:72, 40:208]  # whole blocks
    blocks = change.reshape(6, 8, 21, 8, 3)
    assert (np.sqrt(np.square(blocks).mean((1, 3))) <= bound).all()
