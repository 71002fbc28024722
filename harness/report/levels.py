"""pass@1 by ladder level, for every method of a run.

Does: group test scores by the level of their problem, average over seeds, give 95 % intervals clustered by problem.
Doesn't: compare methods, or invent levels: without any in the benchmark there are no rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import altair
import numpy as np
import numpy.typing as npt

from harness import console, stats, stepping, store
from harness.report import charts, grids
from harness.report.charts import Figure
from harness.report.results import FOCUS, STANDARD, Results
from harness.types import Score

K = 16
MOST = 6  # methods in the figure
Floats = npt.NDArray[np.float64]


class Table(NamedTuple):
    """Cells as text, below their head."""

    head: list[str]
    lines: list[list[str]]

    def markdown(self, title: str) -> str:
        """The table under its title, or nothing where it has no lines."""
        lines = [self.head, ["---"] * len(self.head), *self.lines]
        return (
            f"{title}\n\n" + "\n".join(f"| {' | '.join(map(grids.plain, line))} |" for line in lines)
            if self.lines
            else ""
        )


def levels_of(root: Path) -> dict[str, int]:
    """Level of every test problem that has one, by problem id."""
    entries = (entry for entry in store.read_lines(root / "problems.jsonl") if entry["split"].startswith("test/"))
    return {e["problem"].id: e["problem"].level for e in entries if e["problem"].level is not None}


def rows(found: Results) -> list[dict[str, Any]]:
    """One row per method and level, base first: test problems, seeds, pass@1 with its interval, pass@16.

    pass@16 is NaN without wide draws. All numbers are means over seeds; problems without a verdict are left out.
    """
    levels = levels_of(found.root)
    out = []
    for method in found.methods:
        evaluations = [found.finished[method, seed].evaluation for seed in found.seeds_of(method)]
        for level in sorted(set(levels.values())):
            rates_SP = np.array([stepping.rates(e.sampled)[_at(e.sampled, levels, level)] for e in evaluations])
            wide = [_solved(e.wide, levels, level) for e in evaluations if e.wide is not None]
            mean, low, high = interval(rates_SP)
            out.append(
                {
                    "method": found.label(method), "level": level, "problems": rates_SP.shape[1], "seeds": len(evaluations),
                    "pass@1": mean, "ci_low": low, "ci_high": high,
                    f"pass@{K}": float(np.mean(wide)) if wide else math.nan,
                }
            )  # fmt: skip
    return out


def _at(score: Score, levels: Mapping[str, int], level: int) -> npt.NDArray[np.bool_]:
    return np.array([levels.get(problem_id) == level for problem_id in score.problem_ids])


def _solved(wide: Score, levels: Mapping[str, int], level: int) -> float:
    kept_P = _at(wide, levels, level)
    return stats.pass_at_k(np.array(wide.n)[kept_P], np.array(wide.correct)[kept_P], K)


def interval(rates_SP: Floats) -> tuple[float, float, float]:
    """Mean over seeds and problems, and its interval (stats.rate_over_seeds)."""
    rates_SP = rates_SP[:, ~np.isnan(rates_SP).all(axis=0)]
    if rates_SP.size == 0:
        return math.nan, math.nan, math.nan
    found = stats.rate_over_seeds(rates_SP)
    return found.delta, found.low, found.high


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Methods down, levels across, the number of test problems in the head; a second line where there are wide draws."""
    base = [row for row in rows if row["method"] == rows[0]["method"]]
    head = ["method", "score", *(f"level {row['level']} ({row['problems']})" for row in base)]
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        lines.append([method, "pass@1", *map(_rate, own)])
        if any(not math.isnan(row[f"pass@{K}"]) for row in own):
            lines.append([method, f"pass@{K}", *(console.number(row[f"pass@{K}"]) for row in own)])
    return Table(head, lines)


def figure(found: Results, rows: Sequence[Mapping[str, Any]]) -> Figure:
    """pass@1 by level, a line for each method."""
    colors = charts.chosen(found.colors, ("base", FOCUS, STANDARD, "rejection_sft"), MOST)
    shown = [row for row in rows if row["method"] in colors]
    x, aside = (
        altair.X("level:O", title="level", axis=altair.Axis(labelAngle=0)),
        altair.XOffset("method:N", sort=list(colors)),
    )
    told = charts.tooltip("method:N", "level:O", "problems:Q", "pass@1:Q", "ci_low:Q=from", "ci_high:Q=to")
    color, data = charts.color(colors), charts.over()
    bars = data.mark_rule(strokeWidth=2).encode(
        x=x, xOffset=aside, y="ci_low:Q", y2="ci_high:Q", color=color, tooltip=told
    )
    points = data.mark_point(filled=True, size=50, opacity=1).encode(
        x=x, xOffset=aside, y=altair.Y("pass@1:Q", title=None), color=color, tooltip=told
    )
    return Figure("levels", [charts.panel("pass@1 by level", bars, points, width=620, height=260)], rows, shown, colors)


def _rate(row: Mapping[str, Any]) -> str:
    return f"{row['pass@1']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"


def markdown(found: Results) -> str:
    """The table under its title, or nothing for a benchmark without levels."""
    own = rows(found)
    return table(own).markdown("**By level** [95 % interval]") if own else ""
