"""Verdicts on mathematical answers against bare math-verify: parse both sides, verify.

Does: judge published solutions of MATH (`math/math500_dev.jsonl` in the data folder; without it, generated ones) by the
pool with one worker and its hard kill, everything included, in turns with math-verify in this process.
Doesn't: compare verdicts beyond demanding that both accept every one of these right answers.

math-verify is called as its documentation calls it. It needs no process and has no kill, only its own alarms.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.perf.rows import Row, interleaved, timed
from harness import config
from harness.types import Outcome, Problem
from harness.verifying import VerifierPool
from harness_math.domain import Math

FILE = "math/math500_dev.jsonl"
TARGET = "harness_math.domain:Math"
# So often each side judges each answer in one turn: the clock has ticks of 10 ms.
REPEATS, ITS_REPEATS, TURNS = 60, 3, 3
NAN = float("nan")
MISSING = "needs pip install math-verify"
TEX = (r"\frac{%d}{7}", r"%d\sqrt{3}", r"x^2+%d", r"\left(%d,\frac{1}{2}\right)", r"3+%di", r"[0,%d\pi)")


class Kind(NamedTuple):
    title: str
    answers: re.Pattern[str]
    goal: str


KINDS = (
    Kind("integers", re.compile(r"-?[0-9]+"), "ratio >= 20"),
    Kind("LaTeX", re.compile(r".*\\.*", re.DOTALL), "ratio >= 1"),
)


def measure() -> list[Row]:
    published = _published()
    with VerifierPool(TARGET) as pool:
        return [_row(pool, kind, published) for kind in KINDS]


def _published() -> list[Mapping[str, Any]]:
    folder = config.data_folder()
    if folder is not None and (folder / FILE).exists():
        return [json.loads(line) for line in (folder / FILE).read_text(encoding="utf-8").splitlines()]
    answers = [str(37 * place - 999) for place in range(160)]
    answers += [TEX[place % len(TEX)] % (2 * place + 1) for place in range(66)]
    text = "Adding both equations gives one in a single unknown, and solving it that the value is"
    return [
        {"problem": f"What is number {n}?", "answer": a, "solution": f"{text} $\\boxed{{{a}}}.$"}
        for n, a in enumerate(answers)
    ]


def _row(pool: VerifierPool, kind: Kind, published: Sequence[Mapping[str, Any]]) -> Row:
    chosen = [row for row in published if kind.answers.fullmatch(row["answer"])]
    problems = [Math().read(row) for row in chosen]
    # Unlike in their last blanks, since the pool judges equal items once.
    items = [(p, row["solution"] + " " * n) for n in range(REPEATS) for p, row in zip(problems, chosen, strict=True)]
    _demand(pool, items[: len(chosen)])  # warm
    title, count = f"math verdicts: {kind.title}", len(items)
    what = f"{len(chosen)} answers, {'MATH' if len(published) > 226 else 'generated'}; pool of one worker, hard kill"
    try:
        peer = importlib.import_module("math_verify")
    except ImportError:
        cost = timed(lambda: pool.verify(items))
        return Row(title, 1e6 * cost.cpu / count, NAN, "CPU us", NAN, kind.goal, f"{what}; {MISSING}")
    _theirs(peer, chosen)
    sides = interleaved(lambda: pool.verify(items), lambda: _theirs(peer, chosen), turns=TURNS)
    (ours, ours_wall), (theirs, theirs_wall) = (
        (1e6 * side.cpu / n, 1e6 * side.wall / n)
        for side, n in ((sides.ours, count), (sides.peer, ITS_REPEATS * len(chosen)))
    )
    note = f"{what}; wall {ours_wall:.0f} against {theirs_wall:.0f} us"
    return Row(title, ours, theirs, "CPU us", theirs / ours, kind.goal, note)


def _demand(pool: VerifierPool, items: Sequence[tuple[Problem, str]]) -> None:
    for (problem, _), verdict in zip(items, pool.verify(items), strict=True):
        if verdict.outcome is not Outcome.CORRECT:
            raise RuntimeError(f"{problem.id}: {verdict.outcome}, expected correct")


def _theirs(peer: Any, chosen: Sequence[Mapping[str, Any]]) -> None:
    for row in [*chosen] * ITS_REPEATS:
        gold = peer.parse(f"${row['answer']}$")
        if not peer.verify(gold, peer.parse(row["solution"])):
            raise RuntimeError(f"math-verify refuses the published solution with {row['answer']}")


if __name__ == "__main__":
    for found in measure():
        print(found)
