"""Multiple choice: claims in free text, rows, splits, on small cases and the real files."""

from __future__ import annotations

import json
import pickle
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import BadRow, UnknownName, UsageError
from harness.types import Outcome
from harness_ai2_arc import data
from harness_ai2_arc.domain import Ai2Arc
from harness_ai2_arc.extract import claimed, letter

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
FILES = sorted((DATA / "ai2_arc").glob("*.jsonl"))
needs_data = pytest.mark.skipif(not FILES, reason=f"the public AI2 ARC files are not in {DATA / 'ai2_arc'}")

CHOICES = ["The mass falls.", "Years grow longer.", "Days grow shorter.", "Gravity grows."]
ROW = {"question": "What happens?", "choices": CHOICES, "answer_index": 2}
PROBLEM = Ai2Arc().read(ROW)
STYLES: dict[str, Callable[[int, str], str]] = {
    "letter": lambda index, text: letter(index),
    "letter and text": lambda index, text: f"{letter(index)}. {text}",
    "box": lambda index, text: f"It spins faster, so \\boxed{{{letter(index)}}}",
    "sentence": lambda index, text: f"It spins faster. The answer is ({letter(index)}).",
    "markdown": lambda index, text: f"It spins faster.\n\n**Answer: {letter(index)}) {text}**",
    "number": lambda index, text: f"{index + 1}",
}


@pytest.mark.parametrize(
    "text",
    [
        "C", "(C)", "C.", "C)", "c", "[C]", '"C"', "**C**", "$C$", "\\text{C}", "3", "(3)", "Option C", "C\n\n",
        "\\boxed{C}", "\\boxed{\\text{(C)}}", "\\boxed{C. Days grow shorter}", "So \\boxed{A}, no: \\boxed{C}.",
        "The answer is C", "the answer is (C).", "The correct answer is C because of that.", "Answer: C", "answer = C",
        "**Answer:** C", "**Answer**: C", "Answer:\nC", "#### C", "the correct answer is answer3", "The answer is “C”.",
        "The right choice is C.", "The answer is A. No: the answer is C.", "The answer is C, not A.",
        "C. Days grow shorter.", "C: Days grow shorter", "(C) days grow shorter", "C - Days grow shorter.", "C is correct.",
        "Days grow shorter", "The answer is: days grow shorter.", "A is wrong.\nB is wrong.\nC", "Because.\n\n(C)",
        "Answer: C (Days grow shorter)", "<answer>C</answer>", "<answer>\nC. Days grow shorter.\n</answer>",
    ],
)  # fmt: skip
def test_claims_of_the_right_choice(text: str) -> None:
    verdict = Ai2Arc().verify(PROBLEM, text)
    assert (verdict.outcome, verdict.extracted) == (Outcome.CORRECT, "C")


@pytest.mark.parametrize(
    "text",
    [
        "", "A or C", "A and C", "A, C", "A/C", "A. B", "C) or D)", "either A or C", "both A and C", "B\nC", "not C", "C?",
        "The answer is not C.", "The answer is B or C.", "\\boxed{A, C}", "\\boxed{A or C}", "\\boxed{}", "\\boxed{C",
        "\\boxed{C} \\boxed{", "A. Days grow shorter.", "A meteorite hit it", "The answer is a meteorite.", "E", "5", "0",
        "The answer is E.", "I think so", "none", "CD", "C1", "（C）", "A) is wrong, so C", "A. The mass falls.\nB. Years grow longer.",
        "The answer is C. Or D.", "C (or D)", "C (Gravity grows)", "\u017f", "The answer is \u0131", "\u212a", "\u00b2",
        PROBLEM.prompt,
    ],
)  # fmt: skip
def test_what_claims_no_choice_or_several(text: str) -> None:
    assert Ai2Arc().verify(PROBLEM, text).outcome is Outcome.UNPARSED


@pytest.mark.parametrize(
    "text", ["A", "\\boxed{B}", "The answer is D.", "Answer: gravity grows", "1", "\\boxed{C} \\boxed{A}"]
)
def test_another_choice_is_wrong(text: str) -> None:
    assert Ai2Arc().verify(PROBLEM, text).outcome is Outcome.WRONG


