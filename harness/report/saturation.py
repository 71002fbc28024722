"""When training accuracy saturated, and what checkpoints from before and after are worth.

Does: find the update after which a batch was nearly all correct; split the checkpoints of the choice there.
Doesn't: score anything: selection scores are those the choice was made by, inflated for its winner.

Wang et al. (2504.20571) report test accuracy that goes on rising after training accuracy on the single example has
saturated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from harness import console
from harness.pipeline import Finished
from harness.report.levels import Table
from harness.report.results import Results

THRESHOLD = 0.95


class Saturation(NamedTuple):
    """`updates` in all, `saturated` the number of them after which a batch was above THRESHOLD, `chosen` that of the
    winner. `before` and `after` are the best selection scores on either side, None where no checkpoint is."""

    method: str
    seed: int
    updates: int
    saturated: int
    before: float | None
    after: float | None
    chosen: int


def rows(found: Results) -> list[Saturation]:
    """One for each method and seed that saturated."""
    return [
        saturation(method, seed, done)
        for (method, seed), done in found.finished.items()
        if any(step.pass_rate > THRESHOLD for step in done.trained)
    ]


def saturation(method: str, seed: int, done: Finished) -> Saturation:
    """A batch is drawn before its update: that of update n shows the policy after n - 1."""
    saturated = next(n for n, step in enumerate(done.trained) if step.pass_rate > THRESHOLD)
    updates_of: dict[str, int] = {}
    for number, step in enumerate(done.trained, start=1):
        updates_of.setdefault(step.policy.id, number if step.policy.moves else 0)  # a dead batch leaves the base
    candidates = done.search.candidates if done.search else ()
    scores = [(updates_of.get(c.policy.id, 0), c.score.accuracy) for c in candidates]
    return Saturation(
        method=method,
        seed=seed,
        updates=len(done.trained),
        saturated=saturated,
        before=max((score for number, score in scores if number < saturated), default=None),
        after=max((score for number, score in scores if number >= saturated), default=None),
        chosen=updates_of.get(done.contender.policies[0].id, 0),
    )


def table(found: Sequence[Saturation]) -> Table:
    head = ["method", "seed", "updates", "saturated after", "selection before", "selection after", "chosen"]
    lines = [
        [
            s.method,
            str(s.seed),
            str(s.updates),
            str(s.saturated),
            *map(console.number, (s.before, s.after)),
            str(s.chosen),
        ]
        for s in found
    ]
    return Table(head, lines)


def markdown(found: Results) -> str:
    return table(rows(found)).markdown(f"**After training accuracy has passed {THRESHOLD}** (updates)")
