r"""Rows as problems, the public benchmarks by name, and every reference answer of the real files against the verifier."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from harness import datasets
from harness.errors import BadRow, UsageError
from harness.types import Outcome, Problem
from harness.verifying import VerifierPool
from harness_math import data
from harness_math.domain import Math
from harness_math.rows import REQUEST
from harness_math.verify import golds

DATA = Path(__file__).parents[2] / "shared" / "data"
real = pytest.mark.skipif(not (DATA / "math").is_dir(), reason="needs ../shared/data/math")
pytestmark = pytest.mark.filterwarnings("ignore:.*published rows")
NAMES = {
    "ladder": ("train", "selection", "test"),
    "gsm8k": ("train", "selection", "test"),
    "dsr_sub": ("train", "selection"),
    **dict.fromkeys(("pi1", "pi2", "pi13", "pi1209"), ("train", "selection")),
    **dict.fromkeys(
        ("math500", "aime24", "aime25", "amc23", "minerva", "olympiadbench"),
        ("test",),
    ),
}
CHAT = {
    "prompt": [{"role": "user", "content": f"What is 2+2? {REQUEST}"}],
    "reward_model": {"ground_truth": "4", "style": "rule"},
    "extra_info": {"index": 7},
}


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The real data folder, with the hub out of reach."""
    monkeypatch.setenv("HARNESS_DATA", str(DATA))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", _out_of_reach)
    return DATA


def _out_of_reach(*_: object, **__: object) -> str:
    raise LocalEntryNotFoundError("no way to the hub")


def drawn(benchmark: str, split: str, *, seed: int = 0, limit: int = 10**6) -> list[Problem]:
    return list(Math().problems(benchmark, split, seed=seed, limit=limit))


def rows(file: str) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in (DATA / file).read_text(encoding="utf-8").split("\n") if line)


@pytest.mark.parametrize(
    ("row", "name", "answer"),
    [
        ({"problem": "p", "answer": "p - q", "unique_id": "test/1.json"}, "test/1.json", "p - q"),
        ({"question": "p", "answer": "60 * 1.2 = <<60*1.2=72>>72\n#### 72"}, None, "72"),
        ({"question": "p", "answer": "#### 1,080"}, None, "1,080"),
        ({"problem": "p", "answer": 27.0, "id": 0}, "0", "27"),
        ({"problem": "p", "answer": 0.25}, None, "0.25"),
        ({"problem": "p", "answer": 7}, None, "7"),
        ({"problem": "p", "answer": ["1/2", 0.5]}, None, ["1/2", "0.5"]),
        ({"problem": "p", "answer": ["7"]}, None, "7"),
        ({"problem": "p", "answer": "so $\\boxed{\\frac{1}{2}}$ it is"}, None, "\\frac{1}{2}"),
        ({"problem": "p", "solution": "a \\boxed{3} b \\boxed{\\frac{1}{2}}.", "idx": 3}, None, "\\frac{1}{2}"),
        ({"question": "p", "final_answer": ["$1,3$"], "is_multiple_answer": True, "id": 1606}, "1606", "$1, 3$"),
        ({"question": "p", "final_answer": ["$(2,4)$"], "is_multiple_answer": False}, None, "$(2,4)$"),
        ({"problem": "p", "answer": "\\frac{k!}{(k+1)!"}, None, "\\frac{k!}{(k+1)!}"),
        (CHAT, "7", "4"),
    ],
)
def test_rows_are_read(row: dict[str, Any], name: str | None, answer: Any) -> None:
    problem = Math().read(row)
    assert problem.answer == answer
    assert problem.id == (name or problem.content_hash[:16])
    assert problem.prompt.endswith(REQUEST)
    assert problem.prompt.count(REQUEST) == 1
    assert not problem.strict
    assert Math().verify(problem, f"\\boxed{{{golds(problem)[0]}}}").outcome is Outcome.CORRECT
    assert json.loads(json.dumps([problem.answer, dict(problem.meta)])) == [problem.answer, dict(problem.meta)]


def test_level_and_subject_are_read() -> None:
    problem = Math().read({"problem": "p", "answer": "1", "level": "Level 5", "type": "Algebra"})
    assert (problem.level, problem.subject) == (5, "Algebra")
    assert Math().read({"problem": "p", "answer": "1", "level": 3, "subject": "Geometry"}).level == 3


