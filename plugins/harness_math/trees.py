"""The tree of a formula: its one node type and how nodes are put together.

Does: keep products flat, so that a long one is not a deep tree. Doesn't: read text (formulas.py) or compute (values.py).
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple


class Node(NamedTuple):
    """`kind`: number, symbol, add, mul, div, pow, root (index, radicand), or call of the function `name`."""

    kind: str
    parts: tuple[Node, ...] = ()
    name: str = ""
    number: Fraction = Fraction(0)


def number(value: int | Fraction) -> Node:
    return Node("number", number=Fraction(value))


def negative(node: Node) -> Node:
    return product_of(number(-1), node)


def product_of(left: Node, right: Node) -> Node:
    """Flat, so that a long product is not a deep tree."""
    return Node("mul", (*(left.parts if left.kind == "mul" else (left,)), right))


def over(left: Node, right: Node) -> Node:
    return product_of(left, Node("div", (number(1), right)))
