"""The methods of one run side by side: one that draws little at a time keeps one core busy, so several are under way.

Does: say how many processes pay; let each take the next method and seed for as long as there is one; hand on what they
tell. Every result is on disk then, and the same as in one process.
Doesn't: run a method (pipeline.py), or start and end processes (launching.py).
"""

from __future__ import annotations

from pathlib import Path

from harness import launching, pipeline, planning, sizing
from harness.errors import HarnessError, UsageError
from harness.launching import Failure, Task
from harness.plugins import Plugins
from harness.run import Progress, Run
from harness.stopping import Stop

PARTS = 2  # of a process at least: at the end some have nothing left to take, and the last part has few workers
ROLLOUTS = 8192  # of a process at least: its start takes as long as some 2,000


def side_by_side(run: Run, *, plugins: Plugins, shared: Path, progress: Progress, stop: Stop) -> None:
    """Finish all parts of the run, or none where it is better done by one process with all workers.

    Raises HarnessError, or UsageError for a mistake in the spec, when one cannot be finished, and KeyboardInterrupt when
    somebody asked them to `stop`.
    """
    todo = [place for place, part in enumerate(pipeline.parts(run.spec)) if not part.scores(run.root).exists()]
    count = processes(run, plugins, parts=len(todo))
    if count < 2:
        return
    # From the end: base and its controls come first in a run and take the least time, which is what the end wants.
    with launching.queue_of(reversed(todo)) as queue:
        launching.side_by_side(
            [Task("", run.root, queue)] * count,
            workers=run.spec.num_workers,
            at_a_time=count,
            shared=shared,
            progress=progress,
            begin=lambda _: None,
            end=_end,
            notify=run.notify,
            stop=stop,
        )


def processes(run: Run, plugins: Plugins, *, parts: int) -> int:
    """How many at a time; one where copies of the model are many or large, would share a GPU, or have workers elsewhere or all in one model."""
    if not sizing.is_small(run.spec) or run.engine.identity().get("device", "cpu") != "cpu":
        return 1
    if hasattr(run.engine, "transfers") or run.spec.engine.fsdp:
        return 1
    worth = planning.upper_bound(run.spec, plugins) // ROLLOUTS
    return min(run.spec.num_workers, parts // PARTS, worth)


def _end(_task: Task, _seconds: float, failure: Failure | None) -> None:
    if failure is not None:
        raise (UsageError if failure.usage else HarnessError)(failure.text)
