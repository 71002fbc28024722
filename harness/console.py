"""What a person sees while a run goes on and when it ends: progress with ETA, the table, the paired differences.

Does: one progress bar per running stage, one line per finished one (plain lines when not on a terminal).
Doesn't: compute results.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from harness import leaderboard
from harness.leaderboard import Row

PLAIN_INTERVAL = 10.0  # seconds between lines when the output is no terminal


class Reporter:
    """Callable as harness.run.Progress. Use as a context manager; `quiet` shows nothing."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}
        self._said = 0.0

    def __enter__(self) -> Reporter:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, label: str, done: int, total: int) -> None:
        if self.quiet or not label:
            return
        now = time.monotonic()
        passed = now - self._started.setdefault(label, now)
        if self._console.is_terminal:
            self._draw(label, done, total)
        elif done >= total or now - self._said >= PLAIN_INTERVAL:
            left = f", eta {passed / done * (total - done):.0f} s" if 0 < done < total else ""
            self._console.print(
                f"{label}: {done}/{total}, {passed:.0f} s{left}", highlight=False, markup=False, soft_wrap=True
            )
            self._said = now
        if done >= total:  # another seed uses the same label again
            del self._started[label]

    def _draw(self, label: str, done: int, total: int) -> None:
        """A bar while the stage runs, one plain line when it is done: a long run must not fill the screen with bars."""
        if label not in self._tasks:
            self._tasks[label] = self._bar.add_task(label, total=total)
        self._bar.update(self._tasks[label], completed=done, total=total)
        if done >= total:
            self._bar.remove_task(self._tasks.pop(label))
            seconds = time.monotonic() - self._started[label]
            self._console.print(f"{label}: done, {seconds:.0f} s", highlight=False, markup=False)


def number(value: Any, digits: int = 3) -> str:
    """A cell: fixed digits, blank when missing; CSV text is read as a number."""
    if value in ("", None):
        return ""
    value = float(value)
    if not math.isfinite(value):
        return "" if math.isnan(value) else str(value)
    return f"{value:.{digits}f}" if abs(value - round(value)) > 1e-9 or abs(value) < 2 else f"{value:.0f}"


def table(title: str, rows: Sequence[Row]) -> Table:
    """The leaderboard of one group of aggregate rows; methods tied with the first are marked."""
    shown = Table(title=title, title_justify="left")
    for name, justify in (("method", "left"), ("pass@1", "right"), ("gain over base [95 %]", "left"), ("p", "right"),
                          ("greedy", "right"), ("pass@16", "right"), ("format", "right"), ("format_free", "right"),
                          ("KL", "right"), ("train", "right"), ("+ selection", "right"), ("wall s", "right"),
                          ("status", "left")):  # fmt: skip
        shown.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        mark = " =" if row is not rows[0] and leaderboard.tied(row, rows[0]) else ""
        status = "" if row["status"] == "ok" else str(row["status"])[:40]
        shown.add_row(
            leaderboard.label(row), number(row["pass@1"]) + mark, gain(row), number(row["p_value"], 4),
            number(row["greedy"]), number(row["pass@16"]), number(row["format"]), number(row["format_free"]),
            number(row["kl"]), number(row["train_rollouts"], 0), total_rollouts(row), number(row["wall_seconds"], 0),
            status,
        )  # fmt: skip
    return shown


def gain(row: Row) -> str:
    if row["ci_low"] in ("", None):
        return ""
    return f"{float(row['delta']):+.3f} [{float(row['ci_low']):+.3f}, {float(row['ci_high']):+.3f}]"


def total_rollouts(row: Row) -> str:
    return f"{float(row['train_rollouts'] or 0) + float(row['selection_rollouts'] or 0):.0f}"


def pairs_table(pairs: Sequence[dict[str, Any]]) -> Table:
    """Paired differences of one method against each other one."""
    shown = Table(title="paired differences on the same test problems", title_justify="left")
    for name in ("difference", "pass@1 points [95 %]", "p"):
        shown.add_column(name)
    for pair in pairs:
        interval = f"{pair['delta']:+.3f} [{pair['ci_low']:+.3f}, {pair['ci_high']:+.3f}]"
        shown.add_row(f"{pair['method']} - {pair['other']}", interval, number(pair["p_value"], 4))
    return shown
