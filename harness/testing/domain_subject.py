"""What the rules of a domain look at: its problems, and the verdicts on everything they are tried with.

Does: draw a few problems of every benchmark that can be had without a network; gather specimens, junk and echoed
prompts; have them judged by the verifier pool, which bounds time and survives whatever the verifier does.
Doesn't: judge in this process: a hostile specimen could hang or kill it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

from harness.contracts import Benchmark, Domain, Specimen
from harness.errors import BadRow, UsageError
from harness.plugins import Registration
from harness.testing.junk import JUNK, SMALL
from harness.testing.rules import loaded
from harness.types import Outcome, Problem, Verdict
from harness.verifying import VerifierPool

DRAWN = 120  # problems of each split whose ids and hashes are compared
TRIED = 12  # problems in all whose specimens are judged
ROWS_OF_ITS_OWN = "rows"  # stands for a benchmark where problems are made from rows()
Drawn = Mapping[str, Mapping[str, Sequence[Problem]]]


class Case(NamedTuple):
    """One completion to judge. `kind` is gold, miss, junk or echo; `expected` is None where any outcome but a reward is right."""

    benchmark: str
    problem: Problem
    kind: str
    name: str
    completion: str
    expected: Outcome | None = None

    @property
    def place(self) -> str:
        return f"{self.benchmark}, problem {self.problem.id}, {self.name}"


class Judged(NamedTuple):
    case: Case
    verdict: Verdict


class DomainSubject:
    """A registered domain under check. Everything is drawn and judged once, when a rule first asks."""

    def __init__(self, registration: Registration) -> None:
        self.registration = registration
        self._pool = VerifierPool(registration.target)

    def close(self) -> None:
        self._pool.close()

    @cached_property
    def domain(self) -> Any:
        return loaded(self.registration)()

    @cached_property
    def benchmarks(self) -> list[Benchmark]:
        return list(self.domain.benchmarks())

    @cached_property
    def _tried_to_draw(self) -> tuple[dict[str, dict[str, list[Problem]]], dict[str, str]]:
        drawn: dict[str, dict[str, list[Problem]]] = {}
        absent: dict[str, str] = {}
        for benchmark in self.benchmarks:
            try:
                drawn[benchmark.name] = {split: self.draw(benchmark.name, split) for split in benchmark.splits}
            except UsageError as reason:
                absent[benchmark.name] = str(reason)
        return drawn, absent

    def draw(self, benchmark: str, split: str) -> list[Problem]:
        """DRAWN problems, and one more from a domain that does not stop there: it may never stop."""
        return list(islice(self.domain.problems(benchmark, split, seed=0, limit=DRAWN), DRAWN + 1))

    @property
    def drawn(self) -> Drawn:
        """Problems by benchmark and split, of the benchmarks that are there."""
        return self._tried_to_draw[0]

    @property
    def absent(self) -> Mapping[str, str]:
        """Benchmarks that could not be drawn, with the reason."""
        return self._tried_to_draw[1]

    @cached_property
    def tried(self) -> list[tuple[str, Problem]]:
        """A few problems of every benchmark that is there, of its last split; where none is, those of its rows."""
        if not self.drawn:
            return [(ROWS_OF_ITS_OWN, problem) for problem in self.of_rows]
        each = max(2, TRIED // max(1, len(self.drawn)))
        return [
            (name, problem)
            for name, splits in self.drawn.items()
            for problem in list(splits.values())[-1][:each]
        ]  # fmt: skip

    @cached_property
    def of_rows(self) -> list[Problem]:
        """Problems made from the domain's own example rows; none from a row that it refuses."""
        found = []
        for row in self.rows:
            with suppress(BadRow):
                found.append(self.domain.read(row))
        return found

    @cached_property
    def rows(self) -> list[Mapping[str, Any]]:
        """The domain's own example rows; none where it offers or reads none."""
        offered = getattr(self.domain, "rows", None)
        return list(offered()) if offered is not None and hasattr(self.domain, "read") else []

    @cached_property
    def specimens(self) -> list[tuple[str, Problem, list[Specimen]]]:
        return [(name, problem, list(self.domain.specimens(problem))) for name, problem in self.tried]

    @cached_property
    def specimen_cases(self) -> list[Case]:
        """Gold and the rest. Those that run into a limit are slow by nature, so only the first problem's are judged."""
        cases = []
        for index, (name, problem, specimens) in enumerate(self.specimens):
            for number, (completion, expected) in enumerate(specimens, start=1):
                kind = "gold" if expected is Outcome.CORRECT else "miss"
                if expected is not Outcome.TIMEOUT or index == 0:
                    cases.append(Case(name, problem, kind, f"specimen {number}", completion, expected))
        return cases

    @cached_property
    def junk_cases(self) -> list[Case]:
        """Junk on one problem of each benchmark, read strictly and leniently where runs do both."""
        firsts = list({name: problem for name, problem in reversed(self.tried)}.items())
        return [
            Case(name, read, "junk", label, text)
            for name, problem in reversed(firsts)
            for read in readings(problem)
            for label, text in JUNK.items()
        ]

    @cached_property
    def specimen_verdicts(self) -> list[Judged]:
        return self.judge(self.specimen_cases)

    @cached_property
    def junk_verdicts(self) -> list[Judged]:
        return self.judge(self.junk_cases)

    @cached_property
    def settled(self) -> list[Judged]:
        """What may be judged again at little cost: every specimen and small junk that met no limit and no error."""
        small = [found for found in self.junk_verdicts if len(found.case.completion) <= SMALL]
        limits = (Outcome.TIMEOUT, Outcome.ERROR)
        return [found for found in (*self.specimen_verdicts, *small) if found.verdict.outcome not in limits]

    def judge(self, cases: Sequence[Case]) -> list[Judged]:
        """By the worker that has judged everything so far."""
        return _judge(self._pool, cases)

    def judge_elsewhere(self, cases: Sequence[Case]) -> list[Judged]:
        """By a process of its own, which has seen nothing else."""
        with VerifierPool(self.registration.target) as pool:
            return _judge(pool, cases)

    def golds_of(self, problem: Problem) -> list[Verdict]:
        found = self.specimen_verdicts
        return [verdict for case, verdict in found if case.kind == "gold" and case.problem is problem]


def _judge(pool: VerifierPool, cases: Sequence[Case]) -> list[Judged]:
    verdicts = pool.verify([(case.problem, case.completion) for case in cases])
    return [Judged(case, verdict) for case, verdict in zip(cases, verdicts, strict=True)]


def leniently(problem: Problem) -> Problem:
    """The same problem in the lenient answer format."""
    return replace(problem, meta={**problem.meta, "answer_format": "lenient"})


def readings(problem: Problem) -> list[Problem]:
    """The problem as runs have it judged: in its own format, and leniently where that is another."""
    return [problem, leniently(problem)] if problem.strict else [problem]


def members_of(protocol: type[Any] = Domain) -> list[str]:
    """The methods a protocol demands."""
    return [name for name, value in vars(protocol).items() if callable(value) and not name.startswith("_")]
