"""Contrasts along a suite's axes, by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tabular_run import evaluated, finished

from harness.report import contrasts, results
from harness.report.results import Results


def run_with(correct: int, *, data: str = "same") -> Results:
    """A run whose one_shot answers `correct` of 4 on each of 120 problems."""
    real = results.load(finished())
    done = real.finished["one_shot", 0]
    counts: dict[str, Any] = {"n": (4,) * 120, "correct": (correct,) * 120, "correct_free": (correct,) * 120}
    score = replace(done.evaluation.sampled, problem_ids=tuple(f"p{i}" for i in range(120)), **counts)
    own = evaluated(done, replace(done.evaluation, sampled=score))
    manifest = {**real.manifest, "tests": {"ladder": data}}
    return replace(real, manifest=manifest, finished={("one_shot", 0): own})


def axes(domain: str, budget: str) -> Mapping[str, str]:
    return {"domain": domain, "budget": budget}


def test_each_value_is_compared_with_the_last_one_all_else_equal() -> None:
    runs = [
        (axes("math", "256"), run_with(1)), (axes("math", "1024"), run_with(2)), (axes("math", "4096"), run_with(4)),
        (axes("code", "256"), run_with(3)), (axes("code", "1024"), run_with(3)), (axes("code", "4096"), run_with(2)),
    ]  # fmt: skip
    found = list(contrasts.contrasts(runs))
    seen = [(c.others["domain"], c.first, c.last, c.difference.delta) for c in found]
    assert seen == [
        ("math", "256", "4096", 0.75), ("math", "1024", "4096", 0.5),
        ("code", "256", "4096", -0.25), ("code", "1024", "4096", -0.25),
    ]  # fmt: skip
    assert all(c.axis == "budget" for c in found)


def test_other_test_data_or_an_absent_method_is_no_contrast() -> None:
    runs = [(axes("math", "256"), run_with(1, data="other")), (axes("math", "4096"), run_with(4))]
    assert list(contrasts.contrasts(runs)) == []
    absent = replace(run_with(1), finished={})
    assert list(contrasts.contrasts([(axes("math", "256"), absent), (axes("math", "4096"), run_with(4))])) == []


def test_domain_and_model_are_no_axes_of_a_contrast() -> None:
    runs = [({"model": "a"}, run_with(1)), ({"model": "b"}, run_with(4))]
    assert list(contrasts.contrasts(runs)) == []
