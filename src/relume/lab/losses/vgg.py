"""VGG-16 as a measure of likeness: the convolutions of Simonyan & Zisserman, arXiv 1409.1556.

Configuration D: five stages of 3x3 convolutions with ReLU, each but the first after a max pooling
by 2. `conv3_1` is the first convolution of the third stage before its ReLU, `relu3_1` after it.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ...errors import ModelError, RecipeError, UsageError, nearest

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the thirteen convolutions."""

RELEASE_AT = ("relu1_2", "relu2_2", "relu3_1", "relu3_3")
RELEASE_XI = (1 / 12, 1 / 6, 1 / 3, 1.0)
"""What Perceive-IR's late release compares, and how much each tap counts. It names the second
before its ReLU, which then overwrites it."""

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pictures in [0, 1], red, green and blue."""

CONVOLUTIONS = tuple(
    f"{stage}_{i}" for stage, row in enumerate(STAGES, 1) for i in range(1, len(row) + 1)
)


class VGG16(nn.Module):
    """The features of VGG-16 at some taps; built as deep as the deepest of them. Frozen.

    Args:
        at: Taps, `convS_I` before the ReLU or `reluS_I` after it, S from 1 to 5.

    Shape:
        rgb (N, 3, h, w) in [0, 1] -> one (N, C, h / 2^(S-1), w / 2^(S-1)) a tap, in their order.

    Raises:
        RecipeError: A tap that there is not.
    """

    def __init__(self, at: Sequence[str] = RELEASE_AT) -> None:
        super().__init__()
        known = [word + name for name in CONVOLUTIONS for word in ("conv", "relu")]
        for tap in at:
            if tap not in known:
                raise RecipeError(f"VGG-16 has no {tap!r}.{nearest(tap, known)}")
        self.at = tuple(at)
        deepest = max(CONVOLUTIONS.index(tap[4:]) for tap in at)
        channels = [3, *(c for row in STAGES for c in row)]
        self.convolutions = nn.ModuleDict(
            {
                name: nn.Conv2d(channels[i], channels[i + 1], 3, padding=1)
                for i, name in enumerate(CONVOLUTIONS[: deepest + 1])
            }
        )
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, rgb: Tensor) -> list[Tensor]:
        found: dict[str, Tensor] = {}
        x = (rgb - self.mean) / self.deviation  # type: ignore[operator]
        for name, convolution in self.convolutions.items():
            if name.endswith("_1") and name != "1_1":
                x = F.max_pool2d(x, 2)
            before = convolution(x)
            x = F.relu(before)
            found |= {f"conv{name}": before, f"relu{name}": x}
        return [found[tap] for tap in self.at]


def load_vgg16(path: Path, at: Sequence[str] = RELEASE_AT) -> VGG16:
    """VGG-16 with weights from a local file, in torchvision's key names.

    Args:
        path: `.safetensors`, or what `torch.save` wrote of a state dict; no code in it is run.

    Raises:
        UsageError: There is no such file.
        ModelError: It cannot be read, or holds another network.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not here: weights of VGG-16 in torchvision's names.")
    try:
        if path.suffix == ".safetensors":
            stored = load_file(path)
        else:
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises anything
        kind = "" if isinstance(error, SafetensorError) else f"{type(error).__name__}: "
        raise ModelError(
            f"{path} was refused: {kind}{' '.join(str(error).split())[:160]}"
        ) from None
    network = VGG16(at)
    # In torchvision's list of layers a ReLU follows each convolution, a pooling each stage.
    layers, index = {}, 0
    for name in CONVOLUTIONS:
        index += name.endswith("_1") and name != "1_1"
        layers[name] = f"features.{index}"
        index += 2
    try:
        own = {
            f"convolutions.{name}.{part}": stored[f"{layers[name]}.{part}"].float()
            for name in network.convolutions
            for part in ("weight", "bias")
        }
        network.load_state_dict(own)
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        first = " ".join(str(error).split())[:160]
        raise ModelError(f"{path} does not hold VGG-16 in torchvision's names: {first}") from None
    return network
