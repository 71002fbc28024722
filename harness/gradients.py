"""The raw gradient of a batch: taken once in a run, charged to every method that asks for it.

Does: let the engine differentiate, or read what it found for another method; refuse a gradient whose trainer and sampler
disagree.
Doesn't: weigh (weighing.py) or make kinds of direction (directions.py).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness import store
from harness.budget import Cost, Stopwatch
from harness.contracts import Objective
from harness.errors import HarnessError
from harness.run import Run
from harness.types import Direction, Policy
from harness.weighing import GradientBatch


def shared(
    run: Run, weighed: GradientBatch, policy: Policy, objective: Objective, *, out: str, method: str
) -> tuple[Direction, Cost]:
    """The direction at `out`, made unless it is there, with what making it cost. Raises HarnessError for the gap."""
    stored = run.root / f"{out}.json"
    if not stored.exists():
        label = f"{method}: gradient of {int(weighed.normaliser)} rollouts"
        watch = Stopwatch()
        raw = run.engine.gradient(
            weighed,
            policy,
            objective,
            out=Path(out),
            progress=lambda done, total: run.progress(label, done, total),
        )
        raw = replace(raw, groups_dead=weighed.groups_dead, batch_pass_rate=weighed.pass_rate)
        cost = watch.cost()._replace(train_tokens=raw.tokens)
        store.write_json(stored, {"direction": raw, "cost": cost._asdict()})
    entry = store.read_json(stored)
    direction: Direction = entry["direction"]
    _check_gap(run, direction)
    return direction, Cost(**entry["cost"])


def _check_gap(run: Run, direction: Direction) -> None:
    limit, gap = run.spec.sampling.logprob_gap, direction.logprob_gap
    if gap is not None and not gap <= limit:
        raise HarnessError(
            f"trainer and sampler disagree by {gap:.3g} nats on a token (limit sampling.logprob_gap = {limit}): "
            "the gradient would be of another policy. Use --set engine.dtype=float32, or raise the limit knowingly."
        )
