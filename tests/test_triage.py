"""Piles: what decides them, the worst first; a table that runs nothing, a page that is safe."""

import csv
import io
import json
import re
from html import unescape
from typing import ClassVar

import numpy as np
import pytest

from relume import triage
from relume.card import DEFAULT, MASKS, Card, find, names
from relume.diagnosis import Diagnosis, Finding
from relume.errors import OutputError
from relume.guidance import Guide
from relume.image import Picture, decode, place, preview, read, write
from relume.piles import LESSENED, MENDED, PILES, burden, pile, worst_first
from relume.priors.damage import KINDS, DamagePrior
from relume.sorting import COLUMNS, THUMBNAIL, counts, page, rows, table

NONE = Guide(maps=np.zeros((1, 1, 1, 1), np.float32), names=("noise",), units=("severity",))


def seen(*damage, tier=None, margin=None, difficulty=None):
    """A diagnosis of findings (kind, severity, area, confidence)."""
    found = tuple(Finding(k, s, a, "everywhere", c) for k, s, a, c in damage)
    return Diagnosis(found, NONE, {}, tier, margin, difficulty)


NOISE, BLUR, DUST = (("noise", 0.6, 1, 0.97), ("blur", 0.4, 1, 0.9), ("dust", 0.5, 0.02, 0.9))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        # Nothing found.
        (seen(), "clean"),
        (seen(tier="high", margin=0.5), "clean"),
        (seen(tier="low", margin=0.5), "ask"),
        (seen(tier="medium", margin=0.5), "clean"),
        # The tier contradicts what was found.
        (seen(NOISE, tier="high", margin=0.5, difficulty=0.1), "ask"),
        (seen(NOISE, tier="medium", margin=0.05, difficulty=0.1), "easy"),
        # The worst finding is a close call: near the threshold of its kind.
        (seen(("rain", 0.5, 1, 0.55)), "ask"),
        (seen(("rain", 0.5, 1, 0.65)), "easy"),
        (seen(("noise", 0.5, 1, 0.83)), "ask"),
        (seen(("noise", 0.5, 1, 0.85)), "easy"),
        (seen(("noise", 0.5, 1, None)), "easy"),
        (seen(NOISE, ("rain", 0.5, 0.1, 0.55)), "easy"),
        (seen(("dust", 0.5, 0.02, 0.51)), "ask"),
        # What the default was never trained for is hard, whatever is expected.
        (seen(DUST), "hard"),
        (seen(("scratch", 0.4, 0.001, 0.9)), "hard"),
        (seen(("fade", 0.4, 1, 0.9), tier="low", margin=0.5, difficulty=0), "hard"),
        (seen(NOISE, DUST, tier="low", margin=0.5, difficulty=0), "hard"),
        (seen(("frost", 0.4, 1, None)), "hard"),
        # Not by the error that is expected, but by what of the damage is mended.
        (seen(NOISE, tier="low", margin=0.5, difficulty=0.9), "easy"),
        (seen(BLUR, tier="medium", margin=0.5, difficulty=0.2), "hard"),
        (seen(NOISE), "easy"),
        (seen(BLUR), "hard"),
        (seen(("compression", 0.5, 1, 0.9)), "hard"),
        (seen(("blur", 0.4, 0.2, 0.9)), "easy"),
        (seen(NOISE, BLUR), "easy"),
        (seen(BLUR, ("noise", 0.3, 1, 0.9)), "hard"),
    ],
)
def test_the_law_of_the_piles(found, expected):
    name, why = pile(found, {"noise": 0.8})
    assert name == expected
    assert why
    assert "\n" not in why


def test_no_pile_is_missing_and_no_kind_in_both_sets():
    assert set(PILES) == {"clean", "easy", "hard", "ask"}
    assert not MENDED & LESSENED
    assert set(KINDS) >= MENDED | LESSENED


def test_the_sets_are_what_the_default_s_card_says():
    if DEFAULT not in names():
        pytest.skip(f"{DEFAULT} is not shipped")
    gain = {key: row["gain"] for key, row in find(DEFAULT).card.figures.items() if "gain" in row}
    gain |= {"noise": gain["noise25"], "compression": gain["jpeg"]}
    assert min(gain[kind] for kind in MENDED) >= 7.9  # five sixths of the squared error
    assert max(gain[kind] for kind in LESSENED) < 3.01  # half of it


