"""Codes, tiers and features as losses: the laws of each, their one objective, and second looks."""

import contextlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from relume.errors import GuidanceError, ModelError, RecipeError, ShapeError, UsageError
from relume.guidance import Guidance, Guide
from relume.image import Picture, write
from relume.lab import recipe, runs, weights
from relume.lab.backbones.nafnet import NAFNet
from relume.lab.data import DAMAGE, FOLD, SECOND, Asks, Batch, Damage, Damaged
from relume.lab.folds import fold_of
from relume.lab.loader import Loader
from relume.lab.losses import CONTRASTS, PERCEPTUAL, TIERS, l1
from relume.lab.losses.contrastive import by_damage, by_picture, info_nce
from relume.lab.losses.perceptual import decibels, distances, negative_weights
from relume.lab.losses.tier import balance, gradient_norm
from relume.lab.losses.vgg import CONVOLUTIONS, VGG16, load_vgg16
from relume.lab.objectives import Perception, Proxy, Restoration
from relume.lab.objectives.perception import Reference, Tapped, severity_of
from relume.lab.photographs import load_photographs
from relume.lab.restorer import Restorer
from relume.lab.runs import run_recipe
from relume.lab.train import Schedule, train
from relume.priors.damage import KINDS


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tasks_of(*numbers):
    return F.one_hot(torch.tensor(numbers), 4).bool()


# Codes.


def test_the_release_is_its_equation():
    z, again = F.normalize(drawn(4, 8)), F.normalize(drawn(4, 8, seed=1))
    loss = by_picture(z, again, tasks_of(0, 0, 1, 2), temperature=0.1)
    wanted = []
    for i, others in enumerate(([2, 3], [2, 3], [0, 1, 3], [0, 1, 2])):
        own = torch.exp(z[i] @ again[i] / 0.1)
        wanted.append(-torch.log(own / (own + sum(torch.exp(z[i] @ z[j] / 0.1) for j in others))))
    torch.testing.assert_close(loss, torch.stack(wanted))


@pytest.mark.parametrize("name", sorted(CONTRASTS))
def test_codes_are_compared_by_angle_and_learn(name):
    looks = [drawn(5, 8, seed=i).requires_grad_() for i in range(2 + (name == "damage"))]
    loss = CONTRASTS[name](*looks, tasks_of(0, 1, 2, 0, 1))
    longer = CONTRASTS[name](*(3 * look for look in looks), tasks_of(0, 1, 2, 0, 1))
    torch.testing.assert_close(loss, longer)
    assert loss.shape == (5,) and (loss > 0).all()
    loss.sum().backward()
    assert all(look.grad.abs().max() > 0 for look in looks)


def test_a_batch_of_one_task_is_exactly_nothing_with_a_live_graph():
    z = drawn(3, 8).requires_grad_()
    loss = by_picture(z, drawn(3, 8, seed=1), tasks_of(2, 2, 2))
    assert loss.tolist() == [0, 0, 0] and loss.requires_grad
    loss.sum().backward()
    assert torch.equal(z.grad, torch.zeros_like(z))
    mixed = by_picture(z, drawn(3, 8, seed=1), torch.eye(4).bool()[[2, 2, 1]])
    assert (mixed > 0).all()


def test_no_gradient_reaches_the_releases_negatives():
    z = drawn(2, 8).requires_grad_()
    by_picture(z, drawn(2, 8, seed=1), tasks_of(0, 1))[0].backward()
    assert z.grad[0].abs().max() > 0 and z.grad[1].abs().max() == 0


def test_a_code_of_content_cannot_win_where_content_is_the_hard_negative():
    """Codes of what is shown are free to the release and the worst there is to ours."""
    content, damage = F.one_hot(torch.arange(4), 8).float(), tasks_of(0, 1, 2, 3).float()
    damage = F.pad(damage, (4, 0))
    tasks = tasks_of(0, 1, 2, 3)
    assert by_picture(content, content, tasks).max() < 1e-3
    cheats = by_damage(content, content.roll(1, 0), content, tasks)
    honest = by_damage(damage, damage, damage.roll(1, 0), tasks)
    assert honest.max() < 1e-3 and cheats.min() > 9


def test_what_is_neither_alike_nor_unlike_is_left_out():
    z, other = drawn(2, 8), drawn(3, 8, seed=1)
    alike = torch.tensor([[1, 0, 0], [1, 1, 0]]).bool()
    unlike = torch.tensor([[0, 1, 0], [0, 0, 0]]).bool()
    loss = info_nce(z, other, alike, unlike)
    other[2] *= -1
    assert torch.equal(loss, info_nce(z, other, alike, unlike))
    assert loss[0] > 0 and loss[1] == 0  # nothing to tell it from
    with pytest.raises(ShapeError, match=r"are \(2, 3\)"):
        info_nce(z, other, alike.T, unlike)


