"""Gradient checkpointing of decoder layers that attend to a prompt's keys and values.

Does: run each layer so that its backward computes it again instead of keeping what is inside; hold keys and values in a
cache that gives the same answer when it is asked twice.
Doesn't: use transformers' own checkpointing, which leaves caches out (so a prompt would be computed once for every completion)
and wants the module in training mode, where dropout would be on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.cache_utils import Cache, CacheLayerMixin


class FixedLayer(CacheLayerMixin):  # type: ignore[misc]
    """With nothing before: keeps the first keys and values that it is given. With keys and values [rows, heads, length, dim]
    before: puts these in front of all that it is given, and keeps nothing of that."""

    is_sliding = False

    def __init__(self, before: tuple[torch.Tensor, torch.Tensor] | None = None) -> None:
        super().__init__()
        self._before = before
        self.keys: torch.Tensor | None = before[0] if before else None
        self.values: torch.Tensor | None = before[1] if before else None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys, self.values = key_states, value_states

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self._before is not None:
            keys, values = self._before
            return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)
        keys, values = key_states.contiguous(), value_states.contiguous()  # what a growing cache would make of them
        if self.keys is None:
            self.lazy_initialization(keys, values)
        return keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        return 0 if self.keys is None else int(self.keys.shape[-2])

    def get_max_length(self) -> int:
        return -1


def empty() -> Cache:
    """For a prompt's own forward."""
    return Cache(layer_class_to_replicate=FixedLayer)


def prompts(layers: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Cache:
    """What the completions of prompts attend to besides themselves."""
    return Cache(layers=[FixedLayer(own) for own in layers])


@contextmanager
def recomputed(layers: Sequence[torch.nn.Module]) -> Iterator[None]:
    """While open, forwards of `layers` keep their inputs alone. The backward must happen while the weights are in place."""
    for layer in layers:
        own: Any = layer.forward
        layer.forward = partial(checkpoint, own, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # what hid the method of its class
