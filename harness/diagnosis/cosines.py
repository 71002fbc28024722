"""Cosines of a one-shot gradient with the way a trainer went, as measured and with the noise taken out.

Does: from inner products (products.py) of the parts of two draws, of base weights and of displacements
D_t = theta_t - theta_0, cosines overall and by tensor, with jackknife errors; cosines of any two vectors that exist more
than once, corrected by what their copies share.
Doesn't: read a file, or take a preconditioner off a displacement: kinds of direction are what a displacement is compared
with.

With g_hat = g + e, E e = 0 and e independent of D, E <g_hat, D> = <g, D> while E |g_hat|^2 = |g|^2 + tr Cov(e): noise
attenuates a cosine by sqrt(SNR / (1 + SNR)), SNR = |g|^2 / tr Cov(e). So the corrected cosine with a given D is
<g_hat, D> over |D| and the root of an unbiased |g|^2. What may count as noise depends on whose D it is:

- A trainer of another seed met other problems: all of e is independent of its D. g is then the gradient over all
  problems, |g|^2 comes from pairs of different parts.
- A trainer of the same seed met the same problems, and its first batch even the same completions. What the batch has of its
  own problems is no noise there. g is then the gradient on these very problems: draw b, whose completions the
  trainer never met, gives the numerator, and its square norm, less the noise within problems, |g|^2.

The two differ by the noise between problems, which the second keeps in g. Neither takes out the noise in D itself: the
trainer is asked about as it ran. `both` does, where there are two seeds: cosines with the expected displacement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from harness.diagnosis import noise
from harness.diagnosis.noise import Draws, Estimate, Floats, Places
from harness.diagnosis.products import Products

Statistic = Callable[[Places], Floats]


class View(NamedTuple):
    """Inner products by tensor: parts with parts, parts with displacements, and squared norms."""

    draws: Draws  # of axes T, S, S
    ad_TSD: Floats
    bd_TSD: Floats
    dd_TD: Floats
    weights_T: Floats  # |theta_t|^2

    @property
    def parts(self) -> int:
        return self.draws.parts


class Cosine(NamedTuple):
    """`measured` with the error of the gradient's noise in it, and `corrected`; each holds one value a displacement."""

    measured: Estimate
    corrected: Estimate


def view(products: Products, moved: Sequence[str], *, parts: int) -> View:
    """`products` hold a0.., b0.. (the parts), theta (the base weights), and the displacements named `moved`."""
    a, b = (products.places([f"{draw}{part}" for part in range(parts)]) for draw in "ab")
    d, dots = products.places(moved), products.dots_TVV
    (theta,) = products.places(["theta"])
    draws = Draws(*(dots[:, left][:, :, right] for left, right in ((a, a), (a, b), (b, b))))
    return View(draws, dots[:, a][:, :, d], dots[:, b][:, :, d], dots[:, d, d], dots[:, theta, theta])


def overall(seen: View, *, same: bool, balanced: bool = False) -> Cosine:
    """Cosines over all tensors; `same` problems or not, as explained above.

    `balanced` is the direction per_tensor: each tensor's gradient at unit norm times |theta_t|.
    """

    def measured(keep: Places) -> Floats:
        dots_TD, squares_T = seen.ad_TSD[:, keep].sum(1), seen.draws.only(keep).aa_SS.sum((1, 2))
        return _joined(seen, dots_TD, squares_T, balanced=balanced)

    def corrected(keep: Places) -> Floats:
        return _joined(seen, *_true(seen, keep, same=same), balanced=balanced)

    return _estimated(measured, corrected, seen.parts, same=same)


def by_tensor(seen: View, *, same: bool) -> Cosine:
    """As `overall`, tensor by tensor: axes T, D."""

    def measured(keep: Places) -> Floats:
        squares_T = seen.draws.only(keep).aa_SS.sum((1, 2))
        return noise.over_root(seen.ad_TSD[:, keep].sum(1), squares_T[:, None] * seen.dd_TD)

    def corrected(keep: Places) -> Floats:
        dots_TD, squares_T = _true(seen, keep, same=same)
        return noise.over_root(dots_TD, squares_T[:, None] * seen.dd_TD)

    return _estimated(measured, corrected, seen.parts, same=same)


