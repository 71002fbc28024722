"""What methods share that learn from the one base batch by many small updates: passes over its minibatches.

Does: cut the batch anew for every pass; update by AdamW on each minibatch; choose among the base and the policies kept
on the way.
Doesn't: draw, weigh, or know a loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness import seeds
from harness.contracts import Check, Objective
from harness.limits import at_least
from harness.stages import Stages
from harness.types import Contender
from harness.weighing import GradientBatch
from harness_methods import iterating

OPTIONS: Mapping[str, Any] = {**iterating.OPTIONS, "epochs": 4}
CHECKS: Mapping[str, Check] = {**iterating.CHECKS, "epochs": at_least(1)}


def train(stages: Stages, goal: Objective, cut: Callable[[int], Sequence[GradientBatch]]) -> Contender:
    """`epochs` passes over the minibatches that `cut(seed)` makes, with another seed for each pass."""
    epochs = int(stages.options["epochs"])
    parts = [part for epoch in range(epochs) for part in cut(seeds.seed_for(stages.seed, "minibatches", "0", epoch))]
    live = iterating.trainer(stages)

    def learn(number: int) -> None:
        live.step(parts[number], goal)

    return iterating.iterate(stages, live, len(parts), learn)
