"""Pass rates behind counts: the beta distribution fitted to them, and the dead groups that it expects.

Does: maximum likelihood of a beta-binomial by a grid that zooms in; expectations under it (NumPy alone).
Doesn't: give intervals, or read what was counted.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def expected_dead_share(correct_P: npt.ArrayLike, n: npt.ArrayLike, group: int) -> float:
    """Mean over problems of E[(1-p)^G + p^G] when p follows the beta-binomial fitted to `correct_P` of `n` draws.

    The draws must be independent of the groups whose death is predicted. Maximum likelihood over (mean, correlation)
    on a grid that zooms in. All-or-nothing counts have no interior maximum: every group is then dead, 1.0.
    NaN without problems; ValueError when n < 2, where correlation and mean cannot be told apart.
    """
    c_P, n_P = np.broadcast_arrays(np.atleast_1d(correct_P), np.atleast_1d(n))
    if c_P.size == 0:
        return math.nan
    if np.any(n_P < 2) or np.any(c_P < 0) or np.any(c_P > n_P):
        raise ValueError("expected_dead_share needs 0 <= correct <= n and n >= 2 for every problem")
    if np.all((c_P == 0) | (c_P == n_P)):
        return 1.0
    alpha, beta = fit(c_P, n_P)
    none = _log_rising(beta, group) - _log_rising(alpha + beta, group)
    every = _log_rising(alpha, group) - _log_rising(alpha + beta, group)
    return float(np.exp(none) + np.exp(every))


class Beta(NamedTuple):
    """The two parameters of a beta distribution; counts add to them: p given c of n is Beta(alpha + c, beta + n - c)."""

    alpha: float
    beta: float


def fit(c_P: npt.NDArray[np.int64], n_P: npt.NDArray[np.int64]) -> Beta:
    """Maximum likelihood for the pass rates behind counts, over (mean, correlation) on a grid that zooms in.

    Counts that are all 0 or all n have no interior maximum, and end at an edge of the grid.
    """
    cells, weights_U = np.unique(np.stack([c_P, n_P]), axis=1, return_counts=True)
    centre, width = np.zeros(2), 12.0
    for _ in range(12):
        axis = np.linspace(-width, width, 25)
        mean, corr = np.meshgrid(_sigmoid(centre[0] + axis), _sigmoid(centre[1] + axis), indexing="ij")
        alpha, beta = mean * (1 - corr) / corr, (1 - mean) * (1 - corr) / corr
        sums = loglik(alpha[..., None], beta[..., None], *cells) @ weights_U
        i, j = np.unravel_index(int(np.argmax(sums)), sums.shape)
        centre, width = centre + np.array([axis[i], axis[j]]), width / 4
    return Beta(float(alpha[i, j]), float(beta[i, j]))


def loglik(alpha: Floats, beta: Floats, c_U: npt.NDArray[np.int64], n_U: npt.NDArray[np.int64]) -> Floats:
    """Log-likelihood of each count under each (alpha, beta), without the binomial coefficient; the last axis is U."""
    parts = [
        _log_rising(alpha[..., 0], int(c))
        + _log_rising(beta[..., 0], int(n - c))
        - _log_rising((alpha + beta)[..., 0], int(n))
        for c, n in zip(c_U, n_U, strict=True)
    ]
    return np.stack(parts, axis=-1)


def _log_rising(x: Floats | float, k: int) -> Floats:
    """log x (x+1) ... (x+k-1): the ratio of gamma functions without cancellation."""
    logs: Floats = np.log(np.asarray(x)[..., None] + np.arange(k)).sum(axis=-1)
    return logs


def _sigmoid(x: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-x))
