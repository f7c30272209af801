"""Large pictures: what never is in memory as a whole comes out as what is, byte for byte."""

import itertools
import mmap
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from relume import batch, restoration
from relume.card import Card, Reads
from relume.errors import OutputError, PictureError
from relume.guidance import Guidance, area_resize
from relume.image import Picture, encode, pieces, reader, scratch
from relume.image.colours import Canvas, Colours, enlarged, hides, is_flat
from relume.image.libvips import pyvips
from relume.image.limits import LIMITS
from relume.image.resize import enlarge
from relume.tiling import plan


@dataclass
class Engine:
    """Inverts, adds something of the thumbnail, and enlarges by repetition."""

    card: Card
    name: str = "onnx"
    device: str = "cpu"
    precision: str = "float32"
    first: None = None
    masks: None = None
    notes: list[str] = field(default_factory=list)

    def prepare(self, view, guidance):
        return guidance

    def __call__(self, tile, guidance):
        s, seen = self.card.scale, guidance["thumbnail"].array.mean() if guidance else 0
        return 1 - (tile * 0.9 + seen * np.float32(0.05)).repeat(s, 2).repeat(s, 3)


THUMBNAIL = Reads("thumbnail", "maps", 3, (3, 96, 96), whole=True)


@pytest.fixture
def all_is_large(monkeypatch):
    """Every picture counts as large, and a strip is a few rows."""
    monkeypatch.setattr(scratch, "LARGE", 1)
    monkeypatch.setattr(scratch, "STRIP", 4000)


@pytest.fixture
def files_too(all_is_large, monkeypatch):
    """And every file, which gets a process of its own."""
    monkeypatch.setattr(pieces, "LARGE", 1)
    monkeypatch.setattr(pieces, "PIECE", 1000)


def drawn(kind=np.uint8, channels=3, alpha=False, height=141, width=97, **said) -> Picture:
    rng = np.random.default_rng(3)
    slope = np.linspace(0.1, 0.9, height)[:, None, None] * np.linspace(1, 0.6, width)[:, None]
    values = slope + rng.normal(0, 0.05, (height, width, channels + 1))
    if kind is not np.float32:
        values = np.clip(values, 0, 1) * np.iinfo(kind).max
    values = values.astype(kind)
    mask = np.where(rng.random((height, width)) < 0.9, values[..., -1], 0).astype(kind)
    mask[:40, 10:60] = 0
    bits = 8 * np.dtype(kind).itemsize
    return Picture(values[..., :-1].copy(), mask if alpha else None, bits=bits, **said)


def turned(data: bytes, orientation: int) -> bytes:
    image = pyvips.Image.new_from_buffer(data, "").copy()
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    return image.jpegsave_buffer(Q=95)


FILES = {
    "plain.png": encode(drawn(), "png"),
    "gray.png": encode(drawn(channels=1), "png"),
    "deep.png": encode(drawn(np.uint16, alpha=True), "png"),
    "hidden.png": encode(drawn(alpha=True), "png"),
    "plain.jpg": encode(drawn(), "jpeg"),
    "turned.jpg": turned(encode(drawn(), "jpeg"), 6),
    "mirrored.jpg": turned(encode(drawn(), "jpeg"), 7),
    "deep.tif": encode(drawn(np.uint16, dpi=(300.0, 300.0)), "tiff"),
    "float.tif": encode(drawn(np.float32), "tiff"),
    "clear.tif": encode(drawn(alpha=True), "tiff"),
    "plain.webp": encode(drawn(), "webp"),  # comes whole: it is not read in rows
}
"""Every kind of samples, turning and container."""


def restored(folder: Path, out: Path, card: Card, **named) -> dict[str, bytes]:
    job = batch.Job([folder], out, settings={"model": card.name})
    one = restoration.for_files(Engine(card), restoration.Masks(), **named)
    outcome = batch.run(job, one)
    assert [r["message"] for r in outcome.records if r["status"] != "restored"] == []
    assert sorted(p.name for p in (out / ".relume").iterdir()) == ["journal.jsonl"]
    return {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()}


@pytest.fixture
def folder(tmp_path) -> Path:
    scans = tmp_path / "scans"
    scans.mkdir()
    for name, data in FILES.items():
        (scans / name).write_bytes(data)
    return scans


