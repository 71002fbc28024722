r"""Judge a completion by its final answer.

Does: find the claim (extract.py), refuse what only looks like an answer, compare it with every accepted answer.
Doesn't: evaluate model text as code, bound its own time (the pool does), or reward an expression that was left for
the verifier to work out.

What is refused although it may equal the answer, as WRONG:

1. More answers than asked, and hedges: "1 or 2", \{1,2\} where one value was asked, two boxes joined by "or".
2. An echo: the claim occurs word for word in the problem, has an operator, and is not how the answer is written.

A claim that is too large to be worked out (a tower of powers) is TIMEOUT: it hit a limit, known before it was spent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from harness.types import Outcome, Problem, Verdict
from harness_math import symbolic
from harness_math.cleaning import clean, squeezed
from harness_math.comparing import Comparison, gold_shape
from harness_math.extract import find_claim, strict_claim
from harness_math.leaves import needs_math_verify
from harness_math.numerals import read_number
from harness_math.shapes import Shape
from harness_math.tokens import TooLarge

BOXED = "boxed"  # Problem.meta["format"] of public sets: the demanded format is a last \boxed{}
LADDER = "ladder/"  # the ids of generated problems, whose lenient verdicts stay what they have always been
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,300}")
_OPERATOR = re.compile(
    r"[*/^!:]|(?<=[\w)}\]'])\s?[-+]|\\(?:frac|sqrt|cdot|times|div|binom|pm|mp|log|ln|sin|cos|tan|exp|sum|prod|int)(?![a-zA-Z])"
)
_NAMED = re.compile(r"\s*\$?\s*([a-zA-Z])\s*=")
_TO = re.compile(r"(?<=\w)\s*(?:\\text\s?\{\s*to\s*\}|\bto\b)\s*(?=\w)")
_ALTERNATIVES = re.compile(r"\\text\s?\{\s*OR\s*\}")


def verify(problem: Problem, completion: str) -> Verdict:
    if problem.strict:
        claim = strict_claim(completion)
        in_format = claim is not None
    else:
        claim, in_format = find_claim(completion, frozen=problem.id.startswith(LADDER))
        if problem.meta.get("format") != BOXED:
            in_format = strict_claim(completion) is not None
    if claim is None:
        return Verdict(outcome=Outcome.UNPARSED, detail="no final answer in the demanded format")
    outcome, detail = _judge(problem, claim)
    return Verdict(outcome=outcome, extracted=canonical(claim), format_ok=in_format, detail=detail)


def _judge(problem: Problem, claim: str) -> tuple[Outcome, str]:
    if claim == problem.answer and _INTEGER.fullmatch(claim):
        return Outcome.CORRECT, ""  # most of what is right, and no echo; what follows would say the same
    try:
        correct = any(same(gold, claim, problem.prompt) for gold in golds(problem))
    except TooLarge as error:
        return Outcome.TIMEOUT, f"the claim is too large to work out: {error}"
    if correct and is_echo(claim, problem):
        return Outcome.WRONG, "the claim repeats an expression of the problem"
    return (Outcome.CORRECT if correct else Outcome.WRONG), ""


def golds(problem: Problem) -> list[str]:
    """The accepted answers: `Problem.answer` is one, or a list of them; "a OR b" is two ways to write one."""
    answer = problem.answer
    accepted = [answer] if isinstance(answer, str) or not isinstance(answer, Sequence) else answer
    texts = [str(each) for each in accepted]
    return texts + [part for text in texts if " OR" in text or "{OR" in text for part in _ALTERNATIVES.split(text)]


def canonical(claim: str) -> str:
    """Equal numbers have one form (1/2 for 0.50); anything else goes by its cleaned text."""
    if _INTEGER.fullmatch(claim):
        return claim
    number = read_number(claim)
    if number is None:
        return clean(claim)
    return str(number.value) if number.base == 10 else f"{number.digits}_{number.base}"


def same(gold: str, claim: str, prompt: str = "") -> bool:
    """Whether a claim is this answer. Raises TooLarge where that would have to be worked out beyond the bounds."""
    if _INTEGER.fullmatch(gold) and _INTEGER.fullmatch(claim):
        return gold == claim
    if clean(gold) == clean(claim) and not _other_names(gold, claim):
        return True
    if ":" in gold:
        claim = _TO.sub(":", claim)
    return Comparison(_squeezed_prompt(prompt) if "=" in claim else "").same(gold, claim)


def _other_names(gold: str, claim: str) -> bool:
    """x = 2 where y = 2 was asked."""
    names = [found[1].casefold() for found in map(_NAMED.match, (gold, claim)) if found]
    return len(set(names)) == 2


def is_echo(claim: str, problem: Problem) -> bool:
    """Whether the claim stands in the problem as it is, with an operator, and is not how the answer is written."""
    if _INTEGER.fullmatch(claim):  # no operator: most claims, and cleaning one costs more than all the rest
        return False
    written_with = [side for side in _sides(claim) if _OPERATOR.search(clean(side))]
    found = [side for side in written_with if squeezed(side) in _squeezed_prompt(problem.prompt)]
    if not found:
        return False
    written = {squeezed(side) for gold in golds(problem) for side in _sides(gold)}
    return not (
        written & {squeezed(side) for side in found} or any(_same_fraction(gold, claim) for gold in golds(problem))
    )


def _sides(text: str) -> list[str]:
    """All of it, and what it says that something is: f(x) = 2x + 1 echoes 2x + 1."""
    return [text, text.partition("=")[2]] if text.count("=") == 1 else [text]


def _same_fraction(gold: str, claim: str) -> bool:
    r"""3/4 and \frac{3}{4} are one spelling; 6/8 is not."""
    digits = [re.findall(r"[0-9.]+", squeezed(text)) for text in (gold, claim)]
    fractions = ["/" in text or "frac" in text for text in (gold, claim)]
    return digits[0] == digits[1] and all(fractions) and read_number(gold) is not None


@lru_cache(maxsize=1024)
def _squeezed_prompt(prompt: str) -> str:
    return squeezed(prompt)


def prepare(gold: str) -> bool:
    """Read a reference answer in advance: what is cached is not charged to the first completion.

    Returns whether math-verify, whose time nobody can bound from inside, may be asked about it; it is imported then.
    """
    if _INTEGER.fullmatch(gold):
        return False
    asked = [leaf for leaf in _leaves(gold_shape(gold)) if needs_math_verify(leaf)]
    if asked:
        symbolic.prepare(asked)
    return bool(asked)


def _leaves(shape: Shape) -> Iterator[str]:
    if shape.kind == "one":
        yield shape.text
    for part in shape.parts:
        yield from _leaves(part)