# Tiers.


def judge(rgb):
    """The brighter, the better: logits that CLIP would scale by 100."""
    level = rgb.mean((1, 2, 3))
    return (100 * torch.stack([1 - level, 0.6 * torch.ones_like(level), level], 1)).softmax(1)


def test_the_release_reads_bare_cosines_where_ours_reads_what_was_trained():
    rgb = torch.full((1, 3, 8, 8), 0.65)
    p = judge(rgb)[0, 2]
    torch.testing.assert_close(TIERS["surprise"](rgb, judge), -p.log()[None])
    bare = torch.tensor([0.35, 0.6, 0.65]).softmax(0)[2]
    torch.testing.assert_close(TIERS["release"](rgb, judge), 1 - bare[None])
    assert p > 0.9 > 0.45 > bare  # a hundred times weaker than its value suggests


@pytest.mark.parametrize("name", sorted(TIERS))
def test_a_tier_loss_pulls_towards_excellence(name):
    rgb = torch.full((2, 3, 6, 6), 0.4, requires_grad=True)
    loss = TIERS[name](rgb, judge)
    assert loss.shape == (2,)
    loss.sum().backward()
    assert (rgb.grad < 0).all()


def test_a_sure_judge_of_the_worst_still_gives_a_finite_gradient():
    rgb = torch.full((1, 3, 4, 4), 0.1, requires_grad=True)
    loss = TIERS["surprise"](rgb, judge)
    loss.sum().backward()
    assert loss.isfinite().all() and rgb.grad.isfinite().all() and rgb.grad.abs().max() > 0


def test_a_balanced_loss_pulls_as_hard_as_the_one_it_is_held_against():
    out = drawn(2, 3, 4, 4).requires_grad_()
    first, second = out.abs().mean((1, 2, 3)), 1e-2 * out.square().sum((1, 2, 3))
    factor = balance(gradient_norm(first, out), gradient_norm(second, out))
    assert not factor.requires_grad and out.grad is None
    torch.testing.assert_close(gradient_norm(factor * second, out), gradient_norm(first, out))
    flat = balance(gradient_norm(first, out), gradient_norm(drawn(2).requires_grad_(), out))
    assert flat == 1e3  # a loss that does not look at the picture is not blown up without end


# Features.


def taps_of(seed, count=2):
    return [drawn(2, 3 + i, 6, 6, seed=10 * seed + i) for i in range(count)]


def compared(name, out=0, gt=1, lq=2, proxies=(3, 4), weights=None):
    out, gt, lq = (taps_of(x) if isinstance(x, int) else x for x in (out, gt, lq))
    if weights is None:
        weights = torch.tensor([[2.0, 1.25, 0.75]]).repeat(2, 1)[:, : 1 + len(proxies)]
    return PERCEPTUAL[name](out, gt, lq, [taps_of(p) for p in proxies], weights, (0.5, 1.0))


def test_the_release_is_the_papers_ratio():
    r, g, d, p, q = (taps_of(i) for i in range(5))
    far = distances
    below = 2 * far(r, d) + 1.25 * far(r, p) + 0.75 * far(r, q)
    wanted = far(r, g) / below @ torch.tensor([0.5, 1.0])
    torch.testing.assert_close(compared("release"), wanted)
    ours = far(r, g) / (below / 4 + 1e-3 + 0.1 * far(g, d)) @ torch.tensor([0.5, 1.0])
    torch.testing.assert_close(compared("ratio"), ours)


@pytest.mark.parametrize("name", sorted(PERCEPTUAL))
def test_the_truth_costs_nothing(name):
    assert compared(name, out=1).abs().max() == 0
    assert (compared(name) > 0).all()


@pytest.mark.parametrize("name", sorted(PERCEPTUAL))
@pytest.mark.parametrize("proxies", [(), (3, 4)])
def test_an_answer_that_is_the_input_stays_finite(name, proxies):
    out = [tap.requires_grad_() for tap in taps_of(2)]
    loss = compared(name, out=out, proxies=proxies)
    loss.sum().backward()
    assert loss.isfinite().all() and all(tap.grad.isfinite().all() for tap in out)
    if name == "ratio":
        assert (loss <= 1.5 / 0.1).all()  # the floor bounds it, where the release makes a million
    if name == "release":
        assert (loss > 1e5).all() or proxies


