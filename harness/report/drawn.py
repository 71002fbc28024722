"""Where a finished run keeps the completions and verdicts behind a test score.

Does: name the draws of a method on a test set again, as the run named them.
Doesn't: draw; greedy and wide draws are not named here.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness import evaluating, sampling
from harness.report.results import Results
from harness.types import Problem


def known(found: Results) -> bool:
    """False for an older run folder, whose draws cannot be named."""
    return "max_tokens" in found.manifest


def folders(found: Results, method: str, seed: int, problems: list[Problem]) -> Iterator[str]:
    """One for each policy that the method handed in: what it was scored by in `seed` on these test problems."""
    spec, contender = found.manifest["spec"], found.finished[method, seed].contender
    temperature = spec["sampling"]["temperature"] if contender.temperature is None else contender.temperature
    for policy in contender.policies:
        draw = evaluating.test_draw(
            contender,
            policy,
            temperature=temperature,
            samples=contender.n or spec["evaluation"]["samples"],
            max_tokens=found.manifest["max_tokens"],
        )
        yield sampling.folder_of(draw, problems, seed if temperature else 0)
