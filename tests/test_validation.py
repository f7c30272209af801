"""What is watched while a network trains: the crops it names, their figures, curve and strips."""

import json
import math

import numpy as np
import pytest
import torch

from relume.errors import UsageError
from relume.image import Picture, read, write
from relume.lab.metrics import psnr
from relume.lab.recipe import Recipe
from relume.lab.runs import run_recipe
from relume.lab.validation import Validation, validation_pairs

ONE = {"damage": {"noise": 1.0}, "counts": [0.0, 1.0]}
SMALL = {"width": 4, "enc_blocks": [1], "middle_blocks": 1, "dec_blocks": [1]}


def recipe(backbone=None, **changes) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "watched",
            "data": {"photographs": "p", "validation": "v", **ONE},
            "backbone": backbone or {"kind": "nafnet", **SMALL},
            "objective": {"kind": "restoration"},
            "schedule": {"steps": 2, "batch": 2, "crop": 16, "last_share": 0.0, "warmup": 0},
            **changes,
        }
    )


@pytest.fixture
def root(tmp_path):
    """Photographs in p and v; in lq and gt pairs of which gt is twice as large."""
    rng = np.random.default_rng(0)
    for folder, count in (("p", 2), ("v", 4), ("gt", 3)):
        (tmp_path / folder).mkdir()
        for i in range(count):
            rows = np.kron(rng.random((1, 3, 6, 8), np.float32), np.ones((8, 8), np.float32))
            write(Picture.from_rgb(rows), tmp_path / folder / f"{i}.png")
    (tmp_path / "lq").mkdir()
    for path in sorted((tmp_path / "gt").iterdir()):
        write(Picture.from_rgb(read(path).rgb()[..., ::2, ::2]), tmp_path / "lq" / path.name)
    return tmp_path


def test_who_names_nothing_watches_nothing(root):
    assert validation_pairs(recipe(), root) == []


def test_photographs_come_clean_and_under_each_damage_as_files_hold_them(root):
    rules = {"specs": ["noise:sigma=25", "haze"], "crop": 24, "photographs": 2}
    pairs = validation_pairs(recipe(validation=rules), root)
    assert [p.name for p in pairs] == [n for n in ("clean", *rules["specs"]) for _ in range(2)]
    first = read(root / "v/0.png").rgb()[..., 12:36, 20:44]
    assert np.array_equal(pairs[0].lq, first) and np.array_equal(pairs[0].gt, first)
    noisy = pairs[2]
    assert np.array_equal(noisy.gt, first)
    levels = noisy.lq * 255
    assert torch.allclose(levels, levels.round(), atol=1e-4)
    assert abs(float((noisy.lq - noisy.gt).std()) * 255 - 25) < 4  # less where values are clipped
    again = validation_pairs(recipe(validation=rules), root)
    assert all(torch.equal(a.lq, b.lq) for a, b in zip(pairs, again, strict=True))


def test_real_pairs_are_cropped_at_one_place_whatever_their_scale(root):
    rules = {"lq": "lq", "gt": "gt", "crop": 12}
    pairs = validation_pairs(recipe(validation=rules), root)
    assert [p.name for p in pairs] == ["pairs"] * 3
    for pair in pairs:
        assert pair.lq.shape == (1, 3, 12, 12) and pair.gt.shape == (1, 3, 24, 24)
        assert torch.equal(pair.gt[..., ::2, ::2], pair.lq)
        assert pair.shown.shape == pair.gt.shape
        assert float(psnr(pair.shown, pair.gt)) > 15


def test_figures_curve_and_strip_are_what_the_weights_make(root):
    made = recipe(validation={"specs": ["noise:sigma=25"], "crop": 32, "photographs": 2})
    pairs = validation_pairs(made, root)
    run = root / "run"
    run.mkdir()
    (run / "log.jsonl").write_text("")
    model = made.build_model().eval()
    figures = Validation(run, made, pairs)(model.state_dict(), 5)
    with torch.inference_mode():
        outs = [float(psnr(model(p.lq, p.guidance).clamp(0, 1), p.gt)) for p in pairs[2:]]
    before = [float(psnr(p.lq, p.gt)) for p in pairs[2:]]
    assert math.isclose(figures["noise:sigma=25"], np.mean(outs), abs_tol=1e-4)
    gain = figures["noise:sigma=25 gain"]
    assert math.isclose(gain, np.mean(outs) - np.mean(before), abs_tol=1e-4)
    strip = read(run / "strips/step-00000005.png").rgb()
    assert strip.shape == (1, 3, 2 * 32, 3 * 32)  # clean above noise; lq, out, gt
    assert np.array_equal(strip[..., 32:, :32], pairs[2].lq)
    assert read(run / "curve.png").rgb().shape[1] == 3


def test_a_run_on_real_pairs_leaves_a_curve(root):
    rules = {"lq": "lq", "gt": "gt", "crop": 12}
    data = {"photographs": "gt", "lq": "lq"}
    imdn = {"kind": "imdn", "scale": 2, "width": 8, "blocks": 1}
    made = recipe(imdn, data=data, validation=rules)
    run_recipe(made, root / "run", root=root)
    lines = (root / "run/log.jsonl").read_text().splitlines()
    watched = [e["validation"] for e in map(json.loads, lines) if "validation" in e]
    assert [sorted(w) for w in watched] == [["pairs", "pairs gain"]]
    assert (root / "run/curve.png").is_file()


def test_a_folder_without_photographs_is_named_and_the_run_not_begun(root):
    made = recipe(
        data={"photographs": "p", "validation": "none", **ONE},
        validation={"specs": ["noise"]},
    )
    with pytest.raises(UsageError, match=r"No photographs in .*none"):
        run_recipe(made, root / "run", root=root)
    assert not (root / "run").exists()
    write(read(root / "p/0.png"), root / "0.png")
    unnamed = recipe(data={"photographs": "p", **ONE}, validation={"specs": ["noise"]})
    with pytest.raises(UsageError, match=r"Give a folder as data\.validation"):
        validation_pairs(unnamed, root)
    mended = made.model_copy(update={"data": recipe().data})
    run_recipe(mended, root / "run", root=root)  # the folder is free for another recipe
