"""Where low base pass rates break a method: gain against pass rate in two views, and the break-even of each method.

Does: draw what harness/passrates computed. View 1, within the run: test problems in bins by the base's own draws for that
purpose. View 2, across batches: the pass rate of each training batch, one for each seed, or for each run and seed.
Doesn't: mix the two: they answer different questions on different axes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair

from harness.passrates.binning import BinRow
from harness.report import charts, grids, page
from harness.report.charts import Figure
from harness.report.page import Section
from harness.report.results import FOCUS, STANDARD, Results

FIRST = (FOCUS, STANDARD, "one_shot_shuffled", "rejection_sft")
MOST = 6
WITHIN = (
    "View 1, within this run: does the method help problems that the base seldom solves? Test problems are sorted by the base's pass "
    "rate in 16 draws of their own; base and method are scored on other draws, so that an unchanged model gains nothing in any bin. "
    "Gains with 95 % intervals, paired by problem."
)  # fmt: skip
ACROSS = (
    "View 2, across training batches: how does the gain depend on the pass rate of the batch that gave the direction? One point for "
    "each run and seed, its 95 % interval over test problems. The pass rate of a batch is what breaks the method; it is not that of a "
    "test problem, and the two views share no axis."
)  # fmt: skip
NO_BINS = (
    "The base has no draws for bins in this run (evaluation.bin_samples was 0, or the run is older than they are)."
)
NO_BATCH = "No method of this run took its direction from a batch."


def section(found: Results, binned: Sequence[BinRow]) -> Section:
    """`binned` are the rows of binning.rows."""
    return Section("pass-rate", "Gain against base pass rate", _within(found, binned) + _across(found))


def _within(found: Results, binned: Sequence[BinRow]) -> str:
    made = [row._asdict() for row in binned]
    head = "<h3>View 1: by the base's pass rate on each test problem</h3>"
    if not made:
        return head + page.note(NO_BINS)
    return head + charts.show(found.root, within(found, made), WITHIN) + _bin_table(found, made)


def within(found: Results, made: Sequence[Mapping[str, Any]]) -> Figure:
    """Gain, and pass rate of base and method, in every bin."""
    colors = charts.chosen(_besides_base(found), FIRST, MOST)
    shown = [{**row, "bin": short(row["bin"])} for row in made if row["method"] in colors]
    bins = list(dict.fromkeys(row["bin"] for row in shown))
    x = altair.X(
        "bin:O", title="base pass rate of the problem (16 draws of its own)", sort=bins, axis=altair.Axis(labelAngle=0)
    )
    aside = altair.XOffset("method:N", sort=list(colors))
    told = charts.tooltip(
        "method:N", "bin:N", "problems:Q", "base:Q", "rate:Q=method", "gain:Q", "ci_low:Q=from", "ci_high:Q=to"
    )
    color, data = charts.color(colors), charts.over()
    bars = data.mark_rule(strokeWidth=2).encode(
        x=x, xOffset=aside, y="ci_low:Q", y2="ci_high:Q", color=color, tooltip=told
    )
    points = data.mark_point(filled=True, size=45, opacity=1).encode(
        x=x, xOffset=aside, y=altair.Y("gain:Q", title=None), color=color, tooltip=told
    )
    rates = data.mark_line(point=altair.OverlayMarkDef(size=40), strokeWidth=1.6).encode(
        x=x, y=altair.Y("rate:Q", title=None), color=color, tooltip=told
    )
    base = data.mark_line(strokeDash=[5, 3], color=charts.INK, strokeWidth=1.6).encode(x=x, y="mean(base):Q")
    panels = [
        charts.panel("View 1: gain in pass@1 by bin", charts.rule_at(0), bars, points, width=480, height=270),
        charts.panel("pass@1 by bin (dashed: base)", base, rates, width=480, height=270),
    ]
    return Figure("gain_by_pass_rate", panels, made, shown, colors)


def short(label: str) -> str:
    """A bin as an axis says it: "above .1 to .25" is >.1-.25."""
    return label.replace("above ", ">").replace(" to ", "\u2013").replace("0.", ".")


def _besides_base(found: Results) -> dict[str, str]:
    return {name: color for name, color in found.colors.items() if name != "base"}


def _bin_table(found: Results, made: Sequence[Mapping[str, Any]]) -> str:
    bins = {row["bin"]: row for row in made}
    head = ["gain in pass@1", *(f"{short(label)} ({row['problems']})" for label, row in bins.items())]
    lines = [["base pass@1", *(f"{row['base']:.3f}" for row in bins.values())]]
    for method in dict.fromkeys(row["method"] for row in made):
        own = [row for row in made if row["method"] == method]
        if any(row["gain"] for row in own):
            lines.append([method, *(grids.spread(row["gain"], row["ci_low"], row["ci_high"]) for row in own)])
    said = page.note("In parentheses the number of test problems in the bin; > leaves the lower end out.")
    return grids.grid(head, lines, colors=found.colors, focus=FOCUS) + said


def _across(found: Results) -> str:
    made = batches([found])
    head = "<h3>View 2: by the pass rate of the training batch</h3>"
    if not made:
        return head + page.note(NO_BATCH)
    return head + charts.show(found.root, across(found.colors, made), ACROSS)


def batches(runs: Sequence[Results]) -> list[dict[str, Any]]:
    """One row for each run, method and seed whose direction came from a batch: its pass rate and the gain."""
    made = []
    for found in runs:
        test = next(iter(found.manifest["tests"]))
        for row in found.rows:
            if row["seed"] == "all" or row["batch_pass_rate"] == "" or row["test_benchmark"] != test:
                continue
            low, high = (float(row[end]) if row[end] != "" else math.nan for end in ("ci_low", "ci_high"))
            made.append(
                {
                    "run": found.root.name, "method": row["method"], "seed": int(row["seed"]), "domain": row["domain"],
                    "batch_pass_rate": float(row["batch_pass_rate"]), "rollouts": float(row["train_rollouts"]),
                    "gain": float(row["delta"]), "ci_low": low, "ci_high": high, "status": row["status"],
                }
            )  # fmt: skip
    return made


def across(palette: Mapping[str, str], made: Sequence[Mapping[str, Any]]) -> Figure:
    """A shape for each run where several are few enough to tell apart."""
    drawn = {row["method"] for row in made}
    colors = charts.chosen({key: color for key, color in palette.items() if key in drawn}, FIRST)
    shown = [row for row in made if row["method"] in colors]
    scale = charts.around([row["batch_pass_rate"] for row in shown])
    x = altair.X("batch_pass_rate:Q", title="pass rate of the training batch", scale=scale)
    told = charts.tooltip(
        "run:N",
        "method:N",
        "seed:N",
        "rollouts:Q",
        "batch_pass_rate:Q=batch pass rate",
        "gain:Q",
        "ci_low:Q=from",
        "ci_high:Q=to",
    )
    color, data = charts.color(colors), charts.over()
    bars = data.mark_rule(opacity=0.6).encode(x=x, y="ci_low:Q", y2="ci_high:Q", color=color, tooltip=told)
    points = data.mark_point(filled=True, size=60, opacity=1).encode(
        x=x, y=altair.Y("gain:Q", title=None), color=color, tooltip=told, **charts.shapes([row["run"] for row in shown])
    )
    view = charts.panel("View 2: gain in pass@1 by batch", charts.rule_at(0), bars, points, width=620, height=270)
    return Figure("gain_by_batch", [view], made, shown, colors)
