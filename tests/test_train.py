"""The training loop: goes on bit-equal, survives a cut checkpoint, and never steps on a NaN."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from relume.errors import CheckError, OutputError, RecipeError, UsageError
from relume.guidance import Guidance
from relume.lab.data import Batch
from relume.lab.losses import charbonnier
from relume.lab.objectives import Restoration
from relume.lab.train import Schedule, train

SCHEDULE = Schedule(
    steps=12, batch=4, crop=8, warmup=3, last_share=0.25, last_crop=16, last_batch=2, save_every=5,
    precision="float32", log_every=1,
)  # fmt: skip


class Net(nn.Module):
    """Dropout inside: the loop must make even that repeatable."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Dropout(0.2), nn.Conv2d(8, 3, 1)
            )

    def forward(self, lq, guidance):
        return lq + self.body(lq)


def batches(first: int, count: int, crop: int) -> Batch:
    rows = [
        torch.rand(3, crop, crop, generator=torch.Generator().manual_seed(first + i))
        for i in range(count)
    ]
    gt = torch.stack(rows)
    return Batch(gt * 0.5 + 0.1, gt, Guidance())


def run(folder, *, steps=None, schedule=SCHEDULE, model=None, header=None):
    class StopRunError(Exception):
        pass

    def progress(step, _):
        if step == steps:
            raise StopRunError

    try:
        return train(
            folder,
            model=model or Net(),
            objective=Restoration(charbonnier),
            batches=batches,
            schedule=schedule,
            header=header or {"recipe": "a"},
            progress=progress,
        )
    except StopRunError:
        return None


def losses(folder):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return {line["step"]: line["loss_hex"] for line in lines if "loss_hex" in line}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    return run(folder), losses(folder)


@pytest.mark.parametrize("stops", [(3,), (5,), (7, 11), (6, 6, 8)])
def test_a_stopped_run_goes_on_bit_equal(tmp_path, unbroken, stops):
    for stop in stops:
        assert run(tmp_path, steps=stop) is None
    weights = run(tmp_path)
    expected, expected_losses = unbroken
    assert losses(tmp_path) == expected_losses
    assert all(torch.equal(weights[k], expected[k]) for k in expected)


def test_a_cut_checkpoint_falls_back_to_the_one_before(tmp_path, unbroken, capsys):
    run(tmp_path, steps=11)
    newest = sorted((tmp_path / "checkpoints").glob("*.safetensors"))[-1]
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    weights = run(tmp_path)
    assert "is not whole" in capsys.readouterr().err
    assert all(torch.equal(weights[k], unbroken[0][k]) for k in weights)


def test_a_checkpoint_with_a_changed_byte_falls_back_to_the_one_before(tmp_path, unbroken, capsys):
    run(tmp_path, steps=11)
    newest = sorted((tmp_path / "checkpoints").glob("*.safetensors"))[-1]
    held = bytearray(newest.read_bytes())
    held[-5] ^= 1
    newest.write_bytes(held)
    weights = run(tmp_path)
    told = [line for line in capsys.readouterr().err.splitlines() if "is not whole" in line]
    assert len(told) == 1
    assert all(torch.equal(weights[k], unbroken[0][k]) for k in weights)


def test_a_run_killed_inside_a_checkpoint_goes_on_and_leaves_nothing(tmp_path, unbroken):
    run(tmp_path, steps=8)
    half = tmp_path / "checkpoints" / ".step-00000010.safetensors.77.part"
    half.write_bytes(b"half")
    other = tmp_path / "checkpoints" / ".step-00000011.safetensors.78.part"
    other.write_bytes(b"half")
    weights = run(tmp_path)
    assert not half.exists()
    assert not other.exists()
    assert losses(tmp_path) == unbroken[1]
    assert all(torch.equal(weights[k], unbroken[0][k]) for k in weights)


@pytest.mark.parametrize("what", ["checkpoint", "log"])
def test_a_full_disk_stops_training_and_keeps_the_last_good_state(
    tmp_path, unbroken, monkeypatch, what
):
    run(tmp_path, steps=7)
    kept = {p.name: p.read_bytes() for p in (tmp_path / "checkpoints").iterdir()}
    real = Path.open

    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, data):
            self.file.write(data[:10])
            raise OSError(28, "No space left on device")

    def opened(path, mode="r", *given, **named):
        file = real(path, mode, *given, **named)
        wanted = ".step-" in path.name if what == "checkpoint" else mode == "a"
        return Full(file) if wanted else file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opened)
        with pytest.raises(OutputError, match="cannot be written") as error:
            run(tmp_path)
    assert error.value.exit_code == 3
    assert {p.name: p.read_bytes() for p in (tmp_path / "checkpoints").iterdir()} == kept
    weights = run(tmp_path)
    assert losses(tmp_path) == unbroken[1]
    assert all(torch.equal(weights[k], unbroken[0][k]) for k in weights)


def test_checkpoints_hold_tensors_and_only_the_newest_are_kept(tmp_path):
    run(tmp_path)
    names = [p.name for p in sorted((tmp_path / "checkpoints").iterdir())]
    assert names == ["step-00000010.safetensors", "step-00000012.safetensors"]


def test_a_run_of_another_recipe_is_refused(tmp_path):
    run(tmp_path, steps=6)
    with pytest.raises(UsageError, match="another recipe"):
        run(tmp_path, header={"recipe": "b"})


