"""A student learns from a teacher's features: what is weighted how, and that no teacher moves."""

import itertools
import json

import pytest
import torch
from safetensors import safe_open

from relume.card import survey
from relume.errors import ModelError, RecipeError, ShapeError, UsageError
from relume.guidance import Guidance, Guide
from relume.image import Picture, write
from relume.lab import recipe, weights
from relume.lab.adapters import Gate
from relume.lab.backbones.nafnet import NAFNet
from relume.lab.data import Batch
from relume.lab.losses import ATTENTIONS, DISTILLATIONS, charbonnier
from relume.lab.losses.distill import attention_transfer, effective, separability, standardised
from relume.lab.objectives import Distillation, Restoration
from relume.lab.restorer import Restorer
from relume.lab.runs import run_recipe
from relume.lab.train import Schedule, train


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def squares(*shape):
    """A mask whose left half is degraded."""
    mask = torch.zeros(shape)
    mask[..., : shape[-1] // 2] = 1
    return mask


# Losses.


@pytest.mark.parametrize("name", sorted(DISTILLATIONS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_distillation_is_one_value_an_image_and_leaves_the_teacher_alone(name, dtype):
    student = drawn(3, 6, 8, 10).to(dtype).requires_grad_()
    teacher = drawn(3, 6, 8, 10, seed=1).to(dtype).requires_grad_()
    loss = DISTILLATIONS[name](student, teacher, squares(3, 1, 8, 10))
    assert loss.shape == (3,) and loss.dtype == torch.float32 and (loss > 0).all()
    loss.sum().backward()
    assert teacher.grad is None
    assert student.grad.abs().max() > 0


@pytest.mark.parametrize("name", sorted(DISTILLATIONS))
def test_a_student_that_has_arrived_costs_nothing_and_has_a_gradient(name):
    teacher = drawn(2, 6, 8, 8)
    arrived = teacher if name == "attention_transfer" else standardised(teacher)
    student = arrived.clone().requires_grad_()
    loss = DISTILLATIONS[name](student, teacher, squares(2, 1, 8, 8))
    assert loss.max() <= 1e-6
    loss.sum().backward()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("name", sorted(DISTILLATIONS))
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_flat_features_and_masks_stay_finite(name, level):
    student = torch.full((2, 6, 4, 4), level, requires_grad=True)
    loss = DISTILLATIONS[name](student, student.detach(), torch.full((2, 1, 4, 4), level))
    loss.sum().backward()
    assert loss.isfinite().all() and student.grad.isfinite().all()


@pytest.mark.parametrize("name", ["attentive", "l2"])
def test_a_student_that_says_nothing_costs_as_much_at_any_level_of_a_teacher(name):
    silent, teacher = torch.zeros(2, 6, 16, 16), drawn(2, 6, 16, 16)
    loss = DISTILLATIONS[name]
    assert loss(silent, 100 * teacher + 7).mean() == pytest.approx(
        float(loss(silent, teacher).mean()), rel=0.2
    )
    if name == "l2":
        assert loss(silent, teacher).mean() == pytest.approx(1, abs=1e-4)


def test_attention_transfer_is_the_papers_and_knows_no_scale():
    student, teacher = drawn(2, 4, 5, 6), drawn(2, 9, 5, 6, seed=1)
    q_s, q_t = ((f**2).sum(1).flatten(1) for f in (student, teacher))
    wanted = torch.stack(
        [torch.dist(a / a.norm(), b / b.norm()) for a, b in zip(q_s, q_t, strict=True)]
    )
    torch.testing.assert_close(attention_transfer(student, teacher), wanted)
    torch.testing.assert_close(attention_transfer(3 * student, 0.1 * teacher), wanted)
    assert attention_transfer(teacher, teacher).max() <= 1e-6


@pytest.mark.parametrize("name", sorted(ATTENTIONS))
def test_attention_has_mean_one_and_is_not_one_hot(name):
    """Also of a teacher whose norms differ by tens, where a plain softmax leaves one pixel."""
    teacher = 30 * drawn(2, 64, 16, 16)
    a = ATTENTIONS[name](teacher)
    assert a.shape == (2, 1, 16, 16) and (a >= 0).all()
    torch.testing.assert_close(a.mean((2, 3)), torch.ones(2, 1))
    assert (effective(a) > 128).all()
    hot = torch.softmax(teacher.norm(dim=1).flatten(1), 1)
    assert (effective(hot) < 4).all()
    teacher[..., 3, 5] *= 2
    assert (ATTENTIONS[name](teacher).flatten(1).argmax(1) == 3 * 16 + 5).all()


def test_a_weighting_spreads_over_as_many_as_share_it():
    w = torch.zeros(3, 10)
    w[0], w[1, 4], w[2, :5] = 1, 7, 2
    assert effective(w).tolist() == [10, 1, 5]


def test_channels_count_by_how_well_they_tell_degraded_from_clean():
    mask, teacher = squares(4, 1, 16, 16), drawn(4, 5, 16, 16)
    teacher[:, 2] += 3 * mask[:, 0]
    teacher[:, 4] = 100 - 50 * (3 * mask[:, 0] + teacher[:, 4])  # neither scale nor sign matter
    rho = separability(teacher, mask)
    assert rho.mean() == pytest.approx(1)
    assert (rho[[2, 4]] > 2).all() and (rho[[0, 1, 3]] < 0.1).all()
    # Fisher's ratio of a shift of 3 between deviations of 1.
    lone = standardised(teacher)[:, 2]
    left, right = lone[..., :8], lone[..., 8:]
    fisher = (left.mean() - right.mean()) ** 2 / (left.var() + right.var())
    assert fisher == pytest.approx(9 / 2, rel=0.1)
    assert rho[2] / rho[4] == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("mask", [torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8)])
def test_of_a_mask_with_one_side_all_channels_are_alike(mask):
    teacher = drawn(2, 5, 8, 8)
    assert torch.equal(separability(teacher, mask), torch.ones(5))
    student = drawn(2, 5, 8, 8, seed=1)
    attentive = DISTILLATIONS["attentive"]
    assert torch.equal(attentive(student, teacher, mask), attentive(student, teacher))


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ShapeError, match="must have one shape"):
        DISTILLATIONS["l2"](drawn(2, 5, 8, 8), drawn(2, 6, 8, 8))
    with pytest.raises(ShapeError, match="must have one shape"):
        attention_transfer(drawn(2, 5, 8, 8), drawn(2, 6, 8, 4))
    with pytest.raises(ShapeError, match="Pool it to their grid"):
        separability(drawn(2, 5, 8, 8), squares(2, 1, 16, 16))


# The objective.

AT = ("encoder.0", "middle")
STEPS = 12


def network(width=4, seed=0, gate=True):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = NAFNet(width=width, enc_blocks=(1,), middle_blocks=1, dec_blocks=(1,))
        gates = {"encoder.0": Gate(width, 1, reads="damage")} if gate else {}
        model = Restorer(backbone, {}, gates)
        for parameter in model.parameters():  # nothing that starts at zero hides what is learnt
            if not parameter.any():
                parameter.data.normal_(0, 0.1)
        return model


def objective(teacher=None, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        teacher = teacher or network(6, seed=9, gate=False)
        options = {"at": AT, "reads": "damage", "steps": STEPS, **options}
        return Distillation(charbonnier, teacher, network().backbone.sites, **options)


def batches(first, count, crop):
    gt = torch.stack([drawn(3, crop, crop, seed=first + i).sigmoid() for i in range(count)])
    maps = squares(count, 1, crop, crop)
    return Batch(gt * 0.5 + 0.1 * maps, gt, Guidance(damage=Guide(maps=maps)))


def test_the_loss_is_the_restorations_and_the_weighted_distance_at_each_site():
    model, made, batch = network(), objective(weight=0.3, distill="l2"), batches(0, 2, 8)
    made.begin(0, None)
    loss, logs = made(batch, model)
    ours = model.run(batch.lq, batch.guidance, AT)
    theirs = made.teacher.run(batch.lq, batch.guidance, AT).aux
    apart = sum(
        DISTILLATIONS["l2"](made.into[site.replace(".", "_")](ours.aux[site]), theirs[site])
        for site in AT
    )
    torch.testing.assert_close(loss, charbonnier(ours.image, batch.gt) + 0.3 * apart)
    torch.testing.assert_close(logs["distill"], apart)


@pytest.mark.parametrize("distill", sorted(DISTILLATIONS))
@pytest.mark.parametrize("attention", sorted(ATTENTIONS))
def test_the_student_and_its_convolutions_learn_and_the_teacher_is_not_touched(distill, attention):
    teacher = network(6, seed=9, gate=False).train()
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    made, model = objective(teacher, distill=distill, attention=attention), network()
    made.train()
    optimizer = torch.optim.Adam([*model.parameters(), *made.parameters()], lr=1e-2)
    for step in range(3):
        optimizer.zero_grad()
        made.begin(step, None)
        loss, logs = made(batches(step, 2, 8), model)
        loss.mean().backward()
        optimizer.step()
    assert all(p.grad.abs().max() > 0 for p in made.parameters())
    assert not teacher.training
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert not {id(p) for p in made.parameters()} & {id(p) for p in teacher.parameters()}
    assert len(made.state_dict()) == (0 if distill == "attention_transfer" else 2 * len(AT))
    counted = {f"{what}.{site}" for what in ("pixels", "channels") for site in AT}
    assert counted & set(logs) == (counted if distill == "attentive" else set())
    if distill == "attentive":
        assert 1 < float(logs["pixels.encoder.0"].mean()) <= 64


def test_without_a_mask_channels_are_alike():
    made, batch = objective(reads=""), batches(0, 2, 8)
    _, logs = made(batch, network())
    assert "channels.middle" not in logs and "pixels.middle" in logs


def test_the_weight_falls_to_nothing_over_the_last_part():
    made = objective(weight=0.5, last=0.25, steps=100)
    found = []
    for step in range(101):
        made.begin(step, None)
        found.append(made.now)
    assert found[:76] == [0.5] * 76
    falls = [a - b for a, b in itertools.pairwise(found[75:])]
    assert falls == pytest.approx([0.5 / 25] * 25)
    assert found[100] == 0
    made = objective(last=0)
    made.begin(STEPS - 1, None)
    assert made.now == made.weight


def test_without_weight_it_is_restoration_and_the_teacher_rests():
    made, batch, model = objective(weight=0, harm=2.0), batches(0, 2, 8), network()
    made.teacher.run = None
    made.begin(0, None)
    loss, _ = made(batch, model)
    assert torch.equal(loss, Restoration(charbonnier, harm=2.0)(batch, model)[0])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"at": ("encoder.3",)}, "the network has no site 'encoder.3'"),
        ({"at": ()}, "lists the sites"),
        ({"at": "middle"}, "lists the sites"),
        ({"distill": "attentiv"}, "Did you mean 'attentive'"),
        ({"attention": "hot"}, "objective.attention: 'hot' is none of energy, softmax"),
        ({"weight": -1.0}, "must be 0 or more"),
        ({"last": 1.5}, "a share"),
    ],
)
def test_what_an_objective_cannot_be_is_one_line(options, says):
    with pytest.raises(RecipeError) as caught:
        objective(**options)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_sites_of_another_stride_or_only_the_students_are_refused():
    deeper = Restorer(NAFNet(width=4, enc_blocks=(1, 1), middle_blocks=1, dec_blocks=(1, 1)))
    with pytest.raises(RecipeError, match="stride of 2 in the network and of 4 in the teacher"):
        objective(deeper)
    sites = {**network().backbone.sites, "extra": network().backbone.sites["middle"]}
    with pytest.raises(RecipeError, match="the teacher has no site 'extra'"):
        Distillation(charbonnier, network(), sites, steps=1, at=["extra"])


