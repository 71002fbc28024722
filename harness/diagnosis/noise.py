"""Signal and noise of a gradient, from its sub-batches and from a second draw on the same problems.

Does: split tr Cov of a batch gradient into what differs between problems and what differs between completions of one
problem (McCandlish et al. 1812.06162, for prompts and rollouts); critical batch sizes; agreement of smaller batches,
measured and predicted; jackknife intervals over sub-batches.
Doesn't: compute a gradient. What it works on are inner products (products.py).

Let draw a and draw b be two batches on the same problems with independent completions, each cut by problem into the
same S parts; a_s and b_s are their gradient sums divided by the N rollouts of a whole draw, so that sum_s a_s is the
gradient of the draw. With A_s = S a_s and g = E A_s:

    |g|^2                            = E <A_s, A_r>, <B_s, B_r>, <A_s, B_r>     for s != r
    |g|^2 + S tr between             = E <A_s, B_s>                             same problems, other completions
    |g|^2 + S tr between + S tr within = E |A_s|^2, |B_s|^2

where tr between and tr within are the two parts of tr Cov(sum_s a_s). Parts hold the same mix of levels, so differences
between levels are not noise.

Where it departs from its source:
1. McCandlish's two-batch estimator needs two sizes of batch; here all pairs of sub-batches are used, and the same
   problems drawn twice tell the two kinds of noise apart without a model of either.
2. Batch sizes are counted in rollouts at the run's group size: that of the noise between problems would fall with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness import stats, student

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


class Draws(NamedTuple):
    """Inner products of the parts of draw a and draw b; axes before the last two are the caller's."""

    aa_SS: Floats
    ab_SS: Floats
    bb_SS: Floats

    @property
    def parts(self) -> int:
        return int(self.aa_SS.shape[-1])

    def only(self, keep: Places) -> Draws:
        return Draws(*(product_SS[..., keep, :][..., keep] for product_SS in self))


class Components(NamedTuple):
    """|g|^2, and the two parts of the trace of the covariance of one draw's gradient."""

    signal: Floats
    between: Floats
    within: Floats

    @property
    def noise(self) -> Floats:
        return self.between + self.within


class Estimate(NamedTuple):
    """Values with their standard errors and 95 % intervals (jackknife over sub-batches, Student's t)."""

    value: Floats
    se: Floats
    low: Floats
    high: Floats


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """NaN where the denominator, an estimate that noise may pull down, is not above 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def over_root(numerator: Floats, square: Floats) -> Floats:
    """`numerator` over the root of an estimated square; NaN where noise made that 0 or less."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(square > 0, numerator / np.sqrt(np.abs(square)), np.nan)


def components(draws: Draws, keep: Places | None = None) -> Components:
    """Unbiased estimates from the parts `keep` (all), for the gradient of a whole draw of S parts."""
    count = draws.parts
    aa, ab, bb = (product * count**2 for product in (draws if keep is None else draws.only(keep)))
    signal = (_apart(aa) + _apart(bb) + 2 * _apart(ab)) / 4
    same, total = _diagonal(ab), (_diagonal(aa) + _diagonal(bb)) / 2
    return Components(signal, (same - signal) / count, (total - same) / count)


def _diagonal(product_SS: Floats) -> Floats:
    mean: Floats = np.diagonal(product_SS, axis1=-2, axis2=-1).mean(-1)
    return mean


def _apart(product_SS: Floats) -> Floats:
    """The mean over pairs of different parts."""
    count = product_SS.shape[-1]
    if count < 2:
        return np.full(product_SS.shape[:-2], np.nan)
    mean: Floats = (product_SS.sum((-2, -1)) / count - _diagonal(product_SS)) / (count - 1)
    return mean