@pytest.mark.parametrize("name", sorted(PERCEPTUAL))
def test_a_proxy_that_does_not_count_has_no_effect_and_order_has_none(name):
    weights = torch.tensor([[2.0, 1.25, 0.0], [2.0, 0.75, 0.0]])
    masked = compared(name, weights=weights)
    torch.testing.assert_close(masked, compared(name, proxies=(3,), weights=weights[:, :2]))
    torch.testing.assert_close(
        masked, compared(name, proxies=(4, 3), weights=weights[:, [0, 2, 1]])
    )


@pytest.mark.parametrize("name", sorted(PERCEPTUAL))
def test_only_the_answer_learns(name):
    made = [[tap.requires_grad_() for tap in taps_of(i)] for i in range(4)]
    out, gt, lq, proxy = made
    weights = torch.tensor([[2.0, 1.25]]).repeat(2, 1)
    PERCEPTUAL[name](out, gt, lq, [proxy], weights, (0.5, 1.0)).sum().backward()
    assert all(tap.grad.abs().max() > 0 for tap in out)
    assert all(tap.grad is None for taps in (gt, lq, proxy) for tap in taps)


def test_a_proxy_is_very_hard_from_the_reference_on():
    psnr = torch.tensor([[29.9, 30.0, 30.1]])
    covers = torch.tensor([[True, True, True]])
    assert negative_weights(psnr, torch.tensor([30.0]), covers).tolist() == [
        [2.0, 1.25, 1.25, 0.75]
    ]
    assert negative_weights(psnr, torch.tensor([30.0]), ~covers).tolist() == [[2.0, 0, 0, 0]]
    assert negative_weights(psnr[:, :0], torch.tensor(30.0), covers[:, :0]).tolist() == [[2.0]]


def test_more_proxies_push_no_harder_where_weights_are_normalised():
    one = compared("ratio", proxies=(3,), weights=torch.full((2, 2), 1.25))
    many = compared("ratio", proxies=(3, 3, 3), weights=torch.tensor([[1.25] + 3 * [1.25 / 3]] * 2))
    torch.testing.assert_close(one, many)
    with pytest.raises(ShapeError, match="one shape at each tap"):
        compared("ratio", gt=taps_of(1, 1))


def test_decibels_are_those_of_the_metrics():
    a, b = (drawn(2, 3, 8, 8, seed=i).sigmoid() for i in range(2))
    wanted = -10 * (a - b).square().mean((1, 2, 3)).log10()
    torch.testing.assert_close(decibels(a, b), wanted)
    assert decibels(a, a).tolist() == [60, 60]


# VGG-16.


