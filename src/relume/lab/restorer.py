"""A backbone with its encoders and adapters: what is trained, and what is exported."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..card import Reads
from ..errors import GuidanceError, nearest
from ..guidance import Guidance, Guide
from .backbones import Backbone, Output


class Restorer(nn.Module):
    """(lq, guidance) -> restored picture.

    Args:
        backbone: Any image-to-image network with sites.
        encoders: Name of a new guide -> encoder; its result joins the guidance under that name.
            Those with `prepared` look at the whole picture's pixels, once, in `prepare`. A guide of
            that name that is given stands: the encoder is not asked (probes swap in controls so).
        adapters: Site -> adapter at that site.
        inputs: Name -> adapter whose channels join the picture's at the backbone's door, in this
            order; the backbone was built for 3 channels, these, and one for each of its `inputs`.

    Shape:
        lq (N, 3, H, W) in [0, 1], guidance with what `reads` lists -> (N, 3, H scale, W scale),
        raw: not clamped, differentiable; or a channel for each map that it emits; or (N, K), a
        vector of the numbers that it gives.

    Raises:
        GuidanceError: An adapter names a site that is not there or reads what nobody says, or the
            backbone takes another number of channels.
    """

    def __init__(
        self,
        backbone: Backbone,
        encoders: Mapping[str, nn.Module] | None = None,
        adapters: Mapping[str, nn.Module] | None = None,
        inputs: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = cast(Any, backbone)
        # A state dict's key is a path with dots; a site's name holds one.
        self.encoders = nn.ModuleDict(encoders or {})
        self.adapters = nn.ModuleDict({k.replace(".", "_"): v for k, v in (adapters or {}).items()})
        self.inputs = nn.ModuleDict(inputs or {})
        self._at = {site: site.replace(".", "_") for site in adapters or {}}
        for site in self._at:
            if site not in backbone.sites:
                raise GuidanceError(
                    f"The backbone has no site {site!r}; it has {', '.join(backbone.sites)}."
                    f"{nearest(site, backbone.sites)}"
                )
        known = {*self.encoders, *(r.prior for r in self.reads)}
        unsaid = {n: None for part in self._readers() for n in part.reads if n not in known}
        if unsaid:
            raise GuidanceError(
                f"Adapters read {', '.join(unsaid)}, which no encoder of this restorer emits."
            )
        extra = sum(cast(Any, a).channels for a in self.inputs.values()) + len(backbone.inputs)
        if backbone.in_channels != 3 + extra:
            raise GuidanceError(
                f"The backbone takes {backbone.in_channels} channels, but the picture and what "
                f"joins it have {3 + extra}. Build it with in_channels={3 + extra}."
            )

    def _readers(self) -> list[Any]:
        return [*self.adapters.values(), *self.inputs.values()]

    @property
    def reads(self) -> tuple[Reads, ...]:
        """What must be known from outside, in the order of the exported graph's inputs."""
        parts = [*cast(Any, self.encoders.values()), *self._readers()]
        asked = [r for part in parts for r in part.asks]
        asked += [Reads(name, "vector", 1, (1,)) for name in self.backbone.inputs]
        return tuple({r.prior: r for r in asked}.values())

    @property
    def prepared(self) -> tuple[Reads, ...]:
        """What `prepare` adds: token rows, as many as there are labels in the picture or as the
        encoder's `shape` says, or a vector."""
        shapes = {
            name: getattr(e, "shape", (0, e.dim))
            for name, e in cast(Any, self.encoders.items())
            if e.prepared
        }
        return tuple(
            Reads(name, "tokens" if len(shape) > 1 else "vector", shape[-1], shape)
            for name, shape in shapes.items()
        )

    @property
    def emits(self) -> tuple[str, ...]:
        """Names of the maps it gives instead of a picture; () for a picture."""
        return getattr(self.backbone, "emits", ())

    @property
    def vector(self) -> tuple[str, ...]:
        """Names of the numbers it gives of a crop instead of a picture; () for a picture."""
        return getattr(self.backbone, "vector", ())

    @property
    def scale(self) -> int:
        return self.backbone.scale

    @property
    def multiple_of(self) -> int:
        return self.backbone.multiple_of

    @property
    def reach(self) -> int | None:
        """Pixels that an output looks away from its own place; None: the whole picture."""
        if self.support != "local":
            return None
        sites = self.backbone.sites
        further = sum(
            getattr(self.adapters[key], "looks", 0) * sites[site].stride
            for site, key in self._at.items()
        )
        # Encoders look before the backbone does, side by side.
        before = max((getattr(e, "looks", 0) for e in self.encoders.values()), default=0)
        return self.backbone.reach + further + before

    @property
    def support(self) -> str:
        parts = [part.support for part in self._readers()]
        return "global" if self.backbone.reach is None or "global" in parts else "local"

    def train(self, mode: bool = True) -> "Restorer":
        """As every module; but a backbone or an encoder in which nothing learns stays as at use."""
        super().train(mode)
        for part in (self.backbone, *self.encoders.values()):
            learns = [p.requires_grad for p in part.parameters()]
            if learns and not any(learns):
                part.eval()
        return self

    def prepare(self, view: Tensor, guidance: Guidance, rows: int | None = None) -> Guidance:
        """What needs the pixels of the whole picture, where it is not given already.

        Args:
            view: (N, 3, H, W), the whole picture; in training the crop is its own.
            rows: Token rows to make: more than the highest label. Left out, they are counted, which
                an exported graph cannot do.
        """
        for name, encoder in cast(Any, self.encoders.items()):
            if encoder.prepared and name not in guidance:
                guidance = guidance.with_guide(name, encoder(view, guidance, rows))
        return guidance

    def run(self, lq: Tensor, guidance: Guidance, taps: tuple[str, ...] = ()) -> Output:
        """As `forward`, with the features that `taps` name in `aux`."""
        known = self.prepare(lq, guidance)
        for name, encoder in cast(Any, self.encoders.items()):
            if not encoder.prepared and name not in known:
                guide: Guide = encoder(lq, known)
                known = known.with_guide(name, guide)
        channels = [lq, *(join(lq, known) for join in self.inputs.values())]
        for name in self.backbone.inputs:
            level = known[name].vector.to(lq.dtype)[..., None, None]
            channels.append(level.expand(-1, -1, *lq.shape[-2:]))
        adapt = {
            site: lambda feat, a=self.adapters[key]: a(feat, known)
            for site, key in self._at.items()
        }
        x = torch.cat(channels, 1) if len(channels) > 1 else lq
        return self.backbone(x, taps, adapt)

    def forward(
        self, lq: Tensor, guidance: Guidance, taps: tuple[str, ...] = ()
    ) -> Tensor | Output:
        """The picture; with taps all that `run` gives. Processes that train together share the
        gradients of what went through here alone."""
        output = self.run(lq, guidance, taps)
        return output if taps else output.image


def as_tensors(guidance: Guidance) -> Guidance:
    """The same guidance with torch tensors, as a restorer takes it."""
    return guidance.map(lambda g: g.map(lambda a: torch.from_numpy(np.ascontiguousarray(a))))


def prepared_by(network: nn.Module) -> tuple[Reads, ...]:
    """What a network prepares from the whole picture; nothing, where it knows of no such thing."""
    return tuple(cast(Iterable[Reads], getattr(network, "prepared", ())))
