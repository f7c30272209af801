"""Pairs, reports, probes: what `relume evaluate` promises of its numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
from pytest import approx

from relume.card import Card, Reads
from relume.engine import open_engine
from relume.errors import CheckError, GuidanceError, UsageError
from relume.guidance import Guidance, Guide
from relume.image import Picture, enlarge, read, write
from relume.lab.datasets import (
    Loaded,
    Pair,
    Pairs,
    centres,
    degraded_pairs,
    folder_pairs,
    match,
    photograph_of,
)
from relume.lab.evaluate import engine_restorer, evaluate, told_by_truth
from relume.lab.metrics import Protocol, psnr
from relume.lab.report import Report, compare, summary


def put(path: Path, rgb: np.ndarray) -> np.ndarray:
    """Write (3, H, W) in [0, 1] as an 8-bit file; returns what the file holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    write(Picture(pixels=np.ascontiguousarray(pixels)), path)
    return pixels.transpose(2, 0, 1)[None] * np.float32(1 / 255)


def pictures(count: int, side: int = 24) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    smooth = np.linspace(0, 1, side)[:, None] * np.linspace(0.2, 1, side)
    return [np.clip(smooth + 0.1 * rng.random((3, side, side)), 0, 1) for _ in range(count)]


def noisy_pairs(count: int = 6, sigma: float = 0.1, groups: int | None = None) -> Pairs:
    rng = np.random.default_rng(5)

    def pair(i: int, gt: np.ndarray) -> Pair:
        gt = np.float32(np.round(gt[None] * 255) / 255)
        lq = np.float32(np.clip(gt + rng.normal(0, sigma, gt.shape), 0, 1))
        truth = Guidance(level=Guide(maps=np.full((1, 1, *gt.shape[-2:]), 1.0, np.float32)))
        return Pair(f"{i}.png", f"p{i % (groups or count)}", lambda: Loaded(lq, gt, truth))

    items = tuple(pair(i, gt) for i, gt in enumerate(pictures(count)))
    return Pairs(items, {"sha256": "0" * 64, "n": count, "spec": None, "seed": None, "notes": []})


def same(rgb: np.ndarray) -> np.ndarray:
    return rgb


# Pairs


@pytest.mark.parametrize(
    ("stem", "known", "expected"),
    [
        ("a", ["a", "b"], "a"),
        ("1400_1", ["1400", "14"], "1400"),
        ("1_1_0.90179", ["1", "11"], "1"),
        ("0001_0.8_0.2", ["0001"], "0001"),
        ("im1_kernel2_img", ["im1", "im12"], "im1"),
        ("babyx4", ["baby", "bab"], "baby"),
        ("a_b_2", ["a", "a_b"], "a_b"),
        ("boxer", ["bo"], None),
        ("14001", ["1400"], None),
        ("c", ["a"], None),
    ],
)
def test_a_picture_finds_its_truth_by_its_stem(stem, known, expected):
    assert match(stem, known) == expected


def test_pairs_are_found_read_and_counted(tmp_path):
    a, b = pictures(2)
    put(tmp_path / "gt/1.png", a)
    put(tmp_path / "gt/sub/2.png", b)
    first = put(tmp_path / "lq/1_1_0.9.png", a * 0.9)
    put(tmp_path / "lq/1_2_0.7.png", a * 0.7)
    put(tmp_path / "lq/sub/2.png", b * 0.5)
    (tmp_path / "lq/notes.txt").write_text("not a picture")
    pairs = folder_pairs(tmp_path / "lq", tmp_path / "gt")
    assert [p.image for p in pairs.items] == ["1_1_0.9.png", "1_2_0.7.png", "sub/2.png"]
    assert [p.photograph for p in pairs.items] == ["1", "1", "sub/2"]
    assert (pairs.items[0].load().lq == first).all()
    assert pairs.data["n"] == 3
    assert pairs.data["sha256"] == folder_pairs(tmp_path / "lq", tmp_path / "gt").data["sha256"]
    put(tmp_path / "lq/sub/2.png", b * 0.4)
    assert pairs.data["sha256"] != folder_pairs(tmp_path / "lq", tmp_path / "gt").data["sha256"]


