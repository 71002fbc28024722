r"""Exact numbers: what is written as one, and which two are equal.

Does: read integers of any size, decimals, fractions, mixed and scientific numbers, powers of ten, per cent, currency,
units and base notation into exact fractions.
Doesn't: work anything out. `6*7` and `\sqrt{4}` are no numbers here, however simple their value.

A decimal stands for another number only with six significant digits, rounded right in the last one: an absolute
tolerance would make all tiny numbers equal. Per cent may be left out (10\% for 10) or worked out (10\% for 0.1).
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from harness_math.cleaning import tidy, unwrapped

_ROUNDED_DIGITS = 6
_DIGITS = "[0-9]{1,1000}"
_DECIMAL = rf"[-+]?(?:{_DIGITS}(?:\.[0-9]{{0,300}})?|\.[0-9]{{1,300}})"
_PLAIN = re.compile(rf"-?{_DIGITS}")
_THOUSANDS = re.compile(r"[-+]?[0-9]{1,3}(?:(?:,[0-9]{3})+|(?: [0-9]{3})+)(?:\.[0-9]+)?")
_TEN = r"10\^(?:\{([-+]?[0-9]{1,3})\}|([-+]?[0-9]{1,3}))"
_SCIENTIFIC = re.compile(rf"({_DECIMAL})(?:(?:\\times|\\cdot|\*|x){_TEN}|[eE]([-+]?[0-9]{{1,3}}))?")
_POWER_OF_TEN = re.compile(rf"([-+]?){_TEN}")
_POWER = re.compile(r"\(?(-?[0-9]{1,9})\)?\^\{?(-?[0-9]{1,4})\}?")
_FRACTION = re.compile(rf"([-+]?)({_DIGITS})?\\frac(?:\{{({_DECIMAL})\}}|([0-9]))(?:\{{({_DECIMAL})\}}|([0-9]))")
_REPEATING = re.compile(r"(-?)([0-9]{0,100})\.([0-9]{0,100})\\(?:overline|bar|dot)\s?\{([0-9]{1,100})\}")
_SLASH = re.compile(rf"({_DECIMAL})(?:/|\\div)({_DECIMAL})")
_MIXED = re.compile(r"(?<=[0-9]) ([0-9]{1,300})/([0-9]{1,300})\Z")
_BASED = re.compile(r"([-+]?[0-9][0-9A-Za-z]{0,300})_(?:\{\(?([0-9]{1,2})\)?\}|([0-9]{1,2}))")
_LOOSE_SPACE = re.compile(r"(?<![0-9,]) | (?![0-9])")
_PERCENT = re.compile(r"\s*(?:\\?%|(?:\\text\s?\{)?\s*per ?cent\s*\}?)\s*\Z")
_DEGREES = re.compile(
    r"\s*(?:\^\s?\{?\s?\\circ\s?\}?(?:\s*(?:[CF]|\\(?:text|mathrm)\s?\{\s*[CF]\s*\}))?|\s(?:degrees?|deg))\s*\Z"
)
_ORDINAL = re.compile(r"(?<=[0-9])\s?\^?\s?\{?\s?(?:\\(?:text|mathrm)\s?\{)?\s?(?:st|nd|rd|th)\s?\}{0,2}\Z")
_CURRENCY = re.compile(r"^(-?)\s*(?:[€£¥₹]|(?:USD|EUR|US\\?\$|Rs\.?)(?![a-zA-Z]))\s*")
# What may follow a number without being a unit: 2x and 3 sin t are products, "5 or so" and "5 is wrong" are no answers.
_NO_UNIT = (
    r"(?:sin|cos|tan|log|ln|exp|pi|mod|or|and|not|no|if|but|is|are|was|maybe|perhaps|possibly|probably|either|unless|about|"
    r"wrong|incorrect|plus|minus|times|squared|cubed|hundred|thousand|million|billion|trillion|dozen|k|"
    r"factorial|tenth|hundredth|thousandth|third|half|halve)s?\b"
)
_WORDS = rf"\\(?:text|textrm|mathrm|mbox|operatorname)\s?\{{(?![^{{}}]*\b{_NO_UNIT})[^{{}}0-9]*(?:[a-zA-Z]\^?[1-4][^{{}}0-9]*)?\}}"
_SET = rf"(?:{_WORDS}|\\frac\s?\{{\s*{_WORDS}\s*\}}\s?\{{\s*{_WORDS}(?:\^\{{?[1-4]\}}?)?\s*\}})"
_SPELLED = rf"(?:(?!{_NO_UNIT})[a-zA-Z]{{2,}}\.?|[a-zA-Z](?=/))"
_ASIDE = re.compile(r"\((\\text\s?\{[^{}]*\})\)\Z")
_UNIT = re.compile(
    rf"(?<=[0-9}}])(?:\s*{_SET}|\s+{_SPELLED})"
    rf"(?:\^\{{?-?[1-4]\}}?|\s*/\s*(?:{_SET}|[a-zA-Z]+)|\s*(?:\\cdot)?\s*{_SET}|\s+{_SPELLED}){{0,8}}\s*\Z"
)
# After a formula only what is set as text, or words too long to be products of letters.
_FORMULA_UNIT = re.compile(
    rf"(?<=[0-9a-zA-Z}})])(?:\s*(?=\\[a-z]+\s?\{{\s*[a-zA-Z]{{2}}){_WORDS}(?:\^\{{?[1-4]\}}?)?|(?:\s+(?!{_NO_UNIT}|sqrt|theta|alpha|beta|lambda|omega)[a-zA-Z]{{4,}})+)\s*\Z"
)
_SCALE = re.compile(
    rf"\s*(?:\\text\s?\{{)?\s*(hundred|thousand|million|billion|trillion|dozen)\s*\}}?(?:\s+{_SPELLED}){{0,3}}\s*\Z"
)
_SCALES = {"hundred": 100, "dozen": 12, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_LEFT_SIDE = re.compile(r"^[a-zA-Z](?:_\{?\w\}?)?\s*=\s*")


class Number(NamedTuple):
    """An exact value; `unit` is that of the last written digit of a decimal, None for integers and fractions."""

    value: Fraction
    unit: Fraction | None = None
    percent: bool = False
    base: int = 10
    digits: str = ""


def read_number(text: str) -> Number | None:
    r"""An integer, decimal, scientific number, a/b, \frac{a}{b} or mixed number, possibly with a unit around it."""
    text = text.strip()
    if _PLAIN.fullmatch(text):
        return Number(_fraction(text))
    text = _LEFT_SIDE.sub("", tidy(text)).rstrip(".,;:").strip()
    text, percent = _without(_PERCENT, text)
    scaled = _SCALE.search(text)
    text = _bare(text[: scaled.start()] if scaled else text)
    number = _read(text)
    if number is None or not (scaled or percent):
        return number
    scale = _SCALES[scaled[1]] if scaled else 1
    return number._replace(
        value=number.value * scale, unit=None if number.unit is None else number.unit * scale, percent=percent
    )


def _without(pattern: re.Pattern[str], text: str) -> tuple[str, bool]:
    found = pattern.search(text)
    return (text[: found.start()], True) if found else (text, False)


def _bare(text: str) -> str:
    """Without unit, currency, degree sign, brackets around all of it, and loose spaces."""
    text = _ASIDE.sub(r"\1", _ORDINAL.sub("", text))
    text = _CURRENCY.sub(r"\1", _DEGREES.sub("", _UNIT.sub("", text)))
    text = " ".join(unwrapped(text).split())
    for _ in range(3):
        inner = text[1:-1]
        if text[:1] + text[-1:] in ("()", "{}") and not set(inner) & set("(){},"):
            text = inner.strip()
    text = _LOOSE_SPACE.sub("", _MIXED.sub(r"\\frac{\1}{\2}", text))
    return text.replace(",", "").replace(" ", "") if _THOUSANDS.fullmatch(text) else text


def _read(text: str) -> Number | None:
    if found := _SCIENTIFIC.fullmatch(text):
        return _scientific(found[1], int(found[2] or found[3] or found[4] or 0))
    if found := _POWER_OF_TEN.fullmatch(text):
        value = Fraction(10) ** int(found[2] or found[3])
        return Number(-value if found[1] == "-" else value)
    if found := _FRACTION.fullmatch(text):
        return _quotient(found)
    if found := _REPEATING.fullmatch(text):
        return _repeating(*found.groups())
    if found := _SLASH.fullmatch(text):
        denominator = _fraction(found[2])
        return Number(_fraction(found[1]) / denominator) if denominator else None
    if found := _BASED.fullmatch(text):
        return _based(found[1], int(found[2] or found[3]))
    return None


def _scientific(digits: str, exponent: int) -> Number:
    value = _fraction(digits) * Fraction(10) ** exponent
    decimals = len(digits.partition(".")[2])
    exact = not decimals and exponent == 0
    return Number(value, None if exact else Fraction(10) ** (exponent - decimals))


def _fraction(digits: str) -> Fraction:
    """Exact, also above the limit that Python sets to decimal conversion, and for "1." and ".5"."""
    whole, _, decimals = digits.partition(".")
    sign = -1 if whole.startswith("-") else 1
    return sign * Fraction(int(whole.lstrip("+-") + decimals or "0"), 10 ** len(decimals))


def _repeating(sign: str, whole: str, decimals: str, period: str) -> Number:
    r"""0.1\overline{6} is 1/6, exactly."""
    digits = int((whole + decimals + period) or "0") - int((whole + decimals) or "0")
    value = Fraction(digits, 10 ** len(decimals) * (10 ** len(period) - 1))
    return Number(-value if sign else value)


def _quotient(found: re.Match[str]) -> Number | None:
    sign, whole, above, above_digit, below, below_digit = found.groups()
    numerator, denominator = _fraction(above or above_digit), _fraction(below or below_digit)
    if denominator == 0 or (whole and numerator < 0):
        return None
    value = int(whole or 0) + numerator / denominator
    return Number(-value if sign == "-" else value)


def _based(digits: str, base: int) -> Number | None:
    """101_2. The value is that of the digits as they stand: 52_8 is not another way to write 42."""
    if not 2 <= base <= 36:
        return None
    try:
        value = int(digits, base)
    except ValueError:
        return None
    return (
        Number(Fraction(value))
        if base == 10
        else Number(Fraction(value), None, False, base, digits.upper().lstrip("+0"))
    )


def without_unit(formula: str) -> str:
    r"""288\pi for 288\pi \text{ cubic units}. A subscript set as text stays."""
    text = tidy(formula)
    found = _FORMULA_UNIT.search(text)
    return text if found is None or text[: found.start()].endswith(("_", "^")) else text[: found.start()]


def read_power(text: str) -> Number | None:
    """a^b of two integers: a closed form that says more than its digits. Other expressions are left to be worked out."""
    found = _POWER.fullmatch(_LEFT_SIDE.sub("", tidy(text)).rstrip(".").strip())
    if found is None or abs(int(found[1])).bit_length() * abs(int(found[2])) > 20_000:
        return None
    return Number(Fraction(int(found[1])) ** int(found[2])) if int(found[1]) else None


def same_number(expected: Number, given: Number) -> bool:
    if expected.base != given.base:
        return _same_digits(expected, given)
    if _close(expected, given):
        return True
    if expected.percent == given.percent:
        return False
    whole = [number.value / 100 if number.percent else number.value for number in (expected, given)]
    return whole[0] == whole[1]


def _same_digits(expected: Number, given: Number) -> bool:
    """The base may be left out where it was asked for: 52 for 52_8, but not 42."""
    plain = given.unit is None and given.base == 10 and given.value.denominator == 1
    return expected.base != 10 and plain and str(given.value) == expected.digits


def _close(expected: Number, given: Number) -> bool:
    if expected.value == given.value:
        return True
    # A reference that is a whole number is meant exactly: 1.23457e6 is not 1234567.
    whole = expected.unit is None and expected.value.denominator == 1
    return rounds_to(expected, given.value) or (not whole and rounds_to(given, expected.value))


def rounds_to(decimal: Number, value: Fraction) -> bool:
    if decimal.unit is None or abs(decimal.value) < decimal.unit * 10 ** (_ROUNDED_DIGITS - 1):
        return False
    return abs(decimal.value - value) * 2 <= decimal.unit
