"""The leaderboard on the page: gains with their intervals as a figure, one table for each test set, paired differences.

Does: rank by pass@1, mark ties, show status where it is not plain "ok".
Doesn't: compute a gain (leaderboard.py, results.py).
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import altair

from harness import console, leaderboard
from harness.leaderboard import Row
from harness.report import charts, grids, page, tables
from harness.report.charts import Figure
from harness.report.page import Section
from harness.report.results import FOCUS, Results

SHORT = 44  # characters of a status
CAPTION = (
    "Gain in pass@1 over the base on the same test problems, with its 95 % interval. Intervals are of gains over the base: "
    "whether two methods differ is said by their paired difference below, not by the overlap."
)  # fmt: skip
EXPLAINED = (
    "pass@1 at the method's sampling temperature; = marks methods tied with the first, whose intervals overlap; gain is paired "
    "by problem with a 95 % interval; format is the share of completions in the demanded format, format_free the accuracy "
    "when the same completions are judged leniently. Every generated rollout is counted."
)  # fmt: skip


def section(found: Results) -> Section:
    drawn = figure(found)
    shown = charts.show(found.root, drawn, CAPTION) if drawn.rows else ""
    return Section("leaderboard", "Leaderboard", shown + _tables(found) + page.note(EXPLAINED) + _pairs(found))


def figure(found: Results) -> Figure:
    """One line a method, the best on top; of the first test set."""
    rows = [_gain(row) for row in _first(found) if row["ci_low"] != ""]
    colors = {name: color for name, color in found.colors.items() if name in {row["method"] for row in rows}}
    y = altair.Y(
        "method:N",
        title=None,
        sort=altair.EncodingSortField("gain", order="descending"),
        axis=altair.Axis(labelLimit=190),
    )
    told = charts.tooltip("method:N", "pass@1:Q", "gain:Q", "ci_low:Q=from", "ci_high:Q=to", "p:Q")
    color, data = charts.color(colors, legend=False), charts.over()
    bars = data.mark_rule(strokeWidth=2.2).encode(
        x=altair.X("ci_low:Q", title="gain in pass@1 over the base"), x2="ci_high:Q", y=y, color=color, tooltip=told
    )
    points = data.mark_point(filled=True, size=75, opacity=1).encode(x="gain:Q", y=y, color=color, tooltip=told)
    view = charts.panel(
        "gain over the base, 95 % interval", charts.rule_at(0, "x"), bars, points, width=620, height=altair.Step(24)
    )
    return Figure("gains", [view], rows, rows, {})


def _first(found: Results) -> list[Row]:
    test = next(iter(found.manifest["tests"]))
    return [row for row in found.aggregate if row["test_benchmark"] == test]


def _gain(row: Row) -> dict[str, Any]:
    return {
        "method": leaderboard.label(row), "pass@1": float(row["pass@1"]), "gain": float(row["delta"]),
        "ci_low": float(row["ci_low"]), "ci_high": float(row["ci_high"]), "p": float(row["p_value"] or "nan"),
    }  # fmt: skip


def _tables(found: Results) -> str:
    """One for each test set; what follows on the page is about the first."""
    tests = list(found.manifest["tests"])
    several = page.note(f"The sections below are about {tests[0]}.") if len(tests) > 1 else ""
    groups = sorted(leaderboard.ranked(found.aggregate), key=lambda item: tests.index(item[1][0]["test_benchmark"]))
    parts = []
    for title, group in groups:
        parts.append((f"<h3>{html.escape(title)}</h3>" if several else "") + _table(found, group))
    return "".join(parts) + several


def _table(found: Results, group: Sequence[Row]) -> str:
    plain = all(row["status"] == leaderboard.OK for row in group)
    head = tables.MARKDOWN if plain else (*tables.MARKDOWN, "status")
    lines = []
    for row in group:
        method, score, *rest = tables.cells(row)
        tied = row is not group[0] and leaderboard.tied(row, group[0])
        status = [] if plain else [_short(str(row["status"]))]
        lines.append([method, f"{score} =" if tied else score, *rest, *status])
    return grids.grid(head, lines, colors=found.colors, focus=FOCUS)


def _short(status: str) -> str:
    """The section on status has the whole of it."""
    return status if len(status) <= SHORT else f"{status[:SHORT]} ..."


def _pairs(found: Results) -> str:
    lines = [
        [p["other"], grids.spread(p["delta"], p["ci_low"], p["ci_high"]), console.number(p["p_value"], 4)]
        for p in found.pairs
    ]
    if not lines:
        return ""
    title = "<h3>Paired differences</h3>" + page.note(
        f"{FOCUS} minus each other method on the same problems and seeds: above zero {FOCUS} is ahead, and an interval "
        "that covers zero tells the two apart in neither direction."
    )
    head = (f"{FOCUS} minus", "pass@1 [95 %]", "p")
    return title + grids.grid(head, lines, colors=found.colors)
