"""Public data sets: local file first, then the hub at a pinned revision, and errors that say what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from harness import config, datasets
from harness.datasets import Source
from harness.errors import BadRow, UsageError
from harness.types import Problem

REVISION = "0123456789abcdef0123456789abcdef01234567"
SOURCE = Source("toy/three.jsonl", "someone/toy", REVISION, "data/three.jsonl", "MIT", 3)
ROWS = [{"q": "1+1", "a": 2}, {"q": "\u2028", "a": None}, {"q": "ü", "a": [1]}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def problem(prompt: str) -> Problem:
    return Problem(id=prompt, prompt=prompt, answer=None)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder, with the hub out of reach."""
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", _out_of_reach)
    (tmp_path / "toy").mkdir()
    return tmp_path


def _out_of_reach(*_: object, **__: object) -> str:
    raise LocalEntryNotFoundError("a long story\n\nno way to the hub")


def test_a_local_file_is_read_first(folder: Path) -> None:
    (folder / "toy/three.jsonl").write_text(LINES, encoding="utf-8")
    assert datasets.load(SOURCE) == ROWS


@pytest.mark.parametrize("text", ["\ufeff" + LINES, LINES.replace("\n", "\r\n"), "\n" + LINES + "  \n"])
def test_byte_order_mark_line_ends_and_blank_lines_do_not_matter(folder: Path, text: str) -> None:
    (folder / "toy/three.jsonl").write_bytes(text.encode())
    assert datasets.load(SOURCE) == ROWS


def test_a_json_list_is_read(folder: Path) -> None:
    (folder / "toy/three.json").write_text(json.dumps(ROWS))
    assert datasets.load(SOURCE._replace(file="toy/three.json")) == ROWS


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (LINES.encode() * 2, r"has 6 rows and must have 3 rows.*someone/toy at 0123"),
        (LINES.encode() + b'{"q": \n', "line 4: not JSON"),
        (b'{"q": 1}\n[2]\n{}\n', "line 2: a row is a JSON object, found a list"),
        (b"[" * 100_000, "line 1: not JSON"),
        (b"\xff\xfe", "line 1: not UTF-8"),
    ],
)
def test_a_bad_file_is_named(folder: Path, data: bytes, message: str) -> None:
    (folder / "toy/three.jsonl").write_bytes(data)
    with pytest.raises(UsageError, match=message) as caught:
        datasets.load(SOURCE)
    assert str(folder / "toy/three.jsonl") in str(caught.value)


def test_a_known_part_is_accepted_and_said(folder: Path) -> None:
    (folder / "toy/three.jsonl").write_text(LINES, encoding="utf-8")
    with pytest.warns(UserWarning, match="3 of the 500 published rows"):
        assert len(datasets.load(SOURCE._replace(rows=500, part_rows=3))) == 3
    with pytest.raises(UsageError, match=r"must have 500 rows \(or 4, a known part\)"):
        datasets.load(SOURCE._replace(rows=500, part_rows=4))


