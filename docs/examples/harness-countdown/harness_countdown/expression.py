"""Arithmetic in text: what an expression is worth and which numbers it is made of.

Does: parse + - * / and parentheses over whole numbers by recursive descent, in exact fractions.
Doesn't: know any other operator, or evaluate text as code. Length, depth and digits are bounded, so any text is
parsed in microseconds.

    sum      = product (("+" | "-") product)*
    product  = factor (("*" | "/") factor)*
    factor   = number | "(" sum ")"
"""

from __future__ import annotations

import re
from fractions import Fraction

MAX_CHARS, MAX_DEPTH = 200, 20
_TOKEN = re.compile(r"\s*([0-9]{1,9}|[-+*/()])")


class Malformed(ValueError):
    """The text is no expression; the message says where."""


class Expression:
    """A parsed expression. `value` is None where it divides by zero; `numbers` come in the order written.

    Raises Malformed.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MAX_CHARS:
            raise Malformed(f"longer than {MAX_CHARS} characters")
        self._tokens = _tokens(text)
        self._place = self._depth = 0
        self.numbers: list[int] = []
        self.value = self._sum()
        if self._place < len(self._tokens):
            raise Malformed(f'"{self._tokens[self._place]}" stands where the expression should end')

    @property
    def text(self) -> str:
        """Without spaces: equal expressions have one form."""
        return "".join(self._tokens)

    def _next(self, wanted: str) -> str | None:
        """The next token if it is one of `wanted` (a number: "0"), taken."""
        token = self._tokens[self._place] if self._place < len(self._tokens) else ""
        if token and (token in wanted or ("0" in wanted and token.isdigit())):
            self._place += 1
            return token
        return None

    def _sum(self) -> Fraction | None:
        value = self._product()
        while sign := self._next("+-"):
            other = self._product()
            if value is not None and other is not None:
                value = value + other if sign == "+" else value - other
            else:
                value = None
        return value

    def _product(self) -> Fraction | None:
        value = self._factor()
        while sign := self._next("*/"):
            other = self._factor()
            if value is None or other is None or (sign == "/" and other == 0):
                value = None
            else:
                value = value * other if sign == "*" else value / other
        return value

    def _factor(self) -> Fraction | None:
        if number := self._next("0"):
            self.numbers.append(int(number))
            return Fraction(int(number))
        if not self._next("("):
            raise Malformed("a number or ( is missing")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Malformed(f"nested deeper than {MAX_DEPTH}")
        value = self._sum()
        if not self._next(")"):
            raise Malformed("a ) is missing")
        self._depth -= 1
        return value


def _tokens(text: str) -> list[str]:
    tokens, place = [], 0
    while text[place:].strip():
        found = _TOKEN.match(text, place)
        if found is None:
            raise Malformed(f"{text[place:].lstrip()[:1]!r} is no part of an expression")
        tokens.append(found[1])
        place = found.end()
    return tokens
