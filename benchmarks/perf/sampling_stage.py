"""The sampling stage (seeds, shards on disk, scheduling) against the bare sampler over the same shards.

Does: run harness.sampling.collect with a verifier that costs nothing, and engine.sample alone.
Doesn't: measure verifiers (math_verdicts.py, code_verdicts.py).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.perf import subjects
from benchmarks.perf.rows import Row, interleaved
from harness import sampling
from harness.contracts import silent

PROBLEMS, SAMPLES = 256, 16


def measure() -> list[Row]:
    return [_row(domain) for domain in subjects.DOMAINS]


def _row(domain: str) -> Row:
    task = subjects.ladder(domain, problems=PROBLEMS)
    plan, draw = subjects.shards(task, samples=SAMPLES), subjects.draw(task, samples=SAMPLES)
    with tempfile.TemporaryDirectory() as folder:
        engine = subjects.engine(Path(folder))

        def stage() -> None:
            engine.root = Path(tempfile.mkdtemp(dir=folder))  # a new store: nothing is finished
            sampling.collect(
                [draw],
                task.problems,
                run_seed=0,
                engine=engine,
                pool=subjects.FreePool(),  # type: ignore[arg-type]
                progress=silent,
            )

        for _ in engine.sample(plan[:1], subjects.BASE):
            pass
        sides = interleaved(stage, lambda: list(engine.sample(plan, subjects.BASE)), turns=5)
        engine.close()
    rollouts = PROBLEMS * SAMPLES
    return Row(
        name=f"sampling stage, {domain}",
        ours=rollouts / sides.ours.cpu,
        peer=rollouts / sides.peer.cpu,
        unit="rollouts / core-s",
        ratio=sides.peer.cpu / sides.ours.cpu,
        goal="ratio >= 0.95",
        note=f"the bare sampler on the same shards; {PROBLEMS} problems x {SAMPLES}, verdicts free",
    )
