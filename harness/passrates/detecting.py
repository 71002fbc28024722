"""What a run could have seen: the smallest gain that it would declare, from its own paired standard error.

Does: turn a standard error with its degrees of freedom into a minimum detectable effect and the power at any gain.
Doesn't: take the observed gain into account ("observed power" would only say the p-value again).

A gain is declared when its 95 % interval lies above 0. A true gain equal to the minimum detectable effect, t(.975, df)
times the standard error, is declared in half of all such runs, a smaller one less often.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness import stats, student

Floats = npt.NDArray[np.float64]


class Detectable(NamedTuple):
    """`effect` in pass rate (.03 is 3 points); `power_at_twice` the chance to declare a true gain of twice that."""

    effect: float
    se: float
    df: float
    power_at_twice: float

    @property
    def words(self) -> str:
        return f"this run could not have seen a gain below {100 * self.effect:.1f} points"


def detectable(gains_SP: Floats) -> Detectable:
    """From method minus base, seeds x problems (NaN without a verdict).

    NaN with fewer than two problems, and where all gains are equal: no spread tells of an error.
    """
    known = gains_SP[~np.isnan(gains_SP)]
    if known.size == 0 or np.ptp(known) == 0.0:
        return Detectable(*[math.nan] * 4)
    found = stats.over_seeds(gains_SP)
    effect = student.quantile(0.975, found.df) * found.se
    return Detectable(effect, found.se, found.df, power(2 * effect, found.se, found.df))


def power(gain: float, se: float, df: float) -> float:
    """The chance that a true `gain` is declared: that Student's t lies above t(.975, df) - gain / se."""
    return student.cdf(gain / se - student.quantile(0.975, df), df)
