"""The learning curves of methods that take many updates: what every update's own batch showed.

Does: rows and a figure of batch pass rate, dead groups' share and completion length by update.
Doesn't: judge a method by them: batches are training problems, and those of methods that reuse one batch do not change.
"""

from __future__ import annotations

import math
from typing import Any

import altair

from harness.report import charts
from harness.report.results import Results

SHORTEST = 4  # updates below which there is no curve to look at
PANELS = (
    ("pass_rate", "pass rate of the batch"),
    ("mean_tokens", "tokens per completion"),
    ("grad_norm", "gradient norm"),
)


def rows(found: Results) -> list[dict[str, Any]]:
    """One row for each update of a method with at least SHORTEST of them."""
    return [
        {
            "method": method, "seed": seed, "update": number, "pass_rate": step.pass_rate,
            "groups_dead": step.groups_dead, "mean_tokens": step.mean_tokens, "loss": step.loss,
            "grad_norm": step.grad_norm,
        }
        for (method, seed), done in found.finished.items()
        if len(done.trained) >= SHORTEST
        for number, step in enumerate(done.trained, start=1)
    ]  # fmt: skip


def figure(found: list[dict[str, Any]]) -> charts.Chart:
    """Panels over the update's number; a faint line for each seed."""
    placed = [{**row, "line": f"{row['method']} {row['seed']}"} for row in found]
    known = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in placed]
    data = altair.Data(values=known)
    panels = [
        altair.Chart(data)
        .mark_line(opacity=0.8, strokeWidth=1.5)
        .encode(
            x=altair.X("update:Q", title="update"),
            y=altair.Y(f"{column}:Q", title=title),
            color=altair.Color("method:N", title=None, legend=altair.Legend(orient="top", symbolOpacity=1)),
            detail="line:N",
        )
        .properties(width=260, height=220)
        for column, title in PANELS
    ]
    return altair.hconcat(*panels).configure_view(strokeOpacity=0.2).configure_axis(gridOpacity=0.25)
