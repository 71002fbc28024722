"""One meter for everything a method uses, and the limits it may not pass.

Does: add up rollouts by purpose, tokens, verifier calls, updates, wall and CPU seconds; refuse what would exceed.
Doesn't: guess: every cost is measured where it arises and stored with the result, so a resumed run has the same sums.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import NamedTuple

from harness import processes
from harness.errors import BudgetExceeded


class Cost(NamedTuple):
    """What one stage call used. Rollouts count when generated, filtered or not; seconds are of this machine."""

    train_rollouts: int = 0
    selection_rollouts: int = 0
    eval_rollouts: int = 0
    gen_tokens: int = 0
    train_tokens: int = 0
    verifier_calls: int = 0
    updates: int = 0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0

    def plus(self, other: Cost) -> Cost:
        return Cost._make(a + b for a, b in zip(self, other, strict=True))


class Budget:
    """A method's limits (rollouts for training and for selection) and what it has spent."""

    def __init__(self, *, train: int, selection: int) -> None:
        self.train, self.selection = train, selection
        self.spent = Cost()

    @property
    def train_left(self) -> int:
        return self.train - self.spent.train_rollouts

    @property
    def selection_left(self) -> int:
        return self.selection - self.spent.selection_rollouts

    def require(self, *, train: int = 0, selection: int = 0) -> None:
        """Called before sampling. Raises BudgetExceeded."""
        for kind, asked, left in (("train", train, self.train_left), ("selection", selection, self.selection_left)):
            if asked > left:
                raise BudgetExceeded(
                    f"{asked} {kind} rollouts asked for, {left} of {getattr(self, kind)} left in this method's budget"
                )

    def charge(self, cost: Cost) -> None:
        self.spent = self.spent.plus(cost)


class Stopwatch:
    """Wall and CPU seconds since it was made; CPU of the whole process tree where /proc tells it."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.monotonic(), tree_cpu_seconds()

    def cost(self) -> Cost:
        return Cost(wall_seconds=time.monotonic() - self.wall, cpu_seconds=tree_cpu_seconds() - self.cpu)


def tree_cpu_seconds() -> float:
    """User and system seconds of this process and its descendants, the finished ones included."""
    if not Path("/proc/self/stat").exists():
        usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)
    tree = processes.tree(os.getpid())
    return sum(sum(map(int, fields[11:15])) for fields in map(processes.stat, tree) if fields) / os.sysconf(
        "SC_CLK_TCK"
    )
