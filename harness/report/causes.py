"""Why it breaks: the signal of each training batch, and where the gain that was not reached went.

Does: table and figures of what harness/passrates found: dead groups beside those expected, SNR and agreement, the N it would
take, and the lost gain split into search noise, direction noise and headroom.
Doesn't: compute them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair

from harness import console
from harness.leaderboard import Comparison
from harness.passrates import signals
from harness.passrates.losing import Lost
from harness.passrates.signals import Signal
from harness.report import charts, grids, page
from harness.report.charts import Figure
from harness.report.page import Section
from harness.report.results import FOCUS, Results

HEAD = ("method", "seed", "direction", "rollouts N", "batch pass rate", "N p", "groups", "dead groups", "expected", "SNR",
        "agreement", "half-split cosine", "recommended N", "logprob gap")  # fmt: skip
BATCH = (
    "Dead groups have equal rewards and carry no signal. Expected is what the base's fresh draws predict for groups of this size: many "
    "more dead groups than that say that the reward or the sampling is broken, not that the pass rate is low. SNR and agreement come from "
    "disjoint sub-batches of problems (docs/metrics.md); recommended N is where two such batches would agree to a cosine of "
    f"{signals.AGREEMENT:g} (it says nothing of the gain)."
)  # fmt: skip
LOST = (
    "What lies between the chosen step and what the base already solves once in 16 tries, on the same test problems, with 95 % "
    "intervals. Search: a noiseless search would have added this (step chosen against best step, without the luck of a maximum). "
    "Direction: the best step along a direction without noise would have added this. Headroom: what no step along one such direction "
    "reaches. Headroom can be negative: 16 tries of the base are a yardstick, no bound."
)  # fmt: skip
EMPTY = "No method of this run took its direction from a batch."
NO_SPLIT = (
    f"The lost gain is not split: that needs every step of {FOCUS}'s search on the test problems (evaluation.candidate_methods) and the "
    "base's draws for bins."
)  # fmt: skip
TERMS = {"search": "search noise", "direction": "direction noise", "headroom": "headroom"}


def section(found: Results, made: Sequence[Signal], lost: Lost | None) -> Section:
    """`made` and `lost` are those of signals.rows and losing.split."""
    body = _without_signal(found)
    if made:
        split = page.note(NO_SPLIT) if lost is None else _split(found, lost)
        body += _batches(found, made) + "<h3>Where the missing gain went</h3>" + split
    return Section("causes", "Why it breaks", body, EMPTY)


def _without_signal(found: Results) -> str:
    """What broke altogether: methods whose batches had no live group."""
    lines = [
        [r["method"], r["seed"], r["status"]] for r in found.rows if r["seed"] != "all" and "no signal" in r["status"]
    ]
    if not lines:
        return ""
    dead = signals.expected_dead(found.finished["base", 0], group=found.manifest["spec"]["sampling"]["group"])
    foreseen = "" if math.isnan(dead) else f" From the base's fresh draws {dead:.0%} dead groups were to be expected."
    told = page.lead(
        f"Where every group is dead there is nothing to follow, and the method is scored as the base.{foreseen}"
    )
    return told + grids.grid(("method", "seed", "status"), lines, colors=found.colors, words=("status",))


def _batches(found: Results, made: Sequence[Signal]) -> str:
    number, lines = console.number, []
    for one in made:
        direction = found.finished[one.method, one.seed].direction
        assert direction is not None
        gap = "" if direction.logprob_gap is None else f"{direction.logprob_gap:.1e}"
        shares = map(number, (one.dead, one.dead_expected, one.snr, one.agreement, direction.half_cosine))
        lines.append(
            [one.method, one.seed, direction.kind, one.rollouts, number(one.pass_rate), number(one.successes, 0), one.groups,
             *shares, number(one.recommended, 0), gap]
        )  # fmt: skip
    table = grids.grid(HEAD, lines, colors=found.colors, focus=FOCUS) + page.note(BATCH)
    return charts.show(found.root, figure(found, made)) + table


def figure(found: Results, made: Sequence[Signal]) -> Figure:
    """Dead groups as measured against those expected; SNR against the number of successes in the batch."""
    rows = [{**one._asdict(), "snr": one.snr if one.snr > 0 else math.nan} for one in made]
    drawn = {row["method"] for row in rows}
    colors = charts.chosen({k: v for k, v in found.colors.items() if k in drawn}, (FOCUS,))
    shown = [row for row in rows if row["method"] in colors]
    told = charts.tooltip(
        "method:N",
        "seed:N",
        "pass_rate:Q=batch pass rate",
        "rollouts:Q",
        "dead:Q=dead groups",
        "dead_expected:Q=expected",
        "snr:Q=SNR",
        "agreement:Q",
    )
    share = altair.Scale(domain=[0, 1])
    color, data = charts.color(colors), charts.over()
    marks = data.mark_point(filled=True, size=70, opacity=0.85)
    same = (
        altair.Chart(altair.Data(values=[{"at": 0}, {"at": 1}]))
        .mark_line(strokeDash=[4, 4], color=charts.INK, opacity=0.55, strokeWidth=1)
        .encode(x=altair.X("at:Q"), y=altair.Y("at:Q"))
    )
    dead = marks.encode(
        x=altair.X("dead_expected:Q", title="expected share of dead groups", scale=share),
        y=altair.Y("dead:Q", title=None, scale=share), color=color, tooltip=told,
    )  # fmt: skip
    log = altair.Scale(type="log", padding=12)
    snr = marks.encode(
        x=altair.X("successes:Q", title="N p: correct rollouts in the batch (log)", scale=log),
        y=altair.Y("snr:Q", title=None, scale=log), color=color, tooltip=told,
    ).transform_filter("datum.snr > 0 && datum.successes > 0")  # fmt: skip
    agreement = marks.encode(
        x=altair.X("pass_rate:Q", title="pass rate of the batch", scale=charts.around([row["pass_rate"] for row in shown])),
        y=altair.Y("agreement:Q", title=None, scale=share), color=color, tooltip=told,
    )  # fmt: skip
    panels = [
        charts.panel("share of dead groups, measured", same, dead),
        charts.panel("SNR of the direction (log)", snr),
        charts.panel("agreement of two half batches", agreement),
    ]
    return Figure("signal", panels, [one._asdict() for one in made], shown, colors)


def split_rows(lost: Lost) -> list[dict[str, Any]]:
    """The terms of the split; what could not be told apart is left out."""
    terms = {name: value for name, value in lost._asdict().items() if isinstance(value, Comparison)}
    return [{"method": lost.method, "term": TERMS.get(name, name), **value._asdict()} for name, value in terms.items()]


def _split(found: Results, lost: Lost) -> str:
    rows = split_rows(lost)
    drawn = [row for row in rows if row["term"] in TERMS.values()]
    y = altair.Y("term:N", title=None, sort=list(TERMS.values()))
    color = charts.color({lost.method: found.colors.get(lost.method, charts.INK)}, legend=False)
    told = charts.tooltip("term:N", "delta:Q=pass rate", "ci_low:Q=from", "ci_high:Q=to")
    data = charts.over()
    bars = data.mark_bar(height=13, opacity=0.45).encode(
        x=altair.X("delta:Q", title="pass rate lost"), y=y, color=color, tooltip=told
    )
    rules = data.mark_rule(strokeWidth=2).encode(x="ci_low:Q", x2="ci_high:Q", y=y, color=color, tooltip=told)
    view = charts.panel(
        f"lost gain of {lost.method}", charts.rule_at(0, "x"), bars, rules, width=560, height=altair.Step(30)
    )
    shown = charts.show(found.root, Figure("lost_gain", [view], rows, drawn, {}), LOST)
    lines = [[row["term"], grids.spread(row["delta"], row["ci_low"], row["ci_high"])] for row in rows]
    how = "Direction noise is modelled from the SNR, whose own error is not in its interval." if lost.modelled else ""
    if lost.direction is None:
        how = "Without a positive SNR direction noise cannot be told from headroom, which holds both."
    return shown + grids.grid(("lost gain", "pass rate [95 %]"), lines) + (page.note(how) if how else "")
