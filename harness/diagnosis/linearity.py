"""How straight the way of a trainer is: weights, log-probabilities and displacements against the step.

Does: R^2 of every weight against the step, by tensor (2601.04537: over 70 % of weights above .7); R^2 of teacher-forced
log-probabilities of fixed completions; the share of the first singular value in the stacked displacements and how
linear it is in the step (2605.21468).
Doesn't: take these numbers for evidence of a line. A walk without any drift has them too: the first squared singular
value of a long random walk holds 8 / pi^2 = .81 of all, and the momentum of AdamW makes walks smoother still. The figures of
AdamW on pure noise over the same steps (`of_noise`) stand beside every measured one.

Where it departs from its sources:
1. The base is a point of every regression, at step 0.
2. Weights that never moved have no R^2 and are counted apart; log-probabilities have one only where they moved by more
   than .01 nats, since a certain token moves by rounding.
3. Shares are of squared singular values, uncentred, of displacements from the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness import seeds
from harness.contracts import Optimizer
from harness.diagnosis import products
from harness.diagnosis.noise import Floats
from harness.diagnosis.products import Vector

LINEAR = 0.7
MOVED = 0.01  # nats
BINS = 20
COORDINATES = 20_000  # simulated weights


def r2(values_KX: Floats, steps_K: Sequence[float]) -> Floats:
    """Of a straight line through each column, by least squares; NaN for a column that is constant."""
    x_K = np.asarray(steps_K, dtype=np.float64) - np.mean(steps_K)
    y_KX = values_KX - values_KX.mean(0)
    spread_X = (y_KX**2).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread_X > 0, (x_K @ y_KX) ** 2 / ((x_K @ x_K) * spread_X), np.nan)


def of_weights(moved: Sequence[Vector], steps: Sequence[int]) -> list[dict[str, Any]]:
    """For each tensor, and last for "all": weights, how many moved, the share of these above .7, and their R^2 in bins.

    `moved` are displacements from the base at `steps`.
    """
    counts: dict[str, Floats] = {}
    sizes: dict[str, int] = {}
    for part in products.slices(moved):
        found_X = r2(np.vstack([np.zeros_like(part.values_VX[:1]), part.values_VX]), [0, *steps])
        counts[part.tensor] = counts.get(part.tensor, 0.0) + _binned(found_X)
        sizes[part.tensor] = sizes.get(part.tensor, 0) + part.values_VX.shape[1]
    rows = [_weights_row(name, sizes[name], counts[name]) for name in counts]
    return [*rows, _weights_row("all", sum(sizes.values()), sum(counts.values(), np.zeros(BINS)))]


def _weights_row(name: str, size: int, counts: Floats) -> dict[str, Any]:
    return {"tensor": name, "weights": size, "moved": int(counts.sum()), **_shares(counts)}


def _binned(r2_X: Floats) -> Floats:
    bins, _ = np.histogram(r2_X[~np.isnan(r2_X)], bins=BINS, range=(0.0, 1.0))
    return bins.astype(np.float64)


def _shares(bins: Floats) -> dict[str, Any]:
    """The share of weights in each bin of R^2, and above LINEAR, which is the edge of a bin."""
    shares = bins / bins.sum() if bins.sum() else np.full(BINS, np.nan)
    return {"linear_share": float(shares[round(LINEAR * BINS) :].sum()), "bins": shares.tolist()}


def of_logprobs(logprobs_KX: Floats, steps: Sequence[int]) -> dict[str, float]:
    """`logprobs_KX`: at the base and at `steps`, one column a token or completion."""
    kept_KX = logprobs_KX[:, np.ptp(logprobs_KX, axis=0) > MOVED]
    found_X = r2(kept_KX, [0, *steps])
    share = float((found_X > LINEAR).mean()) if found_X.size else float("nan")
    median = float(np.median(found_X)) if found_X.size else float("nan")
    return {"columns": logprobs_KX.shape[1], "moved": found_X.size, "linear_share": share, "median": median}


def rank_one(dots_KK: Floats) -> float:
    """The first squared singular value's share of all, for vectors with these inner products."""
    values = np.linalg.eigvalsh(dots_KK)
    return float(values[-1] / values.sum()) if values.sum() > 0 else float("nan")


def first_component(dots_KK: Floats) -> Floats:
    """Coordinates of the displacements on their first right singular vector, the last one positive."""
    values, vectors = np.linalg.eigh(dots_KK)
    along_K: Floats = vectors[:, -1] * np.sqrt(max(values[-1], 0.0))
    return along_K * (1.0 if along_K[-1] >= 0 else -1.0)


def of_displacements(dots_KK: Floats, steps: Sequence[int]) -> dict[str, float]:
    """Rank-one share, R^2 of the first component against the step, and |last| over the length of the way."""
    along_K = first_component(dots_KK)
    from_origin = np.zeros((len(dots_KK) + 1, len(dots_KK) + 1))
    from_origin[1:, 1:] = dots_KK
    pieces = [np.sqrt(_square(from_origin, i)) for i in range(len(dots_KK))]
    straight = float(np.sqrt(dots_KK[-1, -1]) / sum(pieces)) if sum(pieces) > 0 else float("nan")
    line = r2(np.concatenate([[0.0], along_K])[:, None], [0, *steps])
    return {"rank_one_share": rank_one(dots_KK), "first_r2": float(line[0]), "straightness": straight}


def _square(dots: Floats, i: int) -> float:
    return max(0.0, float(dots[i + 1, i + 1] - 2 * dots[i, i + 1] + dots[i, i]))


def of_noise(steps: Sequence[int]) -> dict[str, Any]:
    """What the figures above are when AdamW follows nothing but noise, white and of one size, seen at the same steps."""
    (mean_decay, square_decay), epsilon = Optimizer(lr=1.0).betas, 1e-12
    generator = seeds.generator(seeds.seed_for(0, "adam on noise"))
    mean_X, square_X, place_X, seen = np.zeros(COORDINATES), np.zeros(COORDINATES), np.zeros(COORDINATES), []
    for step in range(1, steps[-1] + 1):
        noise_X = generator.standard_normal(COORDINATES)
        mean_X = mean_decay * mean_X + (1 - mean_decay) * noise_X
        square_X = square_decay * square_X + (1 - square_decay) * noise_X**2
        size_X = np.sqrt(square_X / (1 - square_decay**step)) + epsilon
        place_X = place_X + mean_X / (1 - mean_decay**step) / size_X
        if step in steps:
            seen.append(place_X)
    places_KX = np.stack(seen)
    found_X = r2(np.vstack([np.zeros(COORDINATES), places_KX]), [0, *steps])
    return {**_shares(_binned(found_X)), **of_displacements(places_KX @ places_KX.T, steps)}
