"""The learning curves of methods that take many updates: what every update's own batch showed.

Does: rows and a figure of batch pass rate, dead groups' share and completion length by update.
Doesn't: judge a method by them: batches are training problems, and those of methods that reuse one batch do not change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair

from harness.report import charts
from harness.report.charts import Figure
from harness.report.results import FOCUS, STANDARD, Results

SHORTEST = 4  # updates below which there is no curve to look at
LONGEST = 80  # points of one line that are drawn
SEEDS = 5  # lines of one method that are drawn
PANELS = (
    ("pass_rate", "pass rate of the batch"),
    ("mean_tokens", "tokens per completion"),
    ("grad_norm", "gradient norm"),
)
CAPTION = "Each update's own batch of training problems, before the update; test scores are in the leaderboard."


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


def figure(results: Results, found: Sequence[dict[str, Any]]) -> Figure:
    """Panels over the update's number; a line for each seed."""
    trained = {row["method"]: row["update"] for row in found}  # the last update of each method
    colors = charts.chosen({k: v for k, v in results.colors.items() if k in trained}, (STANDARD, FOCUS))
    shown = [
        {**row, "line": f"{row['method']} {row['seed']}"}
        for row in found
        if row["method"] in colors and row["seed"] < SEEDS and _drawn(row["update"], trained[row["method"]])
    ]
    told = charts.tooltip("method:N", "seed:N", "update:Q", "pass_rate:Q", "mean_tokens:Q", "loss:Q", "grad_norm:Q")
    panels = [
        charts.panel(
            title,
            charts.over()
            .mark_line(opacity=0.85, strokeWidth=1.5)
            .encode(
                x=altair.X("update:Q", title="update"),
                y=altair.Y(f"{column}:Q", title=None, scale=altair.Scale(zero=False)),
                color=charts.color(colors),
                detail="line:N",
                tooltip=told,
            ),
        )
        for column, title in PANELS
    ]
    return Figure("training", panels, found, shown, colors)


def _drawn(update: int, last: int) -> bool:
    every = math.ceil(last / LONGEST)
    return update % every == 0 or update in (1, last)


def body(results: Results) -> str:
    found = rows(results)
    return charts.show(results.root, figure(results, found), CAPTION) if found else ""
