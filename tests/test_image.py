"""Pictures in and out. Pillow and tifffile, which relume itself never uses, are the oracles."""

import io
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, ImageOps
from PIL.TiffImagePlugin import IFDRational

from relume.errors import CheckError, OutputError, PictureError, ShapeError, UsageError
from relume.image import (
    Picture,
    decode,
    encode,
    enlarge,
    is_image,
    read,
    render,
    resize_map,
    shape_of,
    suffix_for,
    write,
    write_gray16,
)
from relume.image.containers import CONTAINERS, sniff

RNG = np.random.default_rng(0)
KINDS = {8: np.uint8, 16: np.uint16, 32: np.float32}
LOSSLESS = [("png", 8), ("png", 16), ("tiff", 8), ("tiff", 16), ("tiff", 32), ("webp", 8)]
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="%d" dc:title="A &amp; B"/></x:xmpmeta>'
P3 = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def samples(bits: int, channels: int, height: int = 23, width: int = 37) -> np.ndarray:
    values = RNG.random((height, width, channels), np.float32)
    return values if bits == 32 else (values * np.iinfo(KINDS[bits]).max).astype(KINDS[bits])


def smooth(height: int = 96, width: int = 128) -> np.ndarray:
    """(height, width, 3) uint8 that a lossy codec keeps well."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 9 + y / 17), np.cos(x / 14), np.sin(y / 11)]
    return np.stack([127 + 90 * w for w in waves], 2).astype(np.uint8)


def exif_block(orientation: int, thumbnail: Image.Image | None = None) -> bytes:
    """An EXIF structure, by hand: description, orientation, pixel width, thumbnail in IFD1."""
    jpeg = io.BytesIO()
    if thumbnail:
        thumbnail.save(jpeg, "JPEG", quality=95)
    out = struct.pack("<2sHIH", b"II", 42, 8, 3)
    out += struct.pack("<HHI4s", 270, 2, 4, b"abc\0") + struct.pack(
        "<HHIHH", 274, 3, 1, orientation, 0
    )
    out += struct.pack("<HHII", 34665, 4, 1, 50) + struct.pack("<I", 68 if thumbnail else 0)
    out += struct.pack("<HHHIII", 1, 40962, 4, 1, 9999, 0)
    if thumbnail:
        out += struct.pack("<HHHIIHHIII", 2, 513, 4, 1, 98, 514, 4, 1, len(jpeg.getvalue()), 0)
        out += jpeg.getvalue()
    return out


def said_by_pillow(data: bytes) -> dict:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp", "").encode()
        return {
            "exif": image.getexif(),
            "icc": image.info.get("icc_profile"),
            "xmp": xmp,
            "dpi": image.info.get("dpi"),
        }


# Depth, channels, alpha


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("format", "bits"), LOSSLESS)
def test_a_lossless_file_returns_exactly_in_its_own_depth(format, bits, channels, alpha):
    whole = samples(bits, channels + alpha)
    picture = Picture(
        whole[..., :channels].copy(),
        alpha=whole[..., -1].copy() if alpha else None,
        format=format,
        bits=bits,
    )
    again = decode(encode(picture.with_rgb(picture.rgb()), format))
    pixels = again.pixels
    if format == "webp" and channels == 1:  # WebP knows no gray, and gives it back as R = G = B
        assert np.array_equal(pixels, pixels[..., :1].repeat(3, 2))
        pixels = pixels[..., :1]
    assert pixels.dtype == KINDS[bits]
    assert np.array_equal(pixels, picture.pixels)
    assert np.array_equal(again.alpha, picture.alpha) if alpha else again.alpha is None


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_tiff_agrees_with_tifffile_in_both_directions(tmp_path, bits, channels):
    whole = samples(bits, channels)
    photometric = "rgb" if channels > 2 else "minisblack"
    extra = ["unassalpha"] if channels in (2, 4) else []
    stored = whole if channels > 1 else whole[..., 0]
    tifffile.imwrite(
        tmp_path / "a.tif",
        stored,
        photometric=photometric,
        extrasamples=extra,
        planarconfig="contig",
    )
    picture = read(tmp_path / "a.tif")
    assert picture.bits == bits
    write(picture.with_rgb(picture.rgb()), tmp_path / "b.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), stored)


def test_small_copies_in_a_tiff_are_told(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(samples(8, 3), photometric="rgb", subifds=1)
        file.write(samples(8, 3, 11, 18), photometric="rgb", subfiletype=1)
        file.write(samples(8, 3, 5, 9), photometric="rgb", subfiletype=1)
    picture = read(tmp_path / "a.tif")
    assert picture.frames == 1
    assert "2 small copies" in " ".join(picture.notes)


@pytest.mark.parametrize("rows", [5, 23])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_gray_and_alpha_in_planes_of_their_own_are_not_confused(tmp_path, bits, order, rows):
    stored = np.moveaxis(samples(bits, 2), 2, 0)
    path, options = tmp_path / "a.tif", {"rowsperstrip": rows, "byteorder": order}
    options |= {"photometric": "minisblack", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(path, stored, planarconfig="separate", **options)
    picture = read(path)
    assert np.array_equal(picture.pixels[..., 0], stored[0])
    assert np.array_equal(picture.alpha, stored[1])


def test_16_bit_png_is_not_narrowed(tmp_path):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(values).save(tmp_path / "a.png")
    picture = read(tmp_path / "a.png")
    assert picture.gray
    assert np.array_equal(picture.with_rgb(picture.rgb()).pixels[..., 0], values)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA"])
def test_every_png_mode_is_shown_as_pillow_shows_it(tmp_path, mode):
    image = Image.fromarray(smooth()).convert("L" if mode in ("1", "L", "LA") else "RGB")
    image = image.convert(mode)
    image.save(tmp_path / "a.png")
    picture = read(tmp_path / "a.png")
    shown = np.asarray(Image.open(tmp_path / "a.png").convert("RGBA"))
    assert np.array_equal(np.broadcast_to(picture.pixels, shown[..., :3].shape), shown[..., :3])
    assert picture.gray == (mode in ("1", "L", "LA"))
    assert (picture.alpha is None) == (mode in ("1", "L", "P", "RGB"))


def test_rgb_is_a_float_batch_of_one_in_0_1():
    rgb = Picture(np.array([[[0], [255]]], np.uint8)).rgb()
    assert rgb.shape == (1, 3, 1, 2)
    assert rgb.dtype == np.float32
    assert rgb.min() == 0
    assert rgb.max() == 1


def test_gray_stays_gray_and_is_the_mean_of_the_channels():
    picture = Picture(samples(8, 1))
    rgb = picture.rgb()
    rgb[:, 0], rgb[:, 1], rgb[:, 2] = 0.2, 0.4, 0.6
    assert np.array_equal(picture.with_rgb(rgb).pixels, np.full_like(picture.pixels, 102))


def test_alpha_is_enlarged_with_its_picture():
    picture = Picture(samples(8, 3), alpha=np.full((23, 37), 200, np.uint8))
    larger = picture.with_rgb(enlarge(picture.rgb(), 2), scale=2)
    assert larger.alpha is not None
    assert larger.alpha.shape == larger.pixels.shape[:2] == (46, 74)
    assert (larger.alpha == 200).all()


def cut_out(bits: int, channels: int, left_over: float) -> Picture:
    """A slope of light in a ragged outline; what alpha hides holds `left_over`."""
    y, x = np.mgrid[0:45, 0:61]
    shows = np.hypot(y - 20, x - 33) < 15 + 3 * np.sin(x)
    pixels = np.where(shows, 0.3 + 0.004 * x, left_over)[..., None].repeat(channels, 2)
    peak = 1 if bits == 32 else np.iinfo(KINDS[bits]).max
    return Picture((pixels * peak).astype(KINDS[bits]), (shows * peak).astype(KINDS[bits]))


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_colour_that_alpha_hides_is_not_seen(bits, channels):
    green, black = (cut_out(bits, channels, left_over) for left_over in (1.0, 0.0))
    seen = green.rgb(fill_hidden=True)
    assert np.array_equal(seen, black.rgb(fill_hidden=True))
    shows = green.alpha > 0
    assert np.array_equal(seen[..., shows], green.rgb()[..., shows])
    # What was filled in lies within what shows, and meets it without a step.
    low, high = seen[..., shows].min(), seen[..., shows].max()
    assert low - 0.01 <= seen.min() and seen.max() <= high + 0.01
    assert np.abs(np.diff(seen, axis=3)).max() < 0.03  # the slope's own step is 0.004
    assert np.abs(np.diff(seen, axis=2)).max() < 0.03
    # The picture itself keeps what it holds, and gives it back.
    assert np.array_equal(green.with_rgb(green.rgb()).pixels, green.pixels)


def test_a_picture_without_hidden_pixels_is_seen_as_it_is():
    clear = replace(cut_out(8, 3, 1.0), alpha=None)
    faint = replace(clear, alpha=np.full((45, 61), 1, np.uint8))
    nothing = replace(clear, alpha=np.zeros((45, 61), np.uint8))
    for picture in (clear, faint, nothing):
        assert picture.hidden is None
        assert np.array_equal(picture.rgb(fill_hidden=True), picture.rgb())


def test_a_value_that_is_not_finite_hides_under_alpha():
    picture = cut_out(32, 3, np.nan)
    assert np.isfinite(picture.rgb(fill_hidden=True)).all()


def test_what_a_float_picture_holds_beyond_white_passes_around():
    values = samples(32, 3) * 1.5 - 0.1
    picture = Picture(values, format="tiff", bits=32)
    assert picture.rgb().max() <= 1
    assert np.array_equal(picture.with_rgb(picture.rgb()).pixels, values)


def test_a_value_that_is_not_finite_is_never_written(tmp_path):
    picture = Picture(samples(8, 3))
    rgb = picture.rgb()
    rgb[0, 0, 0, 0] = np.nan
    with pytest.raises(CheckError, match="not finite"):
        picture.with_rgb(rgb)
    tifffile.imwrite(tmp_path / "a.tif", np.full((4, 4, 3), np.nan, np.float32), photometric="rgb")
    with pytest.raises(PictureError, match="not finite"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3), (1, 40, 3), (40, 1, 1)])
@pytest.mark.parametrize("format", ["png", "tiff", "jpeg", "webp"])
def test_the_smallest_pictures_work(format, shape):
    picture = Picture(np.full(shape, 77, np.uint8), format=format)
    again = decode(encode(picture, format))
    assert again.pixels.shape[:2] == shape[:2]
    assert abs(again.pixels.astype(int) - 77).max() <= 2


def test_pixels_of_another_shape_are_refused():
    with pytest.raises(ShapeError, match="pixels must be"):
        Picture(np.zeros((4, 4), np.uint8))
    with pytest.raises(ShapeError, match="rgb must be"):
        Picture(samples(8, 3)).with_rgb(np.zeros((1, 3, 4, 4), np.float32))


def test_12_bit_scans_become_16_bit(tmp_path):
    values = RNG.integers(0, 4096, (7, 10), dtype=np.uint16)
    pairs = values.reshape(-1, 2).astype(np.uint32)
    joined = pairs[:, 0] << 12 | pairs[:, 1]
    data = np.stack([joined >> 16, joined >> 8 & 255, joined & 255], 1).astype(np.uint8).tobytes()
    head = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    tags = {256: 10, 257: 7, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 7, 279: len(data)}
    table = b"".join(struct.pack("<HHII", tag, 4, 1, v) for tag, v in tags.items())
    picture = decode(head + data + struct.pack("<H", len(tags)) + table + bytes(4))
    assert np.array_equal(picture.pixels[..., 0], values << 4 | values >> 8)


# Orientation and metadata


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("format", ["jpeg", "png", "tiff", "webp"])
def test_a_picture_is_turned_exactly_once(tmp_path, format, turn):
    image, path = Image.fromarray(smooth(40, 64)), tmp_path / f"a.{format}"
    exif = Image.Exif()
    exif[274] = turn
    image.save(path, exif=exif, **({"lossless": True} if format == "webp" else {}))
    shown = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    picture = read(path)
    assert picture.orientation == turn
    assert picture.pixels.shape == shown.shape
    assert np.abs(picture.pixels.astype(int) - shown).max() <= (3 if format == "jpeg" else 0)
    assert shape_of(path) == shown.shape[:2]
    again = encode(picture, format)
    with Image.open(io.BytesIO(again)) as reopened:
        reopened.load()  # Pillow turns a TIFF here, by its tag
        assert reopened.getexif().get(274, 1) == 1
        assert reopened.size == shown.shape[1::-1]


@pytest.mark.parametrize("format", [name for name, row in CONTAINERS.items() if row.pack])
def test_metadata_is_carried_byte_for_byte_but_for_the_turn(format):
    exif = exif_block(6)
    picture = replace(
        Picture(smooth(), format=format), icc=P3, exif=exif, xmp=XMP % 6, dpi=(300.0, 300.0)
    )
    data = encode(picture, format)
    said = said_by_pillow(data)
    assert said["icc"] == P3
    assert said["xmp"].rstrip(b"\0") == XMP % 1
    assert said["exif"][270] == "abc"
    assert said["exif"].get(274, 1) == 1
    assert said["exif"].get_ifd(34665)[40962] == 128
    if format != "webp":
        assert said["dpi"] == pytest.approx((300, 300), abs=0.02)
    again = decode(data)
    assert (again.icc, again.xmp) == (P3, XMP % 1)


def test_a_big_endian_exif_block_survives_a_tiff():
    exif = Image.Exif()
    exif.endian = ">"
    exif[271], exif[33432] = "Maker", "me"
    exif.get_ifd(34665)[33434] = IFDRational(1, 125)
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    assert block[:2] == b"MM"
    picture = replace(Picture(smooth(), format="tiff"), exif=block)
    said = said_by_pillow(encode(picture, "tiff"))["exif"]
    assert (said[271], said[33432]) == ("Maker", "me")
    assert float(said.get_ifd(34665)[33434]) == pytest.approx(1 / 125)


def test_a_stale_thumbnail_is_refreshed_in_place():
    red = Image.new("RGB", (160, 120), "red")
    # Uneven red, so that there is room for a picture with something in it.
    noise = np.asarray(red) // 2 + RNG.integers(0, 60, (120, 160, 3), dtype=np.uint8)
    block = exif_block(1, Image.fromarray(noise))
    data = encode(replace(Picture(smooth()), exif=block), "jpeg")
    with Image.open(io.BytesIO(data)) as image:
        raw = image.info["exif"].removeprefix(b"Exif\0\0")
        ifd1 = image.getexif().get_ifd(ExifTags.IFD.IFD1)
    assert len(raw) == len(block)
    thumbnail = Image.open(io.BytesIO(raw[ifd1[513] : ifd1[513] + ifd1[514]]))
    small = np.asarray(thumbnail.convert("RGB").resize((16, 12)), float)
    true = np.asarray(Image.fromarray(smooth()).resize((16, 12)), float)
    assert np.abs(small - true).mean() < 12


def test_a_thumbnail_with_no_room_for_a_new_one_is_removed():
    block = exif_block(1, Image.new("RGB", (8, 8), "red"))
    noisy = Picture(samples(8, 3, 200, 200))
    said = said_by_pillow(encode(replace(noisy, exif=block), "jpeg"))["exif"]
    assert said[270] == "abc"
    assert not said.get_ifd(ExifTags.IFD.IFD1)


def test_png_text_and_colour_chunks_stay_and_are_announced_elsewhere():
    chunks = (("gAMA", struct.pack(">I", 35000)), ("tEXt", b"Title\0a print of 1912"))
    picture = replace(Picture(smooth()), carried=chunks)
    assert decode(encode(picture, "png")).carried == chunks
    _, announced = render(picture, "tiff")
    assert announced == ["PNG gAMA, text dropped"]


def test_iptc_travels_between_jpeg_and_tiff_and_is_announced_elsewhere():
    record = b"\x1c\x02\x78\x00\x05hello"
    block = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(record)) + record
    picture = replace(Picture(smooth(), format="jpeg", quality=95), iptc=block)
    assert decode(encode(picture, "jpeg")).iptc == block
    assert decode(encode(picture, "tiff")).iptc == block
    assert "IPTC" in " ".join(render(picture, "png")[1])


def test_damaged_metadata_costs_a_note_and_never_the_picture():
    broken = replace(Picture(smooth()), icc=b"no profile at all", exif=b"nothing here")
    picture = decode(encode(replace(broken, exif=None), "tiff"))
    assert picture.icc is None
    assert "ICC" in " ".join(picture.notes)
    assert "EXIF" in " ".join(render(broken, "png")[1])


def test_cmyk_becomes_srgb_and_says_so(tmp_path):
    Image.fromarray(smooth()).convert("CMYK").save(tmp_path / "a.tif")
    picture = read(tmp_path / "a.tif")
    assert "CMYK became sRGB" in picture.notes[0]
    plain = np.asarray(Image.open(tmp_path / "a.tif").convert("RGB"), float)
    assert np.abs(picture.pixels - plain).mean() < 40  # a press is duller than a screen
    assert picture.icc is None


# Lossy formats


@pytest.mark.parametrize("quality", [5, 30, 50, 75, 90, 95, 100])
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_jpeg_quality_is_read_off_its_tables(tmp_path, quality, sampling):
    Image.fromarray(smooth()).save(tmp_path / "a.jpg", quality=quality, subsampling=sampling)
    picture = read(tmp_path / "a.jpg")
    assert (picture.quality, picture.subsampling) == (quality, sampling)
    again = decode(encode(picture, "jpeg"))
    assert again.quality == max(90, quality)
    assert again.subsampling == "4:4:4"


@pytest.mark.parametrize("quality", [10, 50, 75, 90, 98])
def test_webp_quality_is_read_off_its_quantiser(tmp_path, quality):
    grain = RNG.integers(-20, 21, (96, 128, 1))
    grainy = np.clip(smooth().astype(int) + grain, 0, 255).astype(np.uint8)
    Image.fromarray(grainy).save(tmp_path / "a.webp", quality=quality, method=4)
    estimate = read(tmp_path / "a.webp").quality
    # Segments are quantised finer or coarser around the asked quality; ours is the finest.
    assert estimate is not None
    assert quality - 3 <= estimate <= quality + 30


def test_what_a_format_cannot_hold_is_announced():
    picture = Picture(samples(16, 3), alpha=samples(16, 1)[..., 0], bits=16)
    words = " ".join(render(picture, "jpeg")[1])
    assert "16-bit" in words
    assert "transparency" in words
    assert "lossy" in words


# Refusals


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_half_a_file_is_refused_in_one_line_each_time(tmp_path, suffix):
    path = tmp_path / f"half{suffix}"
    noise = Image.fromarray(RNG.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    noise.save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for _ in range(2):  # some decoders let a second look pass, with rows of zeros
        with pytest.raises(PictureError) as refusal:
            read(path)
        assert str(refusal.value).startswith(f"{path}: ")
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"hello, I am a text", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
    ],
)
def test_what_is_no_picture_is_refused_whatever_its_name(tmp_path, content, words):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(PictureError, match=words):
        read(path)
    with pytest.raises(PictureError):
        shape_of(path)


def test_a_file_that_lacks_only_its_end_marker_is_kept_and_it_is_said():
    jpeg = encode(replace(Picture(smooth()), format="jpeg"), "jpeg")
    png = encode(Picture(smooth()), "png")
    for whole, lacks in ((jpeg, jpeg[:-2]), (png, png[:-12]), (png, png[:-3])):
        picture = decode(lacks)
        assert np.array_equal(picture.pixels, decode(whole).pixels)
        assert "missing" in " ".join(picture.notes)
    for lacks in (*(jpeg[:-cut] for cut in range(5, 200, 7)), png[:-40]):
        with pytest.raises(PictureError):
            decode(lacks)
    out = io.BytesIO()  # a progressive file may lack whole scans, and nobody could tell
    Image.fromarray(smooth()).save(out, "JPEG", progressive=True)
    with pytest.raises(PictureError):
        decode(out.getvalue()[:-2])


def test_a_header_that_promises_another_size_is_refused():
    out = io.BytesIO()
    Image.fromarray(smooth()).save(out, "GIF")
    data = bytearray(out.getvalue())
    data[6:10] = struct.pack("<HH", 4000, 4000)
    with pytest.raises(PictureError, match="promises 4000 x 4000"):
        decode(bytes(data))


def test_a_missing_file_is_refused_in_one_line(tmp_path):
    with pytest.raises(PictureError, match="No such file"):
        read(tmp_path / "none.png")


def test_a_header_that_promises_too_much_is_refused_before_decoding(tmp_path):
    data = bytearray(encode(Picture(samples(8, 3)), "png"))
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    data[29:33] = struct.pack(">I", __import__("zlib").crc32(data[12:29]))
    (tmp_path / "a.png").write_bytes(data)
    for look in (read, shape_of):
        with pytest.raises(PictureError, match="200 million"):
            look(tmp_path / "a.png")


def test_a_wrong_checksum_over_sound_data_is_refused():
    data = bytearray(encode(Picture(samples(8, 3)), "png"))
    data[-20] ^= 1  # of the last IDAT
    with pytest.raises(PictureError):
        decode(bytes(data))


def test_pages_and_frames_are_counted(tmp_path):
    pages = [Image.fromarray(np.roll(smooth(), 20 * i, 0)) for i in range(3)]
    for name in ("a.tif", "a.gif", "a.webp", "a.png"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
        assert read(tmp_path / name).frames == 3


def test_a_thousand_damaged_files_give_pictures_or_refusals():
    """Byte flips, cuts and splices: nothing but PictureError ever leaves the reader."""
    rng = np.random.default_rng(1)
    whole = replace(
        Picture(smooth(24, 32)), icc=P3, exif=exif_block(6), xmp=XMP % 6, dpi=(72.0, 72.0)
    )
    for format in ("jpeg", "png", "tiff", "webp"):
        honest = encode(replace(whole, format=format), format)
        for _ in range(250):
            data = bytearray(honest)
            for at in rng.integers(0, len(data), rng.integers(1, 12)):
                data[at] = rng.integers(0, 256)
            if rng.random() < 0.3:
                at, to = np.sort(rng.integers(0, len(data), 2))
                del data[at:to]
            try:
                picture = decode(bytes(data))
                encode(picture, format)
            except (PictureError, OutputError) as error:
                assert "\n" not in str(error)


# Writing


def test_a_file_is_replaced_only_when_asked(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="there already"):
        write(Picture(samples(8, 3)), path, replace=False)
    assert path.read_bytes() == b"mine"
    write(Picture(samples(8, 3)), path)
    assert path.read_bytes() != b"mine"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        write(Picture(samples(8, 3)), tmp_path / "none" / "a.png")


def test_a_suffix_that_cannot_be_written_names_those_that_can(tmp_path):
    with pytest.raises(UsageError, match=r"\.png"):
        write(Picture(samples(8, 3)), tmp_path / "a.bmp")


@pytest.mark.parametrize(
    ("format", "suffix", "new"),
    [
        ("jpeg", ".JPG", ".JPG"),
        ("jpeg", ".jpeg", ".jpeg"),
        ("png", ".jpg", ".png"),
        ("gif", ".gif", ".png"),
        ("tiff", "", ".tif"),
    ],
)
def test_a_suffix_stays_unless_it_lied(format, suffix, new):
    assert suffix_for(format, suffix) == new


def test_gray16_holds_maps_and_labels(tmp_path):
    write_gray16(np.array([[0.0, 0.5, 1.0]]), tmp_path / "a.png")
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[0, 32768, 65535]]
    write_gray16(np.array([[0, 7, 40000]], np.int32), tmp_path / "a.png")
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[0, 7, 40000]]
    with pytest.raises(ShapeError, match="0-65535"):
        write_gray16(np.array([[-1]]), tmp_path / "a.png")


# Sizes


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_enlarge_is_pillows_bicubic_away_from_the_edges(scale):
    plane = samples(32, 1)[..., 0]
    other = Image.fromarray(plane).resize((37 * scale, 23 * scale), Image.Resampling.BICUBIC)
    inner = slice(3 * scale, -3 * scale)
    assert np.abs(enlarge(plane, scale) - np.asarray(other))[inner, inner].max() < 1e-5


def test_enlarge_keeps_a_constant_to_the_edge():
    assert np.allclose(enlarge(np.full((1, 3, 5, 1), 0.3, np.float32), 3), 0.3, atol=1e-6)


@pytest.mark.parametrize("size", [(5, 7), (23, 37), (100, 61), (1, 1)])
def test_a_map_that_is_zero_stays_exactly_zero_at_any_size(size):
    assert not resize_map(np.zeros((23, 37), np.float32), size).any()
    grown = resize_map(samples(32, 1)[..., 0], size)
    assert grown.shape == size
    assert grown.min() >= 0
    assert grown.max() <= 1


# The house


def test_images_are_known_by_suffix_or_by_first_bytes(tmp_path):
    for name, content, known in [
        ("a.jpg", b"?", True),
        ("a.bin", encode(Picture(samples(8, 3)), "png"), True),
        ("a.txt", b"words", False),
    ]:
        (tmp_path / name).write_bytes(content)
        assert is_image(tmp_path / name) == known


@pytest.mark.parametrize("format", [name for name in CONTAINERS if name != "heif"])
def test_a_file_is_known_by_its_own_row(format):
    """No row shows another's files, but HEIF's, whose brands an AVIF may bear too."""
    file = io.BytesIO()
    Image.fromarray(smooth(8, 8)).save(file, format.upper())
    head = file.getvalue()[:64]
    assert sniff(head) == format
    assert {name for name, row in CONTAINERS.items() if row.shows(head)} - {"heif"} == {format}


def test_importing_pictures_imports_no_second_image_library():
    code = (
        "import relume.image, sys; print([m for m in ('PIL', 'torch', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_libvips_says_nothing_on_stderr(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encode(Picture(smooth()), "jpeg")[:-400])
    code = f"import relume.image as i\ntry: i.read({str(path)!r})\nexcept ValueError: print('no')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("no", "")


def test_the_tricky_corpus_scores_full_marks(shared, tmp_path):
    from relume.batch import Job, run

    class Answer:
        def __init__(self, picture: Picture) -> None:
            self.picture, self.announced = picture.with_rgb(picture.rgb()), ()

    corpus, score = shared("tricky/developers"), shared("tools/score_tricky.py")
    report = tmp_path / "report.jsonl"
    job = Job([corpus], tmp_path / "out", report=report, settings={"model": "identity"})
    run(job, lambda _, picture: Answer(picture))
    command = [
        sys.executable,
        str(score),
        "--manifest",
        str(shared("tricky/manifest-developers.tsv")),
    ]
    command += ["--inputs", str(corpus)]
    command += ["--outputs", str(tmp_path / "out")]
    command += ["--report", str(report), "--list"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_photographs_of_the_corpus_keep_their_shape(shared):
    for path in sorted(Path(shared("data/photos/val")).glob("*.jpg"))[:3]:
        with Image.open(path) as image:
            assert shape_of(path) == image.size[::-1]
