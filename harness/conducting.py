"""A suite from its first preparation to the last row: what has to be made, its runs side by side, one leaderboard.

Does: make what is missing; start the runs that are not done, the largest first, with the cores shared out among them;
put all rows into one leaderboard.csv. A run that fails takes no other down: what failed is said at the end.
Doesn't: read suite files (suiting.py), start processes (launching.py) or print tables (report/suites.py).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from harness import (
    completing,
    launching,
    leaderboard,
    lending,
    locking,
    mending,
    pipeline,
    planning,
    sizing,
    store,
    suiting,
)
from harness.errors import HarnessError, UsageError
from harness.launching import Failure, Task
from harness.methods import ordered
from harness.plugins import Plugins
from harness.run import Progress
from harness.stopping import Stop
from harness.suiting import Point, Prepare, Suite

Say = Callable[[str], None]


def plan(suite: Suite, root: Path, found: Plugins) -> list[str]:
    """What would be prepared and run, one line each, and the rollouts of all of it."""
    most = [planning.upper_bound(point.spec, found) for point in suite.points]
    made = [f"prepare  {prepare}{'  (made)' if Path(prepare.makes).exists() else ''}" for prepare in suite.prepare]
    runs = [
        f"run      {point}: {', '.join(ordered(point.spec.methods))}; {point.spec.seeds} seed(s); "
        f"{count:,} rollouts{'  (done)' if _is_done(root, point) else ''}"
        for point, count in zip(suite.points, most, strict=True)
    ]
    total = f"in all   {sum(most):,} rollouts at most; what methods and runs share is drawn once"
    return [*made, *runs, total, f"folder   {root}"]


def execute(
    suite: Suite,
    root: Path,
    *,
    command: str,
    workers: int,
    jobs: int,
    quiet: bool,
    progress: Progress,
    say: Say,
    stop: Stop | None = None,
) -> None:
    """Prepare, run or continue every point, and write leaderboard.csv with the rows of all.

    `workers` processes in all (0: as the runs say), `jobs` runs at a time (0: see `at_a_time`). Raises HarnessError
    when a preparation fails or a run does, UsageError when only mistakes in specs did, InUse where another process
    is at it, KeyboardInterrupt once somebody asked to `stop` and every run did. The folder exists once a run begins.
    """
    stop = stop or Stop()
    for number, prepare in enumerate(suite.prepare, start=1):
        _make(prepare, title=f"prepare {number} of {len(suite.prepare)}", quiet=quiet, say=say, stop=stop)
    if not suiting.is_suite(root):
        suiting.open_folder(suite, root, command)
    places = {root / point.name: place for place, point in enumerate(suite.points, start=1)}
    with locking.alone(root):
        for folder in (root, *(folder for folder in places if folder.exists())):
            for line in mending.mend(folder):
                completing.say(line)
        for folder, place in places.items():
            if (folder / "DONE").exists():
                say(f"run {place} of {len(places)}: {suite.points[place - 1]} (done before)")
        failures = _run(
            suite, root, places, command=command, workers=workers, jobs=jobs, progress=progress, say=say, stop=stop
        )
        if failures:
            _raise(failures, len(suite.points))
        store.write_text(root / "leaderboard.csv", leaderboard.to_csv(rows_of(suite, root)))
        pipeline.mark_done(root)
        shutil.rmtree(root / lending.SHARED, ignore_errors=True)  # every run has its draws under a name of its own


def _run(
    suite: Suite, root: Path, places: dict[Path, int], *, command: str, workers: int, jobs: int, progress: Progress,
    say: Say, stop: Stop,
) -> dict[str, Failure]:  # fmt: skip
    """Every point that is not done, the largest first, so that no core waits long for the last one."""
    todo = [point for point in suite.points if not _is_done(root, point)]
    todo.sort(key=lambda point: -point.spec.budget * point.spec.seeds)
    total = workers or max(point.spec.num_workers for point in suite.points)
    failures: dict[str, Failure] = {}

    def name(task: Task) -> str:
        return f"run {places[task.folder]} of {len(places)}: {task.label}"

    def begin(task: Task) -> None:
        say(name(task))
        if not (task.folder / "spec.toml").exists():
            point = suite.points[places[task.folder] - 1]
            pipeline.open_folder(task.folder, point.spec, command=command, date=pipeline.stamp())

    def end(task: Task, seconds: float, failure: Failure | None) -> None:
        say(f"{name(task)}: {'failed' if failure else 'done'}, {seconds:.0f} s")
        if failure is not None:
            failures[name(task)] = failure
            pipeline.discard_unstarted(task.folder)

    launching.side_by_side(
        [Task(str(point), root / point.name) for point in todo],
        workers=total,
        at_a_time=jobs or at_a_time(suite, total),
        shared=root / lending.SHARED,
        progress=progress,
        begin=begin,
        end=end,
        stop=stop,
    )
    return failures


def at_a_time(suite: Suite, workers: int) -> int:
    """As many runs as there are workers, since methods of small batches use no more than one core. One by one where
    a model is so large that several copies may not fit."""
    return workers if all(sizing.is_small(point.spec) for point in suite.points) else 1


def _raise(failures: dict[str, Failure], runs: int) -> None:
    told = "\n".join(f"{name}: {failure.text}" for name, failure in failures.items())
    kind = UsageError if all(failure.usage for failure in failures.values()) else HarnessError
    raise kind(
        f"{len(failures)} of {runs} runs failed, the others are done. Give the same command again to retry.\n{told}"
    )


def _make(prepare: Prepare, *, title: str, quiet: bool, say: Say, stop: Stop) -> None:
    """Run the command unless its last file is there; it has no shards to stop at. Its output goes to standard error, as progress does."""
    if Path(prepare.makes).exists():
        say(f"{title}: {prepare.makes} is there")
        return
    say(f"{title}: {prepare}")
    line = [sys.executable, "-u", "-m", prepare.module, *prepare.arguments]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL if quiet else 2) as process, stop.heard_by(process.terminate):
        status = process.wait()
    stop.check()
    if status != 0:
        raise HarnessError(f"`{prepare}` ended with status {status}. Give the same command again to retry")
    if not Path(prepare.makes).exists():
        raise HarnessError(f"`{prepare}` ended well but did not make {prepare.makes}")


def _is_done(root: Path, point: Point) -> bool:
    return (root / point.name / "DONE").exists()


def rows_of(suite: Suite, root: Path) -> list[leaderboard.Row]:
    files = [(root / point.name / "leaderboard.csv", point.spec.engine.name) for point in suite.points]
    return [row for path, engine in files for row in leaderboard.of_engine(path, engine)]
