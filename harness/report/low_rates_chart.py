"""The figure of gains at low pass rates: over the batch pass rate p, beside it over N p, and the share of what most rollouts
gain over N p; one line for each N.

Does: draw rows of low_rates.py, or of the tabular grid, a row of panels for each domain and way; write it with its data.
Doesn't: compute.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair

from harness import store
from harness.passrates import crossing
from harness.report import charts, low_rates
from harness.report.charts import Chart

NAME = f"gain-by-{low_rates.ALONG}"
GAIN, SHARE = "gain in pass@1, 95 % interval", "share of the gain of most rollouts"
RATE, CORRECT = "p, pass rate of the batch (log)", "N p, expected correct rollouts (log)"
PANELS = (("p", RATE, "gain", GAIN), ("correct", CORRECT, "gain", GAIN), ("correct", CORRECT, "share", SHARE))
SCALE = 1.0  # of the PNG, which is kept in git


def figure(found: Sequence[Mapping[str, Any]]) -> Chart:
    """Rows have domain, way, p, correct, budget, gain, ci_low, ci_high and share, which may be None.

    `reference`, where rows have it, is the gain of infinite N: a dashed curve over p.
    """
    panels = []
    for key in dict.fromkeys((row["domain"], row["way"]) for row in found):
        own = [dict(row) for row in found if (row["domain"], row["way"]) == key]
        panels.append(altair.hconcat(*(_panel(own, *panel) for panel in PANELS), title=", ".join(key)))
    chart = altair.vconcat(*panels).configure_view(strokeOpacity=0.2).configure_axis(gridOpacity=0.25)
    return chart.configure_title(anchor="start")


def _panel(found: Sequence[Mapping[str, Any]], field: str, title: str, value: str, name: str) -> altair.LayerChart:
    budgets = [f"N = {budget:,}" for budget in sorted({row["budget"] for row in found})]
    shown = [{**row, "rollouts": f"N = {row['budget']:,}"} for row in found if row[value] is not None]
    data = altair.Chart(altair.Data(values=shown))
    axis = altair.Axis(grid=False, tickCount=6, format="~g")
    x = altair.X(f"{field}:Q", title=title, axis=axis, scale=altair.Scale(type="log", nice=False, padding=12))
    y = altair.Y(f"{value}:Q", title=name)
    color = altair.Color("rollouts:N", title="rollouts", sort=budgets, scale=altair.Scale(scheme="viridis"))
    marks = [
        _rule(0.0, [4, 4]),
        data.mark_line(strokeWidth=1.5).encode(x=x, y=y, color=color),
        data.mark_point(size=30, filled=True, opacity=1).encode(x=x, y=y, color=color),
    ]
    if value == "gain":
        marks[1:1] = [
            _rule(crossing.DELTA, [1, 3]),
            data.mark_rule(opacity=0.6).encode(x=x, y="ci_low:Q", y2="ci_high:Q", color=color),
        ]
    if field == "p" and "reference" in found[0]:
        marks.append(data.mark_line(strokeDash=[6, 3], color="black").encode(x=x, y="reference:Q"))
    return altair.layer(*marks).properties(width=230, height=150)


def _rule(value: float, dash: list[int]) -> altair.Chart:
    line = altair.Chart(altair.Data(values=[{"gain": value}]))
    return line.mark_rule(strokeDash=dash, opacity=0.6).encode(y=altair.Y("gain:Q"))


def write(found: Sequence[Mapping[str, Any]], root: Path) -> Path:
    """figures/gain-by-pass_rate.png, .svg and .csv under `root`; the CSV has a row for each run."""
    return save(root / "figures" / NAME, low_rates.panelled(found), list(found))


def save(path: Path, drawn: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> Path:
    """The figure of `drawn` as PNG and SVG, and `rows` as CSV, at `path` with their suffixes; returns the PNG's."""
    image = charts.svg(figure(drawn))
    store.write_text(path.with_suffix(".svg"), image)
    store.write_via(path.with_suffix(".png"), lambda name: Path(name).write_bytes(charts.png(image, scale=SCALE)))
    store.write_text(path.with_suffix(".csv"), _csv(rows))
    return path.with_suffix(".png")


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Six digits of a number, nothing for None."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows([{key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows])
    return text.getvalue()
