"""Statistics of pass rates: closed forms, and what the report says of a run adds up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tabular_run import finished

from harness import seeds, stats
from harness.passrates import across, batching, binning, crossing, detecting, losing, outcomes, signals
from harness.passrates.across import Point
from harness.passrates.crossing import EVERYWHERE, NOWHERE
from harness.report import results
from harness.report.results import Results
from harness.types import Score

rates = st.lists(st.floats(-1, 1), min_size=1, max_size=8)


def score(correct: Sequence[int], n: int = 16) -> Score:
    shares = {"format": 1.0, "truncated": 0.0, "unparsed": 0.0, "timeouts": 0.0}
    names, counts = tuple(map(str, range(len(correct)))), tuple(correct)
    return Score(problem_ids=names, n=(n,) * len(counts), correct=counts, correct_free=counts, errors=0, **shares)


@pytest.fixture(scope="module")
def found() -> Results:
    return results.load(finished())


def test_bins_hold_every_problem_once_and_say_their_rates() -> None:
    counts = [0] * 3 + [1] * 2 + [4] * 4 + [8] * 2 + [9] * 2 + [16] * 5
    made = binning.bins(score(counts), fewest=2)
    assert sorted(place for one in made for place in one.places) == list(range(len(counts)))
    assert [one.label for one in made] == ["0", "above 0 to 0.1", "above 0.1 to 0.25", "above 0.25 to 0.5", "above 0.5 to 0.75", "above 0.75 to 1"]  # fmt: skip
    assert [len(one.places) for one in made] == [3, 2, 4, 2, 2, 5]


def test_a_small_bin_joins_the_next_and_the_last_one_the_one_before() -> None:
    made = binning.bins(score([0] * 2 + [1] * 20 + [8] * 20 + [16] * 3))
    assert [(one.label, len(one.places)) for one in made] == [("0 to 0.1", 22), ("above 0.1 to 1", 23)]


def test_a_problem_without_a_verdict_is_in_no_bin() -> None:
    sorting = replace(score([0, 8, 16]), n=(16, 0, 16), correct=(0, 0, 16))
    made = binning.bins(sorting, fewest=1)
    assert sorted(place for one in made for place in one.places) == [0, 2]


def test_rows_of_bins_average_to_the_gain_of_the_run(found: Results) -> None:
    rows = [row for row in binning.rows(found) if row.method == "one_shot"]
    problems = sum(row.problems for row in rows)
    assert problems == len(found.finished["base", 0].evaluation.sampled.problem_ids)
    gain = sum(row.problems * row.gain for row in rows) / problems
    assert gain == pytest.approx(float(np.nanmean(across.gains(found, "one_shot"))))
    base = [row for row in binning.rows(found) if row.method == "base"]
    assert all(row.gain == 0 for row in base)


def test_kinds_of_outcome_add_up_to_what_was_drawn(found: Results) -> None:
    counted = outcomes.counts(found, "one_shot")
    assert counted is not None
    scores = [found.finished["one_shot", seed].evaluation.sampled for seed in found.seeds_of("one_shot")]
    judged_P = sum(np.array(one.n) for one in scores)
    correct_P = sum(np.array(one.correct) for one in scores)
    error = outcomes.KINDS.index(outcomes.Outcome.ERROR)
    assert (counted.outcomes_PK.sum(axis=1) - counted.outcomes_PK[:, error] == judged_P).all()
    assert (counted.outcomes_PK[:, outcomes.KINDS.index(outcomes.Outcome.CORRECT)] == correct_P).all()


@given(rates)
def test_the_monotone_fit_is_the_largest_of_the_smallest_means(values: list[float]) -> None:
    """Robertson, Wright and Dykstra (1988), theorem 1.4.4."""
    fit_K, count = crossing.monotone(np.array(values), np.ones(len(values))), len(values)
    for k in range(count):
        ends = [min(np.mean(values[i : j + 1]) for j in range(k, count)) for i in range(k + 1)]
        assert fit_K[k] == pytest.approx(max(ends), abs=1e-9)


def test_a_crossing_lies_where_a_power_law_says() -> None:
    """q = 2 p at small p: the gain reaches .02 at p = .02."""
    rates_K = np.geomspace(1e-3, 0.05, 40)
    (at,) = crossing.first_crossings(rates_K[None], rates_K[None], 0.02)
    assert at == pytest.approx(0.02, rel=1e-3)


@pytest.mark.parametrize(
    ("gains", "at"),
    [([0.1, 0.2], 0.0), ([0.0, 0.01], math.inf), ([0.0, 0.02], 0.4)],
    ids=["everywhere", "nowhere", "end"],
)
def test_a_crossing_at_the_ends(gains: list[float], at: float) -> None:
    (found,) = crossing.first_crossings(np.array([[0.1, 0.4]]), np.array([gains]), 0.02)
    assert found == pytest.approx(at)


def _points(gains: Sequence[float], spread: float) -> list[Point]:
    rng = seeds.generator(1)
    rates = np.geomspace(0.01, 0.5, len(gains))
    return [
        Point(float(rate), gain + spread * rng.standard_normal((1, 200)), test="t")
        for rate, gain in zip(rates, gains, strict=True)
    ]


@pytest.mark.parametrize(
    ("gains", "outcome", "words"),
    [
        ([0.2, 0.25, 0.3], EVERYWHERE, "is reached at every pass rate"),
        ([0.0, 0.0, 0.0], NOWHERE, "is reached at no pass rate"),
        ([0.0, 0.01, 0.3], crossing.CROSSED, "is reached from a pass rate"),
    ],
)
def test_a_break_even_says_how_it_ended(gains: list[float], outcome: str, words: str) -> None:
    found = across.break_even(_points(gains, 0.02), draws=200)
    assert found.outcome == outcome
    assert words in found.words
    assert math.isnan(found.at) != (outcome == crossing.CROSSED)


def test_a_break_even_needs_two_pass_rates() -> None:
    with pytest.raises(ValueError, match="two pass rates"):
        across.break_even(_points([0.1], 0.1))


def test_what_a_run_declares_at_least_is_declared_in_half_of_all_runs() -> None:
    seen = detecting.detectable(seeds.generator(0).standard_normal((1, 300)))
    assert detecting.power(seen.effect, seen.se, seen.df) == pytest.approx(0.5)
    assert detecting.power(0.0, seen.se, seen.df) == pytest.approx(0.025)
    assert seen.power_at_twice == pytest.approx(0.975, abs=0.002)
    assert seen.effect == pytest.approx(1.96 / math.sqrt(300), rel=0.1)


@pytest.mark.parametrize("gains_SP", [np.full((1, 30), 0.1), np.zeros((3, 30)), np.zeros((1, 1)), np.zeros((0, 0))])
def test_gains_without_spread_tell_of_no_effect(gains_SP: losing.Floats) -> None:
    assert math.isnan(detecting.detectable(gains_SP).effect)


def test_regret_is_what_was_missed_and_no_luck() -> None:
    rng, chances_C = seeds.generator(0), np.array([0.3, 0.5, 0.4])
    rates_CP = rng.binomial(4, np.repeat(chances_C[:, None], 4000, axis=1)) / 4
    assert losing.regret(rates_CP, 2).value == pytest.approx(0.1, abs=0.02)
    assert losing.regret(rates_CP, 1).value == 0.0


def test_equal_steps_are_not_regretted_where_the_maximum_says_so() -> None:
    rng = seeds.generator(0)
    found, naive = [], []
    for _ in range(60):
        rates_CP = rng.binomial(4, 0.4, size=(7, 60)) / 4
        found.append(losing.regret(rates_CP, 0, splits=5).value)
        naive.append(rates_CP.mean(axis=1).max() - rates_CP[0].mean())
    assert abs(np.mean(found)) < 3 * stats.clustered_se(found) < np.mean(naive)


def test_what_is_lost_is_split_without_a_rest(found: Results) -> None:
    lost = losing.split(found)
    assert lost is not None
    assert lost.direction is not None
    assert lost.modelled
    parts = lost.search.delta + lost.direction.delta + lost.headroom.delta
    assert lost.lost.delta == pytest.approx(parts)


@pytest.mark.parametrize(("snr", "factor"), [(math.inf, 0.0), (1.0, math.sqrt(2) - 1), (0.25, math.sqrt(5) - 1)])
def test_a_noisier_direction_would_have_gained_more(snr: float, factor: float) -> None:
    base, best, ceiling = np.full((1, 4), 0.2), np.full((1, 4), 0.3), np.ones((1, 4))
    clean = losing.modelled_clean(base, best, ceiling, [snr])
    assert clean == pytest.approx(best + 0.1 * factor)
    assert losing.modelled_clean(base, best, np.full((1, 4), 0.31), [snr])[0, 0] <= 0.31 + 1e-12
    assert losing.modelled_clean(base, best, ceiling, [-0.1]) is None


def test_dead_groups_of_equal_problems_are_those_of_the_binomial() -> None:
    counts = seeds.generator(0).binomial(16, 0.2, size=20_000).tolist()
    assert signals.expected_share(score(counts), group=8) == pytest.approx(0.8**8 + 0.2**8, abs=0.01)


def test_recommended_rollouts_reach_the_agreement() -> None:
    wanted = signals.recommended(0.5, 1000, agreement=0.8)
    snr = 0.5 * wanted / 1000
    assert snr / (snr + 2) == pytest.approx(0.8)
    assert signals.recommended(-0.1, 1000) == math.inf
    assert math.isnan(signals.recommended(math.nan, 1000))


@given(st.floats(1, 1e4), st.floats(1, 1e6), st.floats(0, 1e6))
def test_effective_steps_are_bounded_by_steps_and_noise(steps: float, budget: float, critical: float) -> None:
    found = batching.effective_steps(steps, budget, critical)
    assert 0 < found <= steps
    assert found * critical <= budget * (1 + 1e-9)


def test_a_critical_batch_halves_the_step() -> None:
    assert batching.critical_batch(2.0, 1000) == 500
    assert batching.effective_steps(1, 500, 500) == 0.5
    assert batching.critical_batch(0.0, 1000) == math.inf
    assert batching.effective_steps(1, 500, math.inf) == 0
