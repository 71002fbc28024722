"""Which expressions count. That verdicts are safe, repeatable and in time is checked by the conformance kit."""

from __future__ import annotations

from fractions import Fraction

import pytest
from harness_countdown import puzzles
from harness_countdown.domain import Countdown
from harness_countdown.expression import Expression, Malformed

from harness.seeds import python_random

DOMAIN = Countdown()
PUZZLE = DOMAIN.read({"numbers": [3, 5, 7, 7], "target": 26})
ALL_OF_THEM = DOMAIN.read({"Puzzles": "3 3 8 8"})


@pytest.mark.parametrize(
    ("text", "value"),
    [("2+3*4", 14), ("(2+3)*4", 20), ("8/(3-8/3)", 24), ("7-3-2", 2), ("12/4/3", 1), (" 1 + 1 ", 2), ("1/0", None)],
)
def test_expressions_have_their_exact_value(text: str, value: int | None) -> None:
    assert Expression(text).value == (None if value is None else Fraction(value))


@pytest.mark.parametrize(
    "text", ["", "1+", "(1", "1)", "1 2", "-1", "2**3", "x", "1+(2", "1.5", "(" * 21 + "1" + ")" * 21, "²"]
)
def test_what_is_no_expression(text: str) -> None:
    with pytest.raises(Malformed):
        Expression(text)


@pytest.mark.parametrize(
    ("completion", "outcome"),
    [
        ("Answer: 3*7+5", "correct"),
        ("Answer: 5+7+7+7", "wrong"),
        ("Answer: 7+7+5+3", "wrong"),
        ("The answer is 3 × 7 + 5.", "correct"),
        ("3*7=21, 21+5=26\n<answer>(3 * 7) + 5 = 26</answer>", "correct"),
        ("\\boxed{3 \\times 7 + 5}", "correct"),
        ("$3 \\cdot 7 + 5 = 26$", "correct"),
        ("Answer: 26", "wrong"),
        ("Answer: 3*7+5 or 7+7+5+3", "unparsed"),
        ("Answer: 5/(7-7)+26", "wrong"),
        ("I do not know", "unparsed"),
    ],
)
def test_completions(completion: str, outcome: str) -> None:
    assert DOMAIN.verify(PUZZLE, completion).outcome == outcome


def test_the_game_of_24_wants_every_number() -> None:
    assert DOMAIN.verify(ALL_OF_THEM, "8/(3-8/3)").outcome == "correct"
    assert DOMAIN.verify(ALL_OF_THEM, "3*8").outcome == "wrong"


def test_drawn_puzzles_are_solved_by_their_own_expression() -> None:
    rng = python_random(0)
    drawn = [puzzle for _ in range(2000) for level in puzzles.LEVELS if (puzzle := puzzles.draw(rng, level))]
    assert len(drawn) > 500
    for puzzle in drawn:
        found = Expression(puzzle.solution)
        assert (found.value, sorted(found.numbers)) == (puzzle.target, list(puzzle.numbers))


def test_the_solver_finds_the_hard_one_and_says_where_there_is_none() -> None:
    assert Expression(str(puzzles.solve([3, 3, 8, 8], 24))).value == 24
    assert puzzles.solve([1, 1, 1, 1], 24) is None
