"""The math domain: problems with a short final answer.

Does: name the benchmarks, judge completions, make specimens.
Doesn't: read data sets.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.contracts import Benchmark, Specimen
from harness.errors import UnknownName
from harness.types import Outcome, Problem, Verdict
from harness_math import ladder
from harness_math.verify import golds, parse_gold, verify

TIME_LIMIT_SECONDS = 2.0


class Math:
    """Domain "math"."""

    name = "math"
    version = 1

    def time_limit(self, problem: Problem) -> float:
        """Parses the reference answers on the way (and imports math-verify where it is needed): the pool asks
        before it starts the clock, and the completion is not to blame for what this takes."""
        for gold in golds(problem):
            parse_gold(gold)
        return TIME_LIMIT_SECONDS

    def benchmarks(self) -> Iterator[Benchmark]:
        yield Benchmark(
            name="ladder",
            splits=("train", "selection", "test"),
            answer_format="strict",
            licence="Apache-2.0",
            source="generated: plugins/harness_math/ladder.py",
            max_tokens=128,
        )

    def problems(self, benchmark: str, split: str, *, seed: int, limit: int) -> Iterator[Problem]:
        if benchmark != "ladder":
            raise UnknownName("math benchmark", benchmark, [known.name for known in self.benchmarks()])
        return ladder.problems(split, seed=seed, limit=limit)

    def verify(self, problem: Problem, completion: str) -> Verdict:
        return verify(problem, completion)

    def specimens(self, problem: Problem) -> Iterator[Specimen]:
        gold = golds(problem)[0]
        box = f"\\boxed{{{gold}}}"
        yield Specimen(f"1+1=2;{box}", Outcome.CORRECT)
        yield Specimen(f"{box}.\n", Outcome.CORRECT)
        yield Specimen(f"\\boxed{{{gold}0}}" if int(gold) else "\\boxed{1}", Outcome.WRONG)
        yield Specimen(f"\\boxed{{{int(gold) + 1}}}", Outcome.WRONG)
        yield Specimen(f"\\boxed{{{int(gold) - 1}+1}}", Outcome.UNPARSED)
        yield Specimen(f"{box} is the answer.", Outcome.UNPARSED)
        yield Specimen(f"{box} or \\boxed{{{int(gold) + 1}}}", Outcome.UNPARSED)
        yield Specimen(f"The answer is {gold}.", Outcome.UNPARSED)
        yield Specimen(f"{box}\\boxed{{}}", Outcome.UNPARSED)
        yield Specimen("\\boxed{" * 10_000 + gold + "}" * 10_000, Outcome.UNPARSED)
        yield Specimen("\\boxed{9^{9^{9^9}}}", Outcome.UNPARSED)
        yield Specimen("", Outcome.UNPARSED)
        yield Specimen(problem.prompt, Outcome.UNPARSED)
