"""Which of p and N p orders gains: made-up gains whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from harness import seeds
from harness.passrates import ordering
from harness.passrates.ordering import Gain, curve

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
BUDGETS = (512, 2048, 8192)


def made(value: Callable[[float, int], float], *, noise: float = 0.0) -> list[Gain]:
    rng = seeds.generator(7)
    return [Gain(f"{p}", p, n, value(p, n) + noise * rng.standard_normal()) for p in RATES for n in BUDGETS]


def test_the_monotone_curve_pools_what_goes_down() -> None:
    x, y = np.array([3.0, 1.0, 2.0, 4.0, 4.0]), np.array([1.0, 0.0, 3.0, 5.0, 7.0])
    places, values = curve(x, y)
    assert places.tolist() == [1, 2, 3, 4]
    assert values.tolist() == [0, 2, 2, 6], "3 and 1 become their mean, and so do the two at one place"
    _, falling = curve(np.arange(4.0), np.array([4.0, 3.0, 2.0, 1.0]))
    assert falling.tolist() == [2.5] * 4


@pytest.mark.parametrize(("exponent", "words"), [(0.0, "p alone"), (1.0, "N p"), (0.5, "neither clearly")])
def test_gains_of_a_known_order_are_told(exponent: float, words: str) -> None:
    found = ordering.ordering(made(lambda p, n: 0.1 * math.log(p * n**exponent), noise=0.005))
    assert found is not None
    assert found.low <= exponent <= found.high
    assert abs(found.exponent - exponent) <= 0.1
    assert found.sentence.startswith(words)
    assert (found.points, found.bases) == (18, 6)
    assert (found.by_rate < found.by_correct) == (exponent < 0.5) or exponent == 0.5


def test_noise_is_ordered_by_neither() -> None:
    found = ordering.ordering(made(lambda *_: 0.0, noise=1.0))
    assert found is not None
    assert 0.025 < found.correct_better < 0.975
    assert min(found.by_rate, found.by_correct) > 0.8, "other bases predict nothing: no curve fits its own points here"
    assert found.high - found.low >= 0.5


def test_a_base_is_predicted_from_the_others_alone() -> None:
    """By hand: at p the curve through the others is 0 at .1 and 1 at .3, and flat outside."""
    gains = [Gain("a", 0.1, 512, 0.0), Gain("b", 0.2, 512, 0.9), Gain("c", 0.3, 512, 1.0)]
    found = ordering.errors(gains, 0.0)
    assert found["b"] == pytest.approx((0.9 - math.log(2) / math.log(3)) ** 2)
    assert found["a"] == pytest.approx(0.9**2)
    assert found["c"] == pytest.approx((1.0 - 0.9) ** 2)


def test_too_few_bases_or_equal_gains_have_no_answer() -> None:
    assert ordering.ordering(made(lambda *_: 0.0)) is None
    assert ordering.ordering(made(lambda p, _: p)[:9]) is None
    assert ordering.ordering([]) is None
    assert ordering.ordering([gain for gain in made(lambda p, _: p) if gain.budget == 512]) is None, "p and N p are one"
