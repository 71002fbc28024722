"""The code domain: complete a Python function.

Does: name the benchmarks, read data rows, judge completions, make specimens.
Doesn't: run anything in its own process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.contracts import Benchmark, Specimen
from harness.errors import UnknownName
from harness.types import Outcome, Problem, Verdict
from harness_code import data, kernel, ladder, rows
from harness_code.sandbox import Sandbox, level, probe
from harness_code.tasks import Pairs, task_of
from harness_code.verify import Judge, program_of, wall_limit

_MARGIN_SECONDS = 3.0


class Code:
    """Domain "code". Holds a warm sandbox, started by the first verdict (or by `open`) and left out of pickles."""

    name = "code"
    version = 2
    isolation = staticmethod(level)

    @staticmethod
    def isolation_notes() -> list[str]:
        """How the level was found, and why it is not a stronger one: for `harness doctor`."""
        found = probe()
        open_ = f"; it could {', '.join(found.open)}" if found.open else ""
        return [f"tried with a right, a wrong and a hostile program{open_}", *(f"not {why}" for why in found.refused)]

    def __init__(self, sandbox: Sandbox | None = None) -> None:
        self._sandbox = sandbox or Sandbox()
        self._judge = Judge(self._sandbox)

    def __reduce__(self) -> tuple[type[Code], tuple[()]]:
        return Code, ()

    def open(self) -> None:
        """For a pool worker: hide the worker's memory, which holds expected values, and warm the sandbox up."""
        kernel.hide_memory()
        self._sandbox.start()

    def close(self) -> None:
        self._sandbox.close()

    def time_limit(self, problem: Problem) -> float:
        """Wider than the sandbox's own limits, which are the ones meant to be met."""
        return wall_limit(problem) + _MARGIN_SECONDS

    def benchmarks(self) -> Iterator[Benchmark]:
        yield Benchmark(
            name="ladder",
            splits=("train", "selection", "test"),
            answer_format="strict",
            licence="Apache-2.0",
            source="generated: plugins/harness_code/ladder.py",
            max_tokens=128,
        )
        yield from (found.benchmark for found in data.SETS.values())

    def problems(self, benchmark: str, split: str, *, seed: int, limit: int) -> Iterator[Problem]:
        """Raises UsageError (UnknownName) for what there is not, or cannot be had."""
        if benchmark == "ladder":
            return ladder.problems(split, seed=seed, limit=limit)
        if benchmark not in data.SETS:
            raise UnknownName("code benchmark", benchmark, [known.name for known in self.benchmarks()])
        return data.problems(benchmark, split, seed=seed, limit=limit)

    def read(self, row: Mapping[str, Any]) -> Problem:
        """A row of HumanEval, MBPP, EvalPlus or {prompt, entry_point, inputs, expected}. Raises BadRow."""
        return rows.read(row)

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """One row of each kind that `read` understands."""
        yield from rows.EXAMPLES

    def verify(self, problem: Problem, completion: str) -> Verdict:
        return self._judge.verify(problem, completion)

    def program(self, problem: Problem, completion: str) -> str | None:
        """See harness.contracts.Domain."""
        return program_of(problem, completion)

    def specimens(self, problem: Problem) -> Iterator[Specimen]:
        """What every program must be judged as; the gold only where the problem tells one."""
        task = task_of(problem)
        if problem.strict and isinstance(task, Pairs):
            yield from _ladder_specimens(problem, task)
            return
        name = task.entry_point
        reference = _table(task) if isinstance(task, Pairs) else task.reference
        if reference:
            yield Specimen(
                f"Here is the function.\n\n```python\n{reference}\n```\nIt does what was asked.", Outcome.CORRECT
            )
        yield Specimen(f"def {name}(*arguments, **named):\n    return 'no such answer'\n", Outcome.WRONG)
        yield Specimen(f"class {name}:\n    def __init__(self, *arguments):\n        pass\n", Outcome.WRONG)
        yield Specimen(f"{_SAME}\ndef {name}(*arguments, **named):\n    return Same()\n", Outcome.WRONG)
        yield Specimen(f"def {name}(*arguments, **named):\n    raise SystemExit(0)\n", Outcome.WRONG)
        yield Specimen(f"import os\ndef {name}(*arguments, **named):\n    os._exit(0)\n", Outcome.WRONG)
        yield Specimen(f"def {name}(*arguments, **named):\n    while True:\n        pass\n", Outcome.TIMEOUT)
        yield Specimen("I would sort the list first.", Outcome.UNPARSED)
        yield Specimen("", Outcome.UNPARSED)


_SAME = "class Same:\n    __eq__ = __ge__ = __le__ = lambda self, other: True\n    __ne__ = lambda self, other: False"


def _table(task: Pairs) -> str:
    """A program that looks the expected values up: independent of how a task is solved."""
    table = {repr(inputs): value for inputs, value in zip(task.inputs, task.expected, strict=True)}
    return f"def {task.entry_point}(*arguments):\n    return {table!r}[repr(list(arguments))]\n"


def _ladder_specimens(problem: Problem, task: Pairs) -> Iterator[Specimen]:
    table = {repr(inputs[0]): value for inputs, value in zip(task.inputs, task.expected, strict=True)}
    gold = f"    return {table!r}[repr(a)]\n"
    yield Specimen(gold, Outcome.CORRECT)
    yield Specimen(f"    return ({table!r}[repr(a)],)\n", Outcome.WRONG)
    yield Specimen("    return None\n", Outcome.WRONG)
    yield Specimen(f"    print({table!r}[repr(a)])\n", Outcome.UNPARSED)
    yield Specimen(gold + "print(1)\n", Outcome.UNPARSED)
    yield Specimen(gold + "    return (\n", Outcome.UNPARSED)
    yield Specimen("", Outcome.UNPARSED)
    yield Specimen("    raise SystemExit(0)\n    return 0\n", Outcome.WRONG)
    yield Specimen("    import os\n    os._exit(0)\n    return 0\n", Outcome.WRONG)
    yield Specimen("    class Same:\n        __eq__ = lambda self, other: True\n    return Same()\n", Outcome.WRONG)
    yield Specimen("    while True:\n        pass\n    return 0\n", Outcome.TIMEOUT)
    yield Specimen("    return [0] * 10**11\n", Outcome.TIMEOUT)
    yield Specimen(problem.prompt, Outcome.UNPARSED)