def test_the_layout_is_torchvisions(tmp_path):
    """`make_layers` of its configuration D: each convolution and its ReLU, each stage's pooling."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rows, channels = [], 3
        for wide in (64, 64, 0, 128, 128, 0, 256):
            rows += [nn.Conv2d(channels, wide, 3, padding=1), nn.ReLU()] if wide else []
            rows += [] if wide else [nn.MaxPool2d(2)]
            channels = wide or channels
        layers = nn.Sequential(*rows)
    stored = {f"features.{k}": v for k, v in layers.state_dict().items()}
    assert "features.10.bias" in stored
    rgb = drawn(1, 3, 20, 24).sigmoid()
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x, after = (rgb - mean.view(3, 1, 1)) / deviation.view(3, 1, 1), []
    for layer in layers:
        x = layer(x)
        after.append(x)
    for name in ("vgg.safetensors", "vgg.pth"):
        (save_file if name.endswith("s") else torch.save)(stored, tmp_path / name)
        network = load_vgg16(tmp_path / name, ("relu1_2", "conv2_1", "relu2_2", "relu3_1"))
        for tap, index in zip(network(rgb), (3, 5, 8, 11), strict=True):
            torch.testing.assert_close(tap, after[index])
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    with pytest.raises(ModelError, match="does not hold VGG-16"):
        load_vgg16(tmp_path / "vgg.pth", ("relu3_3",))


def test_thirteen_convolutions_built_no_deeper_than_asked(tmp_path):
    assert len(CONVOLUTIONS) == 13 and CONVOLUTIONS[-1] == "5_3"
    assert list(VGG16(("relu1_1",)).convolutions) == ["1_1"]
    with pytest.raises(RecipeError, match="VGG-16 has no 'relu1_3'"):
        VGG16(("relu1_3",))
    with pytest.raises(UsageError, match="is not here"):
        load_vgg16(tmp_path / "none.pth")
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="refused"):
        load_vgg16(tmp_path / "broken.pth")


# Second looks.


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        write(
            Picture.from_rgb(rng.random((1, 3, 100, 120)).astype(np.float32)), path / f"{name}.png"
        )
    return path


SPECS = {"lowlight:gain=0.1,read=0": 1.0, "noise:sigma=40": 1.0}


def samples(folder, counts=(0.0, 1.0), specs=SPECS, **changes):
    known = {"seed": 7, "second": SECOND, "severities": KINDS, **changes}
    return Damaged(load_photographs(folder, sizes=1), Damage(specs, counts), **known)


def _source(folder):
    return samples(folder, folds=2).batch


def test_second_looks_leave_the_sample_as_it_is(folder):
    with_them = samples(folder, folds=2).batch(3, 6, 24)
    without = samples(folder, second=()).batch(3, 6, 24)
    assert torch.equal(with_them.lq, without.lq) and torch.equal(with_them.gt, without.gt)
    assert torch.equal(with_them.truth[DAMAGE].maps, without.truth[DAMAGE].maps)
    assert not without.second and FOLD not in without.truth
    one = samples(folder, second=("otherwise",)).batch(3, 6, 24)
    assert torch.equal(one.second["otherwise"], with_them.second["otherwise"])
    again = samples(folder, folds=2)
    again.batch(0, 2, 24)
    for first in (3, 6):  # a function of the number, and of nothing before it
        part = again.batch(first, 3, 24)
        for word in SECOND:
            assert torch.equal(part.second[word], with_them.second[word][first - 3 : first])


def test_second_looks_are_what_they_say(folder):
    """Darkness takes nine tenths of the light, noise takes none: damage shows in the mean."""
    batch = samples(folder).batch(0, 12, 24)
    dark = batch.lq.mean((1, 2, 3)) < 0.4
    assert 0 < dark.sum() < 12
    for word in SECOND:
        same = (batch.second[word].mean((1, 2, 3)) < 0.4) == dark
        assert same.all() if word != "otherwise" else not same.any()
        assert batch.second[word].shape == batch.lq.shape

    def alike(a, b):
        """Correlation of what two crops show."""
        a, b = (x - x.mean((1, 2, 3), keepdim=True) for x in (a, b))
        return F.cosine_similarity(a.flatten(1), b.flatten(1))

    assert (alike(batch.second["otherwise"], batch.gt) > 0.7).all()  # the same place
    for word in ("again", "elsewhere"):
        assert (alike(batch.second[word], batch.gt) < 0.5).float().mean() > 0.8
    truth = [
        batch.truth[DAMAGE].maps[:, KINDS.index(k)].mean((1, 2)) for k in ("lowlight", "noise")
    ]
    assert torch.equal(truth[0] > truth[1], dark)


def test_the_partner_under_the_same_damage_is_damaged_as_much(folder):
    """`noise:sigma=5..50` is drawn once for both: the sigma of one picture is the other's."""
    grey = [[type(p[0])(p[0].name, np.full_like(p[0].pixels, 128), *_rest(p[0]))] for p in
            load_photographs(folder, sizes=1)]  # fmt: skip
    damage = Damage({"noise:sigma=5..50": 1.0}, (0.0, 1.0))
    batch = Damaged(grey, damage, seed=1, second=("again", "elsewhere")).batch(0, 8, 48)
    sigma = batch.lq.std((1, 2, 3))
    assert sigma.max() > 1.5 * sigma.min()
    for word in ("again", "elsewhere"):
        # 6912 samples: four standard errors of a deviation are 3.4 %, of two 4.8 %.
        assert (batch.second[word].std((1, 2, 3)) / sigma - 1).abs().max() < 0.06
        assert not torch.equal(batch.second[word], batch.lq)


def _rest(photo):
    return photo.small, photo.coarse, photo.regions


def test_a_single_kind_has_no_other_damage(folder):
    with pytest.raises(UsageError, match="needs a second kind"):
        samples(folder, specs={"noise:sigma=10..20": 1.0}).batch(0, 1, 24)
    clean = samples(folder, counts=(0.5, 0.5), specs={"noise:sigma=40": 1.0}).batch(0, 8, 24)
    was, now = ((x - clean.gt).square().mean((1, 2, 3)) > 1e-3 for x in
                (clean.lq, clean.second["otherwise"]))  # fmt: skip
    assert torch.equal(was, ~now)


def test_second_looks_and_folds_come_through_a_loader(folder):
    asks = [(0, 2, 24), (2, 2, 24)]
    direct = samples(folder, folds=2)
    with Loader(_source, (folder,), dict(itertools.pairwise(asks)).get) as loader:
        for ask in asks:
            one, two = loader(*ask), direct.batch(*ask)
            assert all(torch.equal(one.second[word], two.second[word]) for word in SECOND)
            assert torch.equal(one.truth[FOLD].vector, two.truth[FOLD].vector)
    folds = direct.batch(0, 9, 24).truth[FOLD].vector[:, 0].tolist()
    assert sorted({*folds}) == sorted({float(fold_of(f"{n}.png", 2)) for n in "abc"})
    moved = direct.batch(0, 1, 24).to(torch.device("meta"))
    assert all(look.is_meta for look in moved.second.values())


