"""Number of steps against size of batch at one budget, beside the null model in which batches only average noise.

Does: place every method that steps along fresh batches of the base's kind (one_shot, one_shot_k, grpo and their variants) at
its steps k, its batch N / k and its effective steps (harness/passrates/batching.py).
Doesn't: place methods that reuse one batch: their steps are not of fresh rollouts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair

from harness import config
from harness.leaderboard import Row
from harness.passrates import batching
from harness.passrates.signals import Signal
from harness.report import charts, grids
from harness.report.charts import Figure
from harness.report.page import Section
from harness.report.results import FOCUS, STANDARD, Results

FRESH = ("one_shot", "one_shot_k", "grpo")
CAPTION = (
    "Gain against the number of steps k, each from N / k rollouts (left), and against effective steps k / (1 + B_crit k / N) (right), with "
    "95 % intervals. B_crit, the batch at which noise equals signal, is measured at the base. Were noise all that told batches apart, "
    "methods with equal effective steps would gain alike: where they don't, curvature, staleness or the step rule is what differs."
)  # fmt: skip
EMPTY = "Needs two or more of: one_shot, one_shot_k, grpo, or variants of them (harness run --suite pareto is the whole grid)."
HEAD = ("method", "steps k", "batch N / k", "effective steps", "gain [95 %]")


def rows(found: Results, signal: Sequence[Signal]) -> list[dict[str, Any]]:
    """One for each method of FRESH on the first test set; effective steps are NaN without an SNR of the base's batch."""
    critical = critical_batch(signal)
    test = next(iter(found.manifest["tests"]))
    made = []
    for row in found.aggregate:
        steps = steps_of(found, row)
        if steps and row["test_benchmark"] == test and row["ci_low"] != "":
            budget = float(row["train_rollouts"])
            made.append(
                {
                    "method": row["method"], "steps": steps, "batch": budget / steps, "rollouts": budget,
                    "effective": batching.effective_steps(steps, budget, critical) if budget and critical else math.nan,
                    "critical": critical or math.nan, "gain": float(row["delta"]), "ci_low": float(row["ci_low"]),
                    "ci_high": float(row["ci_high"]),
                }
            )  # fmt: skip
    return made


def critical_batch(signal: Sequence[Signal]) -> float:
    """B_crit in rollouts from the method under test, all seeds; 0 where none was measured."""
    own = [(one.snr, one.rollouts) for one in signal if one.method == FOCUS and not math.isnan(one.snr)]
    if not own:
        return 0.0
    snr = sum(value for value, _ in own) / len(own)
    return batching.critical_batch(snr, round(sum(rollouts for _, rollouts in own) / len(own)))


def steps_of(found: Results, row: Row) -> float:
    """0: the method takes no step of a fresh batch."""
    options = found.manifest["spec"]["method"].get(row["method"], {})
    uses = options.get(config.USES, row["method"])
    if uses not in FRESH:
        return 0.0
    return float(row["updates"] or 0) or float(options.get("k", 1 if uses == FOCUS else 0))


def figure(palette: Mapping[str, str], made: Sequence[Mapping[str, Any]]) -> Figure:
    drawn = {row["method"] for row in made}
    colors = charts.chosen({k: v for k, v in palette.items() if k in drawn}, (FOCUS, STANDARD), 12)
    shown = [row for row in made if row["method"] in colors]
    color, data = charts.color(colors), charts.over()
    told = charts.tooltip(
        "method:N", "steps:Q", "batch:Q", "effective:Q=effective steps", "gain:Q", "ci_low:Q=from", "ci_high:Q=to"
    )
    panels = []
    for column, title in (("steps", "steps k (log)"), ("effective", "effective steps (log)")):
        x = altair.X(f"{column}:Q", title=title, scale=altair.Scale(type="log", padding=14, nice=False))
        kept = f"datum.{column} > 0"
        bars = data.mark_rule(opacity=0.6).encode(x=x, y="ci_low:Q", y2="ci_high:Q", color=color, tooltip=told)
        points = data.mark_point(filled=True, size=75, opacity=1).encode(
            x=x,
            y=altair.Y("gain:Q", title=None),
            color=color,
            tooltip=told,
            **charts.shapes([str(row.get("run", "")) for row in shown]),
        )
        layers = [layer.transform_filter(kept) for layer in (bars, points)]
        panels.append(
            charts.panel(f"gain against {title.removesuffix(' (log)')}", charts.rule_at(0), *layers, width=420)
        )
    return Figure("steps_and_batches", panels, made, shown, colors)


def section(found: Results, signal: Sequence[Signal]) -> Section:
    made = rows(found, signal)
    if len({row["steps"] for row in made}) < 2:
        return Section("steps", "Steps against batch", "", EMPTY)
    lines = [
        [r["method"], f"{r['steps']:.0f}", f"{r['batch']:.0f}", "" if math.isnan(r["effective"]) else f"{r['effective']:.2f}",
         grids.spread(r["gain"], r["ci_low"], r["ci_high"])]
        for r in made
    ]  # fmt: skip
    critical = made[0]["critical"]
    said = (
        ""
        if math.isnan(critical)
        else f'<p class="note">Critical batch of the base\'s direction: {critical:.0f} rollouts.</p>'
    )
    table = grids.grid(HEAD, lines, colors=found.colors, focus=FOCUS)
    return Section(
        "steps", "Steps against batch", charts.show(found.root, figure(found.colors, made), CAPTION) + table + said
    )
