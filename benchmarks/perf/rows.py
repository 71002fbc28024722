"""What a measure gives: rows of ours against a peer; and the clock that all measures share.

Does: time two sides in turns, in CPU and wall seconds of the whole process tree, and give medians; say whether a row's
goal is met.
Doesn't: choose what is measured (one module each) or print (run.py).
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable
from typing import NamedTuple

from harness.budget import Stopwatch


class Row(NamedTuple):
    """One figure. `ratio` says how many times better ours is than the peer's (above 1 is better), NaN where there is
    no peer. `goal` is "" or a bound on one number of the row: "ratio >= 3" (short: ">= 3") or "ours <= 20".

    `note` says what the peer is and what else one must know to read the figure.
    """

    name: str
    ours: float
    peer: float
    unit: str
    ratio: float
    goal: str
    note: str


class Seconds(NamedTuple):
    """Of one piece of work: CPU (user and system, children included) and wall."""

    cpu: float
    wall: float


class Sides(NamedTuple):
    """Medians over the turns."""

    ours: Seconds
    peer: Seconds


def timed(work: Callable[[], object]) -> Seconds:
    watch = Stopwatch()
    work()
    cost = watch.cost()
    return Seconds(cost.cpu_seconds, cost.wall_seconds)


def interleaved(ours: Callable[[], object], peer: Callable[[], object], *, turns: int = 3) -> Sides:
    """Both sides in turns, so that what else runs on the machine meets both; the order changes every turn."""
    seen: dict[bool, list[Seconds]] = {True: [], False: []}
    for turn in range(turns):
        for first in (True, False):
            is_ours = first == (turn % 2 == 0)
            seen[is_ours].append(timed(ours if is_ours else peer))
    return Sides(_median(seen[True]), _median(seen[False]))


def _median(times: list[Seconds]) -> Seconds:
    return Seconds(statistics.median(t.cpu for t in times), statistics.median(t.wall for t in times))


def is_met(row: Row) -> bool | None:
    """Whether the goal is met; None without a goal. A NaN never meets one. Raises ValueError for a goal that is none."""
    if not row.goal:
        return None
    found = re.fullmatch(r"(?:(ratio|ours) )?(>=|<=) ?([\d.e+-]+)", row.goal)
    if found is None:
        raise ValueError(f'goal of {row.name}: "{row.goal}" is none; write "ratio >= 3" or "ours <= 20"')
    value, bound = (row.ours if found[1] == "ours" else row.ratio), float(found[3])
    return not math.isnan(value) and (value >= bound if found[2] == ">=" else value <= bound)
