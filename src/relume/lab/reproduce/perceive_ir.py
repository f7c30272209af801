"""Perceive-IR (Zhang et al., arXiv 2408.15994): what are its losses and its semantics worth?

Its figures' form of the network, at toy scale, on two backbones: semantic tokens and a degradation
code heeded by prompt-guided cross attention at the latent and the coarsest level of the decoder, by
prompt guidance alone at the finer ones. The arms add its three losses one by one. Controls are
trained like the whole and told other semantics: none, the same of every picture, another picture's.

Its own training sets are public but not here at toy scale: damage is made on photographs under CC0,
and tested on CBSD68. The light encoder stands where DINOv2 does, the quality perceiver that ships
where CLIP's prompts do, its features where VGG's do; proxies are the network's own earlier states.
No figure of the paper is comparable to these.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...card import QUALITY
from ..datasets import Pairs, centres, degraded_pairs
from ..objectives.perception import WEIGHTS
from .system import PERCEIVER, SEEDS, Arm, Column, System

SEED = 11
SIDE = 128
CBSD68 = "bsds500/cbsd68_ids.txt"

# What the arms are made of

# The modules stand in the base recipe.
NONE = ("adapters=[]", "encoders={}")
BACKBONES: dict[str, tuple[str, ...]] = {
    "nafnet": (),
    "restormer": (
        'backbone={kind="restormer", width=8, enc_blocks=[1, 1, 1], middle_blocks=1, '
        "dec_blocks=[1, 1, 1], heads=[1, 2, 2, 4], refinement=1}",
    ),
}
DAMAGE = {
    "noise": '"noise:sigma=15..50"=1.0',
    "haze": '"haze:beta=0.15..0.6"=1.0',
    "rain": '"rain:density=0.002..0.006"=1.0',
    "blur": '"blur:length=11..17"=1.0',
    "lowlight": '"lowlight:gain=0.12..0.3"=1.0',
}
TASKS = {3: ("noise", "haze", "rain"), 5: tuple(DAMAGE)}


JUDGE = "relume-judge"
"""Of another seed, from half of the photographs: no loss ever asked it."""
LOSS = f'{PERCEIVER}="{QUALITY}"'
COMPARED = 'objective.at=["encoder.0", "encoder.1", "middle"]'


def _losses(*which: str) -> tuple[str, ...]:
    """The objective with these of its three losses."""
    known = (
        'objective.kind="perception"',
        'objective.code="code"',
        *(f"objective.{loss}=0.0" for loss in WEIGHTS if loss not in which),
    )
    if "tier" in which:
        # As a share of the restoration loss's pull, lambda_2 says what it says at any temperature.
        known += (LOSS, "objective.balanced=true")
    if "perceptual" in which:
        # With weights of sum 1 the ratio is 2.7 times the release's: lambda_3 / 2.7.
        known += (LOSS, COMPARED, "objective.every=50", "objective.perceptual=0.037")
    return tuple(dict.fromkeys(known))


ALL = _losses("contrastive", "tier", "perceptual")


def _controlled(control: str, title: str) -> Arm:
    return Arm(control, title, (*ALL, f'priors.thumbnail.control="{control}"'), control=True)


PLAIN = Arm("plain", "the backbone alone, L1", NONE)
L1 = Arm("l1", "with semantics and code, L1")
WHOLE = Arm("all", "L1 + contrastive + tier + perceptual", ALL)
CONSTANT = _controlled("constant", "all, the same semantics of every picture")
SHUFFLED = _controlled("shuffled", "all, another picture's semantics")
GRID = (
    PLAIN,
    L1,
    Arm("contrastive", "L1 + contrastive", _losses("contrastive")),
    Arm("tier", "L1 + tier", _losses("tier")),
    Arm("dpl", "L1 + difficulty-adaptive perceptual", _losses("perceptual")),
    WHOLE,
    _controlled("null", "all, no semantics"),
    CONSTANT,
    SHUFFLED,
)
FEW = (PLAIN, L1, WHOLE, CONSTANT, SHUFFLED)

# What they are measured on


def _damaged(spec: str) -> Callable[[Path], Pairs]:
    """Centre crops of CBSD68 under a SPEC."""

    def pairs(root: Path) -> Pairs:
        names = (root / CBSD68).read_text(encoding="utf-8").split()
        found = degraded_pairs(root / "bsds500/images/val", spec, seed=SEED, names=names)
        return centres(found, SIDE)

    return pairs


def _absent(root: Path) -> str:
    return "" if (root / CBSD68).is_file() else f"no CBSD68 below {root}: expected {CBSD68}."


def _column(name: str, spec: str) -> Column:
    return Column(name, spec, _damaged(spec), absent=_absent)


NOISE = {sigma: _column(f"noise{sigma}", f"noise:sigma={sigma}") for sigma in (15, 25, 50)}
OTHERS = {
    task: _column(task, spec.split('"')[1]) for task, spec in DAMAGE.items() if task != "noise"
}
# Tables of three tasks have a column for each sigma, those of five sigma 25 alone.
COLUMNS = {
    3: (*NOISE.values(), OTHERS["haze"], OTHERS["rain"]),
    5: (NOISE[25], *OTHERS.values()),
}


def _table(backbone: str, tasks: int, arms: tuple[Arm, ...], seeds: int = 1) -> System:
    damage = f"data.damage={{{', '.join(DAMAGE[task] for task in TASKS[tasks])}}}"
    shared = (*BACKBONES[backbone], damage)
    return System(
        name=f"perceive-ir-{backbone}-{tasks}",
        title=f"Perceive-IR's parts on {backbone}, {tasks} tasks at toy scale: PSNR [95 %] / SSIM "
        "/ collapsed pictures",
        base="perceive-ir-toy",
        arms=tuple(
            Arm(arm.name, arm.title, (*shared, *arm.changes), control=arm.control) for arm in arms
        ),
        columns=COLUMNS[tasks],
        contrast=("all", "l1", "haze"),
        seeds=seeds,
        averages=True,
        judge=JUDGE,
        notes=(
            "Semantics: a light encoder of the thumbnail, trained along, where the paper has "
            "DINOv2. Tiers and features: relume-quality, where it has CLIP's prompts and VGG-16. "
            "Proxies: the network's own averaged states, every 50 steps.",
            f"Who served as a loss is never the judge: {JUDGE} is of another seed, from half of "
            "the photographs. It began with relume-damage, as the other did, which knows them all.",
            f"Test pictures are the centre crops, of {SIDE} pixels, of CBSD68; 8 bit.",
        ),
    )


PERCEIVE_NAFNET_3 = _table("nafnet", 3, GRID, SEEDS)
PERCEIVE_NAFNET_5 = _table("nafnet", 5, FEW)
PERCEIVE_RESTORMER_3 = _table("restormer", 3, FEW)
PERCEIVE_RESTORMER_5 = _table("restormer", 5, FEW)
