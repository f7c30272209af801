"""A restorer of a few hundred weights with everything an exported one has, and its files."""

import itertools
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from torch import Tensor, nn

from relume.card import Card, Reads
from relume.guidance import Guidance, Guide


class Tiny(nn.Module):
    """Two strides of 2, a skip, a global residual, and a colour shift read from a thumbnail."""

    scale, multiple_of, support = 1, 4, "local"
    reach = 1 + 1 + 2 + 4 + 3  # full size in and out, half size, quarter size, the grids
    reads = (Reads("thumbnail", "maps", 3, (3, 8, 8), whole=True),)

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.intro = nn.Conv2d(3, 8, 3, padding=1)
            self.norm = nn.LayerNorm(8)
            self.down1 = nn.Conv2d(8, 16, 2, stride=2)
            self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
            self.down2 = nn.Conv2d(16, 16, 2, stride=2)
            self.middle = nn.Conv2d(16, 16, 3, padding=1)
            self.up = nn.Sequential(nn.Conv2d(16, 64, 1, bias=False), nn.PixelShuffle(2))
            self.last = nn.Sequential(nn.Conv2d(16, 32, 1, bias=False), nn.PixelShuffle(2))
            self.ending = nn.Conv2d(8, 3, 3, padding=1)
            self.shift = nn.Linear(3, 3)
            self.strength = nn.Parameter(torch.full((1, 16, 1, 1), 0.7))

    def forward(self, lq: Tensor, guidance: Guidance) -> Tensor:
        x = self.intro(lq)
        y = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        a, b = self.depthwise(self.down1(y)), self.down1(y)
        z = self.up(torch.sigmoid(self.middle(self.down2(a * b))))
        out = self.ending(x + self.last(b + self.strength * z))
        shift = self.shift(guidance["thumbnail"].maps.mean((2, 3)))
        return lq + out + shift[..., None, None]


def thumbnail(seed: int = 0) -> Guidance:
    maps = np.random.default_rng(seed).random((1, 3, 8, 8), np.float32)
    return Guidance(thumbnail=Guide(maps=maps, whole=True))


@cache
def exported() -> tuple[Path, Tiny, Card]:
    """A Tiny, exported once in a session: its .onnx, the network, the card."""
    from relume.lab.export import export

    path, network = Path(mkdtemp(prefix="relume-tests-")) / "tiny.onnx", Tiny().train()
    card = export(network, path, Card("tiny", recipe={"name": "tiny"}, licence="Apache-2.0"))
    return path, network, card


def tiny_model() -> Path:
    return exported()[0]


@cache
def dino_folder() -> Path:
    """Weights of a DINOv2 of four layers, drawn at random, as transformers saves them."""
    from transformers import Dinov2Config, Dinov2Model

    folder = Path(mkdtemp(prefix="relume-tests-"))
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "mlp_ratio": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Dinov2Model(Dinov2Config(image_size=42, patch_size=14, **sizes))
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape)
    network.save_pretrained(folder)
    return folder


@cache
def clip():
    """A CLIP of two layers, drawn at random, whose tokenizer knows the words of the tiers."""
    from transformers import CLIPConfig, CLIPModel

    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    small |= {"num_attention_heads": 2}
    text = {"vocab_size": 120, "max_position_embeddings": 77, "bos_token_id": 118}
    text |= {"eos_token_id": 119, "pad_token_id": 119}
    vision = {"image_size": 32, "patch_size": 16}
    config = CLIPConfig(text_config=small | text, vision_config=small | vision, projection_dim=12)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CLIPModel(config).eval()


@cache
def clip_folder() -> Path:
    """`clip` and its tokenizer, as transformers saves them."""
    from transformers import CLIPTokenizer

    from relume.lab.clip import WORDS

    folder = Path(mkdtemp(prefix="relume-tests-"))
    letters = sorted(set("".join(WORDS)))
    vocabulary = letters + [f"{c}</w>" for c in letters]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts = [parts[0] + parts[1], *parts[2:]]
            vocabulary.append(parts[0])
    vocabulary = [*dict.fromkeys(vocabulary), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(
        vocab={token: i for i, token in enumerate(vocabulary)}, merges=[*dict.fromkeys(merges)]
    )
    clip().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@cache
def vgg_file() -> Path:
    """The first seven convolutions of a VGG-16, drawn at random, in torchvision's names."""
    from safetensors.torch import save_file

    path = Path(mkdtemp(prefix="relume-tests-")) / "vgg16.safetensors"
    rng = torch.Generator().manual_seed(0)
    widths = (3, 64, 64, 128, 128, 256, 256, 256)
    stored: dict[str, Tensor] = {}
    places = (0, 2, 5, 7, 10, 12, 14)
    for at, (a, b) in zip(places, itertools.pairwise(widths), strict=True):
        drawn = torch.randn(b, a, 3, 3, generator=rng) * (2 / (9 * a)) ** 0.5
        stored |= {f"features.{at}.weight": drawn, f"features.{at}.bias": torch.zeros(b)}
    save_file(stored, path)
    return path