def test_labels_and_texts_that_look_alike() -> None:
    atoms = ["C", "NO", "O", "CO"]
    assert claimed("C", atoms) == 2, "the prompt asks for the letter"
    assert claimed("C. C", atoms) is None
    assert claimed("A. C", atoms) == 0
    numbers = ["4", "3", "2", "1"]
    assert claimed("3", numbers) is None, "the third choice, or the text of the second"
    assert claimed("B", numbers) == claimed("B. 3", numbers) == 1
    assert claimed("C. 3", numbers) is None
    assert claimed("2", ["1", "2"]) == 1
    genes = ["R", "rr", "Rr", "RR"]
    assert [claimed(text, genes) for text in ("rr", "Rr", "RR", "rR")] == [1, 2, 3, None]
    assert claimed("1.5 km", ["0.1 km", "1.5 km"]) == 1
    assert claimed("A) -10 C", ["-10 C", "10 C"]) == 0


def test_format_is_recorded_apart_from_correctness() -> None:
    verdicts = [Ai2Arc().verify(PROBLEM, text) for text in ("C", " (A)\n", "c", "\\boxed{C}", "Answer: C")]
    assert [v.format_ok for v in verdicts] == [True, True, False, False, False]
    strict = replace(PROBLEM, meta={**PROBLEM.meta, "answer_format": "strict"})
    assert [Ai2Arc().verify(strict, text).outcome.value for text in ("C", "\\boxed{C}")] == ["correct", "unparsed"]


JUNK = st.lists(
    st.one_of(
        st.text(st.characters(exclude_characters="dD4"), max_size=30),
        st.sampled_from(["A", "(", ")", "\\boxed{", "}", "answer is ", "Answer:", "\n", " or ", ",", "*", "#", "\\text{", "3"]),
    ).flatmap(lambda piece: st.integers(1, 4000).map(lambda times: piece * times)),
    max_size=8,
).map("".join)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(JUNK)
def test_junk_ends_in_time_and_is_never_right(junk: str) -> None:
    fourth = replace(PROBLEM, answer="D")  # which no piece names
    started = time.process_time()
    assert Ai2Arc().verify(fourth, junk).outcome in (Outcome.WRONG, Outcome.UNPARSED)
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    "piece", ["A\n", "\\boxed{", "{}", "answer is ", "answer:", "(", " ", "\n", "A or ", "\\text{", "1"]
)
def test_a_million_characters_take_no_time(piece: str) -> None:
    for head in ("", "\\boxed{", "answer", "Answer: C"):
        started = time.perf_counter()
        Ai2Arc().verify(PROBLEM, head + piece * (10**6 // len(piece)))
        assert time.perf_counter() - started < 2


def test_a_row_becomes_a_problem() -> None:
    assert PROBLEM.answer == "C"
    assert PROBLEM.prompt == (
        "Question: What happens?\nA. The mass falls.\nB. Years grow longer.\nC. Days grow shorter.\nD. Gravity grows.\n"
        "Answer with the letter of the right choice.\nAnswer:"
    )
    assert (PROBLEM.id, PROBLEM.strict) == (PROBLEM.content_hash[:16], False)
    assert pickle.loads(pickle.dumps(PROBLEM)) == PROBLEM


@pytest.mark.parametrize(
    "row",
    [
        {**ROW, "answerKey": "C"},
        {"question": ROW["question"], "choices": CHOICES, "answerKey": "C"},
        {"question": ROW["question"], "choices": CHOICES, "answerKey": "3"},
        {"question": ROW["question"], "choices": {"label": list("ABCD"), "text": CHOICES}, "answerKey": "C"},
        {"question": ROW["question"], "choices": {"label": list("1234"), "text": CHOICES}, "answerKey": "3"},
        {"question": ROW["question"], "choices": {"label": list("1234"), "text": CHOICES}, "answerKey": "C"},
        {"question": " What happens?\n", "choices": {"label": list("pqrs"), "text": CHOICES}, "answerKey": "r"},
    ],
)
def test_rows_of_every_shape_are_one_problem(row: dict[str, Any]) -> None:
    assert Ai2Arc().read(row) == PROBLEM
    assert Ai2Arc().read({**row, "id": "Mercury_7"}).id == "Mercury_7"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": ""}, "field question"),
        ({"question": 3}, "field question: text, found 3"),
        ({"choices": None}, "field choices: nothing; a list of 2 to 26 texts"),
        ({"choices": ["one"]}, "field choices"),
        ({"choices": ["one", 2]}, "field choices"),
        ({"choices": ["x"] * 27}, "field choices"),
        ({"choices": {"text": CHOICES}}, "field choices.label: nothing"),
        ({"choices": {"text": CHOICES, "label": ["A", "A", "B", "C"]}}, "field choices.label"),
        ({"choices": {"text": CHOICES, "label": list("ABC")}}, "field choices.label"),
        ({"answer_index": 4}, "field answer_index: 4; 0 to 3"),
        ({"answer_index": True}, "field answer_index: true"),
        ({"answer_index": None}, "field answerKey: missing, and so is answer_index"),
        ({"answerKey": "E"}, 'field answerKey: "E"; one of A, B, C, D'),
        ({"answerKey": "AB"}, "field answerKey"),
        ({"answerKey": ""}, "field answerKey"),
        ({"answerKey": 3}, "field answerKey: 3"),
        ({"answerKey": "A"}, "another choice than answer_index 2"),
    ],
)
def test_a_bad_row_names_its_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRow, match=message):
        Ai2Arc().read({**ROW, **change})