def test_absent_and_offline_names_file_repository_revision_and_the_way(folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        datasets.load(SOURCE)
    text = str(caught.value)
    for word in (str(folder / "toy/three.jsonl"), "data/three.jsonl", "someone/toy", REVISION, "hf download",
                 "HARNESS_DATA", "no way to the hub"):  # fmt: skip
        assert word in text


def test_the_hub_is_asked_at_the_pinned_revision(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(*names: str, **options: str) -> str:
        asked.append((names, options))
        (folder / "cached.jsonl").write_text(LINES, encoding="utf-8")
        return str(folder / "cached.jsonl")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert datasets.load(SOURCE) == ROWS
    assert asked == [(("someone/toy", "data/three.jsonl"), {"revision": REVISION, "repo_type": "dataset"})]
    with pytest.raises(UsageError, match="3 rows and must have 500"):  # the hub has whole files only
        datasets.load(SOURCE._replace(rows=500, part_rows=3))


def test_offline_mode_is_honoured_by_the_real_hub_library(tmp_path: Path) -> None:
    script = f"""
from harness import config, datasets
from harness.errors import UsageError
config.forbid_network()
try:
    datasets.load(datasets.Source("a/b.jsonl", "someone/toy", {REVISION!r}, "b.jsonl", "MIT", 3))
except UsageError as error:
    print(error)
"""
    environment = {"PATH": "/usr/bin", "HF_HOME": str(tmp_path), "HOME": str(tmp_path)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert "HARNESS_DATA is not set" in done.stdout, done.stderr
    assert "offline" in done.stdout.lower()


def test_a_copy_of_a_repository_folder_stands_for_the_file(folder: Path) -> None:
    source = SOURCE._replace(hub=False, path="data/evaluation")
    with pytest.raises(UsageError) as caught:
        datasets.load(source)
    for word in ("Clone", "someone/toy", REVISION, "data/evaluation", "toy/three under", str(folder)):
        assert word in str(caught.value)
    (folder / "toy/three").mkdir()
    for name, row in zip("cab", ROWS, strict=True):
        (folder / f"toy/three/{name}.json").write_text(json.dumps(row))
    rows = datasets.load(source)
    assert [row.pop("task_id") for row in rows] == ["a", "b", "c"]
    assert rows == [ROWS[1], ROWS[2], ROWS[0]]


def test_parquet_without_pyarrow_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "toy/three.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match=r"three\.parquet.*pip install pyarrow"):
        datasets.load(SOURCE._replace(file="toy/three.parquet"))


def test_parquet_is_read_through_pyarrow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls that are made, on a stand-in, since pyarrow need not be installed."""
    (folder / "toy/three.parquet").write_bytes(b"PAR1")
    stand_in = ModuleType("pyarrow.parquet")
    stand_in.read_table = lambda path: SimpleNamespace(to_pylist=lambda: ROWS)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", stand_in)
    assert datasets.load(SOURCE._replace(file="toy/three.parquet")) == ROWS


def test_a_data_folder_that_is_none_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "absent"))
    with pytest.raises(UsageError, match=r"HARNESS_DATA is .*absent"):
        config.data_folder()
    monkeypatch.setenv("HARNESS_DATA", "")
    assert config.data_folder() is None


def test_splits_are_disjoint_complete_in_order_and_of_the_stated_sizes() -> None:
    problems = [problem(f"p {i}") for i in range(5000)]
    splits = {name: datasets.split_by_hash(problems, name) for name in ("train", "selection", "test")}
    assert sorted(p.id for part in splits.values() for p in part) == sorted(p.id for p in problems)
    assert all(part == sorted(part, key=problems.index) for part in splits.values())
    shares = {name: len(part) / len(problems) for name, part in splits.items()}
    assert shares == pytest.approx({"train": 0.5, "selection": 0.2, "test": 0.3}, abs=0.03)


def test_the_split_of_a_problem_is_frozen() -> None:
    """Other bounds would move problems between train and test of everybody's data."""
    splits = [datasets.split_of(problem(text)) for text in "abcdef"]
    assert splits == ["test", "train", "selection", "selection", "selection", "train"]


def test_white_space_does_not_move_a_problem() -> None:
    assert datasets.split_of(problem("a b")) == datasets.split_of(problem(" a\n b "))


def test_train_is_shuffled_by_seed_and_the_rest_keeps_its_order() -> None:
    problems = [problem(f"p {i}") for i in range(50)]
    first, again, other = (list(datasets.draw(problems, "train", seed=s, limit=20)) for s in (0, 0, 1))
    assert first == again != other
    assert len(first) == 20
    assert {p.id for p in first} < {p.id for p in problems}
    assert list(datasets.draw(problems, "test", seed=1, limit=20)) == problems[:20]
    assert len(list(datasets.draw(problems, "train", seed=1, limit=999))) == 50


def test_a_repeated_problem_is_drawn_once() -> None:
    problems = [problem("a"), problem("b"), Problem(id="again", prompt=" a ", answer=None)]
    assert [p.id for p in datasets.draw(problems, "test", seed=0, limit=9)] == ["a", "b"]


def test_an_unknown_split_names_the_known() -> None:
    datasets.require_split("toy", "test", ["train", "test"])
    with pytest.raises(UsageError, match='toy has no split "selection"; it has: train, test'):
        datasets.require_split("toy", "selection", ["train", "test"])


def test_a_bad_row_is_a_usage_error() -> None:
    assert issubclass(BadRow, UsageError)
