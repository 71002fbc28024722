"""Group weights against their definitions, and what every scheme must keep."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness import seeds
from harness.advantages import SCHEMES, group_advantages, is_dead, shuffled
from harness.errors import UnknownName

Rewards = list[float | None]
REWARDS = st.lists(st.one_of(st.none(), st.sampled_from([0.0, 0.1, 0.5, 1.0])), min_size=1, max_size=12)


def test_known_weights_of_one_success_in_four() -> None:
    rewards: Rewards = [0.0, 1.0, 0.0, 0.0]
    expected = {
        "grpo": [-1 / np.sqrt(3), np.sqrt(3), -1 / np.sqrt(3), -1 / np.sqrt(3)],
        "centered": [-0.25, 0.75, -0.25, -0.25],
        "rloo": [-1 / 3, 1.0, -1 / 3, -1 / 3],
        "positives_only": [0.0, np.sqrt(3), 0.0, 0.0],
        "maxrl": [-1.0, 3.0, -1.0, -1.0],
        "reinforce": [0.0, 1.0, 0.0, 0.0],
    }
    assert set(expected) == set(SCHEMES)
    for scheme, weights in expected.items():
        assert group_advantages(rewards, scheme).weights_G == pytest.approx(weights, abs=1e-15)


@given(REWARDS)
def test_rloo_is_the_reward_minus_the_mean_of_the_others(rewards: Rewards) -> None:
    assume(not is_dead(rewards))
    weights_G = group_advantages(rewards, "rloo").weights_G
    for i, r in enumerate(rewards):
        others = [x for j, x in enumerate(rewards) if j != i and x is not None]
        assert weights_G[i] == pytest.approx(0.0 if r is None else r - np.mean(others), abs=1e-12)


@given(REWARDS)
def test_grpo_has_mean_zero_and_unit_variance_over_judged_rollouts(rewards: Rewards) -> None:
    assume(not is_dead(rewards))
    kept = group_advantages(rewards, "grpo").weights_G[[r is not None for r in rewards]]
    assert kept.mean() == pytest.approx(0.0, abs=1e-12)
    assert np.mean(kept**2) == pytest.approx(1.0)


@given(REWARDS, st.sampled_from(sorted(SCHEMES)))
def test_errors_weigh_nothing_and_change_nothing(rewards: Rewards, scheme: str) -> None:
    weights_G, dead = group_advantages(rewards, scheme)
    judged = [r for r in rewards if r is not None]
    assert not np.isnan(weights_G).any()
    assert weights_G.dtype == np.float64
    assert all(w == 0.0 for w, r in zip(weights_G, rewards, strict=True) if r is None)
    assert list(weights_G[[r is not None for r in rewards]]) == list(group_advantages(judged, scheme).weights_G)
    assert dead == is_dead(rewards)
    expected = any(judged) if scheme == "reinforce" else not dead
    assert weights_G.any() == expected


def test_maxrl_leaves_out_a_group_whose_mean_reward_is_not_positive() -> None:
    assert not group_advantages([0.5, -0.5], "maxrl").weights_G.any()
    assert not group_advantages([-1.0, 0.0], "maxrl").weights_G.any()


def test_dead_groups_are_found_exactly() -> None:
    third: Rewards = [0.1] * 3  # their mean is not 0.1 in floating point
    for rewards in (third, [None, None], [], [1.0], [1.0, None], [0.0] * 16):
        assert is_dead(rewards)
        assert group_advantages(rewards).dead
        assert not group_advantages(rewards).weights_G.any()
    assert not is_dead([0.1, 0.1 + 1e-16 + 2e-17, 0.1])


def test_mistakes_are_named() -> None:
    with pytest.raises(UnknownName, match="did you mean"):
        group_advantages([0.0, 1.0], "gpro")
    with pytest.raises(ValueError, match="finite"):
        group_advantages([0.0, float("nan")])


@given(REWARDS, st.integers(0, 2**63 - 1))
def test_shuffling_permutes_judged_rewards_in_place(rewards: Rewards, seed: int) -> None:
    mixed = shuffled(rewards, seed)
    assert mixed == shuffled(rewards, seed)
    assert [r is None for r in mixed] == [r is None for r in rewards]
    assert sorted(r for r in mixed if r is not None) == sorted(r for r in rewards if r is not None)
    assert is_dead(mixed) == is_dead(rewards)


def test_shuffling_reaches_every_arrangement_equally_often() -> None:
    arrangements = {p: 0 for p in set(itertools.permutations([1.0, 0.0, 0.0, 0.0]))}
    for i in range(2000):
        arrangements[tuple(shuffled([1.0, 0.0, 0.0, 0.0], seeds.seed_for(0, "shuffle", sample_idx=i)))] += 1  # type: ignore[index]
    assert all(abs(count - 500) < 4 * np.sqrt(500 * 0.75) for count in arrangements.values())
