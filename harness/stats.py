"""Estimates and intervals: pass@k, paired differences, several seeds, gradient signal.

Does: turn per-problem accuracies, success counts and gradient norms into numbers with intervals (NumPy alone).
Doesn't: read files, decide what is printed, or rank. Every interval is two-sided and 95 %.

The unit is always the problem: completions of one problem are not independent, so they enter as one accuracy.

Where it departs from its sources:
1. The paired bootstrap leaves the percentile method for a Student t interval when there are too few problems or too
   few of the rarer outcome (`too_few`). There, at a nominal 95 %, percentile covered 72-96 %, bootstrap-t 74-98 % and
   was up to eight times as wide, and t 89-100 % (simulated beta-binomial problems, 20-150 of them).
2. When every difference is the same, resampling and t both claim certainty; the interval then comes from the exact
   binomial bound on the share of problems that could differ without one having been met.
3. Percentiles of the bootstrap are taken at the levels of BCa, widened to Student's t: plain ones resample a spread that is
   too small by sqrt((P - 1) / P) and leave out skewness. It matters little: at 300 problems of docs/calibration.md both
   cover 94 to 95 %, and differ by .3 % at most.
4. The gradient's signal-to-noise ratio keeps its sign: clipping it at zero would bias averages upwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness import seeds, student

Floats = npt.NDArray[np.float64]
FEW_PROBLEMS = 100
FEW_OUTCOMES = 20
MIN_SUB_BATCHES = 4
_CHUNK = 500


class Interval(NamedTuple):
    low: float
    high: float


class Paired(NamedTuple):
    """Mean difference method - base, its 95 % interval and standard error over problems."""

    delta: float
    low: float
    high: float
    se: float
    too_few: bool


class Combined(NamedTuple):
    """A mean over seeds and problems; `df` are its degrees of freedom."""

    delta: float
    low: float
    high: float
    se: float
    df: float


class GradientSignal(NamedTuple):
    """See `gradient_signal`."""

    g2: float | None
    trace_cov_of_mean: float | None
    snr: float | None
    agreement: float | None
    half_cosine: float | None


def pass_at_k(n: npt.ArrayLike, c: npt.ArrayLike, k: int) -> float:
    """Mean over problems of the unbiased 1 - C(n-c, k) / C(n, k), for those with n >= k; NaN when there is none.

    `n` draws and `c` correct of each problem, scalars or arrays (Chen et al. 2021, arXiv 2107.03374, eq. 1). A few
    draws lost to verifier errors so cost a few problems, not the number.
    Raises ValueError when c is outside 0..n or k < 1.
    """
    n_P, c_P = np.broadcast_arrays(np.atleast_1d(n), np.atleast_1d(c))
    if k < 1 or np.any(c_P < 0) or np.any(c_P > n_P):
        raise ValueError(f"pass@k needs 0 <= c <= n and k >= 1, got k = {k}")
    n_P, c_P = n_P[n_P >= k], c_P[n_P >= k]
    if n_P.size == 0:
        return math.nan
    misses_PK = np.maximum(n_P[:, None] - c_P[:, None] - np.arange(k), 0) / (n_P[:, None] - np.arange(k))
    return float(np.mean(1.0 - misses_PK.prod(axis=1)))


def clustered_se(diffs_P: npt.ArrayLike) -> float:
    """Standard error of the mean over problems: sd (P - 1) / sqrt(P). NaN entries are left out; NaN below two."""
    d_P = np.asarray(diffs_P, dtype=np.float64)
    d_P = d_P[~np.isnan(d_P)]
    return float(d_P.std(ddof=1) / math.sqrt(d_P.size)) if d_P.size > 1 else math.nan


def paired_bootstrap(base_P: npt.ArrayLike, method_P: npt.ArrayLike, *, seed: int, draws: int = 10_000) -> Paired:
    """Method minus base on the same problems, problems resampled together.

    Inputs are per-problem accuracies in 0..1; a problem that is NaN on either side is left out. `too_few` is set
    under 100 problems, or when the expected number of solved problems in one pass (the sum of accuracies) is under
    20 even for the better side, or that of failed ones under 20 even for the worse side: the differences are then
    a handful of problems. Intervals: bootstrap, or Student's t with P - 1 degrees of freedom when `too_few`, or
    the exact bound of `_unmet` when all differences are equal. All NaN when no problem is left.
    """
    base_P, method_P = _paired(base_P, method_P)
    d_P = method_P - base_P
    if d_P.size == 0:
        return Paired(math.nan, math.nan, math.nan, math.nan, True)
    delta, se, few = float(d_P.mean()), clustered_se(d_P), too_few(base_P, method_P)
    if not few:
        means_D = np.concatenate([c_DP @ d_P for c_DP in _resamples(d_P.size, seed=seed, draws=draws)]) / d_P.size
        low, high = (float(q) for q in np.quantile(means_D, _levels(d_P)))
    elif np.ptp(d_P) == 0.0:
        low, high = _unmet(delta, d_P.size)
    else:
        half = student.quantile(0.975, d_P.size - 1) * se
        low, high = max(-1.0, delta - half), min(1.0, delta + half)
    return Paired(delta, low, high, se, few)


def _levels(d_P: Floats) -> list[float]:
    """Quantiles of resampled means that make a 95 % interval: BCa (Efron 1987), expanded (Hesterberg 2015, 4.1.5).

    For a mean, bias correction and acceleration are one number, skewness / (6 sqrt(P)).
    """
    problems, centred_P = d_P.size, d_P - d_P.mean()
    skew = float((centred_P**3).sum() / (6.0 * (centred_P**2).sum() ** 1.5)) if np.ptp(d_P) > 0.0 else 0.0
    tail = math.sqrt(problems / (problems - 1)) * student.quantile(0.975, problems - 1)
    ends = [skew + end for end in (-tail, tail)]
    return [NormalDist().cdf(skew + end / (1.0 - skew * end)) for end in ends]


def _paired(base_P: npt.ArrayLike, method_P: npt.ArrayLike) -> tuple[Floats, Floats]:
    base_P = np.asarray(base_P, dtype=np.float64)
    method_P = np.asarray(method_P, dtype=np.float64)
    if base_P.ndim != 1 or base_P.shape != method_P.shape:
        raise ValueError(f"paired accuracies need one axis and one length, got {base_P.shape} and {method_P.shape}")
    kept_P = ~(np.isnan(base_P) | np.isnan(method_P))
    return base_P[kept_P], method_P[kept_P]


def too_few(base_P: Floats, method_P: Floats) -> bool:
    solved = max(base_P.sum(), method_P.sum())
    failed = max((1.0 - base_P).sum(), (1.0 - method_P).sum())
    return bool(base_P.size < FEW_PROBLEMS or min(solved, failed) < FEW_OUTCOMES)


def _unmet(delta: float, problems: int) -> Interval:
    """Bound for equal differences: a share u of problems, none met, could differ and be anything in -1..1."""
    u = 1.0 - 0.025 ** (1.0 / problems)
    return Interval(delta - u * (1.0 + delta), delta + u * (1.0 - delta))


def _resamples(problems: int, *, seed: int, draws: int) -> Iterator[Floats]:
    """How often each problem is drawn, a block of draws at a time: all at once would not fit for long test sets."""
    rng = seeds.generator(seed)
    for start in range(0, draws, _CHUNK):
        drawn = rng.integers(problems, size=(min(_CHUNK, draws - start), problems))
        rows = np.arange(len(drawn))[:, None] * problems
        counts = np.bincount((drawn + rows).ravel(), minlength=drawn.size)
        yield counts.reshape(drawn.shape).astype(np.float64)


def over_seeds(values_SP: npt.ArrayLike) -> Combined:
    """Mean over run seeds and test problems, both a sample, and its 95 % interval: SE^2 = SE^2_problems + s^2_seeds / S.

    `values_SP` are accuracies or paired differences, seeds x problems: every seed answers the same problems. NaN entries
    are left out of the mean; errors come from the problems that every seed answered.

        SE^2_problems = variance over problems of (mean over seeds) / P
        s^2_seeds / S = max(0, variance of the S seed means / S - interaction / (P S))

    where the interaction is the mean square that is left when problem and seed means are taken off. Two-way random
    effects: with problem, seed and rest components a, b, e the mean has variance a/P + b/S + e/(P S), which this
    estimates without bias but for the cut at 0. (Per-seed standard errors in place of the first term, and the plain
    variance of seed means in place of the second, count e two to four times: 99.9 % coverage at twice the width.)

    Degrees of freedom: 1 / df = w / (S - 1) + (1 - w) / (P - 1), where w is the seeds' share of SE^2_problems + (variance
    of the seed means / S). Satterthwaite (1946) squares the shares of SE^2, which is right where they are known. Estimated
    from 3 seeds they are small just when the seeds lie together by chance and the interval is short already: he covers
    88-91 % where seeds make most of the variance, this 92-96 %. One seed: problems only, df = P - 1.

    Where all values are equal the interval is the exact bound of `_unmet`. No interval (NaN) below two common problems.
    """
    values_SP = np.asarray(values_SP, dtype=np.float64)
    whole_SP = values_SP[:, ~np.isnan(values_SP).any(axis=0)]
    delta = float(np.nanmean(values_SP, axis=1).mean()) if values_SP.size else math.nan
    problems = whole_SP.shape[1]
    if problems < 2:
        return Combined(delta, math.nan, math.nan, math.nan, math.nan)
    error = error_over_seeds(whole_SP)
    se = math.sqrt(error.from_problems + error.from_seeds)
    if np.ptp(whole_SP) == 0.0:
        return Combined(delta, *_unmet(delta, problems), se, error.df)
    half = student.quantile(0.975, error.df) * se
    return Combined(delta, delta - half, delta + half, se, error.df)


def rate_over_seeds(rates_SP: npt.ArrayLike) -> Combined:
    """`over_seeds` for a pass rate in 0..1: Student's t on the scale of its logit, which keeps the interval inside.

    On the rate's own scale, cut at 0, it covers 91 % at a rate of .03 on 60 problems and 88 % at .014; on this one 97 and 95 %
    ("level 5" of docs/calibration.md).
    Where all rates are equal a share u of problems, none met, could differ (`_unmet`) and have any rate. 0 to 1 below two
    common problems.
    """
    found = over_seeds(rates_SP)
    if math.isnan(found.low):
        return found._replace(low=0.0, high=1.0)
    if found.se == 0.0:
        u = 1.0 - 0.025 ** (1.0 / np.shape(rates_SP)[1])
        return found._replace(low=found.delta * (1.0 - u), high=found.delta + u * (1.0 - found.delta))
    spread = found.delta * (1.0 - found.delta)
    half = student.quantile(0.975, found.df) * found.se / spread
    odds = found.delta / (1.0 - found.delta)
    low, high = (odds * math.exp(sign * half) for sign in (-1.0, 1.0))
    return found._replace(low=low / (1.0 + low), high=high / (1.0 + high))


class SeedsError(NamedTuple):
    """The two parts of a squared standard error, and its degrees of freedom (`over_seeds`)."""

    from_problems: float
    from_seeds: float
    df: float


def error_over_seeds(whole_SP: Floats) -> SeedsError:
    """The error of the mean of values without gaps, two problems or more."""
    count, problems = whole_SP.shape
    mean_P, mean_S = whole_SP.mean(axis=0), whole_SP.mean(axis=1)
    from_problems = float(mean_P.var(ddof=1)) / problems
    if count == 1:
        return SeedsError(from_problems, 0.0, problems - 1.0)
    rest_SP = whole_SP - mean_P - (mean_S - mean_S.mean())[:, None]
    rest = float((rest_SP**2).sum()) / ((problems - 1) * (count - 1)) / (problems * count)
    seen = float(mean_S.var(ddof=1)) / count
    total = from_problems + seen
    share = seen / total if total > 0 else 0.0
    df = 1.0 / (share / (count - 1) + (1.0 - share) / (problems - 1))
    return SeedsError(from_problems, max(0.0, seen - rest), df)


def sign_flip_p(base_P: npt.ArrayLike, method_P: npt.ArrayLike, *, seed: int, draws: int = 10_000) -> float:
    """Two-sided paired permutation p-value of the mean difference: signs of the differences flipped by problem.

    Exact by enumeration while all 2^m flips of the m non-zero differences are no more than `draws`; otherwise
    (1 + hits) / (1 + draws), which is never zero (Phipson & Smyth 2010). 1 when nothing differs.
    """
    base_P, method_P = _paired(base_P, method_P)
    d_M = (method_P - base_P)[base_P != method_P]
    if d_M.size == 0:
        return 1.0
    # Accuracies are ratios: sums that are equal on paper differ in the last bits.
    threshold = abs(d_M.sum()) * (1.0 - 1e-9) - 1e-12
    if 2**d_M.size <= draws:
        flips_DM = 1.0 - 2.0 * (np.arange(2**d_M.size)[:, None] >> np.arange(d_M.size) & 1)
        return float(np.mean(np.abs(flips_DM @ d_M) >= threshold))
    rng, hits = seeds.generator(seed), 0
    for start in range(0, draws, _CHUNK):
        flips_DM = 1.0 - 2.0 * rng.integers(2, size=(min(_CHUNK, draws - start), d_M.size))
        hits += int(np.sum(np.abs(flips_DM @ d_M) >= threshold))
    return (1 + hits) / (1 + draws)


def gradient_signal(
    total_sq_norm: float, sub_sq_norms_S: Sequence[float], half_cosine: float | None = None
) -> GradientSignal:
    """Signal and noise of a gradient from S disjoint sub-batch gradients g_s of equal expectation.

    `total_sq_norm` = |sum_s g_s|^2 and `sub_sq_norms_S` = |g_s|^2, on one scale. With g_bar = sum_s g_s / S:

        g2                = (|sum g_s|^2 - sum |g_s|^2) / (S (S - 1))         unbiased for |E g_s|^2
        trace_cov_of_mean = (sum |g_s|^2 - |sum g_s|^2 / S) / (S (S - 1))     unbiased for tr Cov(g_bar)
        snr               = g2 / trace_cov_of_mean
        agreement         = g2 / (g2 + 2 trace_cov_of_mean), clipped to 0..1

    Halving a batch doubles the covariance of its mean, so `agreement` estimates the cosine between the gradients of
    two halves; `half_cosine` is that cosine as measured once, handed through. Sub-batches of unequal expectation
    (size, difficulty) count as noise. g2 and snr can come out negative: the signal is below the noise. Without any
    noise snr is infinite; without any gradient snr and agreement are None. All None below four sub-batches.
    """
    count = len(sub_sq_norms_S)
    if count < MIN_SUB_BATCHES:
        return GradientSignal(None, None, None, None, None)
    subs = math.fsum(sub_sq_norms_S)
    pairs = count * (count - 1)
    g2 = (total_sq_norm - subs) / pairs
    noise = max(0.0, (subs - total_sq_norm / count) / pairs)
    if subs == 0.0:
        return GradientSignal(g2, noise, None, None, half_cosine)
    snr = g2 / noise if noise > 0.0 else math.inf
    agreement = g2 / (g2 + 2.0 * noise) if g2 > 0.0 else 0.0
    return GradientSignal(g2, noise, snr, agreement, half_cosine)
