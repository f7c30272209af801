"""The demo's pictures are what their cases say, may be shipped, and come back better."""

import pytest

from relume import page
from relume.card import DEFAULT, names
from relume.demo import CASES, HERE, run
from relume.engine import open_engine
from relume.image import Picture, decode, encode, read


def test_every_picture_has_its_licence_line():
    text = (HERE / "LICENCES.md").read_text()
    shown = {path.name for path in HERE.glob("*.jpg")}
    assert shown == {p.name for case in CASES for p in (case.original, case.damaged)}
    assert all(f"`{case.original.name}`" in text for case in CASES)


def test_the_package_stays_light():
    assert all(path.stat().st_size <= 140_000 for path in HERE.glob("*.jpg"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_damaged_copy_is_what_the_case_says(case):
    degrade = pytest.importorskip("relume.lab.degrade")
    folder = pytest.importorskip("relume.lab.degrade.folder")
    made = folder.damage_file(case.original, degrade.parse(case.spec), case.seed, 0, "uint8")
    saved = encode(Picture.from_rgb(made.lq, "jpeg"), "jpeg", case.quality)
    again = decode(saved, case.name).rgb()
    # Equal with the JPEG library that wrote it; another one may round elsewhere.
    assert page.psnr(read(case.damaged).rgb(), again) > 45


def test_the_demo_runs_again_over_its_own_files(tmp_path):
    engine = open_engine("identity")
    for _ in range(2):
        shown = []
        written = run(tmp_path / "demo", engine, shown.append)
        assert len(shown) == len(CASES)
    assert written.read_text().count('class="case"') == len(CASES)
    assert all(one.after == pytest.approx(one.before, abs=0.3) for one in shown)


def test_the_shipped_model_mends_every_case(tmp_path):
    if DEFAULT not in names():
        pytest.skip(f"the default model {DEFAULT} is not trained yet")
    shown = []
    run(tmp_path, open_engine(DEFAULT, engine="onnx"), shown.append)
    assert all(one.after > one.before + 1 for one in shown), [
        (one.case.name, one.before, one.after) for one in shown
    ]
