"""Where low base pass rates break one_shot: what the suite `low_pass_rate` prints, and the rows behind its figure.

Does: read of every run the pass rate and dead share of its batch, the gains of one_shot, its control and grpo, and the
gain of the best step that was searched among; say which of p and N p orders the gains.
Doesn't: draw (low_rates_chart.py), fit (passrates/ordering.py, across.py) or compute a gain that a row already holds.

1. p of a base is the pass rate of its largest batch, of which the smaller ones are the beginnings. Where no rollout of it
   was correct, p is that of half a rollout: a place on a log axis, no measurement.
2. `best` is the gain of the best step on test as passrates/losing.py has it, no maximum of noisy scores. `regret` is what
   the choice on the selection split earned less than that.
3. `share` is that of the gain of the largest batch, where that gain is clearly above zero.
4. A base's label is "<way> <what>"; the base that no way has moved stands in the panels of temperature and steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from harness import console, stepping, store
from harness.leaderboard import Row
from harness.passrates import across, crossing, losing, ordering
from harness.passrates.crossing import BreakEven
from harness.passrates.ordering import Gain
from harness.report.levels import Table
from harness.report.results import FOCUS, STANDARD, Results
from harness.sampling import RolloutBatch
from harness.suiting import Point
from harness.types import Outcome

ALONG = "pass_rate"  # what such a suite says its figure has along x
CONTROL = "one_shot_shuffled"
WAY, UNMOVED = "way", "base"  # the suite's axis of bases, and the label of the one that no way has moved
MOVED = ("temperature", "stepped")  # the ways that begin there
HEAD = ("base", "p", "N", "N p", "dead", "snr", "agree", "gain [95 %]", "format_free", "best", "regret", "shuffled", "grpo",
        "of grpo")  # fmt: skip


class Batch(NamedTuple):
    """Counts of the training batch of one_shot, all seeds together."""

    correct: int
    judged: int
    dead: int
    groups: int


def rows(runs: Sequence[tuple[Point, Results]]) -> list[dict[str, Any]]:
    """One for each run in which one_shot ran; numbers that were not measured are None."""
    found = [_row(point, results) for point, results in runs if FOCUS in results.methods]
    largest: dict[tuple[str, str], dict[str, Any]] = {}
    for row in found:
        key = row["domain"], row["base"]
        largest[key] = max(largest.get(key, row), row, key=lambda r: r["budget"])
    for row in found:
        of = largest[row["domain"], row["base"]]
        row["p"] = max(of["batch_correct"], 0.5) / of["batch_judged"]
        row["correct"] = row["budget"] * row["p"]
        row["share"] = row["gain"] / of["gain"] if of["ci_low"] > 0 else None
    return found


def _row(point: Point, found: Results) -> dict[str, Any]:
    label, own = point.axes.get(WAY, UNMOVED), {str(row["method"]): row for row in found.aggregate}
    batch, row, seeds = batch_of(found), own[FOCUS], found.seeds_of(FOCUS)
    gain, best = float(row["delta"]), _best(found, seeds)
    low, high = (float(row[end]) if row[end] != "" else gain for end in ("ci_low", "ci_high"))
    return {
        "domain": point.spec.domain, "way": label.partition("-")[0], "base": label, "budget": point.spec.budget,
        "batch_correct": batch.correct, "batch_judged": batch.judged, "dead": batch.dead / batch.groups,
        "snr": _number(row["snr"]), "agreement": _number(row["agreement"]), "base_pass": float(row["base_pass@1"]),
        "base_free": float(row["base_format_free"]), "gain_free": float(row["format_free"]) - float(row["base_format_free"]),
        "gain": gain, "ci_low": low, "ci_high": high, "best": best, "regret": None if best is None else best - gain,
        "shuffled": _gain(own, CONTROL), "grpo": _gain(own, STANDARD), "status": row["status"],
    }  # fmt: skip


def _number(cell: Any) -> float | None:
    return None if cell in ("", None) else float(cell)


def _gain(own: Mapping[str, Row], method: str) -> float | None:
    return float(own[method]["delta"]) if method in own else None


def batch_of(found: Results) -> Batch:
    """Also where the batch gave no direction: it is the first draw in the journal of one_shot."""
    total = Batch(0, 0, 0, 0)
    for seed in found.seeds_of(FOCUS):
        entry = store.read_json(found.root / f"methods/{FOCUS}/{seed}/journal/0001-sample.json")
        drawn: RolloutBatch = replace(entry["result"], root=str(found.root))
        groups: dict[str, list[Outcome]] = {name: [] for name in drawn.problem_ids}
        for judged in drawn.judged():
            if judged.verdict.outcome is not Outcome.ERROR:
                groups[judged.problem_id].append(judged.verdict.outcome)
        right = [own.count(Outcome.CORRECT) for own in groups.values()]
        dead = sum(c in (0, len(own)) for c, own in zip(right, groups.values(), strict=True))
        own = Batch(sum(right), sum(map(len, groups.values())), dead, len(groups))
        total = Batch(*(a + b for a, b in zip(total, own, strict=True)))
    return total


def _best(found: Results, seeds: Sequence[int]) -> float | None:
    """The mean gain of the best step (losing.regret), over seeds; None where no steps were scored on test."""
    gains = []
    for seed in seeds:
        done, base = found.finished[FOCUS, seed], found.finished["base", seed]
        if done.search is None or not done.evaluation.candidates:
            return None
        rates_CP = np.array([stepping.rates(score) for score in done.evaluation.candidates])
        best_P = losing.regret(rates_CP, done.search.chosen).best_P
        gains.append(float(np.nanmean(best_P - stepping.rates(base.evaluation.sampled))))
    return float(np.mean(gains))


def lines(found: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """Cells of HEAD, a line for each row."""
    for row in found:
        grpo = row["grpo"]
        share = "" if grpo is None or grpo < crossing.DELTA else f"{row['gain'] / grpo:.0%}"
        interval = f"{row['gain']:+.3f} [{row['ci_low']:+.3f}, {row['ci_high']:+.3f}]"
        signed = [
            "" if row[key] is None else f"{row[key]:+.3f}"
            for key in ("gain_free", "best", "regret", "shuffled", "grpo")
        ]
        yield [
            row["base"], f"{row['p']:.4f}", f"{row['budget']:,}", f"{row['correct']:.1f}",
            f"{row['dead']:.0%}", console.number(row["snr"], 2), console.number(row["agreement"], 2), interval, *signed,
            share,
        ]  # fmt: skip


def tables(found: Sequence[Mapping[str, Any]]) -> dict[str, Table]:
    """One for each domain."""
    ordered = sorted(found, key=lambda row: (row["way"], -row["p"], row["budget"]))
    return {
        domain: Table(list(HEAD), list(lines([row for row in ordered if row["domain"] == domain])))
        for domain in dict.fromkeys(row["domain"] for row in found)
    }


def panelled(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows once for each way they belong to."""
    return [{**row, "way": way} for row in found for way in (MOVED if row["way"] == UNMOVED else (row["way"],))]


