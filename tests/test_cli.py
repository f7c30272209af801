"""The command line: exit codes, one-line errors, JSON, and what it must not import."""

import json
import subprocess
import sys

import numpy as np
import pytest

from relume import card, cli, doctor
from relume.image import Picture, read, reader, write

GROUND = ("restore", "compare", "models", "doctor", "demo")
LAB = ("degrade", "train", "export", "evaluate")


@pytest.fixture
def scan(tmp_path):
    """scan(name, shape) writes a small PNG, JPEG ... of drawn noise and returns its path."""

    def draw(name="a.png", shape=(20, 30, 3), dtype=np.uint8):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        top = np.iinfo(dtype).max
        drawn = np.random.default_rng(len(name)).integers(0, top, shape, dtype=dtype, endpoint=True)
        write(Picture(pixels=drawn), path)
        return path

    return draw


def one_line(err: str) -> bool:
    return err.startswith("relume: ") and err.count("\n") == 1 and "Traceback" not in err


def test_the_default_model_is_the_cards():
    assert card.DEFAULT == cli.MODEL


def test_help_imports_typer_and_nothing_of_ours_but_errors():
    code = (
        "import sys; from relume.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'pyvips', 'onnxruntime', 'torch', 'pydantic', 'rich.markdown'}\n"
        "ours = {m for m in sys.modules if m.startswith('relume.')}\n"
        "ours -= {m for m in ours if m.startswith('relume.cli.')}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert ours == {'relume.cli', 'relume.errors'}, ours\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in (*GROUND, *LAB))


@pytest.mark.parametrize("command", [*GROUND, *LAB])
def test_every_command_takes_json_quiet_and_debug(relume, command):
    code, out, _ = relume(command, "--help")
    assert code == 0
    assert all(flag in out for flag in ("--json", "--quiet", "--debug"))


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("restor", "a"), "restore"),
        (("restore", "a.png"), "--out"),
        (("restore", "a.png", "-o", "b", "--strength", "2"), "--strength"),
        (("restore", "a.png", "-o", "b", "--engine", "tensorrt"), "onnx"),
        (("restore", "a.png", "-o", "b", "--tile", "many"), "--tile"),
        (("restore", "a.png", "-o", "b", "--model", "identit"), "identity"),
        (("restore", "a.png", "-o", "b", "--model", "identity", "--prior", "sam"), "sam"),
        (("restore", "a.png", "-o", "b", "--model", "identity", "--map", "no.png"), "no.png"),
        (("compare", "a.png"), "at least two"),
        (("models", "show"), "which model"),
        (("models", "show", "relume-xxl"), "relume-xxl"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(relume, scan, words, hint):
    scan("a.png")
    code, out, err = relume(*words)
    assert (code, out) == (2, "")
    assert one_line(err), err
    assert hint in err


def test_an_error_under_json_is_a_document_too(relume):
    code, out, err = relume("models", "show", "nothing", "--json")
    assert code == 2
    assert json.loads(out)["exit_code"] == 2
    assert one_line(err)


def test_debug_lets_the_traceback_through(relume):
    with pytest.raises(ValueError, match="no model"):
        relume("models", "show", "nothing", "--debug")


def test_stopping_ends_with_130(relume, monkeypatch):
    def stop():
        raise KeyboardInterrupt

    assert cli._run(stop, []) == 130


@pytest.mark.parametrize(
    ("error", "code"),
    [(OSError(28, "No space left on device"), 3), (PermissionError(13, "no"), 1), (KeyError(1), 1)],
)
def test_what_nobody_expected_is_still_one_line(capsys, error, code):
    def fail():
        raise error

    assert cli._run(fail, []) == code
    assert one_line(capsys.readouterr().err)


def test_restore_writes_the_result_and_says_where(relume, scan):
    path = scan("a.png")
    code, out, err = relume("restore", path, "-o", "out", "--model", "invert")
    assert (code, err) == (0, "")
    assert out == "out/a.png\n"
    assert np.array_equal(read(path).pixels, 255 - read("out/a.png").pixels)


def test_restore_again_skips_what_is_done(relume, scan):
    path = scan("a.png")
    words = ("restore", path, "-o", "out", "--model", "identity", "--json")
    first, second = (json.loads(relume(*words)[1]) for _ in range(2))
    assert (first["restored"], first["skipped"]) == (1, 0)
    assert (second["restored"], second["skipped"]) == (0, 1)


def test_restore_mirrors_the_tree_and_survives_a_bad_file(relume, scan, tmp_path):
    scan("scans/a.png")
    scan("scans/deep/b.jpg")
    (tmp_path / "scans/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    code, out, err = relume("restore", "scans", "-o", "out", "-r", "--model", "identity", "--json")
    document = json.loads(out)
    assert code == 1
    assert (document["restored"], document["refused"]) == (2, 1)
    assert one_line(err)
    assert "broken.png" in err
    made = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*g")}
    assert made == {"a.png", "deep/b.jpg"}


def test_strength_zero_copies_the_bytes(relume, scan, tmp_path):
    path = scan("a.jpg")
    relume("restore", path, "-o", "out", "--model", "invert", "--strength", "0")
    assert (tmp_path / "out/a.jpg").read_bytes() == path.read_bytes()


def test_map_and_protect_are_complements(relume, scan, tmp_path):
    path = scan("a.png")
    mask = np.zeros((20, 30, 1), np.uint8)
    mask[:, :15] = 255
    write(Picture(pixels=mask), tmp_path / "m.png")
    relume("restore", path, "-o", "one", "--model", "invert", "--map", "m.png")
    relume("restore", path, "-o", "two", "--model", "invert", "--protect", "m.png")
    before, one, two = (read(p).pixels for p in (path, "one/a.png", "two/a.png"))
    assert np.array_equal(one[:, 15:], before[:, 15:])
    assert np.array_equal(one[:, :15], 255 - before[:, :15])
    assert np.array_equal(two[:, :15], before[:, :15])
    assert np.array_equal(two[:, 15:], 255 - before[:, 15:])


def test_no_mask_is_decoded_in_this_process(relume, scan, tmp_path, monkeypatch):
    path = scan("a.png")
    write(Picture(pixels=np.full((20, 30, 1), 255, np.uint8)), tmp_path / "m.png")

    def here(found):
        raise AssertionError("decoded here")

    monkeypatch.setattr(reader, "_decode", here)
    masks = ("--map", "m.png", "--protect", "m.png")
    code, _, err = relume("restore", path, "-o", "out", "--model", "invert", *masks)
    assert (code, err) == (0, "")


def test_a_folder_of_masks_is_matched_by_name(relume, scan, tmp_path):
    scan("scans/a.png")
    scan("scans/b.png")
    (tmp_path / "masks").mkdir()
    write(Picture(pixels=np.zeros((4, 4, 1), np.uint8)), tmp_path / "masks/a.png")
    code, _, err = relume("restore", "scans", "-o", "out", "--model", "invert", "--map", "masks")
    assert code == 1  # b has no mask: refused, not guessed
    assert "scans/b.png: masks holds no mask called b.png" in err
    assert (tmp_path / "out/a.png").read_bytes() == (tmp_path / "scans/a.png").read_bytes()


def test_a_report_has_the_contracts_fields(relume, scan, tmp_path):
    path = scan("a.png")
    relume("restore", path, "-o", "out", "--model", "identity", "--report", "r.jsonl")
    (row,) = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    keys = (
        "input output status message announced seconds pixels model model_sha256 engine device "
        "strength prior guard"
    )
    assert set(row) >= set(keys.split())
    assert (row["status"], row["pixels"], row["model"], row["prior"]) == (
        "restored",
        600,
        "identity",
        "none",
    )


def test_a_dry_run_writes_nothing(relume, scan, tmp_path):
    path = scan("a.png")
    code, out, _ = relume(
        "restore", path, "-o", "out", "--model", "identity", "--dry-run", "--json"
    )
    assert code == 0
    assert {"eta_s", "bytes"} <= set(json.loads(out))
    assert not (tmp_path / "out").exists()


def test_quiet_says_nothing_when_nothing_went_wrong(relume, scan):
    path = scan("a.png")
    words = ("restore", path, "-o", "out", "--model", "identity", "--quiet")
    assert relume(*words) == (0, "", "")


def test_compare_writes_a_page_and_a_picture_and_replaces_neither(relume, scan, tmp_path):
    a, b = scan("a.png"), scan("b.jpg")
    words = ("compare", a, b, "--html", "c.html", "--png", "c.png", "--json")
    code, out, _ = relume(*words)
    document = json.loads(out)
    assert code == 0
    assert document["written"] == ["c.html", "c.png"]
    assert 0 < document["psnr"][str(b)] < 60
    assert (tmp_path / "c.html").stat().st_size > 1000
    assert read("c.png").pixels.shape[2] == 3
    code, _, err = relume(*words)
    assert code == 3
    assert "already there" in err
    code, _, err = relume("compare", a, b, "--html", "no/such/folder/c.html")
    assert code == 3
    assert one_line(err)


def test_a_model_file_that_is_none_is_refused_with_4(relume, scan, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"not a graph")
    code, _, err = relume("restore", scan("a.png"), "-o", "out", "--model", "m.onnx")
    assert code == 4
    assert one_line(err)


def test_models_lists_and_shows(relume):
    listed = json.loads(relume("models", "--json")[1])["models"]
    assert {"identity", "invert"} <= {m["name"] for m in listed}
    shown = json.loads(relume("models", "show", "identity", "--json")[1])
    assert shown["name"] == "identity"
    assert "identity" in relume("models")[1]


def test_doctor_tells_the_machine_and_mends(relume, monkeypatch, tmp_path):
    code, out, _ = relume("doctor", "--json")
    document = json.loads(out)
    assert code == (0 if document["well"] else 5)
    assert {"python", "cores", "memory_gb", "cpu_bf16", "engines", "devices"} <= set(
        document["machine"]
    )
    monkeypatch.setattr(card.files, "MODELS", tmp_path)
    code, _, err = relume("doctor")
    assert code == 5
    assert card.DEFAULT in err
    assert "pip install" in err


def test_doctor_says_what_gives_sam(relume, monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "transformers" else True)
    monkeypatch.setattr(doctor, "machine", dict)
    found = {f["what"]: f for f in json.loads(relume("doctor", "--json")[1])["findings"]}
    assert found["transformers"]["state"] == "absent"
    assert found["transformers"]["detail"] == "SAM"
    assert found["transformers"]["mend"] == "pip install 'relume[lab]'"


def test_demo_shows_every_case_and_a_page(relume, tmp_path):
    code, out, _ = relume("demo", "-o", "shown", "--model", "identity", "--json")
    document = json.loads(out)
    assert code == 0
    assert len(document["rows"]) == 4
    assert all(row["psnr_before"] < 32 for row in document["rows"])
    assert (tmp_path / "shown/index.html").exists()
    assert relume("demo", "-o", "shown", "--model", "identity", "--quiet")[0] == 0


FAULTS = """
import resource, sys
from relume.cli.memory import keep_small
if sys.argv[1] == "kept" and not keep_small():
    print("none")
    sys.exit()
import numpy as np
def once():
    held = [np.ones(12 << 20, np.uint8) for _ in range(3)]
once()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    once()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_memory_of_one_picture_is_kept_for_the_next():
    faults = {}
    for word in ("kept", "plain"):
        command = [sys.executable, "-c", FAULTS, word]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        if said == "none":
            pytest.skip("this is not glibc")
        faults[word] = int(said)
    assert faults["kept"] < faults["plain"] / 4
