"""GRPO, then a line search along the way it went: the updates of the budget, extrapolated (2601.04537, 2605.21468).

Does: spend the budget in `steps` updates as grpo does, keep `checkpoints` policies on the way, and search the step from
the base along their trend; step 1 is where the updates ended, and the KL grid reaches beyond.
Doesn't: train on after the extrapolation (the papers' re-grounding), or extrapolate logits.

The claim is that weights move almost linearly in the number of updates, so that a longer run can be predicted from its
beginning: RELEX predicts step 500 from the first 75.

Departures from RELEX (2605.21468) and from RLVR-Linearity (2601.04537), numbered:
1. How far to go is searched on selection problems; theirs is a fixed multiple of the steps.
2. With `rank_one` (RELEX) each tensor's way is cut to rank one and its coefficients are fitted by a line through the base;
   theirs has an intercept. Without, the direction is the displacement of the last policy, as in 2601.04537.
3. All tensors are extrapolated; 2601.04537 takes norm layers as they are.
4. Whole fp32 checkpoints are compared; RELEX stores displacements in half precision.
5. The window is the whole budget, in as many updates as grpo: on the embedded model 8 and 16 larger ones, a shorter window
   at the same budget, ended far behind, and no step along their way made up for it.

What was spent to find `steps`, `rank_one` and `checkpoints`: nine runs of 4,096 rollouts on code and math, one seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.contracts import Check, Spending
from harness.errors import NoSignal
from harness.limits import at_least
from harness.stages import Stages
from harness.types import Contender, Policy
from harness_methods import grpo, iterating


class Extrapolate:
    """Options: `steps` updates, `rank_one`, and grpo's `scheme`, loss and rate."""

    name, version = "extrapolate", 1
    options: Mapping[str, Any] = {
        "steps": 32, "rank_one": True, "scheme": "grpo", **grpo.LOSS, **iterating.OPTIONS, "checkpoints": 8,
    }  # fmt: skip
    checks: Mapping[str, Check] = {
        "steps": at_least(1), "scheme": grpo.SCHEME, **grpo.CHECKS, **iterating.CHECKS,
    }  # fmt: skip

    def spends(self, options: Mapping[str, Any]) -> Spending:
        return iterating.spends(options)

    def run(self, stages: Stages) -> Contender:
        kept = trained(stages)
        if set(kept.values()) == {stages.base}:
            raise NoSignal(f"none of {max(kept)} batches had a live group: no policy moved")
        if stages.options["rank_one"]:
            direction = stages.trend(stages.base, list(kept.values()), [float(number) for number in kept])
        else:
            direction = stages.displacement(stages.base, kept[max(kept)])
        return Contender(policies=(stages.search(direction).winner.policy,))


def trained(stages: Stages) -> dict[int, Policy]:
    """The policies kept on the way, by the number of draws before them."""
    live, kept = iterating.trainer(stages), {}
    draws = iterating.draws(stages)
    marks = iterating.milestones(len(draws), int(stages.options["checkpoints"]))
    for number, (problems, samples) in enumerate(draws):
        batch = stages.sample(problems, live.policy, samples=samples, iteration=number)
        whole = grpo.looks_at_all(stages.options)
        weighed = stages.weigh(batch, scheme=str(stages.options["scheme"]), whole=whole)
        grpo.update(stages, live, weighed, number=number)
        if number + 1 in marks:
            kept[number + 1] = live.keep()
    return kept
