"""Puzzles: draw solvable ones, and solve given ones.

Does: build a target from drawn numbers, keeping the expression; search for an expression that reaches a target.
Doesn't: judge (domain.py), or promise that a puzzle has one solution.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

LEVELS = (1, 2, 3, 4)  # with 3, 4, 5 and 6 numbers
HIGHEST = 25
TARGETS = range(10, 100)
SOLVABLE = 5  # numbers; beyond, a search takes seconds


class Term(NamedTuple):
    value: Fraction
    text: str


class Puzzle(NamedTuple):
    """Numbers in ascending order, a target, and one expression that reaches it with all of them."""

    numbers: tuple[int, ...]
    target: int
    solution: str


def draw(rng: random.Random, level: int) -> Puzzle | None:
    """One puzzle of a level, or None for a draw whose target is of no use."""
    numbers = sorted(rng.randint(1, HIGHEST) for _ in range(level + 2))
    terms = [Term(Fraction(number), str(number)) for number in rng.sample(numbers, len(numbers))]
    while len(terms) > 1:
        right, left = terms.pop(), terms.pop()
        terms.append(rng.choice(list(_joined(left, right))))
    (value, text), *_ = terms
    if value.denominator != 1 or int(value) not in TARGETS or int(value) in numbers:
        return None
    return Puzzle(tuple(numbers), int(value), text)


def solve(numbers: Sequence[int], target: int) -> str | None:
    """An expression that uses every number once, or None. Raises ValueError for more than SOLVABLE numbers."""
    if len(numbers) > SOLVABLE:
        raise ValueError(f"{len(numbers)} numbers; {SOLVABLE} can be searched")
    return _search([Term(Fraction(number), str(number)) for number in numbers], Fraction(target))


def _search(terms: list[Term], target: Fraction) -> str | None:
    if len(terms) == 1:
        return terms[0].text if terms[0].value == target else None
    for i, left in enumerate(terms):
        for j, right in enumerate(terms):
            if i == j:
                continue
            rest = [term for k, term in enumerate(terms) if k not in (i, j)]
            for joined in _joined(left, right):
                found = _search([*rest, joined], target)
                if found is not None:
                    return found
    return None


def _joined(left: Term, right: Term) -> Iterator[Term]:
    yield Term(left.value + right.value, f"({left.text}+{right.text})")
    yield Term(left.value - right.value, f"({left.text}-{right.text})")
    yield Term(left.value * right.value, f"({left.text}*{right.text})")
    if right.value:
        yield Term(left.value / right.value, f"({left.text}/{right.text})")
