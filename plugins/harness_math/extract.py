r"""From a completion to the one answer it claims.

Does: check the demanded format (strict) or find the claim in free text (lenient). Every pass is linear in the text.
Doesn't: interpret the claim; join several boxes into a set, as math-verify's own extraction does, unless the text
itself joins them ("\boxed{1} or \boxed{2}"), which is one claim of two answers.

The order of places, the first that is there: the last box; what follows the last "####"; the last "the answer is ..."
or "A: ..."; a formula without words, alone or at the very end; the last number. Boxes in LaTeX or HTML comments are not
in the text. A last box that is empty, or never closed, claims nothing: no earlier text is dug up instead.
"""

from __future__ import annotations

import re
from typing import NamedTuple

CLAIM_CHARS = 1000
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s{0,3}\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped brace does not nest
_STRICT = re.compile(r"\\boxed\{(-?[0-9]{1,100})\}")
_COMMENT = re.compile(r"(?:^|(?<=[})\]$.,;:]))[ \t]*%.*?$", re.MULTILINE)
_SAID = re.compile(
    r"(?:\banswer(?:s|\}|\*){0,3}(?: (?:is|are|will be|would be|must be|should be|equals|comes out to be)| *[:=])|^\**A\**:)"
    r"[ \t]{0,3}\**:?",
    re.IGNORECASE | re.MULTILINE,
)
# As the ladder's completions have always been judged leniently: the first on a line takes the rest of that line.
_SAID_FROZEN = re.compile(r"(?:\banswer(?: is| *[:=])|^A:)[ \t]{0,3}:?([^\n]*)", re.IGNORECASE | re.MULTILINE)
# Where the claim of a sentence ends and its reason begins.
_REASON = re.compile(
    r"\.(?:\s|\Z)|[,;]?\s(?:since|because|as|where|which|so|when|after|that|but(?! (?:maybe|possibly|perhaps|probably|could|might|it))|given|based|thus|therefore|hence)\b"
    r"|\s\((?=since|because|as|where|which|after|i\.e)|\sand (?!maybe|possibly|perhaps|probably|either|also|or)(?=[a-z]{2,} [a-z]{2,})"
)
_FILLER = re.compile(
    r"^(?:therefore|thus|then|hence|simply|just|exactly|indeed|clearly|equal to|given by|the|:|=|,|\s)+(?=\S)"
)
_MATH = re.compile(r"\$\$?([^$]{1,1000})\$\$?|\\\((.{1,1000}?)\\\)|\\\[(.{1,1000}?)\\\]", re.DOTALL)
_PROSE = re.compile(r"(?<![\\a-zA-Z{])[a-z]{2,} [a-z]{2,}")  # between two dollars of money
_NUMBER = re.compile(r"-?[0-9]{1,100}(?:,[0-9]{3})*(?:\.[0-9]{1,100})?(?:/[0-9]{1,100})?")
# A formula: LaTeX commands and single letters, but no words.
_BARE = re.compile(r"(?:\\[a-zA-Z]{1,20}|(?<![a-zA-Z])[a-zA-Z](?![a-zA-Z])|[-+*/^_=(){}\[\],.0-9$ ]){1,100}")
_GAP = re.compile(
    r"(?:[\s$.,;()\[\]]|\\[()\[\],;! ]|\\q?quad|\\(?:text|mathrm|mbox)\s?\{|\}|[a-zA-Z](?:_[0-9a-z])?\s*=)*"
)
_JOINT = re.compile(
    r"(?<![a-zA-Z])(?:or|and|and/or|or maybe|or possibly|or perhaps|or else|alternatively)(?![a-zA-Z])|,"
)
_AFTER = re.compile(
    r"[\s$,)]*(?:\\\)|\\\])?[\s$,(]*(?:\\text\s?\{)?\s*(?:or|or maybe|or possibly|or perhaps|or else)\b[\s}$]*(?:\\\()?\s*"
    r"(-?[0-9][0-9.,/]*|\\(?:d?frac|sqrt)\{[^{}]*\}(?:\{[^{}]*\})?)"
)
_BEFORE = re.compile(r"(?:\beither\b[^.\n]{0,60}?)?(?<![\w.])(-?[0-9][0-9./]{0,20})[\s$,)]*\bor\b[\s$(]*\Z")
_BOUND = re.compile(r"\s?(?:[≠≤≥]|[<>](?=\s?\w)|\\(?:ne|le|ge|lt|gt)q?(?![a-zA-Z]))")
_OR = re.compile(r"[\s$]*,?\s*or\s*[\s$]*")
# What is said to be not, or only about, the number that follows is no answer.
_DENIED = re.compile(
    r"(?:(?<![a-zA-Z])(?:not|never|cannot|[a-z]{2,5}n['’]t|except|(?:any|every|all)[a-z]{0,5} but|other than|(?:at|the) (?:least|most)"
    r"|up to|(?:more|less|fewer|greater|larger|smaller) than|between\s[^.\n]{1,30}\sand|from\s[^.\n]{1,30}\sto)"
    r"|\\(?:not\s?=|neq?|leq?|geq?|lt|gt)(?![a-zA-Z])|[≠≤≥]|(?:(?<![\w<])[a-zA-Z]|[0-9])\s?[<>])"
    r"(?:\s(?:be|equals?|equal to|exactly|simply|just|the answer))*[\s$(*]*\Z",
    re.IGNORECASE,
)