def rows() -> Iterator[dict[str, Any]]:
    for file in FILES:
        yield from map(json.loads, file.read_text().splitlines())


@needs_data
def test_every_real_gold_is_right_in_every_style_and_another_choice_is_wrong() -> None:
    """But for five golds whose number is the text of another choice (`3` where the choices are 4, 3, 2 and 1)."""
    seen: Counter[tuple[str, str, str]] = Counter()
    for row in rows():
        problem, choices, gold = Ai2Arc().read(row), row["choices"], row["answer_index"]
        other = (gold + 1 + len(row["question"]) % (len(choices) - 1)) % len(choices)
        for style, write in STYLES.items():
            seen[style, "gold", Ai2Arc().verify(problem, write(gold, choices[gold])).outcome.value] += 1
            seen[style, "other", Ai2Arc().verify(problem, write(other, choices[other])).outcome.value] += 1
    total = 1119 + 1172 + 2251 + 2376
    for style in STYLES.keys() - {"number"}:
        assert (seen[style, "gold", "correct"], seen[style, "other", "wrong"]) == (total, total), style
    assert (seen["number", "gold", "correct"], seen["number", "gold", "unparsed"]) == (total - 5, 5)
    assert seen["number", "other", "correct"] == 0


@needs_data
def test_real_specimens_hold() -> None:
    for number, row in enumerate(rows()):
        if number % 20 == 0:
            problem = Ai2Arc().read(row)
            for specimen in Ai2Arc().specimens(problem):
                got = Ai2Arc().verify(problem, specimen.completion).outcome
                assert got == specimen.expected, (specimen.completion[:200], row)


@needs_data
@pytest.mark.parametrize(("benchmark", "train", "test"), [("arc_challenge", 1118, 1172), ("arc_easy", 2249, 2376)])
def test_splits_of_the_real_files(benchmark: str, train: int, test: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(DATA))
    drawn = {name: list(Ai2Arc().problems(benchmark, name, seed=0, limit=10**6)) for name in data.SPLITS}
    hashes = {name: {p.content_hash for p in problems} for name, problems in drawn.items()}
    assert not hashes["train"] & hashes["selection"]
    assert not (hashes["train"] | hashes["selection"]) & hashes["test"]
    assert len(drawn["train"]) + len(drawn["selection"]) == train
    assert 0.17 < len(drawn["selection"]) / train < 0.23
    assert len(drawn["test"]) == test


def test_absent_files_and_unknown_names_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda *_, **__: (_ for _ in ()).throw(OSError("no network"))
    )
    with pytest.raises(UsageError, match=r"ARC-Easy/test-00000-of-00001\.parquet.*allenai/ai2_arc.*210d026f"):
        Ai2Arc().problems("arc_easy", "test", seed=0, limit=1)
    with pytest.raises(UsageError, match="it has: train, selection, test"):
        Ai2Arc().problems("arc_easy", "validation", seed=0, limit=1)
    with pytest.raises(UnknownName, match='did you mean "arc_easy"'):
        Ai2Arc().problems("arc_esay", "test", seed=0, limit=1)
