"""The line search: solve steps for KL targets, score candidates with common random numbers, choose with caution.

Does: find the step whose KL(base || candidate) per token equals each target (KL = c a^2 for small a, refined by
teacher-forced forwards); pick the smallest step whose paired difference to the best is within one standard error.
Doesn't: sample (the stages do) and never prints a selection score as a result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness import stats
from harness.types import Candidate, Score

TOLERANCE = 0.1  # a step is accepted when its KL is within this share of the target
MAX_REFINEMENTS = 4
PROBE = 1e-3  # |step x direction| / |theta| of the first probe
MAX_RELATIVE = 1.0  # a step longer than the weights themselves is no small change


class Solved(NamedTuple):
    """A step, the KL measured there (nats per token) and the target it answers."""

    step: float
    kl: float
    target: float


def solve_steps(
    kl_at: Callable[[float], float], targets: Sequence[float], *, direction_norm: float, weight_norm: float
) -> list[Solved]:
    """Steps for ascending KL targets; a target beyond reach of |delta| = |theta| ends the list."""
    unit = weight_norm / direction_norm
    points = [_probe(kl_at, unit)]
    solved = []
    for target in sorted(targets):
        found = _solve(kl_at, target, points, limit=MAX_RELATIVE * unit)
        if found is None:
            break
        solved.append(found)
    return solved


def _probe(kl_at: Callable[[float], float], unit: float) -> tuple[float, float]:
    """A first (step, KL) with a KL far enough from rounding noise to extrapolate from."""
    relative = PROBE
    while (kl := kl_at(relative * unit)) < 1e-4 and relative < MAX_RELATIVE:
        relative *= 4
    return relative * unit, max(kl, 1e-12)


def _solve(
    kl_at: Callable[[float], float], target: float, points: list[tuple[float, float]], *, limit: float
) -> Solved | None:
    for _ in range(MAX_REFINEMENTS):
        step = min(_guess(points, target), limit)
        kl = kl_at(step)
        points.append((step, max(kl, 1e-12)))
        if abs(kl - target) <= TOLERANCE * target:
            break
        if step == limit and kl < target:
            return None
    step, kl = min(points, key=lambda p: abs(math.log(p[1] / target)))
    return Solved(step, kl, target)


def _guess(points: Sequence[tuple[float, float]], target: float) -> float:
    """Power law through the nearest point below and above the target; a^2 from the nearest one otherwise."""
    below = max((p for p in points if p[1] <= target), key=lambda p: p[1], default=None)
    above = min((p for p in points if p[1] > target), key=lambda p: p[1], default=None)
    if below is not None and above is not None and above[0] > below[0] and above[1] > below[1]:
        slope = math.log(above[0] / below[0]) / math.log(above[1] / below[1])
        return float(below[0] * (target / below[1]) ** slope)
    step, kl = min(points, key=lambda p: abs(math.log(p[1] / target)))
    return step * math.sqrt(target / kl)


def selection_sizes(selection: int, candidates: int, *, problems: int, samples: int) -> tuple[int, int]:
    """(problems, samples) for each candidate, so that all together stay within `selection` rollouts."""
    each = selection // candidates
    samples = min(samples, each)
    return min(problems, each // samples), samples


def rates(score: Score) -> npt.NDArray[np.float64]:
    """Per-problem accuracy; NaN where every rollout was a verifier error."""
    pairs = zip(score.correct, score.n, strict=True)
    return np.array([correct / n if n else np.nan for correct, n in pairs])


def choose(candidates: Sequence[Candidate], *, cautious: bool = True) -> tuple[int, int]:
    """(chosen, best) indices. Candidates come in order of caution, zero first.

    `best` has the highest selection accuracy (the earliest on ties); `chosen` is the earliest whose paired
    difference to it is within one standard error clustered by problem, or `best` itself when not `cautious`.
    """
    accuracies = [candidate.score.accuracy for candidate in candidates]
    best = max(range(len(candidates)), key=lambda i: (accuracies[i], -i))
    if not cautious:
        return best, best
    for index, candidate in enumerate(candidates[:best]):
        difference_P = rates(candidates[best].score) - rates(candidate.score)
        difference_P = difference_P[~np.isnan(difference_P)]
        if difference_P.mean() <= stats.clustered_se(difference_P):
            return index, best
    return best, best
