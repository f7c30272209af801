"""The lab's commands: pairs with their truth, reports, and one line for what cannot be read."""

import json

import numpy as np
import pytest

from relume.image import Picture, read, write

pytest.importorskip("torch")


@pytest.fixture
def clean(tmp_path, photo):
    """A folder with two photographs, one of them deeper."""
    folder = tmp_path / "clean"
    (folder / "deep").mkdir(parents=True)
    write(Picture.from_rgb(photo), folder / "a.png")
    write(Picture.from_rgb(photo[..., ::-1].copy()), folder / "deep/b.jpg")
    return folder


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


def test_degrade_writes_pairs_and_truth_and_says_what_was_drawn(relume, clean, tmp_path):
    code, out, err = relume("degrade", clean, "-o", "pairs", "--spec", "rain+noise", "--seed", "7")
    assert (code, err) == (0, "")
    assert "2 pairs" in out
    made = set(files(tmp_path / "pairs"))
    assert made == {
        "params.jsonl",
        *(f"{side}/{name}" for side in ("lq", "gt") for name in ("a.png", "deep/b.png")),
        *(f"truth/{n}.{k}.png" for n in ("a", "deep/b") for k in ("rain", "noise")),
    }
    assert np.array_equal(read("pairs/gt/a.png").pixels, read(clean / "a.png").pixels)
    assert read("pairs/truth/a.rain.png").pixels.dtype == np.uint16
    rows = [json.loads(row) for row in (tmp_path / "pairs/params.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == [0, 1]
    assert {step["kind"] for step in rows[0]["params"]} == {"rain", "noise"}


def test_the_same_seed_gives_the_same_bytes_whatever_the_jobs(relume, clean, tmp_path):
    for out, seed, jobs in (("one", 7, 1), ("two", 7, 2), ("three", 8, 1)):
        words = ("--spec", "haze+noise", "--seed", seed, "--jobs", jobs)
        assert relume("degrade", clean, "-o", out, *words)[0] == 0
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert files(tmp_path / "one")["lq/a.png"] != files(tmp_path / "three")["lq/a.png"]


def test_degrade_does_not_write_among_foreign_files(relume, clean):
    code, _, err = relume("degrade", clean, "-o", clean, "--spec", "noise")
    assert code == 2
    assert "other files" in err


def test_evaluate_measures_the_pairs_that_degrade_writes(relume, clean):
    spec = ("noise:sigma=25", "--seed", "3")
    assert relume("degrade", clean, "-o", "pairs", "--spec", *spec)[0] == 0
    written = relume("evaluate", "identity", "--lq", "pairs/lq", "--gt", "pairs/gt", "--json")
    made = relume("evaluate", "identity", "--gt", "clean", "--degrade", *spec, "--json")
    assert written[0] == made[0] == 0
    one, two = json.loads(written[1]), json.loads(made[1])
    assert one["metrics"]["psnr"]["mean"] == pytest.approx(two["metrics"]["psnr"]["mean"], abs=0.05)
    assert two["gain"]["psnr"]["mean"] == 0
    assert two["protocol"]["noise"] == "uint8"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("degrade", "clean", "-o", "x", "--spec", "nois"), "noise"),
        (("degrade", "clean", "-o", "x", "--spec", "noise:sigm=3"), "sigma"),
        (("degrade", "nowhere", "-o", "x", "--spec", "noise"), "nowhere"),
        (("evaluate", "identity", "--gt", "clean"), "--degrade"),
        (("evaluate", "identity", "--gt", "nowhere", "--lq", "clean"), "nowhere"),
        (("evaluate", "identity", "--gt", "clean", "--degrade", "noise", "--crop", "-1"), "--crop"),
        (("train", "relume-xxl"), "relume-s"),
        (("train", "relume-s", "--set", "schedule.stps=3"), "steps"),
        (("train", "relume-s", "--data", "nowhere", "--out", "run"), "nowhere"),
        (("export", "nowhere.safetensors", "-o", "x.onnx"), "nowhere"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_exit_2(relume, clean, words, hint):
    code, out, err = relume(*words)
    assert (code, out) == (2, ""), err
    assert err.startswith("relume: ")
    assert err.count("\n") == 1
    assert hint in err


def test_pairs_that_do_not_match_are_named(relume, clean, tmp_path):
    (tmp_path / "lq").mkdir()
    write(read(clean / "a.png"), tmp_path / "lq/z.png")
    code, _, err = relume("evaluate", "identity", "--gt", clean, "--lq", "lq")
    assert code == 2
    assert "z.png" in err


def test_a_file_that_is_no_weights_is_refused_with_4(relume, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"not weights")
    code, _, err = relume("export", "x.safetensors", "-o", "x.onnx")
    assert code == 4
    assert err.count("\n") == 1
