"""What a report claims beside its intervals: better or not, nothing gained in a bin, what a run could have seen, regret.

Does: count how often a claim is made where it is true and where it is not.
Doesn't: cover truths with intervals (coverage.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.calibration import intervals, worlds
from benchmarks.calibration.intervals import BINS, MIXED, gain, score, world
from benchmarks.calibration.worlds import Chances, Floats, World
from harness import seeds, stepping
from harness.passrates import binning, detecting, losing
from harness_engines.tabular_policy import exact_kl, expected_direction, tables_for

PROBLEMS = 300
LINE = (0.0, 0.04, 0.05, 0.06, 0.07, 0.08, 0.1)  # relative steps, as near to each other as their scores are to noise


class Claim(NamedTuple):
    """`value` with the standard error of the simulation; `demanded` in words (empty: a contrast), `holds` whether it is met."""

    claim: str
    setting: str
    value: float
    error: float
    demanded: str
    holds: bool


def claims(replicates: int) -> Iterator[Claim]:
    yield from nothing(replicates)
    yield from unchanged(replicates)
    yield from twice(replicates)
    yield from regrets(max(50, replicates // 5))


def _share(
    claim: str, setting: str, hits: int, of: int, *, at_most: float | None = None, at_least: float = 0.0
) -> Claim:
    bound = at_least if at_most is None else at_most
    error = math.sqrt(bound * (1 - bound) / of)
    value = hits / of
    holds = value >= bound - 2 * error if at_most is None else value <= bound + 2 * error
    return Claim(claim, setting, value, error, f"at {'least' if at_most is None else 'most'} {bound:.0%}", holds)


def nothing(replicates: int) -> Iterator[Claim]:
    """The base against itself on draws of their own: on the same draws its gain is exactly 0 and nothing is claimed."""
    place = world(MIXED, step=0.0)
    for run_seeds, problems in ((1, 100), (1, 300), (3, 300)):
        rng = seeds.generator(seeds.seed_for(0, f"nothing {run_seeds} {problems}"))
        found = [
            gain(worlds.run(place, rng, problems=problems, run_seeds=run_seeds, common=False))
            for _ in range(replicates)
        ]
        better = sum(one.low > 0 for one in found)
        setting = f"{run_seeds} seed{'s' if run_seeds > 1 else ''}, {problems} problems"
        yield _share("a method that does nothing is declared better", setting, better, replicates, at_most=0.05)


def unchanged(replicates: int) -> Iterator[Claim]:
    """Gains of the base over itself in bins by draws of their own, and, for contrast, by the draws that are scored."""
    place, rng = world(MIXED, step=0.0), seeds.generator(seeds.seed_for(0, "unchanged"))
    gains: dict[str, list[float]] = {}
    better: dict[str, int] = {}
    wrongly = []
    for _ in range(replicates):
        tested = worlds.run(place, rng, problems=PROBLEMS, common=False)
        for one in binning.bins(score(rng.binomial(BINS, place.base.strict[tested.classes_P]))):
            found = gain(intervals.at(tested, one.places))
            gains.setdefault(one.label, []).append(found.estimate)
            better[one.label] = better.get(one.label, 0) + (found.low > 0)
        own = binning.bins(score((4 * tested.base_SP[0]).round().astype(np.int64), drawn=4))
        wrongly.append(gain(intervals.at(tested, own[0].places)).estimate)
    for label, values in gains.items():
        if len(values) < replicates / 2:  # bins that were merged in most replicates
            continue
        mean, error = float(np.mean(values)), float(np.std(values)) / math.sqrt(len(values))
        yield Claim("gain of an unchanged model", f"bin {label}", mean, error, "0", abs(mean) <= 3 * error)
        yield _share("unchanged, declared better", f"bin {label}", better[label], len(values), at_most=0.05)
    mean, error = float(np.mean(wrongly)), float(np.std(wrongly)) / math.sqrt(len(wrongly))
    yield Claim("the same, binned by the scored draws", f"bin {own[0].label}", mean, error, "", mean > 3 * error)


def twice(replicates: int) -> Iterator[Claim]:
    """Worlds whose true gain is twice what such a run declares at least."""
    for run_seeds in (1, 3):
        place, effect = _twice(run_seeds)
        rng = seeds.generator(seeds.seed_for(0, f"twice {run_seeds}"))
        runs = [worlds.run(place, rng, problems=PROBLEMS, run_seeds=run_seeds, common=False) for _ in range(replicates)]
        hits = sum(gain(tested).low > 0 for tested in runs)
        setting = f"{run_seeds} seed{'s' if run_seeds > 1 else ''}, {PROBLEMS} problems, detectable {effect:.3f}"
        yield _share("twice the detectable gain is declared", setting, hits, replicates, at_least=0.8)


def _twice(run_seeds: int) -> tuple[World, float]:
    """By halving the step: gains grow faster than their errors."""
    low, high = 0.0, 0.2
    for _ in range(7):
        step = (low + high) / 2
        place = worlds.world(worlds.ladder(*MIXED), step=step, noise=0.5, policies=40)
        rng = seeds.generator(seeds.seed_for(0, "detectable"))
        runs = [worlds.run(place, rng, problems=PROBLEMS, run_seeds=run_seeds, common=False) for _ in range(20)]
        effect = float(np.mean([detecting.detectable(one.method_SP - one.base_SP).effect for one in runs]))
        low, high = (step, high) if place.gains.mean() < 2 * effect else (low, step)
    return place, effect


def regrets(replicates: int) -> Iterator[Claim]:
    """Candidates on one line; the search took the third, then the best."""
    steps = [worlds.world(worlds.ladder(*MIXED), step=step, noise=3.0, policies=1).trained[0] for step in LINE]
    means_K = np.array([policy.strict.mean() for policy in steps])
    for chosen in (2, int(means_K.argmax())):
        rng, found, naive = seeds.generator(seeds.seed_for(0, f"regret {chosen}")), [], []
        for _ in range(replicates):
            rates_KP = _line(steps, rng)
            found.append(losing.regret(rates_KP, chosen, splits=10).value)
            naive.append(float(rates_KP.mean(axis=1).max() - rates_KP[chosen].mean()))
        truth = float(means_K.max() - means_K[chosen])
        mean, error = float(np.mean(found)), float(np.std(found)) / math.sqrt(replicates)
        setting = f"true regret {truth:.3f}"
        yield Claim("search regret", setting, mean, error, "no more than the truth", mean <= truth + 2 * error)
        mean, error = float(np.mean(naive)), float(np.std(naive)) / math.sqrt(replicates)
        yield Claim("the same by the plain maximum", setting, mean, error, "", mean > truth + 2 * error)


def _line(steps: list[Chances], rng: np.random.Generator) -> Floats:
    classes_P = rng.integers(40, size=PROBLEMS)
    return np.array([worlds.draw(policy, classes_P, rng.random((2, PROBLEMS, 4))).strict_P for policy in steps])


class Modelled(NamedTuple):
    """Gains of the best step along a direction of some noise, by enumeration: means over `DIRECTIONS` of them."""

    world: str
    snr: float
    noiseless: float
    noisy: float
    model: float


DIRECTIONS = 4
KLS = (0.04, 0.16, 0.64)


def modelled() -> Iterator[Modelled]:
    """What losing.modelled_clean says of the noiseless direction, beside what it is."""
    for name, rates in (("five levels", (0.6, 0.3, 0.1, 0.03, 0.01)), ("hard levels", (0.1, 0.05, 0.02, 0.01, 0.003))):
        base, levels = tables_for(rates), list(range(1, len(rates) + 1))
        direction = expected_direction(base, levels, group=16, scheme="grpo")
        noiseless = _best(base, direction, 0.0, levels, 0)
        for snr in (9.0, 4.0, 1.0, 0.25):
            noisy = float(np.mean([_best(base, direction, snr**-0.5, levels, k) for k in range(DIRECTIONS)]))
            one = np.ones((1, 1))
            clean = losing.modelled_clean(0 * one, noisy * one, one, [snr])
            assert clean is not None
            yield Modelled(name, snr, noiseless, noisy, float(clean[0, 0]))


def _best(
    base: dict[str, torch.Tensor], direction: dict[str, torch.Tensor], noise: float, levels: list[int], number: int
) -> float:
    """The largest gain at one of KLS along the direction with noise."""
    rng, line = seeds.generator(seeds.seed_for(1, "policy", sample_idx=number)), {}
    for name, table in base.items():
        other = torch.from_numpy(rng.standard_normal(table.shape))
        unit = direction[name] / direction[name].norm() + noise * other / other.norm()
        line[name] = table.norm() * unit / unit.norm()
    solved = stepping.solve_steps(
        lambda step: exact_kl(base, _moved(base, line, step), levels), KLS, direction_norm=1.0, weight_norm=4.0
    )
    start = worlds.chances(base).strict.mean()
    return float(max(worlds.chances(_moved(base, line, one.step)).strict.mean() - start for one in solved))


def _moved(base: dict[str, torch.Tensor], line: dict[str, torch.Tensor], step: float) -> dict[str, torch.Tensor]:
    return {name: table + step * line[name] for name, table in base.items()}
