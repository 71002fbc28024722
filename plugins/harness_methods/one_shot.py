"""One-Shot RLVR: one policy-gradient direction from one huge batch at the base, one searched step; and its controls.

Does: sample the whole budget from the base, weigh by group-normalised advantages, take one raw gradient, transform it
into the wanted kind, line-search the step.
Doesn't: iterate. At the base with one full-batch step the ratio is 1, so clipping and KL to the base are inert.

Departures from the proposal (Sikand 2026, "One-Step RLVR"), which leaves these open:
1. The step grid is log-spaced in KL per token, not in norm: the best norm varies tenfold between kinds of direction.
2. The direction is per-tensor normalised by default; `direction` chooses another kind (harness/directions.py).
3. Steps race on the selection split (harness/racing.py); the chosen one is the smallest within one standard error of
   the best.

Kinds along the embedded model's base batch (N = 4,096, seed 0; pass@1 on test with its gain, 300 problems x 4, and the KL of the
chosen step; base .223 and .216):

| direction  | code          | KL   | math          | KL   |
|------------|---------------|------|---------------|------|
| per_tensor | .662 (+.439)  | .15  | .417 (+.201)  | .08  |
| raw        | .651 (+.427)  | .15  | .441 (+.225)  | .08  |
| orthogonal | .647 (+.423)  | .08  | .350 (+.134)  | .04  |
| lora16     | .478 (+.255)  | .04  | .251 (+.035)  | .02  |
| lora4      | .417 (+.193)  | .04  | .233 (+.018)  | .01  |
| adam       | .394 (+.171)  | .04  | .282 (+.066)  | .04  |
| sign       | .394 (+.171)  | .04  | .242 (+.026)  | .01  |

One seed, intervals of +-.03. adam points best where GRPO goes (docs/diagnostics.md), and yet on a straight line along it the score
falls from a KL of .04 on, where raw and per_tensor still climb.

Version 1 scored every step on every selection problem, for twice the selection rollouts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.contracts import Check
from harness.directions import require_kind
from harness.stages import Stages
from harness.types import Contender, Direction, Policy
from harness.weighing import GradientBatch

OPTIONS: Mapping[str, Any] = {"direction": "per_tensor"}
CHECKS: Mapping[str, Check] = {"direction": require_kind}


def one_shot_direction(stages: Stages, *, shuffle: bool = False) -> Direction:
    """Sample, weigh, direct, transform: the direction of `stages.options["direction"]`."""
    weighed = stages.weigh(stages.base_batch(), scheme=scheme(stages), shuffle=shuffle)
    return followed(stages, weighed, stages.base)


def followed(stages: Stages, weighed: GradientBatch, policy: Policy) -> Direction:
    """The policy gradient of a batch as the kind of direction of the options."""
    kind = str(stages.options["direction"])
    return stages.transform(stages.direct(weighed, policy, kind=kind), kind)


def scheme(stages: Stages) -> str:
    """How the batch is weighed for the direction of the options."""
    return "positives_only" if stages.options["direction"] == "positives_only" else "grpo"


class OneShot:
    """The method under test."""

    name, version = "one_shot", 2
    options, checks = OPTIONS, CHECKS

    def run(self, stages: Stages) -> Contender:
        search = stages.search(one_shot_direction(stages))
        return Contender(policies=(search.winner.policy,))


class OneShotShuffled:
    """Control: rewards permuted within each group carry no information about correctness.

    Its expected gradient is zero; what the search gains on top is selection, at or above zero by construction.
    """

    name, version = "one_shot_shuffled", 2
    options, checks = OPTIONS, CHECKS

    def run(self, stages: Stages) -> Contender:
        search = stages.search(one_shot_direction(stages, shuffle=True))
        return Contender(policies=(search.winner.policy,))


class RandomDirection:
    """Control: a Gaussian direction of the same per-tensor norms, at the same KL targets; charged as one_shot."""

    name, version = "random_direction", 2
    options, checks = OPTIONS, CHECKS

    def run(self, stages: Stages) -> Contender:
        search = stages.search(stages.randomise(one_shot_direction(stages)))
        return Contender(policies=(search.winner.policy,))
