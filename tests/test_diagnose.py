"""What is wrong, where, how badly, how sure: from maps to words, files and a page."""

import json
from dataclasses import replace
from html import unescape
from typing import ClassVar

import numpy as np
import pytest

from relume import survey
from relume.batch import Job
from relume.card import MASKS, QUALITY, Card, Sureness, names
from relume.checkup import PICTURED, _with_legend, page, task
from relume.diagnosis import Evidence, Finding, diagnose, judged, overlay, place
from relume.errors import ModelError, PictureError
from relume.guidance import Guide
from relume.image import Picture, read, write
from relume.priors.damage import ACTION, KINDS, DamagePrior
from relume.restoration import Masks, restore, to_act


def maps_of(height=192, width=256, **painted):
    """A Guide of all kinds, 0 but where `painted` says: kind -> (rows, columns, severity)."""
    maps = np.zeros((1, len(KINDS), height, width), np.float32)
    for kind, (rows, columns, severity) in painted.items():
        maps[0, KINDS.index(kind), rows, columns] = severity
    return Guide(maps=maps, names=KINDS, units=("severity",) * len(KINDS))


class Bright:
    """A mask network's engine that takes what is bright for dust, and what is dark for rain."""

    name, precision, device, first = "fake", "float32", "cpu", None
    notes: ClassVar[list[str]] = []
    card = Card("bright", emits=("rain", "dust"), digest="0" * 8)

    def __call__(self, tile, guidance):
        luma = tile.mean(1, keepdims=True)
        return np.concatenate([luma < 0.1, luma > 0.9], 1).astype(np.float32)


@pytest.fixture
def scan(tmp_path):
    def make(name="a.png", dust=(8, 40), side=128):
        rgb = np.full((1, 3, side, side), 0.5, np.float32)
        rgb[..., dust[0] : dust[1], dust[0] : dust[1]] = 1
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(Picture.from_rgb(rgb), path)
        return path

    return make


ALL = slice(None)


@pytest.mark.parametrize(
    ("rows", "columns", "words"),
    [
        (ALL, ALL, "everywhere"),
        (slice(0, 40), slice(0, 60), "upper left"),
        (slice(75, 115), slice(100, 150), "centre"),
        (slice(160, 192), slice(200, 256), "lower right"),
        (slice(0, 70), ALL, "upper half"),
        (slice(110, 192), ALL, "lower half"),
        (ALL, slice(140, 256), "right half"),
        (slice(70, 120), ALL, "across the middle"),
        (ALL, slice(100, 150), "down the middle"),
    ],
)
def test_places_have_names(rows, columns, words):
    share = np.zeros((192, 256))
    share[rows, columns] = 1
    assert place(share) == words
    coarse = Evidence.of(share.astype(np.float32), 0.5)
    assert coarse.where == words or coarse.squares.shape == (3, 4)  # as coarse as its squares


def test_thin_and_even_is_everywhere_and_a_few_spots_are_scattered():
    even = np.zeros((90, 90))
    even[::9, ::9] = 1
    assert place(even) == "everywhere"
    spots = np.zeros((90, 90))
    for y, x in ((5, 5), (5, 80), (80, 5), (45, 45)):
        spots[y : y + 4, x : x + 4] = 1
    assert place(spots) == "scattered"
    edges = np.ones((90, 90))
    edges[20:70, 20:70] = 0
    assert place(edges) == "along the edges"
    assert place(np.zeros((5, 5))) == "nowhere"


