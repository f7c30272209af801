"""The door to other people's networks: any of spandrel's architectures as a backbone with sites.

spandrel (MIT) holds some forty restoration networks and reads their hyperparameters off a state
dict. Its descriptor runs without gradients, so what stands here is the module inside it; sites are
found by looking at the shapes that its modules give.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import CheckError, MissingError, RecipeError, ShapeError, nearest
from .sites import Adapt, Output, Site, Visit, check_input

_PROBE = 32  # pixels; the least side of the picture on which sites are found


class Guest(nn.Module):
    """A network of spandrel's, found by its shapes.

    Sites are `input` (the picture) and the body's groups, named by their modules' paths
    (`layers.0`): of the outermost modules those that have siblings of their own class, weights in
    several layers, and a feature no larger than the picture as their answer. Adapters and taps meet
    every feature as (N, C, h, w), also where the network holds tokens.

    Args:
        architecture: spandrel's name of it, such as `SwinIR`.
        reach: How far an output looks, in input pixels, where that is known; None: everywhere.
        hyperparameters: Of its constructor in spandrel; what is left out keeps its default.

    Shape:
        (N, 3, H, W) -> Output.image (N, 3, scale H, scale W), any H, W >= 1.

    Raises:
        MissingError: spandrel is not installed.
        RecipeError: No such architecture, or it does not take these hyperparameters.
        CheckError: It takes something else than an RGB picture, or spandrel does more with a
            picture than to call the module.
        ShapeError: The input has other channels.
    """

    in_channels = 3
    inputs: tuple[str, ...] = ()

    def __init__(
        self, *, architecture: str, reach: int | None = None, **hyperparameters: Any
    ) -> None:
        super().__init__()
        self.architecture, self.reach = architecture, reach
        with warnings.catch_warnings():  # the guest's own are not the reader's
            warnings.simplefilter("ignore")
            self.model, descriptor = _built(architecture, hyperparameters)
            needs = descriptor.size_requirements
            self.scale: int = descriptor.scale
            self.multiple_of: int = needs.multiple_of
            self.minimum: int = needs.minimum
            self.square: bool = needs.square
            picture = self._picture()
            _check_call(architecture, descriptor, picture)
            self.sites = {"input": Site(3, 1), **_sites(self.model, picture)}

    @classmethod
    def of(cls, descriptor: Any, *, reach: int | None = None) -> Guest:
        """From a spandrel `ImageModelDescriptor`, with its weights.

        Raises:
            As the constructor.
        """
        known: Mapping[str, Any] = getattr(descriptor.model, "hyperparameters", {})
        guest = cls(architecture=descriptor.architecture.id, reach=reach, **known)
        guest.model.load_state_dict(descriptor.model.state_dict())
        return guest

    def forward(self, x: Tensor, taps: Sequence[str] = (), adapt: Adapt | None = None) -> Output:
        check_input(x, self.in_channels, self.architecture)
        visit = Visit(taps, adapt)
        height, width = x.shape[-2:]
        right, bottom = self._padding(height, width)
        x = visit("input", F.pad(x, (0, right, 0, bottom), mode="replicate"))
        wanted = [s for s in self.sites if s != "input" and (s in visit.taps or s in visit.adapt)]
        hooks = [self._stop(site, visit, x) for site in wanted]
        try:
            out = self.model(x.clone())  # some guests write into what they are given
        finally:
            for hook in hooks:
                hook.remove()
        return Output(out[..., : height * self.scale, : width * self.scale], visit.aux)

    def _stop(self, site: str, visit: Visit, x: Tensor) -> Any:
        """A hook on the site's module that lets `visit` read and replace the module's answer."""

        def stop(module: nn.Module, args: Any, kwargs: Any, answer: Any) -> Any:
            feature = answer[0] if isinstance(answer, tuple) else answer
            if feature.ndim == 4:
                feature = visit(site, feature)
            else:
                grid = _grid(feature.shape[1], (args, kwargs), x.shape[-2:])
                if grid is None:
                    raise ShapeError(
                        f"{self.architecture} holds {feature.shape[1]} tokens at {site}, which lie "
                        f"on no grid of a picture of {tuple(x.shape[-2:])}."
                    )
                shown = feature.transpose(1, 2).unflatten(2, grid)
                feature = visit(site, shown).flatten(2).transpose(1, 2)
            if site in visit.taps:
                feature = feature.clone()  # what comes next may write into it
            return (feature, *answer[1:]) if isinstance(answer, tuple) else feature

        return self.model.get_submodule(site).register_forward_hook(stop, with_kwargs=True)

    def _padding(self, height: int, width: int) -> tuple[int, int]:
        """Pixels to add at the right and at the bottom."""
        h, w = max(height, self.minimum), max(width, self.minimum)
        if self.square:
            h = w = max(h, w)
        return w + -w % self.multiple_of - width, h + -h % self.multiple_of - height

    def _picture(self) -> Tensor:
        """A small picture that meets the guest's needs, not square where it may: (1, 3, h, w)."""
        step = self.multiple_of * math.ceil(_PROBE / 2 / self.multiple_of)
        h = max(2 * step, self.minimum)
        w = h if self.square else h + step
        return torch.linspace(0, 1, 3 * h * w).view(1, 3, w, h).transpose(2, 3).contiguous()