# The objective.


class Code(nn.Module):
    """The mean and spread of a picture's channels."""

    asks, prepared, dim = (), False, 6

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, lq, guidance):
        return Guide(vector=self.body(lq).square().mean((2, 3)))


class Judge(nn.Module):
    """Emits more than the tiers, in an order of its own, and logits in training."""

    vector = ("high", "difficulty", "low", "medium")

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(5.0))

    def forward(self, rgb, guidance):
        level = rgb.mean((1, 2, 3))
        logits = self.scale * torch.stack([level, 1 - level, 0.5 + 0 * level], 1)
        p = logits if self.training else logits.softmax(1)
        return torch.cat([p[:, :1], 0 * level[:, None], p[:, 1:]], 1)


def features(rgb):
    return [rgb.diff(dim=-1), F.avg_pool2d(rgb, 2)]


def network(seed=0, width=4):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = NAFNet(width=width, enc_blocks=(1,), middle_blocks=1, dec_blocks=(1,))
        model = Restorer(backbone, {"degradation": Code()})
        for parameter in model.parameters():
            if not parameter.any():
                parameter.data.normal_(0, 0.1)
        return model


STEPS = 12


def objective(**options):
    given = {"perceiver": Judge(), "features": features, "student": network(), "steps": STEPS,
             "every": 4, "warmup": 0.0}  # fmt: skip
    return Perception(l1, **{**given, **options})


def batches(first, count, crop, severity=0.6):
    gt = torch.stack([drawn(3, crop, crop, seed=first + i).sigmoid() for i in range(count)])
    maps = torch.zeros(count, len(KINDS), crop, crop)
    for i in range(count):
        maps[i, (first + i) % 3] = severity
    lq = gt * 0.5 + 0.1
    looks = {word: lq.roll(1 + i, 0).flip(-1) for i, word in enumerate(SECOND)}
    truth = Guidance({DAMAGE: Guide(maps=maps, names=KINDS)})
    return Batch(lq, gt, Guidance(), truth, looks)


def test_the_objective_is_restoration_and_three_weighted_losses():
    made, model, batch = objective(), network(), batches(0, 4, 16)
    made.begin(0, None)
    loss, logs = made(batch, model)
    wanted = Restoration(l1)(batch, model)[0]
    for key, weight in (("contrastive", 0.1), ("tier", 0.05), ("perceptual", 0.1)):
        assert (logs[key] > 0).all()
        wanted = wanted + weight * logs[key]
    torch.testing.assert_close(loss, wanted)
    out = model(batch.lq, batch.guidance).clamp(0, 1)
    p = made.held["perceiver"](out, Guidance())
    torch.testing.assert_close(logs["tier"], -(p[:, 0] / p.sum(1)).log())


@pytest.mark.parametrize("key", ["contrastive", "tier", "perceptual"])
def test_what_has_no_weight_does_not_run(key):
    class Broken(nn.Module):
        vector = Judge.vector

        def forward(self, *_):
            raise AssertionError("it ran")

    others = {k: 0.0 for k in ("contrastive", "tier", "perceptual") if k != key}
    batch = batches(0, 3, 16)
    model = network()
    if key != "contrastive":
        batch = Batch(batch.lq, batch.gt, batch.guidance, batch.truth)
    kept = {"tier": {"features": Broken()}, "perceptual": {"perceiver": Broken()}}
    made = objective(**others, **kept.get(key, {"features": Broken(), "perceiver": Broken()}))
    made.begin(0, None)
    loss, logs = made(batch, model)
    assert key in logs and not {*others} & {*logs}
    assert not torch.equal(loss, Restoration(l1)(batch, model)[0])
    assert len(made.snapshots) == (key == "perceptual")
    none = objective(contrastive=0, tier=0, perceptual=0, perceiver=None, features=None)
    bare = Batch(batch.lq, batch.gt, batch.guidance)
    assert torch.equal(none(bare, model)[0], Restoration(l1)(bare, model)[0])
    assert not none.held and not len(none.snapshots)


