"""A value head: one number for every position, a linear function of the hidden state that the model's own head reads.

Does: give that number for hidden states; pad what a batch says of its tokens.
Doesn't: hold or train the head (training.py), or know batches (forward.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.contracts import Credit
from harness.errors import UsageError
from harness.types import TokenCredit
from harness_engines.chunking import States

HEAD = "value/head"


def values(states: States, head_H: torch.Tensor) -> torch.Tensor:
    """[B, T], in fp32: of the state before each completion token."""
    return (states.hidden_MD.float() @ head_H)[states.position_BT]


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
