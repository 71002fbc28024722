"""The pass rate below which a method's expected gain stays under delta: `break_even`, in two views that are never mixed.

Does: fit the method's pass rate q(p) as monotone in p, take gain = q - p, and find where it first reaches delta, with a
95 % interval from resampled problems and seeds.
Doesn't: draw, or extrapolate: outside the pass rates that were seen the answer is a bound.

| view | p | a point is | function |
|---|---|---|---|
| across runs | the pass rate of a training batch (`batch_pass_rate`) | a run, over its seeds | `break_even_across` |
| within a run | the base's pass rate of one test problem | problems of equal counts in the bin draws | `break_even_within` |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness import seeds, stats, stepping
from harness.passrates.binning import FEWEST
from harness.report.results import Results
from harness.types import Score

DELTA = 0.02
ACROSS = "pass rate of the training batch"
WITHIN = "base pass rate of a test problem"
Floats = npt.NDArray[np.float64]


class Point(NamedTuple):
    """One run: the mean batch pass rate of its seeds, and method minus base by seed and test problem.

    Points of one `test` share their test problems, and these are resampled together.
    """

    rate: float
    gains_SP: Floats
    test: str = ""


class CurvePoint(NamedTuple):
    """The fit at one pass rate: the method's pass rate and the gain, with the gain's 95 % interval."""

    rate: float
    method: float
    gain: float
    low: float
    high: float


class BreakEven(NamedTuple):
    """`outcome` is "crossed", "gains everywhere" or "gains nowhere" (of the pass rates `lowest` to `highest`).

    `at` is NaN unless crossed. `low` and `high` bound the break-even: 0 and infinity where it may lie outside of the pass
    rates that were seen. `view` is ACROSS or WITHIN.
    """

    view: str
    outcome: str
    at: float
    low: float
    high: float
    delta: float
    lowest: float
    highest: float
    points: int
    curve: tuple[CurvePoint, ...]

    @property
    def words(self) -> str:
        return _words(self)


def points_of(runs: Sequence[Results], method: str) -> list[Point]:
    """One for each run in which `method` left a direction with a batch pass rate, by ascending rate."""
    found = []
    for results in runs:
        done = [results.finished[method, seed] for seed in results.seeds_of(method)]
        rates = [d.direction.batch_pass_rate for d in done if d.direction is not None]
        known = [rate for rate in rates if rate is not None]
        if known:
            found.append(Point(float(np.mean(known)), gains(results, method), test_of(results)))
    return sorted(found, key=lambda point: point.rate)


def gains(found: Results, method: str) -> Floats:
    """Method minus base, seeds x problems, NaN without a verdict."""
    rates = [
        stepping.rates(found.finished[method, seed].evaluation.sampled)
        - stepping.rates(found.finished["base", seed].evaluation.sampled)
        for seed in found.seeds_of(method)
    ]
    return np.array(rates)


def test_of(found: Results) -> str:
    return str(next(iter(found.manifest["tests"].values())))


def break_even_across(points: Sequence[Point], *, delta: float = DELTA, seed: int = 0, draws: int = 2000) -> BreakEven:
    """Over several runs. Raises ValueError with fewer than two points."""
    return _break_even(ACROSS, points, delta=delta, seed=seed, draws=draws)


def break_even_within(
    found: Results, method: str, *, delta: float = DELTA, seed: int = 0, draws: int = 2000
) -> BreakEven | None:
    """Over the test problems of one run; None without draws for bins, or where all problems have one pass rate.

    The estimand is the gain at a problem's own base pass rate, of which the bin draws are a noisy measurement: a group of
    equal counts stands at the posterior mean of p given the count, under the beta-binomial fitted to all counts, not at
    its share of successes.
    """
    sorting = found.finished["base", 0].evaluation.bins
    points = [] if sorting is None else points_within(sorting, gains(found, method))
    return _break_even(WITHIN, points, delta=delta, seed=seed, draws=draws) if len(points) > 1 else None


def points_within(sorting: Score, gains_SP: Floats, *, fewest: int = FEWEST) -> list[Point]:
    """Problems by posterior mean, in groups of equal ones; a group of fewer than `fewest` joins the next."""
    n_P, c_P = np.array(sorting.n), np.array(sorting.correct)
    kept_P = n_P > 1
    if not np.any((c_P > 0) & (c_P < n_P)):
        return []
    alpha, beta = stats.beta_binomial(c_P[kept_P], n_P[kept_P])
    means_P = np.where(kept_P, (alpha + c_P) / (alpha + beta + n_P), math.nan)
    groups: list[npt.NDArray[np.int64]] = []
    for value in np.unique(means_P[kept_P]):
        own = np.flatnonzero(means_P == value)
        joins = groups and len(groups[-1]) < fewest
        groups.append(np.concatenate([groups.pop(), own]) if joins else own)
    if len(groups) > 1 and len(groups[-1]) < fewest:
        last = groups.pop()
        groups.append(np.concatenate([groups.pop(), last]))
    return [Point(float(means_P[own].mean()), gains_SP[:, own], str(k)) for k, own in enumerate(groups)]


def _break_even(view: str, points: Sequence[Point], *, delta: float, seed: int, draws: int) -> BreakEven:
    if len(points) < 2:
        raise ValueError(f"a break-even needs two pass rates or more, got {len(points)}")
    points = sorted(points, key=lambda point: point.rate)
    rates_K = np.array([point.rate for point in points])
    gains_K = np.array([np.nanmean(point.gains_SP) for point in points])
    gains_DK = _resampled(points, seed=seed, draws=draws)
    fitted_K, fitted_DK = monotone_gains(rates_K, gains_K), np.array([monotone_gains(rates_K, g) for g in gains_DK])
    at = first_crossing(rates_K, fitted_K, delta)
    crossings_D = [first_crossing(rates_K, fitted, delta) for fitted in fitted_DK]
    low, high = (float(q) for q in np.quantile(crossings_D, [0.025, 0.975], method="nearest"))
    low_K, high_K = np.quantile(fitted_DK, [0.025, 0.975], axis=0)
    curve = [CurvePoint(*row) for row in zip(rates_K, rates_K + fitted_K, fitted_K, low_K, high_K, strict=True)]
    outcome = "gains everywhere" if at == 0.0 else "gains nowhere" if at == math.inf else "crossed"
    at = at if outcome == "crossed" else math.nan
    return BreakEven(view, outcome, at, low, high, delta, rates_K[0], rates_K[-1], len(points), tuple(curve))


def monotone_gains(rates_K: Floats, gains_K: Floats) -> Floats:
    """Gains after p + gain was made monotone in p."""
    return monotone(rates_K + gains_K, np.ones(len(rates_K))) - rates_K


def monotone(values_K: Floats, weights_K: Floats) -> Floats:
    """The rising values nearest to these in weighted squares (pool adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values_K, weights_K, strict=True):
        total, mass, count = float(value * weight), float(weight), 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / mass:
            more, heavier, others = blocks.pop()
            total, mass, count = total + more, mass + heavier, count + others
        blocks.append((total, mass, count))
    return np.concatenate([np.full(count, total / mass) for total, mass, count in blocks])