def jackknife(statistic: Callable[[Places], Floats], count: int, *, unbiased: bool = True) -> Estimate:
    """`statistic` of all `count` parts, its error from leaving each out in turn (Efron & Stein 1981).

    A ratio of unbiased estimates is itself biased by its noise, in proportion to 1 / count; with `unbiased` that is
    taken out as well (Quenouille 1956). Not so for what is meant to depend on the size of the batch: it would be
    carried on to an endless one. Below four parts there is neither error nor correction.
    """
    every = np.arange(count)
    value = np.asarray(statistic(every), dtype=np.float64)
    if count < stats.MIN_SUB_BATCHES:
        missing = np.full_like(value, np.nan)
        return Estimate(value, missing, missing, missing)
    left_out_S = np.array([statistic(np.delete(every, part)) for part in every])
    mean = left_out_S.mean(0)
    se = np.sqrt((count - 1) / count * ((left_out_S - mean) ** 2).sum(0))
    told = np.where(np.isnan(mean), value, count * value - (count - 1) * mean) if unbiased else value
    half = student.quantile(0.975, count - 1) * se
    return Estimate(told, se, told - half, told + half)


def scale(draws: Draws, rollouts: int) -> dict[str, float]:
    """SNR and noise scale of a draw of `rollouts`; `critical` is the batch, in rollouts, at which noise equals signal.

    `attenuation`, the root of SNR / (1 + SNR), is what noise multiplies a cosine of the gradient with, on average.
    `between_share` is the part of the noise that more completions of the same problems would not remove.
    """
    found, count = components(draws), draws.parts
    snr = jackknife(lambda keep: _snr(components(draws, keep)), count)
    share = jackknife(lambda keep: _between_share(components(draws, keep)), count)
    return {
        "signal": float(found.signal), "noise_between": float(found.between), "noise_within": float(found.within),
        **_told("snr", snr), **_told("between_share", share),
        "attenuation": float(over_root(found.signal, found.signal * (found.signal + found.noise))),
        "critical": _critical(rollouts, snr.value),
        "critical_low": _critical(rollouts, snr.high), "critical_high": _critical(rollouts, snr.low),
        "critical_between": rollouts * float(ratio(found.between, found.signal)),
        "critical_within": rollouts * float(ratio(found.within, found.signal)),
    }  # fmt: skip


def _snr(found: Components) -> Floats:
    return ratio(found.signal, found.noise)


def _between_share(found: Components) -> Floats:
    return ratio(found.between, found.noise)


def _told(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: float(estimate.value), f"{name}_low": float(estimate.low), f"{name}_high": float(estimate.high)}


def _critical(rollouts: int, snr: Floats) -> float:
    """Infinite where the signal is not told from zero."""
    if math.isnan(snr):
        return math.nan
    return rollouts / float(snr) if snr > 0 else math.inf


def agreement(draws: Draws, rollouts: int) -> list[dict[str, float]]:
    """Cosines of the gradients of N/8, N/4 and N/2 rollouts of draw a: with a disjoint batch of that size, and with
    the whole draw, each measured over all such batches and predicted from signal and noise."""
    found, rows = components(draws), []
    for parts in _sizes(draws.parts):
        dots_BB = _blocks(draws.aa_SS, parts)
        blocks = len(dots_BB)
        squares_B = np.diag(dots_BB)
        disjoint = over_root(dots_BB, np.outer(squares_B, squares_B))[np.triu_indices(blocks, 1)]
        whole_B = over_root(dots_BB.sum(1), squares_B * dots_BB.sum())
        there, here = found.signal + found.noise, found.signal + found.noise * blocks
        rows.append(
            {
                "rollouts": rollouts / blocks, "batches": float(blocks),
                "cosine": float(disjoint.mean()), "lowest": float(disjoint.min()), "highest": float(disjoint.max()),
                "predicted": float(ratio(np.maximum(found.signal, 0.0), here)),
                "with_whole": float(whole_B.mean()), "with_whole_predicted": math.sqrt(float(ratio(there, here))),
            }
        )  # fmt: skip
    return rows


def _sizes(parts: int) -> list[int]:
    return [parts // share for share in (8, 4, 2) if parts % share == 0]


def _blocks(dots_SS: Floats, parts: int) -> Floats:
    """Inner products of the sums of `parts` consecutive parts."""
    blocks = len(dots_SS) // parts
    summed: Floats = dots_SS.reshape(blocks, parts, blocks, parts).sum((1, 3))
    return summed
