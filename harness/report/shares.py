"""What became of completions, by bin of base pass rate: wrong, unparsed, out of time, verifier error, and truncated.

Does: draw the shares that harness/passrates counted, for the base and the methods looked at closely.
Doesn't: read a format failure as inability, or a failing verifier as a wrong answer: each has its own colour.
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
from harness.report.pass_rates import short
from harness.report.results import FOCUS, STANDARD, Results

KINDS = {"correct": "#2e9e62", "wrong": "#cf5a45", "unparsed": "#d9a514", "timeout": "#8a63d2", "error": "#5b6570"}
SHOWN = ("base", FOCUS, STANDARD)
PERCENT = ".1%"
CAPTION = (
    "Shares of all test completions. The five outcomes exclude each other: wrong (an answer that is not right), unparsed (none in the "
    "demanded format), timeout (a limit of time or memory), error (the verifier failed; such completions are in no score). The black "
    "tick is the share that was truncated at the token limit, whatever its outcome. Where unparsed or truncated shrink, format or "
    "length was learned; where wrong shrinks, answers were."
)  # fmt: skip
EMPTY = "Outcomes by problem cannot be read from this run folder (an older run, or its verdicts are gone)."


def rows(binned: Sequence[BinRow]) -> list[dict[str, Any]]:
    """One row for each of SHOWN and each bin: problems, and the share of every outcome and of truncation."""
    made = []
    for row in binned:
        if row.method in SHOWN and not math.isnan(row.wrong):
            correct = 1.0 - row.wrong - row.unparsed - row.timeout - row.error
            kinds = dict(zip(KINDS, (correct, row.wrong, row.unparsed, row.timeout, row.error), strict=True))
            made.append(
                {"method": row.method, "bin": row.bin, "problems": row.problems, **kinds, "truncated": row.truncated}
            )
    return made


def figure(made: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel for each method, a bar for each bin."""
    bins = list(dict.fromkeys(short(row["bin"]) for row in made))
    shown = [
        {
            "method": row["method"],
            "bin": short(row["bin"]),
            "outcome": kind,
            "share": row[kind],
            "order": place,
            "truncated": row["truncated"],
        }
        for row in made
        for place, kind in enumerate(KINDS)
    ]
    panels = []
    for method in dict.fromkeys(row["method"] for row in made):
        x = altair.X("bin:O", title="base pass rate of the problem", sort=bins, axis=altair.Axis(labelAngle=0))
        own = charts.over().transform_filter(f"datum.method === {charts.script_json(method)}")
        told = charts.tooltip("method:N", "bin:N", "outcome:N", "share:Q", "truncated:Q")
        bars = own.mark_bar().encode(
            x=x, y=altair.Y("share:Q", title=None, scale=altair.Scale(domain=[0, 1]), axis=altair.Axis(format="%")),
            color=charts.color(KINDS, "outcome"), order="order:Q", tooltip=told,
        )  # fmt: skip
        ticks = own.mark_tick(color=charts.INK, thickness=2.5).encode(x=x, y="max(truncated):Q")
        panels.append(charts.panel(method, bars, ticks))
    return Figure("outcomes", panels, made, shown, KINDS, "outcome")


def section(found: Results, binned: Sequence[BinRow]) -> Section:
    made = rows(binned)
    if not made:
        return Section("outcomes", "Kinds of failure", "", EMPTY)
    head = ("method", "base pass rate", "problems", *KINDS, "truncated")
    lines = [
        [r["method"], short(r["bin"]), r["problems"], *(f"{r[kind]:{PERCENT}}" for kind in (*KINDS, "truncated"))]
        for r in made
    ]
    table = grids.grid(head, lines, colors=found.colors)
    rewards = found.manifest["spec"]["rewards"]
    said = page.note(
        "Rewards: " + ", ".join(f"{kind} {value:g}" for kind, value in rewards.items()) + "; an error has none."
    )
    return Section("outcomes", "Kinds of failure", charts.show(found.root, figure(made), CAPTION) + table + said)