def test_files_without_a_partner_are_named(tmp_path):
    (a,) = pictures(1)
    for name in ("gt/a.png", "gt/c.png", "lq/a.png", "lq/b.png"):
        put(tmp_path / name, a)
    with pytest.raises(UsageError, match=r"2 files .*lq/b\.png, gt/c\.png") as caught:
        folder_pairs(tmp_path / "lq", tmp_path / "gt")
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="not a folder"):
        folder_pairs(tmp_path / "nowhere", tmp_path / "gt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no images"):
        folder_pairs(tmp_path / "empty", tmp_path / "gt")
    put(tmp_path / "gt/a.jpg", a)
    with pytest.raises(UsageError, match="one stem"):
        folder_pairs(tmp_path / "lq", tmp_path / "gt")


def test_a_truth_larger_by_an_even_margin_is_cropped_at_the_centre_and_that_is_said(tmp_path):
    (a,) = pictures(1, side=32)
    gt = put(tmp_path / "gt/a.png", a)
    put(tmp_path / "lq/a.png", a[:, 3:-3, 3:-3])
    pairs = folder_pairs(tmp_path / "lq", tmp_path / "gt")
    assert (pairs.items[0].load().gt == gt[..., 3:-3, 3:-3]).all()
    assert pairs.announced == ("gt cropped at the centre by 3 px on each side: 1 of 1",)
    assert evaluate(same, pairs).rows[0]["psnr"] == 60


@pytest.mark.parametrize("cut", [np.s_[:, 1:, 1:], np.s_[:, 2:, :], np.s_[:, :, :20]])
def test_other_differences_of_size_are_refused_by_name(tmp_path, cut):
    (a,) = pictures(1)
    put(tmp_path / "gt/a.png", a)
    put(tmp_path / "lq/a.png", a[cut])
    with pytest.raises(UsageError, match=r"1 pairs do not fit: a\.png \d+x\d+ and a\.png 24x24"):
        folder_pairs(tmp_path / "lq", tmp_path / "gt")


def test_a_truth_of_an_enlargement_is_cropped_to_a_multiple(tmp_path):
    (a,) = pictures(1, side=33)
    gt = put(tmp_path / "gt/baby.png", a)
    lq = put(tmp_path / "lq/babyx2.png", a[:, :32:2, :32:2])
    pairs = folder_pairs(tmp_path / "lq", tmp_path / "gt", scale=2)
    assert (pairs.items[0].load().gt == gt[..., :32, :32]).all()
    assert pairs.announced == ("gt cropped to a multiple of 2: 1 of 1",)
    report = evaluate(lambda rgb: enlarge(rgb, 2), pairs, Protocol(channels="y", crop=2))
    assert report.protocol.scale == 2
    assert report.gain["psnr"]["mean"] == 0  # the bicubic enlargement stands for the input
    with pytest.raises(CheckError, match=r"babyx2\.png.*another scale"):
        evaluate(same, pairs)
    assert lq.shape == (1, 3, 16, 16)


def test_a_detail_crop_shows_the_photograph_it_was_cut_from():
    shows = photograph_of(["a.jpg", "a_d1.jpg", "b_d2.jpg"])
    assert [shows(n) for n in ("a.jpg", "a_d1.jpg", "b_d2.jpg")] == ["a", "a", "b_d2"]


# Damage made on the way


@pytest.fixture
def good(tmp_path) -> Path:
    for i, picture in enumerate(pictures(3, side=48)):
        put(tmp_path / f"good/{i}.png", picture)
    return tmp_path / "good"


