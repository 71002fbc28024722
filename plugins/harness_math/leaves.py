r"""Whether two single values are the same: as text, as exact numbers, in words, as formulas, or by math-verify.

Does: read every reference value once (cached); the reference decides how claims are compared with it. math-verify is
asked only where our own reader does not know the reference: everything else is bounded work.
Doesn't: know lists, tuples or relations (comparing.py).

Where the reference is a number the claim must be one (or a power of integers): `\boxed{6*7}` is not 42, since a model
would otherwise be paid for repeating the problem's own expression.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from harness_math import symbolic
from harness_math.cleaning import clean, tidy, unwrapped
from harness_math.formulas import read_formula
from harness_math.numerals import Number, read_number, read_power, same_number, without_unit
from harness_math.symbols import FUNCTIONS, PLAIN
from harness_math.tokens import Unread
from harness_math.trees import Node
from harness_math.values import constant, equal, stands_for

_COMMAND = re.compile(r"\\[a-zA-Z]+")
_WORD = re.compile(r"[a-zA-Z]{3,}")
_CLOCK = re.compile(r"[0-9]:[0-9]{2}.*(?<![a-zA-Z])[ap]\.?\s?m\b", re.IGNORECASE)
# After a constant these are no products of letters.
_SHORT_UNIT = re.compile(r"\s(?:[mcdk]?m|k?g|ft|in|yd|mi|s|h)(?:\^\{?[234]\}?)?\Z")
_ARTICLE = re.compile(r"^(?:the|an?|on|in|at)\s(?=[a-z]{3})", re.IGNORECASE)
_RADIANS = re.compile(r"\brad(?:ian)?s?\b")
_CHOICE = re.compile(r"\(?([A-Z])\)?")
_CHOSEN = re.compile(r"\(?([A-Z])\s?(?:\)|[.:](?=\s|\Z))\s?")
_NO_TEXT = re.compile(r"^[-+*/^=(_!,;]|(?<![a-zA-Z\\])(?:[A-Z]|or|and|not|is)(?![a-zA-Z])")
_NAMES = PLAIN.union(FUNCTIONS)
_INFINITE = {"\\infty": "inf", "+\\infty": "inf", "infinity": "inf", "inf": "inf", "oo": "inf", "-\\infty": "-inf"}
_INFINITE |= {"-infinity": "-inf", "-inf": "-inf", "-oo": "-inf", "+infinity": "inf"}
_NOTHING = frozenset(
    (
        "emptyset",
        "theemptyset",
        "empty",
        "none",
        *(f"no{real}solution{s}" for real in ("", "real", "such") for s in ("", "s")),
    )
)


class Leaf(NamedTuple):
    """A reference value in every reading that it has."""

    text: str
    key: str
    number: Number | None
    node: Node | None


@lru_cache(maxsize=8192)
def read_leaf(text: str) -> Leaf:
    number = read_number(text)
    return Leaf(clean(text), words_key(text), number, None if number else _formula(text))


def _formula(text: str) -> Node | None:
    try:
        return read_formula(without_unit(text))
    except Unread:
        return None


def same_leaf(gold: str, claim: str) -> bool:
    """Raises TooLarge when that would have to be worked out beyond the bounds."""
    expected = read_leaf(gold)
    if expected.text == clean(claim) or _same_choice(expected.text, claim):
        return True
    given = read_number(claim)
    if expected.number is not None:
        if "circ" in tidy(gold) and _RADIANS.search(claim):
            return False
        given = given or read_power(claim)
        return given is not None and same_number(expected.number, given)
    if expected.key == "none" or _key(claim) in _NOTHING:
        return expected.key == "none" and _key(claim) in _NOTHING
    if infinite(gold) or infinite(claim):
        return infinite(gold) == infinite(claim)
    if expected.key:
        return _same_words(expected.key, claim)
    if expected.node is not None and given is not None:
        return given.base == 10 and stands_for(given, expected.node)
    return _same_formula(expected, gold, claim)


def _same_formula(expected: Leaf, gold: str, claim: str) -> bool:
    if words_key(without_unit(claim)):
        return False
    node = _formula(claim)
    if expected.node is None:
        if node is not None:
            equal(node, node)  # what is too large for us never gets to math-verify
        return symbolic.equal(gold, claim)
    if node is not None and equal(expected.node, node):
        return True
    bare = _SHORT_UNIT.sub("", tidy(claim))
    node = _formula(bare) if bare != tidy(claim) and constant(expected.node) is not None else None
    return node is not None and bool(equal(expected.node, node))


def needs_math_verify(gold: str) -> bool:
    """Whether this reference value is neither number nor words nor a formula that our own reader knows."""
    leaf = read_leaf(gold)
    return leaf.number is None and leaf.node is None and not leaf.key and not infinite(gold)


def infinite(text: str) -> str:
    return _INFINITE.get(re.sub(r"[\s{}]", "", unwrapped(tidy(text))), "")


def words_key(text: str) -> str:
    """Letters and digits of an answer in words, of a choice such as (E), or of a time of day; "" for mathematics."""
    key, plain = _key(text), unwrapped(tidy(text)).strip()
    if key in _NOTHING:
        return "none"
    words = [word for word in _WORD.findall(_COMMAND.sub(" ", plain)) if word not in _NAMES and not word.isupper()]
    choice = _CHOICE.fullmatch(plain) and (plain.endswith(")") or "\\text" in text)
    return key if words or choice or _CLOCK.search(plain) else ""


def _key(text: str) -> str:
    plain = unwrapped(tidy(text)).casefold()
    return "".join(character for character in plain if character.isalnum() or character in ":+/-")


def _same_words(key: str, claim: str) -> bool:
    return key in (_key(claim), _key(_ARTICLE.sub("", unwrapped(tidy(claim)).strip())))


def _same_choice(gold: str, claim: str) -> bool:
    """A letter, alone or before its text as in (C) 12; not before another letter, or an operator as in (C)+1."""
    letter, choice = _CHOICE.fullmatch(gold), _CHOSEN.match(clean(claim))
    if letter is None or choice is None or letter[1] != choice[1]:
        return False
    return not _NO_TEXT.search(clean(claim)[choice.end() :])
