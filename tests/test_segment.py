"""`relume segment`: two files a picture, what is refused, and what a second run does."""

import json

import numpy as np
import pytest

from relume.errors import UsageError
from relume.image import Picture, read, write, write_gray16
from relume.priors.regions import RegionsPrior
from relume.segmentation import INKS, colours, looking, overlay


@pytest.fixture
def scan(tmp_path, photo):
    def make(name="a.png", side=96):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(Picture.from_rgb(photo[..., :side]), path)
        return path

    return make


def one_line(err: str) -> bool:
    return err.startswith("relume: ") and err.count("\n") == 1 and "Traceback" not in err


def names(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))


def test_segment_writes_labels_and_an_overlay(relume, scan, tmp_path):
    path = scan()
    code, out, err = relume("segment", path, "-o", "out")
    assert (code, err) == (0, "")
    assert out.startswith("out/a.overlay.png (")
    assert names(tmp_path / "out") == ["a.overlay.png", "a.regions.png"]
    labels = read("out/a.regions.png").pixels
    assert labels.dtype == np.uint16
    assert np.array_equal(labels[..., 0], RegionsPrior()(read(path).rgb()).array[0])
    assert read("out/a.overlay.png").pixels.shape == read(path).pixels.shape
    left = {p.name for p in (tmp_path / "out").iterdir()}
    assert left == {"a.overlay.png", "a.regions.png", ".relume"}


def test_segment_says_what_it_did_in_json(relume, scan):
    code, out, err = relume("segment", scan(), "-o", "out", "--json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert (said["segmented"], said["refused"], said["exit_code"]) == (1, 0, 0)
    assert said["settings"]["prior"] == "regions"
    (row,) = said["rows"]
    assert row["regions"] == "out/a.regions.png"
    assert row["overlay"] == "out/a.overlay.png"
    assert row["count"] == len(np.unique(read("out/a.regions.png").pixels))


def test_the_same_command_again_skips_what_is_done(relume, scan, tmp_path):
    words = ("segment", scan(), "-o", "out", "--json")
    relume(*words)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.png")}
    code, out, _ = relume(*words)
    assert code == 0
    assert json.loads(out)["skipped"] == 1
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.png")} == before


@pytest.mark.parametrize("left", ["a.regions.png", "a.overlay.png"])
@pytest.mark.parametrize("known", [True, False])
def test_a_stopped_run_is_continued(relume, scan, tmp_path, left, known):
    words = ("segment", scan(), "-o", "out")
    relume(*words)
    whole = {p.name: p.read_bytes() for p in (tmp_path / "out").glob("*.png")}
    next(p for p in (tmp_path / "out").glob("*.png") if p.name != left).unlink()
    if not known:  # stopped before the journal was told
        (tmp_path / "out" / ".relume" / "journal.jsonl").unlink()
    assert relume(*words)[0] == 0
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").glob("*.png")} == whole


def test_what_is_not_ours_is_never_replaced(relume, scan, tmp_path):
    path = scan()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.regions.png").write_bytes(b"mine")
    for flags in ((), ("--overwrite",)):
        code, _, err = relume("segment", path, "-o", "out", *flags)
        assert code == 1
        assert one_line(err)
        assert (tmp_path / "out" / "a.regions.png").read_bytes() == b"mine"


def test_other_settings_replace_our_own_only_when_asked_to(relume, scan, tmp_path):
    path = scan()
    assert relume("segment", path, "-o", "out")[0] == 0
    first = (tmp_path / "out/a.regions.png").read_bytes()
    assert relume("segment", path, "-o", "out", "--prior", "grid")[0] == 1
    assert (tmp_path / "out/a.regions.png").read_bytes() == first
    assert relume("segment", path, "-o", "out", "--prior", "grid", "--overwrite")[0] == 0
    assert (tmp_path / "out/a.regions.png").read_bytes() != first


def test_a_folder_is_segmented_and_a_bad_file_stops_no_other(relume, scan, tmp_path):
    scan("in/a.png")
    scan("in/a.jpg", 90)
    scan("in/deep/b.png")
    (tmp_path / "in/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    (tmp_path / "in/words.txt").write_text("no picture")
    code, out, err = relume("segment", "in", "-o", "out", "-r", "--json")
    assert code == 1
    assert one_line(err)
    assert "broken.png" in err
    said = json.loads(out)
    assert (said["segmented"], said["refused"], said["ignored"]) == (3, 1, 1)
    stems = ("a.jpg", "a.png", "deep/b")
    wanted = [f"{stem}.{kind}.png" for stem in stems for kind in ("overlay", "regions")]
    assert names(tmp_path / "out") == sorted(wanted)


def test_results_beside_the_inputs_are_not_inputs_of_the_next_run(relume, scan, tmp_path):
    scan("in/a.png")
    for _ in range(2):
        code, out, _ = relume("segment", "in", "-o", "in", "--json")
        assert code == 0
    said = json.loads(out)
    assert (said["segmented"], said["skipped"], said["ignored"]) == (0, 1, 2)
    assert names(tmp_path / "in") == ["a.overlay.png", "a.png", "a.regions.png"]


@pytest.mark.parametrize("prior", ["grid", "voronoi"])
def test_controls_can_be_looked_at_too(relume, scan, prior):
    assert relume("segment", scan(), "-o", "out", "--prior", prior)[0] == 0


def test_masks_of_ones_own_take_the_priors_place(relume, scan, tmp_path):
    labels = np.zeros((96, 96), np.int32)
    labels[20:40], labels[50:] = 1, 2
    write_gray16(labels, tmp_path / "masks.png")
    code, _, err = relume("segment", scan(), "-o", "out", "--masks", "masks.png")
    assert (code, err) == (0, "")
    assert np.array_equal(read("out/a.regions.png").pixels[..., 0], labels)
    # Where there is no region, the photograph is as it was; but for the lines around it.
    shown, was = read("out/a.overlay.png").pixels, read(tmp_path / "a.png").pixels
    assert np.array_equal(shown[:17], was[:17])
    assert not np.array_equal(shown[24:36], was[24:36])


def test_masks_of_another_size_are_announced(relume, scan, tmp_path):
    write_gray16(np.array([[1, 2]]), tmp_path / "masks.png")
    code, _, err = relume("segment", scan(), "-o", "out", "--masks", "masks.png")
    assert code == 0
    assert one_line(err)
    assert "resized" in err


def test_a_picture_without_masks_is_refused_and_the_others_go_on(relume, scan, tmp_path):
    scan("in/a.png")
    scan("in/b.png")
    (tmp_path / "masks").mkdir()
    write_gray16(np.array([[1, 2]]), tmp_path / "masks" / "b.png")
    code, out, err = relume("segment", "in", "-o", "out", "--masks", "masks", "--json")
    assert code == 1
    assert one_line(err)
    assert json.loads(out)["segmented"] == 1


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (("a.png", "-o", "out", "--prior", "slic"), 2, "regions"),
        (("a.png", "-o", "out", "--prior", "sam"), 2, "--sam"),
        (("a.png", "-o", "out", "--sam", "facebook/sam-vit-base"), 2, "--prior sam"),
        (("a.png", "-o", "out", "--masks", "none.png"), 2, "none.png"),
        (("a.png", "-o", "out", "--masks", "a.png", "--prior", "grid"), 2, "--masks"),
        (("a.png", "-o", "out.png"), 2, "folder"),
        (("a.png", "-o", "a.png"), 2, "folder"),
        (("none.png", "-o", "out"), 1, "none.png"),
        (("a.png", "-o", "a.png/out"), 3, "a.png"),
        (("a.png",), 2, "--out"),
    ],
)
def test_wrong_usage_is_one_line(relume, scan, tmp_path, words, code, hint):
    scan()
    got, _, err = relume("segment", *words)
    assert got == code
    assert one_line(err), err
    assert hint in err
    assert not (tmp_path / "out").exists()


