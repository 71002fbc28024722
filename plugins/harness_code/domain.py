"""The code domain: complete a Python function.

Does: name the benchmarks, judge completions, make specimens.
Doesn't: read data sets.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.contracts import Benchmark, Specimen
from harness.errors import UnknownName
from harness.types import Outcome, Problem, Verdict
from harness_code import ladder
from harness_code.sandbox import Sandbox, hide_memory, isolation
from harness_code.verify import LIMITS, answer_of, verify

_MARGIN_SECONDS = 3.0


class Code:
    """Domain "code". Holds a warm sandbox, started by the first verdict (or by `open`) and left out of pickles."""

    name = "code"
    version = 1
    isolation = staticmethod(isolation)

    def __init__(self) -> None:
        self._sandbox = Sandbox()

    def __reduce__(self) -> tuple[type[Code], tuple[()]]:
        return Code, ()

    def open(self) -> None:
        """For a pool worker: hide the worker's memory, which holds expected values, and warm the sandbox up."""
        hide_memory()
        self._sandbox.start()

    def close(self) -> None:
        self._sandbox.close()

    def time_limit(self, _: Problem) -> float:
        """Wider than the sandbox's own limits, which are the ones meant to be met."""
        return LIMITS.wall + _MARGIN_SECONDS

    def benchmarks(self) -> Iterator[Benchmark]:
        yield Benchmark(
            name="ladder",
            splits=("train", "selection", "test"),
            answer_format="strict",
            licence="Apache-2.0",
            source="generated: plugins/harness_code/ladder.py",
            max_tokens=128,
        )

    def problems(self, benchmark: str, split: str, *, seed: int, limit: int) -> Iterator[Problem]:
        if benchmark != "ladder":
            raise UnknownName("code benchmark", benchmark, [known.name for known in self.benchmarks()])
        return ladder.problems(split, seed=seed, limit=limit)

    def verify(self, problem: Problem, completion: str) -> Verdict:
        return verify(problem, completion, self._sandbox.run)

    def specimens(self, problem: Problem) -> Iterator[Specimen]:
        """The gold is a table of the expected values: independent of how the ladder writes its programs."""
        answer = answer_of(problem)
        table = {repr(inputs[0]): value for inputs, value in zip(answer.inputs, answer.expected, strict=True)}
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