def _built(architecture: str, hyperparameters: Mapping[str, Any]) -> tuple[nn.Module, Any]:
    """The network, drawn at random, and what spandrel reads off its weights.

    Raises:
        MissingError: spandrel is not installed.
        RecipeError: No such architecture, or it does not take these hyperparameters.
        CheckError: spandrel does not know the weights again.
    """
    try:
        spandrel = importlib.import_module("spandrel")
    except ImportError:
        raise MissingError(
            "spandrel is not installed. Install it: uv sync --extra lab, or "
            "pip install 'relume[lab]'"
        ) from None
    support = spandrel.MAIN_REGISTRY.get(architecture)
    if support is None:
        names = [s.architecture.id for s in spandrel.MAIN_REGISTRY]
        raise RecipeError(
            f"spandrel has no architecture {architecture!r}.{nearest(architecture, names)}"
        )
    kind = getattr(importlib.import_module(f"spandrel.architectures.{architecture}"), architecture)
    try:
        model = kind(**hyperparameters)
    except Exception as error:  # whatever a foreign constructor raises
        raise RecipeError(
            f"{architecture} does not take these hyperparameters: {_line(error)}"
        ) from None
    try:
        # A copy: reading the hyperparameters off a state dict may rename its keys.
        weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        return model, support.architecture.load(weights)
    except Exception as error:  # and whatever its detection raises
        raise CheckError(
            f"spandrel does not know a {architecture} of these hyperparameters again by its "
            f"weights: {_line(error)}"
        ) from None


@torch.no_grad()
def _check_call(architecture: str, descriptor: Any, picture: Tensor) -> None:
    """Refuse a guest that spandrel runs otherwise than by calling its module.

    Raises:
        CheckError: The module alone does not take the picture, or gives another.
    """
    descriptor.eval()
    try:
        out = descriptor.model(picture.clone())
        answer = descriptor(picture.clone())  # clipped to [0, 1]
        same = torch.allclose(out.clamp(0, 1), answer, atol=1e-5)
    except Exception as error:  # and its forward
        raise CheckError(
            f"{architecture} does not take an RGB picture alone: {_line(error)}"
        ) from None
    scale = descriptor.scale
    shape = (1, 3, picture.shape[2] * scale, picture.shape[3] * scale)
    if not same or out.shape != shape:
        raise CheckError(
            f"{architecture} cannot be a guest: spandrel does more with a picture than to call its "
            "module, or its answer is no RGB picture."
        )


