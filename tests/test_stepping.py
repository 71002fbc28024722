"""The line search: steps for KL targets on known functions, sizes within budget, and the one-standard-error choice."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import seeds, stepping
from harness.types import Candidate, Policy, Score

TARGETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)


class Counted:
    """A KL function that counts its calls: each is a forward over the whole selection batch."""

    def __init__(self, function: Callable[[float], float]) -> None:
        self.function, self.steps = function, list[float]()

    def __call__(self, step: float) -> float:
        self.steps.append(step)
        return self.function(step)


def solve(function: Callable[[float], float], *, targets: Sequence[float] = TARGETS, unit: float = 10.0):
    kl = Counted(function)
    return stepping.solve_steps(kl, targets, direction_norm=2.0, weight_norm=2.0 * unit), kl


@given(exponent=st.floats(-4, 6))
def test_quadratic_kl_is_solved_exactly(exponent: float) -> None:
    c = 10.0**exponent / 100.0  # KL at |delta| = |theta| is 10**exponent
    solved, kl = solve(lambda a: c * a * a)
    reachable = [t for t in TARGETS if t <= 100 * c]
    assert [s.target for s in solved][: len(reachable)] == reachable[: len(solved)]
    assert len(solved) in (len(reachable), len([t for t in TARGETS if t * (1 - stepping.TOLERANCE) <= 100 * c]))
    for point in solved:
        assert point.kl == pytest.approx(c * point.step**2)
        assert abs(point.kl - point.target) <= stepping.TOLERANCE * point.target
    assert [s.step for s in solved] == sorted(s.step for s in solved)
    assert max(kl.steps) <= 10.0 * 1.03, "never far beyond |delta| = |theta|"
    assert len(kl.steps) <= 8 + 2 * len(TARGETS)


@pytest.mark.parametrize("power", [1.0, 1.5, 2.5, 4.0])
def test_other_powers_are_within_tolerance(power: float) -> None:
    solved, _ = solve(lambda a: (a / 5.0) ** power)
    assert [s.target for s in solved] == list(TARGETS)
    for point in solved:
        assert abs(point.kl - point.target) <= stepping.TOLERANCE * point.target


@pytest.mark.parametrize("top", [0.005, 0.03, 0.3, 0.5])
def test_saturating_kl_ends_the_list_where_it_saturates(top: float) -> None:
    """A target that no step reaches must not come back as a candidate of another KL."""
    solved, _ = solve(lambda a: top * (1.0 - math.exp(-(a * a))))
    assert [s.target for s in solved] == [t for t in TARGETS if t * (1 - stepping.TOLERANCE) <= top]
    for point in solved:
        assert abs(point.kl - point.target) <= stepping.TOLERANCE * point.target


@pytest.mark.parametrize("seed", range(8))
def test_noisy_kl_stays_near_its_targets(seed: int) -> None:
    """Rounding of weights makes KL uneven: 5 % of it changes from step to step, and there is a floor."""
    rng = seeds.generator(seed)
    solved, kl = solve(lambda a: 0.05 * a * a * float(np.exp(0.05 * rng.standard_normal())) + 1e-6)
    assert [s.target for s in solved] == list(TARGETS)
    for point in solved:
        assert abs(math.log(point.kl / point.target)) < 0.3
    assert len(kl.steps) <= 6 + stepping.MAX_REFINEMENTS * len(TARGETS)


def test_a_direction_that_changes_nothing_has_no_steps() -> None:
    solved, _ = solve(lambda a: 0.0)
    assert solved == []


def test_a_violent_direction_is_still_solved() -> None:
    solved, _ = solve(lambda a: 1e9 * a * a)
    assert [s.target for s in solved] == list(TARGETS)
    assert all(abs(s.kl - s.target) <= stepping.TOLERANCE * s.target for s in solved)


def test_targets_are_solved_in_ascending_order() -> None:
    solved, _ = solve(lambda a: a * a, targets=(0.5, 0.1, 0.3))
    assert [s.target for s in solved] == [0.1, 0.3, 0.5]


@given(
    selection=st.integers(1, 10_000),
    candidates=st.integers(1, 40),
    problems=st.integers(1, 400),
    samples=st.integers(1, 64),
)
def test_selection_stays_within_budget(selection: int, candidates: int, problems: int, samples: int) -> None:
    if selection < candidates:
        return
    p, s = stepping.selection_sizes(selection, candidates, problems=problems, samples=samples)
    assert 1 <= p <= problems
    assert 1 <= s <= samples
    assert p * s * candidates <= selection


def test_the_default_budget_gives_the_documented_sizes() -> None:
    assert stepping.selection_sizes(4096, 8, problems=128, samples=4) == (128, 4)


def test_a_small_budget_keeps_problems_before_samples() -> None:
    """Scores are clustered by problem: a second draw of one problem tells less than a first of another."""
    assert stepping.selection_sizes(256, 8, problems=128, samples=4) == (32, 1)
    assert stepping.selection_sizes(2048, 8, problems=128, samples=4) == (128, 2)


def candidate(correct: Sequence[int], *, n: int | Sequence[int] = 4) -> Candidate:
    counts = tuple(n) if isinstance(n, Sequence) else (n,) * len(correct)
    score = Score(
        problem_ids=tuple(map(str, range(len(correct)))), n=counts, correct=tuple(correct),
        correct_free=tuple(correct), format=1.0, truncated=0.0, unparsed=0.0, timeouts=0.0, errors=0,
    )  # fmt: skip
    return Candidate(policy=Policy(base="b"), step=0.0, relative_step=0.0, score=score)


def test_a_clear_winner_is_chosen() -> None:
    found = [candidate([0, 1, 0, 1] * 4), candidate([1, 2, 1, 2] * 4), candidate([4, 4, 4, 3] * 4)]
    assert stepping.choose(found) == (2, 2)


def test_the_smallest_step_within_one_standard_error_is_chosen() -> None:
    """Best minus second: differences (1, 0, 0, 0) / 4, mean 1/16, standard error 1/16: within, by equality."""
    zero, second, best = candidate([0, 0, 0, 0]), candidate([3, 4, 4, 4]), candidate([4, 4, 4, 4])
    assert stepping.choose([zero, second, best]) == (1, 2)
    assert stepping.choose([zero, second, best], cautious=False) == (2, 2)


def test_just_beyond_one_standard_error_the_best_is_chosen() -> None:
    """Differences (1, 1, 0, 0, 0) / 4: mean .1, standard error .25 sqrt(.3 / 5) = .0612."""
    second, best = candidate([3, 3, 4, 4, 4]), candidate([4, 4, 4, 4, 4])
    assert stepping.choose([candidate([0] * 5), second, best]) == (2, 2)


def test_zero_wins_ties() -> None:
    same = candidate([1, 2, 3])
    assert stepping.choose([same, same, same]) == (0, 0)
    assert stepping.choose([same, same], cautious=False) == (0, 0)
    swapped = candidate([3, 2, 1])
    assert stepping.choose([same, swapped]) == (0, 0)


def test_a_uniform_gain_has_no_standard_error_and_is_taken() -> None:
    assert stepping.choose([candidate([1, 1, 1]), candidate([2, 2, 2])]) == (1, 1)


def test_steps_beyond_the_best_are_never_chosen() -> None:
    worse = candidate([4, 3, 4, 4])
    assert stepping.choose([candidate([0] * 4), candidate([4] * 4), worse]) == (1, 1)


def test_problems_without_a_verdict_are_left_out() -> None:
    zero = candidate([0, 0, 0, 4], n=[4, 4, 4, 4])
    best = candidate([4, 4, 4, 0], n=[4, 4, 4, 0])
    assert best.score.accuracy == 1.0
    assert stepping.choose([zero, best]) == (1, 1)


def test_a_candidate_without_any_verdict_is_never_the_best() -> None:
    nothing, zero, good = candidate([0, 0], n=0), candidate([1, 1]), candidate([4, 4])
    assert stepping.choose([zero, nothing, good]) == (2, 2)
    assert stepping.choose([nothing, zero, good]) == (2, 2)
    assert stepping.choose([zero, good, nothing]) == (1, 1)


def test_rates_are_per_problem() -> None:
    np.testing.assert_array_equal(stepping.rates(candidate([1, 0, 3], n=[4, 0, 3]).score), [0.25, np.nan, 1.0])
