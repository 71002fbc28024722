"""What methods with an optimizer share: the rate, the draws of the budget, the policies kept on the way, the choice.

Does: turn options into an optimizer; call a method's `learn` for each draw; choose among the base and the kept policies on
the selection split.
Doesn't: know a loss. Options that are shared have one meaning here, and each method its own defaults.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.contracts import Check, Optimizer, Spending
from harness.errors import NoSignal, NotFinite, UsageError
from harness.limits import above, at_least, within
from harness.stages import Stages
from harness.training import StageTrainer
from harness.types import Contender, Policy, Problem

OPTIONS: Mapping[str, Any] = {"lr": 3e-4, "weight_decay": 0.0, "clip_norm": 1.0, "checkpoints": 4}
CHECKS: Mapping[str, Check] = {
    "lr": above(0), "weight_decay": at_least(0), "clip_norm": within(0, math.inf), "checkpoints": at_least(1),
}  # fmt: skip


def spends(options: Mapping[str, Any]) -> Spending:
    """The whole budget, and as many gradients of each rollout as there are passes."""
    return Spending(passes=int(options.get("epochs", 1)), optimizer=True)


def trainer(stages: Stages, *, critic_lr: float = 0.0) -> StageTrainer:
    """AdamW from the base with the rate, decay and clipping (`clip_norm` 0: none) of the options, `critic_lr` above 0 with a
    value head."""
    lr, clip = float(stages.options["lr"]), float(stages.options["clip_norm"])
    decay = float(stages.options["weight_decay"])
    optimizer = Optimizer(lr=lr, weight_decay=decay, clip=clip if clip > 0 else None)
    return stages.trainer(stages.base, optimizer, critic_lr=critic_lr)


def draws(stages: Stages) -> list[tuple[Sequence[Problem], int]]:
    """The budget in `steps` nearly equal draws, in fewer where it is too small for as many."""
    return stages.schedule(min(int(stages.options["steps"]), stages.most_updates))


def shares(stages: Stages, problems: int, *, steps: int) -> list[int]:
    """What is left of the training budget, in `steps` nearly equal draws of as many problems: samples of each problem.

    Raises UsageError when it does not divide by the problems, or a draw would have fewer than two samples of each.
    """
    left = stages.budget.train_left
    if left % problems or steps > left // problems // 2:
        raise UsageError(
            f"{left} rollouts do not make {steps} draws with the same number, at least two, of each of {problems} "
            f"problems: change --budget or method.{stages.method}.steps"
        )
    cuts = [left // problems * step // steps for step in range(steps + 1)]
    return [b - a for a, b in itertools.pairwise(cuts)]


def iterate(stages: Stages, live: StageTrainer, steps: int, learn: Callable[[int], None]) -> Contender:
    """`learn(0)` to `learn(steps - 1)`; the best of the base and `checkpoints` policies evenly on the way, the last
    one among them. Where training diverges, the best of those before is handed on with NotFinite."""
    marks, kept = milestones(steps, int(stages.options["checkpoints"])), [stages.base]
    for number in range(steps):
        try:
            learn(number)
        except NotFinite as reason:
            before = {policy: None for policy in kept if policy != live.policy}  # which may be what is not finite
            if len(before) < 2:
                raise
            said = f"{reason} In step {number + 1} of {steps}: the best of the checkpoints before is scored"
            raise NotFinite(said, before=chosen(stages, list(before))) from reason
        if number + 1 in marks:
            kept.append(live.keep())
    if live.policy == stages.base:
        rate = sum(step.pass_rate for step in stages.trained) / max(1, len(stages.trained))
        raise NoSignal(
            f"no group with both rewards in {steps} draws (mean batch pass rate {rate:.4f}): nothing was learnt"
        )
    return chosen(stages, kept)


def milestones(steps: int, count: int) -> frozenset[int]:
    """`count` of the steps 1 to `steps`, evenly apart, the last one among them."""
    return frozenset({round(steps * part / count) for part in range(1, count + 1)} - {0})


def chosen(stages: Stages, policies: Sequence[Policy]) -> Contender:
    """The best on the selection split; policies that are equal are scored once."""
    contenders = [Contender(policies=(policy,)) for policy in dict.fromkeys(policies)]
    return contenders[stages.select(contenders).chosen]