@pytest.mark.parametrize(
    ("card", "named"),
    [
        (Card("plain"), {}),
        (Card("told", reads=(THUMBNAIL,), multiple_of=8, overlap=3, reach=3), {"tile": 64}),
        (Card("half", reach=2, overlap=2), {"strength": 0.5, "tile": 32}),
        (Card("twice", scale=2, reach=2, overlap=2), {"strength": 0.7, "tile": 32}),
    ],
    ids=lambda value: value.name if isinstance(value, Card) else "",
)
def test_a_large_picture_gives_the_bytes_that_a_small_one_gives(
    folder, tmp_path, card, named, request
):
    whole = restored(folder, tmp_path / "whole", card, **named)
    request.getfixturevalue("all_is_large")
    made = []
    real = scratch.empty
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scratch, "empty", lambda *a: made.append(a) or real(*a))
        strips = restored(folder, tmp_path / "strips", card, **named)
    assert len(made) >= 2 * len(FILES) - 2  # the control: they did go through files
    assert {n for n in whole if whole[n] != strips.get(n)} == set()


def test_a_map_holds_in_strips_to_the_sample(tmp_path, all_is_large):
    (tmp_path / "a.png").write_bytes(FILES["deep.png"])
    mask = np.zeros((141, 97), np.uint8)
    mask[70:, 20:] = 255
    (tmp_path / "mask.png").write_bytes(encode(Picture(mask[..., None]), "png"))
    job = batch.Job([tmp_path / "a.png"], tmp_path / "out", settings={"model": "plain"})
    masks = restoration.Masks(tmp_path / "mask.png")
    assert batch.run(job, restoration.for_files(Engine(Card("plain")), masks)).exit_code == 0
    before, after = reader.read(tmp_path / "a.png"), reader.read(tmp_path / "out" / "a.png")
    assert np.array_equal(before.pixels[mask == 0], after.pixels[mask == 0])
    assert (before.pixels[mask > 0] != after.pixels[mask > 0]).mean() > 0.9


@pytest.mark.parametrize("name", [n for n in FILES if not n.endswith("webp")])
@pytest.mark.parametrize("mapped", [False, True])
def test_strips_together_are_the_picture(tmp_path, all_is_large, name, mapped):
    (tmp_path / name).write_bytes(FILES[name])
    with (tmp_path / name).open("rb") as file:
        data = pieces.mapped(file.fileno()) if mapped else FILES[name]
        found = reader.surveyed(data, name)
        strips = reader.strips(found, name)
        parts = []
        while True:
            try:
                parts.append(next(strips))
            except StopIteration as end:
                said = end.value
                break
    whole = reader.read(tmp_path / name)
    assert len(parts) >= 4
    assert [p.top for p in parts] == list(np.cumsum([0, *(len(p.samples) for p in parts)])[:-1])
    shown = reader.as_shown(np.concatenate([p.samples for p in parts]), said)
    assert np.array_equal(shown.pixels, whole.pixels)
    assert whole.alpha is None or np.array_equal(shown.alpha, whole.alpha)
    assert (shown.icc, shown.dpi, shown.notes) == (whole.icc, whole.dpi, whole.notes)


