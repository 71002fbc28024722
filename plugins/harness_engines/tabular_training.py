"""AdamW over the tables of the tabular engine, and over a table of values beside them.

Does: step, checkpoint, save and load as the trainers of other engines do, in float64.
Doesn't: differentiate (tabular.py does).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from harness import store
from harness.contracts import Batch, Objective, Optimizer
from harness.types import FloatArray, Policy
from harness_engines.tabular_policy import Tables

if TYPE_CHECKING:
    from harness_engines.tabular import Tabular

VALUES = ("value/start", "value/style", "value/offset")  # of a class, then with a style, then with an offset as well


class TabularTrainer:
    """AdamW of torch over live tables, starting from `policy`."""

    def __init__(self, engine: Tabular, policy: Policy, optimizer: Optimizer) -> None:
        self.engine, self.clip = engine, math.inf if optimizer.clip is None else optimizer.clip
        self.live = {name: torch.nn.Parameter(t.clone()) for name, t in engine.tables(policy).items()}
        self.optimizer = torch.optim.AdamW(
            self.live.values(), lr=optimizer.lr, betas=optimizer.betas, weight_decay=optimizer.weight_decay
        )

    @property
    def tables(self) -> Tables:
        return {name: p.data for name, p in self.live.items()}

    def step(self, batch: Batch, objective: Objective) -> Mapping[str, float]:
        """One update; returns loss, grad_norm (before clipping) and tokens. No live group is a gradient of zero."""
        tables = self.tables
        found = [self.engine.sub_batch(tables, batch, s, objective) for s in range(batch.num_sub_batches)]
        parts = [part for part in found if part is not None]
        for name, parameter in self.live.items():
            total = sum((part.gradient[name] for part in parts), torch.zeros_like(parameter))
            parameter.grad = total / batch.normaliser
        norm = torch.nn.utils.clip_grad_norm_(self.live.values(), self.clip)
        self.optimizer.step()
        loss = sum(part.loss for part in parts) / batch.normaliser
        return {"loss": loss, "grad_norm": float(norm), "tokens": float(sum(part.tokens for part in parts))}

    def checkpoint(self, path: Path) -> None:
        tensors = {name: t for name, t in self.tables.items() if name not in VALUES}
        store.write_via(path, lambda temporary: save_file(tensors, temporary))

    def save(self, path: Path) -> None:
        tensors = {f"weight/{name}": t for name, t in self.tables.items()}
        for name, parameter in self.live.items():
            tensors |= {f"{key}/{name}": value for key, value in self.optimizer.state[parameter].items()}
        store.write_via(path, lambda temporary: save_file(tensors, temporary))

    def load(self, path: Path) -> None:
        tensors = load_file(path)
        for name, parameter in self.live.items():
            parameter.data.copy_(tensors[f"weight/{name}"])
            keys = ("step", "exp_avg", "exp_avg_sq")
            self.optimizer.state[parameter] = {key: tensors[f"{key}/{name}"] for key in keys}


class TabularActorCritic(TabularTrainer):
    """See harness.contracts.ActorCritic. A state is what was written so far; its value is a number in a table."""

    def __init__(self, engine: Tabular, policy: Policy, optimizer: Optimizer, *, critic_lr: float) -> None:
        super().__init__(engine, policy, optimizer)
        classes, styles, offsets = engine.base["offset"].shape
        shapes = ((classes,), (classes, styles), (classes, styles, offsets))
        heads = {
            n: torch.nn.Parameter(torch.zeros(s, dtype=torch.float64)) for n, s in zip(VALUES, shapes, strict=True)
        }
        self.live |= heads
        self.optimizer.add_param_group({"params": list(heads.values()), "lr": critic_lr})

    def values(self, batch: Batch) -> Mapping[tuple[str, int], FloatArray]:
        found: dict[tuple[str, int], FloatArray] = {}
        for index in range(batch.num_sub_batches):
            for group in batch.read(index):
                own = self.engine.values(self.tables, group.rollouts)
                found |= {(r.problem_id, r.sample_idx): v for r, v in zip(group.rollouts, own, strict=True)}
        return found
