"""The race of a line search: its plan and cost, who stays, and how it compares with the exhaustive grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tabular_run import execute, small_spec

from benchmarks.perf import racing as measured
from harness import racing, store


def test_the_default_race_costs_half_of_the_grid() -> None:
    assert racing.plan(8, 128) == [(0, 32, 8), (32, 64, 4), (64, 128, 2)]
    assert racing.cost(8, 128) * 4 == 2048
    assert racing.sizes(4096, 8, problems=128, samples=4) == (128, 4)
    assert racing.sizes(2048, 8, problems=128, samples=4) == (128, 4)


@given(candidates=st.integers(1, 20), problems=st.integers(1, 300))
def test_rounds_are_disjoint_and_cover_all_problems(candidates: int, problems: int) -> None:
    plan = racing.plan(candidates, problems)
    assert [part.start for part in plan] == [0, *(part.stop for part in plan[:-1])]
    assert plan[-1].stop == problems
    assert plan[0] == (0, racing.first(problems), candidates)
    assert [part.candidates for part in plan] == sorted((part.candidates for part in plan), reverse=True)
    assert plan[-1].candidates >= min(2, candidates)


@given(
    selection=st.integers(9, 5000),
    candidates=st.integers(1, 9),
    problems=st.integers(1, 200),
    samples=st.integers(1, 8),
)
def test_sizes_stay_within_the_budget(selection: int, candidates: int, problems: int, samples: int) -> None:
    p, s = racing.sizes(selection, candidates, problems=problems, samples=samples)
    assert 1 <= p <= problems
    assert 1 <= s <= samples
    assert racing.cost(candidates, p) * s <= selection


def rates(*means: float, problems: int = 40) -> list[np.ndarray]:
    """Rates that differ from problem to problem in the same way for all."""
    ripple_P = np.tile([-0.1, 0.1], problems // 2)
    return [np.full(problems, mean) + ripple_P for mean in means]


def test_the_best_stay_in_order() -> None:
    assert racing.stay(rates(0.1, 0.5, 0.3, 0.6), 2, first=False) == [1, 3]
    assert racing.stay(rates(0.5, 0.5, 0.5), 2, first=False) == [0, 1]  # ties: the smaller step


def test_the_zero_step_stays_until_it_is_clearly_behind() -> None:
    noise_P = np.random.default_rng(0).normal(0, 0.5, 40)
    close = [
        np.full(40, 0.5),
        np.full(40, 0.51) + noise_P - noise_P.mean(),
        np.full(40, 0.52) + noise_P - noise_P.mean(),
    ]
    assert racing.stay(close, 2, first=True) == [0, 2]
    assert racing.stay(close, 2, first=False) == [1, 2]
    assert racing.stay(rates(0.1, 0.5, 0.6), 2, first=True) == [1, 2]


def test_problems_without_a_verdict_are_left_out() -> None:
    nan = np.full(40, np.nan)
    half = np.where(np.arange(40) % 2, np.nan, 0.9)
    assert racing.stay([nan, half, np.full(40, 0.5)], 2, first=False) == [1, 2]


def test_racing_finds_what_the_exhaustive_grid_finds_with_half_the_rollouts() -> None:
    """100 of the 500 runs of benchmarks/perf/racing.py."""
    found = measured.summarise(100)
    assert found.within >= 0.92
    assert found.rollouts <= found.grid_rollouts / 2
    assert found.raced > max(found.fixed.values())
    assert found.raced == pytest.approx(found.exhaustive, abs=0.005)
    assert len([target for target, count in found.best.items() if count >= 3]) >= 4
    assert found.best[0.0] >= 10


def test_a_search_is_a_race_and_says_what_each_step_met(tmp_path: Path) -> None:
    root, rows = execute(small_spec("search.problems=64", "search.samples=2", methods=("one_shot",)), tmp_path)
    search = store.read_json(root / "methods/one_shot/0/search.json")
    met = [len(candidate.score.problem_ids) for candidate in search.candidates]
    assert sorted(met)[-2:] == [max(met)] * 2
    assert min(met) < max(met)
    assert met[search.chosen] == met[search.best] == max(met)
    (row,) = [r for r in rows if r["method"] == "one_shot" and r["seed"] == 0]
    assert row["selection_rollouts"] == sum(met) * search.candidates[0].score.n[0]
    assert row["selection_rollouts"] <= 256
    problems = store.read_lines(root / "problems.jsonl")
    first = [line["problem"].id for line in problems if line["split"] == "selection"][: max(met)]
    for candidate in search.candidates:
        assert list(candidate.score.problem_ids) == first[: len(candidate.score.problem_ids)]
