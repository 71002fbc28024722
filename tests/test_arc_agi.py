"""ARC-AGI tasks: grids in free text, rows, splits, overlap and the official score, on small cases and the real files."""

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

from harness import config, selecting
from harness.errors import BadRow, HarnessError, UsageError
from harness.seeds import python_random
from harness.types import Outcome, Problem, Score
from harness_arc import data
from harness_arc.domain import Arc
from harness_arc.grids import Grid, grids, render
from harness_arc.scoring import task_scores
from harness_arc.verify import golds_of

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
FILES = sorted((DATA / "arc_agi").glob("*.jsonl"))
needs_data = pytest.mark.skipif(not FILES, reason=f"the public ARC-AGI files are not in {DATA / 'arc_agi'}")
quiet = pytest.mark.filterwarnings("ignore:.*published rows")

NAMES = ("black", "blue", "red", "green", "yellow", "grey", "magenta", "orange", "teal", "brown")
FORMATS: dict[str, Callable[[Grid], str]] = {
    "json": json.dumps,
    "spaces": render,
    "commas in a fence": lambda g: "```\n" + "\n".join(", ".join(map(str, row)) for row in g) + "\n```",
    "table": lambda g: "\n".join("| " + " | ".join(map(str, row)) + " |" for row in g),
    "digits in prose": lambda g: "It is:\n" + "\n".join("".join(map(str, row)) for row in g) + "\nas asked.",
    "colour words": lambda g: "\n".join(" ".join(NAMES[cell] for cell in row) for row in g),
}
ROW = {
    "task_id": "t",
    "train": [{"input": [[1, 2]], "output": [[2, 1]]}, {"input": [[3]], "output": [[3]]}],
    "test": [{"input": [[4, 5]], "output": [[5, 4]]}, {"input": [[6], [7]], "output": [[7], [6]]}],
}
FIRST = Arc().read({**ROW, "test_index": 0})


def outcome(completion: str, problem: Problem = FIRST) -> str:
    return Arc().verify(problem, completion).outcome.value


@pytest.mark.parametrize(
    "text",
    [
        "5 4", "5, 4", "5,4", "5|4", "| 5 | 4 |", "54", "[5, 4]", "[[5, 4]]", "[[5 4]]", '[["5", "4"]]', "5\t4", "  5 4  ",
        "grey yellow", "Gray, Yellow", '[["grey", "yellow"]]', '{"output": [[5, 4]]}', "[[\n  [\n    5,\n    4\n  ]\n]]",
        "```\n5 4\n```", "```json\n[[5, 4]]\n```", "So it is [[5, 4]].", "Output:\n5 4\nDone.", "5 5\n\n5 4", "[[5, 4],]",
        "[[9]] no: [[5, 4]]", "5 4\n\n[[1, 2], [3,", "[[5, 4]]\nand [[0 for _ in row] for row in grid]", "5 4\r\n",
        "First I see 3 objects.\n1. one\n2. two\n\n5 4\n\nI moved (0, 1) to [3, 4].", "5, 4,",
    ],
)  # fmt: skip
def test_a_right_grid_in_many_dresses(text: str) -> None:
    assert outcome(text) == "correct"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4 5", "wrong"), ("5 4\n5 4", "wrong"), ("5\n4", "wrong"), ("5 4\n\n4 5", "wrong"), ("[[5, 4]] or [[4, 5]]", "wrong"),
        ("[[4, 5]]\n5 5", "wrong"), ("5 5\n[[4, 5]]", "wrong"), ("5 4\n0", "unparsed"), ("[[5, 4], [5]]", "unparsed"),
        ("5 4\n\n[[5, 4], [5]]", "unparsed"), ("5 10", "unparsed"), ("[[5, -4]]", "unparsed"), ("[[5, 4.0]]", "unparsed"),
        ("5 " * 31, "unparsed"), ("5\n" * 31, "unparsed"), ("5" * 31, "unparsed"), (str([[5] * 31]), "unparsed"),
        ("", "unparsed"), ("[[]]", "unparsed"), ("five four", "unparsed"), ("[[5, 4]", "unparsed"), ("５ ４", "unparsed"),
        ("5 x 4", "unparsed"), ("It is 5 4.", "unparsed"), ("5 4 purple", "unparsed"), ("5;4", "unparsed"),
        (FIRST.prompt, "wrong"),
    ],
)  # fmt: skip
def test_what_is_no_right_grid(text: str, expected: str) -> None:
    assert outcome(text) == expected


