"""One-Shot RLVR softened: the budget in k large batches, each giving one direction and one searched step from where the
last one ended (the fallback of Sikand's "One-Step RLVR", 2026, and its frontier of batch size against steps).

Does: draw each batch from the current policy on fresh problems; take one raw gradient there; transform it as one_shot
does; search the step with 1/k of the selection budget.
Doesn't: keep optimizer state, or clip: every direction is taken on policy, so the ratio is 1. k = 1 is one_shot.

Choices that the proposal leaves open, numbered:
1. A round whose search picks the zero step, or whose batch has no live group, leaves the policy where it is. Its
   rollouts are kept: they are still on policy, so the next direction is of all batches since the last step. Validation
   noise often picks the zero step in late rounds, and their rollouts would otherwise be lost.
2. Selection is shared out evenly, so each search is noisier than one_shot's by about sqrt(k).
3. The row's `kl` is from the base to the last policy, on the base's completions; `step` is empty after several moves,
   and the columns of the batch and its direction are those of the last direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.contracts import Check
from harness.errors import NoSignal
from harness.limits import at_least
from harness.stages import Stages
from harness.types import Contender, Direction, Policy, Search
from harness.weighing import JoinedBatch, WeighedBatch
from harness_methods import one_shot


class OneShotK:
    """Options: `k` rounds, and `direction` as in one_shot."""

    name, version = "one_shot_k", 1
    options: Mapping[str, Any] = {"k": 4, **one_shot.OPTIONS}
    checks: Mapping[str, Check] = {"k": at_least(1), **one_shot.CHECKS}

    def run(self, stages: Stages) -> Contender:
        rounds, policy = stages.schedule(int(stages.options["k"])), stages.base
        waiting: list[WeighedBatch] = []
        searches: list[Search] = []
        for number, (problems, samples) in enumerate(rounds):
            batch = stages.sample(problems, policy, samples=samples, iteration=number)
            waiting.append(stages.weigh(batch, scheme=one_shot.scheme(stages)))
            try:
                direction = direction_of(stages, waiting, policy)
            except NoSignal:
                if number == len(rounds) - 1 and not searches:
                    raise
                continue
            searches.append(stages.search(direction, origin=policy, share=1 / len(rounds)))
            if searches[-1].chosen:
                policy, waiting = searches[-1].winner.policy, []
        if len(rounds) > 1:
            stages.path(searches, share=1 / len(rounds))
        return Contender(policies=(policy,))


def direction_of(stages: Stages, batches: list[WeighedBatch], policy: Policy) -> Direction:
    """Of all `batches`, drawn from `policy`. Raises NoSignal."""
    whole = batches[0] if len(batches) == 1 else JoinedBatch(parts=tuple(batches))
    return one_shot.followed(stages, whole, policy)
