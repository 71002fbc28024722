"""Within a run ("view 1"): the base pass rate of a test problem below which a method's expected gain stays under delta.

Does: fit the method's pass rate q(p) over the test problems of one run, where p is a problem's own base pass rate, and
find where gain = q - p first reaches delta, with a 95 % interval from resampled problems and seeds.
Doesn't: mix in pass rates of training batches (across.py).

The estimand is the gain expected at a problem whose own base pass rate is p. The draws for bins measure p with noise: of
16, none is right at p = .02 for three of four problems, and a gain put at the share of successes would be that of a
mixture. So p given the count c of n is taken as Beta(alpha + c, beta + n - c), from the beta-binomial fitted to all counts,
and q is fitted to what it predicts for problems of each count, E[q(p) | c] (regression with known errors in p).

    logit q = a + b x + k (x / 3)^2,  x = logit p,  k ~ N(0, 1)

A straight line (k = 0) is biased by up to 30 % of the break-even where a method moves easy and hard problems differently;
isotonic regression of groups needs no curve, but a group's gain has an error of several points, and the first group to
reach 2 is then one of luck. What rests on assumptions: that pass rates spread as a beta distribution, and that the curve
holds below p = 1 / 16, where single problems can't be told apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness import betabinomial, seeds, stats
from harness.passrates import across, crossing
from harness.passrates.crossing import DELTA, BreakEven, CurvePoint, expit, logit
from harness.report.results import Results
from harness.types import Score

VIEW = "base pass rate of a test problem"
EDGE = 0.025  # share of the fitted pass rates that is left out at either end: no problem tells of a gain there
LOWEST = 1e-3  # a gain in points below it is none, and problems there are all alike in 16 draws
SHOWN = 25  # points of the fit that are kept for a figure, about
_X_J = np.linspace(-30.0, 8.0, 191)  # logit p at which integrals are taken: a beta may have much of its mass at tiny p
_BEND = 6.0  # |logit p| beyond which the curve goes on straight
_ITERATIONS = 15
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Cells(NamedTuple):
    """Problems of equal counts (right, drawn) in the bin draws; `cell_P` says which cell a problem is in."""

    right_C: Ints
    drawn_C: Ints
    cell_P: Ints


def break_evens(found: Results, method: str, *, deltas: Sequence[float] = (DELTA,)) -> list[BreakEven]:
    """One for each delta, from one fit over the problems of the first test set; none without draws for bins, or where these
    are all right or all wrong."""
    sorting = found.finished["base", 0].evaluation.bins
    return [] if sorting is None else of_problems(sorting, across.gains(found, method), deltas=deltas)


def of_problems(
    sorting: Score, gains_SP: Floats, *, deltas: Sequence[float] = (DELTA,), seed: int = 0, draws: int = 400
) -> list[BreakEven]:
    """From counts of the bin draws and method minus base on other draws, seeds x problems (NaN without a verdict)."""
    right_P, drawn_P = np.array(sorting.correct), np.array(sorting.n)
    kept_P = (drawn_P > 1) & ~np.isnan(gains_SP).any(axis=0)
    right_P, drawn_P, gains_SP = right_P[kept_P], drawn_P[kept_P], gains_SP[:, kept_P]
    if not np.any((right_P > 0) & (right_P < drawn_P)):
        return []
    (right_C, drawn_C), cell_P = np.unique(np.stack([right_P, drawn_P]), axis=1, return_inverse=True)
    cells, rng = Cells(right_C, drawn_C, cell_P.ravel()), seeds.generator(seed)
    prior = betabinomial.fit(right_P, drawn_P)
    once = np.ones((1, right_P.size))
    fit = _curves(cells, once, gains_SP.mean(axis=0)[None], np.array([prior]))
    if np.count_nonzero(_seen(fit)) < 2:  # nearly all problems are at one end of the grid
        return []
    weights_DP = rng.multinomial(right_P.size, np.full(right_P.size, 1 / right_P.size), size=draws).astype(np.float64)
    priors_D2 = _priors(cells, weights_DP, prior)
    resamples = _curves(cells, weights_DP, _seeds_drawn(gains_SP, rng, draws), priors_D2)
    return [_concluded(fit, resamples, delta=delta, problems=right_P.size) for delta in deltas]


def _seeds_drawn(gains_SP: Floats, rng: np.random.Generator, draws: int) -> Floats:
    """The seeds' mean in each draw: deviations of seeds, added with normal weights that give the variance of their mean.

    What completions add to these deviations is in the resampled problems already, and is left out here.
    """
    mean_P, count, error = gains_SP.mean(axis=0), len(gains_SP), stats.error_over_seeds(gains_SP)
    if error.from_seeds == 0.0:
        return np.broadcast_to(mean_P, (draws, mean_P.size))
    seen = float(gains_SP.mean(axis=1).var(ddof=1)) / count
    scale = math.sqrt(error.from_seeds / seen / (count * (count - 1)))
    tail_D1 = np.sqrt(error.df / rng.chisquare(error.df, (draws, 1)))  # Student's, as in stats.over_seeds
    weights_DS = scale * tail_D1 * rng.standard_normal((draws, count))
    gains_DP: Floats = mean_P + weights_DS @ (gains_SP - mean_P)
    return gains_DP


def _priors(cells: Cells, weights_DP: Floats, fitted: betabinomial.Beta) -> Floats:
    """Parameters of the beta for every resample: the likeliest of a grid around those of the problems as they are."""
    strength = fitted.alpha + fitted.beta
    means_G, strengths_G = (
        axis.ravel()
        for axis in np.meshgrid(
            expit(logit(np.array(fitted.alpha / strength)) + np.linspace(-0.8, 0.8, 33)),
            strength * np.exp(np.linspace(-1.2, 1.2, 33)),
        )
    )
    priors_G2 = np.stack([means_G * strengths_G, (1 - means_G) * strengths_G], axis=1)
    loglik_GC = betabinomial.loglik(priors_G2[:, :1], priors_G2[:, 1:], cells.right_C, cells.drawn_C)
    best_D = (_by_cell(cells, weights_DP) @ loglik_GC.T).argmax(axis=1)
    found_D2: Floats = priors_G2[best_D]
    return found_D2


def _by_cell(cells: Cells, values_DP: Floats) -> Floats:
    member_PC = (cells.cell_P[:, None] == np.arange(cells.right_C.size)).astype(np.float64)
    sums_DC: Floats = values_DP @ member_PC
    return sums_DC


class Curves(NamedTuple):
    """Gains at the nodes, and the share of pass rates below each."""

    gains_DJ: Floats
    below_DJ: Floats


def _curves(cells: Cells, weights_DP: Floats, gains_DP: Floats, priors_D2: Floats) -> Curves:
    p_J, counts_DC = expit(_X_J), _by_cell(cells, weights_DP)
    posterior_DCJ = _posterior(cells, priors_D2)
    means_DC = posterior_DCJ @ p_J
    gains_DC = _by_cell(cells, weights_DP * gains_DP) / np.maximum(counts_DC, 1e-9)
    theta_D3 = _fit(posterior_DCJ, means_DC + gains_DC, counts_DC)
    density_DJ = (counts_DC[:, None, :] @ posterior_DCJ)[:, 0] / counts_DC.sum(axis=1, keepdims=True)
    return Curves(expit(theta_D3 @ _basis().T) - p_J, density_DJ.cumsum(axis=1))


def _basis() -> Floats:
    return np.stack([np.ones_like(_X_J), _X_J, (np.clip(_X_J, -_BEND, _BEND) / 3.0) ** 2], axis=1)


def _posterior(cells: Cells, priors_D2: Floats) -> Floats:
    """Of p at the nodes given the counts of each cell; every row adds up to 1."""
    log_p_J, log_q_J = -np.log1p(np.exp(-_X_J)), -np.log1p(np.exp(_X_J))
    alpha_DC = priors_D2[:, :1] + cells.right_C
    beta_DC = priors_D2[:, 1:] + cells.drawn_C - cells.right_C
    log_DCJ = alpha_DC[:, :, None] * log_p_J + beta_DC[:, :, None] * log_q_J
    density_DCJ = np.exp(log_DCJ - log_DCJ.max(axis=2, keepdims=True))
    posterior_DCJ: Floats = density_DCJ / density_DCJ.sum(axis=2, keepdims=True)
    return posterior_DCJ


def _fit(posterior_DCJ: Floats, rates_DC: Floats, counts_DC: Floats) -> Floats:
    """(a, b, k) for every draw: penalised least squares with binomial weights, by Gauss-Newton in short steps."""
    basis_J3, penalty_33 = _basis(), np.diag([1e-6, 1e-6, 1.0])
    theta_D3 = np.tile([0.0, 1.0, 0.0], (len(counts_DC), 1))
    for _ in range(_ITERATIONS):
        q_DJ = expit(theta_D3 @ basis_J3.T)
        slopes_DJ3 = (q_DJ * (1 - q_DJ))[:, :, None] * basis_J3
        fitted_DC, slopes_DC3 = (posterior_DCJ @ q_DJ[:, :, None])[:, :, 0], posterior_DCJ @ slopes_DJ3
        weights_DC = counts_DC / np.maximum(fitted_DC * (1 - fitted_DC), 0.004)
        weighted_D3C = slopes_DC3.transpose(0, 2, 1) * weights_DC[:, None, :]
        left_D33 = weighted_D3C @ slopes_DC3 + penalty_33
        right_D31 = weighted_D3C @ (rates_DC - fitted_DC)[:, :, None] - (theta_D3 @ penalty_33)[:, :, None]
        change_D3 = np.linalg.solve(left_D33, right_D31)[:, :, 0]
        theta_D3 = theta_D3 + change_D3 / np.maximum(1.0, np.abs(change_D3).max(axis=1, keepdims=True))
    return theta_D3


def _seen(fit: Curves) -> npt.NDArray[np.bool_]:
    """The pass rates of which problems tell."""
    below_J = fit.below_DJ[0]
    inside_J: npt.NDArray[np.bool_] = (below_J >= EDGE) & (below_J <= 1 - EDGE) & (logit(np.array(LOWEST)) <= _X_J)
    return inside_J


def _concluded(fit: Curves, resamples: Curves, *, delta: float, problems: int) -> BreakEven:
    inside_J = _seen(fit)
    rates_J = expit(_X_J[inside_J])
    gains_J, gains_DJ = fit.gains_DJ[0, inside_J], resamples.gains_DJ[:, inside_J]
    low_J, high_J = np.quantile(gains_DJ, [0.025, 0.975], axis=0)
    curve = np.stack([rates_J, rates_J + gains_J, gains_J, low_J, high_J]).T[:: max(1, len(rates_J) // SHOWN)]
    return crossing.concluded(
        VIEW,
        f"a gain of {100 * delta:.3g} points",
        float(crossing.first_crossings(rates_J[None], gains_J[None], delta)[0]),
        crossing.first_crossings(np.broadcast_to(rates_J, gains_DJ.shape), gains_DJ, delta),
        lowest=float(rates_J[0]),
        highest=float(rates_J[-1]),
        points=problems,
        curve=tuple(CurvePoint(*row) for row in curve.tolist()),
    )