def test_the_rule_of_a_table_does_not_end_a_grid() -> None:
    assert grids("| 1 | 2 |\n|---|:--|\n| 3 | 4 |") == [[[1, 2], [3, 4]]]
    assert grids("1|2\n-+-\n3|4\n---\n5|6") == [[[1, 2], [3, 4]], [[5, 6]]]


GRIDS = st.integers(1, 30).flatmap(
    lambda width: st.lists(st.lists(st.integers(0, 9), min_size=width, max_size=width), min_size=1, max_size=30)
)


@settings(max_examples=60, deadline=None)
@given(
    GRIDS, st.sampled_from(sorted(FORMATS)), st.sampled_from(["", "The rule is a flip.\n\n", "Input:\n1 2\n3 4\n\n"])
)
def test_every_grid_is_read_back_from_every_format(grid: Grid, style: str, head: str) -> None:
    assert grids(head + FORMATS[style](grid))[-1] == grid


JUNK = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.sampled_from(["[", "]", "[[", "]]", ",", "|", "\n", "\n\n", "1 2", "12", "red", "```", "-|-", "\\", "[[1,2],", "\0"]),
    ).flatmap(lambda piece: st.integers(1, 4000).map(lambda times: piece * times)),
    max_size=8,
).map("".join)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(JUNK)
def test_junk_ends_in_time_and_is_never_right(junk: str) -> None:
    wide = replace(FIRST, answer=[[5, 4, 3, 9], [0, 6, 8, 7]])  # which no piece holds
    started = time.process_time()
    verdict = Arc().verify(wide, junk)
    assert verdict.outcome in (Outcome.WRONG, Outcome.UNPARSED)
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    "junk", ["[" * 10**6, "[]" * 500_000, "[[1]" * 250_000, "[1]," * 250_000, "1\n" * 500_000, "[" + " " * 10**6,
             "1 2\n3 4\n\n" * 100_000, ("[1]" + " " * 50) * 20_000, "1\n" + "-|" * 500_000, "red " * 250_000]
)  # fmt: skip
def test_a_million_characters_take_no_time(junk: str) -> None:
    started = time.process_time()
    assert outcome(junk) != "correct"
    assert time.process_time() - started < 2


def test_a_row_becomes_a_problem() -> None:
    assert (FIRST.id, FIRST.answer, FIRST.strict) == ("t/0", [[5, 4]], False)
    assert FIRST.prompt == (
        "Each output grid is made from its input grid by one rule. "
        "Grids are written one row a line, as colours 0 to 9 separated by spaces.\n\n"
        "Example 1\nInput:\n3\nOutput:\n3\n\nExample 2\nInput:\n1 2\nOutput:\n2 1\n\nTest\nInput:\n4 5\nOutput:\n"
    )
    assert pickle.loads(pickle.dumps(FIRST)) == FIRST
    alone = Arc().read({"train": [], "test": ROW["test"][:1]})
    assert alone.prompt.endswith("spaces.\n\nTest\nInput:\n4 5\nOutput:\n")
    assert alone.id == alone.content_hash[:16]


def test_other_pairs_need_no_output_when_one_is_asked_for() -> None:
    open_ended = {**ROW, "test": [ROW["test"][0], {"input": [[6], [7]]}]}  # type: ignore[index]
    assert Arc().read({**open_ended, "test_index": 0}) == FIRST
    with pytest.raises(BadRow, match=r"field test\[1\]\.output: nothing"):
        Arc().read({**open_ended, "test_index": 1})