def test_slight_damage_is_left_to_restoration():
    made, model = objective(), network()
    batch = batches(0, 4, 16)
    batch.truth[DAMAGE].maps[2:] *= 0.09 / 0.6
    loss, logs = made(batch, model)
    alone = Restoration(l1)(batch, model)[0]
    assert torch.equal(loss[2:], alone[2:]) and (loss[:2] > alone[:2]).all()
    assert logs["open"].tolist() == [1, 1, 0, 0]
    assert severity_of(batch).amax(1).tolist() == pytest.approx([0.6, 0.6, 0.09, 0.09])
    quiet = batches(0, 4, 16, severity=0.05)
    loss, logs = made(quiet, model)
    assert torch.equal(loss, Restoration(l1)(quiet, model)[0])
    assert logs["open"].sum() == 0
    # What is thin counts by its strength: a tenth of the pixels at full severity are a third.
    thin = batches(0, 1, 20, severity=0.0)
    thin.truth[DAMAGE].maps[0, KINDS.index("rain"), :2] = 1
    assert severity_of(thin)[0, KINDS.index("rain")] == pytest.approx(0.1**0.5)
    with pytest.raises(GuidanceError, match="real pairs do not know"):
        made(Batch(quiet.lq, quiet.gt, Guidance()), model)


def test_a_balanced_tier_loss_pulls_by_the_share_that_is_asked():
    made, model, batch = objective(balanced=True, tier=0.3), network(), batches(0, 3, 16)
    _, logs = made(batch, model)
    share = logs["weight.tier"] * logs["pull.tier"] / logs["pull.loss"]
    assert float(share) == pytest.approx(0.3, rel=1e-4)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_features_and_tiers_are_compared_in_float32(precision):
    seen = []

    def told(rgb):
        seen.append((rgb.dtype, torch.is_autocast_enabled("cpu")))
        return features(rgb)

    made, model = objective(features=told), network()
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        loss, _ = made(batches(0, 3, 16), model)
    assert {*seen} == {(torch.float32, False)} and loss.dtype == torch.float32


def test_proxies_look_at_photographs_that_are_new_to_them():
    class Paints(nn.Module):
        def __init__(self, level):
            super().__init__()
            self.level = nn.Parameter(torch.tensor(level))

        def forward(self, lq, guidance):
            return lq * 0 + self.level

    batch = batches(0, 4, 16)
    folds = torch.tensor([[0.0], [1.0], [1.0], [0.0]])
    batch = Batch(batch.lq, batch.gt, batch.guidance,
                  batch.truth.with_guide(FOLD, Guide(vector=folds)), batch.second)  # fmt: skip
    folded = Proxy((Paints(0.2), Paints(0.8)))
    narrow = Proxy((Paints(0.5),), kinds=(KINDS[0],))
    made = objective(proxies=[folded, narrow], snapshots=0)
    at = torch.tensor([0, 1, 3])
    pictures, covers = made._proxied(batch, severity_of(batch)[at], at)
    assert pictures[0][:, 0, 0, 0].tolist() == pytest.approx([0.2, 0.8, 0.2])
    assert covers.tolist() == [[True, True], [True, False], [True, True]]  # image 3 is of kind 0
    loss, _ = made(batch, network())
    loss.sum().backward()
    for network_ in made.held.values():
        assert not network_.training
        assert all(p.grad is None and not p.requires_grad for p in network_.parameters())
    assert not [n for n in made.state_dict() if "proxies" in n or "held" in n]
    assert [*made.parameters()] == []