# In training.

SCHEDULE = Schedule(
    steps=STEPS, batch=2, crop=8, warmup=2, last_share=0, save_every=5, precision="bf16",
    log_every=1,
)  # fmt: skip


def run(folder, stop=None):
    class StopRunError(Exception):
        pass

    def progress(step, _):
        if step == stop:
            raise StopRunError

    try:
        return train(
            folder,
            model=network(),
            objective=objective(),
            batches=batches,
            schedule=SCHEDULE,
            header={"recipe": "a"},
            progress=progress,
        )
    except StopRunError:
        return None


def losses(folder):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return {line["step"]: line["loss_hex"] for line in lines}


def test_a_stopped_run_goes_on_bit_equal_and_keeps_no_teacher(tmp_path):
    unbroken = run(tmp_path / "one")
    for stop in (3, 7, 11):
        assert run(tmp_path / "two", stop) is None
    again = run(tmp_path / "two")
    assert losses(tmp_path / "one") == losses(tmp_path / "two")
    assert all(torch.equal(unbroken[k], again[k]) for k in unbroken)
    assert set(unbroken) == set(network().state_dict())  # what is exported
    last = tmp_path / "two/checkpoints/step-00000012.safetensors"
    with safe_open(last, "pt") as file:
        kept = {name for name in file.keys() if name.startswith("objective.")}  # noqa: SIM118
    assert kept == {f"objective.{name}" for name in objective().state_dict()}
    assert len(kept) == 4


