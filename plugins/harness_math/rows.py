r"""Rows of mathematical data sets, in their own field names, as problems.

Does: read `{problem|question, answer}` with GSM8K's `#### 72`, MATH's LaTeX, numbers, lists of accepted answers and
OlympiadBench's `final_answer`; a last `\boxed{}` in `solution` or in the answer; the chat rows of One-Shot-RLVR.
Doesn't: read files (data.py) or parse the answers (verify.py).

Every prompt ends with the same request for a box, which is also how the One-Shot-RLVR rows end, so that one problem has
one content hash wherever it comes from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import BadRow
from harness.types import Json, Problem
from harness_math.extract import box_claim
from harness_math.verify import BOXED

REQUEST = "Let's think step by step and output the final answer within \\boxed{}."
UNDERSTOOD = (
    "a text or number; GSM8K's text with #### before the number; a list of accepted answers; a text or `solution` with "
    "a last \\boxed{}"
)

# One row of each kind, as its data set has it.
EXAMPLES: tuple[Mapping[str, Any], ...] = (
    {
        "problem": "What is $p - q$ less $p$?",
        "answer": "-q",
        "level": 1,
        "subject": "Algebra",
        "unique_id": "test/1.json",
    },
    {"question": "How many hours are 3 days?", "answer": "A day has 24.\n3 * 24 = <<3*24=72>>72\n#### 72"},
    {"problem": "Solve $x^2 = 4$.", "answer": ["2, -2", "\\pm 2"]},
    {"problem": "Halve one.", "solution": "It is $\\boxed{\\frac{1}{2}}$.", "type": "Prealgebra"},
    {"question": "Find all pairs.", "final_answer": ["$(1,2),(2,1)$"], "is_multiple_answer": True, "id": 7},
    {
        "prompt": [{"role": "user", "content": f"What is 8 times 1.6? {REQUEST}"}],
        "reward_model": {"ground_truth": "12.8", "style": "rule"},
        "extra_info": {"index": 0},
    },
)


def read(row: Mapping[str, Any]) -> Problem:
    """One row, one problem, judged leniently. Raises BadRow, naming the field."""
    prompt = _prompt(row)
    answer = _answer(row)
    problem = Problem(
        id="",
        prompt=prompt,
        answer=answer,
        level=_level(row),
        subject=_subject(row),
        meta={"answer_format": "lenient", "format": BOXED},
    )
    name = _name(row) or problem.content_hash[:16]
    return Problem(
        id=name, prompt=prompt, answer=answer, level=problem.level, subject=problem.subject, meta=problem.meta
    )


def _prompt(row: Mapping[str, Any]) -> str:
    field = next((name for name in ("problem", "question", "prompt") if row.get(name) is not None), None)
    if field is None:
        raise BadRow(f"field problem: not found among {_listed(row)}; understood: problem or question, a text")
    text = row[field]
    if field == "prompt" and _is_list(text):
        text = _last_message(text)
    if not isinstance(text, str) or not text.strip():
        raise BadRow(f"field {field}: found {_shown(text)}; understood: a text that is not empty")
    text = text.strip()
    return text if text.endswith(REQUEST) else f"{text} {REQUEST}"


def _last_message(chat: Sequence[Any]) -> Any:
    last = chat[-1] if chat else None
    return last.get("content") if isinstance(last, Mapping) else None


def _answer(row: Mapping[str, Any]) -> Json:
    found = _given(row)
    if found is None:
        raise BadRow(f"field answer: not found among {_listed(row)}; understood: {UNDERSTOOD}")
    field, value = found
    if not _is_list(value):
        return _text(field, value)
    if not value:
        raise BadRow(f"field {field}: found an empty list; understood: {UNDERSTOOD}")
    texts = [_text(field, each) for each in value]
    if row.get("is_multiple_answer") is True:
        return ", ".join(_spaced(text) for text in texts)
    return texts[0] if len(texts) == 1 else texts


def _given(row: Mapping[str, Any]) -> tuple[str, Any] | None:
    for field in ("answer", "final_answer"):
        if row.get(field) is not None:
            return field, row[field]
    if isinstance(row.get("reward_model"), Mapping) and row["reward_model"].get("ground_truth") is not None:
        return "reward_model.ground_truth", row["reward_model"]["ground_truth"]
    solution = row.get("solution")
    if solution is None:
        return None
    text = str(solution[-1] if _is_list(solution) and solution else solution)
    box = box_claim(text)
    if box is None:
        raise BadRow(f"field solution: found no last \\boxed{{}} with an answer in it; understood: {UNDERSTOOD}")
    return "solution", box


def _text(field: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadRow(f"field {field}: found {_shown(value)}; understood: {UNDERSTOOD}")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BadRow(f"field {field}: found {value}, which is no answer; understood: {UNDERSTOOD}")
        return str(int(value)) if value.is_integer() else repr(value)
    text = str(value)
    if "####" in text:
        text = text.rpartition("####")[2]
    elif "\\boxed" in text:
        text = box_claim(text) or ""
    if not text.strip():
        raise BadRow(f"field {field}: found no answer in {_shown(value)}; understood: {UNDERSTOOD}")
    return _closed(text.strip())


def _closed(text: str) -> str:
    """With the closing braces that a label cut short lacks (one of DSR-sub is): no box could hold it otherwise."""
    plain = re.sub(r"\\[{}]", "", text)
    return text + "}" * max(0, plain.count("{") - plain.count("}"))


def _spaced(text: str) -> str:
    """Commas with a space separate answers; without one, 100,200 would be a number."""
    return re.sub(r",(?=\S)", ", ", text)


def _name(row: Mapping[str, Any]) -> str:
    extra = row.get("extra_info")
    index = extra.get("index") if isinstance(extra, Mapping) else None
    named = (row.get(field) for field in ("task_id", "unique_id", "id"))
    return next((str(value) for value in (*named, index) if isinstance(value, str | int) and str(value)), "")


def _level(row: Mapping[str, Any]) -> int | None:
    """1 to 5 as in MATH, also written "Level 5"."""
    level = row.get("level")
    digits = re.search(r"[0-9]{1,2}", level) if isinstance(level, str) else None
    if digits:
        return int(digits[0])
    return level if isinstance(level, int) and not isinstance(level, bool) else None


def _subject(row: Mapping[str, Any]) -> str | None:
    found = (row.get(field) for field in ("subject", "subfield", "type"))
    return next((value for value in found if isinstance(value, str) and value), None)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _listed(row: Mapping[str, Any]) -> str:
    return ", ".join(sorted(map(str, row))[:12]) or "no fields"


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:60]!r}" if value not in ("", None) else f"{value!r}"
