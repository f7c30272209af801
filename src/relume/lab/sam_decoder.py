"""SAM's mask decoder, arranged for many prompts on one picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def share_picture(transformer: nn.Module) -> None:
    """Give a decoder's two-way transformer a forward that does for all prompts what it can.

    The same weights and the same function, in another order of products. In the first layer the
    picture's side is the same for every prompt: it is projected once. In the others a projection W
    of the picture's thousands of places is moved to the few tokens on the other side, q . (W x) =
    (W^T q) . x, and what W makes of the places' own encodings, which never change, is remembered.
    It takes less than half of the products.

    Args:
        transformer: `mask_decoder.transformer` of SamModel, SamHQModel or Sam2Model; changed.
    """
    transformer.forward = _SharedPicture(transformer)


class _SharedPicture:
    """The forward of `share_picture`."""

    def __init__(self, transformer: nn.Module) -> None:
        self._t: Any = transformer
        self._plain = transformer.forward
        self._remembered: dict[Any, Tensor] = {}

    def _placed(self, project: Any, place: Tensor) -> Tensor:
        if project not in self._remembered:
            self._remembered[project] = project(place)
        return self._remembered[project]

    def _tokens_read(
        self, attention: Any, tokens: Tensor, picture: Tensor, place: Tensor
    ) -> Tensor:
        """Attention of tokens (P, T, C) to the picture (1 or P, N, C) at places (N, C)."""
        heads = attention.num_attention_heads
        q = _heads(attention.q_proj(tokens), heads) * attention.scaling
        if len(picture) == 1:
            k = _heads(attention.k_proj(picture[0] + place), heads)
            v = _heads(attention.v_proj(picture[0]), heads)
            weights = torch.einsum("phtd,hnd->phtn", q, k).softmax(-1)
            seen = torch.einsum("phtn,hnd->phtd", weights, v)
        else:
            k = _heads(self._placed(attention.k_proj, place), heads)
            asked = torch.einsum("phtd,hdc->phtc", q, _per_head(attention.k_proj.weight, heads))
            scores = torch.einsum("phtd,hnd->phtn", q, k).flatten(1, 2)
            scores = torch.baddbmm(scores, asked.flatten(1, 2), picture.mT)
            seen = (scores.softmax(-1) @ picture).view_as(asked)
            seen = torch.einsum("phtc,hdc->phtd", seen, _per_head(attention.v_proj.weight, heads))
            seen = seen + attention.v_proj.bias.view(heads, 1, -1)
        return _out(attention)(seen.transpose(1, 2).flatten(2))

    def _picture_reads(
        self, attention: Any, tokens: Tensor, values: Tensor, picture: Tensor, place: Tensor
    ) -> Tensor:
        """The picture (1 or P, N, C) plus its attention to tokens (P, T, C): (P, N, C)."""
        heads = attention.num_attention_heads
        k = _heads(attention.k_proj(tokens), heads) * attention.scaling
        v = _heads(attention.v_proj(values), heads)
        if len(picture) == 1:
            q = _heads(attention.q_proj(picture[0] + place), heads)
            scores = torch.einsum("phtd,hnd->phtn", k, q)
        else:
            q = _heads(self._placed(attention.q_proj, place), heads)
            asked = torch.einsum("phtd,hdc->phtc", k, _per_head(attention.q_proj.weight, heads))
            scores = torch.einsum("phtd,hnd->phtn", k, q)
            read = torch.baddbmm(scores.flatten(1, 2), asked.flatten(1, 2), picture.mT)
            scores = read.view_as(scores)
        out = _out(attention)
        said = torch.einsum("phtd,chd->phtc", v, out.weight.unflatten(1, (heads, -1)))
        said = said + out.bias / heads  # the weights of each head add up to 1
        weights = scores.softmax(2).flatten(1, 2).mT
        return torch.baddbmm(picture, weights, said.flatten(1, 2))

    def __call__(
        self,
        point_embeddings: Tensor,
        image_embeddings: Tensor,
        image_positional_embeddings: Tensor,
        attention_similarity: Tensor | None = None,
        target_embedding: Tensor | None = None,
        **more: Any,
    ) -> tuple[Tensor, Tensor]:
        if attention_similarity is not None or target_embedding is not None:
            given = (point_embeddings, image_embeddings, image_positional_embeddings)
            return self._plain(*given, attention_similarity, target_embedding, **more)
        tokens = queries = point_embeddings[0]  # (P, T, C)
        picture = image_embeddings[:1].flatten(2).mT  # (1, N, C): one for all prompts
        place = image_positional_embeddings[0].flatten(1).mT  # (N, C)
        for layer in self._t.layers:
            if layer.skip_first_layer_pe:
                queries = layer.self_attn(queries[None], queries[None], queries[None])[0][0]
            else:
                both = (queries + tokens)[None]
                queries = queries + layer.self_attn(both, both, queries[None])[0][0]
            queries = layer.layer_norm1(queries)
            attention = layer.cross_attn_token_to_image
            queries = queries + self._tokens_read(attention, queries + tokens, picture, place)
            queries = layer.layer_norm2(queries)
            queries = layer.layer_norm3(queries + layer.mlp(queries))
            attention = layer.cross_attn_image_to_token
            picture = self._picture_reads(attention, queries + tokens, queries, picture, place)
            picture = layer.layer_norm4(picture)
        last = self._t.final_attn_token_to_image
        queries = queries + self._tokens_read(last, queries + tokens, picture, place)
        return self._t.layer_norm_final_attn(queries)[None], picture[:, None]


def _heads(x: Tensor, heads: int) -> Tensor:
    """(..., n, D) to (..., heads, n, D / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


def _per_head(weight: Tensor, heads: int) -> Tensor:
    """(D, C) to (heads, D / heads, C)."""
    return weight.unflatten(0, (heads, -1))


def _out(attention: Any) -> Any:
    return attention.o_proj if hasattr(attention, "o_proj") else attention.out_proj
