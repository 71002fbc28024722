"""Gradients of correct and of incorrect completions: are they as anti-parallel as noise allows?

Does: sum the scores of all correct and of all incorrect completions of a batch, dead groups included, without weights;
compare them by level and overall.
Doesn't: say anything about the verifier. The score has mean zero under the policy that drew, so of one problem
p E[score | correct] = -(1 - p) E[score | incorrect], whatever "correct" means, and the two sums have opposite
expectations (docs/design.md section 8). What is measured is noise, and whether trainer and sampler are one policy.

Every group is cut into two halves A, B. Given the problem they are independent, so with C the sum over correct and W that
over incorrect completions, products of two halves are free of noise:

    u = E <C_A, C_B> = E <W_A, W_B> = -E <C_A, W_B>,    E <C_A + W_A, C_B + W_B> = 0

and noise alone would make the cosine of the whole sums -4 u / (|C| |W|). Completions whose verifier failed are left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from harness.diagnosis import noise, products
from harness.diagnosis.noise import Floats, Places
from harness.diagnosis.parts import Groups, Judge
from harness.diagnosis.products import Vector
from harness.types import Outcome, Problem

PARTS = 8


class Counts(NamedTuple):
    """Completions by side; those whose verifier failed are on neither."""

    correct: int
    wrong: int


def _judge(half: int, correct: bool) -> Judge:
    """1 for the completions of one half and one side, nothing for others; a failed verifier is on neither side."""

    def judge(place: int, outcome: Outcome) -> float | None:
        own = place % 2 == half and outcome is not Outcome.ERROR and (outcome is Outcome.CORRECT) == correct
        return 1.0 if own else None

    return judge


SIDES = {
    "correctA": _judge(0, True), "correctB": _judge(1, True), "wrongA": _judge(0, False), "wrongB": _judge(1, False),
}  # fmt: skip


def levels(problems: Sequence[Problem]) -> dict[str, list[Problem]]:
    """In order; problems without a level are one."""
    found: dict[str, list[Problem]] = {}
    for problem in sorted(problems, key=lambda problem: problem.level or 0):
        found.setdefault("none" if problem.level is None else str(problem.level), []).append(problem)
    return found


def count(groups: Groups, problems: Sequence[Problem]) -> Counts:
    seen = Counter(outcome for problem in problems for outcome in groups[problem.id])
    return Counts(seen[Outcome.CORRECT], seen.total() - seen[Outcome.CORRECT] - seen[Outcome.ERROR])


def by_level(made: Mapping[str, Vector], counts: Mapping[str, Counts]) -> list[dict[str, Any]]:
    """A row a level, then all; `made` holds the gradients by level, side and part ("2/wrongB3")."""
    names, nothing = [f"{side}{part}" for side in SIDES for part in range(PARTS)], Vector(())
    by_name = {level: {name: made.get(f"{level}/{name}", nothing) for name in names} for level in counts}
    every = {name: Vector(tuple(path for own in by_name.values() for path in own[name].paths)) for name in names}
    total = Counts(sum(c.correct for c in counts.values()), sum(c.wrong for c in counts.values()))
    pairs = [(level, by_name[level], counts[level]) for level in by_name] if len(by_name) > 1 else []
    return [_row(level, own, counted) for level, own, counted in (*pairs, ("all", every, total))]


def _row(level: str, own: Mapping[str, Vector], counted: Counts) -> dict[str, Any]:
    rate = counted.correct / sum(counted) if sum(counted) else math.nan
    found = compare(products.multiply(own).total.reshape(4, PARTS, 4, PARTS)) if counted.correct else {}
    return {"level": level, **counted._asdict(), "pass_rate": rate, **found}


def compare(dots: Floats) -> dict[str, float]:
    """The figures of one level from inner products of axes side, part, side, part; sides in the order of SIDES."""
    parts = dots.shape[1]
    cosine = _cosine(_sums(dots, np.arange(parts)))
    corrected = noise.jackknife(lambda keep: _corrected(_sums(dots, keep)), parts)
    predicted = noise.jackknife(lambda keep: _predicted(_sums(dots, keep)), parts, unbiased=False)
    length = noise.jackknife(lambda keep: _length(_sums(dots, keep)), parts)
    return {
        "cosine": float(cosine), "noise_alone": float(predicted.value),
        "noise_alone_low": max(-1.0, float(predicted.low)), "noise_alone_high": min(1.0, float(predicted.high)),
        "corrected": float(corrected.value), "corrected_low": float(corrected.low), "corrected_high": float(corrected.high),
        "length_ratio": float(length.value), "length_ratio_low": float(length.low), "length_ratio_high": float(length.high),
        **_zero(dots),
    }  # fmt: skip


def _sums(dots: Floats, keep: Places) -> Floats:
    """4 x 4 products of the sides, over the parts `keep`."""
    summed: Floats = dots[:, keep][:, :, :, keep].sum((1, 3))
    return summed


def _whole(sums: Floats) -> tuple[Floats, Floats, Floats]:
    """<C, W>, |C|^2 and |W|^2 of whole groups."""
    return sums[:2, 2:].sum(), sums[:2, :2].sum(), sums[2:, 2:].sum()


def _cosine(sums: Floats) -> Floats:
    dot, correct, wrong = _whole(sums)
    return noise.over_root(dot, correct * wrong)


def _crossed(sums: Floats) -> Floats:
    """<C_A, W_B> and <W_A, C_B>, averaged."""
    crossed: Floats = (sums[0, 3] + sums[1, 2]) / 2
    return crossed


def _corrected(sums: Floats) -> Floats:
    correct, wrong = sums[0, 1], sums[2, 3]
    return noise.over_root(_crossed(sums), correct * wrong) if correct > 0 and wrong > 0 else np.asarray(np.nan)


def _predicted(sums: Floats) -> Floats:
    u = (sums[0, 1] + sums[2, 3] - 2 * _crossed(sums)) / 4
    _, correct, wrong = _whole(sums)
    return np.clip(noise.over_root(-4 * u, correct * wrong), -1.0, 1.0)


def _length(sums: Floats) -> Floats:
    """|E W| / |E C|: 1 for sums, hence p / (1 - p) for means over completions."""
    correct, wrong = sums[0, 1], sums[2, 3]
    return np.sqrt(noise.ratio(wrong, correct)) if wrong > 0 else np.asarray(np.nan)


def _zero(dots: Floats) -> dict[str, float]:
    """<C_A + W_A, C_B + W_B> as a share of u, and how many of its standard errors it is away from 0.

    Under mean-zero scores the products of single parts are uncorrelated and have mean 0: the squares add up.
    """
    parts = dots.shape[1]
    total_PP = dots[0::2, :, 1::2, :].sum((0, 2))
    sums = _sums(dots, np.arange(parts))
    u = float(sums[0, 1] + sums[2, 3] - 2 * _crossed(sums)) / 4
    total, error = float(total_PP.sum()), math.sqrt(float((total_PP**2).sum()))
    unit = u if u > 0 else math.nan
    return {"residual": total / unit, "residual_se": error / unit, "z": total / error if error else math.nan}