SMALL = [
    "backbone.width=4", "backbone.enc_blocks=[1]", "backbone.dec_blocks=[1]", "start=",
    'adapters=[{kind = "film", at = ["middle"], reads = "code"}]', "schedule.steps=50",
]  # fmt: skip


def taught(path, *more):
    words = [
        "objective.kind=distillation", f'objective.teacher="{path}"', 'objective.at=["middle"]',
    ]  # fmt: skip
    return recipe.load("relume-s", [*SMALL, *words, *more])


@pytest.fixture
def teacher(tmp_path):
    made = recipe.load("relume-s", [*SMALL, "backbone.width=6", "seed=3"])
    path = tmp_path / "teacher.safetensors"
    weights.save(path, made.build_model().state_dict(), recipe=made.resolved())
    return path


def test_a_recipe_names_its_teacher(teacher):
    made = taught(teacher, "objective.weight=0.2")
    built, again = made.build_objective(), made.build_objective()
    stored = weights.load(teacher).tensors
    assert all(torch.equal(v, stored[k]) for k, v in built.teacher.state_dict().items())
    assert (built.steps, built.weight, built.at) == (50, 0.2, ("middle",))
    assert [tuple(p.shape) for p in built.parameters()] == [(12, 8, 1, 1), (12,)]
    assert all(
        torch.equal(a, b) for a, b in zip(built.parameters(), again.parameters(), strict=True)
    )
    batch = Batch(
        torch.rand(2, 3, 16, 16),
        torch.rand(2, 3, 16, 16),
        Guidance(thumbnail=Guide(maps=torch.rand(2, 3, 96, 96), whole=True)),
    )
    loss, _ = built(batch, made.build_model())
    assert loss.isfinite().all()
    assert str(teacher) in made.toml()


