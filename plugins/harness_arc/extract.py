"""From a completion to the one grid it claims, in the row-letter layout (` a304 b020 c231`).

Does: check the demanded format (strict) or take the first grid of the first line that has one (lenient).
Doesn't: know the right grid or its size. Every pass is linear in the text.
"""

from __future__ import annotations

import re
import string

Grid = list[list[int]]

_STRICT = re.compile(r"(?: # [a-z0-9 ]{1,100}:)?((?: [a-z][0-9]{1,30}){1,26})\n?")
_GRID = re.compile(r"(?<![a-zA-Z0-9])a[0-9]{1,30}(?: [b-z][0-9]{1,30}){0,25}(?![a-zA-Z0-9])")
_LONGEST_STRICT = 1000


def strict_grid(text: str) -> Grid | None:
    """The grid of a completion that is nothing but one line ` a432 b123` or ` # rule: a432 b123`."""
    found = _STRICT.fullmatch(text) if len(text) <= _LONGEST_STRICT else None
    rows = found[1].split() if found else []
    return _grid(rows) if _in_order(rows) == len(rows) else None


def lenient_grid(text: str) -> Grid | None:
    """As demanded, or else the first grid in the text; rows after one that is out of order do not count."""
    strict = strict_grid(text)
    if strict is not None:
        return strict
    found = _GRID.search(text)
    rows = found[0].split() if found else []
    return _grid(rows[: _in_order(rows)])


def layout(grid: Grid) -> str:
    """The canonical text of a grid, without the leading space."""
    rows = ("".join(map(str, row)) for row in grid)
    return " ".join(letter + row for letter, row in zip(string.ascii_lowercase, rows, strict=False))


def _in_order(rows: list[str]) -> int:
    """How many rows, from the first on, are lettered a, b, c, ..."""
    matches = (row[0] == letter for row, letter in zip(rows, string.ascii_lowercase, strict=False))
    return next((count for count, fits in enumerate(matches) if not fits), len(rows))


def _grid(rows: list[str]) -> Grid | None:
    """None for no rows and for rows of unequal width."""
    if len({len(row) for row in rows}) != 1:
        return None
    return [[int(cell) for cell in row[1:]] for row in rows]
