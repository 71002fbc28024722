"""What all methods and seeds of one run share: problems, engine, verifier pool, and how to report progress.

Does: collect one draw under the run's settings.
Doesn't: know methods, budgets or the journal (stages.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import sampling, verifying
from harness.config import RunSpec
from harness.contracts import Engine, Verifiers
from harness.errors import VerifierFailure
from harness.lending import Lender
from harness.sampling import Collected, Draw
from harness.selecting import Selected
from harness.types import Policy, Problem
from harness.verifying import VerifierPool

Progress = Callable[[str, int, int], None]
Notify = Callable[[str, Mapping[str, Any]], None]


def verifiers(engine: Engine, target: str, *, workers: int) -> Verifiers:
    """The engine's own for the domain at `target`, else a pool on this machine."""
    own: Callable[[str], Verifiers] | None = getattr(engine, "verifiers", None)
    return VerifierPool(target, workers=workers) if own is None else own(target)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What all methods and seeds of one run share; `lender` is what the runs of a suite do."""

    root: Path
    spec: RunSpec
    engine: Engine
    pool: Verifiers
    problems: Selected
    progress: Progress
    notify: Notify
    lender: Lender | None = None

    @property
    def max_tokens(self) -> int:
        return self.problems.max_tokens

    @property
    def base(self) -> Policy:
        return Policy(base=self.spec.model)

    def collect(
        self, draws: Sequence[Draw], problems: Sequence[Problem], *, run_seed: int, label: str
    ) -> list[Collected]:
        """Sample and judge each draw, with progress; too many verifier errors end the run."""
        found = sampling.collect(
            draws,
            problems,
            run_seed=run_seed,
            engine=self.engine,
            pool=self.pool,
            progress=lambda done, total: self.progress(label, done, total),
            lender=self.lender,
        )
        for batch, _ in found:
            try:
                verifying.check_errors([judged.weakest for judged in batch.judged()])
            except VerifierFailure:
                batch.forget_verdicts()
                raise
        return found