@pytest.mark.parametrize("name", ["plain.png", "plain.jpg", "deep.tif"])
def test_a_large_file_that_is_cut_is_refused_and_leaves_nothing(tmp_path, files_too, name):
    scans = tmp_path / "scans"
    scans.mkdir()
    (scans / name).write_bytes(FILES[name][: len(FILES[name]) * 2 // 3])
    job = batch.Job([scans], tmp_path / "out", settings={"model": "plain"})
    outcome = batch.run(job, restoration.for_files(Engine(Card("plain")), restoration.Masks()))
    assert (outcome.exit_code, outcome.records[0]["status"]) == (1, "refused")
    assert name in outcome.records[0]["message"]
    assert [p.name for p in (tmp_path / "out").iterdir()] == [".relume"]
    assert {p.name for p in (tmp_path / "out" / ".relume").iterdir()} <= {"journal.jsonl"}


def test_no_room_for_a_large_picture_is_an_output_error(tmp_path, monkeypatch):
    def full(file, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scratch, "reserve", full)
    with pytest.raises(OutputError, match="do not fit"):
        scratch.empty((10, 10), np.uint8, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_child_that_lies_about_its_strips_is_not_believed(tmp_path):
    from relume.image.apart import _Strips

    rows = [bytearray(30)]
    for wrong in (
        {"top": 9, "shape": (10, 5, 3), "kind": "uint8"},
        {"top": -1, "shape": (10, 5, 3), "kind": "uint8"},
        {"top": 0, "shape": (10, 5, 3), "kind": "object"},
        {"top": 0, "shape": (10**5, 10**5, 3), "kind": "uint8"},
        {"top": 0, "shape": (10, 1, 30), "kind": "uint8"},
    ):
        with pytest.raises((ValueError, TypeError)):
            _Strips(tmp_path, LIMITS.input).take(wrong, rows)
    strips = _Strips(tmp_path, LIMITS.input)
    strips.take({"top": 8, "shape": (10, 5, 3), "kind": "uint8"}, rows)
    assert strips.samples is not None
    assert strips.samples.shape == (10, 5, 3)


def test_arrays_on_disk_are_arrays(tmp_path):
    array = scratch.empty((50, 40, 3), np.uint16, tmp_path)
    assert list(tmp_path.iterdir()) == []  # it has no name, and cannot be left behind
    values = np.random.default_rng(0).integers(0, 65536, array.shape, np.uint16)
    array[:] = values
    scratch.let_go(array, array[3:], None)
    assert np.array_equal(array, values)
    beside = scratch.like(array[1:].transpose(1, 0, 2), (3, 3), np.float32)
    assert scratch.folder_of(beside) == tmp_path
    assert scratch.folder_of(scratch.like(values, (3, 3), np.float32)) is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scratch, "STRIP", 600)
        copy = scratch.contiguous(array.swapaxes(0, 1)[:, ::-1])
    assert np.array_equal(copy, values.swapaxes(0, 1)[:, ::-1])
    assert scratch.folder_of(copy) == tmp_path


def test_what_hides_is_filled_alike_in_strips(tmp_path, all_is_large, monkeypatch):
    monkeypatch.setattr("relume.image.colours.WHOLE", 100)  # several levels come in rows
    picture = drawn(alpha=True, height=150, width=101)
    assert hides(picture)
    expected = picture.rgb(fill_hidden=True)
    colours = Colours(picture, fill_hidden=True)
    tops = [0, 1, 7, 64, 65, 149, 150]
    seen = np.concatenate([colours.rows(a, b) for a, b in itertools.pairwise(tops)], 2)
    assert np.array_equal(seen, expected)
    assert np.array_equal(colours.whole(), expected)
    assert not np.array_equal(expected, picture.rgb())


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_enlarged_rows_are_rows_of_the_enlargement(scale):
    values = np.random.default_rng(0).random((2, 23, 9), np.float32)
    whole = enlarge(values, scale)
    for top in range(0, 23 * scale, 4):
        bottom = min(23 * scale, top + 5)
        part = enlarged(lambda a, b: values[:, a:b], 23, scale, top, bottom)
        assert np.array_equal(part, whole[:, top:bottom])


def test_tiles_come_in_strips_that_are_the_whole():
    rgb = np.random.default_rng(0).random((1, 3, 200, 150), np.float32)
    for scale, overlap, multiple in ((1, 0, 1), (1, 12, 8), (2, 5, 1), (3, 9, 4)):
        tiles = plan(200, 150, scale=scale, overlap=overlap, multiple_of=multiple, tile=48)

        def fn(tile, guidance, scale=scale):
            return np.sqrt(tile).repeat(scale, 2).repeat(scale, 3)

        parts = list(tiles.strips(rgb, Guidance(), fn))
        assert len(parts) > 2
        together = np.concatenate([rows for _, rows in parts], 2)
        assert [top for top, _ in parts] == list(
            np.cumsum([0, *(rows.shape[2] for _, rows in parts)])[:-1]
        )
        assert np.array_equal(together, tiles.run(rgb, Guidance(), fn))


def test_the_thumbnail_of_a_large_picture_is_its_mean(monkeypatch):
    picture = drawn(height=300, width=201)
    whole = area_resize(picture.rgb(), 96, 96)
    assert np.array_equal(area_resize(Colours(picture), 96, 96), whole)
    monkeypatch.setattr("relume.guidance.LARGE", 1000)
    strips = area_resize(Colours(picture), 96, 96)
    assert np.abs(strips - whole).max() < 1e-6  # sums in another order


def test_one_flat_colour_from_a_picture_that_is_none_is_announced():
    class Black(Engine):
        def __call__(self, tile, guidance):
            return np.zeros_like(tile)

    picture = drawn()
    said = restoration.restore(picture, Black(Card("black"))).announced
    assert any("one flat colour" in words for words in said)
    flat = Picture(np.full((20, 30, 3), 80, np.uint8))
    assert is_flat(flat)
    assert restoration.restore(flat, Black(Card("black"))).announced == ()
    assert restoration.restore(picture, Engine(Card("plain"))).announced == ()


def test_a_canvas_takes_rows_in_any_order():
    picture = drawn(np.uint16, channels=1)
    canvas = Canvas(picture)
    rgb = picture.rgb()
    for top in (100, 0, 50):
        canvas.put(top, rgb[:, :, top : top + 50])
    assert np.array_equal(canvas.done().pixels, picture.pixels)


def test_a_large_file_is_given_in_pieces(tmp_path, files_too):
    (tmp_path / "a").write_bytes(bytes(range(256)) * 20)
    data = reader.contents(tmp_path / "a")
    assert isinstance(data, pieces.Pieces)
    assert b"".join(data) == (tmp_path / "a").read_bytes()
    assert pieces.sha256(data).digest() == pieces.sha256((tmp_path / "a").read_bytes()).digest()
    with (tmp_path / "a").open("rb") as file:
        spliced = pieces.Pieces(file, [b"head", (10, 3000), b"tail"])
    assert b"".join(spliced) == b"head" + (tmp_path / "a").read_bytes()[10:3000] + b"tail"
    assert len(spliced) == 2998
    with (tmp_path / "a").open("rb") as file:
        assert isinstance(pieces.mapped(file.fileno()), mmap.mmap)
    (tmp_path / "a").write_bytes(b"short")
    with pytest.raises(OSError, match="shorter"):
        list(data)


def test_a_tiff_of_wide_offsets_says_what_a_classic_one_says(tmp_path, all_is_large, monkeypatch):
    picture = drawn(dpi=(300.0, 300.0), xmp=b"<x:xmpmeta/>", icc=None)
    for name, most in (("classic.tif", 1 << 40), ("big.tif", 1)):
        monkeypatch.setattr("relume.image.writer._CLASSIC", most)
        pixels = scratch.empty(picture.pixels.shape, np.uint8, tmp_path)
        pixels[:] = picture.pixels
        large = Picture(pixels, dpi=picture.dpi, xmp=picture.xmp)
        (tmp_path / name).write_bytes(encode(large, "tiff"))
    assert (tmp_path / "big.tif").read_bytes()[:4] == b"II+\0"
    for name in ("classic.tif", "big.tif"):
        again = reader.read(tmp_path / name)
        assert np.array_equal(again.pixels, picture.pixels)
        assert (again.dpi, again.xmp) == (picture.dpi, picture.xmp)


def test_out_of_memory_in_the_middle_begins_again_with_smaller_tiles(tmp_path, all_is_large):
    class Short(Engine):
        def __call__(self, tile, guidance):
            self.calls = getattr(self, "calls", 0) + 1
            if tile.shape[2] * tile.shape[3] > 64 * 64 and self.calls > 2:
                raise MemoryError
            return 1 - tile

    (tmp_path / "a.png").write_bytes(FILES["plain.png"])
    job = batch.Job([tmp_path / "a.png"], tmp_path / "out", settings={"model": "short"})
    engine = Short(Card("short", overlap=2, reach=2))
    outcome = batch.run(job, restoration.for_files(engine, restoration.Masks(), tile=80))
    assert outcome.exit_code == 0
    assert any("memory ran out" in words for words in outcome.records[0]["announced"])
    after = reader.read(tmp_path / "out" / "a.png").pixels
    assert np.array_equal(after, 255 - reader.read(tmp_path / "a.png").pixels)


def test_a_picture_that_no_tile_fits_is_refused_and_the_others_go_on(tmp_path, all_is_large):
    class Never(Engine):
        def __call__(self, tile, guidance):
            if tile.mean() > 0.9:
                raise MemoryError
            return tile

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(
        encode(Picture(np.full((99, 99, 3), 255, np.uint8)), "png")
    )
    (tmp_path / "in" / "b.png").write_bytes(FILES["plain.png"])
    job = batch.Job([tmp_path / "in"], tmp_path / "out", settings={"model": "never"})
    outcome = batch.run(job, restoration.for_files(Never(Card("never")), restoration.Masks()))
    assert [r["status"] for r in outcome.records] == ["refused", "restored"]
    assert "memory" in outcome.records[0]["message"]
    with pytest.raises(PictureError):
        restoration.restore(tmp_path / "in" / "a.png", Never(Card("never")))
