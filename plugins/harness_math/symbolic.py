r"""math-verify, for what our own reader does not know: integrals, sums, limits and the like.

Does: hand it one bounded formula of known commands, and compare by its rules.
Doesn't: let it extract, strip units, or see prose. Its parser of plain expressions is never used, since that goes
through `eval`; of model text, only runs of digits reach sympy as strings.

Departures from math-verify's defaults, on purpose:

1. One claim, never any of several that occur in the text.
2. No alarms: they need the main thread and do not interrupt long calls into C. The pool's clock kills.
3. No unit stripping: it takes the m of \frac{37}{4} m for metres.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from harness_math.cleaning import tidy
from harness_math.symbols import ACCENTS, CONSTANTS, FUNCTIONS, GREEK
from harness_math.tokens import TooLarge

MAX_CHARS, MAX_DEPTH = 300, 8
# What is left to be worked out, unless the reference answer is written with it too.
_UNFINISHED = frozenset(("int", "sum", "prod", "lim"))
# Commands that may be in a claim. None of them makes the parser evaluate, allocate or call by name.
_KNOWN = frozenset(
    (
        *ACCENTS,
        *CONSTANTS,
        *FUNCTIONS,
        *GREEK,
        *("frac", "sqrt", "cdot", "times", "div", "circ", "prime", "infty", "to", "rightarrow", *_UNFINISHED),
        *("le", "ge", "ne", "in", "cup", "lfloor", "rfloor", "lceil", "rceil", "mathrm", "text", "mathbb", "mod"),
    )
)
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_PROSE = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{4,}")
_TEXT = re.compile(r"[\x20-\x7e]+")
_BIG = re.compile(r"[0-9]{40}")
# Powers of powers, four digits above a sum or in an exponent, factorials of four digits or of brackets: what sympy would
# work out as soon as it reads it.
_HEAVY = re.compile(r"\^\s?(?:\{[^{}]*\^|\\?\w+\s?\^|\{?\s?-?[0-9]{4})|(?:[0-9]{4}|[)}\]!])\s?!")


def equal(gold: str, claim: str) -> bool:
    """False as well where either side is no formula. Raises TooLarge; may take any time, which is the pool's to bound."""
    commands = set(_COMMAND.findall(tidy(claim)))
    if commands & _UNFINISHED - set(_COMMAND.findall(gold)) or not readable(claim):
        return False
    expected = _parse_gold(gold)
    given = _parse(claim) if expected else []
    if not (expected and given):
        return False
    from math_verify import verify

    return bool(verify(expected, given, timeout_seconds=None))


def prepare(golds: Iterable[str]) -> None:
    """Import math-verify and read the reference formulas: a second that no completion is to blame for."""
    for gold in golds:
        _parse_gold(gold)


def readable(text: str) -> bool:
    """Whether a claim consists of known commands and no prose. Raises TooLarge when it is a formula of too much."""
    text = tidy(text)
    if not _TEXT.fullmatch(text) or _PROSE.search(_COMMAND.sub(" ", text)):
        return False
    if not set(_COMMAND.findall(text)) <= _KNOWN or "__" in text:
        return False
    if len(text) > MAX_CHARS or _depth(text) > MAX_DEPTH or _HEAVY.search(text):
        raise TooLarge("a formula of too many characters, brackets or digits")
    return not _BIG.search(text)


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character in "([{|") - (character in ")]}|")
        deepest = max(deepest, depth)
    return deepest


@lru_cache(maxsize=4096)
def _parse_gold(gold: str) -> list[Any]:
    return _parse(gold)


def _parse(text: str) -> list[Any]:
    """At most one sympy object, not worked out."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    as_it_stands = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="none", equations=False
    )
    found: list[Any] = parse(
        f"${tidy(text)}$",
        extraction_config=[LatexExtractionConfig(normalization_config=as_it_stands)],
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
    )
    return found