def test_the_same_seed_makes_the_same_damage_and_another_another(good):
    def lq(seed: int, index: int = 0, **more) -> np.ndarray:
        spec = "noise:sigma=5..50+haze"
        return degraded_pairs(good, spec, seed=seed, **more).items[index].load().lq

    assert (lq(11) == lq(11)).all()
    assert (lq(11) != lq(12)).any()
    assert (lq(11, 1) != lq(11, 2)).any()
    # Picture i is numbered among those that are taken.
    assert (lq(11, 0, names=["0", "2"]) == lq(11, 0)).all()


def test_noise_is_rounded_as_in_a_file_or_left_as_it_is(good):
    rounded = degraded_pairs(good, "noise:sigma=50", seed=1)
    free = degraded_pairs(good, "noise:sigma=50", seed=1, noise="float")
    a, b = rounded.items[0].load().lq, free.items[0].load().lq
    assert a.dtype == b.dtype == np.float32
    assert np.abs(a * 255 - np.round(a * 255)).max() < 1e-3
    assert b.min() < 0 or b.max() > 1
    assert np.abs(np.clip(b, 0, 1) - a).max() <= 0.5 / 255 + 1e-6
    reports = [evaluate(same, pairs) for pairs in (rounded, free)]
    assert [r.protocol.noise for r in reports] == ["uint8", "float"]
    with pytest.raises(UsageError, match="noise is 'uint8' in one and 'float' in the other"):
        compare(*reports)


def test_the_truth_of_the_damage_comes_along(good):
    loaded = degraded_pairs(good, "rain", seed=1).items[0].load()
    assert loaded.truth["damage.rain"].array.shape == (1, 1, 48, 48)


def test_evaluating_what_degrade_would_write_gives_the_same_scores(good, tmp_path):
    pairs = degraded_pairs(good, "noise:sigma=25+jpeg:quality=30", seed=4)
    for pair in pairs.items:
        put(tmp_path / "lq" / pair.image, pair.load().lq[0])
    fly, files = evaluate(same, pairs), evaluate(same, folder_pairs(tmp_path / "lq", good))
    assert fly.metrics["psnr"] == files.metrics["psnr"]
    assert fly.data["spec"] == fly.protocol.spec == "noise:sigma=25+jpeg:quality=30"
    assert fly.data["seed"] == 4


@pytest.mark.parametrize(
    ("spec", "sigma"),
    [("noise:sigma=25", 25), ("noise:sigma=30+jpeg+noise:sigma=40", 50), ("jpeg", None)],
)
def test_the_truth_knows_the_level_of_the_noise_that_was_added(good, spec, sigma):
    truth = degraded_pairs(good, spec, seed=1).items[0].load().truth
    assert ("noise.sigma" in truth) == (sigma is not None)
    if sigma is not None:
        assert truth["noise.sigma"].array == approx(np.array([[sigma / 255]]))


# Reports


def test_a_report_has_the_contracts_form_and_survives_json(tmp_path):
    report = evaluate(same, noisy_pairs(), model={"name": "identity", "sha256": "ab"})
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert set(document) == {
        *("protocol", "model", "data", "metrics", "input", "gain", "clean", "rows", "against")
    }
    wanted = {"channels": "rgb", "crop": 0, "rounding": "uint8", "ssim": "gaussian-11-1.5"}
    assert wanted.items() <= document["protocol"].items()
    assert set(document["metrics"]) == {"psnr", "ssim", "mcr", "mcr_curve", "local_mcr"}
    assert set(document["metrics"]["psnr"]) == {"mean", "n", "ci95"}
    assert {"image", "psnr", "ssim", "psnr_input", "ssim_input"} <= set(document["rows"][0])
    assert document["gain"]["psnr"] == {"mean": 0, "n": 6, "ci95": [0, 0]}
    assert document["metrics"]["mcr"]["mean"] == 0
    assert document["metrics"]["mcr"]["upper95"] == approx(1 - 0.05 ** (1 / 6), abs=1e-6)
    report.save(tmp_path / "r.json")
    assert Report.load(tmp_path / "r.json").to_json() == document
    with pytest.raises(UsageError, match="no report"):
        Report.from_json({"protocol": {}})


