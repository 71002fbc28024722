"""The figure of a suite: gain over the base against the number of updates at each budget, the budget, or the base's pass@1.

Does: rows of (panel, method, budget, updates, gain with its 95 % interval) from the aggregate rows of a suite's runs, a
panel for each value of its other axes; the figure and its data as files.
Doesn't: compute a gain (leaderboard.py), or compare runs of different test data: those are in different panels.

Updates are the optimizer's as counted in the row; a method that searches its steps makes one for each of its `k`
directions. `one_shot_k` at k = 1 is `one_shot`, so both are one line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair

from harness import plugins
from harness.config import RunSpec
from harness.leaderboard import Row
from harness.methods import check_options, methods_of
from harness.report import charts
from harness.report.results import Results
from harness.suiting import Point

LINES = {"one_shot_k": "one_shot"}  # methods that stand on another one's line
ALONG = {"updates": "updates (log)", "budget": "training rollouts N (log)", "base": "pass@1 of the base"}
PANELLED = {"updates": ("domain", "budget"), "budget": ("domain", "budget"), "base": ("domain", "benchmark")}


def rows(runs: Sequence[tuple[Point, Results]], along: str) -> list[dict[str, Any]]:
    """One for each aggregate row of a method that updates the model; axes that lie along x have no panels."""
    found = plugins.load()
    drawn = []
    for point, results in runs:
        options = check_options(point.spec, methods_of(point.spec, found))
        for row in results.aggregate:
            made = updates(row, options[str(row["method"])])
            if made:
                others = [label for axis, label in point.axes.items() if axis not in PANELLED[along]]
                sets = [] if along == "base" else [str(row["test_benchmark"])]
                drawn.append({"panel": " ".join([point.spec.domain, *others, *sets]), **_row(point, row, made)})
    return drawn


def updates(row: Row, options: Mapping[str, Any]) -> float:
    """0: the method changes no weights, or not by an update."""
    trained = float(row["updates"] or 0)
    return trained or (float(options.get("k", 1)) if row["direction"] else 0.0)


def _row(point: Point, row: Row, made: float) -> dict[str, Any]:
    method, gain = str(row["method"]), float(row["delta"])
    low, high = (float(row[end]) if row[end] != "" else gain for end in ("ci_low", "ci_high"))
    return {
        "test": row["test_benchmark"], "method": method, "line": line_of(point.spec, method),
        "budget": point.spec.budget, "updates": made, "base": float(row["base_pass@1"]), "gain": gain,
        "ci_low": low, "ci_high": high, "seeds": point.spec.seeds, "status": row["status"],
    }  # fmt: skip


def line_of(spec: RunSpec, method: str) -> str:
    """Variants that differ in the number of their updates are one line."""
    uses = spec.target(method)
    return LINES.get(uses, uses)


def figure(found: Sequence[Mapping[str, Any]], along: str) -> charts.Chart:
    """`along` is one of ALONG; budgets are told apart by colour where they do not lie along x, else methods are."""
    data = altair.Data(values=[{**row, "rollouts": f"N = {row['budget']:,}"} for row in found])
    scale = altair.Scale(padding=12) if along == "base" else altair.Scale(type="log", nice=False, padding=12)
    x = altair.X(f"{along}:Q", title=ALONG[along], scale=scale)
    y = altair.Y("gain:Q", title="gain in pass@1 over the base, 95 % interval")
    budgets = [f"N = {budget:,}" for budget in sorted({row["budget"] for row in found})]
    color = (
        altair.Color("rollouts:N", title="budget", sort=budgets)
        if along == "updates"
        else altair.Color("line:N", title="method")
    )
    shape, lines = (
        altair.Shape("line:N", title="method"),
        ["line:N", "rollouts:N"] if along == "updates" else ["line:N"],
    )
    drawn = altair.Chart(data)
    zero = altair.Chart(altair.Data(values=[{"gain": 0}])).mark_rule(strokeDash=[4, 4], opacity=0.5).encode(y="gain:Q")
    curve = drawn.mark_line(strokeWidth=1.5).encode(x=x, y=y, color=color, detail=lines)
    points = drawn.mark_point(size=55, filled=True, opacity=1).encode(x=x, y=y, color=color, shape=shape)
    bars = drawn.mark_rule(opacity=0.6).encode(x=x, y="ci_low:Q", y2="ci_high:Q", color=color)
    panels = [
        altair.layer(
            zero, *(part.transform_filter(altair.datum.panel == panel) for part in (curve, bars, points))
        ).properties(width=300, height=260, title=panel)
        for panel in dict.fromkeys(row["panel"] for row in found)
    ]
    chart = altair.concat(*panels, columns=3).resolve_scale(y="shared", x="shared")
    return chart.configure_view(strokeOpacity=0.2).configure_axis(gridOpacity=0.25)


def write(runs: Sequence[tuple[Point, Results]], root: Path, along: str) -> Path | None:
    """figures/gain-by-<along>.png, .svg and .csv in the suite's folder; None when no method updates anything."""
    found = rows(runs, along)
    if not found:
        return None
    charts.save(root, f"gain-by-{along}", figure(found, along), found)
    return root / f"figures/gain-by-{along}.png"
