"""Peak memory of a whole run as the budget grows sixteenfold: the harness streams, so it should stay flat.

Does: the highest proportional set size of the process tree (shared pages counted once) during `harness run`.
Doesn't: separate the model's and the interpreter's own share, which both runs have.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.perf import subjects
from benchmarks.perf.rows import Row

SMALL, LARGE = 1024, 16384


def measure() -> list[Row]:
    small, large = _peak(SMALL), _peak(LARGE)
    return [
        Row(
            name=f"memory, N = {SMALL} to {LARGE}",
            ours=large,
            peer=small,
            unit="MB peak PSS",
            ratio=small / large,
            goal=f"ratio >= {1 / 1.1:.3f}",
            note=f"the same run (math, one_shot, 2 workers) with N = {SMALL}; at most 1.1 times its memory",
        )
    ]


def _peak(budget: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        done = subjects.harness(
            "run", "--domain", "math", "--method", "one_shot", "--budget", str(budget), "--workers", "2", "--quiet",
            "--out", folder, *subjects.SMALL_TEST, cwd=Path(folder),
        )  # fmt: skip
    return done.peak_mb
