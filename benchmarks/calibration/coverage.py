"""How often an interval covers a truth that is known, and how wide it is.

Does: repeat a run that is drawn, not made, and compare its interval with the truth by enumeration.
Doesn't: know which interval; the cases are in intervals.py and breaking.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from harness import seeds

LOW, HIGH, WIDEST = 0.93, 0.98, 1.3


class Measured(NamedTuple):
    """An estimate with its interval. NaN estimates (no crossing seen) count for coverage and not for spread."""

    estimate: float
    low: float
    high: float
    too_few: bool = False


class Case(NamedTuple):
    """One interval in one setting. `held`: coverage of LOW to HIGH is demanded of it, and a width of `widest`."""

    interval: str
    setting: str
    truth: float
    replicate: Callable[[np.random.Generator], Measured]
    held: bool = True
    widest: float = WIDEST


class Coverage(NamedTuple):
    """`below` and `above`: shares of replicates whose interval lies below and above the truth. `width` is the mean width
    over what 3.92 standard deviations of the estimates give; `bias` is in such standard deviations."""

    interval: str
    setting: str
    truth: float
    replicates: int
    coverage: float
    below: float
    above: float
    width: float
    bias: float
    too_few: float
    held: bool
    widest: float
    seconds: float

    @property
    def error(self) -> float:
        """Binomial standard error of a coverage of 95 % with as many replicates."""
        return math.sqrt(0.95 * 0.05 / self.replicates)

    @property
    def holds(self) -> bool:
        """Not outside of LOW to HIGH by more than two standard errors of the simulation, and no wider than WIDEST."""
        inside = LOW - 2 * self.error <= self.coverage <= HIGH + 2 * self.error
        return inside and self.width <= self.widest


def measure(case: Case, replicates: int) -> Coverage:
    """Every replicate is a new run, test problems and all."""
    rng, started = seeds.generator(seeds.seed_for(0, f"{case.interval}, {case.setting}")), time.process_time()
    found = np.array([tuple(case.replicate(rng)) for _ in range(replicates)], dtype=np.float64)
    estimates_R, low_R, high_R, few_R = found.T
    known_R = np.isfinite(estimates_R)
    spread = float(estimates_R[known_R].std(ddof=1))
    return Coverage(
        interval=case.interval,
        setting=case.setting,
        truth=case.truth,
        replicates=replicates,
        coverage=float(np.mean((low_R <= case.truth) & (case.truth <= high_R))),
        below=float(np.mean(high_R < case.truth)),
        above=float(np.mean(low_R > case.truth)),
        width=float(np.mean(high_R[known_R] - low_R[known_R])) / (3.92 * spread),
        bias=float(estimates_R[known_R].mean() - case.truth) / spread,
        too_few=float(few_R.mean()),
        held=case.held,
        widest=case.widest,
        seconds=time.process_time() - started,
    )
