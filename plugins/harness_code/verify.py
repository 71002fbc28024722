"""Judge a completion by what its function returns.

Does: extract the program, run it in the sandbox, compare the values here, where the expected ones are; or have tests that
come as code run in a process apart from the program. Scale limits with the time that the reference takes.
Doesn't: believe anything else that the program's process says.
"""

from __future__ import annotations

import json
import marshal
import math
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from harness.types import Outcome, Problem, Verdict
from harness_code import plain
from harness_code.chat import find_program
from harness_code.comparing import first_difference, identical
from harness_code.extract import canonical, lenient_program, strict_program
from harness_code.sandbox import Answer, Call, Exam, Limits, Report, Sandbox, Timed
from harness_code.tasks import Asserts, Differential, Pairs, Task, context_of, task_of

LADDER = Limits()
# CPU seconds for public sets: ten times what the reference takes, within these bounds.
FACTOR, FLOOR, DIFFERENTIAL_FLOOR, CAP = 10, 3, 10, 30
_MEMORY, _REPLY = 2 << 30, 32 << 20
_KEPT = 64


class ReferenceFailure(Exception):
    """A row's own solution fails: its expected values cannot be known."""


def scaled(floor: int, reference: float = 0.0) -> Limits:
    """The limits for a program whose reference takes `reference` CPU seconds."""
    cpu = min(CAP, max(floor, math.ceil(FACTOR * reference)))
    return Limits(cpu=cpu, wall=2.0 * cpu + 3.0, memory=_MEMORY, reply=_REPLY)


def wall_limit(problem: Problem) -> float:
    """Wall seconds that one verdict takes at most when every limit is met, the reference's included."""
    task = task_of(problem)
    if isinstance(task, Pairs):
        return LADDER.wall if context_of(problem) is None else scaled(FLOOR).wall
    return 2 * scaled(CAP).wall if task.reference else scaled(FLOOR).wall


class Reference(NamedTuple):
    """What a row's own solution takes and, for `Differential` tasks, the arguments, also as JSON, and what it returns.

    `reply` is its answer as it came where the same answer again would be right (empty: it would not, as with NaN).
    """

    cpu: float
    text: str = ""
    arguments: tuple[Any, ...] = ()
    expected: tuple[Any, ...] = ()
    reply: bytes = b""


class Judge:
    """Verdicts by one sandbox. Remembers what references returned for the problems it met last."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._references: OrderedDict[bytes, Reference] = OrderedDict()

    def verify(self, problem: Problem, completion: str) -> Verdict:
        """Raises SandboxFailure when the sandbox itself fails, ReferenceFailure when the row's solution does."""
        task = task_of(problem)
        found = _program(problem, completion, task.entry_point)
        if found.program is None:
            return Verdict(outcome=Outcome.UNPARSED, detail=found.reason)
        outcome, detail = self._judge(problem, task, found.program)
        return Verdict(outcome=outcome, extracted=canonical(found.program), format_ok=found.in_format, detail=detail)

    def _judge(self, problem: Problem, task: Task, program: str) -> _Judgement:
        match task:
            case Pairs(entry_point, inputs, expected):
                ladder = context_of(problem) is None
                report = self._sandbox.run(program, entry_point, inputs, LADDER if ladder else scaled(FLOOR))
                return _judge_pairs(expected, report, printed_counts=ladder and not problem.strict)
            case Asserts():
                limits = scaled(FLOOR, self._reference(problem, task).cpu if task.reference else 0.0)
                return _judge_report(self._examine(task, program, limits).report)
            case Differential():
                reference = self._reference(problem, task)
                limits = scaled(DIFFERENTIAL_FLOOR, reference.cpu)
                answer = self._call(task, program, text=reference.text, limits=limits)
                if answer.reply and answer.reply == reference.reply:
                    return _Judgement(Outcome.CORRECT, "")
                return _judge_values(task, reference, answer.report())

    def _examine(self, task: Asserts, program: str, limits: Limits) -> Timed:
        return self._sandbox.examine(program, Exam(task.setup, task.tests, task.names), limits=limits)

    def _call(self, task: Differential, program: str, *, text: str, limits: Limits) -> Answer:
        return self._sandbox.call(program, task.entry_point, text, limits=limits, tagged=True)

    def _reference(self, problem: Problem, task: Asserts | Differential) -> Reference:
        # Not by the problem's id and content hash: rows of the same prompt and solution may have other inputs.
        # Version 2 of the format says the same of equal values.
        key = sha256(marshal.dumps((type(task).__name__, *task), 2)).digest()
        if key not in self._references:
            self._references[key] = self._run_reference(problem, task)
            if len(self._references) > _KEPT:
                self._references.popitem(last=False)
        return self._references[key]

    def _run_reference(self, problem: Problem, task: Asserts | Differential) -> Reference:
        """A reference that fails its tests is no fault of a completion's: only the time it took is used."""
        if isinstance(task, Asserts):
            return Reference(self._examine(task, task.reference, scaled(CAP)).cpu)
        text = json.dumps(task.arguments)
        answer = self._call(task, task.reference, text=text, limits=scaled(CAP))
        report = answer.report()
        if report.limit or report.failure or len(report.calls) != len(task.arguments):
            why = f"{report.limit} limit" if report.limit else report.failure
            raise ReferenceFailure(f"the solution of {problem.id} fails on input {len(report.calls)}: {why}")
        arguments = tuple(plain.decode(given) for given in task.arguments)
        found = Reference(answer.ending.cpu, text, arguments, tuple(call.value for call in report.calls))
        again = _judge_values(task, found, answer.report())
        return found._replace(reply=answer.reply or b"") if again.outcome is Outcome.CORRECT else found


