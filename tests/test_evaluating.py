"""Scores by counting: what each outcome does to n, correct and the shares; votes and oracles by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness import evaluating, store
from harness.evaluating import score_of
from harness.sampling import Judged, JudgedShard, RolloutBatch
from harness.types import Outcome, Problem, Score, Verdict

C, W, U, T, E = Outcome.CORRECT, Outcome.WRONG, Outcome.UNPARSED, Outcome.TIMEOUT, Outcome.ERROR
A, B = (Problem(id=name, prompt=name, answer=None) for name in "ab")


def judged(problem: str, index: int, outcome: Outcome, **options: Any) -> Judged:
    """`free` defaults to the strict outcome; `extracted` to none."""
    verdict = Verdict(
        outcome=outcome, extracted=options.get("extracted"), format_ok=options.get("format_ok", outcome in (C, W))
    )
    return Judged(
        problem_id=problem,
        sample_idx=index,
        verdict=verdict,
        free=Verdict(outcome=options.get("free", outcome)),
        truncated=options.get("truncated", False),
        tokens=3,
    )


def batch(root: Path, shards: Sequence[Sequence[Judged]], folder: str = "0/x") -> RolloutBatch:
    for index, shard in enumerate(shards):
        path = root / f"verdicts/{folder}/shard-{index:05d}.json"
        store.write_json(path, JudgedShard(judged=tuple(shard), cost={}))
    ids = tuple(tuple(dict.fromkeys(j.problem_id for j in shard)) for shard in shards)
    return RolloutBatch(root=str(root), folder=folder, problem_ids=("a", "b"), shards=ids, temperature=1.0, samples=4)


def test_every_outcome_is_counted_where_it_belongs(tmp_path: Path) -> None:
    """b comes first on disk; the score is in the order of the problems asked for."""
    found = batch(
        tmp_path,
        [
            [judged("b", 0, E), judged("b", 1, E), judged("b", 2, C), judged("b", 3, W, truncated=True)],
            [judged("a", 0, C), judged("a", 1, U, free=C), judged("a", 2, T), judged("a", 3, U, truncated=True)],
        ],
    )
    assert score_of([found], [A, B]) == Score(
        problem_ids=("a", "b"), n=(4, 2), correct=(1, 1), correct_free=(2, 1), format=3 / 8, truncated=2 / 8,
        unparsed=2 / 8, timeouts=1 / 8, errors=2,
    )  # fmt: skip


def test_a_problem_of_errors_alone_has_no_rate(tmp_path: Path) -> None:
    found = batch(tmp_path, [[judged("a", 0, C), judged("a", 1, W)], [judged("b", 0, E), judged("b", 1, E)]])
    score = score_of([found], [A, B])
    assert score.n == (2, 0)
    assert score.accuracy == 0.5, "the mean over problems with a verdict"


def test_vote_takes_the_most_frequent_canonical_answer(tmp_path: Path) -> None:
    found = batch(
        tmp_path,
        [
            [judged("a", i, o, extracted=x) for i, (o, x) in enumerate([(C, "7"), (W, "8"), (W, "9"), (C, "7")])],
            [judged("b", i, o, extracted=x) for i, (o, x) in enumerate([(C, "1"), (W, "2"), (W, "2"), (U, None)])],
        ],
    )
    score = score_of([found], [A, B], combine="vote")
    assert (score.n, score.correct, score.correct_free) == ((1, 1), (1, 0), (1, 0))
    assert score.unparsed == 1 / 8, "shares are over all completions"


def test_vote_ties_go_to_the_first_answer_given(tmp_path: Path) -> None:
    found = batch(
        tmp_path,
        [
            [judged("a", 0, C, extracted="7"), judged("a", 1, W, extracted="8")],
            [judged("b", 0, W, extracted="8"), judged("b", 1, C, extracted="7")],
        ],
    )
    assert score_of([found], [A, B], combine="vote").correct == (1, 0)


def test_vote_ignores_unparsed_and_errors(tmp_path: Path) -> None:
    found = batch(
        tmp_path,
        [
            [judged("a", 0, U), judged("a", 1, U), judged("a", 2, E, extracted="8"), judged("a", 3, C, extracted="7")],
            [judged("b", 0, U), judged("b", 1, U), judged("b", 2, T), judged("b", 3, E)],
        ],
    )
    score = score_of([found], [A, B], combine="vote")
    assert (score.n, score.correct) == ((1, 1), (1, 0)), "no answer at all is a wrong answer"


def test_oracle_counts_any_success(tmp_path: Path) -> None:
    found = batch(
        tmp_path,
        [
            [judged("a", 0, W), judged("a", 1, W), judged("a", 2, U, free=C), judged("a", 3, E)],
            [judged("b", 0, W), judged("b", 1, C), judged("b", 2, C), judged("b", 3, W)],
        ],
    )
    score = score_of([found], [A, B], combine="oracle")
    assert (score.n, score.correct, score.correct_free) == ((1, 1), (0, 1), (1, 1))


@pytest.mark.parametrize(
    ("combine", "n", "correct"), [("single", (4,), (3,)), ("vote", (1,), (1,)), ("oracle", (1,), (1,))]
)
def test_completions_of_several_policies_are_pooled(
    combine: str, n: tuple[int, ...], correct: tuple[int, ...], tmp_path: Path
) -> None:
    first = batch(tmp_path, [[judged("a", 0, W, extracted="8"), judged("a", 1, C, extracted="7")]], "0/x")
    second = batch(tmp_path, [[judged("a", 0, C, extracted="7"), judged("a", 1, C, extracted="7")]], "0/y")
    score = score_of([first, second], [A], combine=combine)
    assert (score.n, score.correct) == (n, correct)


def test_wide_draws_join_the_first_ones() -> None:
    def score(ids: str, n: int, correct: Sequence[int]) -> Score:
        return Score(
            problem_ids=tuple(ids), n=(n,) * len(ids), correct=tuple(correct), correct_free=tuple(correct),
            format=1.0, truncated=0.0, unparsed=0.0, timeouts=0.0, errors=1,
        )  # fmt: skip

    joined = evaluating._joined(score("abc", 4, [1, 2, 3]), score("ab", 12, [5, 0]))
    assert (joined.problem_ids, joined.n, joined.correct, joined.errors) == (("a", "b"), (16, 16), (6, 2), 2)
