r"""The math domain: what counts as the answer, what counts as equal, and what never does."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UnknownName
from harness.types import Json, Outcome, Problem
from harness.verifying import VerifierPool
from harness_math.domain import Math
from harness_math.extract import lenient_claim, strict_claim
from harness_math.verify import canonical, read_number, same

MATH500 = Path(__file__).parents[2] / "shared" / "data" / "math" / "math500_dev.jsonl"
PROMPT = "Start with 47. Subtract 12. Double it. Show steps, end with \\boxed{N}.\n"


def problem(answer: Json = "70", answer_format: str = "strict") -> Problem:
    return Problem(id="m", prompt=PROMPT, answer=answer, meta={"answer_format": answer_format})


@pytest.mark.parametrize(
    ("completion", "strict", "lenient"),
    [
        (r"47-12=35;35*2=70;\boxed{70}", "correct", "correct"),
        (r"\boxed{70}", "correct", "correct"),
        ("\\boxed{70}.\n", "correct", "correct"),
        ("\\boxed{70} \n\n", "correct", "correct"),
        (r"\boxed{070}", "correct", "correct"),
        (r"47-12=36;36*2=72;\boxed{72}", "wrong", "wrong"),
        (r"\boxed{-70}", "wrong", "wrong"),
        (r"\boxed{700}", "wrong", "wrong"),
        ("47-12=35;35*2=70; The answer is 70.", "unparsed", "correct"),
        (r"47-12=35;35*2=70;\boxed{70} is the answer.", "unparsed", "correct"),
        (r"\boxed{70}..", "unparsed", "correct"),
        (r"$\boxed{70}$", "unparsed", "correct"),
        (r"\boxed{70.0}", "unparsed", "correct"),
        (r"\boxed{ 70 }", "unparsed", "correct"),
        (r"\boxed{7 0}", "unparsed", "wrong"),
        (r"\boxed{35*2}", "unparsed", "wrong"),
        (r"\boxed{70, 71}", "unparsed", "wrong"),
        (r"\boxed{70} or \boxed{71}", "unparsed", "wrong"),
        (r"\boxed{71}. Wait, \boxed{70}", "unparsed", "correct"),
        (r"\boxed{70}\boxed{}", "unparsed", "unparsed"),
        (r"\boxed{70} \boxed{7", "unparsed", "unparsed"),
        (r"\boxed{\boxed{70}}", "unparsed", "correct"),
        ("so\n#### 70", "unparsed", "correct"),
        ("70", "unparsed", "correct"),
        ("it is 35, then 70", "unparsed", "correct"),
        ("it is 70, then 35", "unparsed", "wrong"),
        ("the answer is 70. Or 71.", "unparsed", "correct"),
        ("A: 70", "unparsed", "correct"),
        ("35*2", "unparsed", "wrong"),
        ("$70$", "unparsed", "correct"),
        ("no idea", "unparsed", "unparsed"),
        ("", "unparsed", "unparsed"),
        (PROMPT, "unparsed", "wrong"),
        (r"\boxed{７0}", "unparsed", "wrong"),
    ],
)
def test_formats(completion: str, strict: str, lenient: str) -> None:
    verdict = Math().verify(problem(), completion)
    free = Math().verify(problem(answer_format="lenient"), completion)
    assert (verdict.outcome.value, free.outcome.value) == (strict, lenient)
    assert verdict.format_ok == free.format_ok == (strict != "unparsed")
    assert (verdict.extracted is None) == (strict == "unparsed")


@pytest.mark.parametrize(
    ("gold", "claim", "equal"),
    [
        ("42", "42.0", True),
        ("42", "6*7", False),
        ("42", "40+2", False),
        ("2", r"\sqrt{4}", False),
        ("27.0", "27", True),
        ("1/3", "0.333333", True),
        ("1/3", "0.33", False),
        ("1/3", "0.333334", False),
        ("0.5", r"\dfrac{1}{2}", True),
        (r"\frac{3}{4}", r"\frac34", True),
        (r"-\frac{3}{4}", "-0.75", True),
        ("3.5", r"3\frac{1}{2}", True),
        ("1 1/2", "3/2", True),
        ("1/2", "1/0", False),
        ("1234", "1,234", True),
        ("10000", r"10\,000", True),
        ("12", "1 2", False),
        ("10", r"10\%", True),
        ("18", r"\$18", True),
        ("5", r"5 \text{ cm}", True),
        ("5", r"5\,\mathrm{m}^2", True),
        ("80", r"80^\circ", True),
        ("80", "80 degrees", True),
        ("5", "x = 5", True),
        ("5", "**5**", True),
        ("5", "5 and 6", False),
        ("2", "2x", False),
        ("2x", "2", False),
        ("3 sin t", "3", False),
        ("1200000", r"1.2\times 10^6", True),
        ("1.2e-7", "1.3e-7", False),
        ("0", "0.0000001", False),
        ("1", "0.9999999", False),
        ("3", "3.0000000001", False),
        ("3", "2.99", False),
        (r"\sqrt{2}", "2^{1/2}", True),
        (r"\sqrt{2}", "1.5", False),
        ("x^2+2x+1", "(x+1)^2", True),
        ("x^2+2x+1", "(x-1)^2", False),
        ("(1,2)", "(1, 2)", True),
        ("(1,2)", "(2,1)", False),
        ("(1,2)", "[1,2]", False),
        (r"\text{Evelyn}", "Evelyn", True),
        (r"\{1,2\}", r"\{2,1\}", True),
    ],
)
def test_equality(gold: str, claim: str, equal: bool) -> None:
    assert same(gold, claim) is equal


def test_a_list_of_answers_accepts_each() -> None:
    for completion, outcome in [("\\boxed{2}", "correct"), ("\\boxed{x+1}", "correct"), ("\\boxed{3}", "wrong")]:
        assert Math().verify(problem(["2", "1+x"], "lenient"), completion).outcome.value == outcome


@given(st.integers(), st.integers())
def test_integers_are_equal_when_they_are(a: int, b: int) -> None:
    verdict = Math().verify(problem(str(a)), f"\\boxed{{{b}}}")
    assert (verdict.outcome is Outcome.CORRECT) == (a == b)
    assert verdict.extracted == str(b)


@given(st.fractions(max_denominator=10**6), st.booleans())
def test_fractions_are_read_exactly(value: Fraction, latex: bool) -> None:
    sign, n, d = "-" if value < 0 else "", abs(value.numerator), value.denominator
    text = f"{sign}\\frac{{{n}}}{{{d}}}" if latex else f"{sign}{n}/{d}"
    number = read_number(text)
    assert number is not None
    assert number.value == value
    assert canonical(text) == str(value)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=8, min_value=-1000, max_value=1000))
def test_a_decimal_stands_for_what_rounds_to_it(decimal: object) -> None:
    text = f"{decimal:f}"
    assert same(text, text)
    digits = text.replace("-", "").replace(".", "").lstrip("0")
    near = Fraction(text) + Fraction(4, 10**9)  # less than half of the last place away
    assert same(str(near), text) is (len(digits) >= 6)
    assert not same(str(near + Fraction(1, 10**8)), text)


@given(st.text(alphabet="\\boxed{}0189-. $#:answer is\n", max_size=60))
def test_strict_is_lenient_too_and_nothing_raises(text: str) -> None:
    claim = strict_claim(text)
    assert claim is None or claim == lenient_claim(text)


@pytest.mark.parametrize(
    "junk",
    [
        "\\boxed{" * 100_000,
        "\\boxed{" + "{" * 10_000 + "7" + "}" * 10_000 + "}",
        "{" * 10_000,
        "\\boxed{71}" + " " * 1_000_000 + "x",
        "answer is" * 100_000,
        "answer " + " " * 1_000_000,
        "1" * 1_000_000,
        "1," * 500_000,
        "#" * 1_000_000,
        "\\" * 1_000_000,
        "\x00\ud800" * 1000,
        "\\boxed{9^{9^{9^9}}}",
        "\\boxed{" + "9" * 900 + "}",
        "\\boxed{__import__('os').system('true')}",
    ],
)
def test_junk_is_not_correct_and_takes_no_time(junk: str) -> None:
    started = time.perf_counter()
    for answer_format in ("strict", "lenient"):
        verdict = Math().verify(problem(answer_format=answer_format), junk)
        assert verdict.outcome in (Outcome.UNPARSED, Outcome.WRONG)
    assert time.perf_counter() - started < 4


def test_model_text_is_never_evaluated(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    attack = f"__import__('pathlib').Path('{marker}').touch()"
    for claim in (attack, f"\\text{{{attack}}}", f"x + {attack}"):
        assert Math().verify(problem("x+1", "lenient"), f"\\boxed{{{claim}}}").outcome is not Outcome.CORRECT
    assert not marker.exists()


def test_numbers_are_judged_without_math_verify() -> None:
    script = """