def program_of(problem: Problem, completion: str) -> str | None:
    """The whole program that `Judge.verify` runs of a completion; None where it is unparsed."""
    return _program(problem, completion, task_of(problem).entry_point).program


class _Program(NamedTuple):
    program: str | None
    in_format: bool
    reason: str


def _program(problem: Problem, completion: str, entry_point: str) -> _Program:
    context = context_of(problem)
    if context is not None:
        found = find_program(context, completion, entry_point)
        reason = f"no program that defines {entry_point}"
        return _Program(found.program, found.whole, "") if found else _Program(None, False, reason)
    in_format = strict_program(problem, completion, entry_point)
    program = in_format if problem.strict else lenient_program(problem, completion, entry_point)
    return _Program(program, in_format is not None, "no function body in the demanded format")


class _Judgement(NamedTuple):
    outcome: Outcome
    detail: str


def _judge_report(report: Report) -> _Judgement:
    """What holds for every kind of task, before any value is looked at."""
    if report.limit:
        return _Judgement(Outcome.TIMEOUT, f"{report.limit} limit")
    return _Judgement(Outcome.WRONG if report.failure else Outcome.CORRECT, report.failure)


def _judge_pairs(expected: Sequence[Any], report: Report, *, printed_counts: bool) -> _Judgement:
    for number, (value, call) in enumerate(zip(expected, report.calls, strict=False)):
        if not (identical(value, call.value) or (printed_counts and _printed(value, call))):
            return _wrong_at(number, expected)
    return _complete(expected, report)


def _judge_values(task: Differential, reference: Reference, report: Report) -> _Judgement:
    values = [call.value for call in report.calls]
    expected = reference.expected
    number = first_difference(reference.arguments, expected, values, atol=task.atol, oracle=task.oracle)
    return _complete(expected, report) if number is None else _wrong_at(number, expected)


def _wrong_at(number: int, expected: Sequence[Any]) -> _Judgement:
    return _Judgement(Outcome.WRONG, f"input {number} of {len(expected)}")


def _complete(expected: Sequence[Any], report: Report) -> _Judgement:
    if not report.limit and not report.failure and len(report.calls) != len(expected):
        return _Judgement(Outcome.WRONG, "values are missing")
    return _judge_report(report)


def _printed(expected: Any, call: Call) -> bool:
    """A function that returns nothing is judged, leniently, by the last line that it printed."""
    lines = call.printed.strip().splitlines()
    return call.value is None and bool(lines) and lines[-1].strip() == str(expected)
