"""DPO (2305.18290) on correct and incorrect completions of the base batch: a preference for what the verifier accepts.

Does: draw at most `per_problem` pairs of each problem, no completion in two; update by AdamW on minibatches of about
`minibatch` pairs for `epochs` passes, the base as reference; choose among the base and `checkpoints` policies on the
selection split.
Doesn't: add a likelihood term, smooth labels, or draw again.

At the base the gradient of a pair is beta / 2 times the difference of its two log-likelihood gradients, so the first
update is that of REINFORCE with every pair's problem weighing the same, whatever its pass rate.

Departures from published settings, numbered:
1. Pairs come from the verifier and not from people, so a problem that is always or never solved has none.
2. Log-probabilities are at the sampling temperature, as everywhere here.
3. The checkpoint is chosen on a selection split.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.contracts import Check, Spending
from harness.limits import above, at_least
from harness.objectives import Preference
from harness.stages import Stages
from harness.types import Contender
from harness.weighing import pair_minibatches, require_signal
from harness_methods import iterating, offline


class Dpo:
    """Options: `beta`, how strongly the base holds; `per_problem` and `minibatch` count pairs."""

    name, version = "dpo", 1
    options: Mapping[str, Any] = {"beta": 0.1, "per_problem": 4, "minibatch": 64, **offline.OPTIONS}
    checks: Mapping[str, Check] = {
        "beta": above(0), "per_problem": at_least(1), "minibatch": at_least(1), **offline.CHECKS,
    }  # fmt: skip

    def spends(self, options: Mapping[str, Any]) -> Spending:
        return iterating.spends(options)

    def run(self, stages: Stages) -> Contender:
        goal = Preference(beta=float(stages.options["beta"]))
        pairs = stages.pair(stages.base_batch(), per_problem=int(stages.options["per_problem"]))
        require_signal(pairs)
        count = max(1, round(pairs.normaliser / int(stages.options["minibatch"])))
        return offline.train(stages, goal, lambda seed: pair_minibatches(pairs, count, seed=seed))
