r"""From a completion to the one choice it claims.

Does: find the claim (the last `\boxed{}`; else what follows the last "answer is", "Answer:" or "####"; else lines that
are nothing but a choice) and read it as a label, a label with a text or a reason, or a text. Every pass is linear.
Doesn't: know the right choice, or guess. Two choices, a label with the text of another choice, and a label that no
choice has are no claim.

Labels are the letters A, B, C, ... that the prompt shows, in either case, and the numbers 1, 2, 3, ...; a number that
is also the text of another choice is no claim. Only the last 100 000 characters are read.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import NamedTuple

MAX_CHOICES = len(string.ascii_uppercase)
MAX_CHARS = 100_000
CLAIM_CHARS = 1000

_BOX = re.compile(r"\\boxed\s{0,3}\{((?:[^{}]|\{[^{}]*+\})*+)\}")
_SAID = re.compile(
    r"####|<answer>|\b(?:answer|(?:correct|right|best) (?:choice|option|one))[*_]{0,2}(?:\s{1,3}is\b|\s{0,3}[:=]|(?= ?[1-9]\b))",
    re.IGNORECASE,
)
# Marks that only decorate: Markdown, LaTeX's $ \( \[, and quotes around one character.
_DECORATION = re.compile(r"</?[a-z]{1,10}>|[*$`]|\\[()\[\]]|(?<!\w)[\"'“‘](?=\w[\"'”’])|(?<=[\"'“‘]\w)[\"'”’](?!\w)")
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s{0,3}\{([^{}]*+)\}")
_LABEL = re.compile(
    r"(?:(?:option|choice|answer|letter|number) ?)?([(\[{]?)([a-z]|[1-9][0-9]?)([)\]}]?)(?!\w|[.,:/–-]\d)",
    re.IGNORECASE | re.ASCII,  # or ſ would be an s
)
# What may follow a label: a mark, or a verb ("A meteorite" begins with an article, "A is right" with a label).
_MARK = re.compile(r"\s?[.,;:)=–—-]\s?|\s(?=(?:is (?:the )?(?:correct|right|best|answer)|because|since)\b)")
_ASIDE = re.compile(r"\s\(([^()]*)\)\W{0,3}")
_OTHER = re.compile(r"\b[B-Z]\b|\(A\)")
_SECOND = re.compile(
    r"(?:\s?(?:,|;|/|&|\band/or\b|\band\b|\bor\b)\s?)+[(\[{]?([a-z]|[1-9])[)\]}]?(?![a-z0-9])", re.IGNORECASE | re.ASCII
)


class _Label(NamedTuple):
    """A label at the start of a claim, and what comes after the mark that follows it."""

    place: int
    is_number: bool
    tail: str


def claimed(text: str, choices: Sequence[str]) -> int | None:
    """The index of the choice that a completion claims, None where it claims none or several."""
    text = text[-MAX_CHARS:]
    at = text.rfind("\\boxed")
    if at >= 0:
        box = _BOX.match(text, at)
        return _choice(box[1], choices) if box else None
    ends = [found.end() for found in _SAID.finditer(text)]
    said = text[ends[-1] :].lstrip(" \t\n\r*_:").partition("\n")[0] if ends else ""
    return _choice(said, choices) if said else _bare(text, choices)


def demanded(text: str, choices: Sequence[str]) -> int | None:
    """The choice of a completion in the format that the prompt asks for: nothing but its letter (`C`, `C.`, `(C)`)."""
    found = re.fullmatch(r"([A-Z])\.?|\(([A-Z])\)", text.strip()) if len(text) <= CLAIM_CHARS else None
    index = string.ascii_uppercase.index(found[1] or found[2]) if found else MAX_CHOICES
    return index if index < len(choices) else None


def letter(index: int) -> str:
    return string.ascii_uppercase[index]


def _bare(text: str, choices: Sequence[str]) -> int | None:
    """Lines that are labels; else lines that are a label with its own text; else all of the text."""
    labels = {line: label for line in set(text.split("\n")) if (label := _label(_clean(line), choices)) is not None}
    alone = {_choice(line, choices) for line, label in labels.items() if not label.tail}
    texts = {label.place for label in labels.values() if label.place in _matches(label.tail, choices)}
    found = alone or texts
    if found:
        return found.pop() if len(found) == 1 else None
    label = _label(_clean(text), choices)
    named = _OTHER.findall(label.tail) if label is not None else []  # "A) is wrong, so it is C"
    return None if named else _choice(text, choices)


def _choice(claim: str, choices: Sequence[str]) -> int | None:
    claim = _clean(claim) if len(claim) <= CLAIM_CHARS else ""
    texts = _matches(claim, choices)
    label = _label(claim, choices)
    if label is None:
        return texts[0] if len(texts) == 1 else None
    others = _matches(label.tail, choices) or (texts if label.is_number else [])
    if not others and (second := _label(label.tail, choices)) is not None and not second.tail:
        others = [second.place]
    return None if others and label.place not in others else label.place


def _matches(claim: str, choices: Sequence[str]) -> list[int]:
    """The choices whose text this is, letter by letter; else in another case (`Rr` and `RR` are two choices)."""
    claim = _plain(claim)
    exact = [index for index, choice in enumerate(choices) if claim and _plain(choice) == claim]
    folded = claim.casefold()
    return exact or [index for index, choice in enumerate(choices) if claim and _plain(choice).casefold() == folded]


def _label(claim: str, choices: Sequence[str]) -> _Label | None:
    found = _LABEL.match(claim) if len(claim) <= CLAIM_CHARS else None
    if found is None or bool(found[1]) > bool(found[3]):
        return None
    index = int(found[2]) - 1 if found[2].isdigit() else string.ascii_lowercase.index(found[2].lower())
    rest = claim[found.end() :]
    if (aside := _ASIDE.fullmatch(rest)) and index in _matches(aside[1], choices):
        rest = f") {aside[1]}"
    mark = _MARK.match(rest)
    second = _SECOND.match(rest) or _SECOND.match(rest[mark.end() :] if mark else "")
    if index >= len(choices) or second or not (mark or found[3] or not rest.strip()):
        return None
    # After a bracket no mark is needed, and a minus is the text's own.
    tail = rest.lstrip(" .:,") if found[3] else rest[mark.end() :] if mark else ""
    return _Label(index, found[2].isdigit(), tail.strip(" .!"))


def _plain(text: str) -> str:
    return " ".join(text.split()).rstrip(".!").strip("\"' ")


def _clean(claim: str) -> str:
    """Without LaTeX and Markdown around it."""
    if len(claim) > CLAIM_CHARS:
        return claim
    return " ".join(_DECORATION.sub("", _WRAPPED.sub(r"\1", claim)).split())
