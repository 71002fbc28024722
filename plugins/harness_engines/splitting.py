"""A causal language model in its two parts: the body, which makes hidden states, and the head, which reads them.

Does: stand in for the module to get hidden states where it would give logits; turn hidden states into logits through the
module's own forward, its body left out, so that caps and scales of logits are the model's own.
Doesn't: know log-probabilities or memory (chunking.py).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from harness.errors import UsageError


class Body(torch.nn.Module):
    """Called as the module is; its "logits" are the hidden states that the head reads."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.body = _body(module)

    def forward(self, *, logits_to_keep: int = 0, **inputs: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.body(**inputs).last_hidden_state[:, -logits_to_keep:])


def logits(module: torch.nn.Module, hidden_MD: torch.Tensor) -> torch.Tensor:
    """[M, V] of the module's head, in its own type."""
    body: Any = _body(module)
    body.forward = lambda *_, **__: _Given(hidden_MD[None])
    try:
        found: torch.Tensor = module.forward().logits[0]  # not called: fsdp.py's hooks are for whole forwards
    finally:
        del body.forward  # what hid the method of its class
    return found


class _Given:
    """What a body returns: hidden states first, and nothing of what a model may add (caches, router logits)."""

    def __init__(self, hidden: torch.Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, place: Any) -> Any:
        return (self.last_hidden_state,)[place]

    def __getattr__(self, name: str) -> None:
        return None


def _body(module: torch.nn.Module) -> torch.nn.Module:
    """Raises UsageError for a model that is not made of body and head."""
    found: torch.nn.Module = module.base_model  # type: ignore[assignment]
    if found is module:
        raise UsageError(
            f"{type(module).__name__} has no body apart from its head (base_model_prefix): it can be sampled, but neither "
            "scored nor differentiated"
        )
    return found
