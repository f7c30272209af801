"""Files of several pictures: apart as Pillow and tifffile see them, and together again."""

import io
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageSequence

from relume.errors import PictureError
from relume.image import Picture, decode, encode, frames, tags
from relume.image.apart import decoder

RNG = np.random.default_rng(0)


def again(data: bytes) -> bytes:
    """Every picture of a file read, encoded as it is, and joined."""
    first = decode(data)
    format = frames.JOINED[first.format]
    parts = [encode(picture, format) for picture in frames.each(data, first)]
    return frames.joined(parts, format, frames.timing(data, first.format))


def shown(data: bytes) -> list[np.ndarray]:
    """(H, W, 4) of each frame; colours under alpha 0 are free."""
    with Image.open(io.BytesIO(data)) as image:
        whole = [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(image)]
    return [frame * (frame[..., 3:] > 0) for frame in whole]


def patches(alpha: bool = False) -> list[Image.Image]:
    """Frames of few colours that differ in a part, which is what encoders store."""
    base = RNG.integers(0, 4, (24, 30, 4 if alpha else 3), dtype=np.uint8) * 85
    if alpha:  # half of it, Pillow lays over nothing as if that were black
        base[..., 3] = np.where(base[..., 3] > 90, 255, 0)
    made = []
    for number in range(4):
        frame = base.copy()
        frame[4 + number : 12 + number, 3:17, :3] = 60 * number
        made.append(Image.fromarray(frame))
    return made


def saved(images: list[Image.Image], format: str, **options) -> bytes:
    out = io.BytesIO()
    images[0].save(out, format, save_all=True, append_images=images[1:], **options)
    return out.getvalue()


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {"loop": 3}),
        ("PNG", {"disposal": 2}),
        ("PNG", {"blend": 1, "disposal": 1}),
        ("PNG", {"default_image": True}),
        ("WEBP", {"lossless": True, "exact": True, "loop": 2}),
        ("GIF", {"disposal": 2}),
        ("GIF", {"loop": 5}),
    ],
)
def test_an_animation_shows_what_it_showed_as_long_as_it_did(format, options, alpha):
    data = saved(patches(alpha), format, duration=[100, 70, 250, 40], **options)
    joined = again(data)
    before, after = shown(data), shown(joined)
    assert len(before) == len(after)
    for a, b in zip(before, after, strict=True):
        assert np.array_equal(a, b)
    kind = "gif" if format == "GIF" else format.lower()
    was, now = frames.timing(data, kind), frames.timing(joined, "webp" if kind == "webp" else "png")
    assert [a / b for a, b in was.delays] == pytest.approx([a / b for a, b in now.delays])
    assert (was.plays, was.still) == (now.plays, now.still)
    with Image.open(io.BytesIO(data)) as x, Image.open(io.BytesIO(joined)) as y:
        assert x.n_frames == y.n_frames
        if format != "GIF":
            assert x.info.get("loop") == y.info.get("loop")


def test_pages_of_any_size_depth_and_compression_are_the_same_pages(tmp_path):
    pages = [
        RNG.integers(0, 256, (9, 13, 3), dtype=np.uint8),
        RNG.integers(0, 65536, (21, 8), dtype=np.uint16),
        RNG.random((5, 6, 3), np.float32),
        RNG.integers(0, 256, (40, 50, 4), dtype=np.uint8),
    ]
    for order in "<>":
        path = tmp_path / f"{ord(order)}.tif"
        with tifffile.TiffWriter(path, byteorder=order) as file:
            for page in pages:
                extra = ["unassalpha"] if page.shape[2:] == (4,) else None
                kind = "rgb" if page.ndim == 3 else "minisblack"
                compression = "deflate" if page.ndim == 2 else None
                file.write(page, photometric=kind, extrasamples=extra, compression=compression)
        (tmp_path / "out.tif").write_bytes(again(path.read_bytes()))
        with tifffile.TiffFile(tmp_path / "out.tif") as file:
            assert len(file.pages) == 4
            for page, kept in zip(pages, file.pages, strict=True):
                assert np.array_equal(kept.asarray(), page)


def test_each_page_keeps_its_own_words(tmp_path):
    images = [Image.fromarray(RNG.integers(0, 256, (9, 13, 3), dtype=np.uint8)) for _ in range(3)]
    out = io.BytesIO()
    images[0].save(out, "TIFF", save_all=True, append_images=images[1:], description="a scan")
    with Image.open(io.BytesIO(again(out.getvalue()))) as joined:
        assert [frame.tag_v2[270] for frame in ImageSequence.Iterator(joined)] == ["a scan"] * 3


