"""From a completion to the one answer it claims.

Does: check the demanded format (strict) or find the claim in free text (lenient). Every pass is linear in the text.
Doesn't: interpret the claim; join several boxes into a set, as math-verify's own extraction does.
"""

from __future__ import annotations

import re

CLAIM_CHARS = 1000
_BOX = re.compile(r"\\(?:boxed|fbox)\s{0,3}\{")
_STRICT = re.compile(r"\\boxed\{(-?[0-9]{1,100})\}")
_SAID = re.compile(r"(?:\banswer(?: is| *[:=])|^A:)[ \t]{0,3}:?([^\n]*)", re.IGNORECASE | re.MULTILINE)
_NUMBER = re.compile(r"-?[0-9]{1,100}(?:,[0-9]{3})*(?:\.[0-9]{1,100})?(?:/[0-9]{1,100})?")
# A formula: LaTeX commands and single letters, but no words.
_BARE = re.compile(r"(?:\\[a-zA-Z]{1,20}|(?<![a-zA-Z])[a-zA-Z](?![a-zA-Z])|[-+*/^_=(){}\[\],.0-9$ ]){1,100}")


def strict_claim(text: str) -> str | None:
    r"""The integer of the only `\boxed{}`, when nothing but white space and one period follows it."""
    # Trimmed by hand: a pattern with two optional runs of white space takes quadratic time on a long run.
    text = text.rstrip().removesuffix(".").rstrip()
    start = text.rfind("\\boxed")
    found = _STRICT.fullmatch(text, start) if start >= 0 else None
    return found[1] if found and text.find("\\boxed") == start else None


def lenient_claim(text: str) -> str | None:
    r"""The last `\boxed{}`; else what follows the last "####"; else "the answer is ..."; else all; else a number.

    A last box that is empty or never closed is an empty claim (None): no earlier text is dug up instead.
    """
    claim = _last_box(text)
    if claim is None:
        claim = _unboxed(text)
    claim = claim.strip()
    return claim if 0 < len(claim) <= CLAIM_CHARS else None


def _last_box(text: str) -> str | None:
    """The content of the last box, "" when it is not closed, None when there is no box."""
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    start = place = boxes[-1].end()
    depth = 1
    while place < len(text):
        if text[place] == "\\":
            place += 1  # an escaped brace does not nest
        elif text[place] == "{":
            depth += 1
        elif text[place] == "}":
            depth -= 1
            if depth == 0:
                return text[start:place]
        place += 1
    return ""


def _unboxed(text: str) -> str:
    if "####" in text:
        return text.rpartition("####")[2].strip().partition("\n")[0]
    said = _SAID.findall(text)
    if said:
        return _sentence(said[-1])
    if _BARE.fullmatch(text.strip()):
        return text
    numbers = _NUMBER.findall(text)
    return numbers[-1] if numbers else ""


def _sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence; a decimal point does not."""
    return re.split(r"\.(?:\s|\Z)", text, maxsplit=1)[0]
