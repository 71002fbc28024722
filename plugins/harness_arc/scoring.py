"""The official ARC-AGI score: two attempts at each test pair, and a task counts as the mean over its pairs.

Does: turn the per-problem counts of a Score into it.
Doesn't: draw attempts. Two attempts are two rollouts of the pair's problem (a completion gives one answer: its last
grid), so a pair's value is its unbiased pass@2, and more rollouts only make the estimate better.

Departure: the official number is of exactly two attempts chosen by the contestant; pass@2 of independent draws is what
the same policy gets on average when it chooses none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from harness import stats
from harness.types import Problem, Score

ATTEMPTS = 2


class TaskScores(NamedTuple):
    """`by_task`: each task's score, in the order of its first pair; `mean` over them, NaN when there is none.

    `incomplete` counts tasks left out because a pair was not scored, or with fewer draws than attempts.
    """

    by_task: dict[str, float]
    mean: float
    incomplete: int


def task_scores(problems: Iterable[Problem], score: Score, *, attempts: int = ATTEMPTS) -> TaskScores:
    """Raises KeyError for a score of problems that are not among `problems`."""
    known = {problem.id: problem for problem in problems}
    values: dict[str, list[float]] = {}
    for name, n, correct in zip(score.problem_ids, score.n, score.correct, strict=True):
        own = values.setdefault(str(known[name].meta["task"]), [])
        own.append(stats.pass_at_k(n, correct, attempts))
    pairs = {str(problem.meta["task"]): problem.meta["pairs"] for problem in known.values()}
    whole = {task: own for task, own in values.items() if len(own) == pairs[task] and not np.isnan(own).any()}
    by_task = {task: float(np.mean(own)) for task, own in whole.items()}
    mean = float(np.mean(list(by_task.values()))) if by_task else float("nan")
    return TaskScores(by_task, mean, len(values) - len(whole))
