r"""The structure of an answer: one value, several, a tuple or interval, a union, a matrix, a relation.

Does: split a text at its top-level separators, brackets, relations and \pm, down to single values. Linear in the text
for every level of brackets, of which there are few.
Doesn't: read the values (numerals.py, formulas.py) or compare anything (comparing.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from harness_math.cleaning import tidy

MAX_BRACKETS = 12
_WORDS = re.compile(r"(\\(?:text|mathrm|mbox)\s?\{[^{}]*\})")
_CONNECTOR = re.compile(
    r"\s*[,;]?\s*(?:(?<![a-zA-Z\\])(?:and/or|and|or)(?![a-zA-Z])|\\(?:lor|vee)(?![a-zA-Z]))\s*,?\s*", re.IGNORECASE
)
_SET_CONNECTOR = re.compile(r"\\[a-z]+\s?\{[\s,;]*(?:and/or|and|or)[\s,;]*\}", re.IGNORECASE)
_ALL_WORDS = re.compile(r"\\(?:text|mathrm|mbox)\s?\{([^{}]*)\}")
_LEADING = re.compile(
    r"^\s*(?:\\text\s?\{\s*)?(?:(?:the )?(?:final )?answer(?: is|:)(?: is)?)\s*\}?\s*|^\s*(?:\\text\s?\{\s*(?:either|both)\s*\}|(?:either|both)(?![a-zA-Z]))\s*",
    re.IGNORECASE,
)
_THOUSANDS = r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])"
_BRACKET = r"\\begin\s?\{[a-zA-Z*]*\}|\\end\s?\{[a-zA-Z*]*\}|\\langle|\\rangle|\\[{}]|\\.|[()\[\]{}]"
_COMMA = re.compile(rf"{_BRACKET}|[,;]")
_COMMA_NOT_IN_NUMBERS = re.compile(rf"{_BRACKET}|{_THOUSANDS}|[,;]")
_COLON = re.compile(rf"{_BRACKET}|:")
_CUP = re.compile(rf"\\cup(?![a-zA-Z])|(?<=[)\]}}])\s*U\s*(?=[(\[\\])|{_BRACKET}")
_RELATION = re.compile(rf"\\(?:le|ge|ne|approx|in|equiv)(?![a-zA-Z])|<=|>=|!=|[=<>]|{_BRACKET}")
_PLUS_MINUS = re.compile(r"\\(pm|mp)(?![a-zA-Z])")
_MATRIX = re.compile(r"\[?\s*\\begin\s?\{([a-zA-Z]*matrix|array)\}(?:\{[^{}]*\})?(.*)\\end\s?\{\1\}\s*\]?", re.DOTALL)
# {x | 1 < x}, {x \in \mathbb{R} : 1 < x}
_BUILT = re.compile(r"\s*[a-zA-Z](?:\s?\\in\s?\\mathbb\s?\{?R\}?)?\s?(?:\||:)(.*)", re.DOTALL)
_OPENING = {"(": "(", "[": "[", "\\{": "{", "\\langle": "<", "{": "{"}
_CLOSING = {")": ")", "]": "]", "\\}": "}", "\\rangle": ">", "}": "}"}
_OPERATOR = {"\\le": "<=", "\\ge": ">=", "\\ne": "!=", "\\approx": "~", "\\in": "in", "\\equiv": "="}
# What may stand left of an equals sign without being calculated with: x, x_1, AB, \angle ABC, f(3), |AB|, Area.
# Possessive throughout: \abc can be read as a command and letters in many ways, and all of them would be tried.
_LETTERS = r"\\(?!frac|sqrt|sin|cos|tan|log|ln|times|cdot|div|infty)[a-zA-Z]++|[a-zA-Z]"
_NAME = re.compile(
    rf"\|?(?:{_LETTERS})(?:{_LETTERS}|'|_[a-zA-Z0-9\\]++|\^\\prime|\^-1(?=\())*+(?:\([a-zA-Z0-9,=\\|]*+\))?\|?"
)
_TUPLE_OF_NAMES = re.compile(r"\([a-zA-Z0-9_,\\]+\)")


class Shape(NamedTuple):
    """`kind`: one, list (order is free), tuple, union, matrix (rows of cells) or relation.

    `marks` are a tuple's or list's brackets ("" for a bare list) or a relation's operators; `text` is what was read.
    """

    kind: str
    text: str
    parts: tuple[Shape, ...] = ()
    marks: tuple[str, ...] = ()


def read_shape(text: str, *, thousands: bool = True) -> Shape:
    """With `thousands`, 1,234 is one number where it stands by itself; otherwise every comma separates."""
    text = tidy(text)
    whole = _ALL_WORDS.fullmatch(text)
    if whole and (_CONNECTOR.search(whole[1]) or _LEADING.match(whole[1])):
        text = whole[1]
    return _several(_connected(_LEADING.sub("", text)), thousands, MAX_BRACKETS)


def _connected(text: str) -> str:
    r"""Commas for "and" and "or", also as \text{ or }; other words set as text stay as they are."""
    parts = _WORDS.split(text)
    for place, part in enumerate(parts):
        if place % 2 == 0:
            parts[place] = _CONNECTOR.sub(", ", part)
        elif _SET_CONNECTOR.fullmatch(part):
            parts[place] = ", "
    return re.sub(r",[\s,]*,", ", ", "".join(parts))


def _several(text: str, thousands: bool, depth: int) -> Shape:
    text = text.strip().rstrip(".,;:").strip()
    pattern = _COMMA_NOT_IN_NUMBERS if thousands else _COMMA
    pieces = [piece for piece, _ in _pieces(text, pattern) if piece.strip()]
    found = [shape for piece in pieces for shape in _signs(piece, depth)]
    return found[0] if len(found) == 1 else Shape("list", text, tuple(found), ("", ""))


def _signs(text: str, depth: int) -> Iterator[Shape]:
    r"""a \pm b is two answers; all signs of one answer go together."""
    if not _PLUS_MINUS.search(text):
        yield _related(text.strip(), depth)
        return
    for upper in ("+", "-"):
        lower = "-" if upper == "+" else "+"
        one = _PLUS_MINUS.sub(lambda found, u=upper, d=lower: u if found[1] == "pm" else d, text)  # type: ignore[misc]
        yield _related(one.strip(), depth)


def _related(text: str, depth: int) -> Shape:
    sides = list(_pieces(text, _RELATION))
    if len(sides) == 1:
        return _joined(text, depth)
    operators = tuple(_OPERATOR.get(operator.strip(), operator.strip()) for _, operator in sides[:-1])
    parts = []
    for side, _ in sides:
        shapes = list(_signs(side, depth)) if _PLUS_MINUS.search(side) else [_joined(side.strip(), depth)]
        parts.append(shapes[0] if len(shapes) == 1 else Shape("list", side, tuple(shapes), ("", "")))
    return Shape("relation", text, tuple(parts), operators)


def _joined(text: str, depth: int) -> Shape:
    ratio = [piece for piece, _ in _pieces(text, _COLON)]
    if len(ratio) > 2:  # 3:5:7; of two parts it is a quotient
        return Shape("tuple", text, tuple(_bracketed(piece.strip(), depth) for piece in ratio), (":", ":"))
    pieces = [piece.strip() for piece, _ in _pieces(text, _CUP)]
    if len(pieces) == 1:
        return _bracketed(text, depth)
    return Shape("union", text, tuple(_bracketed(piece, depth) for piece in pieces))


def _bracketed(text: str, depth: int) -> Shape:
    if found := _MATRIX.fullmatch(text):
        return _matrix(text, found[2], depth)
    opening = next((mark for mark in _OPENING if text.startswith(mark)), None)
    closing = next((mark for mark in _CLOSING if text.endswith(mark)), None)
    if depth == 0 or opening is None or closing is None or not _closes_last(text):
        return Shape("one", text)
    inner = text[len(opening) : len(text) - len(closing)]
    if opening == "\\{" and (built := _BUILT.fullmatch(inner)) and (described := _related(built[1], depth - 1)).marks:
        return described
    marks = (_OPENING[opening], _CLOSING[closing])
    pieces = [piece for piece, _ in _pieces(inner, _COMMA)]
    if marks == ("{", "}") and (opening != "{" or len(pieces) > 1):
        inside = tuple(_inside(piece, depth) for piece in pieces if piece.strip())
        return Shape("list", text, inside, marks) if inside else Shape("one", "\\emptyset")
    if len(pieces) > 1:
        return Shape("tuple", text, tuple(_inside(piece, depth) for piece in pieces), marks)
    return _inside(inner, depth) if marks in (("(", ")"), ("{", "}")) and inner.strip() else Shape("one", text)


def _inside(text: str, depth: int) -> Shape:
    return _several(text, False, depth - 1)


def _matrix(text: str, body: str, depth: int) -> Shape:
    rows = []
    for row in re.split(r"\\\\(?:\[[^\[\]]*\])?|\\cr(?![a-zA-Z])", body):
        cells = tuple(_bracketed(cell.strip(), max(0, depth - 1)) for cell in row.split("&"))
        if row.strip():
            rows.append(Shape("tuple", row, cells, ("(", ")")))
    return Shape("matrix", text, tuple(rows))


def _pieces(text: str, pattern: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """(piece, the separator after it) at the top level; the last separator is empty."""
    start = depth = 0
    for found in pattern.finditer(text):
        mark = found[0]
        change = _change(mark)
        depth += change
        if depth == 0 and change == 0 and not (mark[0].isdigit() or _is_other(mark)):
            yield text[start : found.start()], mark
            start = found.end()
    yield text[start:], ""


def _change(mark: str) -> int:
    if mark in ("(", "[", "{", "\\{", "\\langle") or mark.startswith("\\begin"):
        return 1
    return -1 if mark in (")", "]", "}", "\\}", "\\rangle") or mark.startswith("\\end") else 0


def _is_other(mark: str) -> bool:
    """An escaped sign that is no separator."""
    return len(mark) == 2 and mark[0] == "\\"


def _closes_last(text: str) -> bool:
    """Whether the first bracket is closed by the last one."""
    depth = 0
    for found in re.finditer(_BRACKET, text):
        depth += _change(found[0])
        if depth == 0 and found.end() < len(text):
            return False
    return depth == 0


def is_name(text: str) -> bool:
    """Whether this is what may stand left of an equals sign without being calculated with."""
    squeezed_text = re.sub(r"[\s{}]|\\text|\\mathrm|\\overline|\\bar|\\vec", "", tidy(text))
    return bool(_NAME.fullmatch(squeezed_text) or _TUPLE_OF_NAMES.fullmatch(squeezed_text))
