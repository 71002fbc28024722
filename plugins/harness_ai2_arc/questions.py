"""Multiple-choice questions: from a data row to a problem.

Does: check rows, write prompts.
Doesn't: find files (data.py) or judge (verify.py).

Choices are always shown as A, B, C, ... whatever labels the row has, so that a question has one prompt in every copy of
the data set (some number the choices).
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.errors import BadRow
from harness.types import Problem
from harness_ai2_arc.extract import MAX_CHOICES, letter


def read(row: Mapping[str, Any]) -> Problem:
    """One problem of a row {question, choices, answer_index | answerKey}; `choices` a list or {label, text}.

    The answer is a letter. Raises BadRow.
    """
    question = row.get("question")
    if not isinstance(question, str) or not question.strip():
        raise BadRow(f"field question: text, found {_shown(question)}")
    choices, labels = _choices(row.get("choices"))
    index = _answer(row, labels)
    lines = [f"{letter(i)}. {choice}" for i, choice in enumerate(choices)]
    made = Problem(
        id="",
        prompt="\n".join(
            [f"Question: {question.strip()}", *lines, "Answer with the letter of the right choice.", "Answer:"]
        ),
        answer=letter(index),
        meta={"answer_format": "lenient", "choices": choices},
    )
    name = next((str(row[key]) for key in ("task_id", "unique_id", "id") if row.get(key) is not None), "")
    return replace(made, id=name or made.content_hash[:16])


def _choices(value: object) -> tuple[list[str], list[str]]:
    """Texts and labels."""
    texts: Any = value.get("text") if isinstance(value, Mapping) else value
    labels: Any = value.get("label") if isinstance(value, Mapping) else list(string.ascii_uppercase)
    if not _texts(texts) or not 2 <= len(texts) <= MAX_CHOICES:
        raise BadRow(f"field choices: {_shown(value)}; a list of 2 to {MAX_CHOICES} texts, or {{label, text}} of lists")
    if isinstance(value, Mapping) and not (_texts(labels) and len(set(labels)) == len(labels) == len(texts)):
        raise BadRow(f"field choices.label: {_shown(labels)}; one label of its own for each of {len(texts)} texts")
    return [text.strip() for text in texts], list(labels[: len(texts)])


def _texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) and item.strip() for item in value)


def _answer(row: Mapping[str, Any], labels: Sequence[str]) -> int:
    index, key = row.get("answer_index"), row.get("answerKey")
    found = []
    if index is not None:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(labels):
            raise BadRow(f"field answer_index: {_shown(index)}; 0 to {len(labels) - 1}, 0 is the first choice")
        found.append(index)
    if key is not None:
        numbers = [str(number) for number in range(1, len(labels) + 1)]
        known = [
            names for names in (list(labels), list(string.ascii_uppercase[: len(labels)]), numbers) if key in names
        ]
        if not known:
            raise BadRow(f"field answerKey: {_shown(key)}; one of {', '.join(labels)}")
        found.append(known[0].index(key))
    if not found:
        raise BadRow("field answerKey: missing, and so is answer_index; one of them says which choice is right")
    if len(set(found)) > 1:
        raise BadRow(f"field answerKey: {_shown(key)} is another choice than answer_index {index}")
    return found[0]


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:60]}..."
