"""When a returned value is the right one. Plain data on both sides; no code of the program's is here any more.

Does: compare strictly (`identical`: ladder and {inputs, expected} rows), as Python and EvalPlus do (`same`, `agrees`:
public sets), and hold the tasks that EvalPlus judges otherwise.
Doesn't: decode or run anything.

Departures from EvalPlus 0.3.1 (evalplus/eval/__init__.py, Apache-2.0):

1. Closeness counts where the expected number is a float, not for large integers that differ by less than 1e-7 of it.
2. Mbpp/164 (`are_equivalent`), where it accepts any value, and Mbpp/295 (`sum_div`), where it accepts 0 for any number,
   are judged like the rest: a reward for a constant is none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

RELATIVE, DEFAULT_ATOL = 1e-7, 1e-6


def identical(expected: Any, value: Any) -> bool:
    """Equal in type and value to `expected`, which JSON has made: a tuple counts as a list, a key as the text of it.

    Floats are equal within 1e-6 (relative or absolute); NaN equals nothing.
    """
    if isinstance(expected, list):
        alike = isinstance(value, list | tuple) and len(expected) == len(value)
        return alike and all(map(identical, expected, value))
    if isinstance(expected, dict):
        if not isinstance(value, dict):
            return False
        named = {_key(key): item for key, item in value.items()}
        return len(named) == len(value) and expected.keys() == named.keys() and all(
            identical(item, named[key]) for key, item in expected.items()
        )  # fmt: skip
    if type(expected) is not type(value):
        return False
    if isinstance(expected, float):
        return expected == value or math.isclose(expected, value, rel_tol=1e-6, abs_tol=1e-6)
    return bool(expected == value)


def _key(key: Any) -> Any:
    """What JSON makes of a dictionary's key; a number of more digits than Python writes is no key of JSON's."""
    try:
        return json.dumps(key) if isinstance(key, bool | int | float | None) else key
    except ValueError:
        return key


def same(expected: Any, value: Any, *, atol: float = DEFAULT_ATOL) -> bool:
    """Python's ==, or, with `atol`, of one type and with every expected float met within atol + 1e-7 of it."""
    return bool(expected == value) or (atol > 0 and type(expected) is type(value) and _close(expected, value, atol))


def _close(expected: Any, value: Any, atol: float) -> bool:
    if isinstance(expected, float | complex) and isinstance(value, int | float | complex):
        gap = abs(expected - value)
        return expected == value or (math.isfinite(abs(expected)) and gap <= atol + RELATIVE * abs(expected))
    if isinstance(expected, list | tuple) and isinstance(value, list | tuple):
        return len(expected) == len(value) and all(_close(e, v, atol) for e, v in zip(expected, value, strict=True))
    if isinstance(expected, dict) and isinstance(value, dict):
        return expected.keys() == value.keys() and all(_close(item, value[key], atol) for key, item in expected.items())
    return bool(expected == value)


def first_difference(
    arguments: Sequence[Sequence[Any]], expected: Sequence[Any], values: Sequence[Any], *, atol: float, oracle: str
) -> int | None:
    """The first place where a value is not the expected one, as EvalPlus has it; None: there is none.

    As there, floats are compared with 1e-6 where no `atol` is given, from the first expected float of a task on.
    """
    judge = ORACLES.get(oracle, _equal)
    for place, (given, wanted, value) in enumerate(zip(arguments, expected, values, strict=False)):
        if judge is _equal:
            atol = atol or (DEFAULT_ATOL if _floats(wanted) else 0.0)
        if not _allowed(judge, (given, wanted, value, atol)):
            return place
    return None


def _floats(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) > 0 and all(isinstance(item, float) for item in value)
    return isinstance(value, float)


Oracle = Callable[[Sequence[Any], Any, Any, float], bool]


def _allowed(judge: Oracle, case: tuple[Sequence[Any], Any, Any, float]) -> bool:
    try:
        return judge(*case)
    except (TypeError, ValueError, ArithmeticError):  # of the wrong kind, too large for a float, a signalling NaN
        return False


def _equal(_: Sequence[Any], expected: Any, value: Any, atol: float) -> bool:
    return same(expected, value, atol=atol)


def _as_sets(_: Sequence[Any], expected: Any, value: Any, __: float) -> bool:
    """Only what is wanted gets into a set of the program's values: it could have chosen them to collide."""
    wanted = set(expected)
    return all(item in wanted for item in value) and wanted == set(value)


def _found_or_not(_: Sequence[Any], expected: Any, value: Any, __: float) -> bool:
    """Tasks whose reference returns a match object, or None: what counts is whether there is one."""
    found = value is not None and value is not False
    return found is (expected is not None)


def _surface(arguments: Sequence[Any], expected: Any, value: Any, atol: float) -> bool:
    """The pyramid's height may be the slant height, as in the reference, or the perpendicular one."""
    base, height = arguments
    perpendicular = round(base**2 + 2 * base * math.hypot(base / 2, height))
    return bool(expected == value or abs(value - perpendicular) <= atol)


def _digit_distance(arguments: Sequence[Any], expected: Any, value: Any, _: float) -> bool:
    """Numbers of different length may be cut, as in the reference, or filled with zeros."""
    width = max(len(str(number)) for number in arguments)
    one, other = (str(number).zfill(width) for number in arguments)
    filled = sum(abs(int(a) - int(b)) for a, b in zip(one, other, strict=True))
    return bool(expected == value) or bool(value == filled)


def _zero(arguments: Sequence[Any], _: Any, value: Any, atol: float) -> bool:
    (coefficients,) = arguments
    total = sum(factor * math.pow(value, power) for power, factor in enumerate(coefficients))
    return bool(abs(total) <= atol)


ORACLES: dict[str, Oracle] = {
    "sets": _as_sets,
    "found": _found_or_not,
    "surface": _surface,
    "digits": _digit_distance,
    "zero": _zero,
}
_MBPP = {
    "sets": "similar_elements find_char_long common_in_nested_lists extract_singly larg_nnum intersection_array "
    "find_dissimilar Diff",
    "found": "check_str text_match_three text_starta_endb",
    "surface": "surface_Area",
    "digits": "digit_distance_nums",
}


def oracle_of(task: str, entry_point: str) -> str:
    """The name of the oracle for a task of HumanEval+ or MBPP+; "" for comparison."""
    if task.lower().startswith("humaneval"):
        return "zero" if entry_point == "find_zero" else ""
    if task.lower().startswith("mbpp"):
        return next((name for name, tasks in _MBPP.items() if entry_point in tasks.split()), "")
    return ""
