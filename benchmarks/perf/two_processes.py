"""Two worker processes against one, in wall seconds: sampling, scoring of candidates, and the whole default run.

Does: warm the workers first, so that a long run's rate is seen and not its start (the whole run includes its start).
Doesn't: correct for what else the machine does: two processes need two idle cores, and `load` in results.csv says
whether they had them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.perf import subjects
from benchmarks.perf.rows import Row, Sides, interleaved
from harness import seeds
from harness.types import Move, Policy

PROBLEMS, SAMPLES = 256, 16
CANDIDATES, SELECTION = 8, (32, 4)
RUN_BUDGET = 1024


def measure() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        one, two = subjects.engine(root, workers=1), subjects.engine(root, workers=2)
        rows = [row for domain in subjects.DOMAINS for row in (_sampling(domain, one, two), _scoring(domain, one, two))]
        one.close()
        two.close()
        return [*rows, _whole_run(root)]


def _row(name: str, sides: Sides, goal: str, note: str) -> Row:
    return Row(name, sides.ours.wall, sides.peer.wall, "wall s", sides.peer.wall / sides.ours.wall, goal, note)


def _sampling(domain: str, one: Any, two: Any) -> Row:
    task = subjects.ladder(domain, problems=PROBLEMS)
    plan = subjects.shards(task, samples=SAMPLES)
    for engine in (one, two):
        list(engine.sample(plan[:4], subjects.BASE))
    sides = interleaved(
        lambda: list(two.sample(plan, subjects.BASE)), lambda: list(one.sample(plan, subjects.BASE)), turns=3
    )
    return _row(
        f"two processes: sampling, {domain}", sides, "ratio >= 1.8", f"one process; {PROBLEMS * SAMPLES} rollouts"
    )


def _scoring(domain: str, one: Any, two: Any) -> Row:
    """The first round of a search: all candidates draw on the same problems (and tell their entropies)."""
    problems, samples = SELECTION
    task = subjects.ladder(domain, problems=problems)
    plan = subjects.shards(task, samples=samples)

    def score(engine: Any) -> None:
        digests = [f"{seeds.seed_for(0, 'perf', '', candidate):016x}" for candidate in range(CANDIDATES)]
        noise = [Move(kind="noise", path="", digest=digest, step=0.01) for digest in digests]
        policies = [Policy(base="tiny", moves=(move,)) for move in noise]
        tasks = [(shard, policy) for policy in policies for shard in plan]
        list(engine.sample_each([shard for shard, _ in tasks], [policy for _, policy in tasks]))

    for engine in (one, two):
        score(engine)
    sides = interleaved(lambda: score(two), lambda: score(one), turns=3)
    note = f"one process; {CANDIDATES} candidates, {problems} problems x {samples} each"
    return _row(f"two processes: candidates, {domain}", sides, "ratio >= 1.8", note)


def _whole_run(root: Path) -> Row:
    def run(workers: int) -> None:
        out = tempfile.mkdtemp(dir=root)
        subjects.harness(
            "run", "--domain", "math", "--budget", str(RUN_BUDGET), "--workers", str(workers), "--quiet", "--out", out,
            cwd=root,
        )  # fmt: skip

    sides = interleaved(lambda: run(2), lambda: run(1), turns=1)
    note = f"harness run --domain math with one worker; default methods and tests, budget {RUN_BUDGET}, start included"
    return _row("two processes: whole run", sides, "ratio >= 1.7", note)
