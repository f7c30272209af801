"""The house rules, read off the syntax trees: who may import whom, names, literal tables."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import relume

ROOT = Path(relume.__file__).parent

# A module imports only from lines above its own; modules of one line do not import each other;
# packages (with a slash) may import inside themselves. The lab may import the ground floor, but
# for its last line.
GROUND = """
errors places
sandbox/
card/ image/ guidance
trial convert fetch
engine/ tiling
priors/
restoration diagnosis
guard piles
batch/ page doctor
survey
demo/ segmentation checkup sorting
cli/ web cluster
"""
LAB = """
regions blocks memory segmentations sam_decoder pairs clip
degrade/ losses/ metrics localisation adapters/ backbones/ encoders/ folds photographs sam truth
controls datasets report
sources tasks
data
triplets mixed
restorer objectives/ loader
reach
weights
evaluate pickles
train
recipe/
finished
export validation sureness
runs
reproduce/ engine
"""

# Where the ground floor opens onto the lab: inside a function, never on import.
DOORS = {"cli/lab", "engine/opening", "priors/sam"}
LAB_LIBRARIES = {"torch", "torchvision", "transformers", "spandrel", "accelerate", "safetensors"}
LAB_LIBRARIES |= {"onnx", "onnxscript", "skimage", "tomli_w", "PIL"}
# scikit-image is an extra of the ground floor too: imported where it is used, never before.
EXTRAS = {("priors/regions", "skimage")}

NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}

TABLES = {
    "relume.priors": "PRIORS",
    "relume.lab.adapters": "ADAPTERS",
    "relume.lab.backbones": "BACKBONES",
    "relume.lab.degrade": "DEGRADATIONS",
    "relume.lab.encoders": "ENCODERS",
    "relume.lab.losses": "LOSSES",
    "relume.lab.objectives": "OBJECTIVES",
}


def lines(table: str) -> dict[str, int]:
    """Module name -> number of its line."""
    rows = [row.split() for row in table.strip().splitlines()]
    return {name.rstrip("/"): i for i, row in enumerate(rows) for name in row}


LINE = {"ground": lines(GROUND), "lab": lines(LAB)}
LAST_OF_GROUND = max(LINE["ground"].values())
PACKAGES = {
    name.rstrip("/") for table in (GROUND, LAB) for name in table.split() if name.endswith("/")
}


def sources() -> list[Path]:
    return sorted(p for p in ROOT.rglob("*.py") if "__pycache__" not in p.parts)


def room(path: str) -> tuple[str, str]:
    """Storey and module of the tables, of a path such as lab/adapters/film."""
    parts = path.split("/")
    if parts[0] == "lab":
        return "lab", parts[1] if len(parts) > 1 else ""
    return "ground", parts[0]


def exists(path: str) -> bool:
    return (ROOT / f"{path}.py").exists() or (ROOT / path / "__init__.py").exists()


def imports(tree: ast.AST, path: str, package: bool) -> Iterator[tuple[str, bool]]:
    """(what, inside a function): modules of ours as relume/x/y, of others by their first name."""
    here = ["relume", *path.split("/")] if path else ["relume"]
    if not package:
        here = here[:-1]
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                yield "/".join(parts if parts[0] == "relume" else parts[:1]), id(node) in inside
        elif isinstance(node, ast.ImportFrom):
            stem = here[: len(here) - node.level + 1] if node.level else []
            stem = stem + (node.module.split(".") if node.module else [])
            if stem[0] != "relume":
                yield stem[0], id(node) in inside
                continue
            for alias in node.names:
                whole = [*stem, alias.name]
                known = exists("/".join(whole[1:]))
                yield "/".join(whole if known else stem), id(node) in inside


def forbidden(source: str, path: str, package: bool = False) -> list[str]:
    """The edges of one file that the tables do not allow, in words."""
    if not path:
        return []  # relume/__init__ names what there is, and loads it when it is asked for
    tree = ast.parse(source)
    storey, name = room(path)
    wrong = []
    if name and name not in LINE[storey]:
        return [f"{path} stands on no line of the table"]
    for target, inside in imports(tree, path, package):
        if not target.startswith("relume"):
            lab_only = storey == "ground" and target in LAB_LIBRARIES
            if lab_only and not (inside and ((path, target) in EXTRAS or path in DOORS)):
                wrong.append(f"{path} imports {target}")
            continue
        target = target.removeprefix("relume").lstrip("/")
        if not target:
            continue  # the package itself, for its version
        to_storey, to_name = room(target)
        if to_name and to_name not in LINE[to_storey]:
            wrong.append(f"{path} imports {target}, which stands on no line of the table")
        elif (storey, name) == (to_storey, to_name):
            if name not in PACKAGES:
                wrong.append(f"{path} imports itself")
        elif storey == to_storey:
            if LINE[storey].get(to_name, -1) >= LINE[storey].get(name, 99):
                wrong.append(f"{path} imports {target}, which does not stand above it")
        elif storey == "lab":
            if LINE["ground"][to_name] == LAST_OF_GROUND:
                wrong.append(f"{path} imports {target}, the last line of the ground floor")
        elif path not in DOORS or not inside:
            wrong.append(f"{path} imports the lab ({target})")
    return wrong


@pytest.mark.parametrize("file", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_import_goes_up_the_page(file):
    package = file.name == "__init__.py"
    path = file.relative_to(ROOT).with_suffix("").as_posix()
    path = path.removesuffix("__init__").rstrip("/")
    assert forbidden(file.read_text(), path, package) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("guidance", "from .engine import Engine"),
        ("guidance", "from . import engine"),
        ("guidance", "import relume.engine"),
        ("guidance", "from relume import image"),
        ("guidance", "def f():\n    from .restoration import restore"),
        ("image/reader", "from ..guidance import Guide"),
        ("restoration", "import torch"),
        ("restoration", "def f():\n    import torch"),
        ("restoration", "def f():\n    from .lab.engine import TorchEngine"),
        ("engine/opening", "from ..lab.engine import TorchEngine"),
        ("engine/onnx", "def f():\n    from ..lab.engine import TorchEngine"),
        ("cli/lab", "from ..lab import train"),
        ("cli/restore", "def f():\n    from ..lab.train import train"),
        ("cli/restore", "def f():\n    import torch"),
        ("priors/regions", "from skimage.segmentation import felzenszwalb"),
        ("lab/metrics", "from .losses import l1"),
        ("lab/adapters/film", "from ..restorer import Restorer"),
        ("lab/train", "from ..cli import app"),
        ("lab/train", "from .recipe import Recipe"),
        ("somewhere", "import numpy"),
        ("lab/somewhere", "import numpy"),
    ],
)
def test_the_rule_sees_a_planted_edge(path, source):
    assert forbidden(source, path)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("engine/onnx", "from ..card import Card\nfrom .. import errors\nimport numpy"),
        ("engine/opening", "def f():\n    from ..lab.engine import TorchEngine"),
        ("cli/lab", "def f():\n    from ..lab.train import train"),
        ("cli/restore", "from .said import warn\nfrom ..errors import UsageError"),
        ("image/reader", "from .picture import Picture\nfrom . import tags"),
        ("lab/adapters/film", "from ...guidance import Guidance\nfrom ..blocks import SimpleGate"),
        ("lab/weights", "from ..card import Card"),
        ("priors/regions", "def f():\n    from skimage.segmentation import felzenszwalb"),
        ("doctor", "from . import __version__"),
    ],
)
def test_the_rule_lets_a_good_edge_pass(path, source):
    assert forbidden(source, path) == []


def test_no_name_says_nothing():
    assert [
        p
        for p in sources()
        if NAMES_THAT_SAY_NOTHING & set(re.split(r"[/_.]", p.relative_to(ROOT).as_posix()))
    ] == []


@pytest.mark.parametrize("package", sorted(TABLES))
def test_a_package_ends_in_its_literal_table(package):
    folder = ROOT.joinpath(*package.split(".")[1:])
    if not folder.joinpath("__init__.py").exists():
        pytest.skip(f"{package} is not built yet")
    last = ast.parse((folder / "__init__.py").read_text()).body[-1]
    assert isinstance(last, ast.Assign | ast.AnnAssign)
    target = last.targets[0] if isinstance(last, ast.Assign) else last.target
    assert isinstance(target, ast.Name)
    assert target.id == TABLES[package]
    assert isinstance(last.value, ast.Dict)
    assert all(isinstance(key, ast.Constant) for key in last.value.keys)
    table = getattr(import_module(package), TABLES[package])
    assert table
    assert all(callable(member) for member in table.values())


# libvips reads its settings when it starts, and pyvips starts it when it is imported.
WORKS_ON_IMPORT = {"image/libvips.py"}


def test_no_module_works_when_it_is_imported():
    """Only definitions, imports and constants: nothing runs at the top of a module."""
    loose = [
        f"{p.relative_to(ROOT)}:{node.lineno}"
        for p in sources()
        for node in ast.parse(p.read_text()).body
        if isinstance(node, ast.For | ast.While | ast.With)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
    ]
    assert [place for place in loose if place.split(":")[0] not in WORKS_ON_IMPORT] == []
