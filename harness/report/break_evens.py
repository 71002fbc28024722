"""The base pass rate below which each method's expected gain stays under a margin, on the page.

Does: one line for each method within the run, in words and numbers, and the fitted curve behind it.
Doesn't: fit (harness/passrates/within.py), or use bins: every problem stands at its own pass rate, as far as its draws tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import altair

from harness.passrates import crossing, within
from harness.passrates.crossing import BreakEven
from harness.report import charts, grids, page
from harness.report.charts import Figure
from harness.report.page import Section
from harness.report.results import FOCUS, STANDARD, Results

MOST = 5  # methods in the figure
FEWEST = 10  # test problems
TABLED = 16  # methods in the table: every one takes thousands of fits
CAPTION = (
    "Fitted gain against the base's pass rate on a problem (through the noise of the draws that measure it), bands are 95 % intervals over "
    "problems and seeds; the dashed line is the margin. Where a curve lies below it, the method does not pay at that pass rate. At high pass "
    "rates the gain has to fall: nothing is left to gain."
)  # fmt: skip
EMPTY = "The base has no draws for bins in this run, or solves all its test problems equally often, or the test problems are too few: there is no pass rate to break even at."
HEAD = ("method", "gain to reach", "break-even", "95 % interval")


class Margin(NamedTuple):
    """A gain to reach, and what it is."""

    delta: float
    what: str


class Found(NamedTuple):
    """The break-even of one method at one margin."""

    method: str
    margin: Margin
    at: BreakEven


def margins(found: Results) -> list[Margin]:
    """Two points, and half of what standard RLVR gains where it gains anything."""
    half = [0.5 * float(row["delta"]) for row in found.aggregate if row["method"] == STANDARD and row["ci_low"] != ""]
    own = [Margin(crossing.DELTA, f"{crossing.DELTA:.2f}")]
    return own + [
        Margin(delta, f"half of {STANDARD}'s gain ({delta:.3f})") for delta in half[:1] if delta > crossing.DELTA
    ]


def rows(found: Results) -> list[Found]:
    """Methods that change anything, TABLED at most, at every margin."""
    made, changing = [], {row["method"] for row in found.aggregate if row["ci_low"] != ""}
    for method in charts.chosen({name: "" for name in found.methods}, (FOCUS, STANDARD), TABLED):
        if method in changing:
            goals = margins(found)
            broken = of(found, method, deltas=[margin.delta for margin in goals])
            made += [Found(found.label(method), margin, at) for margin, at in zip(goals, broken, strict=False)]
    return made


def of(found: Results, method: str, *, deltas: Sequence[float] = (crossing.DELTA,)) -> Sequence[BreakEven]:
    """One for each of `deltas`; none below FEWEST test problems, where there is no curve to fit."""
    problems = len(found.finished[method, 0].evaluation.sampled.problem_ids)
    return within.break_evens(found, method, deltas=deltas) if problems >= FEWEST else []


def curve(made: Sequence[Found]) -> list[dict[str, Any]]:
    """The points of each method's fit, once."""
    first = {one.method: one.at for one in reversed(made)}
    return [
        {"method": method, "rate": p.rate, "fitted": p.method, "gain": p.gain, "low": p.low, "high": p.high}
        for method, at in first.items()
        for p in at.curve
    ]


def figure(found: Results, made: Sequence[Found]) -> Figure:
    points = curve(made)
    drawn = {row["method"] for row in points}
    colors = charts.chosen({k: v for k, v in found.colors.items() if k in drawn}, (FOCUS, STANDARD), MOST)
    shown: list[Mapping[str, Any]] = [row for row in points if row["method"] in colors]
    x = altair.X("rate:Q", title="base pass rate of a test problem", scale=altair.Scale(zero=True))
    told = charts.tooltip("method:N", "rate:Q=base pass rate", "gain:Q", "low:Q=from", "high:Q=to")
    color, data = charts.color(colors), charts.over()
    band = data.mark_area(opacity=0.12).encode(x=x, y="low:Q", y2="high:Q", color=color)
    line = data.mark_line(point=altair.OverlayMarkDef(size=8)).encode(
        x=x, y=altair.Y("gain:Q", title=None), color=color, tooltip=told
    )
    layers = [charts.rule_at(crossing.DELTA), band, line]
    return Figure(
        "break_even", [charts.panel("fitted gain in pass@1", *layers, width=620, height=270)], points, shown, colors
    )


def section(found: Results, made: Sequence[Found]) -> Section:
    if not made:
        return Section("break-even", "Break-even", "", EMPTY)
    lines = [[one.method, one.margin.what, *cells(one.at)] for one in made]
    table = grids.grid(HEAD, lines, colors=found.colors, focus=FOCUS)
    said = page.note(
        "The interval comes from resampled problems and seeds. It is a bound on one side where the gain is reached, or missed, at all pass "
        "rates that were seen. Across runs of different base pass rates: harness report RUN RUN ..."
    )
    top = "".join(
        page.lead(f"{one.method}, at a gain of {one.margin.what}: {one.at.words}.")
        for one in made
        if one.method == FOCUS
    )
    return Section(
        "break-even", "Break-even", top + charts.show(found.root, figure(found, made), CAPTION) + table + said
    )


def cells(at: BreakEven) -> list[str]:
    """Where it is and its interval, as a table writes them."""
    where = {"gains everywhere": f"below {at.lowest:.3g}", "gains nowhere": "none seen"}.get(at.outcome, f"{at.at:.3g}")
    low = f"below {at.lowest:.3g}" if at.low == 0.0 else f"{at.low:.3g}"
    high = f"above {at.highest:.3g}" if at.high == math.inf else f"{at.high:.3g}"
    if at.high == 0.0:
        return [where, f"all below {at.lowest:.3g}"]
    if at.low == math.inf:
        return [where, f"all above {at.highest:.3g}"]
    return [where, f"{low} to {high}"]