def row(name, on, damage=(), difficulty=None):
    found = [d.to_json() for d in seen(*damage).damage]
    more = {"why": "said", "tier": None, "tier_margin": None, "status": "sorted"}
    return {"input": name, "pile": on, "difficulty": difficulty, "damage": found, **more}


def test_rows_are_sorted_worst_first_by_one_key():
    unread = {**row("z", None), "damage": None, "status": "refused", "message": "z: it is empty."}
    hidden = {**row(".y", None), "status": "skipped"}
    given = [
        row("a", "clean"),
        row("b", "easy", [NOISE]),
        row("c", "hard", [("blur", 0.3, 1, 0.9)]),
        row("d", "hard", [BLUR]),
        row("e", "ask", [NOISE]),
        hidden,
        row("f", "easy", [("noise", 0.2, 0.1, 0.97)], difficulty=0.9),
        unread,
        row("b2", "easy", [NOISE]),
    ]
    found = rows(given)
    assert [one["input"] for one in found] == ["z", "e", "d", "c", "f", "b", "b2", "a"]
    assert found[0]["why"] == "not looked at: it is empty."
    assert found[0]["pile"] == "ask"
    assert found == sorted(found, key=worst_first)
    assert counts(found) == {"ask": 2, "hard": 2, "easy": 3, "clean": 1}
    assert burden(seen(NOISE, BLUR).damage) == pytest.approx(1.0)
    assert burden(()) == 0


# The table.


def cells(found):
    data = table(found)
    text = data.decode("utf-8")
    assert not data.startswith(b"\xef\xbb\xbf")
    assert text.splitlines(keepends=True)[0].endswith("\r\n")
    return list(csv.reader(io.StringIO(text, newline="")))


def test_a_table_has_stable_columns_and_says_what_was_found():
    first = {**row('a,"b".png', "hard", [BLUR, DUST], 0.7), "tier": "low", "tier_margin": 0.31}
    head, said = cells([first])
    assert tuple(head) == COLUMNS
    assert COLUMNS[:6] == ("file", "pile", "tier", "margin", "difficulty", "damage")
    damage = "blur:0.4:1 dust:0.5:0.02"
    assert said == ['a,"b".png', "hard", "low", "0.31", "0.7", damage, "said"]
    assert cells([row("ä.png", "clean")])[1] == ["ä.png", "clean", "", "", "", "", "said"]
    assert cells([]) == [list(COLUMNS)]
    assert table([]).endswith(b"\r\n")


@pytest.mark.parametrize("name", ["=1+1.png", "+a", "-a", "@a", "\t=a", "\r=a", "\n=a", "a;=1+1"])
def test_no_cell_begins_like_a_formula(name):
    hostile = {**row(name, "ask"), "why": name}
    for separator in (",", ";"):  # what spreadsheets of other countries part cells at
        text = table([hostile]).decode()
        for line in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
            assert not [cell for cell in line if cell.lstrip("\t\r\n ").startswith(tuple("=+@"))]
    said = cells([hostile])[1][0]
    assert said in (name, f"./{name}")  # the same file still


def test_a_name_that_is_no_utf_8_is_still_a_row():
    assert cells([row("a\udcff.png", "clean")])[1][0] == "a\\udcff.png"
    assert b"a\\udcff.png" in b"".join(page([row("a\udcff.png", "clean")], {}))


# The page.


def test_the_page_is_self_contained_and_escapes_names(photo):
    name = '"><script>alert(1)</script>.png'
    small = preview(Picture.from_rgb(photo), THUMBNAIL)
    found = rows([row(name, "hard", [BLUR]), row("b.png", "clean")])
    text = b"".join(page(found, {name: small}, models=["<i>m"])).decode()
    assert "<script>alert" not in text
    assert "<i>" not in text
    assert name in unescape(text)
    assert "http" not in text.replace("http-equiv", "")
    assert not re.search(r"//cdn|@import|url\(", text)
    (source,) = re.findall(r'src="([^"]*)"', text)
    assert source.startswith("data:image/jpeg;base64,")
    (image,) = re.findall("<img [^>]*>", text)
    assert 'loading="lazy"' in image
    assert 'alt="&quot;&gt;&lt;script' in image
    assert text.count("no picture</span>") == 1


