r"""The domain "placeholder": add two numbers and double the sum.

Does: draw problems, read rows, judge completions, make specimens.
Doesn't: evaluate anything a model writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from harness import datasets
from harness.contracts import Benchmark, Specimen
from harness.errors import BadRow, UnknownName
from harness.types import Outcome, Problem, Verdict

SPLITS = ("train", "selection", "test")
# The embedded model knows this phrasing; a prompt of your own needs a model that can read it.
PROMPT = "Take {a}. Add {b}. Double it. Show steps, end with \\boxed{{N}}.\n"
_BOXED_LAST = re.compile(r"\\boxed\{(-?[0-9]{1,9})\}\.?\Z")
_NUMBER = re.compile(r"-?[0-9]{1,9}")


class Placeholder:
    name, version = "placeholder", 1

    def benchmarks(self) -> Iterator[Benchmark]:
        yield Benchmark("ladder", SPLITS, "strict", licence="Apache-2.0", source="generated", max_tokens=64)

    def problems(self, benchmark: str, split: str, *, seed: int, limit: int) -> Iterator[Problem]:
        if benchmark != "ladder":
            raise UnknownName("benchmark of placeholder", benchmark, ["ladder"])
        datasets.require_split(benchmark, split, SPLITS)
        pairs = product(range(4, 64), range(3, 40))
        every = (_problem(PROMPT.format(a=a, b=b), (a + b) * 2, answer_format="strict") for a, b in pairs)
        mixed = sorted(every, key=lambda problem: problem.content_hash)
        return datasets.draw(datasets.split_by_hash(mixed, split), split, seed=seed, limit=limit)

    def read(self, row: Mapping[str, Any]) -> Problem:
        question, answer = row.get("question"), row.get("answer")
        if not isinstance(question, str) or not question.strip():
            raise BadRow(f"field question: found {question!r}, understood is text")
        if type(answer) is not int:
            raise BadRow(f"field answer: found {answer!r}, understood is an integer")
        return _problem(question, answer, answer_format="lenient", name=str(row.get("id") or ""))

    def rows(self) -> Iterator[Mapping[str, Any]]:
        yield {"id": "first", "question": "What is twice the sum of 3 and 4?", "answer": 14}

    def verify(self, problem: Problem, completion: str) -> Verdict:
        boxed = _BOXED_LAST.search(completion.rstrip()) if completion.count("\\boxed") == 1 else None
        numbers = [] if problem.strict or boxed else _NUMBER.findall(completion)
        claim = boxed[1] if boxed else numbers[-1] if numbers else None
        if claim is None:
            return Verdict(outcome=Outcome.UNPARSED, detail="no \\boxed{N} at the end")
        outcome = Outcome.CORRECT if int(claim) == problem.answer else Outcome.WRONG
        return Verdict(outcome=outcome, extracted=str(int(claim)), format_ok=boxed is not None)

    def specimens(self, problem: Problem) -> Iterator[Specimen]:
        right, missed = int(str(problem.answer)), Outcome.UNPARSED if problem.strict else Outcome.WRONG
        yield Specimen(f"\\boxed{{{right}}}", Outcome.CORRECT)
        yield Specimen(f"3+4=7;7*2=14;\\boxed{{{right}}}.\n", Outcome.CORRECT)
        yield Specimen(f"\\boxed{{{right + 1}}}", Outcome.WRONG)
        yield Specimen(f"\\boxed{{{right}}} or \\boxed{{{right + 1}}}", missed)
        yield Specimen(f"\\boxed{{{right - 1}+1}}", missed)
        yield Specimen("", Outcome.UNPARSED)


def _problem(prompt: str, answer: int, *, answer_format: str, name: str = "") -> Problem:
    bare = Problem(id=name, prompt=prompt, answer=answer, meta={"answer_format": answer_format})
    return bare if name else Problem(id=bare.content_hash[:12], prompt=prompt, answer=answer, meta=bare.meta)
