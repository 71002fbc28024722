"""Argument types that JSON has lost, found again from a row's own asserts.

MBPP+ keeps its inputs as JSON: tuples and sets have become lists, complex numbers text. Its `assertion` calls the
function with the original literals for the first inputs, so the type at each depth of each argument can be read there.

Does: `restore` inputs so; what no assert tells stays as it is.
Doesn't: run anything: literals are parsed. EvalPlus uses a table of task numbers instead.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence
from typing import Any

Place = tuple[int, int]  # number of the argument, depth
_DEEP = 3  # tuples nested so deep are nested at will, deeper than an assert shows


def restore(assertion: str, entry_point: str, inputs: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """The argument lists with their types. Raises nothing for asserts that cannot be read."""
    kinds: dict[Place, set[type]] = {}
    for arguments in _calls(assertion, entry_point):
        for number, value in enumerate(arguments):
            _learn(value, (number, 0), kinds)
    return [[_as(value, (number, 0), kinds, list) for number, value in enumerate(given)] for given in inputs]


def _calls(assertion: str, entry_point: str) -> list[list[Any]]:
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(assertion)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == entry_point]
    return [[_literal(argument) for argument in call.args] for call in calls]


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def _learn(value: Any, place: Place, kinds: dict[Place, set[type]]) -> None:
    kinds.setdefault(place, set()).add(type(value))
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else ():
        _learn(item, (place[0], place[1] + 1), kinds)


def _as(value: Any, place: Place, kinds: dict[Place, set[type]], above: type) -> Any:
    known = kinds.get(place, set()) - {type(None)}
    below = (place[0], place[1] + 1)
    if isinstance(value, dict):
        return {key: _as(item, below, kinds, dict) for key, item in value.items()}
    if isinstance(value, str):
        return _number(value) if place[1] == 0 and known and known <= {int, float, complex} else value
    if not isinstance(value, list):
        return value
    kinds_here = known & {list, tuple, set}
    at_will = above is tuple and place[1] >= _DEEP and not kinds_here
    kind = kinds_here.pop() if len(kinds_here) == 1 else tuple if at_will else list
    items = [_as(item, below, kinds, kind) for item in value]
    if kind is set:  # among sets, {} is an empty dict; JSON has written both as lists
        return set(items) if items or dict not in known else {}
    return tuple(items) if kind is tuple else items


def _number(text: str) -> Any:
    for parse in (float, complex):
        try:
            return parse(text)
        except ValueError:
            continue
    return text
