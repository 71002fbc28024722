"""Compare the code domain's verdicts with EvalPlus's own check, on published solutions and on failing variants of them.

Usage: python benchmarks/verifiers/evalplus_agreement.py [EVERY]   (one row in EVERY, default 1; needs evalplus and the data folder)

Does: judge every row's solution and variants of it (each value off by one, the last input wrong, an equal value of
another type, another container, None) with both, print each disagreement and the counts.
Doesn't: fetch EvalPlus's data: rows are the prereleases of HumanEval+ and MBPP+ in HARNESS_DATA. What is expected is computed from
the row's solution here, in this process, as EvalPlus does: run it on published rows only.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from harness import config
from harness.types import Outcome
from harness_code import plain, rows
from harness_code.sandbox import Sandbox
from harness_code.tasks import Differential, answer_of, task_of
from harness_code.verify import Judge, ReferenceFailure

FILES = {"humaneval": "code/humanevalplus_prerelease.jsonl", "mbpp": "code/mbppplus_prerelease.jsonl"}
CHANGES = {
    "solution": "v",
    "off by one": "v + 1 if isinstance(v, (int, float, complex)) else v[1:] if isinstance(v, (str, list, tuple)) and v else [v]",
    "wrong edge case": "v if repr(a) != _last else [v, v]",
    "wrong type": "str(v) if isinstance(v, (int, float)) else list(v) if isinstance(v, (str, tuple)) else tuple(v) if isinstance(v, list) else [v]",
    "equal type": "float(v) if isinstance(v, int) and abs(v) < 2 ** 53 else int(v) if isinstance(v, float) and v == v // 1 else v",
    "nearly": "v + 5e-7 if isinstance(v, float) else v",
    "none": "None",
}


def variant(solution: str, entry_point: str, change: str, last: str) -> str:
    """The solution with its value changed by an expression of `v` and the arguments `a`."""
    return f"{solution}\n_right, _last = {entry_point}, {last!r}\ndef {entry_point}(*a):\n    _a = a\n    a = __import__('copy').deepcopy(a)\n    v = _right(*_a)\n    return {change}\n"


def published(name: str) -> Iterator[Mapping[str, Any]]:
    """Rows in EvalPlus's own field names; the prerelease of HumanEval+ has other ones, and no prompts."""
    folder = config.data_folder()
    if folder is None or not (folder / FILES[name]).exists():
        print(f"skipped: {FILES[name]} is not in the data folder (HARNESS_DATA)")
        return
    prompts = {}
    if name == "humaneval":
        with open(folder / "code/humaneval.jsonl") as file:
            prompts = {row["task_id"]: row for row in map(json.loads, file)}
    with open(folder / FILES[name]) as file:
        for row in map(json.loads, file):
            if name == "mbpp":
                yield row
                continue
            known = prompts[row["task_id"]]
            yield {
                "task_id": row["task_id"],
                "prompt": known["prompt"],
                "entry_point": known["entry_point"],
                "canonical_solution": row["reference"],
                "base_input": _listed(row["base_input"]),
                "plus_input": _listed(row["inputs"] or []),
                "atol": row["atol"],
            }


def _listed(value: Any) -> Any:
    """Some rows hold lists, others their text."""
    return ast.literal_eval(value) if isinstance(value, str) else value


class Peer:
    """EvalPlus: what it expects, and what it says of a program."""

    def __init__(self, name: str, task: Differential) -> None:
        self._check = importlib.import_module("evalplus.eval")
        self._name, self._task = name, task
        self.kept: list[int] = []
        self._inputs: list[Any] = []
        self._expected: list[Any] = []
        self._times: list[float] = []
        execute = importlib.import_module("evalplus.gen.util").trusted_exec
        not_none = name == "mbpp" and task.entry_point in self._check.MBPP_OUTPUT_NOT_NONE_TASKS
        for place, given in enumerate(task.arguments):
            arguments = plain.decode(given)
            with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()), self._check.time_limit(2.0):
                (value,), (seconds,) = execute(task.reference, [arguments], task.entry_point, record_time=True)
                self.kept.append(place)
                self._inputs.append(arguments)
                self._expected.append(value is not None if not_none else value)
                self._times.append(seconds)

    def says(self, program: str) -> str:
        task = self._task
        word, _ = self._check.untrusted_check(
            self._name,
            program,
            self._inputs,
            task.entry_point,
            expected=self._expected,
            atol=task.atol,
            ref_time=self._times,
            fast_check=True,
        )
        return str(word)

    @property
    def last(self) -> str:
        return repr(tuple(self._inputs[-1]))


def compare(name: str, row: Mapping[str, Any], judge: Judge, counts: Counter[str]) -> None:
    task = task_of(rows.read(row))
    assert isinstance(task, Differential)
    peer = Peer(name, task)
    if not peer.kept:
        counts["rows without an input that the solution takes"] += 1
        return
    # Inputs that break the solution itself are left out on both sides: the prereleases have not filtered them.
    problem = rows.read(row)
    problem = replace(problem, answer=answer_of(task._replace(arguments=[task.arguments[k] for k in peer.kept])))
    for title, change in CHANGES.items():
        program = variant(task.reference, task.entry_point, change, peer.last)
        ours, theirs = judge.verify(problem, f"```python\n{program}```"), peer.says(program)
        agrees = (ours.outcome is Outcome.CORRECT) == (theirs == "pass")
        counts[f"{title}: {'both say ' + theirs if agrees else 'they differ'}"] += 1
        if not agrees:
            print(f"{problem.id} {title}: {ours.outcome.value} ({ours.detail}), evalplus says {theirs}", flush=True)


def main(every: int) -> None:
    try:
        importlib.import_module("evalplus.eval")
    except ImportError as error:
        print(f"skipped: evalplus cannot be imported ({error}): pip install evalplus==0.3.1")
        return
    sandbox = Sandbox()
    for name in FILES:
        counts: Counter[str] = Counter()
        for row in list(published(name))[::every]:
            try:
                compare(name, row, Judge(sandbox), counts)
            except ReferenceFailure as failure:
                counts["solutions that fail here"] += 1
                print(failure)
        print(
            f"{name} at level {sandbox.level}:",
            *sorted(f"{title} {count}" for title, count in counts.items()),
            sep="\n  ",
        )
    sandbox.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