def first_crossing(rates_K: Floats, gains_K: Floats, delta: float) -> float:
    """The lowest p at which the gain, linear between points, reaches delta: 0 when it does at the lowest, inf if never."""
    above = np.flatnonzero(gains_K >= delta)
    if not above.size:
        return math.inf
    k = int(above[0])
    if k == 0:
        return 0.0
    share = (delta - gains_K[k - 1]) / (gains_K[k] - gains_K[k - 1])
    return float(rates_K[k - 1] + share * (rates_K[k] - rates_K[k - 1]))


def _resampled(points: Sequence[Point], *, seed: int, draws: int) -> Floats:
    """Mean gain of each point in each draw: problems resampled, those of one test set together."""
    rng, out = seeds.generator(seed), np.empty((draws, len(points)))
    for test in dict.fromkeys(point.test for point in points):
        own = [k for k, point in enumerate(points) if point.test == test]
        count = points[own[0]].gains_SP.shape[1]
        weights_DP = rng.multinomial(count, np.full(count, 1 / count), size=draws)
        for k in own:
            mean_P = np.nanmean(points[k].gains_SP, axis=0)
            known_P = ~np.isnan(mean_P)
            out[:, k] = weights_DP[:, known_P] @ mean_P[known_P] / weights_DP[:, known_P].sum(axis=1)
    return out


def _words(found: BreakEven) -> str:
    seen = f"between {found.lowest:.3g} and {found.highest:.3g}"
    goal = f"a gain of {100 * found.delta:.3g} points"
    if found.outcome == "gains everywhere":
        return f"{goal} is reached at every {found.view} seen ({seen}): the break-even lies below {found.lowest:.3g}."
    if found.outcome == "gains nowhere":
        return f"{goal} is reached at no {found.view} seen ({seen})."
    low = f"below {found.lowest:.3g}" if found.low == 0.0 else f"{found.low:.3g}"
    high = f"above {found.highest:.3g}" if found.high == math.inf else f"{found.high:.3g}"
    return f"below a {found.view} of {found.at:.3g} [{low}, {high}] the expected gain stays under {goal[2:]}."
