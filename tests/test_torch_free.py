"""The ground floor without the lab: each command in a process where importing torch is an error."""

import json
import subprocess
import sys

import numpy as np
import pytest

from relume.card import DEFAULT, MASKS, names
from relume.engine import open_engine
from relume.image import Picture, read, write, write_gray16
from relume.restoration import restore

# Absent to whoever looks (find_spec); whoever imports gets an error no `except ImportError` hides.
WITHOUT_THE_LAB = """
import builtins, importlib.util, sys

ABSENT = ("torch", "relume.lab")
for name in ABSENT:
    sys.modules[name] = None
plain = builtins.__import__

def guarded(name, globals=None, locals=None, fromlist=(), level=0):
    if level:
        name_ = importlib.util.resolve_name("." * level + name, globals["__package__"])
    else:
        name_ = name
    wanted = [name_, *(f"{name_}.{part}" for part in fromlist or ())]
    if any(w == a or w.startswith(a + ".") for w in wanted for a in ABSENT):
        raise RuntimeError(f"the ground floor imported {name_}")
    return plain(name, globals, locals, fromlist, level)

builtins.__import__ = guarded
"""
RUN = WITHOUT_THE_LAB + "from relume.cli import main\nmain()\n"


def run(*arguments: object, code: str = RUN) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def png(tmp_path, photo):
    path = tmp_path / "photo.png"
    write(Picture.from_rgb(photo), path)
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["restore", "--help"],
        ["restore", "PHOTO", "-o", "OUT", "--model", "identity"],
        ["restore", "PHOTO", "-o", "OUT", "--model", "identity", "--engine", "onnx", "--json"],
        ["restore", "PHOTO", "-o", "OUT", "--model", "invert", "--strength", "0.5"],
        ["compare", "PHOTO", "PHOTO", "--html", "PAGE"],
        ["segment", "PHOTO", "-o", "OUT"],
        ["segment", "PHOTO", "-o", "OUT", "--prior", "regions", "--json"],
        ["segment", "PHOTO", "-o", "OUT", "--masks", "PHOTO-LABELS"],
        ["triage", "PHOTO"],
        ["triage", "PHOTO", "--csv", "TABLE", "--html", "PAGE", "--json"],
        ["models"],
        ["models", "--json"],
        ["models", "show", "identity"],
        ["doctor"],
        ["doctor", "--json"],
    ],
    ids=" ".join,
)
def test_a_ground_floor_command_never_imports_torch(arguments, png, tmp_path):
    place = {"PHOTO": png, "OUT": tmp_path / "out", "PAGE": tmp_path / "page.html"}
    place["TABLE"] = tmp_path / "table.csv"
    if "triage" in arguments and MASKS not in names():
        pytest.skip(f"{MASKS} is not shipped")
    if "PHOTO-LABELS" in arguments:
        place["PHOTO-LABELS"] = tmp_path / "labels.png"
        write_gray16(np.arange(64).reshape(8, 8), place["PHOTO-LABELS"])
    done = run(*(place.get(word, word) for word in arguments))
    # doctor ends with 5 where something of the ground floor itself is missing.
    assert done.returncode in ({0, 5} if "doctor" in arguments else {0}), done.stderr
    assert "imported" not in done.stderr
    assert done.stdout
    if "--json" in arguments:
        json.loads(done.stdout)


def test_own_regions_need_neither_the_lab_nor_scikit_image(png, tmp_path):
    guided = pytest.importorskip("test_guided")
    model, _ = guided.exported_model("sam-deblur")
    labels = np.arange(64).reshape(8, 8)
    write_gray16(labels, tmp_path / "mine.png")
    without = WITHOUT_THE_LAB + "sys.modules['skimage'] = None\n"
    code = without + "from relume.cli import main\nmain()\n"
    words = ("restore", png, "-o", tmp_path / "out", "--model", model, "--engine", "onnx")
    done = run(*words, "--regions", tmp_path / "mine.png", code=code)
    assert done.returncode == 0, done.stderr
    told = restore(png, open_engine(model, "onnx"), regions=labels)
    assert np.array_equal(read(tmp_path / "out/photo.png").pixels, told.picture.pixels)


@pytest.mark.parametrize("command", ["restore", "demo"])
def test_the_default_model_needs_no_torch(command, png, tmp_path):
    if DEFAULT not in names():
        pytest.skip(f"the default model {DEFAULT} is not trained yet")
    out = tmp_path / "out"
    done = run(*(["restore", png, "-o", out] if command == "restore" else ["demo", "-o", out]))
    assert done.returncode == 0, done.stderr
    assert any(out.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["degrade", "PHOTO", "-o", "OUT", "--spec", "noise:sigma=25"],
        ["train", "relume-s"],
        ["export", "PHOTO", "-o", "OUT"],
        ["evaluate", "identity", "--gt", "PHOTO", "--degrade", "noise:sigma=25"],
        ["segment", "PHOTO", "-o", "OUT", "--prior", "sam", "--sam", "facebook/sam-vit-base"],
        ["restore", "PHOTO", "-o", "OUT", "--prior", "sam", "--sam", "facebook/sam-vit-base"],
    ],
    ids=lambda words: words[0],
)
def test_a_lab_command_without_the_lab_says_how_to_get_it(arguments, png, tmp_path):
    place = {"PHOTO": png, "OUT": tmp_path / "out"}
    done = run(*(place.get(word, word) for word in arguments))
    assert done.returncode == 5
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "pip install 'relume[lab]'" in line
    assert not (tmp_path / "out").exists()


def test_the_guard_catches_what_it_is_there_for():
    for line in ("import torch", "from relume.lab import regions", "import relume.lab.metrics"):
        done = run(code=WITHOUT_THE_LAB + f"try:\n    {line}\nexcept ImportError:\n    pass\n")
        assert "the ground floor imported" in done.stderr


def test_importing_relume_loads_nothing():
    seen = (
        "import sys, relume; print([m for m in sys.modules if m[:7] == 'relume.' or m == 'numpy'])"
    )
    assert run(code=seen).stdout.strip() == "[]"


def test_the_public_names_are_there():
    code = WITHOUT_THE_LAB + "import relume\nfor n in relume.__all__: getattr(relume, n)\n"
    done = run(code=code)
    assert done.returncode == 0, done.stderr


def test_segment_without_scikit_image_says_how_to_get_it(png, tmp_path):
    code = WITHOUT_THE_LAB + (
        "sys.modules['skimage.segmentation'] = None\nfrom relume.cli import main\nmain()\n"
    )
    done = run("segment", png, "-o", tmp_path / "out", code=code)
    assert done.returncode == 5
    (line,) = done.stderr.splitlines()
    assert "pip install 'relume[regions]'" in line
    assert not (tmp_path / "out").exists()


def test_regions_without_scikit_image_need_nothing_else(tmp_path):
    path = tmp_path / "rgb.npy"
    np.save(path, np.zeros((1, 3, 8, 8), np.float32))
    code = WITHOUT_THE_LAB + (
        "import numpy as np\nfrom relume.priors import PRIORS\n"
        "sys.modules['skimage.segmentation'] = None\n"
        "rgb = np.load(sys.argv[1])\nassert PRIORS['thumbnail']()(rgb).batch == 1\n"
        "try:\n    PRIORS['regions']()(rgb)\n"
        "except ImportError as error:\n    print(error.exit_code, error)\n"
    )
    done = run(path, code=code)
    assert done.stdout.startswith("5 "), done.stderr
    assert "pip install 'relume[regions]'" in done.stdout
