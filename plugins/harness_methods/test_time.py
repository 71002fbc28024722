"""What many completions of the base give without training: the majority's answer, or the best one by an oracle.

Does: hand in the base with `n` completions of each problem at the run's temperature, combined into one answer.
Doesn't: spend training or selection rollouts: draws on test problems are counted as evaluation, n for each problem.

`majority` is self-consistency (2203.11171): the most frequent canonical answer, the first given on ties; completions
that were not understood have no vote. In code a vote is a program in canonical form, so equal programs agree, not equal
behaviours. `best_of_n` looks at the verdicts of the test problems themselves: it is pass@n of the base, a bound on what
choosing among its completions could give, and no method that can be used. Its rows say "oracle".

Both have one answer for each problem, so pass@4 and pass@16 are empty; `greedy` is that of the base, whose greedy
completions all agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.contracts import Check, Spending
from harness.limits import at_least
from harness.stages import Stages
from harness.types import Contender

OPTIONS: Mapping[str, Any] = {"n": 16}
CHECKS: Mapping[str, Check] = {"n": at_least(1)}


class Majority:
    """The answer that most of `n` completions give."""

    name, version = "majority", 1
    options, checks = OPTIONS, CHECKS

    def spends(self, options: Mapping[str, Any]) -> Spending:
        return _spends(options)

    def run(self, stages: Stages) -> Contender:
        return _many(stages, combine="vote")


class BestOfN:
    """Right when any of `n` completions is: an oracle."""

    name, version = "best_of_n", 1
    options, checks = OPTIONS, CHECKS

    def spends(self, options: Mapping[str, Any]) -> Spending:
        return _spends(options)

    def run(self, stages: Stages) -> Contender:
        return _many(stages, combine="oracle")


def _spends(options: Mapping[str, Any]) -> Spending:
    return Spending(train=0, selection=0, passes=0, tests=int(options["n"]) + 1)


def _many(stages: Stages, *, combine: str) -> Contender:
    return Contender(policies=(stages.base,), n=int(stages.options["n"]), combine=combine)