def _estimated(measured: Statistic, corrected: Statistic, parts: int, *, same: bool) -> Cosine:
    """On the same problems g is theirs, however few: only over all problems is there a limit to correct towards."""
    return Cosine(
        noise.jackknife(measured, parts, unbiased=False), noise.jackknife(corrected, parts, unbiased=not same)
    )


def _true(seen: View, keep: Places, *, same: bool) -> tuple[Floats, Floats]:
    """Unbiased <g, D> and |g|^2 by tensor, on the scale of a whole draw.

    Numerator and norm are of the same completions, so that chance in the length of a gradient cancels.
    """
    count, kept = seen.parts, len(keep)
    draws = seen.draws.only(keep)
    if same:
        aa_T, ab_T, bb_T = (np.diagonal(product, axis1=1, axis2=2).sum(1) for product in draws)
        squares_T = draws.bb_SS.sum((1, 2)) - ((aa_T + bb_T) / 2 - ab_T)
        return seen.bd_TSD[:, keep].sum(1) * (count / kept), squares_T * (count / kept) ** 2
    dots_TD = (seen.ad_TSD + seen.bd_TSD)[:, keep].mean(1) * (count / 2)
    return dots_TD, noise.components(seen.draws, keep).signal


def _joined(seen: View, dots_TD: Floats, squares_T: Floats, *, balanced: bool) -> Floats:
    lengths_D = seen.dd_TD.sum(0)
    if not balanced:
        return noise.over_root(dots_TD.sum(0), squares_T.sum() * lengths_D)
    found_T = squares_T > 0  # a tensor whose gradient is all noise has no direction to go
    scale_T = np.sqrt(seen.weights_T[found_T] / squares_T[found_T])
    dots_D: Floats = (scale_T[:, None] * dots_TD[found_T]).sum(0)
    return noise.over_root(dots_D, seen.weights_T[found_T].sum() * lengths_D)


def cosine(dots_VV: Floats, left: int, right: int) -> float:
    return float(noise.over_root(dots_VV[left, right], dots_VV[left, left] * dots_VV[right, right]))


def corrected_by_copies(dots_VV: Floats, *, ours: Sequence[int], pairs: Sequence[tuple[int, int]], other: int) -> float:
    """Cosine of the mean direction behind the copies `ours` with the vector `other`, which is independent of them.

    `pairs` are copies with independent noise: their inner product has the squared norm of that mean for expectation.
    It holds for directions that are no linear function of a gradient, as the mean of which it then speaks.
    """
    square = np.mean([dots_VV[left, right] for left, right in pairs]) if pairs else np.nan
    return float(noise.over_root(dots_VV[ours, other].mean(), square * dots_VV[other, other]))


def both(dots_VV: Floats, copies: Sequence[Sequence[int]], moved: Sequence[int]) -> float:
    """Cosine of the mean direction with the mean displacement, over seeds (Spearman's correction for attenuation).

    `copies` holds the places of one seed's directions, `moved` those of its displacement: every product is of two
    seeds, so that all noise, of completions, problems and training, drops out of its expectation. NaN with one seed.
    """
    seeds = [(i, j) for i in range(len(moved)) for j in range(len(moved)) if i != j]
    if not seeds:
        return float("nan")
    crossed = np.mean([dots_VV[u, moved[j]] for i, j in seeds for u in copies[i]])
    own = np.mean([dots_VV[u, v] for i, j in seeds for u in copies[i] for v in copies[j]])
    way = np.mean([dots_VV[moved[i], moved[j]] for i, j in seeds])
    return float(noise.over_root(crossed, own * way)) if own > 0 else float("nan")


def row(estimates: Cosine, place: Any) -> dict[str, float]:
    """One displacement's numbers."""
    (measured, measured_se, *_), (corrected, corrected_se, low, high) = (
        [float(values[place]) for values in estimate] for estimate in estimates
    )
    return {
        "cosine": measured, "cosine_se": measured_se, "corrected": corrected, "corrected_se": corrected_se,
        "corrected_low": low, "corrected_high": high,
    }  # fmt: skip