def test_every_printed_number_stands_beside_its_protocol():
    text = str(evaluate(same, noisy_pairs(), Protocol(channels="y", crop=2)))
    assert "on Y" in text and "border 2" in text and "6 pictures" in text and "at most" in text


def test_scores_are_those_of_the_metrics():
    pairs = noisy_pairs()
    report = evaluate(lambda rgb: 0.5 * rgb + 0.2, pairs, Protocol(rounding="none"))
    for row, pair in zip(report.rows, pairs.items, strict=True):
        loaded = pair.load()
        assert row["psnr"] == approx(psnr(0.5 * loaded.lq + 0.2, loaded.gt).item(), abs=1e-5)
        assert row["psnr_input"] == approx(psnr(loaded.lq, loaded.gt).item(), abs=1e-5)
    gains = [row["psnr"] - row["psnr_input"] for row in report.rows]
    assert report.gain["psnr"]["mean"] == approx(np.mean(gains), abs=1e-5)


def test_reports_of_different_protocols_are_not_compared():
    pairs = noisy_pairs()
    rgb, luma = evaluate(same, pairs), evaluate(same, pairs, Protocol(channels="y"))
    with pytest.raises(UsageError, match="channels is 'rgb' in one and 'y' in the other"):
        compare(rgb, luma)
    fewer = noisy_pairs(5)
    with pytest.raises(UsageError, match="only in one"):
        compare(rgb, evaluate(same, fewer))
    other = Pairs(fewer.items, {**fewer.data, "sha256": "1" * 64})
    with pytest.raises(UsageError, match=r"data\.sha256"):
        compare(rgb, evaluate(same, other))
    better = evaluate(lambda rgb: np.clip(rgb, 0.02, 1), pairs)
    assert compare(better, rgb)["psnr"]["n"] == 6


def test_clean_pictures_are_a_row_of_their_own():
    damaged, clean = noisy_pairs(4), noisy_pairs(3, sigma=0.0)
    items = (*damaged.items, *(Pair(f"c{p.image}", p.image, p.load) for p in clean.items))
    pairs = Pairs(items, {**damaged.data, "n": 7})
    report = evaluate(lambda rgb: np.clip(rgb + 0.2, 0, 1), pairs)  # harms clean by 46 dB
    assert report.metrics["psnr"]["n"] == 7
    assert report.gain["psnr"]["n"] == report.metrics["mcr"]["n"] == 4
    assert report.clean["n"] == 3
    assert report.clean["psnr"]["mean"] == approx(14, abs=1)
    assert report.clean["above40"] == 0
    only = evaluate(same, clean)
    assert only.gain["psnr"] == {"mean": None, "n": 0, "ci95": None}
    assert only.metrics["mcr"]["mean"] is None
    assert only.clean["psnr"]["mean"] == 60 and only.clean["above40"] == 1


def test_collapses_are_counted_and_bounded_by_photograph():
    worst = {"done": 0}

    def sometimes(rgb):
        worst["done"] += 1
        return np.zeros_like(rgb) if worst["done"] in (1, 4) else rgb  # both of photograph 0

    mcr = evaluate(sometimes, noisy_pairs(6, groups=3)).metrics["mcr"]
    assert (mcr["count"], mcr["n"], mcr["photographs"]) == (2, 6, 3)
    assert mcr["mean"] == approx(1 / 3)
    assert mcr["upper95"] == approx(0.8647, abs=1e-3)  # 1 of 3 photographs


