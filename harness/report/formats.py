"""What of a gain is format: the same completions judged strictly and leniently, method against base.

Does: gains in pass@1 and in format_free, paired by problem, and what format alone earned (their difference).
Doesn't: judge anything again; both counts are in every score.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from harness import leaderboard
from harness.leaderboard import Comparison
from harness.report.results import FOCUS, Results
from harness.types import Score


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
