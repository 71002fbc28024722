"""A race of candidates over blocks of problems, so that most rollouts go to those that may win.

Does: plan rounds in which fewer and fewer candidates meet more and more problems, and say who stays.
Doesn't: draw, or choose the winner (stepping.py).

Successive halving (Jamieson & Talwalkar 2016) with two departures:
1. Candidates meet the same problems with the same draws, so they are compared by paired differences.
2. The first candidate, the zero step, stays while it is not clearly behind: "nothing helps" must be able to win.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness import stats, stepping

# Share of the problems met by the end of a round, and share of the candidates that are in it.
ROUNDS = ((0.25, 1.0), (0.5, 0.5), (1.0, 0.25))
CLEARLY = 2.0  # standard errors behind the leader at which the zero step is given up


class Round(NamedTuple):
    """`candidates` meet the problems from `start` to `stop`."""

    start: int
    stop: int
    candidates: int


def first(problems: int) -> int:
    """How many problems the first round has."""
    return max(1, round(ROUNDS[0][0] * problems))


def plan(candidates: int, problems: int) -> list[Round]:
    """The rounds of a race; with the default grid they cost half of scoring every candidate on every problem."""
    stops = [max(1, round(share * problems)) for share, _ in ROUNDS]
    fields = [max(min(2, candidates), math.ceil(share * candidates)) for _, share in ROUNDS]
    starts = [0, *stops[:-1]]
    return [Round(*bounds) for bounds in zip(starts, stops, fields, strict=True) if bounds[1] > bounds[0]]


def cost(candidates: int, problems: int) -> int:
    """Problems met, summed over candidates."""
    return sum((r.stop - r.start) * r.candidates for r in plan(candidates, problems))


def sizes(selection: int, candidates: int, *, problems: int, samples: int) -> tuple[int, int]:
    """(problems, samples) of a race that costs at most `selection` rollouts, at most those asked for."""
    share = cost(candidates, problems) / (candidates * problems)
    problems, samples = stepping.selection_sizes(int(selection / share), candidates, problems=problems, samples=samples)
    while cost(candidates, problems) * samples > selection:
        problems -= 1
    return problems, samples


def stay(rates: Sequence[npt.NDArray[np.float64]], field: int, *, first: bool) -> list[int]:
    """Places, in order, of the `field` candidates that go on; `rates` are their accuracies by problem.

    `first` says that the first of them is the zero step. A problem without a verdict (NaN) is left out of a mean.
    """
    means = np.array([np.nanmean(r) if not np.isnan(r).all() else -1.0 for r in rates])
    order = sorted(range(len(rates)), key=lambda i: (-means[i], i))
    kept = order[:field]
    if first and 0 not in kept and not _clearly_behind(rates[0], rates[order[0]]):
        kept[-1] = 0
    return sorted(kept)


def _clearly_behind(own_P: npt.NDArray[np.float64], best_P: npt.NDArray[np.float64]) -> bool:
    difference_P = best_P - own_P
    difference_P = difference_P[~np.isnan(difference_P)]
    return len(difference_P) > 1 and bool(difference_P.mean() > CLEARLY * stats.clustered_se(difference_P))
