"""The arc domain: grid puzzles in the manner of the Abstraction and Reasoning Corpus.

Does: name the benchmarks, judge completions, make specimens.
Doesn't: read data sets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from harness.contracts import Benchmark, Specimen
from harness.errors import UnknownName
from harness.types import Outcome, Problem, Verdict
from harness_arc import ladder
from harness_arc.extract import Grid, layout
from harness_arc.verify import verify


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

    def problems(self, benchmark: str, split: str, *, seed: int, limit: int) -> Iterator[Problem]:
        if benchmark != "ladder":
            raise UnknownName("arc benchmark", benchmark, [known.name for known in self.benchmarks()])
        return ladder.problems(split, seed=seed, limit=limit)

    def verify(self, problem: Problem, completion: str) -> Verdict:
        return verify(problem, completion)

    def specimens(self, problem: Problem) -> Iterator[Specimen]:
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
