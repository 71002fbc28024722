"""Worlds whose truth is known: pass rates of a base and of trained policies by enumeration, and draws from them in bulk.

Does: tables of the tabular engine with many classes of problems; policies a step away from them, along the expected
policy gradient mixed with noise, one for each seed of a run; test draws as the engine makes them, two uniform numbers a
completion, a thousand times as fast.
Doesn't: run the harness: tests/test_calibration.py holds these draws to those of the engine.

A problem is a class drawn at random: the population of problems is the classes in equal parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from harness import seeds
from harness_engines.tabular_policy import Tables, expected_direction, log_probs, tables_for

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Chances(NamedTuple):
    """Of each class: the probability of each style, and of the right digit after it. Style 0 is the demanded one."""

    style_CS: Floats
    right_CS: Floats

    @property
    def strict(self) -> Floats:
        rates_C: Floats = self.style_CS[:, 0] * self.right_CS[:, 0]
        return rates_C

    @property
    def free(self) -> Floats:
        rates_C: Floats = (self.style_CS * self.right_CS).sum(axis=1)
        return rates_C


class World(NamedTuple):
    """The base, and a population of trained policies of which every run seed draws one."""

    base: Chances
    trained: tuple[Chances, ...]

    @property
    def gains(self) -> Floats:
        """The expected gain of each class, over the population of policies."""
        mean_C: Floats = np.mean([policy.strict for policy in self.trained], axis=0) - self.base.strict
        return mean_C


def ladder(mean: float, spread: float, *, classes: int = 40) -> Floats:
    """Pass rates of `classes` classes: quantiles of a beta distribution of this mean, and `spread` = alpha + beta."""
    rng = seeds.generator(seeds.seed_for(0, "ladder"))
    drawn = rng.beta(mean * spread, (1 - mean) * spread, size=50_000)
    return np.quantile(drawn, (np.arange(classes) + 0.5) / classes).clip(1e-4, 0.99)


def world(rates_C: Sequence[float] | Floats, *, step: float, noise: float, policies: int, seed: int = 0) -> World:
    """Policies at a relative distance `step`; `noise` is the length of the noise for a direction of length 1."""
    base = tables_for([float(rate) for rate in rates_C])
    direction = expected_direction(base, list(range(1, len(rates_C) + 1)), group=16, scheme="grpo")
    trained = []
    for number in range(policies):
        rng = seeds.generator(seeds.seed_for(seed, "policy", sample_idx=number))
        trained.append(chances(_stepped(base, direction, step, noise, rng)))
    return World(chances(base), tuple(trained))


def _stepped(base: Tables, direction: Tables, step: float, noise: float, rng: np.random.Generator) -> Tables:
    """Per tensor, as the default kind of direction is normalised."""
    moved = {}
    for name, table in base.items():
        other = torch.from_numpy(rng.standard_normal(table.shape))
        unit = direction[name] / direction[name].norm() + noise * other / other.norm()
        moved[name] = table + step * table.norm() * unit / math.sqrt(1 + noise**2)
    return moved


def chances(tables: Tables) -> Chances:
    found = log_probs(tables, 1.0)
    return Chances(found.style_CS.exp().numpy(), found.offset_CSM[:, :, 0].exp().numpy())


class Drawn(NamedTuple):
    """Accuracies by problem in the demanded format and leniently."""

    strict_P: Floats
    free_P: Floats


def draw(policy: Chances, classes_P: Ints, uniforms_2PN: Floats) -> Drawn:
    """The engine's completions for these uniform numbers, judged."""
    first_PN, second_PN = uniforms_2PN
    ends_PS = policy.style_CS[classes_P].cumsum(axis=1)
    style_PN = (first_PN[:, :, None] >= ends_PS[:, None, :-1]).sum(axis=2)
    right_PN = second_PN < policy.right_CS[classes_P[:, None], style_PN]
    return Drawn((right_PN & (style_PN == 0)).mean(axis=1), right_PN.mean(axis=1))


class Tested(NamedTuple):
    """A base and a method on the same test problems, seeds x problems."""

    classes_P: Ints
    base_SP: Floats
    method_SP: Floats
    base_free_SP: Floats
    method_free_SP: Floats


def run(
    place: World, rng: np.random.Generator, *, problems: int, run_seeds: int = 1, samples: int = 4, common: bool = True
) -> Tested:
    """One run: problems shared by all seeds, one trained policy for each. `common`: both sides meet the same uniforms."""
    classes_P = rng.integers(len(place.base.style_CS), size=problems)
    base, method = [], []
    for number in rng.integers(len(place.trained), size=run_seeds):
        uniforms = rng.random((2, problems, samples))
        base.append(draw(place.base, classes_P, uniforms))
        other = uniforms if common else rng.random((2, problems, samples))
        method.append(draw(place.trained[number], classes_P, other))
    sides = [
        np.array([getattr(one, kind) for one in side]) for kind in ("strict_P", "free_P") for side in (base, method)
    ]
    return Tested(classes_P, *sides)
