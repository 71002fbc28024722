"""From a completion to the one expression it claims.

Does: check the demanded format (strict) or find the claim in free text (lenient), in one pass over the text.
Doesn't: parse expressions (expression.py).
"""

from __future__ import annotations

import re

_MARK = "Answer: "
_SAID = re.compile(r"answer(?: is)?\s{0,3}:?", re.IGNORECASE)
_EQUALS = re.compile(r"=\s{0,9}-?[0-9]{1,9}(?:\.0{1,9})?\s{0,9}\Z")
_SPELLINGS = (
    ("\\times", "*"), ("\\cdot", "*"), ("\\div", "/"), ("\\left", ""), ("\\right", ""),
    ("×", "*"), ("·", "*"), ("÷", "/"), ("−", "-"), ("$", ""), ("`", ""), ("**", ""),
)  # fmt: skip


def strict_claim(text: str) -> str | None:
    """What the last line says after "Answer: ", when no other line says it too."""
    last = text.rstrip().rpartition("\n")[2]
    return last.removeprefix(_MARK).strip() if last.startswith(_MARK) and text.count(_MARK.strip()) == 1 else None


def lenient_claim(text: str) -> str | None:
    """The last <answer>, else the last box, else after the last "answer:" or "answer is", else the last line."""
    claim = _tagged(text)
    if claim is None:
        claim = _boxed(text)
    if claim is None:
        claim = _said(text)
    claim = _EQUALS.sub("", _plain(claim)).strip()
    return claim or None


def _tagged(text: str) -> str | None:
    start = text.rfind("<answer>")
    return text[start + len("<answer>") :].partition("</answer>")[0] if start >= 0 else None


def _boxed(text: str) -> str | None:
    """The content of the last box; empty where it is never closed, so that no earlier text is dug up instead."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, content = 0, text[start + len("\\boxed") :]
    for place, character in enumerate(content):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return content[1:place]
    return ""


def _said(text: str) -> str:
    said = list(_SAID.finditer(text))
    rest = text[said[-1].end() :].strip().partition("\n")[0] if said else text.rstrip().rpartition("\n")[2]
    return rest.strip().removesuffix(".")


def _plain(text: str) -> str:
    for written, meant in _SPELLINGS:
        text = text.replace(written, meant)
    return text