def test_snapshots_are_the_network_as_it_was():
    made, model = objective(snapshots=2, every=3), network(seed=3)

    class Averaged:
        shadow = model.state_dict()

    made.train()
    batch, states = batches(0, 3, 16), []
    for step in range(10):
        for value in Averaged.shadow.values():
            value.add_(1e-3)
        made.begin(step, Averaged)
        if step and step % 3 == 0:
            states.append({k: v.clone() for k, v in Averaged.shadow.items()})
        severity, at = severity_of(batch), torch.arange(3)
        assert len(made._proxied(batch, severity, at)[0]) == min(2, step // 3)
    assert len(states) == 3
    for slot, state in zip(made.snapshots, (states[2], states[1]), strict=True):
        assert all(torch.equal(v, state[k]) for k, v in slot.state_dict().items())
        assert not slot.training and not any(p.requires_grad for p in slot.parameters())
    assert len([k for k in made.state_dict() if k.startswith("snapshots.")]) == 2 * len(states[0])


def test_the_weight_of_features_rises_from_nothing():
    made, found = objective(warmup=0.5, steps=20), []
    for step in range(20):
        made.begin(step, type("E", (), {"shadow": network().state_dict()}))
        found.append(made.now)
    assert found[:10] == pytest.approx([0.01 * (i + 1) for i in range(10)])
    assert found[10:] == [0.1] * 10


def test_the_reference_is_a_running_mean_of_each_kind_and_severity():
    reference = Reference(bins=2, memory=10)
    severity = torch.zeros(3, len(KINDS))
    severity[0, 1], severity[1, 1], severity[2, 4] = 0.2, 0.7, 0.9
    own = torch.tensor([10.0, 20.0, 30.0])
    assert torch.equal(reference.of(severity, own), own)  # nothing was seen yet
    for _ in range(2):  # a step that is repeated counts once
        reference.see(torch.tensor([25.0, 30.0, float("nan")]), severity)
    reference.keep()
    assert reference.of(severity, own).tolist() == [25, 30, 30]
    assert reference.overall(own).tolist() == [27.5] * 3
    reference.see(torch.tensor([27.0]), severity[:1])
    reference.keep()
    reference.keep()  # what was seen counts once
    assert reference.of(severity, own).tolist() == [26, 30, 30]
    for _ in range(200):
        reference.see(torch.tensor([35.0]), severity[:1])
        reference.keep()
    assert reference.of(severity, own)[0] == pytest.approx(35, abs=1e-3)


def test_what_a_network_usually_reaches_decides_what_is_hard():
    same = network(seed=5)
    made = objective(proxies=[Proxy((same,))], snapshots=0, contrastive=0, tier=0)
    batch = batches(0, 3, 16)
    found = []
    for usual in (60.0, -60.0):
        made.reference.mean.fill_(usual)
        made.reference.count.fill_(1)
        found.append(float(made(batch, network())[1]["hard"]))
    assert found == [1, 0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tier_form": "surprize"}, "Did you mean 'surprise'"),
        ({"perceptual_form": "c2p"}, "objective.perceptual_form: 'c2p' is none of margin"),
        ({"tier": -1.0}, "weights must be 0 or more"),
        ({"warmup": 2.0}, "warmup a share"),
        ({"perceiver": None}, "objective.perceiver is missing"),
        ({"perceiver": network()}, "must give low, medium, high, it gives a picture"),
        ({"features": None}, "no features to compare by"),
        ({"student": None}, "objective.snapshots are of the network itself"),
    ],
)
def test_what_an_objective_cannot_be_is_one_line(options, says):
    with pytest.raises(RecipeError) as caught:
        objective(**options)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_what_it_asks_follows_from_its_weights():
    assert Perception.asks({}) == Asks(KINDS, ("elsewhere", "otherwise"))
    assert Perception.asks({"contrastive_form": "release"}) == Asks(KINDS, ("again",))
    assert Perception.asks({"contrastive": 0}) == Asks(KINDS)
    assert not Perception.asks({"contrastive": 0, "tier": 0, "perceptual": 0})
    folds = {"proxies": [{"folds": {"0": "a", "1": "b"}}, "c"]}
    assert Perception.asks(folds).folds == 2
    with pytest.raises(RecipeError, match="the same number"):
        Perception.asks({"proxies": [*folds["proxies"], {"folds": {"0": "", "1": "", "2": ""}}]})


# In training.

SCHEDULE = Schedule(
    steps=STEPS, batch=3, crop=8, warmup=2, last_share=0, save_every=5, precision="bf16",
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
            objective=objective(snapshots=2, every=2, warmup=0.3, balanced=True),
            batches=batches,
            schedule=SCHEDULE,
            header={"recipe": "a"},
            progress=progress,
        )
    except StopRunError:
        return None


def losses(folder):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [line["loss_hex"] for line in lines]


def test_a_stopped_run_goes_on_bit_equal_with_its_snapshots(tmp_path):
    unbroken = run(tmp_path / "one")
    for stop in (6, 11):
        assert run(tmp_path / "two", stop) is None
    again = run(tmp_path / "two")
    lines = [losses(tmp_path / name) for name in ("one", "two")]
    assert lines[0] == lines[1] and len(lines[0]) == STEPS
    assert all(torch.equal(unbroken[k], again[k]) for k in unbroken)
    assert set(unbroken) == set(network().state_dict())  # what is exported
    with safe_open(tmp_path / "two/checkpoints/step-00000012.safetensors", "pt") as file:
        kept = {name for name in file.keys() if name.startswith("objective.")}  # noqa: SIM118
        assert int(file.get_tensor("objective.taken")) == 5
    assert kept == {f"objective.{name}" for name in objective(snapshots=2).state_dict()}


SMALL = [
    "backbone.width=4", "backbone.enc_blocks=[1]", "backbone.dec_blocks=[1]", "start=",
    'adapters=[{kind = "film", at = ["middle"], reads = "code"}]', "schedule.steps=2",
    "data.photographs=p", 'data.damage={"noise:sigma=40" = 1.0, "jpeg:quality=10" = 1.0}',
    "data.counts=[0, 1]", "data.windows=[]", "data.mosaic=0", "schedule.batch=2",
    "schedule.crop=32", "schedule.last_share=0", "validation.specs=[]", "data.validation=",
]  # fmt: skip
PERCEIVED = ["objective.kind=perception", "objective.contrastive=0", "objective.tier=0",
             'objective.at=["relu1_2"]']  # fmt: skip