def test_intervals_take_crops_of_one_photograph_for_one_sample():
    rng = np.random.default_rng(0)
    photographs = rng.normal(0, 1, 30)
    values = np.repeat(photographs, 10)
    groups = [str(i) for i in np.repeat(np.arange(30), 10)]

    def width(found):
        return found["ci95"][1] - found["ci95"][0]

    clustered = width(summary(values, groups))
    alone = width(summary(photographs, [str(i) for i in range(30)]))
    naive = width(summary(values, [str(i) for i in range(300)]))
    assert clustered == approx(alone, rel=0.1)
    assert clustered == approx(naive * np.sqrt(10), rel=0.15)
    assert summary(values, groups) == summary(values, groups)
    assert summary(values[:10], groups[:10])["ci95"] is None


def test_an_answer_that_is_no_picture_is_named():
    with pytest.raises(CheckError, match=r"0\.png.*not finite"):
        evaluate(lambda rgb: rgb * np.nan, noisy_pairs(1))


def test_alignment_is_written_into_the_rows():
    (gt,) = pictures(1, side=40)
    gt = np.float32(gt[None])
    moved = np.roll(gt, (2, -3), (-2, -1))
    data = {"sha256": "0" * 64, "n": 1, "spec": None, "seed": None}
    pairs = Pairs((Pair("a", "a", lambda: Loaded(moved, gt)),), data)
    row = evaluate(same, pairs, Protocol(align=4)).rows[0]
    assert row["psnr"] == 60 and row["shift"] == row["shift_input"] == [2, -3]


# Probes


def test_probes_show_whether_a_model_listens():
    """A model that adds what it is told of the level of noise, and one that does not listen."""

    def prior(rgb):
        return Guidance(level=Guide(maps=np.abs(rgb[:, :1] - rgb[:, 1:2])))

    def listens(rgb, guidance):
        return rgb + 0.2 * (1 - guidance["level"].array)

    names = ["null", "constant", "shuffled", "oracle"]
    told = evaluate(listens, noisy_pairs(), prior=prior, against=names)
    assert set(told.against) == set(names)
    assert told.against["null"]["gain"]["psnr"]["mean"] > 0
    assert told.against["oracle"]["gain"]["psnr"]["mean"] < 0  # the truth, 1, adds nothing
    assert told.against["oracle"]["psnr"]["mean"] == approx(told.input["psnr"]["mean"])
    deaf = evaluate(lambda rgb, guidance: rgb, noisy_pairs(), prior=prior, against=names)
    assert all(found["gain"]["psnr"]["mean"] == 0 for found in deaf.against.values())
    assert "vs shuffled +0.00" in str(deaf)


def test_shuffled_never_tells_a_picture_of_its_own_photograph():
    pairs = noisy_pairs(6, groups=3)
    photograph = {p.load().lq.tobytes(): p.photograph for p in pairs.items}
    heard = []

    def prior(rgb):
        number = float(photograph[rgb.tobytes()][1:])
        return Guidance(who=Guide(vector=np.array([[number]], np.float32)))

    def restore(rgb, guidance):
        heard.append((photograph[rgb.tobytes()], f"p{guidance['who'].array.item():.0f}"))
        return rgb

    evaluate(restore, pairs, prior=prior, against=["shuffled"])
    own, swapped = heard[::2], heard[1::2]
    assert all(a == b for a, b in own)
    assert all(a != b for a, b in swapped)


def test_probes_refuse_what_cannot_be_asked():
    pairs = noisy_pairs(2)
    with pytest.raises(UsageError, match="reads no prior"):
        evaluate(same, pairs, against=["null"])
    with pytest.raises(UsageError, match="Did you mean 'shuffled'"):
        evaluate(same, pairs, against=["shufled"])

    def prior(rgb):
        return Guidance(code=Guide(vector=np.ones((1, 2), np.float32)))

    def restore(rgb, guidance):
        return rgb

    with pytest.raises(UsageError, match="several photographs"):
        evaluate(restore, noisy_pairs(2, groups=1), prior=prior, against=["shuffled"])
    with pytest.raises(GuidanceError, match="oracle"):
        evaluate(restore, pairs, prior=prior, against=["oracle"])


