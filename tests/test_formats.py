"""Gains in pass@1 and in format_free, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tabular_run import evaluated, finished

from harness.report import formats, results
from harness.report.results import Results
from harness.types import Score


def score_of(found: Results, *, correct: int, free: int) -> Score:
    """120 problems of four draws each; every problem has the same counts."""
    sampled = found.finished["base", 0].evaluation.sampled
    ids = tuple(f"p{i}" for i in range(120))
    counts = {"n": (4,) * 120, "correct": (correct,) * 120, "correct_free": (free,) * 120}
    return replace(sampled, problem_ids=ids, **counts)


@pytest.fixture
def found() -> Results:
    """A run in which base scores 1 of 4 (leniently 2) and one_shot 3 of 4 (leniently 3)."""
    real = results.load(finished())
    counts = {"base": (1, 2), "one_shot": (3, 3)}
    done = {}
    for (method, seed), entry in real.finished.items():
        correct, free = counts.get(method, counts["base"])
        sampled = score_of(real, correct=correct, free=free)
        done[method, seed] = evaluated(entry, replace(entry.evaluation, sampled=sampled))
    return replace(real, finished=done)


def test_format_alone_is_the_strict_gain_minus_the_lenient_one(found: Results) -> None:
    (gain,) = formats.gains(found)
    assert gain.method == "one_shot"
    assert (gain.strict.delta, gain.free.delta, gain.alone) == (0.5, 0.25, 0.25)
    assert (
        formats.sentence(found)
        == (
            "Judged without regard to format the gain is +0.250 (95 % interval +0.212 to +0.273): "  # equal everywhere: at most .025^(1/120) of problems could differ
            "format alone earned +0.250 of +0.500."
        )
    )


def test_nothing_to_say_where_format_makes_no_difference(found: Results) -> None:
    strict = {
        key: evaluated(
            entry,
            replace(
                entry.evaluation,
                sampled=replace(entry.evaluation.sampled, correct_free=entry.evaluation.sampled.correct),
            ),
        )
        for key, entry in found.finished.items()
    }
    assert formats.gains(replace(found, finished=strict)) == []
    assert formats.sentence(replace(found, finished=strict)) == ""
