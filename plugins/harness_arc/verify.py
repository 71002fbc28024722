"""Judge a completion by the one grid it gives: right when every cell is.

Does: compare size and cells exactly.
Doesn't: give credit for part of a grid, or look at the rule that the completion names.
"""

from __future__ import annotations

from harness.types import Outcome, Problem, Verdict
from harness_arc.extract import layout, lenient_grid, strict_grid


def verify(problem: Problem, completion: str) -> Verdict:
    in_format = strict_grid(completion)
    grid = in_format if problem.strict else lenient_grid(completion)
    if grid is None:
        return Verdict(outcome=Outcome.UNPARSED, detail="no grid in the demanded format")
    return Verdict(
        outcome=Outcome.CORRECT if grid == problem.answer else Outcome.WRONG,
        extracted=layout(grid),
        format_ok=in_format is not None,
    )
