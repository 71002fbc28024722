"""What only the author of the domain "placeholder" can know: which completions are right. The rest is the kit's."""

from __future__ import annotations

import pytest

from harness import plugins

DOMAIN = plugins.load().lookup("domain", "placeholder").load()()
PROBLEM = next(DOMAIN.problems("ladder", "test", seed=0, limit=1))
RIGHT = PROBLEM.answer


@pytest.mark.parametrize(
    ("completion", "outcome"),
    [
        (f"\\boxed{{{RIGHT}}}", "correct"),
        (f"so it is \\boxed{{0{RIGHT}}}.", "correct"),
        (f"\\boxed{{{RIGHT}0}}", "wrong"),
        (f"The answer is {RIGHT}.", "unparsed"),
        (f"\\boxed{{{RIGHT}}} I think", "unparsed"),
    ],
)
def test_completions(completion: str, outcome: str) -> None:
    assert DOMAIN.verify(PROBLEM, completion).outcome == outcome


def test_rows_are_judged_leniently() -> None:
    problem = DOMAIN.read({"question": "Twice 7?", "answer": 14})
    assert DOMAIN.verify(problem, "The answer is 14.").outcome == "correct"
