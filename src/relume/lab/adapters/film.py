"""Feature-wise linear modulation (Perez et al., arXiv 1709.07871): feat * (1 + gamma) + beta."""

from torch import Tensor, nn

from ...errors import GuidanceError
from ...guidance import Guidance


class FiLM(nn.Module):
    """gamma and beta per channel, read from one vector that says something of the whole picture.

    Both start at exactly zero, so that a trained backbone keeps its score at step 0.

    Args:
        channels: C of the feature at the site.
        dim: D of the vector.
        reads: Name of the guidance it reads.

    Shape:
        feat (N, C, h, w), vector (N, D) -> (N, C, h, w).

    Raises:
        GuidanceError: The guidance of that name is not a vector of D numbers.
    """

    support = "local"
    asks = ()

    def __init__(self, channels: int, dim: int, *, reads: str) -> None:
        super().__init__()
        self.reads = (reads,)
        self.dim = dim
        self.modulate = nn.Linear(dim, 2 * channels)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, feat: Tensor, guidance: Guidance) -> Tensor:
        guide = guidance[self.reads[0]]
        if guide.kind != "vector" or guide.channels != self.dim:
            raise GuidanceError(
                f"FiLM reads {self.reads[0]!r} as a vector of {self.dim}, got {guide.kind} "
                f"{tuple(guide.array.shape)}. Give it an encoder or prior that emits such a vector."
            )
        gamma, beta = self.modulate(guide.vector)[..., None, None].chunk(2, dim=1)
        return feat * (1 + gamma) + beta
