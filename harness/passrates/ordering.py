"""Which number orders gains: the pass rate p, the expected count of correct rollouts N p, or p N^a between them.

Does: predict the gains of one base from those of the others by a monotone curve in p N^a; compare the errors of several a.
Doesn't: read runs (report/low_rates.py), or say that gains are monotone: what no such curve predicts counts against all a alike.

What is ordered is the share of failures repaired, gain / (1 - pass rate): a gain itself must shrink towards p = 1. A base
is left out whole, with all its budgets, since its batches are beginnings of one another: a curve over N p has more
distinct places than one over p, and would fit its own points better by that alone. Outside the places it has seen a curve
is flat. Intervals resample bases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness import seeds
from harness.passrates.crossing import monotone

Floats = npt.NDArray[np.float64]
EXPONENTS = tuple(round(0.1 * i, 1) for i in range(16))  # of N: 0 is p alone, 1 is N p
RESAMPLES = 2000
MIN_BASES = 4


class Gain(NamedTuple):
    """One run: its base, the pass rate and number of rollouts of its batch, and the share of failures repaired."""

    base: str
    rate: float
    budget: int
    value: float


class Ordering(NamedTuple):
    """`by_rate` and `by_correct`: squared error of the predictions from p and from N p over the variance of the values.

    `correct_better`: share of resamples in which N p predicts better. `exponent`: the a whose p N^a predicts best, with
    the 95 % interval of resamples.
    """

    points: int
    bases: int
    by_rate: float
    by_correct: float
    correct_better: float
    exponent: float
    low: float
    high: float

    @property
    def sentence(self) -> str:
        words = (
            "N p" if self.correct_better > 0.975 else "p alone" if self.correct_better < 0.025 else "neither clearly"
        )
        return (
            f"{words}: predicted from other bases, a curve in p leaves {self.by_rate:.0%} of the variance, one in N p "
            f"{self.by_correct:.0%} (N p better in {self.correct_better:.0%} of resamples); best exponent of N "
            f"{self.exponent:.1f} [{self.low:.1f}, {self.high:.1f}] ({self.points} runs of {self.bases} bases)"
        )


def curve(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """The rising curve nearest to the points in squares: its distinct places and the values there."""
    places, inverse = np.unique(np.round(x, 9), return_inverse=True)
    weights = np.bincount(inverse).astype(np.float64)
    return places, monotone(np.bincount(inverse, weights=y) / weights, weights)


def errors(gains: Sequence[Gain], exponent: float) -> dict[str, float]:
    """By base: the squared errors of its values predicted from the other bases, summed."""
    x, y = _axis(gains, exponent), np.array([gain.value for gain in gains])
    names = np.array([gain.base for gain in gains])
    found = {}
    for base in dict.fromkeys(names.tolist()):
        own = names == base
        found[base] = float(np.square(y[own] - np.interp(x[own], *curve(x[~own], y[~own]))).sum())
    return found


def _axis(gains: Sequence[Gain], exponent: float) -> Floats:
    """The log of p N^a; a pass rate of 0 has none."""
    return np.array([math.log(gain.rate) + exponent * math.log(gain.budget) for gain in gains])


def ordering(gains: Sequence[Gain], *, seed: int = 0) -> Ordering | None:
    """None with fewer than MIN_BASES bases, with one budget, or where no value differs. Raises ValueError for a pass rate of 0."""
    bases = list(dict.fromkeys(gain.base for gain in gains))
    values = np.array([gain.value for gain in gains])
    if len(bases) < MIN_BASES or len({gain.budget for gain in gains}) == 1 or np.ptp(values) == 0.0:
        return None
    total = float(np.square(values - values.mean()).sum())
    found = [errors(gains, exponent) for exponent in EXPONENTS]
    errors_EB = np.array([[own[base] for base in bases] for own in found])
    drawn_RB = seeds.generator(seeds.seed_for(seed, "ordering")).integers(len(bases), size=(RESAMPLES, len(bases)))
    sums_ER = errors_EB[:, drawn_RB].sum(2)
    rate, correct = EXPONENTS.index(0.0), EXPONENTS.index(1.0)
    low, high = np.quantile(np.array(EXPONENTS)[sums_ER.argmin(0)], [0.025, 0.975])
    sums_E = errors_EB.sum(1)
    return Ordering(
        points=len(gains),
        bases=len(bases),
        by_rate=float(sums_E[rate]) / total,
        by_correct=float(sums_E[correct]) / total,
        correct_better=float(np.mean(sums_ER[correct] < sums_ER[rate])),
        exponent=EXPONENTS[int(sums_E.argmin())],
        low=float(low),
        high=float(high),
    )