def test_pages_that_go_in_a_circle_are_taken_once_and_it_is_said(tmp_path):
    pages = RNG.integers(0, 256, (3, 9, 13, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="rgb")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    found = tags.directories(bytes(data))
    data[found[-1].next_at : found[-1].next_at + 4] = data[4:8]
    first = decode(bytes(data))
    assert "circle" in " ".join(first.notes)
    kept = [picture.pixels for picture in frames.each(bytes(data), first)]
    assert np.array_equal(kept, pages)


def test_a_cut_animation_is_refused():
    data = saved(patches(), "PNG")
    at = data.rindex(b"fcTL") - 4
    with pytest.raises(PictureError, match="frames"):
        frames.count(data[:at] + data[-12:])


def test_too_many_pixels_together_are_refused_before_any_is_read():
    first = replace(Picture(np.zeros((1000, 1000, 1), np.uint8), format="gif"), frames=3000)
    with pytest.raises(PictureError, match="million together"):
        next(frames.each(b"", first))


# Apart


def kinds() -> dict[str, bytes]:
    pages = patches()
    return {
        "tiff": saved(pages, "TIFF", compression="tiff_lzw"),
        "gif": saved(pages, "GIF", duration=[100, 70, 250, 40], loop=5),
        "webp": saved(pages, "WEBP", lossless=True, duration=[100, 70, 250, 40]),
        "png": saved(pages, "PNG", default_image=True, duration=[100, 70, 250], loop=3),
    }


@pytest.mark.parametrize("format", ["tiff", "gif", "webp", "png"])
def test_a_child_gives_the_same_frames_and_timing(format):
    data, apart = kinds()[format], decoder()
    first = decode(data)
    here, there = list(frames.each(data, first)), list(apart.each(data, first))
    assert len(here) == len(there) == 4
    for a, b in zip(here, there, strict=True):
        assert np.array_equal(a.pixels, b.pixels)
        assert (a.alpha is None) == (b.alpha is None)
        assert (a.icc, a.dpi, a.exif, a.notes) == (b.icc, b.dpi, b.exif, b.notes)
    assert apart.timing(data) == frames.timing(data, format)


def test_who_leaves_before_the_last_frame_ends_the_child_and_the_next_file_gets_another():
    data, apart = kinds()["tiff"], decoder()
    pages = apart.each(data, decode(data))
    next(pages)
    pages.close()
    assert apart.decode(data).frames == 4


def test_a_broken_page_is_refused_with_its_number():
    data = bytearray(kinds()["tiff"])
    page = tags.directories(data)[2]
    start = page.entries[273].numbers("<")[0]
    size = page.entries[279].numbers("<")[0]
    data[start : start + size] = b"\xff" * size
    for each in (frames.each, decoder().each):
        with pytest.raises(PictureError, match=r"a\.tif, page 3: it cannot be decoded"):
            list(each(bytes(data), decode(bytes(data)), "a.tif"))


# Many pages


def test_a_page_is_cut_out_where_it_points_at_nothing_else_and_is_the_same():
    data = saved(
        [Image.fromarray(RNG.integers(0, 256, (9, 8, 3), np.uint8)) for _ in range(60)], "TIFF"
    )
    at = tags.first_offset(data, "<")
    for page in tags.directories(data):
        alone = frames._cut_out(data, page, "<", at)
        assert alone is not None and len(alone) < len(data) / 20
        whole = frames._led_to(data, page, "<", at)
        assert np.array_equal(decode(alone).pixels, decode(whole).pixels)
        at = page.next


def test_a_page_that_is_odd_is_left_in_its_file():
    data = bytearray(kinds()["tiff"])
    at, page = tags.first_offset(data, "<"), tags.directories(data)[0]
    assert frames._cut_out(bytes(data), page, "<", at)
    far = replace(page.entries[273], raw=(1 << 31).to_bytes(4, "little"))
    for odd in (
        {**page.entries, 273: far},
        {**page.entries, tags.EXIF_IFD: page.entries[256]},
        {tag: entry for tag, entry in page.entries.items() if tag != 256},
        dict(reversed(page.entries.items())),
    ):
        assert frames._cut_out(bytes(data), replace(page, entries=odd), "<", at) is None
