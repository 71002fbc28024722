"""Within a run: gain by the base's pass rate of the test problem ("view 1").

Does: sort test problems into bins by the base's pass rate in draws of their own (purpose "bins"), and compare each
method with the base in every bin, on other draws.
Doesn't: correct a bin for the noise of the draws that made it: a bin is a set of problems, its rates are theirs. What a
problem's own pass rate does is break_even (within.py).

Why other draws: a problem put into the lowest bin by the draws it is scored on was partly unlucky there, and an unchanged
model would gain in that bin and lose in the highest.

Bins: pass rate 0, then up to .1, .25, .5, .75 and 1. A bin of fewer than FEWEST problems joins the next one (the last one
joins the one before). Where bins hold under 100 problems the interval is Student's t over problems ("too few").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness import leaderboard, stepping
from harness.passrates import outcomes
from harness.report.results import Results
from harness.types import Score

EDGES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
FEWEST = 20
VIEW = "a test problem's base pass rate, in 16 draws of its own"
Floats = npt.NDArray[np.float64]


class Bin(NamedTuple):
    """Problems at `places` whose base pass rate is above `low` (None: from 0 on) and at most `high`."""

    low: float | None
    high: float
    places: npt.NDArray[np.int64]

    @property
    def label(self) -> str:
        if self.high == 0.0:
            return "0"
        return f"0 to {self.high:g}" if self.low is None else f"above {self.low:g} to {self.high:g}"


class BinRow(NamedTuple):
    """One method in one bin, over seeds. Rates and gain are means over problems; ci_* is the gain's 95 % interval.

    `base_*` and the plain names after `too_few` are shares of completions by outcome (outcomes.py), NaN where the run is
    too old to tell.
    """

    method: str
    bin: str
    problems: int
    seeds: int
    base: float
    rate: float
    gain: float
    ci_low: float
    ci_high: float
    too_few: bool
    base_wrong: float
    base_unparsed: float
    base_timeout: float
    base_error: float
    base_truncated: float
    wrong: float
    unparsed: float
    timeout: float
    error: float
    truncated: float


def bins(sorting: Score, *, fewest: int = FEWEST) -> list[Bin]:
    """Bins of test problems by their pass rate in `sorting`; problems without a verdict there are in none."""
    rates_P = stepping.rates(sorting)
    lows: list[float | None] = [None, *EDGES[:-1]]
    made: list[Bin] = []
    for low, high in zip(lows, EDGES, strict=True):
        inside_P = (rates_P <= high) & (rates_P > (-1.0 if low is None else low))
        made.append(Bin(low, high, np.flatnonzero(inside_P)))
    return _merged(made, fewest)


def _merged(made: Sequence[Bin], fewest: int) -> list[Bin]:
    kept: list[Bin] = []
    for one in made:
        joins = kept and len(kept[-1].places) < fewest
        kept.append(_joined(kept.pop(), one) if joins else one)
    if len(kept) > 1 and len(kept[-1].places) < fewest:
        last = kept.pop()
        kept.append(_joined(kept.pop(), last))
    return [one for one in kept if one.places.size]


def _joined(lower: Bin, upper: Bin) -> Bin:
    return Bin(lower.low, upper.high, np.sort(np.concatenate([lower.places, upper.places])))


def rows(found: Results) -> list[BinRow]:
    """Every method in every bin, the base first; empty where the base's draws for bins are missing."""
    sorting = found.finished["base", 0].evaluation.bins
    if sorting is None:
        return []
    base_counts, made = outcomes.counts(found, "base"), bins(sorting)
    drawn = []
    for method in found.methods:
        pairs = [
            (found.finished["base", seed].evaluation.sampled, found.finished[method, seed].evaluation.sampled)
            for seed in found.seeds_of(method)
        ]
        counts = outcomes.counts(found, method)
        for one in made:
            shares = [*_shares(base_counts, one), *_shares(counts, one)]
            drawn.append(BinRow(found.label(method), one.label, *_compared(pairs, one), *shares))
    return drawn


def _compared(
    pairs: Sequence[tuple[Score, Score]], one: Bin
) -> tuple[int, int, float, float, float, float, float, bool]:
    """(problems, seeds, base, rate, gain, ci_low, ci_high, too_few)."""
    base_SP = np.array([stepping.rates(base)[one.places] for base, _ in pairs])
    method_SP = np.array([stepping.rates(method)[one.places] for _, method in pairs])
    gain = leaderboard.compared(base_SP, method_SP)
    rates = float(np.nanmean(base_SP)), float(np.nanmean(method_SP))
    return len(one.places), len(pairs), *rates, gain.delta, gain.ci_low, gain.ci_high, gain.too_few


def _shares(counts: outcomes.Counts | None, one: Bin) -> list[float]:
    return [float("nan")] * 5 if counts is None else list(counts.shares(one.places)[1:])
