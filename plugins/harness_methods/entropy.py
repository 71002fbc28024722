"""Entropy of the model's own samples, lowered (`entropy_min`) or raised (`entropy_bonus`): no verifier, no answers.

Does: draw the whole budget from the live policy in `steps` draws; step down or up the entropy; choose among the base
and the kept policies. That choice is made on the selection split, with the verifier: training is label-free, its
length is not.
Doesn't: charge verifier calls for training draws: verdicts are there for the learning curve alone.

With H_t the entropy of the distribution token t is drawn from, and a reward compared with those of the other samples of
its prompt (RLOO):

| kind           | ascent direction                          | source                                       |
|----------------|-------------------------------------------|----------------------------------------------|
| em_ft          | -grad of sum H_t, the samples held fixed  | 2505.15134 EM-FT; 2505.20282 (one prompt)    |
| em_rl_sequence | REINFORCE, reward log p(completion)       | 2505.15134 EM-RL-sequence                    |
| em_rl_token    | REINFORCE, reward -sum H_t                | 2505.15134 EM-RL-token                       |

In expectation em_rl_sequence is minus the gradient of the entropy of whole completions, and the sum of the other two.

Departures, numbered:
1. A kind's loss is a mean over tokens (`aggregation`), which divides by the mean length; sequence_sum is the theory's.
2. Each prompt has the run's group of samples and the published prompts are met once; EM-FT drew one sample, EM-RL four.
3. Agarwal et al. stop early on a validation set; here checkpoints are chosen (see above).
4. No KL to the base unless `kl` is set, for the two rewards alone; EM-RL's is .001.
5. Gao et al. take the entropy one token too late, at T = .5 with top_p .95; here it is that of the token's own
   distribution at the run's temperature, untruncated. `examples = 1` is their one prompt.
6. `entropy_bonus` is the entropy-only run of Wang et al. (2504.20571, table 5, row 10) on one training problem: theirs
   has the entropy loss of GRPO's batches at weight .001, which AdamW's normalisation makes a matter of the rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from harness.contracts import Check, Objective, Spending
from harness.errors import UsageError
from harness.limits import at_least, one_of
from harness.objectives import AGGREGATIONS, ClippedPolicy, TokenEntropy
from harness.sampling import RolloutBatch
from harness.stages import Stages
from harness.types import Contender, Policy, Problem
from harness.weighing import Rewards, WeighedBatch
from harness_methods import iterating


def confidence(_: Stages, batch: RolloutBatch, __: Policy) -> Rewards:
    """Each sample's own log-probability, at the sampling temperature."""
    return {
        name: [float(rollout.logprobs.sum(dtype=np.float64)) for rollout in batch.group(name)]
        for name in batch.problem_ids
    }


def certainty(stages: Stages, batch: RolloutBatch, policy: Policy) -> Rewards:
    """Minus the entropies that each sample met on its way."""
    return {name: [-h for h in sums] for name, sums in stages.entropies(batch, policy).items()}


REWARDS: Mapping[str, Callable[[Stages, RolloutBatch, Policy], Rewards]] = {
    "em_rl_sequence": confidence,
    "em_rl_token": certainty,
}
DIRECT = "em_ft"
SHARED: Mapping[str, Any] = {"aggregation": "token_mean", **iterating.OPTIONS}
CHECKS: Mapping[str, Check] = {
    "steps": at_least(1), "examples": at_least(0), "aggregation": one_of(AGGREGATIONS), **iterating.CHECKS,
}  # fmt: skip


class EntropyMin:
    """Options: docs/methods-single-example.md."""

    name, version = "entropy_min", 1
    options: Mapping[str, Any] = {"kind": DIRECT, "steps": 16, "examples": 0, "kl": 0.0, **SHARED}
    checks: Mapping[str, Check] = {"kind": one_of((DIRECT, *REWARDS)), "kl": at_least(0), **CHECKS}

    def spends(self, _: Mapping[str, Any]) -> Spending:
        return Spending(optimizer=True)

    def run(self, stages: Stages) -> Contender:
        kind, kl = str(stages.options["kind"]), float(stages.options["kl"])
        if kind == DIRECT and kl:
            raise UsageError(f"method.{stages.method}.kl is for the kinds {', '.join(REWARDS)}: em_ft has none")
        if kind == DIRECT:
            return train(stages, lambda batch, _: direct(stages, batch, sign=1.0))
        return train(stages, lambda batch, policy: reinforce(stages, batch, REWARDS[kind](stages, batch, policy)))


class EntropyBonus:
    """Options: docs/methods-single-example.md."""

    name, version = "entropy_bonus", 1
    options: Mapping[str, Any] = {"steps": 16, "examples": 1, **SHARED}
    checks = CHECKS

    def spends(self, _: Mapping[str, Any]) -> Spending:
        return Spending(optimizer=True)

    def run(self, stages: Stages) -> Contender:
        return train(stages, lambda batch, _: direct(stages, batch, sign=-1.0))


class Goal(NamedTuple):
    """A weighed batch and the loss to take of it."""

    batch: WeighedBatch
    objective: Objective


def train(stages: Stages, goal: Callable[[RolloutBatch, Policy], Goal]) -> Contender:
    """One update on each draw of the live policy, in which no verdict has a part."""
    draws, live = schedule(stages), iterating.trainer(stages)

    def learn(number: int) -> None:
        problems, samples = draws[number]
        batch = stages.sample(problems, live.policy, samples=samples, iteration=number, free=True)
        live.step(*goal(batch, live.policy))

    return iterating.iterate(stages, live, len(draws), learn)


def schedule(stages: Stages) -> Sequence[tuple[Sequence[Problem], int]]:
    """The budget in `steps` draws: of all training problems in turn, or again and again of the first `examples`."""
    steps, problems = int(stages.options["steps"]), stages.train_problems[: int(stages.options["examples"])]
    if not problems:
        return iterating.draws(stages)
    return [(problems, samples) for samples in iterating.shares(stages, len(problems), steps=steps)]


def direct(stages: Stages, batch: RolloutBatch, *, sign: float) -> Goal:
    """The entropies themselves as the loss, every sample of the batch alike."""
    alike = {name: [1.0] * batch.samples for name in batch.problem_ids}
    weighed = stages.weigh(batch, rewards=alike, scheme="reinforce")
    aggregation = str(stages.options["aggregation"])
    return Goal(weighed, TokenEntropy(sign=sign, aggregation=aggregation, tokens=_tokens(stages, weighed)))


def reinforce(stages: Stages, batch: RolloutBatch, rewards: Rewards) -> Goal:
    """On-policy REINFORCE with the other samples' mean reward as baseline; the ratio is 1, so nothing is clipped."""
    kl, aggregation = float(stages.options["kl"]), str(stages.options["aggregation"])
    weighed = stages.weigh(batch, rewards=rewards, scheme="rloo", whole=kl > 0)
    return Goal(weighed, ClippedPolicy(kl=kl, aggregation=aggregation, tokens=_tokens(stages, weighed)))


def _tokens(stages: Stages, weighed: WeighedBatch) -> float:
    return float(stages.max_tokens) if stages.options["aggregation"] == "constant" else weighed.mean_tokens