def test_several_tests_without_an_index_need_all_grids_in_order() -> None:
    both = Arc().read(ROW)
    assert both.id == "t"
    assert outcome("5 4\n\n7\n6", both) == "correct"
    assert outcome("Test 1: [[5, 4]]\nTest 2: [[7], [6]]", both) == "correct"
    assert outcome("[[[5, 4]], [[7], [6]]]", both) == "correct"
    assert outcome("7\n6\n\n5 4", both) == "wrong"
    assert outcome("7\n6", both) == "unparsed"
    assert outcome("5 4\n\n7\n6 6", both) == "unparsed"
    assert Arc().verify(both, "5 4\n\n7\n6").extracted == "54 | 7/6"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": None}, "field train: a list .* found nothing"),
        ({"test": []}, "field test: empty"),
        ({"test": [[[1]]]}, r"field test\[0\]: an object"),
        ({"train": [{"input": [[1], [1, 2]], "output": [[1]]}]}, r"field train\[0\]\.input: \[\[1\], \[1, 2\]\]; a grid is"),
        ({"train": [{"input": [[10]], "output": [[1]]}]}, r"field train\[0\]\.input: .* 0 to 9"),
        ({"train": [{"input": [[True]], "output": [[1]]}]}, r"field train\[0\]\.input"),
        ({"train": [{"input": [[1] * 31], "output": [[1]]}]}, r"field train\[0\]\.input"),
        ({"train": [{"input": "11", "output": [[1]]}]}, r"field train\[0\]\.input"),
        ({"test_index": 2}, "field test_index: 2 is no index of the 2 test pairs"),
        ({"test_index": "0"}, 'field test_index: "0"'),
        ({"test_index": True}, "field test_index: true"),
        ({"test_index": -1}, "field test_index: -1"),
        ({"test": None, "test_index": 0}, "field test_index: 0 is no index of the 0"),
    ],
)  # fmt: skip
def test_a_bad_row_names_its_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRow, match=message):
        Arc().read({**ROW, **change})


def test_format_is_recorded_apart_from_correctness() -> None:
    verdicts = [Arc().verify(FIRST, text) for text in ("5 4\n", "\n4 5", "[[5, 4]]", "Output: 5 4", "5  4")]
    assert [v.format_ok for v in verdicts] == [True, True, False, False, False]
    strict = replace(FIRST, meta={**FIRST.meta, "answer_format": "strict"})
    assert [outcome(text, strict) for text in ("5 4", "[[5, 4]]")] == ["correct", "unparsed"]


def test_a_task_is_the_mean_over_its_pairs_of_two_attempts() -> None:
    problems = [Arc().read({**ROW, "test_index": i, "task_id": name}) for name in "abc" for i in (0, 1)]
    score = Score(
        problem_ids=tuple(p.id for p in problems[:5]), n=(2, 2, 4, 4, 4), correct=(1, 0, 1, 4, 4),
        correct_free=(0,) * 5, format=1, truncated=0, unparsed=0, timeouts=0, errors=0,
    )  # fmt: skip
    scores = task_scores(problems, score)
    assert scores.by_task == pytest.approx({"a": 0.5, "b": 0.75})
    assert (scores.mean, scores.incomplete) == (pytest.approx(0.625), 1)
    assert task_scores(problems, replace(score, n=(1, 1, 4, 4, 4), correct=(1, 0, 1, 4, 4))).by_task.keys() == {"b"}


def rows() -> Iterator[dict[str, Any]]:
    for file in FILES:
        yield from map(json.loads, file.read_text().splitlines())


@needs_data
def test_every_real_gold_is_right_in_every_format_and_wrong_with_one_changed_cell() -> None:
    seen: Counter[tuple[str, str, str]] = Counter()
    for row in rows():
        for index in range(len(row["test"])):
            problem = Arc().read({**row, "test_index": index})
            (gold,) = golds_of(problem)
            draw = python_random(index)
            y, x = draw.randrange(len(gold)), draw.randrange(len(gold[0]))
            changed = [list(line) for line in gold]
            changed[y][x] = (changed[y][x] + draw.randrange(1, 10)) % 10
            for style, write in FORMATS.items():
                seen[style, "gold", outcome(write(gold), problem)] += 1
                seen[style, "changed", outcome(write(changed), problem)] += 1
    assert seen == {(style, *kind): 1675 for style in FORMATS for kind in (("gold", "correct"), ("changed", "wrong"))}