class Explodes(Net):
    def __init__(self, until: int) -> None:
        super().__init__()
        self.calls, self.until = 0, until

    def forward(self, lq, guidance):
        self.calls += 1
        return super().forward(lq, guidance) * (float("nan") if self.calls <= self.until else 1)


def test_a_step_that_is_not_finite_changes_nothing_and_many_stop_the_run(tmp_path):
    before = Net().state_dict()
    model = Explodes(until=1)
    run(tmp_path / "one", steps=1, model=model)
    assert all(torch.equal(model.state_dict()[k], before[k]) for k in before)
    with pytest.raises(CheckError, match="not finite for ten steps"):
        run(tmp_path / "many", model=Explodes(until=100))


def test_bf16_that_overflows_is_repeated_in_float32(tmp_path):
    """The first call of a step is the autocast one: it alone gives a NaN."""

    class Fragile(Net):
        def forward(self, lq, guidance):
            out = super().forward(lq, guidance)
            return out * float("nan") if torch.is_autocast_enabled("cpu") else out

    schedule = Schedule(
        steps=2, batch=2, crop=8, precision="bf16", last_share=0, warmup=1, log_every=1
    )
    weights = run(tmp_path, schedule=schedule, model=Fragile())
    assert all(torch.isfinite(v).all() for v in weights.values())
    assert len(losses(tmp_path)) == 2


def test_the_learning_rate_rises_then_falls_to_its_last():
    rates = [SCHEDULE.lr_at(step) for step in range(SCHEDULE.steps + 1)]
    assert rates[2] == pytest.approx(SCHEDULE.lr)
    assert rates[-1] == pytest.approx(SCHEDULE.lr_last)
    assert rates[3:] == sorted(rates[3:], reverse=True)


def test_samples_are_numbered_without_gap_over_the_change_of_crops():
    expected = 0
    for step in range(SCHEDULE.steps):
        first, count, crop = SCHEDULE.samples_at(step)
        assert first == expected
        assert crop == (8 if step < 9 else 16)
        expected += count


class Shifts(nn.Module):
    def forward(self, lq, guidance):
        return lq + 0.1


def test_harm_adds_the_square_of_what_was_lost_and_forgives_what_was_won():
    gt = torch.full((2, 3, 4, 4), 0.5)
    batch = Batch(torch.stack([gt[0], gt[0] - 0.1]), gt, Guidance())  # clean, and 0.1 too dark

    def error(out, gt):
        return (out - gt).square().mean((1, 2, 3))

    plain, _ = Restoration(error)(batch, Shifts())
    loss, logs = Restoration(error, harm=3.0)(batch, Shifts())
    assert plain.tolist() == pytest.approx([0.01, 0], abs=1e-7)
    assert logs["worse"].tolist() == pytest.approx([0.01, 0], abs=1e-7)
    assert loss.tolist() == pytest.approx([0.01 + 3 * 0.01**2, 0], abs=1e-7)
    with pytest.raises(RecipeError, match=r"objective\.harm must be 0 or more"):
        Restoration(error, harm=-1)


BEST = replace(SCHEDULE, best=True, validate_every=2, save_every=4)


def watched(folder, scores, *, stop=None, at=None):
    """A run whose validations come out as `scores` say, by step; it is cut at a step, or in one's
    validation. Returns what it returns, and the averaged weights at every validation."""

    class CutError(Exception):
        pass

    seen: dict[int, dict[str, torch.Tensor]] = {}

    def validate(weights, step):
        if step == at:
            raise CutError
        seen[step] = {k: v.clone() for k, v in weights.items()}
        return {"a": scores[step], "a gain": 99.0, "b": 0.0}

    def progress(step, _):
        if step == stop:
            raise CutError

    try:
        finished = train(
            folder, model=Net(), objective=Restoration(charbonnier), batches=batches, schedule=BEST,
            header={"recipe": "a"}, validate=validate, progress=progress,
        )  # fmt: skip
    except CutError:
        finished = None
    return finished, seen


@pytest.mark.parametrize(
    ("best", "cut"),
    [(2, {}), (2, {"stop": 5}), (8, {"at": 8}), (8, {"stop": 9}), (12, {"stop": 11})],
    ids=str,
)
def test_the_best_validation_is_what_is_finished_whenever_it_was_cut(tmp_path, best, cut):
    scores = {step: 30.0 + (step == best) for step in range(2, 13, 2)}
    if cut:
        assert watched(tmp_path, scores, **cut)[0] is None
    finished, _ = watched(tmp_path, scores)
    _, seen = watched(tmp_path / "unbroken", scores)
    assert finished and all(torch.equal(finished[k], v) for k, v in seen[best].items())


def test_a_best_of_no_validation_is_refused_and_another_runs_best_is_not_taken(tmp_path):
    with pytest.raises(UsageError, match="names none to do"):
        run(tmp_path / "a", schedule=BEST)
    first, _ = watched(tmp_path / "b", dict.fromkeys(range(2, 13, 2), 90.0))
    for path in (tmp_path / "b/checkpoints").glob("step-*"):
        path.unlink()
    again, seen = watched(tmp_path / "b", {step: float(step) for step in range(2, 13, 2)})
    assert first and again and all(torch.equal(again[k], v) for k, v in seen[12].items())
