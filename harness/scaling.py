"""`--dry-run` of an engine whose workers are on other machines: the time of n of them, and what travels.

Does: turn the stages of a plan into a formula in n, with its value at a few n.
Doesn't: know how fast a network is: bytes are told, not seconds. Draws of methods with an optimizer are small and counted
as one worker's, like its steps; a method's selection and test draws are taken to have as many shards as the base batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from harness.config import RunSpec
from harness.contracts import Transfers
from harness.estimating import Pace

if TYPE_CHECKING:
    from harness.planning import Stage

SHOWN = (1, 2, 4, 8, 16)


class Work(NamedTuple):
    """Seconds of one worker: of draws that are shared by up to `shards` workers, of gradients, of what one does alone."""

    drawing: float
    gradients: float
    alone: float
    shards: int

    def seconds(self, workers: int, *, sharing: int) -> float:
        """Of `workers`, transfers left out."""
        return self.drawing / min(workers, self.shards) + self.gradients / min(workers, sharing) + self.alone


def work(spec: RunSpec, plan: Sequence[Stage], pace: Pace) -> Work:
    """Of the whole run. A pace was measured with all workers of this machine, an assumed one is of one GPU."""
    each = spec.seeds * (spec.num_workers if pace.measured else 1)
    drawing = gradients = alone = 0.0
    for one in plan:
        own, graded = one.train * one.spends.optimizer, one.graded * pace.trained * pace.training
        drawing += (one.rollouts - own) * pace.completion * pace.generating
        gradients += 0.0 if one.spends.optimizer else graded
        alone += own * pace.completion * pace.generating + (graded if one.spends.optimizer else 0.0)
    shards = math.ceil(spec.budget / spec.engine.shard_rollouts)
    return Work(each * drawing, each * gradients, each * alone, shards)


def told(spec: RunSpec, plan: Sequence[Stage], pace: Pace, found: Transfers) -> str:
    """The formula, a few values of it, and the bytes that travel."""
    own = work(spec, plan, pace)
    unit, size = ("minutes", 60.0) if pace.measured else ("hours", 3600.0)
    drawing, gradients, alone = (f"{x / size:.1f}" for x in own[:3])
    values = ", ".join(f"{own.seconds(n, sharing=found.sharing) / size:.1f} at {n}" for n in SHOWN)
    drawn = spec.seeds * sum(one.rollouts for one in plan) * pace.completion * found.drawn
    weighed = spec.budget * pace.trained * found.weighed
    return (
        f"n workers: {drawing} / min(n, {own.shards}) of sampling + {gradients} / min(n, {found.sharing}) of gradients + "
        f"{alone} of methods with an optimizer, whose draws are small and whose steps are one process's = {values} {unit}, "
        f"transfers left out. {own.shards} shards have {spec.engine.shard_rollouts} rollouts of the base batch each "
        f"(engine.shard_rollouts). Transfers: {_bytes(drawn)} of rollouts in all come back; a gradient brings back "
        f"{_bytes(found.gradient)} of sums, however many workers, and takes at most {_bytes(weighed)} x (1 - 1/n) of rollouts "
        f"to workers that did not draw them; every direction or checkpoint takes {_bytes(found.policy)} to each worker."
    )


def _bytes(number: float) -> str:
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"
