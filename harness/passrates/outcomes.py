"""What became of every test completion, by problem: right, wrong, unparsed, out of time, verifier error; truncated beside.

Does: count the verdict files behind a method's test score.
Doesn't: judge, or count the lenient verdicts.

The five outcomes exclude each other and add up to all completions. Truncation is not an outcome: a truncated completion
is judged like any other and counted in both. Errors are outside every accuracy (harness/evaluating.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness.report import drawn
from harness.report.results import Results
from harness.types import Outcome

KINDS = tuple(Outcome)
Places = npt.NDArray[np.int64]


class Shares(NamedTuple):
    """Of all completions drawn; the first five add up to 1. NaN where there are none."""

    correct: float
    wrong: float
    unparsed: float
    timeout: float
    error: float
    truncated: float


class Counts(NamedTuple):
    """Completions of each problem by outcome, in the order of KINDS, and how many were truncated."""

    outcomes_PK: npt.NDArray[np.int64]
    truncated_P: npt.NDArray[np.int64]

    def shares(self, places: Places) -> Shares:
        """Over the problems at `places`."""
        kinds_K, truncated = self.outcomes_PK[places].sum(axis=0), self.truncated_P[places].sum()
        if not kinds_K.sum():
            return Shares(*[float("nan")] * 6)
        return Shares(*(np.append(kinds_K, truncated) / kinds_K.sum()).tolist())


def counts(found: Results, method: str) -> Counts | None:
    """Of the first test set, over all policies and seeds; None for an older run folder, whose draws cannot be named."""
    if not drawn.known(found):
        return None
    problems = next(iter(found.tests.values()))
    place_of = {problem.id: place for place, problem in enumerate(problems)}
    counted = Counts(np.zeros((len(problems), len(KINDS)), np.int64), np.zeros(len(problems), np.int64))
    for seed in found.seeds_of(method):
        for folder in drawn.folders(found, method, seed, problems):
            _add(counted, found.root / "verdicts" / folder, place_of)
    return counted


def _add(counted: Counts, folder: Path, place_of: dict[str, int]) -> None:
    for path in sorted(folder.glob("shard-*.json")):
        for judged in json.loads(path.read_text(encoding="utf-8"))["judged"]:  # records would take four times as long
            place = place_of[judged["problem_id"]]
            counted.outcomes_PK[place, KINDS.index(judged["verdict"]["outcome"])] += 1
            counted.truncated_P[place] += judged["truncated"]
