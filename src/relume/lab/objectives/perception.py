"""Train a restorer to give the clean picture back, to know its damage, and to look excellent."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...errors import GuidanceError, RecipeError, nearest
from ...guidance import Guidance
from ...priors.damage import KINDS
from ..data import DAMAGE, FOLD, Asks, Batch
from ..losses import CONTRASTS, PERCEPTUAL, TIERS
from ..losses.perceptual import HARD, Taps, decibels, negative_weights
from ..losses.tier import balance, gradient_norm
from .restoration import Restoration

TIER_NAMES = ("low", "medium", "high")
"""What a quality perceiver gives; it may give more."""
WEIGHTS = {"contrastive": 0.1, "tier": 0.05, "perceptual": 0.1}
"""lambda_1, lambda_2 and lambda_3 of the paper."""
LOOKS = {"damage": ("elsewhere", "otherwise"), "release": ("again",)}
"""Row of CONTRASTS -> the second looks that it takes, in the order of its arguments."""


@dataclass(frozen=True)
class Proxy:
    """A finished restorer, whose answers lie between the damaged picture and the truth.

    Args:
        networks: One, or one for each fold of the training photographs, trained without it: what
            has seen a photograph restores it better than one it has not.
        kinds: Of damage that it knows; () for all. Of a picture with any other it says nothing.
    """

    networks: tuple[nn.Module, ...]
    kinds: tuple[str, ...] = ()


class Perception(Restoration):
    """Restoration, plus three losses of Perceive-IR (Zhang et al., arXiv 2408.15994), on any
    restorer: loss + contrastive L_cl + tier L_tier + perceptual L_dpl.

    L_cl draws the codes of an encoder together and apart by damage. L_tier asks a frozen quality
    perceiver for excellence. L_dpl pulls features towards the truth and away from worse pictures:
    the damaged one, and proxies. Proxies are finished restorers, or the network's own averaged
    weights as they were: those need no one else's weights, and grow better as it does. Rows called
    `release` are the paper's late code, the others answer its weaknesses.

    All three are silent where the damage is slight: there the damaged picture is all but the truth,
    and pushing away from one pushes away from the other. A crop's severity is the root mean square
    of its worst map: by a plain mean rain streaks, which cover a tenth, would count as none.

    A proxy is hard where its PSNR on the crop is at most what the network itself usually reaches on
    such damage, which is measured while it trains, on training crops alone: a running mean for each
    kind and severity, over all of them for `release`.

    The frozen networks are no part of this module: in eval mode, in no checkpoint, without a
    gradient; they follow the batch. The snapshots are a part of it: checkpointed, frozen, in eval
    mode. Features, tiers and codes are compared in float32, whatever the step computes in.

    Logs, beside restoration's: the three losses, unweighted, and `open`, the share of pictures they
    act on; `hard`, the share of proxies that are hard; with `balanced` `pull.loss` and `pull.tier`,
    the norms of their gradients at the output, and `weight.tier`.

    Args:
        loss, harm: As in `Restoration`.
        contrastive, tier, perceptual: Weights; of what has 0 nothing runs.
        contrastive_form, tier_form, perceptual_form: Rows of CONTRASTS, TIERS and PERCEPTUAL.
        code: The network's encoder whose vector is the code of the damage; it must read lq alone.
        temperature: Of the contrastive loss.
        balanced: `tier` is then the share of the restoration loss's pull on the output that the
            tier loss has, measured at each step.
        xi: How much each tap of the features counts; () for all alike, with sum 1.
        warmup: Share of the steps over which `perceptual` rises from 0: at first out is nearly lq.
        snapshots: How many states of the network itself are proxies, the last ones.
        every: Steps between them.
        severity: Below it the three are silent.
        bins: Of severity, for the reference PSNR.
        perceiver: (rgb, no guidance) -> (N, K), of which its `vector` or `emits` names the columns:
            TIER_NAMES are probabilities, in eval mode.
        features: rgb (N, 3, h, w) -> taps, such as VGG-16 or `Tapped`.
        proxies: See `Proxy`.
        student: A network as the trained one, for the snapshots.
        steps: Of the whole training.

    Raises:
        RecipeError: A word of no table, a number out of range, or something that a loss with a
            weight needs is missing.
        GuidanceError: On a batch that does not say how it was damaged.
    """

    def __init__(
        self,
        loss: Callable[[Tensor, Tensor], Tensor],
        harm: float = 0.0,
        contrastive: float = WEIGHTS["contrastive"],
        tier: float = WEIGHTS["tier"],
        perceptual: float = WEIGHTS["perceptual"],
        contrastive_form: str = "damage",
        tier_form: str = "surprise",
        perceptual_form: str = "ratio",
        code: str = "degradation",
        temperature: float = 0.1,
        balanced: bool = False,
        xi: Sequence[float] = (),
        warmup: float = 0.01,
        snapshots: int = 1,
        every: int = 1000,
        severity: float = 0.1,
        bins: int = 4,
        perceiver: nn.Module | None = None,
        features: nn.Module | Callable[[Tensor], Taps] | None = None,
        proxies: Sequence[Proxy] = (),
        student: nn.Module | None = None,
        steps: int = 1,
    ) -> None:
        super().__init__(loss, harm)
        self.weights = {"contrastive": contrastive, "tier": tier, "perceptual": perceptual}
        forms = (contrastive_form, tier_form, perceptual_form)
        tables: tuple[Mapping[str, Any], ...] = (CONTRASTS, TIERS, PERCEPTUAL)
        for key, word, table in zip(WEIGHTS, forms, tables, strict=True):
            if word not in table:
                raise RecipeError(
                    f"objective.{key}_form: {word!r} is none of {', '.join(table)}."
                    f"{nearest(str(word), table)}"
                )
        if min(self.weights.values()) < 0 or not 0 <= warmup <= 1 or min(every, bins) < 1:
            raise RecipeError(
                "objective: weights must be 0 or more, warmup a share, every and bins 1 or more; "
                f"got {list(self.weights.values())}, {warmup}, {every} and {bins}."
            )
        if tier and perceiver is None:
            raise RecipeError("objective.perceiver is missing: the weights of who judges quality.")
        if perceptual and features is None:
            raise RecipeError(
                "objective: no features to compare by. Give vgg, or perceiver and at."
            )
        if perceptual and snapshots and student is None:
            raise RecipeError("objective.snapshots are of the network itself: give it, or 0.")
        self.contrastive_form, self.tier_form = contrastive_form, tier_form
        self.perceptual_form = perceptual_form
        self.code, self.temperature, self.balanced = code, temperature, balanced
        self.xi, self.every, self.severity = tuple(xi), every, severity
        self.ramp, self.now = max(1.0, warmup * steps), perceptual
        # Tuples and dictionaries are no submodules: what they hold is neither saved nor trained.
        self.proxies = tuple(proxies) if perceptual else ()
        self._features: tuple[Any, ...] = (features,) if perceptual else ()
        self.held: dict[str, nn.Module] = {}
        if tier and perceiver is not None:
            self.held["perceiver"] = perceiver
            self.tiers = tiers_of(perceiver)
        if perceptual and isinstance(features, nn.Module):
            self.held["features"] = features
        for i, proxy in enumerate(self.proxies):
            self.held |= {f"proxy{i}.{fold}": one for fold, one in enumerate(proxy.networks)}
        for network in self.held.values():
            network.eval().requires_grad_(False)
        count = snapshots if perceptual and student is not None else 0
        self.snapshots = nn.ModuleList(
            copy.deepcopy(cast(nn.Module, student)) for _ in range(count)
        )
        self.snapshots.eval().requires_grad_(False)
        self.taken: Tensor
        self.register_buffer("taken", torch.zeros((), dtype=torch.long))
        self.reference = Reference(bins)

    @staticmethod
    def asks(options: Mapping[str, Any]) -> Asks:
        """What it has to know of a sample, by the options of its recipe."""
        weights = {key: options.get(key, default) for key, default in WEIGHTS.items()}
        if not any(weights.values()):
            return Asks()
        form = str(options.get("contrastive_form", "damage"))
        rows = options.get("proxies", ()) if weights["perceptual"] else ()
        folds = {len(row["folds"]) for row in rows if isinstance(row, Mapping) and "folds" in row}
        if len(folds) > 1:
            raise RecipeError(
                "objective.proxies: all that have folds have the same number of them."
            )
        looks = LOOKS.get(form, ()) if weights["contrastive"] else ()
        return Asks(KINDS, looks, max(folds, default=0))

    def train(self, mode: bool = True) -> "Perception":
        """As of any module, but for the snapshots, which stay in eval mode."""
        super().train(mode)
        self.snapshots.eval()
        return self

    def begin(self, step: int, ema: Any) -> None:
        """Set the weight of this step; keep what the last one measured; take a snapshot."""
        self.now = self.weights["perceptual"] * min(1.0, (step + 1) / self.ramp)
        self.reference.keep()
        if len(self.snapshots) and step and step % self.every == 0:
            oldest = self.snapshots[int(self.taken) % len(self.snapshots)]
            oldest.load_state_dict(ema.shadow)
            self.taken += 1

    def forward(self, batch: Batch, model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
        if not any(self.weights.values()):
            return super().forward(batch, model)
        out = model(batch.lq, batch.guidance).float()
        loss, logs = self.judged(out, batch)
        for network in self.held.values():
            network.to(batch.lq.device)
        severity = severity_of(batch)
        acts = severity.amax(1) >= self.severity
        logs["open"] = acts.float()
        at = acts.nonzero()[:, 0]
        total, pull = loss, loss
        for key, weight in self.weights.items():
            if not weight:
                continue
            value = torch.zeros_like(loss)
            if len(at):
                part, more = getattr(self, f"_{key}")(batch, model, out, severity, at)
                value, logs = value.index_add(0, at, part), {**logs, **more}
            if key == "perceptual":
                weight = self.now
            if key == "tier" and self.balanced and len(at):
                pulls = gradient_norm(pull, out), gradient_norm(value, out)
                weight = weight * balance(*pulls)
                logs |= {"pull.loss": pulls[0], "pull.tier": pulls[1], "weight.tier": weight}
            total = total + weight * value
            logs[key] = value.detach()
        return total, logs

    def _contrastive(
        self, batch: Batch, model: nn.Module, out: Tensor, severity: Tensor, at: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Of the images numbered `at`: (n,), and logs."""
        encoder = cast(Any, getattr(model, "module", model)).encoders[self.code]
        looks = [batch.second[word] for word in LOOKS[self.contrastive_form]]
        seen = torch.cat([look[at] for look in (batch.lq, *looks)])
        codes = encoder(seen, Guidance()).vector.chunk(1 + len(looks))
        tasks = severity[at] >= self.severity
        with torch.autocast(out.device.type, enabled=False):
            contrast = CONTRASTS[self.contrastive_form]
            return contrast(*codes, tasks, temperature=self.temperature), {}

    def _tier(
        self, batch: Batch, model: nn.Module, out: Tensor, severity: Tensor, at: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        perceiver = self.held["perceiver"]

        def judge(rgb: Tensor) -> Tensor:
            p = perceiver(rgb, Guidance())[:, self.tiers]
            return p / p.sum(1, keepdim=True)

        with torch.autocast(out.device.type, enabled=False):
            return TIERS[self.tier_form](out[at], judge), {}

    def _perceptual(
        self, batch: Batch, model: nn.Module, out: Tensor, severity: Tensor, at: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        gt, severity = batch.gt[at], severity[at]
        own = decibels(out[at], gt)
        self.reference.see(own, severity)
        pictures, covers = self._proxied(batch, severity, at)
        # Features of any scale are coarse in bf16, and distances are differences of them.
        with torch.autocast(out.device.type, enabled=False), torch.no_grad():
            proxied = own.new_zeros((len(at), 0))
            if pictures:
                proxied = torch.stack([decibels(picture, gt) for picture in pictures], 1)
            overall = self.perceptual_form == "release"
            usual = self.reference.overall(own) if overall else self.reference.of(severity, own)
            weights = negative_weights(proxied, usual, covers)
            known = [gt, batch.lq[at], *pictures]
            taps = [f.chunk(len(known)) for f in self._features[0](torch.cat(known))]
            theirs, damaged, *others = zip(*taps, strict=True)
        with torch.autocast(out.device.type, enabled=False):
            ours = list(self._features[0](out[at]))
            xi = self.xi or (1 / len(ours),) * len(ours)
            value = PERCEPTUAL[self.perceptual_form](ours, theirs, damaged, others, weights, xi)
        hard = (weights[:, 1:] == HARD).sum() / covers.sum().clamp_min(1)
        return value, {"hard": hard.float()}

    @torch.no_grad()
    def _proxied(self, batch: Batch, severity: Tensor, at: Tensor) -> tuple[list[Tensor], Tensor]:
        """What each proxy makes of the images numbered `at`, in [0, 1], and (n, K) bool, whether
        it counts for them."""

        def told(rows: Tensor) -> tuple[Tensor, Guidance]:
            return batch.lq[rows], batch.guidance.map(lambda g: g.map(lambda a: a[rows]))

        pictures: list[Tensor] = []
        covers: list[Tensor] = []
        for proxy in self.proxies:
            picture = batch.lq[at].clone()
            fold = torch.zeros_like(at)
            if len(proxy.networks) > 1:
                fold = batch.truth[FOLD].vector[at, 0].long()
            for number, network in enumerate(proxy.networks):
                mine = (fold == number).nonzero()[:, 0]
                if len(mine):
                    picture[mine] = network(*told(at[mine])).float().clamp(0, 1)
            strange = [kind not in proxy.kinds for kind in KINDS] if proxy.kinds else []
            has = severity[:, strange] >= self.severity if strange else severity[:, :0] > 0
            pictures.append(picture)
            covers.append(~has.any(1))
        for number, snapshot in enumerate(self.snapshots):
            if number < int(self.taken):
                pictures.append(snapshot(*told(at)).float().clamp(0, 1))
                covers.append(torch.ones_like(at, dtype=torch.bool))
        none = torch.zeros((len(at), 0), dtype=torch.bool, device=at.device)
        return pictures, torch.stack(covers, 1) if covers else none


class Reference(nn.Module):
    """What PSNR a network usually reaches in training, for each kind of damage and severity.

    A crop belongs to its worst kind. What a step sees counts from the next step on, so that a step
    that is repeated in float32 counts once, and a run that goes on counts as the unbroken one does.

    Args:
        bins: Of severity, equally wide, for each kind.
        memory: Crops over which the mean runs, once there were as many.
    """

    mean: Tensor
    count: Tensor
    seen: Tensor
    seen_count: Tensor

    def __init__(self, bins: int = 4, memory: int = 200) -> None:
        super().__init__()
        self.bins, self.memory = bins, memory
        for name in ("mean", "count", "seen", "seen_count"):
            self.register_buffer(name, torch.zeros(len(KINDS) * bins))

    def see(self, decibels: Tensor, severity: Tensor) -> None:
        """Take (N,) dB on crops of severities (N, kinds) for those of this step."""
        finite = decibels.isfinite()
        cell = self._cell(severity)[finite]
        self.seen.zero_().index_add_(0, cell, decibels.detach()[finite])
        self.seen_count.zero_().index_add_(0, cell, torch.ones_like(cell, dtype=self.mean.dtype))

    def keep(self) -> None:
        """Let what the last step saw count."""
        new = self.seen_count
        self.count += new
        running = 1 - (1 - 1 / self.memory) ** new
        rate = torch.maximum(new / self.count.clamp_min(1), running)
        self.mean += rate * (self.seen / new.clamp_min(1) - self.mean)
        self.seen.zero_()
        self.seen_count.zero_()

    def of(self, severity: Tensor, otherwise: Tensor) -> Tensor:
        """(N,) dB for crops of severities (N, kinds); `otherwise` (N,) where none was seen."""
        cell = self._cell(severity)
        return torch.where(self.count[cell] > 0, self.mean[cell], otherwise)

    def overall(self, otherwise: Tensor) -> Tensor:
        """(N,) of one number, the mean over all that was seen, a kind and severity alike."""
        known = self.count > 0
        return self.mean[known].mean().expand_as(otherwise) if known.any() else otherwise

    def _cell(self, severity: Tensor) -> Tensor:
        worst, kind = severity.max(1)
        return kind * self.bins + (worst * self.bins).long().clamp(0, self.bins - 1)


class Tapped(nn.Module):
    """The features of a restorer or a perceiver at some of its sites: rgb -> taps.

    Args:
        network: It reads no guidance.
        at: Names of its sites.

    Raises:
        RecipeError: It has no such site.
    """

    def __init__(self, network: nn.Module, at: Sequence[str]) -> None:
        super().__init__()
        sites = cast(Any, network).backbone.sites
        for site in at:
            if site not in sites:
                raise RecipeError(
                    f"objective.at: the perceiver has no site {site!r}; it has "
                    f"{', '.join(sites)}.{nearest(site, sites)}"
                )
        self.network, self.at = cast(Any, network), tuple(at)

    def forward(self, rgb: Tensor) -> list[Tensor]:
        aux = self.network.run(rgb, Guidance(), self.at).aux
        return [aux[site] for site in self.at]


def tiers_of(perceiver: nn.Module) -> list[int]:
    """Where a quality perceiver's answer holds low, medium and high.

    Raises:
        RecipeError: It gives no such tiers.
    """
    names = tuple(getattr(perceiver, "vector", ()) or getattr(perceiver, "emits", ()))
    if not {*TIER_NAMES} <= {*names}:
        raise RecipeError(
            f"objective.perceiver must give {', '.join(TIER_NAMES)}, it gives "
            f"{', '.join(names) or 'a picture'}. Name the weights of a quality perceiver."
        )
    return [names.index(name) for name in TIER_NAMES]


def severity_of(batch: Batch) -> Tensor:
    """How badly each crop is damaged: the root mean square over the pixels of each map, (N, kinds).

    Raises:
        GuidanceError: The batch does not say.
    """
    if DAMAGE not in batch.truth:
        raise GuidanceError(
            "The objective perception must be told how crops were damaged, and the batch does not "
            "say: samples of real pairs do not know, others are told to by the recipe."
        )
    told = batch.truth[DAMAGE]
    found = told.maps.float().square().mean((2, 3)).sqrt()
    severity = found.new_zeros((found.shape[0], len(KINDS)))
    severity[:, [KINDS.index(name) for name in told.names]] = found
    return severity
