"""Domains with one mistake each, by the rule of the conformance kit that must name it; imported by verifier workers."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from harness.contracts import Benchmark, Specimen
from harness.templates.domain.harness_placeholder.domain import Placeholder
from harness.types import Outcome, Problem, Verdict


class VersionAsText(Placeholder):
    breaks = "domain.metadata"
    version = "1"  # type: ignore[assignment]


class NoLicence(Placeholder):
    breaks = "domain.metadata"

    def benchmarks(self) -> Iterator[Benchmark]:
        return (benchmark._replace(licence="") for benchmark in super().benchmarks())


class NoSpecimensAtAll(Placeholder):
    breaks = "domain.metadata"
    specimens = None  # type: ignore[assignment]


class CannotDraw(Placeholder):
    breaks = "domain.draw"

    def problems(self, *arguments: Any, **options: Any) -> Iterator[Problem]:
        raise TypeError("levels")


class EmptySplit(Placeholder):
    breaks = "domain.draw"

    def problems(self, benchmark: str, split: str, **options: Any) -> Iterator[Problem]:
        found = super().problems(benchmark, split, **options)
        return iter(()) if split == "selection" else found


class Changed(Placeholder):
    """Every problem changed by `change`."""

    def change(self, problem: Problem) -> Problem:
        return problem

    def problems(self, *arguments: Any, **options: Any) -> Iterator[Problem]:
        return map(self.change, super().problems(*arguments, **options))


class AnswerIsATuple(Changed):
    breaks = "domain.problems"

    def change(self, problem: Problem) -> Problem:
        return replace(problem, answer=(problem.answer,))  # type: ignore[arg-type]


class AnotherFormat(Changed):
    breaks = "domain.problems"

    def change(self, problem: Problem) -> Problem:
        return replace(problem, meta={"answer_format": "lenient"})


class IgnoresTheLimit(Placeholder):
    breaks = "domain.problems"

    def problems(self, *arguments: Any, limit: int, **options: Any) -> Iterator[Problem]:
        return super().problems(*arguments, limit=limit + 1, **options)


class NeverStops(Placeholder):
    breaks = "domain.problems"

    def problems(self, *arguments: Any, **options: Any) -> Iterator[Problem]:
        first = next(super().problems(*arguments, **options))
        return itertools.repeat(first)


class OneIdForAll(Changed):
    breaks = "domain.ids"

    def change(self, problem: Problem) -> Problem:
        return replace(problem, id="sum")


class OneSplitForAll(Changed):
    breaks = "domain.splits"

    def problems(self, benchmark: str, split: str, **options: Any) -> Iterator[Problem]:
        found = super().problems(benchmark, "test", **options)
        return (replace(problem, id=f"{split}/{problem.id}") for problem in found)


class AnotherOrderEachTime(Placeholder):
    breaks = "domain.repeatable"
    drawn = 0

    def problems(self, benchmark: str, split: str, *, seed: int, limit: int) -> Iterator[Problem]:
        self.drawn += 1
        return super().problems(benchmark, split, seed=self.drawn, limit=limit)


class TakesAnyBenchmark(Placeholder):
    breaks = "domain.names"

    def problems(self, benchmark: str, split: str, **options: Any) -> Iterator[Problem]:
        return super().problems("ladder", split, **options)


class UnhelpfulAboutNames(Placeholder):
    breaks = "domain.names"

    def problems(self, benchmark: str, split: str, **options: Any) -> Iterator[Problem]:
        return super().problems({"ladder": "ladder"}[benchmark], split, **options)


class GoldOnly(Placeholder):
    breaks = "domain.specimens"

    def specimens(self, problem: Problem) -> Iterator[Specimen]:
        return (specimen for specimen in super().specimens(problem) if specimen.expected is Outcome.CORRECT)


class CannotBePickled(Placeholder):
    breaks = "domain.verdict"

    def __init__(self) -> None:
        self.lock = threading.Lock()


class Judging(Placeholder):
    """Every verdict changed by `change`."""

    def change(self, verdict: Verdict, problem: Problem, completion: str) -> Verdict:
        return verdict

    def verify(self, problem: Problem, completion: str) -> Verdict:
        return self.change(super().verify(problem, completion), problem, completion)


class ExtractsAnObject(Judging):
    breaks = "domain.verdict"

    def change(self, verdict: Verdict, problem: Problem, completion: str) -> Verdict:
        return replace(verdict, extracted=12)  # type: ignore[arg-type]


class ReturnsTrueOrFalse(Judging):
    breaks = "domain.verdict"

    def change(self, verdict: Verdict, problem: Problem, completion: str) -> Verdict:
        return verdict.outcome is Outcome.CORRECT  # type: ignore[return-value]


class EndsItsProcess(Judging):
    breaks = "domain.verdict"

    def change(self, verdict: Verdict, problem: Problem, completion: str) -> Verdict:
        os._exit(3)


class WantsNoPeriod(Judging):
    breaks = "domain.gold"

    def change(self, verdict: Verdict, problem: Problem, completion: str) -> Verdict:
        strange = completion.rstrip().endswith(".") and verdict.outcome is Outcome.CORRECT
        return replace(verdict, outcome=Outcome.WRONG) if strange else verdict


class NearlyWillDo(Judging):
    breaks = "domain.near_miss"

    def change(self, verdict: Verdict, problem: Problem, completion: str) -> Verdict:
        near = verdict.extracted == str(int(str(problem.answer)) + 1)
        return replace(verdict, outcome=Outcome.CORRECT) if near else verdict


class UnparsedIsWrong(Judging):
    breaks = "domain.outcomes"

    def change(self, verdict: Verdict, problem: Problem, completion: str) -> Verdict:
        unparsed = verdict.outcome is Outcome.UNPARSED
        return replace(verdict, outcome=Outcome.WRONG) if unparsed else verdict


class StumblesOverNul(Judging):
    breaks = "domain.junk"

    def change(self, verdict: Verdict, problem: Problem, completion: str) -> Verdict:
        if "\x00" in completion:
            raise ValueError("embedded null byte")
        return verdict


class TooSlow(Judging):
    breaks = "domain.time"

    def time_limit(self, problem: Problem) -> float:
        return 0.7

    def change(self, verdict: Verdict, problem: Problem, completion: str) -> Verdict:
        if completion.startswith("1,1,") and problem.strict:
            time.sleep(60)
        return verdict


class SlowWithinItsLimit(Judging):
    breaks = "domain.time"

    def time_limit(self, problem: Problem) -> float:
        return 60.0

    def change(self, verdict: Verdict, problem: Problem, completion: str) -> Verdict:
        if completion.startswith("1,1,") and problem.strict:
            time.sleep(5.1)
        return verdict


class PaysForLength(Judging):
    breaks = "domain.junk_reward"

    def change(self, verdict: Verdict, problem: Problem, completion: str) -> Verdict:
        return replace(verdict, outcome=Outcome.CORRECT) if completion.startswith("lorem") else verdict


class PaysForTheQuestion(Judging):
    breaks = "domain.echo"

    def change(self, verdict: Verdict, problem: Problem, completion: str) -> Verdict:
        return replace(verdict, outcome=Outcome.CORRECT) if problem.prompt in completion else verdict


class Counts(Judging):
    breaks = "domain.deterministic"
    judged = 0

    def change(self, verdict: Verdict, problem: Problem, completion: str) -> Verdict:
        self.judged += 1
        return replace(verdict, extracted=f"{verdict.extracted} {self.judged}")


class NamesItsProcess(Judging):
    breaks = "domain.process"

    def change(self, verdict: Verdict, problem: Problem, completion: str) -> Verdict:
        return replace(verdict, extracted=f"{verdict.extracted} {os.getpid()}")


class AnotherAnswerLeniently(Judging):
    breaks = "domain.lenient"

    def change(self, verdict: Verdict, problem: Problem, completion: str) -> Verdict:
        return verdict if problem.strict else replace(verdict, extracted=f"{verdict.extracted}.0")


class StumblesOverRows(Placeholder):
    breaks = "domain.read"

    def read(self, row: Mapping[str, Any]) -> Problem:
        return super().read({"question": row["question"], "answer": row["answer"]})


class ReadsAnything(Placeholder):
    breaks = "domain.read"

    def read(self, row: Mapping[str, Any]) -> Problem:
        return super().read({"question": "1?", "answer": 1, **{k: v for k, v in row.items() if k == "id"}})


class RowsWithoutReader(Placeholder):
    breaks = "domain.read"
    read = property()  # type: ignore[assignment]


class ForgetsTheAnswer(Placeholder):
    breaks = "domain.rows"

    def read(self, row: Mapping[str, Any]) -> Problem:
        return replace(super().read(row), answer=0)

    def specimens(self, problem: Problem) -> Iterator[Specimen]:
        return super().specimens(problem if problem.strict else replace(problem, answer=14))


BROKEN = sorted(
    (c for c in vars().copy().values() if isinstance(c, type) and "breaks" in vars(c)), key=lambda c: c.breaks
)
