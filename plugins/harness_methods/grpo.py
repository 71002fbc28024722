"""GRPO (2402.03300) and its relatives: many small updates, each on fresh rollouts, the checkpoint chosen on selection.

Does: spend the budget in `steps` equal draws; weigh each by its groups; update by AdamW on the clipped surrogate with
true ratios; choose among the base and `checkpoints` policies on the selection split.
Doesn't: schedule the rate, sweep it, or reward anything but the verdict.

`scheme` makes it RLOO (rloo), Dr. GRPO (centered, with aggregation constant), MaxRL (maxrl) or REINFORCE (reinforce,
no baseline). `updates_per_batch` and `epochs` reuse a draw in minibatches of whole groups, where the ratio to the
sampler leaves 1 and clipping begins. `resample` is DAPO's dynamic sampling (2503.14476): problems are drawn until a
batch holds as many live groups as an ordinary one has groups. What was drawn and left out is charged, so there are
fewer updates.

Departures from published settings, numbered:
1. AdamW 3e-4 with beta2 .95 suits the embedded model; for models of 1B and more papers use 1e-6 (benchmarks/).
2. A group is normalised by its population standard deviation without epsilon (harness/advantages.py).
3. The checkpoint is chosen on a selection split; most papers report the last one, or choose on the test set.
4. KL to the base is off, as in DAPO, Dr. GRPO and TRL's default; `kl` turns the k3 penalty on.
5. With `resample`, problems of the budget are met once: DAPO draws with replacement from its whole pool.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from harness import seeds
from harness.advantages import SCHEMES
from harness.contracts import Check, Objective, Spending
from harness.limits import MOST, at_least, one_of, within
from harness.objectives import AGGREGATIONS, ClippedPolicy
from harness.stages import Stages
from harness.training import StageTrainer
from harness.types import Contender
from harness.weighing import JoinedBatch, WeighedBatch, minibatches
from harness_methods import iterating

LOSS: Mapping[str, Any] = {
    "aggregation": "token_mean",
    "clip_low": 0.2,
    "clip_high": 0.2,
    "kl": 0.0,
    "entropy": 0.0,
    "policy": 1.0,
    "updates_per_batch": 1,
    "epochs": 1,
}
CHECKS: Mapping[str, Check] = {
    "aggregation": one_of(AGGREGATIONS),
    "clip_low": within(0, math.inf),
    "clip_high": within(0, math.inf),
    "kl": at_least(0),
    "entropy": within(-MOST, MOST),
    "policy": within(-MOST, MOST),
    "updates_per_batch": at_least(1),
    "epochs": at_least(1),
}
SCHEME = one_of(SCHEMES)


class Grpo:
    """`steps` draws at most; docs/methods.md says what every option does."""

    name, version = "grpo", 1
    options: Mapping[str, Any] = {"steps": 32, "scheme": "grpo", "resample": False, **LOSS, **iterating.OPTIONS}
    checks: Mapping[str, Check] = {"steps": at_least(1), "scheme": SCHEME, **CHECKS, **iterating.CHECKS}

    def spends(self, options: Mapping[str, Any]) -> Spending:
        return iterating.spends(options)

    def run(self, stages: Stages) -> Contender:
        live = iterating.trainer(stages)
        draws = iterating.draws(stages)
        wanted, pending = len(draws[0][0]) if stages.options["resample"] else 0, []

        def learn(number: int) -> None:
            problems, samples = draws[number]
            batch = stages.sample(problems, live.policy, samples=samples, iteration=number)
            weighed = stages.weigh(batch, scheme=str(stages.options["scheme"]), whole=looks_at_all(stages.options))
            if not wanted:
                update(stages, live, weighed, number=number)
                return
            pending.append(weighed.live())
            if sum(part.num_groups for part in pending) >= wanted or number == len(draws) - 1:
                update(stages, live, JoinedBatch(parts=tuple(pending)), number=number)
                pending.clear()

        return iterating.iterate(stages, live, len(draws), learn)


def looks_at_all(options: Mapping[str, Any]) -> bool:
    """Whether the loss has a term for rollouts of weight 0 as well."""
    return bool(float(options["kl"]) or float(options["entropy"]))


def update(
    stages: Stages,
    live: StageTrainer,
    batch: WeighedBatch | JoinedBatch,
    *,
    number: int,
    goal: Objective | None = None,
) -> None:
    """`epochs` passes over a batch in `updates_per_batch` minibatches each, by default on the clipped surrogate."""
    goal, count = goal or objective(stages, batch), int(stages.options["updates_per_batch"])
    for epoch in range(int(stages.options["epochs"])):
        shuffle = seeds.seed_for(stages.seed, "minibatches", str(number), epoch)
        parts = [batch] if count == 1 else minibatches(batch, count, seed=shuffle)
        for part in parts:
            live.step(part, goal)


def objective(stages: Stages, batch: WeighedBatch | JoinedBatch) -> ClippedPolicy:
    """The clipped surrogate of the options, with the divisor that the aggregation wants."""
    options = stages.options
    constant = options["aggregation"] == "constant"
    return ClippedPolicy(
        low=float(options["clip_low"]),
        high=float(options["clip_high"]),
        kl=float(options["kl"]),
        entropy=float(options["entropy"]),
        policy=float(options["policy"]),
        aggregation=str(options["aggregation"]),
        tokens=float(stages.max_tokens) if constant else batch.mean_tokens,
    )
