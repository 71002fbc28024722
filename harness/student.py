"""Student's t distribution: its cdf and quantiles, for real and infinite degrees of freedom.

Does: evaluate the regularised incomplete beta function and invert it, with the standard library alone.
Doesn't: know what is tested.
"""

from __future__ import annotations

import functools
import math
from statistics import NormalDist


@functools.lru_cache(maxsize=4096)
def quantile(q: float, df: float) -> float:
    """The q quantile of Student's t with `df` > 0 degrees of freedom, real or infinite; by bisection of the cdf."""
    if not (0.0 < q < 1.0 and df > 0.0):
        raise ValueError(f"a t quantile needs 0 < q < 1 and df > 0, got {q} and {df}")
    if q < 0.5:
        return -quantile(1.0 - q, df)
    if df > 1e6:
        return NormalDist().inv_cdf(q)
    low, high = 0.0, 1.0
    while cdf(high, df) < q:
        high *= 2.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if cdf(middle, df) < q else (low, middle)
    return (low + high) / 2


def cdf(t: float, df: float) -> float:
    """P(T <= t): 1 - I_x(df/2, 1/2) / 2 with x = df / (df + t^2) for t >= 0, else by symmetry."""
    if t < 0:
        return 1.0 - cdf(-t, df)
    if df > 1e6:
        return NormalDist().cdf(t)
    return 1.0 - 0.5 * _incomplete_beta(df / (df + t * t), df / 2, 0.5)


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised I_x(a, b) by Lentz's continued fraction (DLMF 8.17.22), used on its fast side."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(1.0 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    fraction, c, d = 1.0, 1.0, 0.0
    for i in range(100_000):
        m = i // 2
        if i == 0:
            term = 1.0
        elif i % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1.0 / _away_from_zero(1.0 + term * d)
        c = _away_from_zero(1.0 + term / c)
        fraction *= c * d
        if abs(1.0 - c * d) < 1e-15:
            break
    return front * (fraction - 1.0)


def _away_from_zero(value: float) -> float:
    return value if abs(value) > 1e-300 else 1e-300
