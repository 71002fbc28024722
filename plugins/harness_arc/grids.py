"""Grids in free text: JSON, rows of cells on lines, code fences, colour words, prose around them.

Does: find every grid that a text gives, in order, and say of each whether it is well formed. Every pass is linear.
Doesn't: choose among them (verify.py), or know the right one.

What is read as a grid:

1. A list of lists of cells, wherever it stands (`[[1, 2], [3, 4]]`, also as printed by numpy, or with names of
   colours). One that is never closed is unfinished and does not count.
2. Consecutive lines that are rows: cells with one separator (white space, a comma or `|`) or none, in brackets or not.
   An empty line, a word or a code fence ends a grid; the rule of a table (`|---|---|`) does not.

Only the last 250 000 characters are read; the largest grid in the most spacious of these forms takes a tenth of that.
A grid whose rows differ in width, with a number outside 0 to 9 or of more than 30 rows or columns is ill formed (None).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

Grid: TypeAlias = "list[list[int]]"

MAX_SIDE = 30
MAX_CHARS = 250_000
# The colours of the official viewer, with the names that are in use for them.
COLOURS = {
    "black": 0, "blue": 1, "red": 2, "green": 3, "yellow": 4, "grey": 5, "gray": 5, "magenta": 6, "fuchsia": 6,
    "pink": 6, "orange": 7, "teal": 8, "cyan": 8, "azure": 8, "brown": 9, "maroon": 9,
}  # fmt: skip
_CELLS = {**{str(digit): digit for digit in range(10)}, **COLOURS}
_OUTSIDE = -1  # a cell that is a number, but no colour
_NUMBER = re.compile(r"[-+]?[0-9]++(?:\.[0-9]++)?")
_LIST = re.compile(r"\[([^\[\]]*+)\]")
_RULE = re.compile(r"(?=[^-]*-)(?=[^|+]*[|+])[-|+:= ]++")
_SEPARATED = re.compile(r"[,\s]+")
_TOO_WIDE = [_OUTSIDE] * (MAX_SIDE + 1)

Row: TypeAlias = "list[int] | None"


class _Found(NamedTuple):
    place: int
    grid: Grid | None


def grids(text: str) -> list[Grid | None]:
    """Every complete grid of the text, in order; None stands for an ill-formed one."""
    text = text[-MAX_CHARS:].lower()
    nested, rest = _nested(text)
    return [found.grid for found in sorted([*nested, *_lines(rest)], key=lambda found: found.place)]


def render(grid: Grid) -> str:
    """A grid as the prompts write it: one row a line, cells separated by single spaces."""
    return "\n".join(" ".join(map(str, row)) for row in grid)


def well_formed(rows: Sequence[Sequence[int]]) -> bool:
    sides = 0 < len(rows) <= MAX_SIDE and 0 < len(rows[0]) <= MAX_SIDE
    return sides and all(len(row) == len(rows[0]) and min(row) >= 0 and max(row) <= 9 for row in rows)


def _grid(rows: Sequence[list[int]]) -> Grid | None:
    return list(rows) if well_formed(rows) else None


class _Block(NamedTuple):
    """Neighbouring lists of cells: `rows`, and where the first begins and the last ends."""

    rows: list[Row]
    start: int
    end: int


def _nested(text: str) -> tuple[list[_Found], str]:
    """Grids of kind 1, and the text without them and without unfinished ones (same length)."""
    found, kept, done = [], [], 0
    for block in _blocks(text):
        if not _opens(text, block.start):
            continue  # rows in brackets, one a line, are no list of lists
        rows = [row for row in block.rows if row is not None]
        if _closes(text, block.end) and len(rows) == len(block.rows):
            found.append(_Found(block.start, _grid(rows)))
        kept += [text[done : block.start], "\0" * (block.end - block.start)]
        done = block.end
    return found, "".join([*kept, text[done:]])


def _blocks(text: str) -> Iterator[_Block]:
    block: _Block | None = None
    for match in _LIST.finditer(text):
        cells = _row([part.strip("\"'") for part in _SEPARATED.split(match[1].strip().rstrip(","))])
        if block is not None and text[block.end : match.start()].strip() in ("", ","):
            block.rows.append(cells)
            block = block._replace(end=match.end())
            continue
        if block is not None:
            yield block
        block = _Block([cells], match.start(), match.end())
    if block is not None:
        yield block


def _opens(text: str, place: int) -> bool:
    """Whether a bracket stands right before, white space apart."""
    while place > 0 and text[place - 1].isspace():
        place -= 1
    return place > 0 and text[place - 1] == "["


def _closes(text: str, place: int) -> bool:
    while place < len(text) and (text[place].isspace() or text[place] == ","):
        place += 1
    return place < len(text) and text[place] == "]"


def _lines(text: str) -> Iterator[_Found]:
    """Grids of kind 2."""
    rows: list[list[int]] = []
    start = place = 0
    for line in text.split("\n"):
        row = _line(line.strip())
        if row is not None:
            start = start if rows else place
            if len(rows) <= MAX_SIDE:  # one row too many is enough to know
                rows.append(row)
        elif rows and not _RULE.fullmatch(line.strip()):
            yield _Found(start, _grid(rows))
            rows = []
        place += len(line) + 1
    if rows:
        yield _Found(start, _grid(rows))


def _line(line: str) -> Row:
    """The cells of one line, None when it is no row."""
    if line.startswith("["):
        line = line.removesuffix(",").rstrip()
        if not line.endswith("]"):
            return None
        line = line[1:-1].strip()
    if not line or line[0] not in _STARTS:
        return None
    if "|" in line:
        parts = line.removeprefix("|").removesuffix("|").split("|")
    elif "," in line:
        parts = line.removesuffix(",").split(",")
    elif line.isascii() and line.isdigit():
        return _TOO_WIDE if len(line) > MAX_SIDE else [int(cell) for cell in line]
    else:
        parts = line.split()
    return _row([part.strip().strip("\"'") for part in parts])


_STARTS = frozenset("0123456789-+|\"'") | {name[0] for name in COLOURS}


def _row(parts: Sequence[str]) -> Row:
    if not parts or any(part not in _CELLS and not _NUMBER.fullmatch(part) for part in parts):
        return None
    return _TOO_WIDE if len(parts) > MAX_SIDE else [_CELLS.get(part, _OUTSIDE) for part in parts]
