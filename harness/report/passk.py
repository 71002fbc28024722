"""pass@k of the base and of the methods that were drawn widely: does a method find more, or the same more often?

Does: unbiased pass@k for doubling k from the wide draws, with intervals by problem and over seeds.
Doesn't: extrapolate beyond the draws there are.
"""

from __future__ import annotations

import functools
from typing import Any

import altair
import numpy as np

from harness import stats
from harness.report import charts, grids, levels
from harness.report.charts import Figure
from harness.report.page import Section
from harness.report.results import Results
from harness.types import Score

KS = (1, 2, 4, 8, 16, 32, 64)
CAPTION = (
    "Share of problems solved at least once in k draws (unbiased, from the wide draws on some of the test problems); bands are 95 % "
    "intervals over problems and seeds. A method whose curve meets or crosses the base's at large k has made likely what the base "
    "could do already; only one that stays above has found something new. At the largest k every problem counts all its draws once."
)  # fmt: skip
EMPTY = "No method has wide draws on this test set (evaluation.wide_methods and evaluation.wide_samples ask for them)."


def rows(found: Results) -> list[dict[str, Any]]:
    """One row per method and k, the base first: problems, draws of each, pass@k and its interval."""
    made = []
    for method in found.methods:
        wide = [found.finished[method, seed].evaluation.wide for seed in found.seeds_of(method)]
        scores = [score for score in wide if score is not None]
        draws = min((max(score.n, default=0) for score in scores), default=0)
        for k in (k for k in KS if k <= draws):
            mean, low, high = levels.interval(np.array([solved(score, k) for score in scores]))
            made.append(
                {
                    "method": found.label(method), "k": k, "pass@k": mean, "ci_low": low, "ci_high": high,
                    "problems": len(scores[0].problem_ids), "draws": draws, "seeds": len(scores),
                }
            )  # fmt: skip
    return made


def solved(score: Score, k: int) -> levels.Floats:
    """pass@k of each problem, NaN with fewer than k verdicts."""
    return np.array([_solved(n, correct, k) for n, correct in zip(score.n, score.correct, strict=True)])


@functools.cache
def _solved(n: int, correct: int, k: int) -> float:
    return stats.pass_at_k(n, correct, k)


def figure(found: Results, made: list[dict[str, Any]]) -> Figure:
    colors = {name: color for name, color in found.colors.items() if name in {row["method"] for row in made}}
    x = altair.X(
        "k:Q",
        title="draws k (log)",
        scale=altair.Scale(type="log", base=2),
        axis=altair.Axis(values=list(KS), format="d"),
    )
    told = charts.tooltip("method:N", "k:Q", "pass@k:Q", "ci_low:Q=from", "ci_high:Q=to")
    color, data = charts.color(colors), charts.over()
    band = data.mark_area(opacity=0.14).encode(x=x, y="ci_low:Q", y2="ci_high:Q", color=color)
    line = data.mark_line(point=altair.OverlayMarkDef(size=30)).encode(
        x=x, y=altair.Y("pass@k:Q", title=None), color=color, tooltip=told
    )
    return Figure(
        "passk", [charts.panel("pass@k, 95 % interval", band, line, width=560, height=280)], made, made, colors
    )


def section(found: Results) -> Section:
    made = rows(found)
    if not made:
        return Section("passk", "pass@k", "", EMPTY)
    ks = sorted({row["k"] for row in made})
    lines = []
    for method in dict.fromkeys(row["method"] for row in made):
        own = {
            row["k"]: f"{row['pass@k']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
            for row in made
            if row["method"] == method
        }
        lines.append([method, *(own.get(k, "") for k in ks)])
    table = grids.grid(["method", *(f"pass@{k}" for k in ks)], lines, colors=found.colors)
    return Section("passk", "pass@k", charts.show(found.root, figure(found, made), CAPTION) + table)