@torch.no_grad()
def _sites(model: nn.Module, picture: Tensor) -> dict[str, Site]:
    """Where features of the body can be met, from one look at a picture."""
    seen: dict[str, list[Site | None]] = {}
    size = (picture.shape[2], picture.shape[3])

    def note(name: str) -> Any:
        def noted(module: nn.Module, args: Any, kwargs: Any, answer: Any) -> None:
            seen.setdefault(name, []).append(_site(answer, (args, kwargs), size))

        return noted

    modules = dict(model.named_modules())
    hooks = [modules[n].register_forward_hook(note(n), with_kwargs=True) for n in _rows(model)]
    training = model.training
    try:
        model.eval()(picture.clone())
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    # A module that is called more than once has no one feature.
    once = {name: calls[0] for name, calls in seen.items() if len(calls) == 1}
    return {name: site for name, site in once.items() if site is not None}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:150]


def _rows(parent: nn.Module, path: str = "") -> Iterator[str]:
    """Paths of the outermost modules with a sibling of their own class and weights in several
    layers each."""
    children = list(parent.named_children())
    blocks = [
        type(child)
        for _, child in children
        if _layers(child) > 1 and not _only_holds(child, parent)
    ]
    for name, child in children:
        if _layers(child) > 1 and not _only_holds(child, parent) and blocks.count(type(child)) > 1:
            yield path + name
        else:
            yield from _rows(child, f"{path}{name}.")


def _only_holds(module: nn.Module, parent: nn.Module) -> bool:
    """It is a part of the network in name only: the groups stand inside it."""
    numbered = isinstance(parent, (nn.ModuleList, nn.Sequential))
    plain = isinstance(module, nn.Sequential) and not numbered
    return plain or isinstance(module, (nn.ModuleList, nn.ModuleDict))


def _layers(module: nn.Module) -> int:
    """How many modules inside have weights of their own."""
    return sum(any(True for _ in m.parameters(recurse=False)) for m in module.modules())


def _site(answer: Any, call: Any, picture: tuple[int, int]) -> Site | None:
    """What a module's answer is to a picture of (H, W), or None where it is no feature of it."""
    feature = answer[0] if isinstance(answer, tuple) and answer else answer
    if not isinstance(feature, Tensor) or not feature.is_floating_point() or len(feature) != 1:
        return None
    if feature.ndim == 4:
        stride = _stride(feature.shape[2:], picture)
        return Site(feature.shape[1], stride) if stride else None
    if feature.ndim == 3:
        grid = _grid(feature.shape[1], call, picture)
        stride = _stride(grid, picture) if grid else 0
        return Site(feature.shape[2], stride, "tokens") if stride else None
    return None


def _stride(grid: Sequence[int], picture: Sequence[int]) -> int:
    """Picture pixels per sample, or 0. A network that pads inside has a few samples more."""
    strides = {max(1, round(side / n)) for n, side in zip(grid, picture, strict=True)}
    stride = strides.pop()
    fits = all(0 <= n * stride - side < side / 2 for n, side in zip(grid, picture, strict=True))
    return stride if not strides and fits and min(grid) > 1 else 0


def _grid(tokens: int, call: Any, picture: Sequence[int]) -> tuple[int, int] | None:
    """(h, w) of so many tokens: as the module was told, else by the picture's size."""
    for pair in _pairs(call):
        if pair[0] * pair[1] == tokens:
            return pair
    stride = round(math.sqrt(picture[0] * picture[1] / tokens))
    if stride and not any(side % stride for side in picture):
        h, w = (side // stride for side in picture)
        return (h, w) if h * w == tokens else None
    return None


def _pairs(call: Any) -> Iterator[tuple[int, int]]:
    """Pairs of whole numbers anywhere in a call's arguments."""
    if isinstance(call, Mapping):
        call = tuple(call.values())
    if isinstance(call, (tuple, list)):
        if len(call) == 2 and all(isinstance(n, int) for n in call):
            yield call[0], call[1]
        for part in call:
            yield from _pairs(part)
