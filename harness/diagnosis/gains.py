"""The gain a line promises at its first step, and the gain it gave: first order against measured accuracy.

Does: the slope of the pass rate of the selection problems along a direction, <grad J, d>, with its standard error over
parts of them; step x slope beside the paired gain of every candidate of the search over its zero step.
Doesn't: use the gradient that made the direction. That one is weighted by group-normalised advantages, so it is not the
gradient of the pass rate, and its noise points along d: the slope would come out too high. Fresh completions of the
selection problems, weighted leave-one-out (rloo: unbiased for the gradient of the pass rate at the sampling temperature),
know neither the training problems nor the draws that scored the candidates.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from harness import stats, stepping, student
from harness.diagnosis.noise import Floats
from harness.types import Score, Search


class Slope(NamedTuple):
    """Change of the pass rate for a unit of step, its standard error over problems, and its degrees of freedom."""

    value: float
    se: float
    df: int


def slope(along_S: Floats) -> Slope:
    """From the parts' inner products with the direction; the parts' gradients add up to that of all problems."""
    count = len(along_S)
    se = float(along_S.std(ddof=1)) * math.sqrt(count) if count > 1 else math.nan
    return Slope(float(along_S.sum()), se, count - 1)


def along(search: Search, found: Slope) -> list[dict[str, Any]]:
    """One row a candidate off the base: predicted and measured gain with 95 % intervals, and their ratio."""
    zero, rows = search.candidates[0], []
    margin = student.quantile(0.975, found.df) * found.se if found.df > 0 else math.nan
    for candidate in search.candidates[1:]:
        gain_P = _gains(zero.score, candidate.score)
        gain, error = float(np.mean(gain_P)), stats.clustered_se(gain_P)
        half = student.quantile(0.975, len(gain_P) - 1) * error if len(gain_P) > 1 else math.nan
        step, predicted = candidate.step, candidate.step * found.value
        rows.append(
            {
                "step": step, "kl": candidate.kl, "problems": len(gain_P),
                "predicted": predicted,
                "predicted_low": predicted - step * margin, "predicted_high": predicted + step * margin,
                "gain": gain, "gain_low": gain - half, "gain_high": gain + half,
                "realised": gain / predicted if predicted else math.nan,
            }
        )  # fmt: skip
    return rows


def _gains(zero: Score, own: Score) -> Floats:
    """On the problems that both met: a race gives every candidate the first ones."""
    met = min(len(zero.problem_ids), len(own.problem_ids))
    gain_P: Floats = stepping.rates(own)[:met] - stepping.rates(zero)[:met]
    return gain_P[~np.isnan(gain_P)]
