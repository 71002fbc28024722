r"""Whether a claim is the reference answer, structure first.

Does: match lists in any order and with equal count, tuples in order, intervals with inequalities, unions, matrices,
equations; sets of real numbers go to regions.py, single values to leaves.py.
Doesn't: extract the claim or look at the problem, but for one thing: `a+b = 70` may name on its left what the problem
asked for.

A list where one value was asked is not it, unless every entry is: "1/2 or 0.5" says one thing, "1 or 2" does not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from harness_math.cleaning import squeezed, tidy
from harness_math.formulas import read_formula
from harness_math.leaves import same_leaf
from harness_math.numerals import read_number
from harness_math.regions import FLIPPED, is_region, same_regions
from harness_math.shapes import Shape, is_name, read_shape
from harness_math.tokens import Unread
from harness_math.trees import Node
from harness_math.values import constant, equal, proportional, renamed, sign_of_ratio, stands_for, symbols

MAX_ITEMS = 40
_ARGUMENT = re.compile(r"^[a-zA-Z]\s?\(\s?([a-zA-Z])\s?\)$")


class Comparison(NamedTuple):
    """Compares with one problem in mind: `asked` is its text, squeezed."""

    asked: str = ""

    def same(self, gold: str, claim: str) -> bool:
        """Raises TooLarge."""
        expected = gold_shape(gold)
        if self.alike(expected, read_shape(claim)):
            return True
        if expected.kind != "list" or "," not in claim:
            return False
        return self.alike(expected, read_shape(claim, thousands=False))

    def alike(self, gold: Shape, claim: Shape) -> bool:
        if gold.kind == claim.kind == "one" and not is_region(gold):
            return same_leaf(gold.text, claim.text)
        if is_region(gold) or is_region(claim):
            return self._same_regions(gold, claim)
        if "relation" in (gold.kind, claim.kind):
            return self._same_relations(gold, claim)
        if "list" in (gold.kind, claim.kind):
            return self._same_lists(gold, claim)
        if gold.kind == "union" or claim.kind == "union":
            return gold.kind == claim.kind and self._matched(gold.parts, claim.parts)
        return self._same_tuples(gold, claim)

    def _same_lists(self, gold: Shape, claim: Shape) -> bool:
        if gold.kind != "list":
            if gold.kind == "tuple" and claim.marks == ("", ""):
                return gold.marks == ("(", ")") and self._in_order(gold.parts, claim.parts)
            return 0 < len(claim.parts) <= MAX_ITEMS and all(self.alike(gold, part) for part in claim.parts)
        if claim.kind == "tuple" and len(gold.parts) != 1:
            return gold.marks == ("", "") and claim.marks == ("(", ")") and self._in_order(gold.parts, claim.parts)
        return self._matched(gold.parts, claim.parts if claim.kind == "list" else (claim,))

    def _matched(self, gold: Sequence[Shape], claim: Sequence[Shape]) -> bool:
        """One to one, in any order. Greedy will do: equality of values is transitive but for rounding."""
        if len(gold) != len(claim) or len(gold) > MAX_ITEMS:
            return False
        left = list(claim)
        for part in gold:
            place = next((i for i, other in enumerate(left) if self.alike(part, other)), None)
            if place is None:
                return False
            del left[place]
        return True

    def _in_order(self, gold: Sequence[Shape], claim: Sequence[Shape]) -> bool:
        return len(gold) == len(claim) and all(map(self.alike, gold, claim))

    def _same_tuples(self, gold: Shape, claim: Shape) -> bool:
        nested = "matrix" in (gold.kind, claim.kind)
        expected, given = _rows(gold, nested), _rows(claim, nested)
        if expected is None or given is None:
            return False
        if gold.kind == claim.kind == "tuple" and _marks(gold) != _marks(claim):
            return False
        if gold.kind != claim.kind and all(map(_is_vector, (expected, given))):
            expected, given = [_flat(expected)], [_flat(given)]
        return len(expected) == len(given) and all(map(self._in_order, expected, given))

    def _same_regions(self, gold: Shape, claim: Shape) -> bool:
        same = same_regions(gold, claim)
        return same if same is not None else "relation" in (gold.kind, claim.kind) and self._same_relations(gold, claim)

    def _same_relations(self, gold: Shape, claim: Shape) -> bool:
        if gold.kind != "relation":
            return self._states(gold, claim)
        value = _assigned(gold)
        if claim.kind != "relation":
            return value is not None and self.alike(value, claim)
        stated = _assigned(claim)
        if value is not None and stated is not None and _same_names(gold.parts[0], claim.parts[0]):
            return self.alike(value, stated) or _same_function(gold, claim)
        return _same_equation(gold, claim)

    def _states(self, gold: Shape, claim: Shape) -> bool:
        r"""A chain such as x = 35 \cdot 2 = 70 against a value: its last side is the answer, and all sides must agree.

        What follows an approximation sign may round what stands before it, and either counts.
        """
        if not set(claim.marks) <= {"=", "~", "in"}:
            return False
        sides = [side for side in claim.parts if side.text.strip()]
        if len(sides) < 2:
            return len(sides) == 1 and self.alike(gold, sides[0])
        if is_name(sides[-1].text) and not is_name(sides[0].text) and not is_name(gold.text):
            sides.reverse()
        named = is_name(sides[0].text) or (len(sides[0].text) > 1 and squeezed(sides[0].text) in self.asked)
        if named and not _is_plain(sides[0]):
            del sides[0]
        elif not _is_constant(sides[0]):
            return False
        if "~" in claim.marks:
            return self._rounds(gold, sides)
        return self.alike(gold, sides[-1]) and all(_agrees(side, sides[-1]) for side in sides[:-1])

    def _rounds(self, gold: Shape, sides: Sequence[Shape]) -> bool:
        *exact, last = sides
        if not exact:
            return self.alike(gold, last)
        number, node = read_number(last.text), _tree(exact[-1])
        if number is None or node is None or (value := constant(node)) is None:
            return False
        shift = 100 if number.percent else 1
        unit = (number.unit or 1) / shift
        if abs(float(value) - float(number.value / shift)) * 2 > float(unit) * 1.001:
            return False
        return self.alike(gold, exact[-1]) or (not _is_plain(exact[-1]) and self.alike(gold, last))


@lru_cache(maxsize=8192)
def gold_shape(gold: str) -> Shape:
    """Read once for all completions. A list of one is its entry."""
    return read_shape(gold)


def _rows(shape: Shape, nested: bool) -> list[Sequence[Shape]] | None:
    """With `nested`, [[1, 2], [3, 4]] is a matrix too."""
    if shape.kind == "matrix" or (nested and shape.parts and all(part.kind == "tuple" for part in shape.parts)):
        return [row.parts for row in shape.parts]
    return [shape.parts] if shape.kind == "tuple" else None


def _flat(rows: Sequence[Sequence[Shape]]) -> Sequence[Shape]:
    return [cell for row in rows for cell in row]


def _is_vector(rows: Sequence[Sequence[Shape]]) -> bool:
    """A column, a row or a tuple."""
    return len(rows) == 1 or all(len(row) == 1 for row in rows)


def _marks(shape: Shape) -> tuple[str, ...]:
    return ("(", ")") if shape.marks == ("<", ">") else shape.marks  # a vector in angle brackets


def _is_plain(side: Shape) -> bool:
    return side.kind == "one" and read_number(side.text) is not None


def _assigned(relation: Shape) -> Shape | None:
    """The value in `name = value` (or `name \\in set`)."""
    one = set(relation.marks) <= {"=", "in"}
    return relation.parts[-1] if one and len(relation.parts) == 2 and is_name(relation.parts[0].text) else None


def _same_names(gold: Shape, claim: Shape) -> bool:
    r"""f(x), g(n) and y stand for one another, k and K, m and m_{\max}; x and z do not."""
    names = [re.sub(r"[\s{}\\]", "", tidy(side.text)).casefold() for side in (gold, claim)]
    return names[0][:1] == names[1][:1] or all("(" in name or name == "y" for name in names)


def _same_function(gold: Shape, claim: Shape) -> bool:
    """f(x) = 2x and f(n) = 2n."""
    arguments = [_ARGUMENT.search(side.text.strip()) for side in (gold.parts[0], claim.parts[0])]
    expected, given = _tree(gold.parts[-1]), _tree(claim.parts[-1])
    if None in arguments or expected is None or given is None:
        return False
    old, new = (found[1] for found in reversed(arguments) if found)
    return old != new and new not in symbols(given) and bool(equal(expected, renamed(given, old, new)))


def _tree(shape: Shape) -> Node | None:
    try:
        return read_formula(shape.text) if shape.kind == "one" else None
    except Unread:
        return None


def _is_constant(shape: Shape) -> bool:
    node = _tree(shape)
    return node is not None and constant(node) is not None


def _agrees(side: Shape, last: Shape) -> bool:
    """Sides of a chain that can be worked out must have one value; formulas with names in them are the derivation."""
    node, end = _tree(side), _tree(last)
    if node is None or end is None or not (_is_constant(side) and _is_constant(last)):
        return True
    number = read_number(last.text)
    return equal(node, end) is not False or (number is not None and stands_for(number, node))


def _same_equation(gold: Shape, claim: Shape) -> bool:
    """Two equations, or two inequalities, that differ by a constant factor."""
    if len(gold.parts) != 2 or len(claim.parts) != 2:
        return False
    (gold_mark,), (claim_mark,) = gold.marks, claim.marks
    try:
        expected, given = (_difference(shape) for shape in (gold, claim))
    except Unread:
        return squeezed(gold.text) == squeezed(claim.text)
    if not proportional(expected, given):
        return False
    if gold_mark not in FLIPPED or claim_mark not in FLIPPED:
        return gold_mark == claim_mark
    return claim_mark == (gold_mark if sign_of_ratio(expected, given) > 0 else FLIPPED[gold_mark])


def _difference(relation: Shape) -> Node:
    left, right = (_tree(side) for side in relation.parts)
    if left is None or right is None:
        raise Unread(relation.text)
    return Node("add", (left, Node("mul", (read_formula("-1"), right))))
