"""`--dry-run`: what a run would do and cost, before it does.

Does: count rollouts by stage and method, and estimate tokens, memory and time from a short measured probe.
Doesn't: write anything that stays.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from harness import directing, pipeline, sampling
from harness.config import RunSpec
from harness.plugins import Plugins
from harness.run import Run
from harness.sampling import Draw
from harness.types import Outcome

PROBE_PROBLEMS, PROBE_SAMPLES = 16, 4
SHARE_OF_GRADIENT = 2.0  # a gradient costs about this many times the sampling of the same rollouts


class Stage(NamedTuple):
    """Rollouts of one stage of one method in one seed; `graded` counts those a gradient is taken of."""

    name: str
    train: int
    selection: int
    evaluation: int
    graded: int


class Rate(NamedTuple):
    """Measured on a probe: tokens per completion, wall seconds and correct share per rollout."""

    tokens: float
    seconds: float
    correct: float


def print_plan(spec: RunSpec, plugins: Plugins) -> None:
    """Print stages, counts, tokens, memory and time. Raises like `pipeline.execute` for a bad spec."""
    methods = pipeline.methods_of(spec, plugins)
    pipeline.check_options(spec, methods)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with pipeline.opened(root, spec, plugins, progress=lambda *_: None) as run:
            directing.require(methods, run.engine)
            rate, limits = _probe(run), run.engine.limits()
            plan = [_stage(run, name) for name in methods]
    table = Table(
        title=f"{spec.domain} / {run.problems.names}, model {spec.model}, {spec.seeds} seed(s)", title_justify="left"
    )
    for name in ("method", "train", "selection, at most", "evaluation", "tokens", "minutes"):
        table.add_column(name, justify="left" if name == "method" else "right")
    total = 0.0
    for stage in plan:
        rollouts = spec.seeds * (stage.train + stage.selection + stage.evaluation)
        seconds = rate.seconds * (rollouts + SHARE_OF_GRADIENT * stage.graded * spec.seeds)
        total += seconds
        counts = [str(spec.seeds * n) for n in (stage.train, stage.selection, stage.evaluation)]
        table.add_row(stage.name, *counts, f"{rollouts * rate.tokens:,.0f}", f"{seconds / 60:.1f}")
    screen = Console(width=None if Console().is_terminal else 120)
    screen.print(table)
    copies = spec.num_workers + 1
    memory = (
        copies * (4 * limits.bytes_weights + 0.5e9)
        + copies * limits.shard_rollouts * limits.bytes_per_token * 2 * run.max_tokens
    )
    screen.print(
        f"measured on {PROBE_PROBLEMS * PROBE_SAMPLES} rollouts: {rate.tokens:.0f} tokens each, {rate.seconds * 1e3:.1f} ms "
        f"each with {spec.num_workers} workers, {rate.correct:.1%} correct. Draws that methods share are made once, "
        f"so the whole run takes at most about {total / 60:.0f} minutes; memory about {memory / 2**30:.1f} GiB."
    )


def _probe(run: Run) -> Rate:
    problems = run.problems.train[0][:PROBE_PROBLEMS]
    draw = Draw(
        purpose="probe",
        policy=run.base,
        temperature=run.spec.sampling.temperature,
        samples=PROBE_SAMPLES,
        max_tokens=run.max_tokens,
    )
    sampling.collect(
        [draw], problems[:1], run_seed=-1, engine=run.engine, pool=run.pool, progress=lambda *_: None
    )  # starts the processes
    started = time.monotonic()
    ((batch, cost),) = run.collect([draw], problems, run_seed=0, label="")
    seconds = time.monotonic() - started
    judged = list(batch.judged())
    correct = sum(j.verdict.outcome is Outcome.CORRECT for j in judged)
    return Rate(cost.gen_tokens / len(judged), seconds / len(judged), correct / len(judged))


def _stage(run: Run, name: str) -> Stage:
    spec, tests = run.spec, run.problems.test.values()
    trains = name not in ("base", "base_tempered")
    problems = len(run.problems.train[0])
    rollouts = problems * (spec.budget // problems) if trains else 0
    more = max(0, spec.evaluation.wide_samples - spec.evaluation.samples)
    wide = more if name in spec.evaluation.wide_methods else 0
    evaluation = sum(
        len(test) * (spec.evaluation.samples + 1) + wide * min(spec.evaluation.wide_problems, len(test))
        for test in tests
    )
    selection = 0 if name == "base" else spec.selection_total
    return Stage(name, rollouts, selection, evaluation, rollouts)
