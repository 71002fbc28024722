"""PPO with a value head (1707.06347): grpo's updates with advantages of tokens instead of groups.

Does: spend the budget in `steps` equal draws of the live policy; ask the value head for the value before every token of
a draw; turn these and the verdicts into advantages and returns (harness/crediting.py); step on the clipped surrogate and
the value loss, `epochs` times `updates_per_batch`; choose among the base and `checkpoints` policies on the selection
split. All else is grpo's.
Doesn't: compare rollouts of a problem with each other. The head is in the trainer's state and in no policy.

`gae_lambda` 1 is what RLVR takes (Open-Reasoner-Zero 2503.24290, verl's default): the advantage is the reward less the value;
PPO for feedback of people takes .95 (TRL).

Departures, numbered:
1. The value head is linear on the policy's last hidden state and shares its trunk, as TRL's was; verl, OpenRLHF and
   Open-Reasoner-Zero train a second model. It starts at zero, not at random, so the first draw's advantages are rewards.
2. Old values are those of the weights and the head that a draw was sampled with, by a forward of the trainer before the
   draw's first update; all epochs see them.
3. KL to the base is off, as in Open-Reasoner-Zero; `kl` is grpo's k3 penalty in the loss, where PPO for feedback of people
   has it in the reward.
4. A draw whose rewards are all equal is no update: whitened, its advantages would be the head's own errors.
5. One AdamW holds policy and head (`critic_lr`), and the norm that is clipped is that of both gradients.
6. The checkpoint is chosen on a selection split, as in grpo.

Tried on the embedded model (N = 4,096, seed 0, 32 draws, lr 3e-4), six runs in all; base .223 on code and .216 on math, grpo .807
and .679 (32 updates):

| domain | epochs x minibatches | gae_lambda | critic_lr | updates | pass@1 | greedy |
|--------|----------------------|------------|-----------|---------|--------|--------|
| code   | 1 x 1                | 1          | 1e-3      | 32      | .879   | 1.000  |
| code   | 1 x 1                | .95        | 1e-3      | 32      | .820   | .977   |
| code   | 2 x 2                | 1          | 1e-3      | 128     | .886   | .953   |
| math   | 1 x 1                | 1          | 1e-3      | 32      | .620   | .777   |
| math   | 2 x 2                | 1          | 1e-3      | 128     | .669   | .733   |
| math   | 2 x 2                | 1          | 3e-3      | 128     | .663   | .717   |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from harness import crediting
from harness.contracts import Check, Spending
from harness.limits import above, at_least, within
from harness.objectives import ClippedActorCritic
from harness.sampling import RolloutBatch
from harness.stages import Stages
from harness.training import StageTrainer
from harness.types import Contender
from harness.weighing import WeighedBatch
from harness_methods import grpo, iterating


class Ppo:
    """docs/methods.md says what every option does."""

    name, version = "ppo", 1
    needs = ("actor_critic",)
    options: Mapping[str, Any] = {
        "steps": 32,
        "gae_lambda": 1.0,
        "whiten": True,
        "value": 0.5,
        "value_clip": 0.2,
        "critic_lr": 1e-3,
        **grpo.LOSS,
        "updates_per_batch": 2,
        "epochs": 2,
        **iterating.OPTIONS,
    }
    checks: Mapping[str, Check] = {
        "steps": at_least(1),
        "gae_lambda": within(0, 1),
        "value": at_least(0),
        "value_clip": within(0, math.inf),
        "critic_lr": above(0),
        **grpo.CHECKS,
        **iterating.CHECKS,
    }

    def spends(self, options: Mapping[str, Any]) -> Spending:
        return iterating.spends(options)

    def run(self, stages: Stages) -> Contender:
        live = iterating.trainer(stages, critic_lr=float(stages.options["critic_lr"]))
        draws = iterating.draws(stages)

        def learn(number: int) -> None:
            problems, samples = draws[number]
            batch = stages.sample(problems, live.policy, samples=samples, iteration=number)
            credited = credit(stages, live, batch)
            grpo.update(stages, live, credited, number=number, goal=objective(stages, credited))

        return iterating.iterate(stages, live, len(draws), learn)


def credit(stages: Stages, live: StageTrainer, batch: RolloutBatch) -> WeighedBatch:
    """The draw with advantages and returns for its tokens, of the values that the live head gives it."""
    weighed = stages.weigh(batch, scheme="reinforce", whole=True)
    lam, whiten = float(stages.options["gae_lambda"]), bool(stages.options["whiten"])
    return crediting.credit(weighed, live.values(weighed), lam=lam, whiten=whiten)


def objective(stages: Stages, batch: WeighedBatch) -> ClippedActorCritic:
    """grpo's loss of the options on the advantages of tokens, and the value loss."""
    value, clip = float(stages.options["value"]), float(stages.options["value_clip"])
    return ClippedActorCritic(actor=grpo.objective(stages, batch), value=value, value_clip=clip)