def test_the_page_counts_its_piles_and_shows_them_worst_first():
    found = rows([row("a", "clean"), row("b", "ask"), row("c", "hard", [BLUR], 0.8)])
    text = b"".join(page(found, {})).decode()
    opened = {"easy": ""}  # there is nothing to see
    places = [text.index(f'<details{opened.get(n, " open")} id="{n}">') for n in PILES]
    assert places == sorted(places)
    assert "3 pictures. Show" in text
    for name, count in counts(found).items():
        assert f"<b>{name}</b> {count}</label>" in text
        assert f"#show-{name}:not(:checked)) #{name} {{ display: none }}" in text
    assert "difficulty 0.8" in text
    assert "How the piles are chosen" in text


def test_a_page_of_many_is_made_piece_by_piece():
    found = rows([row(f"{i}.png", "clean") for i in range(500)])
    pieces = list(page(found, {f"{i}.png": b"x" * 6000 for i in range(500)}))
    assert max(map(len, pieces)) < 10_000
    assert sum(map(len, pieces)) / 500 < 9_000


def test_a_thumbnail_is_small_srgb_and_flat(photo):
    small = decode(preview(Picture.from_rgb(np.tile(photo, (1, 1, 4, 4))), THUMBNAIL))
    assert (small.height, small.width) == (120, 160)
    assert small.icc is None
    tiny = decode(preview(Picture.from_rgb(photo), THUMBNAIL))
    assert (tiny.height, tiny.width) == (96, 128)
    narrow = decode(preview(Picture(np.full((3000, 2, 1), 99, np.uint8)), THUMBNAIL))
    assert (narrow.height, narrow.width) == (160, 1)
    deep = Picture(np.full((20, 20, 3), 200 * 257, np.uint16), np.zeros((20, 20), np.uint16))
    hidden = decode(preview(deep, THUMBNAIL)).pixels
    assert np.ptp(hidden) <= 2
    assert abs(int(hidden[0, 0, 0]) - 119) <= 2
    broken = Picture(np.full((20, 20, 3), 90, np.uint8), icc=b"\0" * 16 + b"RGB " + b"\0" * 200)
    assert abs(int(decode(preview(broken, THUMBNAIL)).pixels[5, 5, 0]) - 90) <= 2


def test_a_thumbnail_has_the_colours_that_the_profile_means(photo):
    profile = pytest.importorskip("PIL.ImageCms")
    lab = profile.ImageCmsProfile(profile.createProfile("sRGB")).tobytes()
    same = Picture(np.full((20, 20, 3), (180, 90, 40), np.uint8), icc=lab)
    assert np.abs(decode(preview(same, 160)).pixels.astype(int) - (180, 90, 40)).max() <= 4
    # The same profile with the primaries of red and green exchanged: its red is green.
    swapped = lab.replace(b"rXYZ", b"xXYZ").replace(b"gXYZ", b"rXYZ").replace(b"xXYZ", b"gXYZ")
    shown = decode(preview(Picture(same.pixels, icc=swapped), 160)).pixels[9, 9].astype(int)
    assert shown[1] > shown[0] + 40


