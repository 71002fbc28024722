"""The intervals a report prints of rates and gains, in worlds where the truth is known.

Does: list the cases: pass rates, gains of one and several seeds, in bins, by level, judged leniently.
Doesn't: measure them (coverage.py).

Settings are held to 93-98 % and a width of 1.3 where there are 100 problems and 20 expected successes. Three seeds are
not held to the width: where seeds differ, Student's t with two degrees of freedom is 1.94 times as wide as the spread,
whatever is done. Two are held to nothing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from math import comb

import numpy as np

from benchmarks.calibration import worlds
from benchmarks.calibration.coverage import WIDEST, Case, Measured
from benchmarks.calibration.worlds import Floats, Tested, World
from harness import stats
from harness.passrates import binning
from harness.report import levels
from harness.types import Score

MIXED, HARD = (0.27, 2.2), (0.07, 2.2)  # mean of the pass rates, and alpha + beta of their beta distribution
DRAWS = 1000  # of a bootstrap: the harness takes 10,000
BINS = 16


@functools.cache
def world(kind: tuple[float, float], *, step: float, noise: float = 0.0) -> World:
    return worlds.world(worlds.ladder(*kind), step=step, noise=noise, policies=300 if noise else 1)


def cases() -> Iterator[Case]:
    yield from rates()
    yield from one_seed()
    yield from several_seeds()
    yield from in_bins()
    yield from by_level()


def rates() -> Iterator[Case]:
    for name, kind, problems in (("mixed", MIXED, 100), ("mixed", MIXED, 300), ("hard", HARD, 400)):
        base = world(kind, step=0.0)
        replicate = functools.partial(_rate, base, problems=problems)
        yield Case("pass rate of the base", f"{name}, {problems} problems", _mean(base.base.strict), replicate)


def _mean(rates_C: Floats) -> float:
    return float(rates_C.mean())


def _rate(place: World, rng: np.random.Generator, *, problems: int) -> Measured:
    tested = worlds.run(place, rng, problems=problems)
    return Measured(*levels.interval(tested.base_SP))


def gain(tested: Tested, *, lenient: bool = False) -> Measured:
    """As leaderboard.compared has it, without its p-value."""
    base_SP = tested.base_free_SP if lenient else tested.base_SP
    method_SP = tested.method_free_SP if lenient else tested.method_SP
    if len(base_SP) > 1:
        several = stats.over_seeds(method_SP - base_SP)
        return Measured(several.delta, several.low, several.high)
    one = stats.paired_bootstrap(base_SP[0], method_SP[0], seed=0, draws=DRAWS)
    return Measured(one.delta, one.low, one.high, one.too_few)


def one_seed() -> Iterator[Case]:
    """`common`: base and method meet the same uniform numbers, as on the tabular engine; of a large model little is left
    of that after the first token that differs."""
    for name, kind in (("mixed", MIXED), ("hard", HARD)):
        for step in (0.02, 0.2):
            for problems, common in ((100, False), (300, False), (300, True)):
                place = world(kind, step=step)
                truth = _mean(place.gains)
                drawn = "common draws" if common else "own draws"
                setting = f"{name}, gain {truth:.3f}, {problems} problems, {drawn}"
                held = problems * (_mean(place.base.strict) + truth) >= stats.FEW_OUTCOMES
                yield Case("gain, one seed", setting, truth, _gain(place, problems, 1, common), held)
    place = world(MIXED, step=0.05)
    truth = _mean(place.trained[0].free - place.base.free)
    replicate = _gain(place, 300, 1, True, lenient=True)
    yield Case("gain in format_free, one seed", "mixed, 300 problems, common draws", truth, replicate)


def _gain(
    place: World, problems: int, run_seeds: int, common: bool, *, lenient: bool = False
) -> Callable[[np.random.Generator], Measured]:
    def replicate(rng: np.random.Generator) -> Measured:
        tested = worlds.run(place, rng, problems=problems, run_seeds=run_seeds, common=common)
        return gain(tested, lenient=lenient)

    return replicate


def several_seeds() -> Iterator[Case]:
    """`share`: of the variance of the estimate, what differs between seeds makes."""
    for noise, lenient in ((0.0, False), (1.0, False), (2.0, False), (1.0, True)):
        place = world(MIXED, step=0.05, noise=noise)
        trained = np.array([policy.free if lenient else policy.strict for policy in place.trained])
        gains_SC = trained - (place.base.free if lenient else place.base.strict)
        for run_seeds in (2, 3, 5):
            setting = f"{run_seeds} seeds that differ by {gains_SC.mean(axis=1).std():.3f}, 300 problems, own draws"
            name = "gain in format_free, several seeds" if lenient else "gain, several seeds"
            replicate = _gain(place, 300, run_seeds, False, lenient=lenient)
            yield Case(name, setting, _mean(gains_SC), replicate, run_seeds > 2, WIDEST if run_seeds > 3 else math.inf)


def in_bins() -> Iterator[Case]:
    place = world(MIXED, step=0.05)
    for problems in (300, 1200):
        for low, high in zip((None, *binning.EDGES[:-1]), binning.EDGES, strict=True):
            chances_C = np.array([chance(p, low, high) for p in place.base.strict])
            truth = float(chances_C @ place.gains / chances_C.sum())
            expected = problems * float(chances_C.mean())
            solved = problems * float((chances_C * place.trained[0].strict).mean())
            held = expected >= stats.FEW_PROBLEMS and solved >= stats.FEW_OUTCOMES
            label = binning.Bin(low, high, np.empty(0, np.int64)).label
            replicate = functools.partial(_in_bin, place, problems=problems, low=low, high=high)
            yield Case("gain in a bin", f"pass rate {label}, about {expected:.0f} problems", truth, replicate, held)


def chance(p: float, low: float | None, high: float) -> float:
    """That 16 draws put a problem of pass rate p into the bin above `low`, up to `high`."""
    inside = [k for k in range(BINS + 1) if (low is None or k / BINS > low) and k / BINS <= high]
    return float(sum(comb(BINS, k) * p**k * (1 - p) ** (BINS - k) for k in inside))


def _in_bin(place: World, rng: np.random.Generator, *, problems: int, low: float | None, high: float) -> Measured:
    tested = worlds.run(place, rng, problems=problems, common=False)
    sorting = score(rng.binomial(BINS, place.base.strict[tested.classes_P]))
    places = next(one.places for one in binning.bins(sorting, fewest=0) if (one.low, one.high) == (low, high))
    return gain(at(tested, places))


def at(tested: Tested, places: worlds.Ints) -> Tested:
    """The problems at `places` alone."""
    return Tested(tested.classes_P[places], *(rates_SP[:, places] for rates_SP in tested[1:]))


def score(correct_P: worlds.Ints, *, drawn: int = BINS) -> Score:
    """Counts of right answers of `drawn` draws a problem."""
    correct = tuple(int(c) for c in correct_P)
    shares = {"format": 1.0, "truncated": 0.0, "unparsed": 0.0, "timeouts": 0.0}
    names = tuple(map(str, range(len(correct))))
    return Score(
        problem_ids=names, n=(drawn,) * len(correct), correct=correct, correct_free=correct, errors=0, **shares
    )


def by_level() -> Iterator[Case]:
    """A level is a fifth of the classes, by pass rate."""
    whole = world(MIXED, step=0.05)
    for level, problems in ((1, 60), (3, 60), (3, 120), (5, 60), (5, 120)):
        own = slice(40 - 8 * level, 48 - 8 * level)
        place = World(_only(whole.base, own), (_only(whole.trained[0], own),))
        truth = _mean(place.trained[0].strict)
        held = problems >= stats.FEW_PROBLEMS and problems * truth >= stats.FEW_OUTCOMES
        replicate = functools.partial(_level, place, problems=problems)
        yield Case("pass rate by level", f"level {level}, {problems} problems", truth, replicate, held)


def _only(policy: worlds.Chances, own: slice) -> worlds.Chances:
    return worlds.Chances(policy.style_CS[own], policy.right_CS[own])


def _level(place: World, rng: np.random.Generator, *, problems: int) -> Measured:
    return Measured(*levels.interval(worlds.run(place, rng, problems=problems).method_SP))
