"""The math domain: problems with a short final answer.

Does: name the benchmarks, read rows, judge completions, make specimens.
Doesn't: fetch files, or know how answers are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.contracts import Benchmark, Specimen
from harness.errors import UnknownName
from harness.types import Outcome, Problem, Verdict
from harness_math import data, ladder, rows
from harness_math.verify import canonical, golds, prepare, verify

# Our own comparison takes milliseconds of bounded work, so its limit is only hit when the machine stands still.
TIME_LIMIT_SECONDS = 2.0
# Six times what a verdict takes. Twice this, and two fresh workers with their imports, stay within two seconds.
MATH_VERIFY_SECONDS = 0.3


class Math:
    """Domain "math"."""

    name = "math"
    version = 1

    def time_limit(self, problem: Problem) -> float:
        """Reads the accepted answers on the way (and imports math-verify where it may be asked): the pool asks
        before it starts the clock, and the completion is not to blame for what this takes."""
        asked = [prepare(gold) for gold in golds(problem)]
        return MATH_VERIFY_SECONDS if any(asked) else TIME_LIMIT_SECONDS

    def benchmarks(self) -> Iterator[Benchmark]:
        yield Benchmark(
            name="ladder",
            splits=("train", "selection", "test"),
            answer_format="strict",
            licence="Apache-2.0",
            source="generated: plugins/harness_math/ladder.py",
            max_tokens=128,
        )
        yield from data.benchmarks()

    def problems(self, benchmark: str, split: str, *, seed: int, limit: int) -> Iterator[Problem]:
        if benchmark == "ladder":
            return ladder.problems(split, seed=seed, limit=limit)
        if benchmark not in data.SETS:
            raise UnknownName("math benchmark", benchmark, [known.name for known in self.benchmarks()])
        return data.problems(benchmark, split, seed=seed, limit=limit)

    def read(self, row: Mapping[str, Any]) -> Problem:
        """Raises BadRow; what is understood is said in rows.py and README.md."""
        return rows.read(row)

    def rows(self) -> Iterator[Mapping[str, Any]]:
        return iter(rows.EXAMPLES)

    def verify(self, problem: Problem, completion: str) -> Verdict:
        return verify(problem, completion)

    def specimens(self, problem: Problem) -> Iterator[Specimen]:
        return _strict_specimens(problem) if problem.strict else _lenient_specimens(problem)


def _strict_specimens(problem: Problem) -> Iterator[Specimen]:
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


def _lenient_specimens(problem: Problem) -> Iterator[Specimen]:
    gold = golds(problem)[0]
    other = "8675309" if canonical(gold) != "8675309" else "8675310"
    yield Specimen(f"So it is $\\boxed{{{gold}}}$.", Outcome.CORRECT)
    yield Specimen(f"First \\boxed{{{other}}}. But no: \\boxed{{{gold}}}", Outcome.CORRECT)
    yield Specimen(f"\\boxed{{{gold}}} was my guess. Now I get \\boxed{{{other}}}.", Outcome.WRONG)
    yield Specimen(f"\\boxed{{{gold} \\text{{ or }} {other}}}", Outcome.WRONG)
    yield Specimen(f"\\boxed{{{gold}}} or \\boxed{{{other}}}", Outcome.WRONG)
    yield Specimen(f"\\boxed{{\\{{{gold}, {other}\\}}}}", Outcome.WRONG)
    yield Specimen(f"\\boxed{{{other}}} % \\boxed{{{gold}}}", Outcome.WRONG)
    yield Specimen(f"\\boxed{{{gold}}} \\boxed{{}}", Outcome.UNPARSED)
    yield Specimen(f"\\boxed{{{gold}", Outcome.UNPARSED)
    yield Specimen("\\boxed{" + "{" * 10_000 + gold + "}" * 10_000 + "}", Outcome.UNPARSED)
    yield Specimen("\\boxed{__import__('os').abort()}", Outcome.WRONG)
    yield Specimen("\\boxed{" + "9" * 900 + "}", Outcome.WRONG)
    yield Specimen("", Outcome.UNPARSED)
    yield Specimen(problem.prompt, Outcome.UNPARSED)
