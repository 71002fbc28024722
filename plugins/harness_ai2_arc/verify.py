"""Judge a completion by the one choice it claims.

Does: compare its letter.
Doesn't: judge the reason that goes with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from harness.types import Outcome, Problem, Verdict
from harness_ai2_arc.extract import claimed, demanded, letter


def verify(problem: Problem, completion: str) -> Verdict:
    choices = cast("Sequence[str]", problem.meta["choices"])
    in_format = demanded(completion, choices)
    index = in_format if problem.strict or in_format is not None else claimed(completion, choices)
    if index is None:
        return Verdict(outcome=Outcome.UNPARSED, detail="no claim of one choice")
    return Verdict(
        outcome=Outcome.CORRECT if letter(index) == problem.answer else Outcome.WRONG,
        extracted=letter(index),
        format_ok=in_format is not None,
    )
