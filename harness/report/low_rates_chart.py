"""The figure of gains at low pass rates: over the batch pass rate p, and beside it over N p, one line for each N.

Does: draw rows of low_rates.py, or of the tabular grid, a row of panels for each domain and way; write it with its data.
Doesn't: compute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair

from harness.report import html, low_rates
from harness.report.charts import Chart

NAME = f"gain-by-{low_rates.ALONG}"
AXES = (("p", "p, pass rate of the batch (log)"), ("correct", "N p, expected correct rollouts (log)"))


def figure(found: Sequence[Mapping[str, Any]]) -> Chart:
    """Rows have domain, way, p, correct, budget, gain, ci_low and ci_high; `reference` is the gain of infinite N."""
    panels = []
    for key in dict.fromkeys((row["domain"], row["way"]) for row in found):
        own = [dict(row) for row in found if (row["domain"], row["way"]) == key]
        panels.append(altair.hconcat(*(_panel(own, field, title) for field, title in AXES), title=", ".join(key)))
    chart = altair.vconcat(*panels).configure_view(strokeOpacity=0.2).configure_axis(gridOpacity=0.25)
    return chart.configure_title(anchor="start")


def _panel(found: Sequence[Mapping[str, Any]], field: str, title: str) -> altair.LayerChart:
    budgets = [f"N = {budget:,}" for budget in sorted({row["budget"] for row in found})]
    data = altair.Chart(altair.Data(values=[{**row, "rollouts": f"N = {row['budget']:,}"} for row in found]))
    x = altair.X(f"{field}:Q", title=title, scale=altair.Scale(type="log", nice=False, padding=12))
    y = altair.Y("gain:Q", title="gain in pass@1, 95 % interval")
    color = altair.Color("rollouts:N", title="rollouts", sort=budgets, scale=altair.Scale(scheme="viridis"))
    marks = [
        _rule(0.0, [4, 4]),
        _rule(low_rates.BREAK_EVEN, [1, 3]),
        data.mark_line(strokeWidth=1.5).encode(x=x, y=y, color=color),
        data.mark_rule(opacity=0.6).encode(x=x, y="ci_low:Q", y2="ci_high:Q", color=color),
        data.mark_point(size=40, filled=True, opacity=1).encode(x=x, y=y, color=color),
    ]
    if field == "p" and "reference" in found[0]:
        marks.append(data.mark_line(strokeDash=[6, 3], color="black").encode(x=x, y="reference:Q"))
    return altair.layer(*marks).properties(width=300, height=170)


def _rule(value: float, dash: list[int]) -> altair.Chart:
    line = altair.Chart(altair.Data(values=[{"gain": value}]))
    return line.mark_rule(strokeDash=dash, opacity=0.6).encode(y="gain:Q")


def write(found: Sequence[Mapping[str, Any]], root: Path) -> Path:
    """figures/gain-by-pass_rate.png, .svg and .csv under `root`; the CSV has a row for each run, the figure's data."""
    html.save_figure(root, NAME, figure(low_rates.panelled(found)), list(found))
    return root / f"figures/{NAME}.png"
