r"""Sets of real numbers: intervals, unions, inequalities, all numbers but one.

Does: say whether two shapes surely are such sets and the same one.
Doesn't: read shapes (shapes.py) or the values at their ends (leaves.py).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from harness_math.cleaning import tidy
from harness_math.leaves import infinite, same_leaf
from harness_math.shapes import Shape, is_name

_REALS = re.compile(r"\\(?:mathbb|mathbf)?\s?\{?R\}?")
_REALS_BUT = re.compile(rf"(?:{_REALS.pattern})\s?\\(?:setminus|backslash)\s?\\\{{([^{{}},]*)\\\}}")
FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


class Interval(NamedTuple):
    left: str
    right: str
    closed: tuple[bool, bool]


def is_region(shape: Shape) -> bool:
    """Surely a set of numbers: an inequality with a bare name, half-open or infinite brackets, or a union."""
    if shape.kind == "relation":
        return bool(set(shape.marks) & set(FLIPPED)) and _inequality(shape) is not None
    if shape.kind == "list" and shape.parts:
        return all(part.kind == "relation" and is_region(part) for part in shape.parts)
    if shape.kind == "tuple":
        return len(shape.parts) == 2 and any(infinite(part.text) for part in shape.parts)
    return shape.kind == "union" or bool(_REALS.fullmatch(shape.text) or _REALS_BUT.fullmatch(shape.text))


def same_regions(gold: Shape, claim: Shape) -> bool | None:
    """None where either is no set of so many intervals. Raises TooLarge."""
    expected, given = _intervals(gold), _intervals(claim)
    if expected is None or given is None or len(expected) != len(given):
        return None
    left = list(given)
    for interval in expected:
        place = next((i for i, other in enumerate(left) if _same_interval(interval, other)), None)
        if place is None:
            return False
        del left[place]
    return True


def _intervals(shape: Shape) -> list[Interval] | None:
    if shape.kind in ("union", "list"):
        found = [_intervals(part) for part in shape.parts]
        return None if None in found else [interval for part in found if part for interval in part]
    if shape.kind == "relation":
        return _described(shape)
    if shape.kind == "tuple" and len(shape.parts) == 2 and set(shape.marks) <= set("()[]"):
        left, right = shape.parts
        return [Interval(left.text, right.text, (shape.marks[0] == "[", shape.marks[1] == "]"))]
    return _named(shape.text) if shape.kind == "one" else None


def _named(text: str) -> list[Interval]:
    """All real numbers, all but one of them, or one number."""
    if _REALS.fullmatch(text):
        return [Interval("-\\infty", "\\infty", (False, False))]
    found = _REALS_BUT.fullmatch(text)
    return _all_but(found[1]) if found else [Interval(text, text, (True, True))]


def _described(relation: Shape) -> list[Interval] | None:
    if relation.marks == ("in",):
        return _intervals(relation.parts[1])
    if relation.marks == ("!=",) and is_name(relation.parts[0].text):
        return _all_but(relation.parts[1].text)
    interval = _inequality(relation)
    return None if interval is None else [interval]


def _all_but(point: str) -> list[Interval]:
    return [Interval("-\\infty", point, (False, False)), Interval(point, "\\infty", (False, False))]


def _inequality(relation: Shape) -> Interval | None:
    r"""a < x \le b, x > a, a < x: with a bare name in the place of x."""
    marks, parts = relation.marks, relation.parts
    if not set(marks) <= set(FLIPPED):
        return None
    if len(marks) == 2 and marks[0][0] == marks[1][0]:
        if marks[0][0] == ">":
            marks, parts = tuple(FLIPPED[mark] for mark in reversed(marks)), parts[::-1]
        if is_name(parts[1].text):
            return Interval(parts[0].text, parts[2].text, (marks[0] == "<=", marks[1] == "<="))
        return None
    if len(marks) != 1:
        return None
    (mark,), (left, right) = marks, parts
    if is_name(right.text) and not is_name(left.text):
        mark, left, right = FLIPPED[mark], right, left
    if not is_name(left.text) or _is_open(right.text):
        return None
    closed = mark.endswith("=")
    below = Interval("-\\infty", right.text, (False, closed))
    return below if mark[0] == "<" else Interval(right.text, "\\infty", (closed, False))


def _is_open(text: str) -> bool:
    """Whether a bound is itself no plain value, as in a < b."""
    return is_name(text) and not infinite(text) and tidy(text) not in ("\\pi", "e")


def _same_interval(expected: Interval, given: Interval) -> bool:
    same_ends = same_leaf(expected.left, given.left) and same_leaf(expected.right, given.right)
    return expected.closed == given.closed and same_ends