@needs_data
def test_real_specimens_hold() -> None:
    for number, row in enumerate(rows()):
        if number % 40 == 0:
            for problem in (Arc().read(row), Arc().read({**row, "test_index": 0})):
                for specimen in Arc().specimens(problem):
                    assert outcome(specimen.completion, problem) == specimen.expected, specimen.completion[:200]


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(DATA))


@needs_data
@quiet
@pytest.mark.usefixtures("real")
@pytest.mark.parametrize(
    ("benchmark", "tasks", "pairs"), [("arc_agi_1", (399, 200), 214), ("arc_agi_2", (809, 119), 166)]
)
def test_splits_of_the_real_files(benchmark: str, tasks: tuple[int, int], pairs: int) -> None:
    drawn = {name: list(Arc().problems(benchmark, name, seed=0, limit=10**6)) for name in data.SPLITS}
    names = {split: {p.meta["task"] for p in problems} for split, problems in drawn.items()}
    assert len(names["train"] | names["selection"]) == tasks[0], "no training task is lost"
    assert not names["train"] & names["selection"], "all pairs of a task are in one split"
    assert 0.15 < len(names["selection"]) / tasks[0] < 0.25
    assert (len(names["test"]), len(drawn["test"])) == (tasks[1], pairs)
    assert len({p.id for problems in drawn.values() for p in problems}) == sum(map(len, drawn.values()))
    again = [list(Arc().problems(benchmark, "train", seed=s, limit=9)) for s in (0, 0, 1)]
    assert again[0] == again[1] == drawn["train"][:9] != again[2]


@needs_data
@quiet
@pytest.mark.usefixtures("real")
def test_tasks_of_both_releases_have_one_content_hash() -> None:
    """391 training and 185 evaluation tasks of the first are training tasks of the second, one of them edited."""
    hashes: dict[tuple[str, str], dict[str, str]] = {}
    for benchmark in data.BENCHMARKS:
        for split in data.SPLITS:
            drawn = Arc().problems(benchmark, split, seed=0, limit=10**6)
            hashes[benchmark, split] = {p.content_hash: str(p.meta["task"]) for p in drawn}

    def shared(first: str, second: str) -> int:
        one, other = hashes["arc_agi_1", first], hashes["arc_agi_2", second]
        return len({one[key] for key in one.keys() & other.keys()})

    assert shared("train", "train") + shared("selection", "selection") == 391
    assert shared("train", "selection") == shared("selection", "train") == 0
    assert shared("test", "train") + shared("test", "selection") == 184
    assert shared("test", "test") == 6
    assert shared("train", "test") == shared("selection", "test") == 0


class Mixed(Arc):
    """What a run would draw that trains on ARC-AGI-2 and tests on ARC-AGI-1."""

    def problems(self, benchmark: str, split: str, *, seed: int, limit: int) -> Iterator[Problem]:
        return super().problems("arc_agi_1" if split == "test" else "arc_agi_2", split, seed=seed, limit=limit)


@needs_data
@quiet
@pytest.mark.usefixtures("real")
def test_a_run_that_mixes_the_releases_is_refused() -> None:
    spec = config.load("arc", file=None, changes={"benchmark": "arc_agi_1", "budget": 512}, sets=())
    with pytest.raises(HarnessError, match="problems are in both"):
        selecting.select(Mixed(), spec)
    selecting.select(Arc(), spec)


def test_absent_files_and_unknown_splits_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    with pytest.raises(UsageError, match=r"Clone the repository arcprize/ARC-AGI-2, check out f3283f\w+, and copy"):
        Arc().problems("arc_agi_2", "test", seed=0, limit=1)
    with pytest.raises(UsageError, match="it has: train, selection, test"):
        Arc().problems("arc_agi_1", "validation", seed=0, limit=1)
    for files in data.BENCHMARKS.values():
        assert all(len(source.revision) == 40 for source in files[:2])
