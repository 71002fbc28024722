"""One method at two values of an axis of a suite, paired by problem: does breadth (or anything else) pay?

Does: for every axis but domain, model and temperature, compare each value's run with the last value's, all other axes equal.
Doesn't: compare runs of different test data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from harness import leaderboard
from harness.leaderboard import Comparison
from harness.report.results import FOCUS, Results

UNPAIRED = ("domain", "model", "sampling.temperature", "way")  # other problems or another base: no contrast of methods


class Contrast(NamedTuple):
    """`last` minus `first` in pass@1 of one method, over problems and seeds; `others` are the axes held fixed."""

    axis: str
    others: Mapping[str, str]
    first: str
    last: str
    difference: Comparison


def contrasts(runs: list[tuple[Mapping[str, str], Results]], method: str = FOCUS) -> Iterator[Contrast]:
    """`runs` holds the axes (labels by name) and results of every point of a suite, in file order."""
    axes = [axis for axis in (runs[0][0] if runs else {}) if axis not in UNPAIRED]
    for axis in axes:
        last = runs[-1][0][axis]
        for labels, found in runs:
            others = {key: value for key, value in labels.items() if key != axis}
            partner = next((r for own, r in runs if own == {**labels, axis: last}), None)
            if labels[axis] != last and partner is not None and _comparable(found, partner, method):
                yield Contrast(axis, others, labels[axis], last, _difference(found, partner, method))


def _comparable(first: Results, last: Results, method: str) -> bool:
    same = first.manifest["tests"] == last.manifest["tests"]
    return same and method in first.methods and first.seeds_of(method) == last.seeds_of(method)


def _difference(first: Results, last: Results, method: str) -> Comparison:
    pairs = [
        (first.finished[method, seed].evaluation.sampled, last.finished[method, seed].evaluation.sampled)
        for seed in last.seeds_of(method)
    ]
    return leaderboard.comparison(pairs)
