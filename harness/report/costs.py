"""What every method spent, by purpose and by stage.

Does: rollouts by purpose as a figure; all counters of the rows; seconds of each stage from events.jsonl.
Doesn't: share a draw's cost out: one that several methods used is charged to each in full.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import altair

from harness import console, leaderboard, store
from harness.leaderboard import Row
from harness.report import charts, grids, page
from harness.report.charts import Figure
from harness.report.page import Section
from harness.report.results import Results

PURPOSES = {"training": "#1f7fd6", "selection": "#d9a514", "evaluation": "#9aa4af"}
COLUMNS = ("train_rollouts", "selection_rollouts", "eval_rollouts", "gen_tokens", "train_tokens", "verifier_calls", "updates",
           "wall_seconds", "cpu_seconds")  # fmt: skip
CAPTION = (
    "Rollouts by purpose, a mean over seeds. Methods are ranked at equal training rollouts; selection is what choosing a step, a "
    "checkpoint or a temperature took. Evaluation makes the numbers of this page and shapes nothing."
)  # fmt: skip


def figure(found: Results) -> Figure:
    made = [
        {"method": leaderboard.label(row), "purpose": purpose, "rollouts": float(row[column] or 0), "order": place}
        for row in first(found)
        for place, (purpose, column) in enumerate(zip(PURPOSES, COLUMNS[:3], strict=True))
    ]
    y = altair.Y("method:N", title=None, sort=None, axis=altair.Axis(labelLimit=190))
    bars = charts.over().mark_bar().encode(
        y=y, x=altair.X("rollouts:Q", title="rollouts"), color=charts.color(PURPOSES, "purpose"), order="order:Q",
        tooltip=charts.tooltip("method:N", "purpose:N", "rollouts:Q"),
    )  # fmt: skip
    view = charts.panel("rollouts by purpose", bars, width=620, height=altair.Step(20))
    return Figure("costs", [view], made, made, PURPOSES, "purpose")


def first(found: Results) -> list[Row]:
    """Aggregate rows on the first test set."""
    test = next(iter(found.manifest["tests"]))
    return [row for row in found.aggregate if row["test_benchmark"] == test]


def section(found: Results) -> Section:
    head = ("method", *COLUMNS)
    lines = [[leaderboard.label(r), *(console.number(r[c] or 0, 0) for c in COLUMNS)] for r in first(found)]
    drawn = charts.show(found.root, figure(found), CAPTION)
    return Section("cost", "Cost", drawn + grids.grid(head, lines, colors=found.colors) + _stages(found))


def stages(root: Path) -> dict[tuple[str, str], list[float]]:
    """(calls, seconds) of each method and stage, all seeds together, as events.jsonl has them."""
    spent: dict[tuple[str, str], list[float]] = {}
    for event in _events(root):
        if "method" in event and "seconds" in event:
            own = spent.setdefault((event["method"], event["stage"]), [0, 0.0])
            own[0] += 1
            own[1] += float(event["seconds"])
    return spent


def _events(root: Path) -> Iterator[dict[str, Any]]:
    path = root / "events.jsonl"
    with store.as_written(path):
        lines: Sequence[str] = path.read_text(encoding="utf-8").splitlines() if path.exists() else ()
        for line in lines:
            if line.endswith("}"):  # a killed run may leave half a line
                yield json.loads(line)


def _stages(found: Results) -> str:
    spent = stages(found.root)
    if not spent:
        return ""
    names = list(dict.fromkeys(stage for _, stage in spent))
    lines = []
    for method in dict.fromkeys(method for method, _ in spent):
        cells = [spent.get((method, stage)) for stage in names]
        lines.append([method, *("" if cell is None else f"{cell[1]:.1f} s ({cell[0]:.0f})" for cell in cells)])
    said = page.note(
        "Wall seconds in each stage, all seeds together, with the number of calls; a stage that was read back on resume took none."
    )
    return "<h3>By stage</h3>" + grids.grid(("method", *names), lines, colors=found.colors) + said
