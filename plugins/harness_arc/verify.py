"""Judge a completion by the grid it gives (or the grids): right when every cell is.

Does: compare size and cells exactly.
Doesn't: give credit for part of a grid, or look at the rule that the completion names.

Ladder problems are answered in the row-letter layout (extract.py), those of data sets in rows (grids.py): then the last
complete grid counts, or the last few where several are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.types import Outcome, Problem, Verdict
from harness_arc.extract import layout, lenient_grid, strict_grid
from harness_arc.grids import Grid, grids, render


def verify(problem: Problem, completion: str) -> Verdict:
    if problem.meta.get("layout") == "grid":
        return _verify_rows(problem, completion)
    in_format = strict_grid(completion)
    grid = in_format if problem.strict else lenient_grid(completion)
    if grid is None:
        return Verdict(outcome=Outcome.UNPARSED, detail="no grid in the demanded format")
    return Verdict(
        outcome=Outcome.CORRECT if grid == problem.answer else Outcome.WRONG,
        extracted=layout(grid),
        format_ok=in_format is not None,
    )


def _verify_rows(problem: Problem, completion: str) -> Verdict:
    golds = golds_of(problem)
    last = grids(completion)[-len(golds) :]
    claimed = [grid for grid in last if grid is not None]
    if len(last) < len(golds):
        return Verdict(outcome=Outcome.UNPARSED, detail=f"{len(last)} of {len(golds)} grids")
    if len(claimed) < len(golds):
        return Verdict(outcome=Outcome.UNPARSED, detail="ragged rows, a number outside 0 to 9, or over 30x30")
    format_ok = completion.strip() == demanded(claimed)
    if problem.strict and not format_ok:
        return Verdict(outcome=Outcome.UNPARSED, detail="no grid in the demanded format")
    wrong = [i for i, (grid, gold) in enumerate(zip(claimed, golds, strict=True)) if grid != gold]
    return Verdict(
        outcome=Outcome.WRONG if wrong else Outcome.CORRECT,
        extracted=" | ".join("/".join("".join(map(str, row)) for row in grid) for grid in claimed),
        format_ok=format_ok,
        detail=_difference(claimed[wrong[0]], golds[wrong[0]]) if wrong else "",
    )


def golds_of(problem: Problem) -> list[Grid]:
    """The expected grids of a data-set problem, in order."""
    answer: Any = problem.answer
    golds: list[Grid] = answer if problem.meta["test_index"] is None else [answer]
    return [[list(row) for row in gold] for gold in golds]


def demanded(answer: Sequence[Grid]) -> str:
    """The answer in the format that the prompt asks for."""
    return "\n\n".join(map(render, answer))


def _difference(grid: Grid, gold: Grid) -> str:
    if (len(grid), len(grid[0])) != (len(gold), len(gold[0])):
        return f"{len(grid)}x{len(grid[0])} instead of {len(gold)}x{len(gold[0])}"
    cells = sum(a != b for row, other in zip(grid, gold, strict=True) for a, b in zip(row, other, strict=True))
    return f"{cells} of {len(gold) * len(gold[0])} cells differ"
