"""Judge a completion by what its function returns on the problem's inputs.

Does: extract the program, run it in the sandbox, compare the values here, where the expected ones are.
Doesn't: believe anything else that the program's process says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from harness.types import Outcome, Problem, Verdict
from harness_code.extract import canonical, lenient_program, strict_program
from harness_code.sandbox import Call, Limits, Report, same

LIMITS = Limits()
Run = Callable[[str, str, Sequence[Any], Limits], Report]


class Answer(NamedTuple):
    """The problem's answer: `expected[i]` is the value of `entry_point(*inputs[i])`."""

    entry_point: str
    inputs: Sequence[Any]
    expected: Sequence[Any]


def answer_of(problem: Problem) -> Answer:
    answer: Any = problem.answer
    if not isinstance(answer, Mapping):
        raise TypeError(f"the answer of {problem.id} is no mapping")
    return Answer(str(answer["entry_point"]), answer["inputs"], answer["expected"])


def verify(problem: Problem, completion: str, run: Run) -> Verdict:
    """Raises SandboxFailure through `run` when the sandbox itself fails."""
    answer = answer_of(problem)
    in_format = strict_program(problem, completion, answer.entry_point)
    program = in_format if problem.strict else lenient_program(problem, completion, answer.entry_point)
    if program is None:
        return Verdict(outcome=Outcome.UNPARSED, detail="no function body in the demanded format")
    report = run(program, answer.entry_point, answer.inputs, LIMITS)
    outcome, detail = _judge(answer.expected, report, lenient=not problem.strict)
    return Verdict(outcome=outcome, extracted=canonical(program), format_ok=in_format is not None, detail=detail)


class _Judgement(NamedTuple):
    outcome: Outcome
    detail: str


def _judge(expected: Sequence[Any], report: Report, *, lenient: bool) -> _Judgement:
    if report.limit:
        return _Judgement(Outcome.TIMEOUT, f"{report.limit} limit")
    for number, (value, call) in enumerate(zip(expected, report.calls, strict=False)):
        if not (same(value, call.value) or (lenient and _printed(value, call))):
            return _Judgement(Outcome.WRONG, f"input {number} of {len(expected)}")
    if report.failure or len(report.calls) != len(expected):
        return _Judgement(Outcome.WRONG, report.failure or "values are missing")
    return _Judgement(Outcome.CORRECT, "")


def _printed(expected: Any, call: Call) -> bool:
    """A function that returns nothing is judged, leniently, by the last line that it printed."""
    lines = call.printed.strip().splitlines()
    return call.value is None and bool(lines) and lines[-1].strip() == str(expected)
