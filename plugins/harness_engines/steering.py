"""The residual stream of a model: vectors added to it after decoder layers, and the hidden states they are made of.

Does: keep the vectors of the policy in force as forward hooks, and no hook for a policy without any; stand in for the
module to read hidden states where it would give logits.
Doesn't: know policies or batches. A steered policy's weights (model.py) hold its vectors under the names of `name_of`.

A vector is added from the position that predicts the first completion token on: to the end of the prompt and to every
completion token, as contrastive activation addition does (2312.06681: all positions after the prompt). The rest of the
prompt is computed as without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch

from harness.errors import UsageError

PREFIX = "steer/"
Tensors = Mapping[str, torch.Tensor]


def name_of(layer: int) -> str:
    """Of the vector that is added after decoder layer `layer`, counted from 0."""
    return f"{PREFIX}{layer}"


class Residual:
    """The residual stream of `module` after each of its decoder layers."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self._config: Any = module.config
        self._vectors: dict[int, torch.Tensor] = {}
        self._handles: list[Any] = []
        self._first = 0

    @property
    def layers(self) -> Sequence[torch.nn.Module]:
        """The decoder layers in order. Raises UsageError for a model that has no plain stack of them."""
        count = self._config.num_hidden_layers
        for module in self._module.modules():
            if isinstance(module, torch.nn.ModuleList) and len(module) == count:
                return list(module)
        raise UsageError(
            f"{type(self._module).__name__} has no list of {count} decoder layers, which hidden_direction, engine.fsdp and "
            "engine.gradient_checkpointing need: leave them out"
        )

    def at(self, depths: Sequence[float]) -> list[int]:
        """The layers that end at these shares of the depth, each once. Raises UsageError outside 0 to 1."""
        if not depths or not all(0 < depth <= 1 for depth in depths):
            raise UsageError(f"depths are shares of the model's layers, above 0 and at most 1, got {list(depths)}")
        return sorted({max(1, round(depth * len(self.layers))) - 1 for depth in depths})

    def zero(self, name: str) -> torch.Tensor:
        """The vector `name` of a policy that has none. Raises UsageError where the model has no such layer."""
        layer = name.removeprefix(PREFIX)
        if not layer.isdecimal() or int(layer) >= len(self.layers):
            raise UsageError(f'there is no tensor "{name}" to steer: the model has {len(self.layers)} decoder layers')
        return torch.zeros(self._config.hidden_size, device=next(self._module.parameters()).device)

    @contextmanager
    def steered(self, tensors: Tensors) -> Iterator[None]:
        """The vectors among `tensors`, and no others, are added while open; uses may nest."""
        before = self._vectors
        self._put({int(name.removeprefix(PREFIX)): t for name, t in tensors.items() if name.startswith(PREFIX)})
        try:
            yield
        finally:
            self._put(before)

    @contextmanager
    def since(self, column: int) -> Iterator[None]:
        """Vectors are added from this column of a forward's tokens on; elsewhere from the first."""
        self._first = column
        try:
            yield
        finally:
            self._first = 0

    def _put(self, vectors: dict[int, torch.Tensor]) -> None:
        for handle in self._handles:
            handle.remove()
        self._vectors = vectors
        self._handles = [self.layers[i].register_forward_hook(self._adding(v)) for i, v in vectors.items()]

    def _adding(self, vector: torch.Tensor):  # type: ignore[no-untyped-def]
        def add(_module: torch.nn.Module, _inputs: Any, output: Any) -> Any:
            hidden = _hidden(output)
            kept, moved = hidden[:, : self._first], hidden[:, self._first :] + vector.to(hidden.dtype)
            steered = torch.cat([kept, moved], dim=1) if self._first else moved
            return steered if isinstance(output, torch.Tensor) else (steered, *output[1:])

        return add


class Reader(torch.nn.Module):
    """Called as the module is; its "logits" are the hidden states after `layers`, side by side."""

    def __init__(self, module: torch.nn.Module, layers: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.module, self._read = module, tuple(layers)

    def forward(self, *, logits_to_keep: int = 0, **inputs: Any) -> SimpleNamespace:
        seen: list[torch.Tensor] = []
        handles = [
            layer.register_forward_hook(lambda _module, _inputs, output: seen.append(_hidden(output)))
            for layer in self._read
        ]
        try:
            self.module(logits_to_keep=1, **inputs)
        finally:
            for handle in handles:
                handle.remove()
        return SimpleNamespace(logits=torch.cat(seen, dim=-1)[:, -logits_to_keep:])


def _hidden(output: Any) -> torch.Tensor:
    """A layer gives its hidden states, alone or before other things."""
    hidden: torch.Tensor = output if isinstance(output, torch.Tensor) else output[0]
    return hidden
