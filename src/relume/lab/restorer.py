"""A backbone with its encoders and adapters: what is trained, and what is exported."""

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

from ..card import Reads
from ..errors import GuidanceError, nearest
from ..guidance import Guidance, Guide
from .backbones import Backbone, Output


class Restorer(nn.Module):
    """(lq, guidance) -> restored picture.

    Args:
        backbone: Any image-to-image network with sites.
        encoders: Name of a new guide -> encoder; it reads the guidance its `reads` names, and its
            result joins the guidance under the name.
        adapters: Site -> adapter at that site.

    Shape:
        lq (N, 3, H, W) in [0, 1], guidance with what `reads` lists -> (N, 3, H scale, W scale),
        raw: not clamped, differentiable.

    Raises:
        GuidanceError: An adapter names a site that is not there, or reads what nobody says.
    """

    def __init__(
        self,
        backbone: Backbone,
        encoders: Mapping[str, nn.Module] | None = None,
        adapters: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = cast(Any, backbone)
        # A state dict's key is a path with dots; a site's name holds one.
        self.encoders = nn.ModuleDict(encoders or {})
        self.adapters = nn.ModuleDict({k.replace(".", "_"): v for k, v in (adapters or {}).items()})
        self._at = {site: site.replace(".", "_") for site in adapters or {}}
        for site in self._at:
            if site not in backbone.sites:
                raise GuidanceError(
                    f"The backbone has no site {site!r}; it has {', '.join(backbone.sites)}."
                    f"{nearest(site, backbone.sites)}"
                )
        made = set(self.encoders)
        wanted = [name for a in self.adapters.values() for name in cast(Any, a).reads]
        outside = {name: None for name in wanted if name not in made}
        if outside:
            raise GuidanceError(
                f"Adapters read {', '.join(outside)}, which no encoder of this restorer emits."
            )

    @property
    def reads(self) -> tuple[Reads, ...]:
        """What must be known from outside, in the order of the exported graph's inputs."""
        seen = {
            e.reads: Reads(
                prior=e.reads, kind=e.kind, channels=e.shape[0], shape=tuple(e.shape), whole=e.whole
            )
            for e in cast(Any, self.encoders.values())
        }
        return tuple(seen.values())

    @property
    def scale(self) -> int:
        return self.backbone.scale

    @property
    def multiple_of(self) -> int:
        return self.backbone.multiple_of

    @property
    def reach(self) -> int | None:
        """Pixels that an output looks away from its own place; None: the whole picture."""
        return self.backbone.reach if self.support == "local" else None

    @property
    def support(self) -> str:
        parts = [cast(Any, a).support for a in self.adapters.values()]
        return "global" if self.backbone.reach is None or "global" in parts else "local"

    def prepare(self, view: Tensor, guidance: Guidance) -> Guidance:
        """What needs the pixels of the whole picture. None of today's parts does."""
        return guidance

    def run(self, lq: Tensor, guidance: Guidance, taps: tuple[str, ...] = ()) -> Output:
        """As `forward`, with the features that `taps` name in `aux`."""
        known = guidance
        for name, encoder in self.encoders.items():
            guide: Guide = encoder(guidance[cast(Any, encoder).reads])
            known = known.with_guide(name, guide)
        adapt = {
            site: lambda feat, a=self.adapters[key]: a(feat, known)
            for site, key in self._at.items()
        }
        return self.backbone(lq, taps, adapt)

    def forward(self, lq: Tensor, guidance: Guidance) -> Tensor:
        return self.run(lq, guidance).image
