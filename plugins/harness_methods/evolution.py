"""Evolution strategies (2509.24372) in one generation: a step along a gradient estimated from noise, without backward.

Does: score `population` Gaussian perturbations of the base on training problems, one completion each; weigh their noise
by z-scored fitness; search the step along the sum.
Doesn't: differentiate, or take a second generation: it is the zeroth-order relative of one_shot, and as noisy as the
number of weights is large beside the population.

Departures from the paper and its published code (population 30, sigma .001, T = 0, 1,000 generations), numbered:
1. One generation, with a searched step: how long the estimate is does not matter.
2. `sigma` is a share of each tensor's root mean square, so the noise is the same relative to every tensor; every tensor
   has its own draws, in fp32, added to the stored base.
3. With `antithetic` (Salimans et al. 1703.03864) perturbations come in pairs of opposite noise.
4. Fitness is the share of correct completions, with no part for format.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from harness import seeds
from harness.contracts import Check, Spending
from harness.errors import NoSignal, UsageError
from harness.limits import above, at_least, within
from harness.stages import Stages
from harness.types import Contender, Move


class Evolution:
    """Options: `population` at most, `sigma`, `antithetic` pairs, and the sampling `temperature` of the fitness.

    The budget is spent exactly: the population is its largest divisor up to `population`, even for pairs, and all meet
    the same budget / population problems.
    """

    name, version = "evolution", 1
    options: Mapping[str, Any] = {"population": 256, "sigma": 0.02, "antithetic": True, "temperature": 0.0}
    checks: Mapping[str, Check] = {"population": at_least(2), "sigma": above(0), "temperature": within(0, 100)}

    def spends(self, options: Mapping[str, Any]) -> Spending:
        return Spending(passes=0)

    def run(self, stages: Stages) -> Contender:
        moves = perturbations(stages)
        problems = stages.train_problems[: stages.budget.train // len(moves)]
        contenders = [Contender(policies=(replace(stages.base, moves=(move,)),)) for move in moves]
        probe = stages.probe(contenders, problems, temperature=float(stages.options["temperature"]))
        fitness = [candidate.score.accuracy for candidate in probe.candidates]
        direction = stages.superpose(stages.base, weighted(moves, fitness))
        return Contender(policies=(stages.search(direction).winner.policy,))


def perturbations(stages: Stages) -> list[Move]:
    """Noise of `sigma`, a seed each, or a seed and both signs for each pair. Raises UsageError as `population` does."""
    sigma, signs = float(stages.options["sigma"]), (1.0, -1.0) if stages.options["antithetic"] else (1.0,)
    count = population(stages, multiple=len(signs))
    digests = [f"{seeds.seed_for(stages.seed, 'evolution', sample_idx=i):016x}" for i in range(count // len(signs))]
    return [Move(kind="noise", path="", digest=digest, step=sign * sigma) for digest in digests for sign in signs]


def population(stages: Stages, *, multiple: int) -> int:
    """The largest number of perturbations that shares out the budget exactly, over problems that there are."""
    budget, most = stages.budget.train, int(stages.options["population"])
    least = max(2, budget // len(stages.train_problems))
    fitting = [count for count in range(least, most + 1) if budget % count == 0 and count % multiple == 0]
    if not fitting:
        raise UsageError(
            f"no population from {least} to {most} shares out {budget} rollouts over at most {len(stages.train_problems)} "
            f"problems: raise --set method.{stages.method}.population=..."
        )
    return fitting[-1]


def weighted(moves: Sequence[Move], fitness: Sequence[float]) -> list[Move]:
    """Each seed's noise times the z-scored fitness of its perturbations, in their sign; raises NoSignal for nothing."""
    steps = dict.fromkeys((move.digest for move in moves), 0.0)
    known = [value for value in fitness if not math.isnan(value)]
    if known and np.std(known) > 0:
        for move, value in zip(moves, fitness, strict=True):
            score = 0.0 if math.isnan(value) else (value - np.mean(known)) / np.std(known)  # no verdict: as the mean
            steps[move.digest] += float(score * np.sign(move.step)) / len(moves)
    found = [Move(kind="noise", path="", digest=digest, step=step) for digest, step in steps.items() if step]
    if not found:
        raise NoSignal(f"{len(moves)} perturbations scored alike: there is no direction")
    return found
