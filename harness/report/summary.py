"""The top of the page: does one step work here, below which pass rate not, and how sure that is; what is missing.

Does: put the verdict of results.py beside break-even, detectable effect and the signal of the batch, as words and numbers.
Doesn't: compute any of them.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from harness import console, leaderboard
from harness.leaderboard import Row
from harness.passrates import across, crossing, detecting, signals
from harness.passrates.losing import Lost
from harness.passrates.signals import Signal
from harness.report import break_evens, formats, grids, results
from harness.report.results import FOCUS, STANDARD, Results


class Tile(NamedTuple):
    """A number with its name and one line about it."""

    name: str
    value: str
    about: str


def top(found: Results, broken: Sequence[break_evens.Found], signal: Sequence[Signal], lost: Lost | None) -> str:
    row = focus_row(found)
    tone = (
        ""
        if row is None or row["ci_low"] == ""
        else " good"
        if float(row["ci_low"]) > 0
        else " bad"
        if float(row["ci_high"]) < 0
        else ""
    )
    tiles = "".join(
        f"<div><dt>{html.escape(t.name)}</dt><dd><b>{html.escape(t.value)}</b><span>{html.escape(t.about)}</span></dd></div>"
        for t in (*_gains(found, row), *_limits(found, broken, signal))
    )
    said = "".join(f"<li>{html.escape(line)}</li>" for line in sentences(found, broken, signal, lost))
    return (
        f'<section id="verdict" class="verdict{tone}"><h2>Verdict</h2><p class="said">{html.escape(results.verdict(found))}</p>'
        f'{unfinished(found)}<dl class="tiles">{tiles}</dl><ul class="said-list">{said}</ul></section>'
    )


def focus_row(found: Results) -> Row | None:
    test = next(iter(found.manifest["tests"]))
    own = [row for row in found.aggregate if row["method"] == FOCUS and row["test_benchmark"] == test]
    return own[0] if own else None


def _gains(found: Results, row: Row | None) -> list[Tile]:
    if row is None:
        return []
    tiles = [Tile("pass@1, base to one_shot", f"{console.number(row['base_pass@1'])} → {console.number(row['pass@1'])}",
                  f"{console.number(row['test_problems'], 0)} test problems, {_count(found.manifest['spec']['seeds'], 'seed')}")]  # fmt: skip
    if row["ci_low"] != "":
        tiles.append(
            Tile(
                "gain of one_shot",
                f"{float(row['delta']):+.3f}",
                f"95 % interval {float(row['ci_low']):+.3f} to {float(row['ci_high']):+.3f}",
            )
        )
    return tiles + _against(found)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _against(found: Results) -> list[Tile]:
    pair = [p for p in found.pairs if p["other"] == STANDARD]
    if not pair:
        return []
    (own,) = pair
    interval = f"95 % interval {own['ci_low']:+.3f} to {own['ci_high']:+.3f}"
    return [Tile(f"one_shot minus {STANDARD}", f"{own['delta']:+.3f}", interval)]


def _limits(found: Results, broken: Sequence[break_evens.Found], signal: Sequence[Signal]) -> list[Tile]:
    tiles = []
    for one in broken:
        if one.method == FOCUS and one.margin.delta == crossing.DELTA:
            where, interval = break_evens.cells(one.at)
            tiles.append(
                Tile(f"break-even at a gain of {crossing.DELTA:g}", where, f"base pass rate of a problem; {interval}")
            )
    seen = detectable(found)
    if seen is not None:
        tiles.append(
            Tile(
                "smallest gain it could see",
                f"{seen.effect:.3f}",
                f"a true gain of twice that: {seen.power_at_twice:.0%} power",
            )
        )
    own = [one for one in signal if one.method == FOCUS]
    if own:
        mean = sum(one.pass_rate for one in own) / len(own)
        dead = sum(one.dead for one in own) / len(own)
        tiles.append(Tile("training batch", f"p = {mean:.3f}", f"{dead:.0%} of the groups dead, N = {own[0].rollouts}"))
    return tiles


def detectable(found: Results) -> detecting.Detectable | None:
    """Of the method under test; None where it changed nothing, or all problems alike: no spread tells of an error."""
    row = focus_row(found)
    gains_SP = across.gains(found, FOCUS) if row is not None and row["ci_low"] != "" else np.zeros((0, 0))
    seen = detecting.detectable(gains_SP)
    return None if math.isnan(seen.effect) else seen


def sentences(
    found: Results, broken: Sequence[break_evens.Found], signal: Sequence[Signal], lost: Lost | None
) -> list[str]:
    """What a reader should know besides the verdict, plain text."""
    own = [
        f"Break-even of {one.method} at a gain of {one.margin.what}: {one.at.words}."
        for one in broken
        if one.method == FOCUS
    ]
    seen = detectable(found)
    said = [_by_seed(found), formats.sentence(found), *own]
    if seen is not None:
        said.append(
            f"How sure: {seen.words}; a true gain of twice that is declared with a chance of {seen.power_at_twice:.0%}."
        )
    said += [_lost(lost)] if lost is not None else []
    said += _doubts(found, signal)
    return [text[:1].upper() + text[1:] for text in said if text]


def _by_seed(found: Results) -> str:
    """Beside the interval over seeds, which few seeds make wide whatever they say."""
    test = next(iter(found.manifest["tests"]))
    own = [r for r in found.rows if r["method"] == FOCUS and r["seed"] != "all" and r["test_benchmark"] == test]
    told = [row for row in own if row["ci_low"] != ""]
    if len(told) < 2:
        return ""
    gains = ", ".join(f"{float(r['delta']):+.3f} [{float(r['ci_low']):+.3f}, {float(r['ci_high']):+.3f}]" for r in told)
    above = sum(float(row["ci_low"]) > 0 for row in told)
    return f"Gain by seed, with intervals over test problems alone: {gains}; {above} of {len(told)} lie above 0."


def _lost(lost: Lost) -> str:
    direction = (
        ""
        if lost.direction is None
        else f", direction noise {lost.direction.delta:+.3f}{' (modelled)' if lost.modelled else ''}"
    )
    return (
        f"From the chosen step to what the base solves once in 16 tries is {lost.lost.delta:+.3f}: search noise "
        f"{lost.search.delta:+.3f}{direction}, headroom {lost.headroom.delta:+.3f}."
    )


def _doubts(found: Results, signal: Sequence[Signal]) -> list[str]:
    """What weakens the result."""
    said = []
    row = focus_row(found)
    if row is not None and "too few" in str(row["status"]):
        said.append(
            "Too few problems, or too few right or wrong answers, for a bootstrap: the interval is Student's t, and wide."
        )
    if found.manifest["spec"]["seeds"] == 2:
        said.append(
            "Two seeds: how much batches differ is known from two of them (--seeds 3 and more narrow the intervals)."
        )
    if found.manifest["spec"]["seeds"] == 1:
        said.append(
            "One seed: the interval is over test problems alone, and says nothing of another batch (--seeds 3 does)."
        )
    off = [
        one
        for one in signal
        if one.method == FOCUS and not math.isnan(one.dead_expected) and one.dead - one.dead_expected > 0.15
    ]
    if off:
        said.append(
            f"More groups are dead than expected ({off[0].dead:.0%} against {off[0].dead_expected:.0%}): see Why it breaks."
        )
    said += _batch(signal)
    errors = sum(float(r["errors"] or 0) for r in found.rows if r["seed"] != "all")
    if errors:
        said.append(f"The verifier failed on {errors:.0f} test completions, which are in no score.")
    return said


def _batch(signal: Sequence[Signal]) -> list[str]:
    """That the batch was too small for its direction, where it was."""
    own = [one for one in signal if one.method == FOCUS and one.recommended > one.rollouts]
    if not own:
        return []
    worst = max(own, key=lambda one: one.recommended)
    enough = (
        f"about {worst.recommended:,.0f} rollouts would"
        if math.isfinite(worst.recommended)
        else "more than can be told from it would"
    )
    return [
        f"The batch of {worst.rollouts:,} rollouts is small for its pass rate: for two such batches to agree to a cosine of "
        f"{signals.AGREEMENT:g}, {enough} be needed."
    ]


def unfinished(found: Results) -> str:
    """A box that says what an interrupted run has not done, and how it goes on; nothing for a finished one."""
    if not found.missing:
        return ""
    done = len(found.finished)
    names = results.listed([f"{method} (seed {seed})" for method, seed in found.missing])
    text = (
        f"This run is not finished: {done} of {done + len(found.missing)} results are here, and only they are shown; means are over the "
        f"seeds that are. Missing: {names}."
    )  # fmt: skip
    how = f"harness resume {found.root}"
    return f'<div class="warning"><p>{html.escape(text)}</p><p>To go on: <code>{html.escape(how)}</code></p></div>'


def statuses(found: Results) -> str:
    """Rows that are not plain ok, with the reason."""
    bad = [
        [leaderboard.label(r), r["seed"], r["status"]]
        for r in found.rows
        if r["status"] != leaderboard.OK and r["seed"] != "all"
    ]
    return grids.grid(("method", "seed", "status"), bad, colors=found.colors, words=("status",)) if bad else ""
