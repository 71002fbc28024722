"""Where a gain first reaches a threshold as pass rates rise: the record of a break-even, in words, and the crossing itself.

Does: find the crossing on a curve known at some pass rates; say a break-even in words, censored ones too.
Doesn't: fit. The two views have modules of their own, and their pass rates are never mixed:

| view | p | a point is | function |
|---|---|---|---|
| across runs | the pass rate of a training batch (`batch_pass_rate`) | a run, over its seeds | across.break_even |
| within a run | the base's pass rate of one test problem | a test problem | within.break_even |
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

DELTA = 0.02
CROSSED, EVERYWHERE, NOWHERE = "crossed", "gains everywhere", "gains nowhere"
FLOOR = 0.1  # of p: where a method solves less than that of what the base does, its logit is taken there
_HALVINGS = 40
Floats = npt.NDArray[np.float64]


class CurvePoint(NamedTuple):
    """The fit at one pass rate: the method's pass rate and the gain, with the gain's 95 % interval."""

    rate: float
    method: float
    gain: float
    low: float
    high: float


class BreakEven(NamedTuple):
    """The pass rate below which the expected gain stays under `goal`; `view` says pass rate of what.

    `outcome` is one of CROSSED, EVERYWHERE, NOWHERE, of the pass rates `lowest` to `highest` that were seen. `at` is NaN
    unless crossed. `low` and `high` are a 95 % interval: 0 and infinity where it reaches below and above what was seen.
    """

    view: str
    goal: str
    outcome: str
    at: float
    low: float
    high: float
    lowest: float
    highest: float
    points: int
    curve: tuple[CurvePoint, ...]

    @property
    def words(self) -> str:
        seen = f"seen, {self.lowest:.3g} to {self.highest:.3g}"
        if self.outcome == EVERYWHERE:
            bound = f"above {self.highest:.3g}" if self.high == math.inf else f"{self.high:.3g}"
            unsure = f" (95 %: it may lie up to {bound})" if self.high > 0 else ""
            return f"{self.goal} is reached at every {self.view} {seen}: the break-even lies below {self.lowest:.3g}{unsure}"
        if self.outcome == NOWHERE:
            bound = f"below {self.lowest:.3g}" if self.low == 0 else f"{self.low:.3g}"
            unsure = f" (95 %: it may lie down to {bound})" if self.low < math.inf else ""
            return f"{self.goal} is reached at no {self.view} {seen}{unsure}"
        low = f"below {self.lowest:.3g}" if self.low == 0 else f"{self.low:.3g}"
        high = f"above {self.highest:.3g}" if self.high == math.inf else f"{self.high:.3g}"
        return f"{self.goal} is reached from a {self.view} of {self.at:.3g} on (95 %: {low} to {high})"


def concluded(
    view: str,
    goal: str,
    at: float,
    at_D: Floats,
    *,
    lowest: float,
    highest: float,
    points: int,
    curve: tuple[CurvePoint, ...],
) -> BreakEven:
    """From the crossing of the fit and those of its resamples (0: reached everywhere, infinite: nowhere)."""
    low, high = (float(q) for q in np.quantile(at_D, [0.025, 0.975], method="nearest"))
    outcome = EVERYWHERE if at == 0.0 else NOWHERE if at == math.inf else CROSSED
    return BreakEven(
        view, goal, outcome, at if outcome == CROSSED else math.nan, low, high, lowest, highest, points, curve
    )


def first_crossings(rates_DK: Floats, gains_DK: Floats, goals_DK: Floats | float) -> Floats:
    """For every draw the lowest p at which the gain reaches its goal; 0 where it does at the lowest, infinite if never.

    Between two points logit q is linear in logit p (q = p + gain), and so proportional to p where both are small; goals
    are linear in logit p. Pass rates ascend.
    """
    goals_DK = np.broadcast_to(goals_DK, gains_DK.shape)
    above_DK = gains_DK >= goals_DK
    k_D, found_D = above_DK.argmax(axis=1), np.where(above_DK.any(axis=1), 0.0, math.inf)
    inside = np.flatnonzero(k_D > 0)
    if inside.size:
        ends = [(inside, k_D[inside] - 1), (inside, k_D[inside])]
        found_D[inside] = _between(*([values[end] for end in ends] for values in (rates_DK, gains_DK, goals_DK)))
    return found_D


def _between(rates_2D: list[Floats], gains_2D: list[Floats], goals_2D: list[Floats]) -> Floats:
    """By halving: below the goal at the first end, at or above it at the second."""
    floors_2D = [np.clip(p + gain, FLOOR * p, 1 - 1e-6) for p, gain in zip(rates_2D, gains_2D, strict=True)]
    (x0, x1), (y0, y1), (goal0, goal1) = map(logit, rates_2D), map(logit, floors_2D), goals_2D
    low_D, high_D = np.zeros_like(goal0), np.ones_like(goal0)
    for _ in range(_HALVINGS):
        share_D = (low_D + high_D) / 2
        gain_D = expit(y0 + share_D * (y1 - y0)) - expit(x0 + share_D * (x1 - x0))
        under_D = gain_D < goal0 + share_D * (goal1 - goal0)
        low_D, high_D = np.where(under_D, share_D, low_D), np.where(under_D, high_D, share_D)
    return expit(x0 + high_D * (x1 - x0))


def monotone(values_K: Floats, weights_K: Floats) -> Floats:
    """The rising values nearest to these in weighted squares (pool adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values_K.tolist(), weights_K.tolist(), strict=True):
        total, mass, count = value * weight, weight, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / mass:
            more, heavier, others = blocks.pop()
            total, mass, count = total + more, mass + heavier, count + others
        blocks.append((total, mass, count))
    return np.repeat([total / mass for total, mass, _ in blocks], [count for _, _, count in blocks])


def logit(p: Floats) -> Floats:
    return np.log(p) - np.log1p(-p)


def expit(x: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-x))