def test_one_problem_has_one_hash_wherever_it_comes_from() -> None:
    plain = Math().read({"problem": "What is 2+2?", "answer": "4"})
    assert plain.content_hash == Math().read(CHAT).content_hash


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": "1"}, "field problem: not found among answer"),
        ({}, "field problem: not found among no fields"),
        ({"problem": "  ", "answer": "1"}, "field problem: found"),
        ({"question": 5, "answer": "1"}, "field question: found int '5'"),
        ({"prompt": [], "answer": "1"}, "field prompt: found None"),
        ({"problem": "p"}, "field answer: not found among problem"),
        ({"problem": "p", "answer": ""}, "field answer: found no answer in ''"),
        ({"problem": "p", "answer": "long work #### "}, "field answer: found no answer"),
        ({"problem": "p", "answer": []}, "field answer: found an empty list"),
        ({"problem": "p", "answer": [["1"]]}, "field answer: found list"),
        ({"problem": "p", "answer": {"a": 1}}, "field answer: found dict"),
        ({"problem": "p", "answer": True}, "field answer: found bool 'True'"),
        ({"problem": "p", "answer": float("nan")}, "field answer: found nan"),
        ({"problem": "p", "answer": None, "solution": "no box"}, "field solution: found no last"),
        ({"problem": "p", "solution": "\\boxed{}"}, "field solution: found no last"),
        ({**CHAT, "reward_model": {"ground_truth": ""}}, "field reward_model.ground_truth: found no answer"),
    ],
)
def test_a_bad_row_names_its_field_and_what_is_understood(row: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRow, match=message) as caught:
        Math().read(row)
    assert "understood:" in str(caught.value)


def test_benchmarks_say_what_they_are() -> None:
    known = {benchmark.name: benchmark for benchmark in Math().benchmarks()}
    assert {name: benchmark.splits for name, benchmark in known.items()} == NAMES
    for benchmark in known.values():
        assert benchmark.answer_format == ("strict" if benchmark.name == "ladder" else "lenient")
        assert benchmark.licence
        assert benchmark.source


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ladder"])
def test_revisions_are_pinned_or_the_content_is(name: str) -> None:
    for source in data.SETS[name].files.values():
        assert len(source.revision) == 40 or source.file == "one_shot_rlvr/dsr_sub.jsonl"
        assert len(data.DSR_DIGEST) == 64


@pytest.mark.parametrize(("name", "split"), [("math500", "train"), ("pi1", "test"), ("dsr_sub", "test")])
def test_a_split_that_is_not_there_is_an_error_that_names_those_that_are(name: str, split: str) -> None:
    with pytest.raises(UsageError, match=f'{name} has no split "{split}"; it has: {NAMES[name][0]}'):
        Math().problems(name, split, seed=0, limit=1)


def test_a_file_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", _out_of_reach)
    with pytest.raises(UsageError, match=r"math/aime24.jsonl"):
        drawn("aime24", "test")


@real
@pytest.mark.parametrize(
    ("name", "split", "count"),
    [
        ("gsm8k", "test", 1319),
        ("math500", "test", 250),
        ("aime24", "test", 30),
        ("aime25", "test", 30),
        ("amc23", "test", 40),
        ("minerva", "test", 272),
        ("olympiadbench", "test", 675),
        ("pi1", "train", 1),
        ("pi2", "train", 1),
        ("pi13", "train", 1),
        ("pi1209", "train", 1),
    ],
)
def test_files_are_whole(files: Path, name: str, split: str, count: int) -> None:
    problems = drawn(name, split)
    assert len(problems) == len({problem.id for problem in problems}) == count
    assert all(problem.id.startswith(f"{name}/") for problem in problems)
    assert drawn(name, split, seed=1, limit=20) == problems[:20] or split == "train"


@real
@pytest.mark.parametrize(("name", "total"), [("gsm8k", 7473), ("dsr_sub", 1206)])
def test_training_files_are_shared_out_by_content(files: Path, name: str, total: int) -> None:
    """DSR-sub has 1,209 rows: one without a label, and one problem three times."""
    train, selection = drawn(name, "train"), drawn(name, "selection")
    assert len(train) + len(selection) == total
    assert 0.15 < len(selection) / total < 0.25
    assert not {p.content_hash for p in train} & {p.content_hash for p in selection}
    assert drawn(name, "selection", seed=3) == selection
    assert drawn(name, "train", seed=3) != train
    assert sorted(drawn(name, "train", seed=3), key=lambda p: p.id) == sorted(train, key=lambda p: p.id)
    assert drawn(name, "train", limit=5) == train[:5]


@real
def test_the_single_examples_are_the_published_ones_and_never_selected(files: Path) -> None:
    train = {problem.content_hash for problem in drawn("dsr_sub", "train")}
    for name in data.EXAMPLES:
        (problem,) = drawn(name, "train")
        (row,) = rows(f"one_shot_rlvr/{name}.jsonl")
        assert problem.prompt == row["prompt"][0]["content"]
        assert problem.answer == row["reward_model"]["ground_truth"]
        assert problem.content_hash in train
        assert [p.prompt for p in drawn(name, "selection")] == [p.prompt for p in drawn("dsr_sub", "selection")]


