"""Attention of many completions to the prompts they share, without copying a prompt's keys and values to each of them.

Does: register an attention function with transformers under the name SHARED; it attends to the prompt's keys once for
all completions of the prompt, and to each completion's own, under one softmax.
Doesn't: mask completions: one token of each is fed at a time, and it sees all before it. It serves models whose attention
is plain (no window, no cap on scores); for others prompts are copied (decoding.py).

The split of the scores is that of Hydragen (Juravsky et al. 2024), with one softmax instead of two merged ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from transformers.modeling_utils import AttentionInterface

SHARED = "harness_shared_prompts"


class Prompts(NamedTuple):
    """Prompts and who shares them.

    `layers` hold keys and values [P, heads, T, dim]; `bias_PT` is 0, or -inf at padding. `slots_PG` names the rows of
    each prompt, padded with any row; `place_R` is each row's place in the flattened slots.
    """

    layers: list[tuple[torch.Tensor, torch.Tensor]]
    bias_PT: torch.Tensor
    slots_PG: torch.Tensor
    place_R: torch.Tensor


def share(layers: list[tuple[torch.Tensor, torch.Tensor]], mask_PT: torch.Tensor, prompt_R: torch.Tensor) -> Prompts:
    """Prompts of layers and mask, shared by rows as `prompt_R` says. Prompts without a row are dropped."""
    used, own_R, counts_P = torch.unique(prompt_R, return_inverse=True, return_counts=True)
    if len(used) < len(mask_PT):
        layers, mask_PT = [(keys[used], values[used]) for keys, values in layers], mask_PT[used]
    bias_PT = torch.zeros(mask_PT.shape, device=mask_PT.device).masked_fill_(~mask_PT, -torch.inf)
    width, starts_P, order_R = int(counts_P.max()), counts_P.cumsum(0) - counts_P, torch.argsort(own_R, stable=True)
    columns_G = torch.arange(width, device=mask_PT.device)
    slots_PG = order_R[starts_P[:, None] + torch.minimum(columns_G, counts_P[:, None] - 1)]
    place_R = torch.empty_like(own_R)
    place_R[order_R] = torch.arange(len(own_R), device=own_R.device) + (own_R * width - starts_P[own_R])[order_R]
    return Prompts(layers, bias_PT, slots_PG, place_R)


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    shared: Prompts,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: query [R, heads, 1, dim], the completions' own keys and values [R, kv, S, dim]."""
    rows, heads, _one, dim = query.shape
    kv = key.shape[1]
    keys, values = shared.layers[module.layer_idx]  # type: ignore[index]
    prompts, width = shared.slots_PG.shape
    slots, per_head = shared.slots_PG.flatten(), heads // kv
    query = (query * scaling).reshape(rows, kv, per_head, dim)

    def grid(x: torch.Tensor) -> torch.Tensor:  # rows [R, kv, Q, n] -> prompts [P, kv, G * Q, n]
        return (
            x[slots].view(prompts, width, kv, per_head, -1).transpose(1, 2).reshape(prompts, kv, width * per_head, -1)
        )

    def ungrid(x: torch.Tensor) -> torch.Tensor:
        x = x.reshape(prompts, kv, width, per_head, -1).transpose(1, 2)
        return x.reshape(prompts * width, kv, per_head, -1)[shared.place_R]

    common_scores = grid(query) @ keys.transpose(2, 3) + shared.bias_PT[:, None, None, :].to(query.dtype)
    scores = torch.cat([common_scores, grid(query @ key.transpose(2, 3))], dim=-1)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
    length = keys.shape[2]
    mixed = ungrid(weights[..., :length] @ values) + ungrid(weights[..., length:]) @ value
    return mixed.view(rows, heads, 1, dim).transpose(1, 2).contiguous(), None


AttentionInterface.register(SHARED, _attend)


def shareable(module: torch.nn.Module) -> bool:
    """Whether the model's attention is plain enough to go through `_attend`."""
    config = module.config
    plain = all(getattr(config, name, None) is None for name in ("attn_logit_softcapping", "attention_chunk_size"))
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return (
        bool(getattr(module, "_supports_attention_backend", False))
        and plain
        and window is None
        and kinds == {"full_attention"}
    )


@contextmanager
def sharing(module: torch.nn.Module) -> Iterator[None]:
    """Attention goes through `_attend` while open; every forward must then be given `shared`."""
    config: Any = module.config
    before, config._attn_implementation = config._attn_implementation, SHARED
    try:
        yield
    finally:
        config._attn_implementation = before
