"""The break-even, in both views, in worlds where the curve of gains over pass rates is known.

Does: list the cases, with truths by enumeration.
Doesn't: measure them (coverage.py). Truths, spreads and widths are those of log p.

Across runs: worlds from .9 down to .003 whose policies follow a direction with noise in proportion to 1 / sqrt(p). In the
world with a threshold a seed takes its step with a chance p^2 / (p^2 + .05^2) and stays at the base otherwise, so gains
vanish faster than p and seeds differ most where it matters. With one seed a run the truth is still that of all seeds: the
interval is not held to it.

Within a run: pass rates of problems as beta distributions give them, and five levels, as no beta distribution does. With
one seed the truth is that of the policy it trained.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.calibration import worlds
from benchmarks.calibration.coverage import WIDEST, Case, Measured
from benchmarks.calibration.intervals import BINS, HARD, MIXED, score
from benchmarks.calibration.worlds import Floats, World
from harness.passrates import across, crossing, within
from harness.passrates.across import Point
from harness.passrates.crossing import DELTA, EVERYWHERE, NOWHERE, BreakEven

RATES = (0.9, 0.6, 0.3, 0.15, 0.08, 0.03, 0.01, 0.003)
SPREAD, GROUPS, PROBLEMS = 2.2, 256, 300
DRAWS = 300  # of a bootstrap: the harness takes 2,000 across runs and 400 within one
FIVE = (0.6, 0.3, 0.1, 0.03, 0.01)


def cases() -> Iterator[Case]:
    for threshold, name in ((0.0, "smooth"), (0.05, "threshold")):
        truth, places = _truth(threshold), [dial(rate, threshold) for rate in RATES]
        for run_seeds in (1, 3, 5):
            setting = f"{name}, {len(RATES)} runs of {run_seeds} seed{'s' if run_seeds > 1 else ''}"
            replicate = functools.partial(_across, places, run_seeds=run_seeds)
            yield Case(
                "break-even across runs",
                setting,
                truth,
                replicate,
                run_seeds > 1,
                WIDEST if run_seeds > 3 else math.inf,
            )
    kinds = (("mixed", worlds.ladder(*MIXED)), ("hard", worlds.ladder(*HARD)), ("five levels", np.array(FIVE)))
    for name, rates_C in kinds:
        whole = worlds.world(rates_C, step=0.03, noise=0.5, policies=60)
        for run_seeds in (1, 3, 5):
            place = whole if run_seeds > 1 else World(whole.base, whole.trained[:1])
            truth = _first(place.base.strict[::-1], place.gains[::-1]) if name == "five levels" else _first_of(place)
            setting = f"{name}, {PROBLEMS} problems, {run_seeds} seed{'s' if run_seeds > 1 else ''}"
            replicate = functools.partial(_within, place, run_seeds=run_seeds)
            yield Case(
                "break-even within a run", setting, truth, replicate, widest=math.inf if run_seeds == 3 else WIDEST
            )


@functools.cache
def dial(rate: float, threshold: float) -> World:
    """A world of this mean pass rate; its policies meet the same noise at every rate."""
    place = worlds.world(worlds.ladder(rate, SPREAD), step=0.08, noise=0.3 / math.sqrt(rate), policies=150)
    stepping = round(len(place.trained) * rate**2 / (rate**2 + threshold**2))
    still = len(place.trained) - stepping
    return World(place.base, (*place.trained[:stepping], *[place.base] * still))


def _truth(threshold: float) -> float:
    places = [dial(float(rate), threshold) for rate in np.geomspace(0.01, 0.15, 15)]
    rates_K = np.array([place.base.strict.mean() for place in places])
    return _first(rates_K, np.array([place.gains.mean() for place in places]))


def _first_of(place: World) -> float:
    order_C = place.base.strict.argsort()
    return _first(place.base.strict[order_C], place.gains[order_C])


def _first(rates_K: Floats, gains_K: Floats) -> float:
    return math.log(crossing.first_crossings(rates_K[None], gains_K[None], DELTA)[0])


def _across(places: Sequence[World], rng: np.random.Generator, *, run_seeds: int) -> Measured:
    points = [_point(place, rng, run_seeds, str(k)) for k, place in enumerate(places)]
    return _measured(across.break_even(points, seed=int(rng.integers(2**40)), draws=DRAWS))


def _point(place: World, rng: np.random.Generator, run_seeds: int, test: str) -> Point:
    """A run: its own training problems in every seed, test problems that the seeds share."""
    tested = worlds.run(place, rng, problems=PROBLEMS, run_seeds=run_seeds, common=False)
    classes_SP = rng.integers(len(place.base.strict), size=(run_seeds, GROUPS))
    batch_SP = rng.binomial(BINS, place.base.strict[classes_SP]) / BINS
    error = float(batch_SP.std()) / math.sqrt(batch_SP.size)
    return Point(float(batch_SP.mean()), tested.method_SP - tested.base_SP, test, error)


def _within(place: World, rng: np.random.Generator, *, run_seeds: int) -> Measured:
    tested = worlds.run(place, rng, problems=PROBLEMS, run_seeds=run_seeds, common=False)
    sorting = score(rng.binomial(BINS, place.base.strict[tested.classes_P]))
    gains_SP, seed = tested.method_SP - tested.base_SP, int(rng.integers(2**40))
    (found,) = within.of_problems(sorting, gains_SP, seed=seed, draws=DRAWS)
    return _measured(found)


def _measured(found: BreakEven) -> Measured:
    """In logs of p; a censored end is as far as pass rates were seen."""
    at = {EVERYWHERE: found.lowest, NOWHERE: math.inf}.get(found.outcome, found.at)
    ends = max(found.low, found.lowest), min(found.high, found.highest)
    return Measured(math.log(at), *map(math.log, ends))
