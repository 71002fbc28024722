"""What a code problem's `answer` holds, in three forms.

Does: give the JSON of `Problem.answer` typed names, both ways.
Doesn't: read data rows (rows.py) or judge (verify.py).

- `Pairs`: {"entry_point", "inputs", "expected"}: the ladder, and rows that state what is returned.
- `Asserts`: {"entry_point", "setup", "tests", "names", "reference"}: tests as code, which call `names` of the program.
- `Differential`: {"entry_point", "arguments", "reference", "atol", "oracle"}: the reference tells what is expected;
  `arguments` are tagged (plain.py), one argument list each.

`reference` is a whole program that solves the task, "" where the row has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from harness.types import Json, Problem


class Pairs(NamedTuple):
    """`expected[i]` is the value of `entry_point(*inputs[i])`."""

    entry_point: str
    inputs: Sequence[Any]
    expected: Sequence[Any]


class Asserts(NamedTuple):
    entry_point: str
    setup: str
    tests: str
    names: Sequence[str]
    reference: str


class Differential(NamedTuple):
    entry_point: str
    arguments: Sequence[Any]
    reference: str
    atol: float
    oracle: str


Task: TypeAlias = Pairs | Asserts | Differential
_FORMS: tuple[type[Pairs] | type[Asserts] | type[Differential], ...] = (Pairs, Asserts, Differential)


def task_of(problem: Problem) -> Task:
    """Raises TypeError when the answer has none of the three forms."""
    answer: Any = problem.answer
    if isinstance(answer, Mapping):
        for form in _FORMS:
            if set(form._fields) <= answer.keys():
                return form(**{name: answer[name] for name in form._fields})
    raise TypeError(f"the answer of {problem.id} is no task for code")


def answer_of(task: Task) -> Json:
    return task._asdict()


def context_of(problem: Problem) -> str | None:
    """The code that stands before a completion of a public set; None for a ladder problem, which has a prefix."""
    context = problem.meta.get("context")
    return None if context is None else str(context)
