"""What of a gain is format: the same completions judged strictly and leniently, method against base.

Does: gains in pass@1 and in format_free, paired by problem, and what format alone earned (their difference).
Doesn't: judge anything again; both counts are in every score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import altair

from harness import leaderboard
from harness.leaderboard import Comparison
from harness.report import charts, grids
from harness.report.charts import Figure
from harness.report.page import Section
from harness.report.results import FOCUS, Results
from harness.types import Score

PARTS = {"beyond format": "#2e9e62", "format alone": "#d9a514"}
CAPTION = (
    "The gain in pass@1, split: beyond format is the gain when the same completions of base and method are judged without regard to "
    "format (with its 95 % interval), format alone is the rest. A gain that is all format would vanish on a lenient benchmark."
)  # fmt: skip
EMPTY = (
    "Strict and lenient judging agree on every completion, or no method changed anything: no part of a gain is format."
)


class FormatGain(NamedTuple):
    """`strict` and `free`: gains over the base in pass@1 and in format_free, over problems and seeds."""

    method: str
    strict: Comparison
    free: Comparison

    @property
    def alone(self) -> float:
        """What format alone earned, in points of pass@1."""
        return self.strict.delta - self.free.delta


def gains(found: Results) -> list[FormatGain]:
    """One for each method that changes anything; empty where strict and lenient judging agree everywhere."""
    rows = []
    for method in found.methods:
        pairs = [
            (found.finished["base", seed].evaluation.sampled, found.finished[method, seed].evaluation.sampled)
            for seed in found.seeds_of(method)
        ]
        if any(base != other for base, other in pairs):
            lenient = [(_free(base), _free(other)) for base, other in pairs]
            rows.append(FormatGain(found.label(method), leaderboard.comparison(pairs), leaderboard.comparison(lenient)))
    return rows if any(gain.strict != gain.free for gain in rows) else []


def _free(score: Score) -> Score:
    return replace(score, correct=score.correct_free)


def sentence(found: Results) -> str:
    """The gain of the method under test beyond format, in words; empty when there is nothing to say."""
    for gain in gains(found):
        if gain.method == FOCUS and gain.strict.delta > 0:
            free = gain.free
            return (
                f"Judged without regard to format the gain is {free.delta:+.3f} "
                f"(95 % interval {free.ci_low:+.3f} to {free.ci_high:+.3f}): format alone earned {gain.alone:+.3f} of "
                f"{gain.strict.delta:+.3f}."
            )
    return ""


def rows(made: Sequence[FormatGain]) -> list[dict[str, Any]]:
    """Two for each method: what is beyond format, with its interval, and what format alone earned."""
    found = []
    for gain in made:
        free = gain.free
        beyond = {"gain": free.delta, "ci_low": free.ci_low, "ci_high": free.ci_high}
        alone = {"gain": gain.alone, "ci_low": math.nan, "ci_high": math.nan}
        for place, (part, values) in enumerate(zip(PARTS, (beyond, alone), strict=True)):
            found.append({"method": gain.method, "part": part, "pass@1": gain.strict.delta, "order": place, **values})
    return found


def figure(made: Sequence[FormatGain]) -> Figure:
    shown = rows(made)
    order = [gain.method for gain in sorted(made, key=lambda gain: -gain.strict.delta)]
    y = altair.Y("method:N", title=None, sort=order, axis=altair.Axis(labelLimit=190))
    told = charts.tooltip("method:N", "part:N", "gain:Q", "ci_low:Q=from", "ci_high:Q=to", "pass@1:Q=gain in pass@1")
    bars = charts.over().mark_bar().encode(
        y=y, x=altair.X("gain:Q", title="gain over the base"), color=charts.color(PARTS, "part"), order="order:Q", tooltip=told
    )  # fmt: skip
    free = charts.over().transform_filter("isValid(datum.ci_low)")
    rules = free.mark_rule(color=charts.INK, strokeWidth=1.5).encode(y=y, x="ci_low:Q", x2="ci_high:Q", tooltip=told)
    view = charts.panel(
        "gain in pass@1, by what earned it", charts.rule_at(0, "x"), bars, rules, width=620, height=altair.Step(22)
    )
    return Figure("formats", [view], shown, shown, PARTS, "part")


def section(found: Results) -> Section:
    made = gains(found)
    if not made:
        return Section("format", "Format and the rest", "", EMPTY)
    lines = [
        [g.method, f"{g.strict.delta:+.3f}", grids.spread(g.free.delta, g.free.ci_low, g.free.ci_high), f"{g.alone:+.3f}"]
        for g in made
    ]  # fmt: skip
    head = ("method", "gain in pass@1", "gain in format_free [95 %]", "format alone")
    table = grids.grid(head, lines, colors=found.colors, focus=FOCUS)
    return Section("format", "Format and the rest", charts.show(found.root, figure(made), CAPTION) + table)
