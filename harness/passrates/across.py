"""Across runs ("view 2"): the pass rate of the training batch below which a method's expected gain stays under delta.

Does: fit the method's pass rate q(p) over several runs as monotone in p = `batch_pass_rate`, and find where gain = q - p
first reaches delta, with a 95 % interval from resampled problems and seeds.
Doesn't: mix in pass rates of single problems (within.py), or extrapolate: beyond the runs the answer is a bound.

1. q at p is p plus the gain, which is paired on the test problems: the batch and the test set are samples of one
   population, and that the test set came out easier or harder cancels. (Where they are not of one population, a gain over
   the base on test is still what it says.)
2. Isotonic regression of q, linear between runs on logit scales. A straight line logit q = a + b logit p is the other
   choice at hand: it has a fifth less spread and is biased by 10-40 % of the break-even, since no single line holds a
   method that is dead below some p and near its ceiling above another.
3. With one seed a run the interval is that of these trained policies; what other seeds would have made of the same pass
   rate is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness import seeds, stats, stepping
from harness.passrates import crossing
from harness.passrates.crossing import DELTA, BreakEven, CurvePoint
from harness.report.results import STANDARD, Results

VIEW = "pass rate of the training batch"
_LOWEST = 1e-6
Floats = npt.NDArray[np.float64]


class Point(NamedTuple):
    """One run: the mean batch pass rate of its seeds with its standard error, and method minus base by seed and problem.

    Points of one `test` share their test problems, and these are resampled together. `standard_SP` are the gains of the
    standard method on the same problems.
    """

    rate: float
    gains_SP: Floats
    test: str = ""
    rate_se: float = 0.0
    standard_SP: Floats | None = None


def points_of(runs: Sequence[Results], method: str, *, standard: str = STANDARD) -> list[Point]:
    """One for each run in which `method` left a direction with a batch pass rate, by ascending rate."""
    found = []
    for results in runs:
        done = [results.finished[method, seed] for seed in results.seeds_of(method)]
        directions = [d.direction for d in done if d.direction is not None and d.direction.batch_pass_rate is not None]
        if directions:
            groups = sum(direction.groups_used + direction.groups_dead for direction in directions)
            rates = [direction.batch_pass_rate or 0.0 for direction in directions]
            others = gains(results, standard) if standard in results.methods else None
            error = _rate_error(results, groups)
            found.append(Point(float(np.mean(rates)), gains(results, method), test_of(results), error, others))
    return sorted(found, key=lambda point: point.rate)


def gains(found: Results, method: str) -> Floats:
    """Method minus base on the first test set, seeds x problems, NaN without a verdict."""
    rates = [
        stepping.rates(found.finished[method, seed].evaluation.sampled)
        - stepping.rates(found.finished["base", seed].evaluation.sampled)
        for seed in found.seeds_of(method)
    ]
    return np.array(rates)


def test_of(found: Results) -> str:
    """The hash of the first test set."""
    return str(next(iter(found.manifest["tests"].values())))


def _rate_error(found: Results, groups: int) -> float:
    """Of a mean over `groups` training problems, whose rates spread as those of the test problems do; 0 if unknown."""
    bins = found.finished["base", 0].evaluation.bins
    return 0.0 if bins is None or not groups else float(np.nanstd(stepping.rates(bins))) / math.sqrt(groups)


def break_even(
    points: Sequence[Point], *, delta: float = DELTA, share: float = 0.0, seed: int = 0, draws: int = 2000
) -> BreakEven:
    """The batch pass rate from which on the gain reaches delta, or `share` of the standard's gain where that is more.

    Raises ValueError with fewer than two points, or for a `share` where a point lacks the standard.
    """
    if len(points) < 2:
        raise ValueError(f"a break-even needs two pass rates or more, got {len(points)}")
    points, rng = sorted(points, key=lambda point: point.rate), seeds.generator(seed)
    rates_K = np.array([[point.rate for point in points]])
    fitted_K = monotone_gains(rates_K, np.array([[np.nanmean(point.gains_SP) for point in points]]))
    goals_K = _goals(points, [np.nanmean(_standard(point)) for point in points] if share else None, delta, share)
    spread_K = np.array([point.rate_se for point in points])
    rates_DK = (rates_K + spread_K * rng.standard_normal((draws, len(points)))).clip(_LOWEST, 1 - _LOWEST)
    gains_DK, others_DK = resampled(points, rng, draws, standard=share > 0)
    goals_DK = _goals(points, others_DK, delta, share)
    order_DK = rates_DK.argsort(axis=1)
    rates_DK, gains_DK, goals_DK = (np.take_along_axis(v, order_DK, axis=1) for v in (rates_DK, gains_DK, goals_DK))
    fitted_DK = monotone_gains(rates_DK, gains_DK)
    low_K, high_K = np.quantile(fitted_DK, [0.025, 0.975], axis=0)
    curve = np.stack([rates_K[0], (rates_K + fitted_K)[0], fitted_K[0], low_K, high_K]).T
    return crossing.concluded(
        VIEW,
        f"a gain of {100 * delta:.3g} points" + (f" and {share:.0%} of {STANDARD}'s" if share else ""),
        float(crossing.first_crossings(rates_K, fitted_K, goals_K)[0]),
        crossing.first_crossings(rates_DK, fitted_DK, goals_DK),
        lowest=points[0].rate,
        highest=points[-1].rate,
        points=len(points),
        curve=tuple(CurvePoint(*row) for row in curve.tolist()),
    )


def _standard(point: Point) -> Floats:
    if point.standard_SP is None:
        raise ValueError(f"the run at a batch pass rate of {point.rate:.3g} lacks {STANDARD}: no share of its gain")
    return point.standard_SP


def _goals(points: Sequence[Point], others: npt.ArrayLike | None, delta: float, share: float) -> Floats:
    goals: Floats = np.full((1, len(points)), delta) if others is None else np.maximum(delta, share * np.array(others))
    return np.atleast_2d(goals)


def monotone_gains(rates_DK: Floats, gains_DK: Floats) -> Floats:
    """Gains after p + gain was made monotone in p, draw by draw (pool adjacent violators); pass rates ascend."""
    equal_K = np.ones(rates_DK.shape[1])
    return np.array([crossing.monotone(values_K, equal_K) for values_K in rates_DK + gains_DK]) - rates_DK


def resampled(
    points: Sequence[Point], rng: np.random.Generator, draws: int, *, standard: bool
) -> tuple[Floats, Floats | None]:
    """Mean gain of each point in each draw, and that of the standard: problems resampled, those of one test together."""
    gains_DK, others_DK = np.empty((2, draws, len(points)))
    for test in dict.fromkeys(point.test for point in points):
        own = [k for k, point in enumerate(points) if point.test == test]
        count = points[own[0]].gains_SP.shape[1]
        weights_DP = rng.multinomial(count, np.full(count, 1 / count), size=draws)
        for k in own:
            gains_DK[:, k] = _means(points[k].gains_SP, weights_DP, rng)
            if standard:
                others_DK[:, k] = _means(_standard(points[k]), weights_DP, rng)
    return gains_DK, others_DK if standard else None


def _means(gains_SP: Floats, weights_DP: npt.NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """A few seeds cannot be resampled (their spread would come out too small by (S - 1) / S, and without a tail), so a draw
    adds their part of the error as a normal number, and both parts are scaled to Student's t (stats.over_seeds)."""
    known_P = ~np.isnan(gains_SP).any(axis=0)
    whole_SP, kept_DP = gains_SP[:, known_P], weights_DP[:, known_P]
    error, mean = stats.error_over_seeds(whole_SP), whole_SP.mean()
    off_D = kept_DP @ whole_SP.mean(axis=0) / kept_DP.sum(axis=1) - mean
    off_D += math.sqrt(error.from_seeds) * rng.standard_normal(len(off_D))
    means_D: Floats = mean + off_D * np.sqrt(error.df / rng.chisquare(error.df, len(off_D)))
    return means_D