@pytest.fixture
def finished(tmp_path):
    """Weights of a small restorer, and of the first convolutions of VGG-16."""
    made = recipe.load("relume-s", [*SMALL, "seed=3"])
    weights.save(
        tmp_path / "p.safetensors", made.build_model().state_dict(), recipe=made.resolved()
    )
    stored = {
        f"features.{i}.{part}": value
        for i, name in ((0, "1_1"), (2, "1_2"))
        for part, value in VGG16(("relu1_2",)).convolutions[name].state_dict().items()
    }
    save_file(stored, tmp_path / "v.safetensors")
    return tmp_path


def test_a_recipe_names_what_compares_and_what_is_worse(finished, photo, monkeypatch):
    def here(build, arguments, following):
        return contextlib.nullcontext(build(*arguments))

    monkeypatch.setattr(runs, "Loader", here)
    (finished / "p").mkdir()
    write(Picture.from_rgb(photo), finished / "p/a.png")
    proxy = str(finished / "p.safetensors")
    folded = f'{{folds={{0="{proxy}",1="{proxy}"}},kinds=["noise"]}}'
    words = [*PERCEIVED, f'objective.vgg="{finished / "v.safetensors"}"']
    words.append(f"objective.proxies=[{folded}]")
    made = recipe.load("relume-s", [*SMALL, *words])
    built = made.build_objective()
    assert sorted(built.held) == ["features", "proxy0.0", "proxy0.1"] and len(built.snapshots) == 1
    batch = made.build_samples(finished).batch(0, 2, 32)
    assert batch.truth[DAMAGE].names == KINDS and batch.truth[FOLD].vector.shape == (2, 1)
    assert not batch.second
    plain = recipe.load("relume-s", SMALL).build_samples(finished).batch(0, 2, 32)
    assert torch.equal(batch.lq, plain.lq) and not plain.truth
    path = run_recipe(made, finished / "run", root=finished)
    assert set(weights.load(path).tensors) == set(made.build_model().state_dict())
    other = {k: 2 * v for k, v in weights.load(Path(proxy)).tensors.items()}
    weights.save(Path(proxy), other, recipe=weights.load(Path(proxy)).recipe)
    with pytest.raises(UsageError, match="another recipe"):
        run_recipe(made, finished / "run", root=finished)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["objective.contrastive=0.1"], "no encoder called 'degradation' reads the picture alone"),
        (["objective.contrastive=0.1", "objective.code=code"], "reads the picture alone"),
        (["objective.tier=0.1"], "objective.perceiver is missing"),
        (["objective.tier=0.1", "objective.perceiver=none.safetensors"], "is not here"),
        (["objective.tier=0.1", "objective.perceiver={p}"], "reads thumbnail"),
        ([], "no features to compare by"),
        (["objective.vgg={v}", 'objective.proxies=["none"]'], "learns from none"),
        (["objective.vgg={v}", "objective.proxies=[{{files=1}}]"], "each is a file, or a table"),
        (["objective.vgg={v}", 'objective.proxies=[{{folds={{1=""}}}}]'], "numbered from 0"),
    ],
)
def test_a_recipe_that_cannot_be_is_one_line(finished, words, says):
    at = {"p": finished / "p.safetensors", "v": finished / "v.safetensors"}
    with pytest.raises(UsageError) as caught:
        recipe.load(
            "relume-s", [*SMALL, *PERCEIVED, *(w.format(**at) for w in words)]
        ).build_objective()
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_real_pairs_do_not_say_how_they_were_damaged(tmp_path):
    pairs = [word for word in SMALL if not word.startswith("data.")]
    made = recipe.load("relume-s", [*pairs, *PERCEIVED])
    made = made.model_copy(update={"data": recipe.Data(photographs="gt", lq="lq")})
    with pytest.raises(RecipeError, match="which real pairs do not say"):
        made.build_samples(tmp_path)


def test_features_are_a_perceivers_at_its_sites():
    plain = network()
    found = Tapped(plain, ["encoder.0", "middle"])(batches(0, 2, 16).lq)
    assert [tap.shape for tap in found] == [(2, 4, 16, 16), (2, 8, 8, 8)]
    with pytest.raises(RecipeError, match="the perceiver has no site 'midle'"):
        Tapped(plain, ["midle"])
