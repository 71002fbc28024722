"""AdamW over live weights, and a value head beside them, for methods that iterate, resumable at every step.

Does: keep fp32 weights and moments, step on the same streamed gradient that directions use, save and load whole.
Doesn't: schedule the rate or choose checkpoints: methods do.

The value head is one vector over the last hidden state: no bias, zero at the start, shared trunk. The gradient norm that is
clipped is that of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from harness import store
from harness.contracts import Batch, Objective, Optimizer
from harness.types import FloatArray, Policy
from harness_engines import critic
from harness_engines.local import Local


class HfTrainer:
    """Live fp32 weights, starting from `policy`."""

    def __init__(self, local: Local, policy: Policy, optimizer: Optimizer) -> None:
        self.local, self.spec = local, optimizer
        formed = local.model.unsteered(policy, "training")
        self.weights = {name: torch.nn.Parameter(t.float().clone()) for name, t in formed.items()}
        self.trained = dict(self.weights)
        self.optimizer = torch.optim.AdamW(
            self.weights.values(), lr=optimizer.lr, betas=optimizer.betas, weight_decay=optimizer.weight_decay
        )

    def step(self, batch: Batch, objective: Objective) -> Mapping[str, float]:
        """One update from all sub-batches; returns loss, grad_norm (before clipping) and trained tokens."""
        live, total = self.live(), {name: torch.zeros_like(p) for name, p in self.trained.items()}
        loss, tokens = 0.0, 0
        for index in range(batch.num_sub_batches):
            part = self.local.gradient_at(live, batch, index, objective)
            for name, tensor in part.arrays.items():
                total[name] -= tensor / batch.normaliser
            loss, tokens = loss + part.loss / batch.normaliser, tokens + part.tokens
        for name, parameter in self.trained.items():
            parameter.grad = total[name]
        clip = self.spec.clip if self.spec.clip is not None else float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), clip)
        self.optimizer.step()
        return {"loss": loss, "grad_norm": float(norm), "tokens": float(tokens)}

    def live(self) -> dict[str, torch.Tensor]:
        """What is trained, the weights in the run's type."""
        base = self.local.model.base
        return {name: p.data.to(base[name].dtype) if name in base else p.data for name, p in self.trained.items()}

    def checkpoint(self, path: Path) -> None:
        tensors = {name: p.data.contiguous() for name, p in self.weights.items()}
        store.write_via(path, lambda temporary: save_file(tensors, temporary))

    def save(self, path: Path) -> None:
        """Weights, moments and step count in one file."""
        tensors = {f"weight/{name}": p.data for name, p in self.trained.items()}
        for name, parameter in self.trained.items():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"{key}/{name}"] = value
        store.write_via(path, lambda temporary: save_file(tensors, temporary))

    def load(self, path: Path) -> None:
        tensors = load_file(path)
        for name, parameter in self.trained.items():
            parameter.data.copy_(tensors[f"weight/{name}"])
            moments = {key: tensors[f"{key}/{name}"].to(parameter.device) for key in ("exp_avg", "exp_avg_sq")}
            state = {"step": tensors[f"step/{name}"], **moments}
            self.optimizer.state[parameter] = state


class HfActorCritic(HfTrainer):
    """See harness.contracts.ActorCritic."""

    def __init__(self, local: Local, policy: Policy, optimizer: Optimizer, *, critic_lr: float) -> None:
        super().__init__(local, policy, optimizer)
        head = torch.nn.Parameter(torch.zeros(critic.width(local.model.module), device=local.model.device))
        self.trained[critic.HEAD] = head
        self.optimizer.add_param_group({"params": [head], "lr": critic_lr})

    def values(self, batch: Batch) -> Mapping[tuple[str, int], FloatArray]:
        parts = [self.local.values_at(self.live(), batch, index) for index in range(batch.num_sub_batches)]
        return {key: values_T for part in parts for key, values_T in part.items()}