import sys
from harness.types import (Problem)
from harness_math.domain import Math
domain = Math()
problem = Problem(id="m", prompt="", answer="3/4")
assert domain.time_limit(problem) > 0
assert domain.verify(problem, r"\\boxed{.75}").outcome == "correct"
assert domain.verify(problem, r"\\boxed{\\sqrt{9}/4}").outcome == "wrong"
assert not {"sympy", "math_verify", "torch"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", f"import sys\nsys.path[:] = {sys.path!r}\n{script}"], check=True)


def test_a_claim_that_hangs_math_verify_is_a_timeout_and_the_rest_goes_on() -> None:
    expression = problem("x^2+1", "lenient")
    completions = ["\\boxed{1+x^2}", "\\boxed{9^{9^{9^{9}}}}", "\\boxed{x^2}"]
    with VerifierPool("harness_math.domain:Math") as pool:
        verdicts = pool.verify([(expression, completion) for completion in completions])
    assert [v.outcome.value for v in verdicts] == ["correct", "timeout", "wrong"]


@pytest.mark.skipif(not MATH500.exists(), reason="needs ../shared/data/math/math500_dev.jsonl")
def test_every_reference_answer_of_half_of_math500_is_accepted_and_a_wrong_one_is_not() -> None:
    rows = [json.loads(line) for line in MATH500.read_text().splitlines()]
    problems = [Problem(id=row["unique_id"], prompt=row["problem"], answer=row["answer"]) for row in rows]
    right = [(p, f"So the answer is $\\boxed{{{row['answer']}}}$.") for p, row in zip(problems, rows, strict=True)]
    worked = [(p, row["solution"]) for p, row in zip(problems, rows, strict=True)]
    wrong = [(p, "So the answer is $\\boxed{12345}$.") for p in problems]
    with VerifierPool("harness_math.domain:Math", workers=2) as pool:
        verdicts = pool.verify(right + worked + wrong)
    assert len(rows) == 250
    assert [v.outcome.value for v in verdicts] == ["correct"] * 500 + ["wrong"] * 250


def test_ladder_specimens_hold_in_the_pool() -> None:
    domain = Math()
    problems = [
        p for split in ("train", "selection", "test") for p in domain.problems("ladder", split, seed=5, limit=40)
    ]
    specimens = [(problem, specimen) for problem in problems for specimen in domain.specimens(problem)]
    with VerifierPool("harness_math.domain:Math") as pool:
        verdicts = pool.verify([(problem, specimen.completion) for problem, specimen in specimens])
    assert [v.outcome for v in verdicts] == [specimen.expected for _, specimen in specimens]
    free = [domain.verify(replace(p, meta={}), s.completion).outcome for p, s in specimens if s.expected == "correct"]
    assert set(free) == {Outcome.CORRECT}


def test_unknown_benchmark_names_the_known() -> None:
    with pytest.raises(UnknownName, match="ladder"):
        Math().problems("gsm9k", "test", seed=0, limit=1)
