"""A value head: one number for every position, a linear function of the hidden state that the model's own head reads.

Does: stand in for the module to give that number beside its logits, wherever in a forward they are made; pad what a batch
says of its tokens.
Doesn't: hold or train the head (training.py), or know batches (forward.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch

from harness.contracts import Credit
from harness.errors import UsageError
from harness.types import TokenCredit

HEAD = "value/head"


class Valued(torch.nn.Module):
    """Called as the module is; the last column of its "logits" is the value. Computed in fp32, whatever the weights are."""

    def __init__(self, module: torch.nn.Module, head_H: torch.Tensor) -> None:
        super().__init__()
        self.module, self._head_H = module, head_H

    def forward(self, **inputs: Any) -> SimpleNamespace:
        seen: list[torch.Tensor] = []
        handle = _reader(self.module).register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
        try:
            logits = self.module(**inputs).logits
        finally:
            handle.remove()
        values = seen[-1].float() @ self._head_H
        return SimpleNamespace(logits=torch.cat([logits.float(), values[..., None]], dim=-1))


def credit_of(credits: Sequence[TokenCredit], like_BT: torch.Tensor) -> Credit | None:
    """Padded to the width of `like_BT`; None for none."""
    if not credits:
        return None
    columns_3BT = torch.zeros((3, *like_BT.shape), dtype=like_BT.dtype)
    for row, credit in enumerate(credits):
        for column_BT, own_T in zip(columns_3BT, credit, strict=True):
            column_BT[row, : len(own_T)] = torch.from_numpy(own_T)
    return Credit(*columns_3BT.to(like_BT.device))


def width(module: torch.nn.Module) -> int:
    """Numbers in a hidden state."""
    return int(_reader(module).weight.shape[1])  # type: ignore[index]


def _reader(module: torch.nn.Module) -> torch.nn.Module:
    """The model's head. Raises UsageError for a model without one."""
    found: torch.nn.Module | None = module.get_output_embeddings()  # type: ignore[operator]
    if found is None:
        raise UsageError(
            f"{type(module).__name__} has no output head, beside which a value head would stand; leave ppo out"
        )
    return found