@pytest.mark.parametrize("size", [(1, 1), (7, 200), (64, 64), (65, 130)])
def test_evidence_adds_up_at_any_size(size):
    rng = np.random.default_rng(3)
    severity = rng.random(size).astype(np.float32)
    seen = Evidence.of(severity, 0.5)
    above = severity >= 0.5
    assert seen.area == pytest.approx(above.mean())
    assert seen.mean == pytest.approx((severity * above).mean(), abs=1e-6)
    assert seen.squares.shape == tuple(-(-side // 64) for side in size)
    assert 0 <= seen.worst <= 1


def test_findings_say_what_the_maps_say_the_worst_first():
    maps = maps_of(rain=(ALL, slice(0, 128), 0.5), dust=(slice(0, 40), slice(0, 60), 0.8))
    found = judged(maps, {})
    assert [one.kind for one in found.damage] == ["rain", "dust"]
    rain, dust = found.damage
    assert (rain.severity, rain.area, rain.where) == (pytest.approx(0.5), 0.5, "left half")
    assert dust.severity == pytest.approx(0.8)
    assert dust.where == "upper left"
    assert rain.confidence is None  # nobody held this network against anything
    assert not found.clean
    assert judged(maps_of(), {}).clean
    assert judged(maps_of(rain=(ALL, ALL, 0.2)), {}).clean  # below the action level


def test_confidence_is_the_card_s_and_decides_what_is_told():
    maps = maps_of(rain=(ALL, ALL, 0.4))
    mean = np.log10(0.4 + 1e-6)
    sure = Sureness(0.3, 3.0, 1.0, 0.5)
    (rain,) = judged(maps, {"rain": sure}).damage
    assert rain.confidence == pytest.approx(1 / (1 + np.exp(-(3 + 1.5 * mean))))
    assert judged(maps, {"rain": Sureness(0.3, -2.0, 1.0, 0.5)}).clean
    assert judged(maps, {"rain": Sureness(0.5, 9.0, 1.0, 0.5)}).clean  # nothing to be sure of
    assert judged(maps, {"rain": replace(sure, told=0.95)}).clean  # clean ones reach as much


def test_more_evidence_is_never_less_sure():
    sure = Sureness(0.3, 3.0, 1.0, 1.0)
    areas = [
        Evidence.of(maps_of(dust=(slice(n), ALL, 0.9)).array[0, 8], 0.3) for n in range(0, 190, 30)
    ]
    values = [seen.confidence(sure) for seen in areas]
    assert values == sorted(values)


@pytest.mark.parametrize(
    "sureness",
    [
        [],
        {"rain": {"level": 0.3}},
        {"rain": {"level": 0.3, "offset": "much", "mean": 1, "worst": 1}},
        {"rain": {"level": 1.5, "offset": 0, "mean": 1, "worst": 1}},
        {"rain": {"level": 0.3, "offset": float("nan"), "mean": 1, "worst": 1}},
        {"frost": {"level": 0.3, "offset": 0, "mean": 1, "worst": 1}},
    ],
)
def test_a_card_that_is_sure_of_nonsense_is_refused(sureness):
    card = json.loads(Bright.card.to_json()) | {"sureness": sureness}
    with pytest.raises(ModelError):
        Card.from_json(json.dumps(card))


def test_a_card_keeps_how_sure_it_is():
    sure = {"rain": Sureness(0.3, -1.0, 2.0, 0.5)}
    card = Card("bright", emits=("rain", "dust"), sureness=sure)
    assert Card.from_json(card.to_json()) == card


def test_thin_damage_shows_on_a_small_overlay():
    found = judged(maps_of(scratch=(ALL, slice(100, 101), 1.0)), {})
    assert found.clean  # a line of one pixel is little
    small = np.full((1, 3, 48, 64), 0.5, np.float32)
    drawn = overlay(small, found, ["scratch"])
    assert drawn.shape == small.shape
    assert (drawn[0, 0] - drawn[0, 2] > 0.3).any(0).sum() == 1  # red, one column
    assert np.ptp(overlay(small, found, ["rain"])) == 0


def test_diagnose_takes_files_arrays_and_hides_what_alpha_hides(scan):
    prior = DamagePrior(Bright())
    path = scan()
    assert [one.kind for one in diagnose(path, prior).damage] == ["dust"]
    picture = read(path)
    assert diagnose(picture.rgb(), prior).damage == diagnose(picture, prior).damage
    alpha = np.full((128, 128), 255, np.uint8)
    alpha[8:40, 8:40] = 0
    covered = replace(picture, alpha=alpha)
    assert diagnose(covered, prior).clean


def run(scan, tmp_path, **changes):
    job = Job([tmp_path / "in"], tmp_path / "maps", **changes)
    return survey.run(job, task(DamagePrior(Bright()), maps=True))


def test_maps_are_what_restore_reads_back(scan, tmp_path):
    dusty, clean = scan("in/a.png"), scan("in/b.png", dust=(0, 0))
    outcome = run(scan, tmp_path)
    assert outcome.exit_code == 0
    written = sorted(p.name for p in (tmp_path / "maps").iterdir())
    assert written == [".relume", "a.dust.png", "a.overlay.png", "b.overlay.png"]
    assert read(tmp_path / "maps/a.dust.png").pixels.dtype == np.uint16
    masks = Masks(tmp_path / "maps")
    weight = masks.of(dusty, (128, 128))
    assert set(np.unique(weight)) == {0, 1}
    assert weight[8:40, 8:40].all()
    assert masks.of(clean, (128, 128)).max() == 0
    restored = restore(dusty, "invert", map=weight)
    before, after = read(dusty).pixels, restored.picture.pixels
    assert np.array_equal(before == after, np.broadcast_to(weight[..., None] == 0, before.shape))
    assert restore(clean, "invert", map=masks.of(clean, (128, 128))).unchanged


def test_an_overlay_of_segment_is_no_finding_of_nothing(scan, tmp_path):
    source = scan("in/a.png")
    folder = tmp_path / "seen"
    folder.mkdir()
    for ending in (".regions.png", ".overlay.png"):
        write(read(source), folder / f"a{ending}")
    with pytest.raises(PictureError, match="no mask"):
        Masks(folder).of(source, (128, 128))


def test_a_narrow_picture_s_legend_is_broken_not_cut(scan):
    found = judged(maps_of(64, 130, dust=(ALL, ALL, 0.9)), {})
    wide = judged(maps_of(64, 900, dust=(ALL, ALL, 0.9)), {})
    heights = [
        _with_legend(np.zeros((1, 3, 64, width), np.float32), one).shape[2] - 64
        for width, one in ((130, found), (900, wide))
    ]
    assert heights[0] > 1.5 * heights[1]


def test_a_second_run_looks_again_and_writes_nothing_anew(scan, tmp_path):
    scan("in/a.png")
    first = run(scan, tmp_path)
    stamp = (tmp_path / "maps/a.dust.png").stat().st_mtime_ns
    second = run(scan, tmp_path)
    assert [r["status"] for r in second.records] == ["diagnosed"]
    assert second.records[0]["damage"] == first.records[0]["damage"]
    assert (tmp_path / "maps/a.dust.png").stat().st_mtime_ns == stamp


def test_a_file_of_someone_else_is_not_replaced(scan, tmp_path):
    scan("in/a.png")
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps/a.dust.png").write_text("mine")
    outcome = run(scan, tmp_path, overwrite=True)
    assert outcome.exit_code == 1
    assert "not ours" in outcome.records[0]["message"]
    assert (tmp_path / "maps/a.dust.png").read_text() == "mine"


def test_what_is_black_is_left_alone_and_the_action_level_is_restored():
    level = ACTION["rain"]
    severity = np.array([[0, level / 2, level, 1]], np.float32)
    assert to_act(severity, "rain").tolist() == [[0, 0, 1, 1]]


def test_the_page_holds_everything_and_escapes_names(scan, tmp_path):
    path = scan("in/<b>&.png")
    sections: list[str] = []
    survey.run(
        Job([path], tmp_path),
        task(DamagePrior(Bright()), maps=False, show=sections.append),
        writes=False,
    )
    text = page(sections, ["bad <i>.png: no"])
    assert "<b>&.png" not in text
    assert "<i>" not in text
    assert "<b>&.png" in unescape(text)
    assert text.count("<figure>") == 2
    assert "http" not in text.replace("http-equiv", "")
    assert "dust 1.00 on" in text
    assert "shown, the others" in page(sections * (PICTURED + 1))
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_finding_reads_well():
    assert str(Finding("dust", 0.8, 0.0003, "scattered", 0.9)) == (
        "dust 0.80 on 0.03 % (scattered, 90 % sure)"
    )
    assert str(Finding("haze", 0.4, 1.0, "everywhere", None)) == "haze 0.40 on 100 % (everywhere)"


# The shipped network, through the command line.

ships = pytest.mark.skipif(MASKS not in names(), reason=f"{MASKS} is not shipped")


@ships
def test_diagnose_says_the_contract_s_fields(relume, photo, tmp_path):
    rng = np.random.default_rng(0)
    noisy = np.clip(photo + rng.normal(0, 0.2, photo.shape).astype(np.float32), 0, 1)
    write(Picture.from_rgb(noisy), tmp_path / "noisy.png")
    code, out, err = relume("diagnose", "noisy.png", "--json", "--maps", "maps", "--html", "p.html")
    assert (code, err) == (0, "")
    (row,) = json.loads(out)["rows"]
    assert row["input"] == "noisy.png"
    assert row["clean"] is False
    judged = [row[key] for key in ("tier", "tier_margin", "difficulty")]
    assert (None in judged) is (QUALITY not in names())
    noise = next(one for one in row["damage"] if one["kind"] == "noise")
    assert set(noise) == {"kind", "severity", "area", "where", "confidence"}
    assert noise["severity"] > 0.5
    assert noise["where"] == "everywhere"
    assert noise["confidence"] > 0.9
    assert (tmp_path / "maps/noisy.noise.png").is_file()
    assert "noisy.png" in (tmp_path / "p.html").read_text()


@ships
def test_what_cannot_be_diagnosed_is_one_line(relume, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    code, out, err = relume("diagnose", "bad.png")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert err.startswith("relume: bad.png")
    code, _, err = relume("diagnose", "bad.png", "--model", "relume-s")
    assert code == 2
    assert "says nothing of damage" in err
    code, _, err = relume("diagnose", "gone.png")
    assert code == 1
    assert "no such file" in err