def strict_claim(text: str) -> str | None:
    r"""The integer of the only `\boxed{}`, when nothing but white space and one period follows it."""
    # Trimmed by hand: a pattern with two optional runs of white space takes quadratic time on a long run.
    text = text.rstrip().removesuffix(".").rstrip()
    start = text.rfind("\\boxed")
    found = _STRICT.fullmatch(text, start) if start >= 0 else None
    return found[1] if found and text.find("\\boxed") == start else None


class Claim(NamedTuple):
    """What a text claims, of 1 to CLAIM_CHARS characters, or None, and whether its last box says it."""

    text: str | None
    in_box: bool


def find_claim(text: str, *, frozen: bool = False) -> Claim:
    """`frozen` keeps the ladder's reading of "the answer is"."""
    text = visible(text)
    boxed = _boxed(text)
    claim = _fitting(_unboxed(text, frozen) if boxed is None else boxed)
    return Claim(claim, boxed is not None and claim is not None)


def lenient_claim(text: str, *, frozen: bool = False) -> str | None:
    """The claim alone."""
    return find_claim(text, frozen=frozen).text


def box_claim(text: str) -> str | None:
    """What the last box holds, if it is closed and neither empty nor too long: the demanded format of public sets."""
    return _fitting(_boxed(visible(text)) or "")


def visible(text: str) -> str:
    """Without LaTeX comments that hold a box, and HTML comments. A per cent sign after a number opens no comment."""
    if "<!--" in text:
        text = "".join(part.partition("-->")[2] if i else part for i, part in enumerate(text.split("<!--")))
    if "%" not in text or "boxed" not in text:
        return text
    return _COMMENT.sub(lambda found: "" if "boxed" in found[0] else found[0], text)


def _fitting(claim: str) -> str | None:
    claim = claim.strip()
    return claim if 0 < len(claim) <= CLAIM_CHARS else None


def _boxed(text: str) -> str | None:
    """The last box, with what the text joins to it; "" when it is not closed, None when there is none."""
    first = text.find("box")
    boxes = list(_BOX.finditer(text, max(0, first - len("\\frame")))) if first >= 0 else []
    if not boxes:
        return None
    content, end = _content(text, boxes[-1].end())
    if not content.strip():
        return ""
    claims = [content]
    if after := _AFTER.match(text[end : end + 80]):
        claims.append(after[1])
    lead = text[max(0, boxes[-1].start() - 100) : boxes[-1].start()]
    if "or" in lead and (before := _BEFORE.search(lead)):
        claims.insert(0, before[1])
    start = boxes[-1].start()
    for box in reversed(boxes[-20:-1]):
        content, end = _content(text[:start], box.end()) if start - box.end() <= CLAIM_CHARS else ("", 0)
        if not (end and _joins(text[end:start])):
            break
        claims.insert(0, content)
        start = box.start()
    return " or ".join(claims)


