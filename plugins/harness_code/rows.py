"""Data rows in the field names of their data sets, as problems.

Does: understand HumanEval, MBPP, EvalPlus, LDB's MBPP and {prompt, entry_point, inputs, expected} rows (`read`).
Doesn't: load files (data.py) or run anything: a row whose tests fail its own solution becomes a problem all the same.

What a row's code is trusted with: tests, prompt and solution run in the sandbox like completions, in processes apart.
"""

from __future__ import annotations

import ast
import builtins
import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.errors import BadRow
from harness.types import Problem
from harness_code import plain
from harness_code.chat import helpers
from harness_code.comparing import oracle_of
from harness_code.extract import parse
from harness_code.restoring import restore
from harness_code.tasks import Asserts, Differential, Pairs, Task, answer_of

UNDERSTOOD = (
    "HumanEval {task_id, prompt, entry_point, test}, MBPP {text | prompt, code, test_list, test_imports}, EvalPlus "
    "{prompt, entry_point, canonical_solution, base_input, plus_input, atol} or {prompt, entry_point, inputs, expected}"
)
Row = Mapping[str, Any]
_PROMPT = 'def total(items):\n    """Add up the items."""\n'
# One of each kind.
EXAMPLES: tuple[Row, ...] = (
    {
        "task_id": "HumanEval/example",
        "prompt": _PROMPT,
        "entry_point": "total",
        "canonical_solution": "    return sum(items)\n",
        "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n",
    },
    {
        "task_id": 11,
        "text": "Write a function to add up the items of a list.",
        "code": "def total(items):\n    return sum(items)\n",
        "test_imports": [],
        "test_list": ["assert total([1, 2]) == 3", "assert total([]) == 0"],
    },
    {
        "task_id": "Mbpp/11",
        "prompt": _PROMPT,
        "entry_point": "total",
        "canonical_solution": "    return sum(items)\n",
        "base_input": [[[1, 2]]],
        "plus_input": [[[]], [[0.5, 0.25]]],
        "atol": 0,
    },
    {"id": "pairs", "prompt": _PROMPT, "entry_point": "total", "inputs": [[[1, 2]], [[]]], "expected": [3, 0]},
)
QUOTES = "'\""
_CODE_LINE = re.compile(r"(?:import|from|def|class|async) |@")
_STARTS = 20
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)


def read(row: Row) -> Problem:
    """One row, judged leniently. Raises BadRow that names the field, what was found and what is understood."""
    if "inputs" in row or "expected" in row:
        return _pairs(row)
    if "plus_input" in row:
        return _evalplus(row)
    if "test_list" in row:
        return _mbpp(row)
    if "test" in row:
        return _humaneval(row)
    found = ", ".join(sorted(map(str, row))) or "nothing"
    raise BadRow(f"field test: missing, found {found}; understood are {UNDERSTOOD}"[:600])


def problem_of(row: Row, *, prompt: str, context: str, task: Task) -> Problem:
    """A problem with the row's id, else the start of its content hash."""
    meta = {"answer_format": "lenient", "context": context}
    problem = Problem(id="", prompt=prompt, answer=answer_of(task), meta=meta)
    names = (row[name] for name in ("task_id", "unique_id", "id") if type(row.get(name)) in (str, int))
    return replace(problem, id=str(next(names, "")) or problem.content_hash[:16])


def _pairs(row: Row) -> Problem:
    prompt, entry_point = _text(row, "prompt"), _name(row)
    inputs, expected = _list(row, "inputs"), _list(row, "expected")
    for place, arguments in enumerate(inputs):
        if not isinstance(arguments, list):
            raise BadRow(f"field inputs: item {place} is {_shown(arguments)}, understood is a list of arguments")
    if len(inputs) != len(expected):
        raise BadRow(f"field expected: {len(expected)} values for {len(inputs)} inputs")
    for field in ("inputs", "expected"):
        _require_json(field, row[field])
    task = Pairs(entry_point, inputs, expected)
    return problem_of(row, prompt=prompt, context=_code_in(prompt, entry_point), task=task)


def _require_json(field: str, value: list[Any]) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise BadRow(f"field {field}: {error}; understood is plain JSON") from error


def _humaneval(row: Row) -> Problem:
    """Also LDB's rows, whose test calls `check` itself."""
    prompt, entry_point, test = _text(row, "prompt"), _name(row), _text(row, "test")
    calls = [
        node.value.func
        for node in _parsed("test", test).body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ]
    if not any(isinstance(called, ast.Name) and called.id == "check" for called in calls):
        test += f"\ncheck({entry_point})\n"
    context, solution = _code_in(prompt, entry_point), _optional_text(row, "canonical_solution")
    setup = helpers(context, entry_point)
    names = sorted({entry_point, *_unknown(test, setup, solution)})
    reference = _completed(prompt, solution, entry_point) if solution else ""
    return problem_of(row, prompt=prompt, context=context, task=Asserts(entry_point, setup, test, names, reference))


def _completed(prompt: str, solution: str, entry_point: str) -> str:
    """A row's solution as a whole program: it is a body (HumanEval) or a definition (MBPP)."""
    if f"def {entry_point}(" not in solution:
        return prompt + solution
    return f"{helpers(_code_in(prompt, entry_point), entry_point)}\n{solution}"


