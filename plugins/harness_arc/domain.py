"""The arc domain: grid puzzles in the manner of the Abstraction and Reasoning Corpus.

Does: name the benchmarks, hand out their problems, read rows, judge completions, make specimens.
Doesn't: anything about the AI2 Reasoning Challenge, whose short name is the same (domain "ai2_arc").
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from harness.contracts import Benchmark, Specimen
from harness.errors import UnknownName
from harness.types import Outcome, Problem, Verdict
from harness_arc import data, ladder, tasks
from harness_arc.extract import Grid, layout
from harness_arc.grids import MAX_SIDE, grids, render
from harness_arc.verify import demanded, golds_of, verify


class Arc:
    """Domain "arc"."""

    name = "arc"
    version = 1

    def benchmarks(self) -> Iterator[Benchmark]:
        yield Benchmark(
            name="ladder",
            splits=("train", "selection", "test"),
            answer_format="strict",
            licence="Apache-2.0",
            source="generated: plugins/harness_arc/ladder.py",
            max_tokens=40,
        )
        yield from data.benchmarks()

    def problems(self, benchmark: str, split: str, *, seed: int, limit: int) -> Iterator[Problem]:
        """Raises UsageError for a public set that cannot be had, or a split that the benchmark does not have."""
        if benchmark == "ladder":
            return ladder.problems(split, seed=seed, limit=limit)
        if benchmark not in data.BENCHMARKS:
            raise UnknownName("arc benchmark", benchmark, [known.name for known in self.benchmarks()])
        return data.problems(benchmark, split, seed=seed, limit=limit)

    def read(self, row: Mapping[str, Any]) -> Problem:
        """A row {train, test, test_index?}; raises BadRow."""
        return tasks.read(row)

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """One row of each kind that `read` understands, for the conformance kit."""
        pairs = [{"input": [[1, 2]], "output": [[2, 1]]}, {"input": [[3], [0]], "output": [[0], [3]]}]
        yield {"task_id": "one", "train": pairs, "test": [{"input": [[4, 5, 6]], "output": [[6, 5, 4]]}]}
        yield {"train": pairs[:1], "test": pairs, "test_index": 1}
        yield {"train": [], "test": pairs}

    def verify(self, problem: Problem, completion: str) -> Verdict:
        return verify(problem, completion)

    def specimens(self, problem: Problem) -> Iterator[Specimen]:
        if problem.meta.get("layout") == "grid":
            yield from _row_specimens(problem)
            return
        gold = cast(Grid, problem.answer)
        right = layout(gold)
        (first, *cells), *rows = gold
        slip = layout([[(first + 1) % 10, *cells], *rows])
        yield Specimen(f" {right}", Outcome.CORRECT)
        yield Specimen(f" {right}\n", Outcome.CORRECT)
        yield Specimen(f" # any rule: {right}", Outcome.CORRECT)
        yield Specimen(f" {slip}", Outcome.WRONG)
        yield Specimen(f" {layout([[*row, 0] for row in gold])}", Outcome.WRONG)
        yield Specimen(f" {layout([*gold, gold[0]])}", Outcome.WRONG)
        yield Specimen(f" {slip}\n {right}", Outcome.UNPARSED)
        yield Specimen(f" {right}\nso any rule", Outcome.UNPARSED)
        yield Specimen(f" {right} done", Outcome.UNPARSED)
        yield Specimen(f" {right}7", Outcome.UNPARSED if rows else Outcome.WRONG)
        yield Specimen(f" {right.replace('a', 'b', 1)}", Outcome.UNPARSED)
        yield Specimen(" a" + "0" * 1_000_000, Outcome.UNPARSED)
        yield Specimen("", Outcome.UNPARSED)
        yield Specimen(problem.prompt, Outcome.UNPARSED)


def _row_specimens(problem: Problem) -> Iterator[Specimen]:
    golds = golds_of(problem)
    *others, ((first, *cells), *rows) = golds
    slip = [*others, [[(first + 1) % 10, *cells], *rows]]
    right = demanded(golds)
    yield Specimen(right, Outcome.CORRECT)
    yield Specimen(f"The grid grows.\n```\n{right}\n```\nThat is it.", Outcome.CORRECT)
    yield Specimen("\n\n".join(f"Output: {json.dumps(gold)}." for gold in golds), Outcome.CORRECT)
    yield Specimen(f"{demanded(slip)}\n\nNo:\n{right}", Outcome.CORRECT)
    yield Specimen(demanded(slip), Outcome.WRONG)
    yield Specimen(f"{right}\n\nNo:\n{demanded(slip)}", Outcome.WRONG)
    if len(rows) + 1 < MAX_SIDE:
        yield Specimen(f"{right}\n{render([[first, *cells]])}", Outcome.WRONG)
    yield Specimen(f"{right}\n{render([[first, *cells, first]])}", Outcome.UNPARSED)
    yield Specimen(f"{right} 10", Outcome.UNPARSED)
    yield Specimen("\n".join(["0 " * 31] * 31), Outcome.UNPARSED)
    yield Specimen("[" * 10_000 + json.dumps(golds), Outcome.CORRECT)
    yield Specimen("0" * 1_000_000, Outcome.UNPARSED)
    yield Specimen("I cannot tell.", Outcome.UNPARSED)
    yield Specimen("", Outcome.UNPARSED)
    if grids(problem.prompt)[-len(golds) :] != golds:  # else an echo is right
        yield Specimen(problem.prompt, Outcome.WRONG)
