"""RandOpt (Gan & Isola 2603.12228): Gaussian perturbations of the base, no gradient: the best one, or a vote of the best.

Does: score perturbations and the base greedily on the same training problems. `random_search` hands the best to the
selection split beside the zero step, and takes the winner. `random_search_vote` lets the best answer greedily and takes
the majority's answer, as the paper does.
Doesn't: step along anything, or write a weight file.

Departures from the paper and its published code, numbered:
1. Every tensor draws its own noise. The published code seeds every tensor alike, so all tensors of one shape move
   together.
2. Noise is drawn in fp32 and added to the stored base, which is cast once. The published code draws in the weights'
   type, adds and later subtracts, so that rounding drifts.
3. `sigmas` are shares of each tensor's root mean square, so one grid serves models of every size; the paper's are
   absolute. The default grid was read off 12 perturbations at each of seven sigmas on the embedded model's first
   version, 64 problems in each of the three domains (16,128 greedy rollouts): .01 changes little, .02 to .07 hold the
   good ones, at .10 most and at .15 all are worse than the base.
4. Sigmas take turns instead of being drawn: each gets equally many perturbations.
5. `random_search`: the best of a noisy probe is inflated, so the best `keep` meet again on the selection split, at the
   run's temperature, and one policy is left. The paper ranks by the training score alone, and evaluates greedily.
6. `random_search_vote`: 8 policies vote where the paper's headline has 50 of 5,000. Nothing is spent on selection; at
   test time each problem costs 8 completions, which the row counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from harness import seeds
from harness.contracts import Check, Spending
from harness.errors import UsageError
from harness.limits import above, at_least, each
from harness.stages import Stages
from harness.types import Candidate, Contender, Move, Policy, Search


class RandomSearch:
    """Options: how many `perturbations`, their `sigmas` in turn, and how many of the best to `keep` for selection.

    The base and all perturbations get equally many problems, one completion each: budget // (perturbations + 1), at
    most all training problems. What is left of the budget by rounding is not spent; with the defaults nothing is.
    """

    name, version = "random_search", 1
    options: Mapping[str, Any] = {"perturbations": 63, "sigmas": [0.02, 0.04, 0.07], "keep": 7}
    checks: Mapping[str, Check] = {
        "perturbations": at_least(1), "sigmas": each(above(0), least=1), "keep": at_least(1),
    }  # fmt: skip

    def spends(self, options: Mapping[str, Any]) -> Spending:
        return Spending(passes=0)

    def run(self, stages: Stages) -> Contender:
        probe = probed(stages)
        finalists = [Contender(policies=(policy,)) for policy in (stages.base, *best(stages, probe))]
        return finalists[stages.select(finalists).chosen]


class RandomSearchVote:
    """Options as those of random_search; the best `keep` vote. With equal options the two share one probe."""

    name, version = "random_search_vote", 1
    options: Mapping[str, Any] = {**RandomSearch.options, "keep": 8}
    checks = RandomSearch.checks

    def spends(self, options: Mapping[str, Any]) -> Spending:
        return Spending(selection=0, passes=0, tests=int(options["keep"]))

    def run(self, stages: Stages) -> Contender:
        voters = best(stages, probed(stages))
        return Contender(policies=tuple(voters), temperature=0.0, n=1, combine="vote")


def probed(stages: Stages) -> Search:
    """The base and all perturbations, each scored greedily on the same problems. Raises UsageError."""
    perturbed = perturbations(stages)
    problems = stages.train_problems[: stages.budget.train_left // (len(perturbed) + 1)]
    if not problems:
        raise UsageError(
            f"a budget of {stages.budget.train} rollouts cannot score {len(perturbed)} perturbations and the base "
            f"on one problem each: lower --set method.{stages.method}.perturbations=..."
        )
    contenders = [Contender(policies=(policy,)) for policy in (stages.base, *perturbed)]
    return stages.probe(contenders, problems, temperature=0.0)


def best(stages: Stages, probe: Search) -> list[Policy]:
    """The `keep` perturbations that scored best, the best first; of equals the earlier."""
    ranked = sorted(probe.candidates[1:], key=_accuracy, reverse=True)
    return [candidate.policy for candidate in ranked[: int(stages.options["keep"])]]


def perturbations(stages: Stages) -> list[Policy]:
    """The base plus noise, one recipe for each seed."""
    sigmas = [float(sigma) for sigma in stages.options["sigmas"]]
    moves = [
        Move(kind="noise", path="", digest=f"{seeds.seed_for(stages.seed, 'random_search', sample_idx=i):016x}",
             step=sigmas[i % len(sigmas)])
        for i in range(int(stages.options["perturbations"]))
    ]  # fmt: skip
    return [Policy(base=stages.base.base, moves=(move,)) for move in moves]


def _accuracy(candidate: Candidate) -> float:
    """Below every score when no verdict is left: NaN would break the order."""
    accuracy = candidate.score.accuracy
    return -1.0 if math.isnan(accuracy) else accuracy
