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
from harness.errors import NoSignal, NotFinite
from harness.types import Candidate, Score

TOLERANCE = 0.1  # a step is accepted when its KL is within this share of the target
MAX_REFINEMENTS = 6
PROBE = 1e-3  # |step x direction| / |theta| of the first probe
SHORTEST = 1e-9
MAX_RELATIVE = 1.0  # a step longer than the weights themselves is no small change


class Solved(NamedTuple):
    """A step, the KL measured there (nats per token) and the target it answers."""

    step: float
    kl: float
    target: float


def solve_steps(
    kl_at: Callable[[float], float], targets: Sequence[float], *, direction_norm: float, weight_norm: float
) -> list[Solved]:
    """Steps for ascending KL targets. A target that no step up to |delta| = |theta| reaches has none.

    `kl_at` may be NaN or infinite: such a step is too long. Raises NoSignal for a direction of norm zero, NotFinite where
    no step has a KL.
    """
    if not direction_norm > 0:
        raise NoSignal("the direction has norm zero: no step along it changes anything")
    unit = weight_norm / direction_norm
    points = [_probe(kl_at, unit)]
    solved = []
    for target in sorted(targets):
        found = _solve(kl_at, target, points, limit=MAX_RELATIVE * unit)
        if abs(found.kl - target) <= TOLERANCE * target:
            solved.append(found)
        elif found.kl < target:  # out of reach, and so is every larger target
            break
    return solved


def _probe(kl_at: Callable[[float], float], unit: float) -> tuple[float, float]:
    """A first (step, KL) with a KL far enough from rounding noise to extrapolate from."""
    relative, kl = PROBE, kl_at(PROBE * unit)
    while not math.isfinite(kl):
        if relative < SHORTEST:
            raise NotFinite(
                f"no step along the direction has a finite KL, not even one of {relative:.0e} of the weights"
            )
        relative /= 16
        kl = kl_at(relative * unit)
    while kl < 1e-4 and relative < MAX_RELATIVE and math.isfinite(further := kl_at(4 * relative * unit)):
        relative, kl = 4 * relative, further
    return relative * unit, max(kl, 1e-12)


def _solve(
    kl_at: Callable[[float], float], target: float, points: list[tuple[float, float]], *, limit: float
) -> Solved:
    """The measured point nearest to the target; `points` gains every (step, KL) that was measured."""
    for _ in range(MAX_REFINEMENTS):
        step = min(_guess(points, target), limit)
        kl = kl_at(step)
        if not math.isfinite(kl):
            limit = step / 2
            continue
        points.append((step, max(kl, 1e-12)))
        if abs(kl - target) <= TOLERANCE * target or (step == limit and kl < target):
            break
    step, kl = min(points, key=lambda p: abs(math.log(p[1] / target)))
    return Solved(step, kl, target)


def _guess(points: Sequence[tuple[float, float]], target: float) -> float:
    """Power law through two neighbouring points in (log KL, log step); a^2 from the nearest when there is but one."""
    nearest = sorted(points, key=lambda p: abs(math.log(p[1] / target)))
    (step, kl), others = nearest[0], nearest[1:]
    slope = 0.5
    for other_step, other_kl in others:
        if abs(math.log(other_kl / kl)) > 0.1:  # closer points tell rounding noise, not the slope
            slope = min(max(math.log(other_step / step) / math.log(other_kl / kl), 0.2), 1.0)
            break
    return float(step * (target / kl) ** slope)


def selection_sizes(selection: int, candidates: int, *, problems: int, samples: int) -> tuple[int, int]:
    """(problems, samples) for each candidate, so that all together stay within `selection` rollouts."""
    each = selection // candidates
    problems = min(problems, each)  # a first draw of another problem tells more than a second of the same
    return problems, min(samples, each // problems)


def rates(score: Score) -> npt.NDArray[np.float64]:
    """Per-problem accuracy; NaN where every rollout was a verifier error."""
    pairs = zip(score.correct, score.n, strict=True)
    return np.array([correct / n if n else np.nan for correct, n in pairs])


def choose(candidates: Sequence[Candidate], *, cautious: bool = True) -> tuple[int, int]:
    """(chosen, best) indices. Candidates come in order of caution, zero first.

    Those that met fewer problems than others fell behind in a race and cannot be chosen. `best` has the highest selection accuracy (the earliest on ties); `chosen` is the earliest whose paired
    difference to it is within one standard error clustered by problem, or `best` itself when not `cautious`.
    """
    met = [len(candidate.score.problem_ids) for candidate in candidates]
    in_race = [m == max(met) for m in met]
    accuracies = np.where(in_race, np.nan_to_num([c.score.accuracy for c in candidates], nan=-1.0), -2.0)
    best = int(accuracies.argmax())
    if not cautious:
        return best, best
    for index, candidate in enumerate(candidates[:best]):
        if not in_race[index]:
            continue
        difference_P = rates(candidates[best].score) - rates(candidate.score)
        difference_P = difference_P[~np.isnan(difference_P)]
        if len(difference_P) and difference_P.mean() <= stats.clustered_se(difference_P):
            return index, best
    return best, best