def test_a_teacher_that_is_not_there_or_reads_more_is_refused(teacher, tmp_path):
    with pytest.raises(UsageError, match="which is not here"):
        taught(tmp_path / "none.safetensors").build_objective()
    with pytest.raises(RecipeError, match=r"objective\.teacher is missing"):
        taught("").build_objective()
    with pytest.raises(RecipeError, match="does not take these arguments"):
        taught(teacher, "objective.kind=restoration").build_objective()
    reads = recipe.load(
        "relume-s", [*SMALL[:-2], 'adapters=[{kind = "concat", reads = "regions"}]']
    )
    more = tmp_path / "more.safetensors"
    weights.save(more, reads.build_model().state_dict(), recipe=reads.resolved())
    with pytest.raises(RecipeError, match="reads regions, which the network does not read"):
        taught(more).build_objective()
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="refused"):
        taught(tmp_path / "broken.safetensors").build_objective()


def test_a_run_belongs_to_its_teacher_and_the_model_holds_none(teacher, photo, tmp_path):
    (tmp_path / "p").mkdir()
    write(Picture.from_rgb(photo), tmp_path / "p/a.png")
    brief = [
        "data.photographs=p", 'data.damage={"noise" = 1.0}', "data.counts=[0, 1]",
        "data.windows=[]", "data.mosaic=0", "schedule.steps=2", "schedule.batch=1",
        "schedule.crop=32", "schedule.last_share=0", "validation.specs=[]", "data.validation=",
    ]  # fmt: skip
    made = taught(teacher, *brief)
    finished = run_recipe(made, tmp_path / "run", root=tmp_path)
    assert set(weights.load(finished).tensors) == set(made.build_model().state_dict())
    count = sum(p.numel() for p in made.build_model().parameters())
    assert survey(finished).card.parameters == count
    stored = weights.load(teacher)
    other = {name: tensor * 1.5 for name, tensor in stored.tensors.items()}
    weights.save(teacher, other, recipe=stored.recipe)
    with pytest.raises(UsageError, match="another recipe"):
        run_recipe(made, tmp_path / "run", root=tmp_path)
    teacher.unlink()
    with pytest.raises(UsageError, match="which is not here"):
        run_recipe(made, tmp_path / "new", root=tmp_path)
    assert not (tmp_path / "new").exists()
