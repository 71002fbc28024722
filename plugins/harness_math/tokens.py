"""The words of a formula, and how many of them are too many.

Does: cut LaTeX and plain notation into tokens, plain words into function names or letters; bound number and depth.
Doesn't: read structure (formulas.py).
"""

from __future__ import annotations

import re

from harness_math.symbols import FUNCTIONS, PLAIN

MAX_TOKENS, MAX_DEPTH = 400, 40
DIGITS = "0123456789."
_MODULE = re.compile(r"(?<![a-zA-Z\\])(?:np|numpy|math)\.(?=[a-z])")
_TOKEN = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+|\\[a-zA-Z]+|\\.|[a-zA-Z]+|\S", re.DOTALL)
_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")


class Unread(Exception):
    """Not a formula that this reader knows."""


class TooLarge(Exception):
    """More tokens, brackets or digits than are worked out."""


def split(text: str) -> list[str]:
    """Raises TooLarge before anything else looks at the text."""
    tokens: list[str] = []
    for token in _TOKEN.findall(_MODULE.sub("", _THOUSANDS.sub("", text.strip().rstrip(".,;")))):
        tokens += _letters(token) if token.isalpha() else [token]
    if len(tokens) > MAX_TOKENS:
        raise TooLarge(f"{len(tokens)} tokens")
    depth = deepest = 0
    for token in tokens:
        depth += (token in "([{") - (token in ")]}") if len(token) == 1 else 0
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise TooLarge(f"{deepest} brackets deep")
    return tokens


def _letters(word: str) -> list[str]:
    """A known function or letter name without its backslash, or a product of letters; longer words stay whole."""
    if word in FUNCTIONS or word in PLAIN:
        return ["\\" + word]
    name = next((name for name in FUNCTIONS if word.startswith(name) and len(word) == len(name) + 1), None)
    if name is not None:
        return ["\\" + name, word[-1]]
    return list(word) if word.isascii() and len(word) <= (5 if word.isupper() else 3) else [word]
