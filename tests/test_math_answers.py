r"""What counts as an answer: odd styles are right, hedges and echoes are not, and nothing runs long or as code."""

from __future__ import annotations

import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from math_corpus import RIGHT_ASKED, RIGHT_BOXED, RIGHT_FREE
from math_hostile import HOSTILE_ASKED, HOSTILE_BOXED, HOSTILE_FREE

from harness.types import Json, Outcome, Problem
from harness.verifying import VerifierPool
from harness_math.domain import Math
from harness_math.extract import lenient_claim
from harness_math.formulas import read_formula
from harness_math.numerals import read_number
from harness_math.shapes import read_shape
from harness_math.tokens import TooLarge, Unread
from harness_math.values import equal
from harness_math.verify import canonical, same

TARGET = "harness_math.domain:Math"
REQUEST = "Let's think step by step and output the final answer within \\boxed{}."


def problem(answer: Json, prompt: str = "Find it.") -> Problem:
    return Math().read({"problem": prompt, "answer": answer})


def judged(answer: Json, completion: str, prompt: str = "Find it.") -> Outcome:
    return Math().verify(problem(answer, prompt), completion).outcome


def boxed(corpus: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(gold, claim) for gold, claims in corpus.items() for claim in claims]


def test_the_corpora_are_as_large_as_they_claim() -> None:
    assert len(boxed(RIGHT_BOXED)) + len(RIGHT_FREE) + len(RIGHT_ASKED) == 827
    assert len(boxed(HOSTILE_BOXED)) + len(HOSTILE_FREE) + len(HOSTILE_ASKED) == 814


@pytest.mark.parametrize(("gold", "claim"), boxed(RIGHT_BOXED))
def test_odd_styles_in_a_box_are_right(gold: str, claim: str) -> None:
    assert judged(gold, f"Some work: 3+4=7.\nSo it is $\\boxed{{{claim}}}$.") is Outcome.CORRECT


@pytest.mark.parametrize(("gold", "completion"), RIGHT_FREE)
def test_odd_styles_in_free_text_are_right(gold: str, completion: str) -> None:
    assert judged(gold, completion) is Outcome.CORRECT


@pytest.mark.parametrize(("prompt", "gold", "completion"), RIGHT_ASKED)
def test_what_the_problem_names_may_be_named(prompt: str, gold: str, completion: str) -> None:
    assert judged(gold, completion, prompt) is Outcome.CORRECT


@pytest.mark.parametrize(("gold", "claim"), boxed(HOSTILE_BOXED))
def test_hostile_boxes_are_not_right(gold: str, claim: str) -> None:
    for text in (f"\\boxed{{{claim}}}", f"The answer is {claim}.", f"#### {claim}"):
        assert judged(gold, text) is not Outcome.CORRECT


@pytest.mark.parametrize(("gold", "completion"), HOSTILE_FREE)
def test_hostile_completions_are_not_right(gold: str, completion: str) -> None:
    assert judged(gold, completion) is not Outcome.CORRECT


@pytest.mark.parametrize(("prompt", "gold", "completion"), HOSTILE_ASKED)
def test_an_echo_of_the_problem_is_wrong(prompt: str, gold: str, completion: str) -> None:
    assert judged(gold, completion) is not Outcome.UNPARSED
    verdict = Math().verify(problem(gold, prompt), completion)
    assert verdict.outcome is Outcome.WRONG


def test_an_echo_is_only_what_has_an_operator_and_differs_from_the_gold() -> None:
    prompt = r"Is it 5, \frac{3}{4}, x + 1 or -7? Numbers like $90^\circ$ occur too."
    for gold, claim in [("5", "5"), (r"\frac{3}{4}", "3/4"), ("x+1", "x + 1"), ("-7", "-7"), ("90", r"90^\circ")]:
        assert judged(gold, f"\\boxed{{{claim}}}", prompt) is Outcome.CORRECT
    assert judged("1+x", r"\boxed{x+1}", prompt) is Outcome.WRONG
    assert judged("0.75", r"\boxed{\frac{3}{4}}", prompt) is Outcome.WRONG