def test_pieces_are_placed_whole_or_not_at_all(tmp_path):
    place(iter([b"a", b"b"]), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"ab"

    def broken():
        yield b"a"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place(broken(), tmp_path / "y")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    with pytest.raises(OutputError):
        place(iter([b"c"]), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"ab"


# Folders.


class Bright:
    """A mask network's engine that takes what is bright for dust, and what is dark for noise."""

    name, precision, device, first = "fake", "float32", "cpu", None
    notes: ClassVar[list[str]] = []
    card = Card("bright", emits=("noise", "dust"), digest="0" * 8)

    def __call__(self, tile, guidance):
        luma = tile.mean(1, keepdims=True)
        return np.concatenate([luma < 0.1, luma > 0.9], 1).astype(np.float32)


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "in"
    for name, value in (("clean.png", 0.5), ("=dusty.png", 1.0), ("below/noisy.png", 0.0)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(Picture.from_rgb(np.full((1, 3, 48, 64), value, np.float32)), path)
    (folder / "bad.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("none either")
    write(read(folder / "clean.png"), folder / ".hidden.png")
    return folder


def test_triage_in_python(scans):
    prior = DamagePrior(Bright())
    found = triage(scans, prior, None)
    assert [(one["input"].split("/in/")[1], one["pile"]) for one in found] == [
        ("bad.png", "ask"),
        ("=dusty.png", "hard"),
        ("clean.png", "clean"),
    ]
    assert "not a picture" in found[0]["why"]
    assert len(triage([scans], prior, None, recursive=True)) == 4
    assert "bad.png" not in found[0]["why"]


def test_the_order_of_files_decides_nothing(scans):
    prior = DamagePrior(Bright())
    files = sorted(scans.glob("*.png"))
    one, other = triage(files, prior, None), triage(files[::-1], prior, None)
    assert [{**r, "seconds": 0} for r in one] == [{**r, "seconds": 0} for r in other]


ships = pytest.mark.skipif(MASKS not in names(), reason=f"{MASKS} is not shipped")


@ships
def test_a_folder_becomes_json_a_table_and_a_page(relume, scans, tmp_path):
    before = {path: path.read_bytes() for path in scans.rglob("*") if path.is_file()}
    words = ("triage", "in", "--csv", "t.csv", "--html", "p.html", "--engine", "onnx")
    code, out, err = relume(*words, "--json")
    document = json.loads(out)
    assert code == document["exit_code"] == 1
    assert err.count("\n") == 1
    assert err.startswith("relume: in/bad.png: ")
    assert (document["sorted"], document["refused"], document["ignored"]) == (2, 1, 1)
    assert sum(document["piles"].values()) == len(document["rows"]) == 3
    fields = {"input", "pile", "tier", "tier_margin", "difficulty", "damage"}
    assert all(fields <= set(one) for one in document["rows"])
    first = document["rows"][0]
    assert (first["input"], first["pile"], first["damage"]) == ("in/bad.png", "ask", None)
    sheet = io.StringIO((tmp_path / "t.csv").read_bytes().decode(), newline="")
    listed = list(csv.DictReader(sheet))
    assert [one["file"] for one in listed] == [one["input"] for one in document["rows"]]
    assert "in/=dusty.png" in (tmp_path / "p.html").read_text()
    assert before == {path: path.read_bytes() for path in scans.rglob("*") if path.is_file()}


@ships
def test_what_is_there_is_not_replaced_and_said_before_the_work(relume, scans, tmp_path):
    picture = (scans / "clean.png").read_bytes()
    for flag in ("--csv", "--html"):
        code, out, err = relume("triage", "in", flag, "in/clean.png")
        assert (code, out) == (3, "")
        assert "already there" in err
        code, out, err = relume("triage", "in", flag, "nowhere/t")
        assert (code, out) == (3, "")
        assert "is not there" in err
    assert (scans / "clean.png").read_bytes() == picture
    assert relume("triage", "in", "--csv", "t", "--html", "t")[0] == 2
    assert not (tmp_path / "t").exists()


@ships
def test_an_empty_folder_has_empty_piles(relume, tmp_path):
    (tmp_path / "none").mkdir()
    code, out, err = relume("triage", "none", "--csv", "t.csv", "--html", "p.html")
    assert code == 0
    assert out.splitlines() == ["t.csv", "p.html"]
    assert err == "relume: 0 ask, 0 hard, 0 easy, 0 clean\n"
    assert "0 pictures" in (tmp_path / "p.html").read_text()
    assert (tmp_path / "t.csv").read_bytes().count(b"\r\n") == 1


@ships
def test_triage_ends_as_the_contract_says(relume, scans):
    code, out, err = relume("triage", "in/clean.png", "--engine", "onnx")
    assert (code, err.count("\n")) == (0, 1)
    assert re.fullmatch(r"(clean|easy|hard|ask) {2,4}in/clean.png: .+\n", out)
    code, out, err = relume("triage", "in/bad.png", "--quiet", "--engine", "onnx")
    assert (code, out, err.count("\n")) == (1, "", 1)
    code, out, _ = relume("triage", "gone", "--engine", "onnx")
    assert code == 1
    assert out.startswith("ask    gone: not looked at: ")
    code, _, err = relume("triage", "in", "--model", "relume-s")
    assert code == 2
    assert "says nothing of damage" in err
