"""Overfitting: gain on problems that were trained on, met again with fresh draws, against gain on test problems.

Does: compare both gains, seed by seed, since every seed trains on problems of its own.
Doesn't: call a difference overfitting by itself: training problems may be easier, so the base's score on both stands beside.
"""

from __future__ import annotations

from typing import Any

import altair

from harness import leaderboard
from harness.report import charts, grids
from harness.report.charts import Figure
from harness.report.page import Section
from harness.report.results import FOCUS, Results

CAPTION = (
    "Gain over the base on training problems drawn afresh (filled) and on test problems (open), with 95 % intervals by problem. "
    "Far more on the left of a pair than on the right says that problems were learned by heart; alike gains say that what was learned carries over."
)  # fmt: skip
EMPTY = "No training problems were met again (evaluation.seen_problems is 0, or the run is older than that)."


def rows(found: Results) -> list[dict[str, Any]]:
    """One row for each method, seed and set ("trained on", "test"): base, score, gain and its interval."""
    made = []
    for (method, seed), done in found.finished.items():
        base = found.finished["base", seed]
        if method == "base" or done.seen is None or base.seen is None or done.contender == base.contender:
            continue
        sets = {"trained on": (base.seen, done.seen), "test": (base.evaluation.sampled, done.evaluation.sampled)}
        for name, (before, after) in sets.items():
            gain = leaderboard.comparison([(before, after)], seed=seed)
            made.append(
                {
                    "method": found.label(method), "seed": seed, "problems_of": name, "problems": len(after.problem_ids),
                    "base": before.accuracy, "score": after.accuracy, "gain": gain.delta, "ci_low": gain.ci_low,
                    "ci_high": gain.ci_high,
                }
            )  # fmt: skip
    return made


def figure(found: Results, made: list[dict[str, Any]]) -> Figure:
    colors = {name: color for name, color in found.colors.items() if name in {row["method"] for row in made}}
    shown = [{**row, "pair": f"{row['method']} {row['seed']}"} for row in made]
    x = altair.X("pair:N", title="method and seed", axis=altair.Axis(labelAngle=0, labelLimit=90))
    aside = altair.XOffset("problems_of:N", sort=["trained on", "test"])
    told = charts.tooltip(
        "method:N", "seed:N", "problems_of:N=problems", "base:Q", "score:Q", "gain:Q", "ci_low:Q=from", "ci_high:Q=to"
    )
    color, data = charts.color(colors), charts.over()
    bars = data.mark_rule(strokeWidth=2).encode(
        x=x, xOffset=aside, y="ci_low:Q", y2="ci_high:Q", color=color, tooltip=told
    )
    points = data.mark_point(size=80, opacity=1, strokeWidth=2).encode(
        x=x, xOffset=aside, y=altair.Y("gain:Q", title=None), color=color, tooltip=told,
        fill=altair.condition("datum.problems_of === 'test'", altair.value(charts.PAPER), color),
    )  # fmt: skip
    view = charts.panel("gain on problems trained on and on test problems", charts.rule_at(0), bars, points, width=560)
    return Figure("overfitting", [view], made, shown, colors)


def section(found: Results) -> Section:
    made = rows(found)
    if not made:
        return Section("overfitting", "Overfitting", "", EMPTY)
    head = (
        "method",
        "seed",
        "base, trained on",
        "base, test",
        "gain, trained on [95 %]",
        "gain, test [95 %]",
        "difference",
    )
    lines = []
    for seen, test in zip(made[::2], made[1::2], strict=True):
        gains = [grids.spread(row["gain"], row["ci_low"], row["ci_high"]) for row in (seen, test)]
        bases = [f"{row['base']:.3f}" for row in (seen, test)]
        lines.append([seen["method"], seen["seed"], *bases, *gains, f"{seen['gain'] - test['gain']:+.3f}"])
    table = grids.grid(head, lines, colors=found.colors, focus=FOCUS)
    return Section("overfitting", "Overfitting", charts.show(found.root, figure(found, made), CAPTION) + table)
