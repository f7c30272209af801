"""What one picture may cost: bombs, promises and things that are no files are refused in words."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from bombs import BOMBS, gif, png, tiff, zeros

from relume.batch import Job, run
from relume.errors import PictureError, UsageError
from relume.image import Picture, decode, encode, is_image, read_bytes, tags
from relume.image.apart import Decoder, decoder
from relume.image.limits import Limits
from relume.restoration import restore

COSTLY = {"full.png", "more-data.png", "scans.jpg", "full.tif", "no-data.png", "no-data-laced.png"}
COSTLY |= {"full-laced.png", "texts.png", "full.gif", "canvas.webp", "frames.gif", "chunks.png"}
COSTLY |= {"exifs.jpg", "no-data.jpg", "lie.avif", "strip.tif", "strips.tif", "itxt-xmp.png"}
CHEAP = [bomb for bomb in BOMBS if bomb[0] not in COSTLY]


@pytest.mark.parametrize(("name", "make", "header"), CHEAP, ids=[name for name, *_ in CHEAP])
def test_a_bomb_is_refused_or_read_in_its_limits(name, make, header):
    try:
        picture = decoder().decode(make(), name)
    except PictureError as error:
        assert str(error).startswith(f"{name}: ")
        assert "\n" not in str(error)
    else:
        assert not header
        assert picture.height * picture.width <= 200_000_000


def test_apart_gives_what_the_reader_gives():
    rng = np.random.default_rng(0)
    for kind, channels in ((np.uint8, 3), (np.uint16, 1), (np.uint16, 3)):
        top = np.iinfo(kind).max
        pixels = rng.integers(0, top + 1, (5, 7, channels), dtype=kind)
        alpha = rng.integers(0, top + 1, (5, 7), dtype=kind)
        shown = Picture(pixels, alpha, icc=None, dpi=(300.0, 300.0), bits=8 * pixels.itemsize)
        data = encode(shown, "png")
        here, there = decode(data, "a"), decoder().decode(data, "a")
        assert np.array_equal(here.pixels, there.pixels)
        assert np.array_equal(here.alpha, there.alpha)
        same = ("format", "icc", "exif", "dpi", "orientation", "frames", "bits", "notes", "carried")
        assert [getattr(here, n) for n in same] == [getattr(there, n) for n in same]
        assert decoder().shape_of(data) == (5, 7)


def test_time_and_memory_are_limits_too():
    quick = Decoder(Limits(seconds=1, memory=1 << 30))
    slow = png(14_000, 14_000, data=zeros(186))
    tight = Decoder(Limits(memory=64 << 20))
    try:
        with pytest.raises(PictureError, match=r"slow: it .*(64 MB|cannot be decoded)"):
            tight.decode(slow, "slow")
        assert tight.decode(encode(Picture(np.zeros((4, 4, 3), np.uint8)), "png")).width == 4
    finally:
        quick.close()
        tight.close()


def test_more_pixels_may_be_asked_for_and_fewer():
    data = png(20_000, 20_000)
    with pytest.raises(PictureError, match=r"promises 20000 x 20000 pixels, more than 200 million"):
        decode(data)
    with pytest.raises(PictureError, match=r"cannot be decoded|cut short"):  # the promise passes
        decode(data, limits=Limits(input=500_000_000))
    with pytest.raises(PictureError, match=r"more than 0\.0001 million"):
        decode(png(20, 20), limits=Limits(input=100))


def test_the_result_has_a_limit():
    with pytest.raises(PictureError, match="its result would have 8 x 8 pixels"):
        restore(np.zeros((8, 8, 3), np.uint8), "identity", limits=Limits(output=60))


def test_limits_in_words():
    said = Limits.of("input=400,output=2000,seconds=60,memory=0.5")
    assert said == Limits(400_000_000, 2_000_000_000, 60, 1 << 29)
    assert Limits.of("") == Limits()
    for words in ("inptu=3", "input", "input=0", "seconds=-1", "memory=nan", "input=many"):
        with pytest.raises(UsageError, match="--limits"):
            Limits.of(words)


def test_the_command_line_takes_limits(relume, tmp_path):
    (tmp_path / "a.png").write_bytes(encode(Picture(np.zeros((20, 20, 3), np.uint8)), "png"))
    words = ("restore", "a.png", "-o", "out", "--model", "identity", "--limits")
    code, _, said = relume(*words, "input=0.0001")
    assert (code, said.count("\n")) == (1, 1)
    assert "raise --limits input" in said
    assert relume(*words, "input=1,seconds=20")[0] == 0
    assert relume(*words, "inputs=1")[0] == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_pipes_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(PictureError, match="a pipe or a device"):
            read_bytes(tmp_path / name)
    (tmp_path / "nameless").symlink_to("/dev/zero")
    assert not is_image(tmp_path / "nameless")
    done = threading.Event()

    def work():
        job = Job([tmp_path / "pipe.png", tmp_path / "zero.png"], tmp_path / "out")
        assert run(job, lambda path, picture: None).exit_code == 1
        done.set()

    threading.Thread(target=work, daemon=True).start()
    assert done.wait(30)


# Every file that broke the reader, or would have.


def test_an_orientation_of_ten_thousand_digits_is_none():
    name = next(make for name, make, _ in BOMBS if name == "xmp-number.png")
    assert decode(name()).orientation == 1


def test_a_directory_copies_no_more_than_its_file_holds():
    overlapping = next(make for name, make, _ in BOMBS if name == "overlap.tif")()
    page = tags.directory(overlapping, "<", 8)
    assert page is not None
    assert sum(len(entry.raw) for entry in page.entries.values()) <= 2 * len(overlapping) + 65536


def test_a_ring_of_pages_ends():
    assert len(tags.directories(tiff({256: (4, 1, 8)}, bytes(40), again=8))) == 1


def test_an_animation_of_ten_thousand_pictures_is_one_record():
    assert decode(gif(4, 4, frames=10_000)).frames == 10_000


def test_loaders_that_were_never_hardened_are_blocked():
    from relume.image.libvips import pyvips

    for suffix, data in ((".pgm", b"P5 1 1 255\n\0"), (".svg", b"<svg width='9' height='9'/>")):
        path = Path(os.environ["RELUME_CACHE"]) / f"x{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        with pytest.raises(pyvips.Error):
            pyvips.Image.new_from_file(str(path)).avg()
        with pytest.raises(PictureError, match="not a picture that relume reads"):
            decode(data)