@pytest.mark.parametrize(
    ("completion", "outcome", "format_ok"),
    [
        (r"so \boxed{70}", "correct", True),
        (r"so \boxed{ 70 } and that is all", "correct", True),
        (r"so \boxed{71}", "wrong", True),
        (r"so \boxed{1 or 2}", "wrong", True),
        (r"\fbox{70}", "correct", True),
        ("The answer is 70.", "correct", False),
        ("#### 70", "correct", False),
        ("70", "correct", False),
        (r"\boxed{}", "unparsed", False),
        (r"\boxed{70", "unparsed", False),
        (r"\boxed{70} \boxed{}", "unparsed", False),
        ("\\boxed{" + "7" * 1001 + "}", "unparsed", False),
        ("", "unparsed", False),
        ("no idea", "unparsed", False),
        (r"\boxed{9^{9^{9^{9}}}}", "wrong", True),
    ],
)
def test_format_is_recorded_apart_from_correctness(completion: str, outcome: str, format_ok: bool) -> None:
    verdict = Math().verify(problem("70"), completion)
    assert (verdict.outcome.value, verdict.format_ok) == (outcome, format_ok)
    assert (verdict.extracted is None) == (outcome == "unparsed")


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{1} or \boxed{2}", "1 or 2"),
        (r"$x=\boxed{1}$ and $x=\boxed{2}$", "1 or 2"),
        (r"\boxed{1}\boxed{2}", "2"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\frac{1}{2}} #### 3", r"\frac{1}{2}"),
        ("The answer is 1.\n#### 3", "3"),
        ("x\n#### 3\n#### 4\nmore", "4"),
        ("#### Step 2: add\nThe answer is 5.", "5"),
        ("The answer is 1. No, the answer is 2.", "2"),
        ("Final Answer: The final answer is $42$. I hope it is correct.", "42"),
        ("The answer is 5 since 2+3=5.", "5"),
        ("**Answer:**\n\n$$x^2$$", "x^2"),
        ("It costs $3 and later $5", "5"),
        (r"Hence the area is $2\pi$.", r"2\pi"),
        ("a\n2x+1", "2x+1"),
        ("first 3, then 4", "4"),
        ("3 or 4", "3 or 4"),
        (r"30\% \boxed{1}", "1"),
        (r"\boxed{1} % \boxed{2}", "1"),
        (r"\boxed{1} <!-- \boxed{2} -->", "1"),
        (r"\boxed{1}" + "\n% \\boxed{2}", "1"),
        ("\\boxed{x}" + "{" * 5000, "x"),
        (r"\boxed{}", None),
        (r"\boxed{1} \boxed{2", None),
        ("####", None),
    ],
)
def test_the_order_of_extraction(text: str, claim: str | None) -> None:
    assert lenient_claim(text) == claim


@pytest.mark.parametrize(
    ("gold", "claims"),
    [
        (
            "x^2+1",
            [r"9^{9^{9^{9}}}", "10000000!", "x" * 500, "((" * 200 + "x" + "))" * 200, "x^" * 20 + "x", "2^{9^{20}}"],
        ),
        ("1,-2", [r"9^{9^{9^{9}}},-2", "1, 99999999!"]),
        (r"\binom{2n}{n}", [r"\binom{10^{12}}{10^{11}}", r"(((((n!)!)!)!)!)!"]),
    ],
)
def test_what_is_too_large_to_work_out_hits_a_limit_at_once(gold: str, claims: list[str]) -> None:
    for claim in claims:
        started = time.process_time()
        verdict = Math().verify(problem(gold), f"\\boxed{{{claim}}}")
        assert verdict.outcome in (Outcome.TIMEOUT, Outcome.WRONG), claim
        assert verdict.outcome is Outcome.WRONG or "too large" in verdict.detail
        assert time.process_time() - started < 1.0, claim