def gains(found: Sequence[Mapping[str, Any]]) -> list[Gain]:
    """Shares of failures repaired, to be ordered."""
    return [Gain(f"{r['domain']} {r['base']}", r["p"], r["budget"], r["gain"] / (1.0 - r["base_pass"])) for r in found]


def shares(found: Sequence[Mapping[str, Any]]) -> list[Gain]:
    """Shares of the gain of most rollouts, where they are known, without those rows that are a share of themselves."""
    last = max((row["budget"] for row in found), default=0)
    return [
        Gain(f"{r['domain']} {r['base']}", r["p"], r["budget"], r["share"])
        for r in found
        if r["budget"] < last and r["share"] is not None
    ]


def sentences(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which of p and N p orders the gains, and which the shares of the largest batch's gain: by way and in all."""
    return [
        f"{group}, {what}: {fitted.sentence}"
        for group, own in _groups(found).items()
        for what, made in (("gain", gains(own)), ("share of the largest batch's gain", shares(own)))
        if (fitted := ordering.ordering(made)) is not None
    ]


def break_evens(runs: Sequence[tuple[Point, Results]]) -> dict[str, BreakEven]:
    """By "domain, way, N = budget", of two bases or more: the p from which on the gain reaches crossing.DELTA, and half of
    grpo's gain where grpo ran for all."""
    kept = [(point, results) for point, results in runs if FOCUS in results.methods]
    points: dict[str, list[across.Point]] = {}
    for row, (_, results) in zip(rows(kept), kept, strict=True):
        standard = across.gains(results, STANDARD) if STANDARD in results.methods else None
        gained, test = across.gains(results, FOCUS), across.test_of(results)
        for placed in panelled([row]):
            name = f"{row['domain']}, {placed['way']}, N = {row['budget']:,}"
            points.setdefault(name, []).append(across.Point(row["p"], gained, test, standard_SP=standard))
    found = {}
    for name, own in points.items():
        if len(own) > 1:
            found[name] = across.break_even(own)
            if all(point.standard_SP is not None for point in own):
                found[f"{name}, half of {STANDARD}'s gain"] = across.break_even(own, share=0.5)
    return found


def unspent(found: Sequence[Mapping[str, Any]], *, base: float) -> list[Mapping[str, Any]]:
    """Without the bases that were stepped up from the pass rate `base`: they have taken their direction already."""
    return [row for row in found if row["way"] != "stepped" or row["p"] <= base]


def _groups(found: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Of each domain the rows of each way, then all; without bases that were stepped up."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for domain in dict.fromkeys(row["domain"] for row in found):
        own = [row for row in found if row["domain"] == domain]
        own = unspent(own, base=max((row["p"] for row in own if row["way"] == UNMOVED), default=1.0))
        for row in panelled(own):
            groups.setdefault(f"{domain}, {row['way']}", []).append(row)
        groups[f"{domain}, all ways"] = own
    return groups