def test_the_oracle_of_damage_is_told_what_the_spec_did_of_the_kinds_that_the_prior_names(good):
    heard: list[Guide] = []

    def prior(rgb):
        maps = np.full((1, 2, *rgb.shape[2:]), 0.3, np.float32)
        return Guidance(damage=Guide(maps=maps, names=("rain", "noise")))

    def restore(rgb, guidance):
        heard.append(guidance["damage"])
        return rgb

    def told(spec, *against) -> list[Guide]:
        heard.clear()
        evaluate(restore, degraded_pairs(good, spec, seed=1), prior=prior, against=against)
        return heard[: 1 + len(against)]

    said, physics, shown = told("rain+noise:sigma=25", "oracle", "oracle_residual")
    true = degraded_pairs(good, "rain+noise:sigma=25", seed=1).items[0].load().truth
    assert physics.names == ("rain", "noise") and (said.array == np.float32(0.3)).all()
    assert np.array_equal(physics.array[0, 0], true["damage.rain"].array[0, 0])
    assert physics.array[0, 1] == approx(np.full((48, 48), 0.5))
    assert shown.names == physics.names and not np.array_equal(shown.array, physics.array)
    assert not told("resize", "oracle")[1].array.any()  # softness is no damage, and that is known
    with pytest.raises(GuidanceError, match="No physical truth stands behind damage"):
        evaluate(restore, folder_pairs(good, good), prior=prior, against=["oracle"])


# Networks that are not blind


class Subtracts:
    """An engine that takes the noise level that it is told off the picture."""

    name, device, precision, notes, first = "subtracts", "cpu", "float32", [], None
    masks = None
    card = Card("subtracts", reads=(Reads("noise.sigma", "vector", 1, (1,)),))

    def prepare(self, view, guidance):
        return guidance

    def __call__(self, tile, guidance):
        return np.float32(tile - guidance["noise.sigma"].array[..., None, None])


def test_a_network_that_is_not_blind_is_told_the_level_and_the_protocol_says_so(good):
    restore, prior = engine_restorer(Subtracts())
    told = told_by_truth(Subtracts.card)
    assert prior is None and told == ("noise.sigma",)
    pairs = degraded_pairs(good, "noise:sigma=51", seed=1, noise="float")
    report = evaluate(restore, pairs, told=told, against=["null", "oracle"])
    by_hand = evaluate(lambda rgb: rgb - 0.2, pairs)
    assert report.metrics["psnr"]["mean"] == approx(by_hand.metrics["psnr"]["mean"], abs=1e-4)
    assert report.protocol.told == ("noise.sigma",)
    assert "told noise.sigma" in str(report)
    assert Report.from_json(json.loads(json.dumps(report.to_json()))).protocol == report.protocol
    assert report.against["null"]["gain"]["psnr"]["mean"] < -1  # this one is better off deaf
    assert report.against["oracle"]["gain"]["psnr"]["mean"] == 0
    with pytest.raises(UsageError, match="told"):
        compare(report, by_hand)


def test_pairs_of_files_do_not_say_how_much_noise_there_is(good):
    restore, _ = engine_restorer(Subtracts())
    with pytest.raises(UsageError, match=r"must be told noise\.sigma.*--degrade"):
        evaluate(restore, folder_pairs(good, good), told=("noise.sigma",))


def test_a_network_that_is_blind_is_told_nothing():
    assert told_by_truth(Card("blind", reads=(Reads("thumbnail", "vector", 1, (1,)),))) == ()


# A model's own path


def test_a_gray_picture_comes_back_gray():
    class Tints(Subtracts):
        card = Card("tints")

        def __call__(self, tile, guidance):
            return tile * np.float32([1, 0.5, 0]).reshape(1, 3, 1, 1)

    restore, _ = engine_restorer(Tints())
    gray = np.full((1, 3, 16, 16), 0.6, np.float32)
    assert restore(gray) == approx(np.full_like(gray, 0.3))
    gray[0, 0, 0, 0] = 0.5  # now it is a colour picture
    assert restore(gray)[0, :, 1, 1] == approx([0.6, 0.3, 0])