# Patterns that a careless regular expression reads in exponentially many ways.
REPEATED = [
    r"\larg",
    r"x_a\b",
    "ab ",
    r"\text{cm}",
    r" \text{ m}",
    "1 000",
    "(x",
    "f(x)=",
    r"\{1 \over ",
    "1 cm/s ",
    r"\text{ or }",
]
GIANTS = [
    "\\boxed{" * 10_000 + "70" + "}" * 10_000,
    "\\boxed{" + "{" * 10_000 + "70" + "}" * 10_000 + "}",
    *("\\boxed{" + piece * (900 // len(piece)) + end + "}" for piece in REPEATED for end in ("", "7 = 70")),
    "\\boxed{70}" + "x" * 1_000_000,
    "\\boxed{" + "7" * 1_000_000 + "}",
    "\\boxed{" + "((" * 240 + "x" + "))" * 240 + "}",
    "\\boxed{9^{9^{9^{9}}}}",
    "\\boxed{99999999!}",
    "answer is " * 100_000,
    "#### " * 200_000,
    "\\boxed{1} or " * 70_000,
    "%\\boxed{1}\n" * 90_000,
    " " * 1_000_000 + "$",
    "\ud800\x00" * 1000,
]


@pytest.mark.parametrize("gold", ["70", "x^2+1", "1,-2", r"\text{Evelyn}", "(3,4]", "y = -2x"])
def test_giants_take_bounded_time(gold: str) -> None:
    domain, asked = Math(), problem(gold)
    domain.time_limit(asked)
    for giant in GIANTS:
        started = time.process_time()
        domain.verify(asked, giant)
        assert time.process_time() - started < 1.0, giant[:40]


PIECES = st.sampled_from(
    [
        r"\frac", r"\sqrt", "{", "}", "(", ")", "[", "1", "70", "x", "^", "_", "+", "-", "/", "=", "<", ",", "or",
        r"\text{", r"\pm", r"\cup", r"\infty", "|", "!", r"\sin", r"\boxed{", "####", "answer", "is", "9^", "%", "$",
        "\\\\", "é", "½", r"\over", "{:}", r"\not=", r"\mathbf{", r"\mathbb{R}", r"\setminus", r"\{", "to", "not",
        "th", r"\int", r"\sum",
    ]
)  # fmt: skip
JUNK = st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=60).map("".join)
# Answers that no such piece holds.
UNHEARD = ["8675309", "x^{17}+862", "862,-911", r"\text{Evelyn}", "(862,911]", "y = -862x", "862_{13}"]


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(JUNK, st.sampled_from(UNHEARD), st.booleans())
def test_junk_ends_in_time_and_is_never_right(junk: str, gold: str, in_box: bool) -> None:
    started = time.process_time()
    verdict = Math().verify(problem(gold), f"\\boxed{{{junk}}}" if in_box else junk)
    assert verdict.outcome in (Outcome.WRONG, Outcome.UNPARSED, Outcome.TIMEOUT)
    assert time.process_time() - started < 1.0


def test_the_pool_kills_what_math_verify_does_not_finish_and_the_rest_goes_on() -> None:
    """Only a reference that our own reader does not know goes to math-verify, whose time has no bound."""
    asked = problem(r"\sum_{k=1}^{n} k^{2}")
    hang, right, wrong = r"\sum_{k=1}^{n} ((9^{999})^{999})^{999}", r"\sum_{k=1}^{n}  k^{2}", r"\text{nothing}"
    with VerifierPool(TARGET) as pool:
        verdicts = pool.verify([(asked, f"\\boxed{{{claim}}}") for claim in (hang, right, wrong)])
    assert [v.outcome.value for v in verdicts] == ["timeout", "correct", "wrong"]
    assert "killed after" in verdicts[0].detail
    # Twice the limit and the starts of two fresh workers are below two seconds on a machine that is not busy.
    assert Math().time_limit(asked) == 0.3
    assert 0.3 <= verdicts[0].seconds < 0.8


EVALUATION = r"""
import sys
from harness_math.domain import Math
seen = []
watched = ("compile", "os.system", "subprocess.Popen")
sys.addaudithook(lambda event, args: seen.append(str(args[0])) if event in watched else None)
domain = Math()
attack = "__import__('pathlib').Path({marker!r}).touch()"
claims = [attack, "\text{{%s}}" % attack, "x+" + attack, "f(" + attack + ")", "\operatorname{{zq7}}(1)", "1;" + attack,
          "[zq7 for zq7 in ().__class__.__base__.__subclasses__()]", "lambda zq7:0", "(lambda zq7:1)()", "x.zq7()",
          "\int_0^1 %s dx" % attack, "\int_0^1 zq7(x) dx", "\mathrm{{zq7}}(x)", "zq7.__class__", "\sqrt{{%s}}" % attack,
          "\int_0^1 \mathrm{{zq7}} dx", "\int_0^1 z q_7 dx"]
for gold in ("x+1", "70", "1,-2", r"\int_0^1 f(x) dx", r"\text{{Evelyn}}", "(3,4]"):
    problem = domain.read({{"problem": "Find it.", "answer": gold}})
    domain.time_limit(problem)
    for claim in claims:
        for text in ("\boxed{{%s}}" % claim, claim, "The answer is " + claim):
            assert domain.verify(problem, text).outcome != "correct", (gold, text)
assert seen, "the hook saw nothing, not even sympy's own"
strange = [source for source in seen if "zq7" in source]
assert not strange, strange
"""


def test_nothing_a_model_writes_is_compiled_or_run(tmp_path: Path) -> None:
    """Python reports every compilation of source text to audit hooks, so this sees what sympy does behind our back."""
    marker = tmp_path / "zq7"
    script = EVALUATION.format(marker=str(marker))
    subprocess.run([sys.executable, "-c", f"import sys\nsys.path[:] = {sys.path!r}\n{script}"], check=True)
    assert not marker.exists()


def test_formulas_are_judged_without_sympy() -> None:
    script = r"""
import sys
from harness_math.domain import Math
domain = Math()
for gold, claim in [("x^2+1", "1+x^2"), (r"\sqrt{51}", "51^{1/2}"), ("(3,4]", "3 < x \\le 4"), ("y = -2x", "2x+y=0")]:
    problem = domain.read({"problem": "Find it.", "answer": gold})
    assert domain.time_limit(problem) == 2.0
    assert domain.verify(problem, "\\boxed{" + claim + "}").outcome == "correct"
assert not {"sympy", "math_verify", "torch"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", f"import sys\nsys.path[:] = {sys.path!r}\n{script}"], check=True)


@pytest.mark.parametrize(
    ("left", "right", "verdict"),
    [
        ("|x|", "x", False),
        ("|x|", r"\sqrt{x^2}", True),
        (r"\ln(ab)", r"\ln a + \ln b", True),
        (r"\lceil n/2\rceil", r"\lfloor (n+1)/2 \rfloor", True),
        ("(-1)^n", r"\cos(n\pi)", True),
        (r"\binom{2n}{n}", r"\frac{(2n)!}{(n!)^2}", True),
        ("2^{1009}", "2^{1009}+1", False),
        (r"\sqrt{2}\cdot 10^{-20}", r"\sqrt{3}\cdot 10^{-20}", False),
        ("f(2x)", "2f(x)", False),
        ("I(0)", "I(0)x", False),
        ("x_1", "x_{1}", True),
        ("x_1", "x_2", False),
        ("1/0", "1/0", None),
    ],
)
def test_formulas_are_equal_when_they_agree_everywhere(left: str, right: str, verdict: bool | None) -> None:
    assert equal(read_formula(left), read_formula(right)) is verdict


@given(
    st.recursive(
        st.sampled_from(["x", "y", "2", "3", r"\pi", r"\frac{1}{2}"]),
        lambda inner: (
            st.builds("({}{}{})".format, inner, st.sampled_from(["+", "-", "*", r"\cdot "]), inner)
            | st.builds(r"\frac{{{}}}{{{}+7}}".format, inner, inner)
            | st.builds(r"\sqrt{{{}^2+1}}".format, inner)
        ),
        max_leaves=6,
    )
)
def test_a_formula_equals_itself_rewritten_and_not_itself_changed(formula: str) -> None:
    node = read_formula(formula)
    assert equal(node, read_formula(f"1 + {formula} - 1")) is True
    assert equal(node, read_formula(f"\\frac{{2({formula})}}{{2}}")) is True
    assert equal(node, read_formula(f"{formula} + \\frac{{1}}{{1000}}")) is False


@given(st.integers(0, 10**12), st.integers(1, 10**6), st.integers(1, 6))
def test_repeating_decimals_and_percents_are_exact(n: int, period: int, digits: int) -> None:
    text = f"{n}.\\overline{{{period:0{digits}d}}}"
    number = read_number(text)
    assert number is not None
    assert number.value == n + Fraction(period, 10 ** len(f"{period:0{digits}d}") - 1)
    assert same(str(Fraction(n, 100)), f"{n}\\%")
    assert canonical(f"{n:,}") == str(n)


@pytest.mark.parametrize(
    "text", ["Evelyn walks", "", "1 2", "\\int x", "\\foo", "x^", "\\frac{1}", "|x", "(x", "101_2", "."]
)
def test_what_is_no_formula_is_unread(text: str) -> None:
    with pytest.raises(Unread):
        read_formula(text)


@pytest.mark.parametrize("text", ["+x" * 300, "(" * 60 + "x" + ")" * 60, "\\sin " * 100 + "x", "x^" * 20 + "x"])
def test_what_is_too_large_is_said_to_be(text: str) -> None:
    with pytest.raises(TooLarge):
        read_formula(text)


@pytest.mark.parametrize(
    ("text", "kind", "parts"),
    [
        ("1,234", "one", 0),
        ("1, 234", "list", 2),
        ("2500,7500", "list", 2),
        (r"3 \pm \sqrt{2}", "list", 2),
        (r"\{1,2\}", "list", 2),
        ("(3,4]", "tuple", 2),
        (r"(0,9) \cup (9,36)", "union", 2),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", "matrix", 2),
        ("120 < n \\leq 130", "relation", 3),
        ("n = 2, 5, 13", "list", 3),
        ("(x+1)(x-1)", "one", 0),
        (r"\text{1 or 2}", "list", 2),
    ],
)
def test_shapes(text: str, kind: str, parts: int) -> None:
    shape = read_shape(text)
    assert (shape.kind, len(shape.parts)) == (kind, parts)
