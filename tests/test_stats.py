"""Estimates against closed forms, enumeration and simulated coverage."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import betabinomial, seeds, stats, student

RNG = seeds.generator


@pytest.mark.parametrize(
    ("n", "c", "k"), [(6, 0, 3), (6, 1, 3), (6, 4, 3), (6, 6, 2), (5, 2, 5), (16, 3, 4), (1, 1, 1)]
)
def test_pass_at_k_is_the_share_of_subsets_with_a_success(n: int, c: int, k: int) -> None:
    draws = [1] * c + [0] * (n - c)
    subsets = list(itertools.combinations(draws, k))
    assert stats.pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_is_the_mean_over_problems_with_draws_enough() -> None:
    assert stats.pass_at_k([4, 8], [2, 2], 1) == pytest.approx((0.5 + 0.25) / 2)
    assert stats.pass_at_k([4, 8], [2, 2], 5) == pytest.approx(stats.pass_at_k(8, 2, 5))
    assert math.isnan(stats.pass_at_k(4, 4, 5))
    assert math.isnan(stats.pass_at_k([], [], 1))
    with pytest.raises(ValueError, match="0 <= c <= n"):
        stats.pass_at_k(4, 5, 1)


def test_pass_at_k_is_unbiased() -> None:
    p, n, k = 0.13, 7, 3
    expected = sum(math.comb(n, c) * p**c * (1 - p) ** (n - c) * stats.pass_at_k(n, c, k) for c in range(n + 1))
    assert expected == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


def test_student_t_quantiles_match_closed_forms() -> None:
    for q in (0.6, 0.9, 0.975, 0.9995):
        assert student.quantile(q, 1) == pytest.approx(math.tan(math.pi * (q - 0.5)), rel=1e-10)
        assert student.quantile(q, 2) == pytest.approx((2 * q - 1) / math.sqrt(2 * q * (1 - q)), rel=1e-10)
    assert student.quantile(0.025, 4) == pytest.approx(-2.7764451051977934, rel=1e-10)
    assert student.quantile(0.975, 30) == pytest.approx(2.0422724563012373, rel=1e-10)
    assert student.quantile(0.975, 999_999) == pytest.approx(student.quantile(0.975, math.inf), rel=1e-5)
    with pytest.raises(ValueError, match="df > 0"):
        student.quantile(0.975, 0)


def test_student_t_quantile_for_fractional_df_inverts_the_integral_of_the_density() -> None:
    df = 3.7
    upper = student.quantile(0.95, df)
    constant = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)
    x = np.linspace(0.0, upper, 20_001)
    density = constant * (1 + x * x / df) ** (-(df + 1) / 2)
    assert np.trapezoid(density, x) == pytest.approx(0.45, abs=1e-8)


def test_clustered_se_is_that_of_a_mean_over_problems() -> None:
    assert stats.clustered_se([0.0, 1.0, 1.0, 0.0]) == pytest.approx(math.sqrt(1 / 3 / 4))
    assert stats.clustered_se([0.0, 1.0, math.nan, 1.0, 0.0]) == pytest.approx(math.sqrt(1 / 3 / 4))
    assert math.isnan(stats.clustered_se([0.5]))


def _accuracies(
    rng: np.random.Generator, *, problems: int, base: float, method: float
) -> tuple[np.ndarray, np.ndarray]:
    p_P = rng.beta(4 * base, 4 * (1 - base), problems)
    return rng.binomial(4, p_P) / 4, rng.binomial(4, np.minimum(1.0, p_P * method / base)) / 4


def test_bootstrap_is_reproducible_and_matches_the_normal_interval_on_many_problems() -> None:
    base_P, method_P = _accuracies(RNG(1), problems=400, base=0.3, method=0.5)
    first = stats.paired_bootstrap(base_P, method_P, seed=7)
    assert first == stats.paired_bootstrap(base_P, method_P, seed=7)
    few_draws = [stats.paired_bootstrap(base_P, method_P, seed=seed, draws=20).low for seed in (7, 8)]
    assert few_draws[0] != few_draws[1]
    assert not first.too_few
    assert first.delta == pytest.approx(np.mean(method_P - base_P))
    assert first.low == pytest.approx(first.delta - 1.96 * first.se, abs=0.1 * first.se)
    assert first.high == pytest.approx(first.delta + 1.96 * first.se, abs=0.1 * first.se)


def test_bootstrap_resamples_are_those_of_exhaustive_enumeration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "FEW_PROBLEMS", 0)
    monkeypatch.setattr(stats, "FEW_OUTCOMES", 0)
    base_P, method_P = np.zeros(5), np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    every = np.array([np.mean(pick) for pick in itertools.product(method_P, repeat=5)])
    tail = NormalDist().cdf(-2.776445 * math.sqrt(5 / 4))  # t(.975, 4): levels are those of a t interval
    exact = np.quantile(every, [tail, 1 - tail])
    result = stats.paired_bootstrap(base_P, method_P, seed=0, draws=40_000)
    assert (result.low, result.high) == pytest.approx(tuple(exact), abs=0.051)  # one step of the lattice
    assert result.low > 0.0


@pytest.mark.parametrize(("problems", "base", "method"), [(30, 0.1, 0.3), (150, 0.3, 0.5)])
def test_paired_interval_covers_the_true_difference(problems: int, base: float, method: float) -> None:
    rng, replications = RNG(11), 400
    p_P = rng.beta(4 * base, 4 * (1 - base), 200_000)
    truth = float(np.mean(np.minimum(1.0, p_P * method / base) - p_P))
    hits = 0
    for _ in range(replications):
        pair = _accuracies(rng, problems=problems, base=base, method=method)
        result = stats.paired_bootstrap(*pair, seed=3, draws=1000)
        hits += result.low <= truth <= result.high
    assert 0.91 <= hits / replications <= 0.985  # 0.95 +- 3.3 binomial standard errors


def test_too_few_is_flagged_for_problems_successes_and_failures() -> None:
    def few(p_base: float, p_method: float, problems: int) -> bool:
        return stats.paired_bootstrap(np.full(problems, p_base), np.full(problems, p_method), seed=0, draws=10).too_few

    assert few(0.5, 0.5, 99)
    assert not few(0.5, 0.5, 100)
    assert few(0.0, 0.05, 300)
    assert not few(0.0, 0.1, 300)
    assert few(0.99, 0.95, 300)


def test_equal_differences_are_not_called_certain() -> None:
    result = stats.paired_bootstrap(np.zeros(50), np.zeros(50), seed=0)
    u = result.high
    assert (1 - u) ** 50 == pytest.approx(0.025)
    assert result.low == -u
    assert stats.paired_bootstrap(np.zeros(50), np.ones(50), seed=0).high == 1.0


def test_problems_without_a_verdict_are_left_out() -> None:
    result = stats.paired_bootstrap([0.0, math.nan, 0.5], [0.5, 1.0, 0.5], seed=0)
    assert result.delta == pytest.approx(0.25)
    assert math.isnan(stats.paired_bootstrap([], [], seed=0).delta)
    with pytest.raises(ValueError, match="one length"):
        stats.paired_bootstrap([0.0], [0.0, 1.0], seed=0)


def test_over_seeds_by_hand_and_one_seed_is_problems_only() -> None:
    values_SP = np.array([[0.0, 0.2, 0.4], [0.4, 0.2, 0.6]])  # means .2 .4 by seed; .2 .2 .5 by problem
    result = stats.over_seeds(values_SP)
    from_problems = 0.03 / 3  # variance over problems of their means
    rest = 4 * (0.1**2 + 0.1**2 + 0.0**2) / 2 / 2 / 6  # residuals +-.1, +-.1 and 0 in both seeds, 2 degrees of freedom
    assert rest == pytest.approx(float(_rest(values_SP)) / 2 / 6)
    from_seeds = 0.02 / 2 - rest
    assert result.delta == pytest.approx(0.3)
    assert result.se == pytest.approx(math.sqrt(from_problems + from_seeds))
    assert result.df == pytest.approx(1 / (0.5 / 1 + 0.5 / 2))  # .01 from problems, .01 seen between seeds
    assert result.high - 0.3 == pytest.approx(student.quantile(0.975, result.df) * result.se)
    alone = stats.over_seeds(values_SP[:1])
    assert (alone.df, alone.se) == (2, pytest.approx(stats.clustered_se(values_SP[0])))


def _rest(values_SP: np.ndarray) -> float:
    fitted_SP = values_SP.mean(axis=0) + values_SP.mean(axis=1)[:, None] - values_SP.mean()
    return float(((values_SP - fitted_SP) ** 2).sum())


def test_over_seeds_at_its_edges() -> None:
    gaps = stats.over_seeds([[0.0, math.nan, 1.0, 0.5], [0.5, 1.0, 0.5, math.nan]])
    assert gaps.delta == pytest.approx((0.5 + 2 / 3) / 2)
    assert gaps.se == pytest.approx(stats.over_seeds([[0.0, 1.0], [0.5, 0.5]]).se)
    assert math.isnan(stats.over_seeds([[0.3], [0.5]]).low)
    same = stats.over_seeds(np.zeros((3, 50)))
    assert (1 - same.high) ** 50 == pytest.approx(0.025)


def test_over_seeds_is_unbiased_for_the_variance_of_the_mean() -> None:
    """Problem, seed and rest effects of known size."""
    rng = RNG(12)
    found = []
    for _ in range(2000):
        d_SP = 0.3 * rng.standard_normal(60) + 0.1 * rng.standard_normal((4, 1)) + 0.4 * rng.standard_normal((4, 60))
        found.append(stats.over_seeds(d_SP).se ** 2)
    truth = 0.3**2 / 60 + 0.1**2 / 4 + 0.4**2 / 240
    assert np.mean(found) == pytest.approx(truth, rel=0.05)


def test_interval_over_seeds_covers_when_seeds_differ_where_problems_only_does_not() -> None:
    rng, replications, hits, narrow_hits = RNG(5), 600, 0, 0
    for _ in range(replications):
        shared_P = 0.2 + 0.3 * rng.standard_normal(200)
        d_SP = shared_P + 0.04 * rng.standard_normal((3, 1)) + 0.1 * rng.standard_normal((3, 200))
        result = stats.over_seeds(d_SP)
        hits += result.low <= 0.2 <= result.high
        narrow_hits += abs(result.delta - 0.2) <= 1.96 * stats.clustered_se(d_SP.mean(axis=0))
    assert hits / replications >= 0.92
    assert narrow_hits / replications < 0.85


def test_sign_flip_is_exact_for_few_differences() -> None:
    d = [0.25, 0.5, 0.5, -0.25, 0.0, 0.75]
    nonzero = [x for x in d if x]
    sums = [
        abs(sum(s * x for s, x in zip(signs, nonzero, strict=True))) for signs in itertools.product((-1, 1), repeat=5)
    ]
    exact = sum(s >= abs(sum(nonzero)) for s in sums) / 32
    assert stats.sign_flip_p(np.zeros(6), d, seed=0) == exact
    assert stats.sign_flip_p(np.zeros(6), np.zeros(6), seed=0) == 1.0
    assert stats.sign_flip_p(np.zeros(5), np.full(5, 0.3), seed=0) == 2 / 32


def test_sign_flip_by_sampling_agrees_with_enumeration_and_is_never_zero() -> None:
    d_P = RNG(2).normal(0.2, 0.5, 12)
    exact = stats.sign_flip_p(np.zeros(12), d_P, seed=0)
    sampled = stats.sign_flip_p(np.zeros(12), d_P, seed=0, draws=4000)
    assert exact != sampled
    assert sampled == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 4000))
    assert stats.sign_flip_p(np.zeros(50), np.ones(50), seed=0, draws=999) == 1 / 1000


def test_sign_flip_rejects_as_often_as_it_says_under_the_null() -> None:
    rng = RNG(9)
    p_values = [stats.sign_flip_p(np.zeros(40), rng.normal(0, 1, 40), seed=i, draws=199) for i in range(400)]
    assert np.mean(np.array(p_values) <= 0.1) == pytest.approx(0.1, abs=0.05)


def test_gradient_signal_is_unbiased_and_agreement_is_the_cosine_of_halves() -> None:
    rng, dim, subs = RNG(4), 300, 16
    mean = np.full(dim, 1.0 / math.sqrt(dim))
    sd = 0.15  # of one sub-batch, per coordinate: tr Cov of the mean is dim * sd^2 / 16
    signals, cosines = [], []
    for _ in range(600):
        g_SD = mean + sd * rng.standard_normal((subs, dim))
        even, odd = g_SD[::2].sum(axis=0), g_SD[1::2].sum(axis=0)
        cosines.append(float(even @ odd / np.linalg.norm(even) / np.linalg.norm(odd)))
        total = g_SD.sum(axis=0)
        signals.append(stats.gradient_signal(float(total @ total), list((g_SD**2).sum(axis=1)), cosines[-1]))
    noise = dim * sd**2 / subs
    g2_N, noise_N, _, agreement_N, _ = (np.array(column, dtype=float) for column in zip(*signals, strict=True))
    for column_N, truth in ((g2_N, 1.0), (noise_N, noise)):
        assert abs(column_N.mean() - truth) < 4 * column_N.std() / math.sqrt(600)
    assert agreement_N.mean() == pytest.approx(1 / (1 + 2 * noise), abs=0.01)
    assert agreement_N.mean() == pytest.approx(np.mean(cosines), abs=0.01)
    assert signals[0].half_cosine == cosines[0]


def test_gradient_signal_at_its_edges() -> None:
    assert stats.gradient_signal(9.0, [1.0, 1.0, 1.0], 0.5) == (None, None, None, None, None)
    same = stats.gradient_signal(16.0, [1.0] * 4)
    assert (same.g2, same.trace_cov_of_mean, same.snr, same.agreement) == (1.0, 0.0, math.inf, 1.0)
    opposed = stats.gradient_signal(0.0, [1.0] * 4)
    assert opposed.g2 is not None
    assert opposed.g2 < 0
    assert opposed.snr is not None
    assert opposed.snr < 0
    assert opposed.agreement == 0.0
    nothing = stats.gradient_signal(0.0, [0.0] * 4)
    assert nothing.snr is None
    assert nothing.agreement is None


def _dead(p_P: np.ndarray, group: int) -> float:
    return float(np.mean((1 - p_P) ** group + p_P**group))


@pytest.mark.parametrize(("a", "b"), [(0.3, 2.0), (2.0, 2.0), (0.5, 20.0)])
def test_expected_dead_share_recovers_a_beta_mixture(a: float, b: float) -> None:
    rng = RNG(6)
    p_P = rng.beta(a, b, 4000)
    correct_P = rng.binomial(16, p_P)
    assert betabinomial.expected_dead_share(correct_P, 16, 16) == pytest.approx(_dead(p_P, 16), abs=0.015)
    assert betabinomial.expected_dead_share(correct_P, 16, 64) == pytest.approx(_dead(p_P, 64), abs=0.02)


def test_expected_dead_share_exceeds_the_value_at_the_mean_and_meets_it_without_spread() -> None:
    rng = RNG(8)
    p_P = rng.beta(0.4, 3.0, 3000)
    spread = betabinomial.expected_dead_share(rng.binomial(16, p_P), np.full(3000, 16), 8)
    at_mean = p_P.mean()
    assert spread > (1 - at_mean) ** 8 + at_mean**8 + 0.1
    even = betabinomial.expected_dead_share(rng.binomial(16, 0.2, 3000), 16, 8)
    assert even == pytest.approx(0.8**8, abs=0.02)


def test_expected_dead_share_at_its_edges() -> None:
    assert betabinomial.expected_dead_share([0, 0, 16], 16, 8) == 1.0
    assert math.isnan(betabinomial.expected_dead_share([], 16, 8))
    assert 0.0 < betabinomial.expected_dead_share([1, 0, 2], [15, 16, 14], 8) < 1.0
    with pytest.raises(ValueError, match="n >= 2"):
        betabinomial.expected_dead_share([1], 1, 8)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(2, 6)), min_size=1, max_size=12), st.integers(2, 40))
def test_expected_dead_share_is_a_share(counts: list[tuple[int, int]], group: int) -> None:
    n_P = [n for _, n in counts]
    share = betabinomial.expected_dead_share([min(c, n) for c, n in counts], n_P, group)
    assert 0.0 <= share <= 1.0 + 1e-12