@real
def test_a_part_of_a_set_is_said_to_be_one(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(UserWarning, match="math500_dev.jsonl has 250 of the 500 published rows"):
        part = drawn("math500", "test")
    (tmp_path / "math").mkdir()
    lines = (files / "math" / "math500_dev.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    (tmp_path / "math" / "math500.jsonl").write_text("\n".join(lines[:249]), encoding="utf-8")
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    with pytest.raises(UsageError, match="has 249 rows and must have 500"):
        drawn("math500", "test")
    more = [json.dumps({"problem": f"p{i}", "answer": "1"}) for i in range(250)]
    (tmp_path / "math" / "math500.jsonl").write_text("\n".join([*lines, *more]), encoding="utf-8")
    (tmp_path / "math" / "math500_dev.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drawn("math500", "test")[:250] == part, "the whole set wins over a part of it"


@real
def test_another_dsr_sub_is_refused(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one_shot_rlvr").mkdir()
    text = (files / "one_shot_rlvr" / "dsr_sub.jsonl").read_text(encoding="utf-8")
    (tmp_path / "one_shot_rlvr" / "dsr_sub.jsonl").write_text(text.replace('"12.8"', '"12.7"'), encoding="utf-8")
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    with pytest.raises(UsageError, match="not the DSR-sub"):
        drawn("pi1", "train")


@real
def test_test_sets_do_not_overlap_with_training_sets(files: Path) -> None:
    train = {p.content_hash for name in ("gsm8k", "dsr_sub") for p in drawn(name, "train") + drawn(name, "selection")}
    for name in ("gsm8k", "aime24", "aime25", "amc23", "minerva", "olympiadbench", "math500"):
        assert not train & {problem.content_hash for problem in drawn(name, "test")}, name


FILES = {
    "math/gsm8k_train.jsonl": 7473,
    "math/gsm8k_test.jsonl": 1319,
    "math/math500_dev.jsonl": 250,
    "math/aime24.jsonl": 30,
    "math/aime25.jsonl": 30,
    "math/amc23.jsonl": 40,
    "math/minerva_math.jsonl": 272,
    "math/olympiadbench.jsonl": 675,
    "one_shot_rlvr/dsr_sub.jsonl": 1208,
}


EQUAL = [{"1,800", "1800"}, {"$12$", "12"}, {"10\\%", "10"}]


@real
@pytest.mark.parametrize(("file", "count"), FILES.items())
def test_every_reference_answer_is_right_and_another_one_is_not(file: str, count: int) -> None:
    """Another answer: three others of the same file. What is accepted there is listed, and is equal."""
    domain = Math()
    labelled = (row for row in rows(file) if "reward_model" not in row or row["reward_model"]["ground_truth"])
    problems = [domain.read(row) for row in labelled]
    assert len(problems) == count
    for place, problem in enumerate(problems):
        gold = golds(problem)[0]
        for completion in (f"\\boxed{{{gold}}}", f"2+2=4, so the answer is $\\boxed{{{gold}}}$. I hope it is correct."):
            verdict = domain.verify(problem, completion)
            assert (verdict.outcome, verdict.format_ok) == (Outcome.CORRECT, True), problem.id
        for step in (1, 7, 23):
            other = golds(problems[(place + step) % count])[0]
            if other != gold and {other, gold} not in EQUAL:
                assert domain.verify(problem, f"\\boxed{{{other}}}").outcome is Outcome.WRONG, (gold, other)


@real
def test_published_solutions_are_judged_right(files: Path) -> None:
    """Their own prose and boxes: MATH, Minerva and AIME solutions, GSM8K's worked answers."""
    domain = Math()
    for file, field in (
        ("math500_dev", "solution"),
        ("minerva_math", "solution"),
        ("aime24", "solution"),
        ("gsm8k_test", "answer"),
    ):
        for row in rows(f"math/{file}.jsonl"):
            assert domain.verify(domain.read(row), row[field]).outcome is Outcome.CORRECT, row


@real
def test_specimens_of_public_problems_hold_in_the_pool(files: Path) -> None:
    domain = Math()
    names = ("gsm8k", "math500", "aime25", "amc23", "minerva", "olympiadbench")
    problems = [problem for name in names for problem in drawn(name, "test", limit=25)] + drawn("pi13", "train")
    specimens = [(problem, specimen) for problem in problems for specimen in domain.specimens(problem)]
    with VerifierPool("harness_math.domain:Math", workers=2) as pool:
        verdicts = pool.verify([(problem, specimen.completion) for problem, specimen in specimens])
    wrong = [
        (problem.id, specimen.completion[:80], verdict.outcome.value)
        for (problem, specimen), verdict in zip(specimens, verdicts, strict=True)
        if verdict.outcome is not specimen.expected
    ]
    assert not wrong


def test_local_files_win_over_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "math").mkdir()
    lines = [json.dumps({"problem": f"p{i}", "answer": str(i)}) for i in range(30)]
    (tmp_path / "math" / "aime25.jsonl").write_text("\n".join(lines))
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", _out_of_reach)
    assert [problem.answer for problem in drawn("aime25", "test")] == [str(i) for i in range(30)]
    assert datasets.load(data.SETS["aime25"].files["test"])[3]["answer"] == "3"
