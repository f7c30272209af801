"""The few layers that backbones, encoders and adapters share."""

from torch import Tensor, nn


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel (Ba et al., arXiv 1607.06450).

    The native kernel on the channels-last view: no copy where the feature is channels-last, and one
    operator in the exported graph.

    Shape:
        (N, C, h, w) -> (N, C, h, w).
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SimpleGate(nn.Module):
    """Half of the channels times the other half (NAFNet, arXiv 2204.04676, eq. 4).

    Shape:
        (N, 2C, h, w) -> (N, C, h, w).
    """

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        return a * b
