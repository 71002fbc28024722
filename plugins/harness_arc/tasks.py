"""ARC-AGI tasks: from a data row to problems, one for each test pair or one for all of them.

Does: check rows, write prompts.
Doesn't: find files (data.py) or judge (verify.py).

Departures from the published files:

1. Demonstrations stand in an order of their own, the smallest first. The two releases order the demonstrations of the
   tasks they share differently; so the same task has the same prompt, and its content hash finds it in either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from harness import datasets
from harness.errors import BadRow
from harness.types import Problem
from harness_arc.grids import MAX_SIDE, Grid, render, well_formed

_SHAPE = f"a list of 1 to {MAX_SIDE} rows of 1 to {MAX_SIDE} numbers 0 to 9, all rows of one width"
_RULE = "Each output grid is made from its input grid by one rule."
_FORM = "Grids are written one row a line, as colours 0 to 9 separated by spaces."


class Pair(NamedTuple):
    """An input grid and its output grid."""

    input: Grid
    output: Grid


class Task(NamedTuple):
    """A task as in the official files; `id` is the row's, or the start of its content hash where it has none."""

    id: str
    demonstrations: list[Pair]
    tests: list[Pair]


def read(row: Mapping[str, Any]) -> Problem:
    """One problem of a row {train, test, test_index?}: the pair at `test_index`, else all test pairs in order.

    Raises BadRow.
    """
    index = row.get("test_index")
    if index is None:
        task = task_of(row)
        return problem(task) if len(task.tests) > 1 else replace(problem(task, 0), id=task.id)
    tests = row.get("test")
    count = len(tests) if isinstance(tests, Sequence) else 0
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
        raise BadRow(f"field test_index: {_shown(index)} is no index of the {count} test pairs (0 is the first)")
    return problem(task_of(row, only=index), index)


def task_of(row: Mapping[str, Any], *, only: int | None = None) -> Task:
    """The task of a row; with `only`, the other test pairs need no output (and get their input). Raises BadRow."""
    for field in ("train", "test"):
        if not isinstance(row.get(field), list | tuple):
            raise BadRow(f"field {field}: a list of {{input, output}} pairs, found {_shown(row.get(field))}")
    if not row["test"]:
        raise BadRow("field test: empty; a task has at least one test pair")
    demonstrations = [_pair(pair, f"train[{i}]") for i, pair in enumerate(row["train"])]
    tests = [_pair(pair, f"test[{i}]", open_ended=only is not None and only != i) for i, pair in enumerate(row["test"])]
    name = next((str(row[key]) for key in ("task_id", "unique_id", "id") if row.get(key) is not None), "")
    task = Task(name, sorted(demonstrations, key=_order), tests)
    return task if name else task._replace(id=problem(task).content_hash[:16])


def problem(task: Task, index: int | None = None) -> Problem:
    """The problem of one test pair, or (None) of all of them: then the answer is a list of grids.

    `meta` says which task and pair it is; scoring.py needs that.
    """
    asked = task.tests if index is None else [task.tests[index]]
    return Problem(
        id=task.id if index is None else f"{task.id}/{index}",
        prompt=_prompt(task.demonstrations, [pair.input for pair in asked]),
        answer=[pair.output for pair in asked] if index is None else asked[0].output,
        meta={
            "answer_format": "lenient",
            "layout": "grid",
            "grids": len(asked),
            "task": task.id,
            "test_index": index,
            "pairs": len(task.tests),
        },
    )


def split_of(task: Task) -> str:
    """The split by the content hash of the demonstrations, which all pairs of a task share in every release."""
    return datasets.split_of(Problem(id="", prompt=_prompt(task.demonstrations, []), answer=None))


def _pair(value: object, field: str, *, open_ended: bool = False) -> Pair:
    if not isinstance(value, Mapping):
        raise BadRow(f"field {field}: an object {{input, output}}, found {_shown(value)}")
    grid = _grid(value.get("input"), f"{field}.input")
    return Pair(grid, grid if open_ended else _grid(value.get("output"), f"{field}.output"))


def _grid(value: object, field: str) -> Grid:
    rows = value if isinstance(value, list | tuple) else []
    numbers = all(isinstance(row, list | tuple) and all(type(cell) is int for cell in row) for row in rows)
    if not numbers or not well_formed(rows):
        raise BadRow(f"field {field}: {_shown(value)}; a grid is {_SHAPE}")
    return [list(row) for row in rows]


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _order(pair: Pair) -> tuple[int, str]:
    size = sum(len(grid) * len(grid[0]) for grid in pair)
    return size, json.dumps(pair)


def _prompt(demonstrations: Sequence[Pair], queries: Sequence[Grid]) -> str:
    """Demonstrations (there may be none), queries, and the place where the answer begins."""
    parts = [f"{_RULE} {_FORM}"]
    for number, pair in enumerate(demonstrations, start=1):
        parts.append(f"Example {number}\nInput:\n{render(pair.input)}\nOutput:\n{render(pair.output)}")
    if len(queries) == 1:
        return "\n\n".join([*parts, f"Test\nInput:\n{render(queries[0])}\nOutput:\n"])
    for number, query in enumerate(queries, start=1):
        parts.append(f"Test {number}\nInput:\n{render(query)}")
    parts.append(f"The outputs of tests 1 to {len(queries)} in order, with an empty line between them:\n")
    return "\n\n".join(parts)
