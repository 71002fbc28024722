"""The ai2_arc domain: multiple-choice science questions of the AI2 Reasoning Challenge.

Does: name the benchmarks, hand out their problems, read rows, judge completions, make specimens.
Doesn't: anything about ARC-AGI, whose short name is the same (domain "arc").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from harness.contracts import Benchmark, Specimen
from harness.errors import UnknownName
from harness.types import Outcome, Problem, Verdict
from harness_ai2_arc import data, questions
from harness_ai2_arc.extract import letter
from harness_ai2_arc.verify import verify


class Ai2Arc:
    """Domain "ai2_arc"."""

    name = "ai2_arc"
    version = 1

    def benchmarks(self) -> Iterator[Benchmark]:
        return data.benchmarks()

    def problems(self, benchmark: str, split: str, *, seed: int, limit: int) -> Iterator[Problem]:
        if benchmark not in data.BENCHMARKS:
            raise UnknownName("ai2_arc benchmark", benchmark, data.BENCHMARKS)
        return data.problems(benchmark, split, seed=seed, limit=limit)

    def read(self, row: Mapping[str, Any]) -> Problem:
        """A row {question, choices, answer_index | answerKey}; raises BadRow."""
        return questions.read(row)

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """One row of each kind that `read` understands, for the conformance kit."""
        question, choices = "Which of these is a planet?", ["the Moon", "the Sun", "Mars"]
        yield {"question": question, "choices": choices, "answer_index": 2}
        yield {"id": "x", "question": question, "choices": choices, "answerKey": "C"}
        yield {"question": question, "choices": {"label": ["1", "2", "3"], "text": choices}, "answerKey": "3"}

    def verify(self, problem: Problem, completion: str) -> Verdict:
        return verify(problem, completion)

    def specimens(self, problem: Problem) -> Iterator[Specimen]:
        choices = cast("Sequence[str]", problem.meta["choices"])
        gold = str(problem.answer)
        index = ord(gold) - ord("A")
        other = letter((index + 1) % len(choices))
        for right in (gold, f"({gold})", f"\\boxed{{{gold}}}", f"{gold}. {choices[index]}", f"**Answer:** {gold}"):
            yield Specimen(right, Outcome.CORRECT)
        yield Specimen(f"Not {other}. So the answer is ({gold}).", Outcome.CORRECT)
        yield Specimen(f"The answer is {other}. No: the answer is {gold}.", Outcome.CORRECT)
        for wrong in (other, f"\\boxed{{{gold}}} or \\boxed{{{other}}}", f"The answer is {other}, not {gold}."):
            yield Specimen(wrong, Outcome.WRONG)
        for junk in (f"{gold} or {other}", f"\\boxed{{{gold}, {other}}}", f"The answer is not {gold}.",
                     f"{gold}. {choices[(index + 1) % len(choices)]}", f"{gold}\n{other}", "\\boxed{" * 100_000,
                     "The answer is Z.", "(" * 1_000_000, "", problem.prompt):  # fmt: skip
            yield Specimen(junk, Outcome.UNPARSED)