def _mbpp(row: Row) -> Problem:
    text = _text(row, "text" if "text" in row else "prompt")
    solution = _optional_text(row, "code") or _optional_text(row, "canonical_solution")
    asserts, imports = _texts(row, "test_list"), _texts(row, "test_imports") if "test_imports" in row else []
    if not asserts:
        raise BadRow("field test_list: empty, understood is a list of asserts as text")
    tests = "\n".join([_optional_text(row, "test_setup_code"), *asserts])
    _parsed("test_list", tests)
    setup = "\n".join([*imports, *_imports(solution, _unknown(tests, "\n".join(imports), solution))])
    names = _unknown(tests, setup, solution)
    entry_point = _called(tests, names)
    if not entry_point:
        raise BadRow(f"field test_list: calls no function of the program: {_shown(asserts[0])}")
    prompt = f'"""\n{text.strip().strip(QUOTES).strip()}\n{asserts[0].strip()}\n"""\n'
    return problem_of(row, prompt=prompt, context="", task=Asserts(entry_point, setup, tests, sorted(names), solution))


def _evalplus(row: Row) -> Problem:
    prompt, entry_point, solution = _text(row, "prompt"), _name(row), _text(row, "canonical_solution")
    # A task without further inputs has {} there.
    inputs = [*_list(row, "base_input"), *(_list(row, "plus_input") if row["plus_input"] else [])]
    atol = row.get("atol", 0)
    if isinstance(atol, bool) or not isinstance(atol, int | float) or not 0 <= atol < math.inf:
        raise BadRow(f"field atol: found {_shown(atol)}, understood is a number from 0 on")
    if not all(isinstance(arguments, list | tuple) for arguments in inputs):
        raise BadRow("field plus_input: understood is a list of lists of arguments")
    if isinstance(row.get("assertion"), str):
        inputs = restore(row["assertion"], entry_point, inputs)
    try:
        arguments = [plain.encode(list(given)) for given in inputs]
    except (TypeError, OverflowError) as error:
        raise BadRow(f"field plus_input: {error}; understood are arguments that are plain data") from error
    oracle = oracle_of(str(row.get("task_id", "")), entry_point)
    reference = _completed(prompt, solution, entry_point)
    task = Differential(entry_point, arguments, reference, float(atol), oracle)
    return problem_of(row, prompt=prompt, context=_code_in(prompt, entry_point), task=task)


def _code_in(prompt: str, entry_point: str) -> str:
    """The part of a prompt that is code with the entry point's beginning; "" where it has none."""
    lines = prompt.split("\n")
    starts = [place for place, line in enumerate(lines) if place == 0 or _CODE_LINE.match(line)]
    for start in starts[:_STARTS]:
        code = "\n".join(lines[start:])
        trees = (parse(code).tree, parse(code + "\n    pass\n").tree)
        if any(tree is not None and _defines(tree, entry_point) for tree in trees):
            return code
    return ""


def _defines(tree: ast.Module, entry_point: str) -> bool:
    return any(isinstance(node, _DEFINITIONS) and node.name == entry_point for node in tree.body)


def _unknown(tests: str, setup: str, solution: str) -> set[str]:
    """Names that tests use and neither they, nor `setup`, nor Python define: they are the program's.

    MBPP has functions called `sum`: what the solution defines is the program's as well.
    """
    nodes = [node for text in (tests, setup) for node in ast.walk(parse(text).tree or ast.Module([], []))]
    used = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    known = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    known |= {node.name for node in nodes if isinstance(node, (*_DEFINITIONS, ast.ExceptHandler)) and node.name}
    known |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    known |= {_bound(alias) for node in nodes if isinstance(node, _IMPORTS) for alias in node.names}
    tree = parse(solution).tree
    own = {node.name for node in (tree.body if tree else []) if isinstance(node, _DEFINITIONS)}
    return used - known - (set(dir(builtins)) - own)


def _bound(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]


def _imports(solution: str, wanted: set[str]) -> list[str]:
    """The import statements of a solution that give `wanted` names: MBPP's tests lean on them."""
    tree = parse(solution).tree
    found = [node for node in (tree.body if tree else []) if isinstance(node, _IMPORTS)]
    return [ast.unparse(node) for node in found if any(_bound(alias) in wanted for alias in node.names)]


def _called(tests: str, names: set[str]) -> str:
    """The outermost function of the program in the first assert that calls one; "" when none does."""
    asserts = [node for node in _parsed("test_list", tests).body if isinstance(node, ast.Assert)]
    calls = (node.func for part in asserts for node in ast.walk(part.test) if isinstance(node, ast.Call))
    return next((called.id for called in calls if isinstance(called, ast.Name) and called.id in names), "")


def _parsed(field: str, text: str) -> ast.Module:
    tree, line = parse(text)
    if tree is None:
        raise BadRow(f"field {field}: no Python, see its line {line}: {_shown(text)}")
    return tree


def _text(row: Row, field: str) -> str:
    if field not in row:
        raise BadRow(f"field {field}: missing; understood are {UNDERSTOOD}")
    if not isinstance(row[field], str) or not row[field].strip():
        raise BadRow(f"field {field}: found {_shown(row[field])}, understood is text")
    return str(row[field])


def _optional_text(row: Row, field: str) -> str:
    """ "" where the field is missing or null."""
    return _text(row, field) if row.get(field) else ""


def _name(row: Row) -> str:
    name = _text(row, "entry_point")
    if not name.isidentifier():
        raise BadRow(f"field entry_point: found {_shown(name)}, understood is the name of a function")
    return name


def _list(row: Row, field: str) -> list[Any]:
    if not isinstance(row.get(field), list) or not row[field]:
        raise BadRow(f"field {field}: found {_shown(row.get(field))}, understood is a list that is not empty")
    return list(row[field])


def _texts(row: Row, field: str) -> list[str]:
    value = row[field]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadRow(f"field {field}: found {_shown(value)}, understood is a list of text")
    return value


def _shown(value: object) -> str:
    return f"{value!r}"[:80] if isinstance(value, str | int | float | None) else type(value).__name__
