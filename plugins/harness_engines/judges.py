"""Completions judged on the machines of an engine's workers: a verifier pool on each, behind one `verify`.

Does: cut what is to be judged into chunks, which go to the judges as tasks to any worker that can be lost; refuse a machine
that confines completions otherwise than the driver's does, which is what the manifest states.
Doesn't: judge (harness/verifying.py does, with its limits and retries, chunk by chunk) or choose machines (ray.py).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

from harness import isolation
from harness.errors import HarnessError
from harness.types import Problem, Verdict
from harness.verifying import VerifierPool
from harness_engines.pooling import Plain, Pool

CHUNK = 64  # completions
Item = tuple[Problem, str]


class Judge:
    """A verifier pool in a process of its own on one machine."""

    def __init__(self, target: str, workers: int) -> None:
        self._target, self._pool = target, VerifierPool(target, workers=workers)

    def open(self, expected: str) -> None:
        """Raises HarnessError where the isolation of completions is not `expected`."""
        here = level(self._target)
        if here != expected:
            raise HarnessError(
                f'a node would run completions with isolation "{here}", where the machine of the run has "{expected}": '
                "`harness doctor` says what is missing (docs/sandbox.md). Leave the node out, or make them alike."
            )

    def do(self, items: Sequence[Item]) -> list[Verdict]:
        """See VerifierPool.verify."""
        return self._pool.verify(items)


class Judges:
    """Implements harness.contracts.Verifiers; `start` makes the pool of judges when it is first needed."""

    def __init__(self, start: Callable[[], Pool]) -> None:
        self._start = start
        self._pool: Pool | None = None

    def verify(self, items: Sequence[Item]) -> list[Verdict]:
        """One verdict per item, in order."""
        self._pool = self._pool or self._start()
        chunks = [Plain(items[start : start + CHUNK]) for start in range(0, len(items), CHUNK)]
        return [verdict for part in self._pool.run(chunks) for verdict in part]

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def level(target: str) -> str:
    """The isolation in force in this process for the domain at `target` ("package.module:Class")."""
    module, _, name = target.partition(":")
    return isolation.level(getattr(importlib.import_module(module), name))