def _content(text: str, start: int) -> tuple[str, int]:
    """From after the opening brace to its partner, and the place behind that; ("", 0) when it is not closed."""
    depth = 1
    for brace in _BRACE.finditer(text, start):
        depth += (brace[0] == "{") - (brace[0] == "}")
        if depth == 0:
            return text[start : brace.start()], brace.end()
    return "", 0


def _joins(gap: str) -> bool:
    r"""Whether nothing but "or", "and" or a comma, perhaps with `x =`, stands between two boxes."""
    if len(gap) > 60:
        return False
    joint = _JOINT.search(gap)
    return joint is not None and all(_GAP.fullmatch(part) for part in (gap[: joint.start()], gap[joint.end() :]))


def _unboxed(text: str, frozen: bool) -> str:
    if "####" in text:
        marked = text.rpartition("####")[2].strip().partition("\n")[0]
        if not re.match(r"(?:Step|Part|Case|Solution|Answer|Final|Conclusion)\b", marked, re.IGNORECASE):
            return marked
    said = _frozen_said(text) if frozen else _said(text)
    if said is not None:
        return said
    if _BARE.fullmatch(text.strip()):
        return text
    return _last_formula(text) or _last_number(text, frozen)


def _frozen_said(text: str) -> str | None:
    said = _SAID_FROZEN.findall(text)
    return re.split(r"\.(?:\s|\Z)", said[-1], maxsplit=1)[0] if said else None


def _said(text: str) -> str | None:
    """The last thing that is said to be the answer; things with a number or a formula before things without."""
    places = [found.end() for found in _SAID.finditer(text)][-5:]
    claims = [_sentence(text[place : place + 3 * CLAIM_CHARS].lstrip("* \t")) for place in reversed(places)]
    telling = [claim for claim in claims if re.search(r"[0-9\\$]", claim)]
    return next(iter(telling or claims), None)


def _sentence(text: str) -> str:
    """The line, or the next one where nothing follows; its formula if it has one; else up to the end of the claim."""
    line = text.partition("\n")[0]
    if not line.strip(" *:"):
        line = text.strip(" *:\n").partition("\n\n")[0]
    line = _FILLER.sub("", line)
    found = _MATH.match(line)
    rest = line[found.end() :].lstrip() if found else ""
    # Followed by "or", "and", a per cent sign or a degree sign, the formula is not all of the claim.
    if found and not (_PROSE.search(found[0]) or _JOINT.match(rest) or re.match(r"\\?%|\^|°|degrees|percent", rest)):
        return _inside(found)
    claim = _REASON.split(line, maxsplit=1)[0]
    return line if re.search(r"\s(?:or|and)\Z", claim) else claim  # "42 or so, or 43" ends with its alternatives


def _inside(found: re.Match[str]) -> str:
    return next(part for part in found.groups() if part is not None)


def _last_formula(text: str) -> str:
    """A formula at the very end: set off by math delimiters, or a last line of its own with a letter in it."""
    end = text.rstrip().rstrip(".").rstrip()
    if end.endswith(("$", "\\)", "\\]")):
        previous = None
        for found in _MATH.finditer(end, max(0, len(end) - 2 * CLAIM_CHARS)):
            if found.end() == len(end) and not _PROSE.search(found[0]) and not _denied(end, found.start()):
                hedged = previous and _OR.fullmatch(end[previous.end() : found.start()][:20])
                return f"{_inside(previous)} or {_inside(found)}" if previous and hedged else _inside(found)
            previous = found
    line = end[-CLAIM_CHARS:].rpartition("\n")[2].strip()
    return line if re.search(r"[a-zA-Z]", line) and _BARE.fullmatch(line) else ""


def _last_number(text: str, frozen: bool) -> str:
    last = previous = None
    for found in _NUMBER.finditer(text):
        last, previous = found, last
    if last is None or (not frozen and (_denied(text, last.start()) or _BOUND.match(text, last.end()))):
        return ""
    if previous and _OR.fullmatch(text[previous.end() : last.start()][:20]):
        return f"{previous[0]} or {last[0]}"
    return last[0]


def _denied(text: str, place: int) -> bool:
    return _DENIED.search(text[max(0, place - 60) : place]) is not None
