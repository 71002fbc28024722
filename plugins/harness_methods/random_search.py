"""RandOpt (Gan & Isola 2603.12228): Gaussian perturbations of the base, the best of them, no gradient.

Does: score perturbations and the base greedily on the same training problems, hand the best to the selection split
beside the zero step, and take the winner.
Doesn't: step along anything, write a weight file, or vote: what is evaluated is one policy.

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
5. The best of a noisy probe is inflated, so the best `keep` meet again on the selection split, at the run's
   temperature. The paper ranks by the training score alone, and evaluates greedily: its figure is the row's `greedy`.
6. One policy, not the majority vote of the best 50: a vote spends 50 completions a problem at test time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from harness import seeds
from harness.contracts import Spending
from harness.errors import UsageError
from harness.stages import Stages
from harness.types import Candidate, Contender, Move, Policy


class RandomSearch:
    """Options: how many `perturbations`, their `sigmas` in turn, and how many of the best to `keep` for selection.

    The base and all perturbations get equally many problems, one completion each: budget // (perturbations + 1), at
    most all training problems. What is left of the budget by rounding is not spent; with the defaults nothing is.
    """

    name, version = "random_search", 1
    options: Mapping[str, Any] = {"perturbations": 63, "sigmas": [0.02, 0.04, 0.07], "keep": 7}

    def spends(self, options: Mapping[str, Any]) -> Spending:
        return Spending(passes=0)

    def run(self, stages: Stages) -> Contender:
        perturbed = perturbations(stages)
        problems = stages.train_problems[: stages.budget.train_left // (len(perturbed) + 1)]
        if not problems:
            raise UsageError(
                f"a budget of {stages.budget.train} rollouts cannot score {len(perturbed)} perturbations and the base "
                "on one problem each: lower --set method.random_search.perturbations=..."
            )
        contenders = [Contender(policies=(policy,)) for policy in (stages.base, *perturbed)]
        base, *tried = stages.probe(contenders, problems, temperature=0.0).candidates
        best = sorted(tried, key=_accuracy, reverse=True)[: int(stages.options["keep"])]
        finalists = [Contender(policies=(candidate.policy,)) for candidate in (base, *best)]
        return finalists[stages.select(finalists).chosen]


def perturbations(stages: Stages) -> list[Policy]:
    """The base plus noise, one recipe for each seed; raises UsageError for options that make no search."""
    count, keep = int(stages.options["perturbations"]), int(stages.options["keep"])
    sigmas = [float(sigma) for sigma in stages.options["sigmas"]]
    if count < 1 or keep < 1 or not sigmas or min(sigmas) <= 0:
        raise UsageError("method.random_search wants perturbations and keep of at least 1 and sigmas above 0")
    moves = [
        Move(kind="noise", path="", digest=f"{seeds.seed_for(stages.seed, 'random_search', sample_idx=i):016x}",
             step=sigmas[i % len(sigmas)])
        for i in range(count)
    ]  # fmt: skip
    return [Policy(base=stages.base.base, moves=(move,)) for move in moves]


def _accuracy(candidate: Candidate) -> float:
    """Below every score when no verdict is left: NaN would break the order."""
    accuracy = candidate.score.accuracy
    return -1.0 if math.isnan(accuracy) else accuracy
