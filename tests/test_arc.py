"""The arc domain: the row-letter layout and exact matching."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UnknownName
from harness.types import Outcome, Problem
from harness.verifying import VerifierPool
from harness_arc.domain import Arc
from harness_arc.extract import Grid, layout, lenient_grid, strict_grid

PROBLEM = Problem(
    id="arc/1",
    prompt="Answer on one line.\nin a304 b020\nout a304\nin a442 b213\nout a442\nin a43 b12\nout",
    answer=[[4, 3], [1, 2]],
    meta={"answer_format": "strict"},
)
LENIENT = replace(PROBLEM, meta={"answer_format": "lenient"})


@pytest.mark.parametrize(
    ("completion", "strict", "lenient"),
    [
        (" a43 b12", "correct", "correct"),
        (" a43 b12\n", "correct", "correct"),
        (" # flip h: a43 b12", "correct", "correct"),
        (" # 2 to a5: a43 b12", "correct", "correct"),
        (" a43 b13", "wrong", "wrong"),
        (" a43", "wrong", "wrong"),
        (" a43 b12 c00", "wrong", "wrong"),
        (" a430 b120", "wrong", "wrong"),
        (" a4312", "wrong", "wrong"),
        (" # top: a41 b32", "wrong", "wrong"),
        (" a43 b12\n\n", "unparsed", "correct"),
        (" a43 b12\nso bottom", "unparsed", "correct"),
        (" # bottom: a43 b12 done", "unparsed", "correct"),
        (" a43 b12 ", "unparsed", "correct"),
        ("a43 b12", "unparsed", "correct"),
        (" #bottom: a43 b12", "unparsed", "correct"),
        ("The grid is a43 b12.", "unparsed", "correct"),
        ("I think\nout a43 b12", "unparsed", "correct"),
        (" a43 b12 d77", "unparsed", "correct"),
        (" a43 b13\n a43 b12", "unparsed", "wrong"),
        (" a43  b12", "unparsed", "wrong"),
        (" a43 b123", "unparsed", "unparsed"),
        (" b43 c12", "unparsed", "unparsed"),
        (" 43 12", "unparsed", "unparsed"),
        (" A43 B12", "unparsed", "unparsed"),
        (" a４3 b12", "unparsed", "unparsed"),
        ("", "unparsed", "unparsed"),
        (PROBLEM.prompt, "unparsed", "wrong"),
    ],
)
def test_formats(completion: str, strict: str, lenient: str) -> None:
    verdict, free = Arc().verify(PROBLEM, completion), Arc().verify(LENIENT, completion)
    assert (verdict.outcome.value, free.outcome.value) == (strict, lenient)
    assert verdict.format_ok == free.format_ok == (strict != "unparsed")
    if strict == "correct":
        assert verdict.extracted == free.extracted == "a43 b12"


GRIDS = st.integers(1, 6).flatmap(
    lambda width: st.lists(st.lists(st.integers(0, 9), min_size=width, max_size=width), min_size=1, max_size=26)
)


@given(GRIDS, st.sampled_from(["", " # shift:", " # 2 to 5:"]), st.sampled_from(["", "\n"]))
def test_every_grid_is_read_back(grid: Grid, head: str, tail: str) -> None:
    text = f"{head} {layout(grid)}{tail}"
    assert strict_grid(text) == lenient_grid(text) == grid


@given(st.text(alphabet=" abc019#:\n.", max_size=60))
def test_strict_is_lenient_too_and_nothing_raises(text: str) -> None:
    strict = strict_grid(text)
    assert strict is None or strict == lenient_grid(text)
    assert strict is None or re.fullmatch(r"( # .*:)?( [abc][019]+)+\n?", text)


@pytest.mark.parametrize(
    "junk",
    [
        " a" + "1" * 1_000_000,
        " a1" * 300_000,
        " # " + "a" * 1_000_000,
        " " * 1_000_000,
        " a1 b1" * 170_000,
        "\n" * 1_000_000,
    ],
)
def test_junk_takes_no_time(junk: str) -> None:
    started = time.perf_counter()
    assert Arc().verify(PROBLEM, junk).outcome is Outcome.UNPARSED
    assert Arc().verify(LENIENT, junk).outcome is not Outcome.CORRECT
    assert time.perf_counter() - started < 4


def test_ladder_specimens_hold_in_the_pool() -> None:
    problems = [
        p for split in ("train", "selection", "test") for p in Arc().problems("ladder", split, seed=5, limit=60)
    ]
    specimens = [(problem, specimen) for problem in problems for specimen in Arc().specimens(problem)]
    with VerifierPool("harness_arc.domain:Arc") as pool:
        verdicts = pool.verify([(problem, specimen.completion) for problem, specimen in specimens])
    assert [v.outcome for v in verdicts] == [specimen.expected for _, specimen in specimens]
    lenient = [Arc().verify(replace(p, meta={}), s.completion).outcome for p, s in specimens if s.expected == "correct"]
    assert set(lenient) == {Outcome.CORRECT}
    echoes = [Arc().verify(replace(p, meta={}), p.prompt).outcome for p in problems]
    assert Outcome.CORRECT not in echoes


def test_unknown_benchmark_names_the_known() -> None:
    with pytest.raises(UnknownName, match="ladder"):
        Arc().problems("arc_agi", "test", seed=0, limit=1)
    splits = ("train", "selection", "test")
    assert [(b.name, b.answer_format, b.splits) for b in Arc().benchmarks()] == [
        ("ladder", "strict", splits), ("arc_agi_1", "lenient", splits), ("arc_agi_2", "lenient", splits)
    ]  # fmt: skip
