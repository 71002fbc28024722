r"""Judge a completion by its final answer.

Does: compare exactly where the reference answer is a number; ask math-verify where it is an expression.
Doesn't: evaluate model text as code, bound its own time (the pool does), or reward an expression that was left for
the verifier to work out.

Departures from math-verify, on purpose:

1. Where the reference is a number the claim must be one (`\boxed{6*7}` is not 42): otherwise a model is paid for
   repeating the problem's own expression.
2. A decimal stands for another number only with six significant digits, rounded right in the last one. An absolute
   tolerance would make all tiny numbers equal.
3. Its pattern extraction of plain expressions is never used, since that path goes through `eval`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from harness.types import Outcome, Problem, Verdict
from harness_math.extract import lenient_claim, strict_claim

_ROUNDED_DIGITS = 6
_DROPPED = re.compile(
    r"\\[!,;:]|\\(?:left|right|displaystyle|quad|qquad)(?![a-zA-Z])|\\[()\[\]]|\\?\$|\*\*|`|~|\\?%|\^\{?\\circ\}?|\{,\}"
)
_WORDS = re.compile(r"\\(?:text|textbf|mathrm|mbox|operatorname)\s?\{([^{}]*)\}")
_LEFT_SIDE = re.compile(r"^[a-zA-Z](?:_\{?\w\}?)?\s*=\s*")
# Spelled out behind a space, or set as text. "2x" and "3 sin t" are products, not quantities.
_UNIT = re.compile(
    r"(?<=[0-9}])(?:\s*\\(?:text|mathrm|mbox)\s?\{[^{}0-9]*\}"
    r"|\s+(?!(?:sin|cos|tan|log|ln|exp|pi|or|and)\b)[a-zA-Z]{2}[a-zA-Z. ]*)"
    r"(?:\^\{?[23]\}?)?\s*\Z"
)
_THOUSANDS = re.compile(r"[-+]?[0-9]{1,3}(?:(?:,[0-9]{3})+|(?: [0-9]{3})+)(?:\.[0-9]+)?")
_MIXED = re.compile(r"(?<=[0-9]) ([0-9]{1,300})/([0-9]{1,300})\Z")
_LOOSE_SPACE = re.compile(r"(?<![0-9]) | (?![0-9])")
_DECIMAL = r"[-+]?(?:[0-9]{1,300}(?:\.[0-9]{0,300})?|\.[0-9]{1,300})"
_SCIENTIFIC = re.compile(rf"({_DECIMAL})(?:(?:\\times|\\cdot)10\^\{{?([-+]?[0-9]{{1,3}})\}}?|[eE]([-+]?[0-9]{{1,3}}))?")
_FRACTION = re.compile(
    r"([-+]?)([0-9]{1,300})?(?:\\frac(?:\{(-?[0-9]{1,300})\}|([0-9]))(?:\{([0-9]{1,300})\}|([0-9]))|/(-?[0-9]{1,300}))"
)


class Number(NamedTuple):
    """An exact value; `unit` is that of the last written digit of a decimal, None for integers and fractions."""

    value: Fraction
    unit: Fraction | None


def verify(problem: Problem, completion: str) -> Verdict:
    in_format = strict_claim(completion)
    claim = in_format if problem.strict else lenient_claim(completion)
    if claim is None:
        return Verdict(outcome=Outcome.UNPARSED, detail="no final answer in the demanded format")
    correct = any(same(gold, claim) for gold in golds(problem))
    return Verdict(
        outcome=Outcome.CORRECT if correct else Outcome.WRONG,
        extracted=canonical(claim),
        format_ok=in_format is not None,
    )


def golds(problem: Problem) -> list[str]:
    """The accepted answers: `Problem.answer` is one, or a list of them."""
    answer = problem.answer
    accepted = answer if isinstance(answer, Sequence) and not isinstance(answer, str) else [answer]
    return [str(each) for each in accepted]


def canonical(claim: str) -> str:
    """Equal numbers have one form (1/2 for 0.50); anything else goes by its cleaned text."""
    number = read_number(claim)
    return str(number.value) if number else clean(claim)


def same(gold: str, claim: str) -> bool:
    expected = read_number(gold)
    if expected is not None:
        given = read_number(claim)
        return given is not None and _same_number(expected, given)
    return clean(gold) == clean(claim) or _same_expression(gold, claim)


def _same_number(expected: Number, given: Number) -> bool:
    if expected.value == given.value:
        return True
    return _rounds_to(given, expected.value) or _rounds_to(expected, given.value)


def _rounds_to(decimal: Number, value: Fraction) -> bool:
    if decimal.unit is None or abs(decimal.value) < decimal.unit * 10 ** (_ROUNDED_DIGITS - 1):
        return False
    return abs(decimal.value - value) * 2 <= decimal.unit


def clean(text: str) -> str:
    """Without delimiters, spacing, emphasis, per cent and degree signs, the left side of `x = ...`, a last period."""
    return " ".join(_WORDS.sub(r"\1", _trim(text)).split())


def _trim(text: str) -> str:
    text = _DROPPED.sub("", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("−", "-")
    return _LEFT_SIDE.sub("", text.strip().removesuffix("."))


def read_number(text: str) -> Number | None:
    r"""An integer, decimal, scientific number, a/b, \frac{a}{b} or mixed number, possibly with a unit behind it."""
    text = " ".join(_WORDS.sub(r"\1", _UNIT.sub("", _trim(text))).split())
    text = _MIXED.sub(r"\\frac{\1}{\2}", _LOOSE_SPACE.sub("", text))
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "").replace(" ", "")
    if found := _SCIENTIFIC.fullmatch(text):
        return _scientific(found)
    if found := _FRACTION.fullmatch(text):
        return _fraction(found)
    return None


def _scientific(found: re.Match[str]) -> Number:
    digits, exponent = found[1], int(found[2] or found[3] or 0)
    value = Fraction(digits) * Fraction(10) ** exponent
    decimals = len(digits.partition(".")[2])
    exact = not decimals and exponent == 0
    return Number(value, None if exact else Fraction(10) ** (exponent - decimals))


def _fraction(found: re.Match[str]) -> Number | None:
    sign, whole, *parts = found.groups()
    latex, single, below, below_single, slash = parts
    denominator = int(slash or below or below_single)
    numerator = int((whole or "0") if slash else (latex or single))
    mixed = int(whole or 0) if not slash else 0
    if denominator == 0 or (slash and not whole) or (mixed and numerator < 0):
        return None
    value = mixed + Fraction(numerator, denominator)
    return Number(-value if sign == "-" else value, None)


def _same_expression(gold: str, claim: str) -> bool:
    from math_verify import verify as equal

    # No alarms: they need the main thread and do not interrupt long calls into C. The pool's clock kills.
    return bool(equal(parse_gold(gold), _parse(claim), timeout_seconds=None))


@lru_cache(maxsize=4096)
def parse_gold(gold: str) -> list[Any]:
    """Parsed once for all completions. [] for a number, which is never parsed."""
    return _parse(gold) if read_number(gold) is None else []


def _parse(text: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    latex = text.strip().strip("$").strip()
    found: list[Any] = parse(
        f"${latex}$",
        extraction_config=[LatexExtractionConfig()],
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
    )
    return found