def test_the_identity_model_gains_nothing(good):
    restore, prior = engine_restorer(open_engine("identity"))
    assert prior is None
    report = evaluate(restore, degraded_pairs(good, "noise:sigma=25", seed=1))
    assert report.gain["psnr"] == {"mean": 0, "n": 3, "ci95": [0, 0]}


def test_levins_pairs_need_the_alignment(shared):
    folder = shared("data/deblur/levin")
    names = ["im1_kernel1_img"]
    pairs = folder_pairs(folder / "lq", folder / "gt", names=names)
    assert [p.photograph for p in pairs.items] == ["im1"]
    plain, aligned = (evaluate(same, pairs, Protocol(align=n)) for n in (0, 6))
    assert aligned.metrics["psnr"]["mean"] > plain.metrics["psnr"]["mean"] + 0.3


@pytest.mark.parametrize(
    ("lq", "gt", "scale", "n"),
    [
        ("dehaze/reside_SOTS/hazy", "dehaze/reside_SOTS/gt", 1, 4),
        ("dehaze/reside_ITS_v2/hazy", "dehaze/reside_ITS_v2/gt", 1, 4),
        ("denoise_real/polyu/lq", "denoise_real/polyu/gt", 1, 100),
        ("sr/set14/LR_bicubic/X4", "sr/set14/HR", 4, 14),
        ("sr/set5/LR_bicubic/X3", "sr/set5/HR", 3, 5),
    ],
)
def test_the_fields_folders_pair_up(shared, lq, gt, scale, n):
    pairs = folder_pairs(shared(f"data/{lq}"), shared(f"data/{gt}"), scale=scale)
    assert len(pairs.items) == n
    loaded = pairs.items[0].load()
    assert loaded.gt.shape[-1] == loaded.lq.shape[-1] * scale


def test_the_input_of_cbsd68_at_sigma_25_scores_what_the_literature_has(shared):
    names = shared("data/bsds500/cbsd68_ids.txt").read_text().split()[:4]
    folder = shared("data/bsds500/images/val")
    report = evaluate(same, degraded_pairs(folder, "noise:sigma=25", seed=11, names=names))
    assert 20.3 < report.input["psnr"]["mean"] < 20.8
    assert read(folder / f"{names[0]}.jpg").rgb().shape[1] == 3


def test_rows_tell_the_damage_from_what_lies_beside_it(good):
    pairs = degraded_pairs(good, "scratch:count=40", seed=3)
    row = evaluate(lambda lq: lq, pairs).rows[0]
    loaded = pairs.items[0].load()
    part = loaded.truth["damage.scratch"].maps[0, 0] > 0.5
    error = np.square(loaded.lq - loaded.gt)[0].mean(0)
    assert row["psnr_inside"] == approx(-10 * np.log10(error[part].mean()), abs=1e-4)
    assert row["psnr_inside"] == row["psnr_inside_input"]
    assert row["psnr_inside"] < row["psnr"] < row["psnr_outside"]
    # Noise of sigma 25 is a severity of exactly a half, which is not above it.
    (row, *_) = evaluate(lambda lq: lq, degraded_pairs(good, "noise:sigma=25", seed=3)).rows
    assert "psnr_inside" not in row and row["psnr_outside"] == row["psnr"]


def test_centres_keep_what_is_true_of_them(good):
    pairs = degraded_pairs(good, "scratch:count=40", seed=3)
    whole, middle = (p.items[0].load() for p in (pairs, centres(pairs, 20)))
    top, left = ((n - 20) // 2 for n in whole.lq.shape[-2:])
    for known in (lambda p: p.lq, lambda p: p.gt, lambda p: p.truth["damage.scratch"].maps):
        assert np.array_equal(known(middle), known(whole)[..., top : top + 20, left : left + 20])
    assert centres(pairs, 20).announced == ("centre crops of 20 lq pixels",)
