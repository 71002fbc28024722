"""The line search: accuracy, entropy and KL along the step, for every method that searched one.

Does: rows and figure; where entropy is lowest along each line, beside the best and the chosen step.
Doesn't: compute; its data is search.json and, for methods all of whose steps were tested, scores.json.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair

from harness import console, stats, stepping
from harness.pipeline import Finished
from harness.report import charts, grids, page
from harness.report.charts import Figure
from harness.report.page import Section
from harness.report.results import FOCUS, Results

FIRST = (FOCUS, "one_shot_shuffled", "random_direction")
SEEDS = 5  # lines of one method that are drawn
PROXY = (
    "method",
    "seed",
    "KL at lowest entropy",
    "KL at best accuracy",
    "KL chosen",
    "grid points between the first two",
)
CAPTION = (
    "Selection problems, common random numbers; bands are one standard error by problem; the ring is the chosen step, the "
    "smallest within one standard error of the best. Dashed: the same steps on the test problems. Steps that fell behind "
    "stopped early and met fewer problems: their bands are wider. Selection scores are not results."
)  # fmt: skip


def rows(results: Results) -> list[dict[str, Any]]:
    """One per candidate: method, seed, relative step, accuracy with its standard error, entropy, KL, chosen, test score."""
    found = []
    for (method, seed), done in results.finished.items():
        if done.search is None or not any(c.step for c in done.search.candidates):
            continue
        tested = _tested(done)
        for index, candidate in enumerate(done.search.candidates):
            error = stats.clustered_se(stepping.rates(candidate.score))
            found.append(
                {
                    "method": method, "seed": seed, "relative_step": candidate.relative_step,
                    "kl": candidate.kl, "entropy": candidate.entropy, "accuracy": candidate.score.accuracy,
                    "low": candidate.score.accuracy - error, "high": candidate.score.accuracy + error,
                    "chosen": index == done.search.chosen, "test": tested[index],
                }
            )  # fmt: skip
    return found


def _tested(done: Finished) -> list[float]:
    """Test accuracy of every candidate, NaN where they were not all tested."""
    assert done.search is not None
    scores = done.evaluation.candidates
    whole = len(scores) == len(done.search.candidates)
    return [score.accuracy for score in scores] if whole else [math.nan] * len(done.search.candidates)


def figure(results: Results, found: Sequence[dict[str, Any]]) -> Figure:
    """Three panels over sqrt(KL), the natural step length: KL = c a^2 makes it linear in the step."""
    searched = dict.fromkeys(row["method"] for row in found)
    colors = charts.chosen({name: color for name, color in results.colors.items() if name in searched}, FIRST)
    shown = [
        {**row, "length": max(row["kl"] or 0.0, 0.0) ** 0.5, "line": f"{row['method']} {row['seed']}"}
        for row in found
        if row["method"] in colors and row["seed"] < SEEDS
    ]
    color, data = charts.color(colors), charts.over()
    x = altair.X("length:Q", title="square root of KL from base (step length)")
    told = charts.tooltip(
        "method:N", "seed:N", "kl:Q=KL", "accuracy:Q=selection", "test:Q", "entropy:Q", "relative_step:Q"
    )
    points = {"point": altair.OverlayMarkDef(size=22), "strokeWidth": 1.6}
    band = data.mark_area(opacity=0.13).encode(x=x, y="low:Q", y2="high:Q", color=color, detail="line:N")
    line = data.mark_line(**points).encode(
        x=x, y=altair.Y("accuracy:Q", title=None), color=color, detail="line:N", tooltip=told
    )
    test = (
        data.mark_line(strokeDash=[5, 3], strokeWidth=1.6)
        .encode(x=x, y="test:Q", color=color, detail="line:N")
        .transform_filter("isValid(datum.test)")
    )
    ring = data.transform_filter("datum.chosen").mark_point(size=150, strokeWidth=2.2, fill=None).encode(
        x=x, y="accuracy:Q", color=color, tooltip=told
    )  # fmt: skip
    entropy = data.mark_line(**points).encode(
        x=x, y=altair.Y("entropy:Q", title=None), color=color, detail="line:N", tooltip=told
    )
    step = altair.X(
        "relative_step:Q", title="relative step |delta| / |theta|", scale=altair.Scale(type="symlog", constant=0.001)
    )
    kl = data.mark_line(**points).encode(
        x=step, y=altair.Y("kl:Q", title=None), color=color, detail="line:N", tooltip=told
    )
    panels = [
        charts.panel("selection accuracy (dashed: test)", band, line, test, ring),
        charts.panel("entropy, nats per token", entropy),
        charts.panel("KL from base, nats per token", kl),
    ]
    return Figure("line_search", panels, found, shown, colors)


def section(results: Results) -> Section:
    found = rows(results)
    body = ""
    if found:
        drawn = figure(results, found)
        left = len({(r["method"], r["seed"]) for r in found}) - len({(r["method"], r["seed"]) for r in drawn.shown})
        more = f" {left} more lines are in figures/line_search.csv." if left else ""
        body = charts.show(results.root, drawn, CAPTION + more) + _entropy_proxy(results)
    return Section("line-search", "Line search", body, "No method searched a step.")


def _entropy_proxy(results: Results) -> str:
    """A step rule without labels: does it find the step that labels find?"""
    lines = []
    for (method, seed), done in results.finished.items():
        entropies = [c.entropy for c in done.search.candidates] if done.search else []
        if done.search is not None and None not in entropies and any(c.step for c in done.search.candidates):
            lowest = min(range(len(entropies)), key=lambda i: entropies[i] or 0.0)
            kls = [console.number(done.search.candidates[i].kl) for i in (lowest, done.search.best, done.search.chosen)]
            lines.append([method, seed, *kls, abs(lowest - done.search.best)])
    said = page.note(
        "Entropy along the line is U-shaped; its minimum needs no labels. Where it lies within a grid point or two of the best "
        "accuracy, it could have chosen the step."
    )
    return (
        "<h3>The step that entropy alone would choose</h3>" + grids.grid(PROXY, lines, colors=results.colors) + said
        if lines
        else ""
    )
