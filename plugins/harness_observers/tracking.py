"""Hand the numbers of a run to the trackers that HARNESS_TRACKERS names, as the run's stages finish.

Does: open the logs when a run starts, name every number `method/seed/stage/number` and count its steps, log the rows of all
seeds at the end.
Doesn't: influence a run (a tracker that fails is an event of the run and a warning), or know a tracker's own interface
(trackers.py).

The step of a number is how many stages of its kind the method has finished in this seed, also across resumed processes.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import config
from harness.errors import UnknownName
from harness.hookspecs import hookimpl
from harness_observers import trackers
from harness_observers.trackers import Log

RESULTS = ("pass@1", "delta", "ci_low", "ci_high", "greedy", "format_free", "train_rollouts")


@dataclass(frozen=True)
class Followed:
    """A run under way: its logs, and how often each kind of stage was finished."""

    logs: list[Log] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class Tracking:
    """One object a process, as pluggy wants it; it holds the logs of runs that are under way."""

    def __init__(self) -> None:
        self._followed: dict[Path, Followed] = {}

    @hookimpl
    def harness_run_started(self, run: Path) -> None:
        """Raises UnknownName or UsageError for a tracker that is not, or is not installed; those before it log on."""
        self._end(run)
        followed = self._followed[run] = Followed(counts=_finished_before(run))
        for name in config.trackers():
            if name not in trackers.KINDS:
                raise UnknownName("tracker", name, trackers.KINDS, hint="HARNESS_TRACKERS names it.")
            followed.logs.append(trackers.KINDS[name](run))

    @hookimpl
    def harness_stage_finished(self, run: Path, stage: str, summary: Mapping[str, Any]) -> None:
        if run not in self._followed:
            return
        followed, kind = self._followed[run], _kind(stage, summary)
        step = followed.counts[kind]
        followed.counts[kind] += 1
        _log(followed, kind, summary, step)

    @hookimpl
    def harness_run_finished(self, run: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        if run not in self._followed:
            return
        for row in rows:
            if row["seed"] == "all":
                numbers = {name: row[name] for name in RESULTS}
                _log(self._followed[run], f"{row['method']}/result/{row['test_benchmark']}", numbers, 0)
        self._end(run)

    def _end(self, run: Path) -> None:
        if run in self._followed:
            for log in self._followed.pop(run).logs:
                log.close()


def _kind(stage: str, summary: Mapping[str, Any]) -> str:
    test = f"/{summary['test']}" if "test" in summary else ""
    return f"{summary['method']}/{summary['seed']}/{stage}{test}"


def _finished_before(run: Path) -> Counter[str]:
    """By kind, the stages that an earlier process of this run has told."""
    path = run / "events.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    events = [event for event in map(json.loads, lines) if "stage" in event]
    return Counter(_kind(event["stage"], event) for event in events)


def _log(followed: Followed, kind: str, numbers: Mapping[str, Any], step: int) -> None:
    """What is a number; NaN is none."""
    shown = {
        name: float(value)
        for name, value in numbers.items()
        if name != "seed" and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
    if shown:
        for log in followed.logs:
            log.write(kind, shown, step)