def test_looking_names_the_settings_that_decide(tmp_path):
    assert looking("grid")[1] != looking("regions")[1]
    path = tmp_path / "masks.png"
    found = []
    for labels in ([[1, 2]], [[2, 1]]):
        path.unlink(missing_ok=True)
        write_gray16(np.array(labels), path)
        found.append(looking(masks=path)[1])
    assert [said["prior"] for said in found] == ["own", "own"]
    assert found[0] != found[1]
    with pytest.raises(UsageError, match="voronoi"):
        looking("voronoy")


# The overlay


def test_regions_that_touch_differ_in_colour(photo):
    labels = RegionsPrior(scale=20, min_size=5)(photo).array[0]
    ink = colours(labels)
    a = np.concatenate([labels[1:].ravel(), labels[:, 1:].ravel()])
    b = np.concatenate([labels[:-1].ravel(), labels[:, :-1].ravel()])
    p = np.concatenate([ink[1:].ravel(), ink[:, 1:].ravel()])
    q = np.concatenate([ink[:-1].ravel(), ink[:, :-1].ravel()])
    assert len(np.unique(labels)) > 20
    assert (p != q)[a != b].all()
    assert (p == q)[a == b].all()
    assert 0 <= ink.min() <= ink.max() < len(INKS)


def test_more_neighbours_than_colours_are_no_harm():
    labels = np.zeros((3, 60), np.int32)
    labels[1] = np.arange(1, 61)  # one region above and below sixty
    ink = colours(labels)
    assert (ink[1, 1:] != ink[1, :-1]).all()
    assert (colours(np.ones((1, 1), np.int32)) >= 0).all()


def test_the_overlay_keeps_light_and_shade(photo):
    labels = RegionsPrior()(photo).array[0]
    shown = overlay(photo, labels)
    assert shown.shape == photo.shape
    assert shown.dtype == np.float32
    assert 0 <= shown.min() <= shown.max() <= 1
    inside = labels == labels[45, 60]
    light, was = shown[0].mean(0)[inside], photo[0].mean(0)[inside]
    flat = (
        np.abs(shown[0][:, inside] - np.median(shown[0][:, inside], axis=1)[:, None]).max(0) < 0.1
    )
    assert np.corrcoef(light[flat], was[flat])[0, 1] > 0.7
