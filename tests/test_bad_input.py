"""Whatever stands in a spec, a suite, a file of rows or a run folder: an error that names the place, never a traceback."""

from __future__ import annotations

import functools
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tabular_run import PLAIN, SMALL, execute, harness, invoke, small_spec, temporary

from harness import completions, config, jsonlines, leaderboard, limits, plugins, selecting, store, suiting, toml
from harness.config import RunSpec
from harness.contracts import Domain
from harness.errors import HarnessError, UsageError
from harness.report import costs
from harness.sampling import RolloutBatch
from harness.types import Direction, Move

SHORT = settings(max_examples=60, deadline=None)
TABULAR = b'domain = "tabular"\nmodel = "tabular"\nengine.name = "tabular"\n'
NESTED = b"x = " + b"[" * 5000


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(*arguments: str, words: str, code: int = 2) -> None:
    """In this process: an exception that is no exit would be raised."""
    result = invoke(*arguments)
    assert result.exit_code == code, result.output
    assert words in result.stderr


@contextmanager
def told(*words: str) -> Iterator[None]:
    """Nothing but a usage error may come, and it holds the words, briefly."""
    try:
        yield
    except UsageError as error:
        text = str(error)
        faults = [word for word in words if word not in text] + ["too long"] * (len(text) > 3000)
        if faults:
            raise AssertionError(f"{faults}: {text}") from error


# Specs and suites


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no domain given"),
        (b'domain = "\xff"', "bad.toml, line 1 is not UTF-8"),
        (b'domain = "a\x00"', "bad.toml is not TOML: "),
        (b'domain = "a\\u0000"', "domain holds a NUL"),
        (b"budget = " + b"9" * 5000, "bad.toml has a number of more than 4300 digits"),
        (b"budget = 0x" + b"f" * 5000, "bad.toml has a number of 20000 bits"),
        (b"sampling.temperature = 1" + b"0" * 400, "bad.toml has a number of 1329 bits"),
        (NESTED, "bad.toml is nested too deeply"),
        (b".".join([b"a"] * 3000) + b" = 1", "bad.toml is nested too deeply"),
        (TABULAR + b"\nbudget = 2020-01-01", "budget must be int, got datetime.date(2020, 1, 1)"),
        (
            TABULAR + b"\nmethod.grpo.steps = 2020-01-01",
            "method.grpo.steps must be a number, a truth value, text or a list",
        ),
        (TABULAR + b"\nsampling.temperature = nan", "sampling.temperature must be at most 100, got nan"),
        (TABULAR + b'methods = ["../x"]\nmethod."../x".uses = "base"', "'../x' cannot be the name of a method"),
        (TABULAR + b'methods = ["/tmp/x"]\nmethod."/tmp/x".uses = "base"', "cannot be the name of a method"),
        (TABULAR + b'method."a\\u0000".uses = "base"', "cannot be the name of a method"),
        (TABULAR + b'data.train = ["a\\u0000.jsonl"]', "data.train holds a NUL"),
        (TABULAR + b'data.train = "~no-such-user/a.jsonl"', "there is no such user"),
    ],
)
def test_a_spec_that_cannot_be_run_says_why(content: bytes, words: str) -> None:
    Path("bad.toml").write_bytes(content)
    refused("run", "--spec", "bad.toml", "--dry-run", words=words)
    assert [path.name for path in Path().iterdir()] == ["bad.toml"]


def test_what_is_no_file_is_said_and_a_pipe_is_not_waited_for() -> None:
    Path("folder.toml").mkdir()
    Path("folder.jsonl").mkdir()
    os.mkfifo("pipe.toml")
    os.mkfifo("pipe.jsonl")
    os.symlink("loop.jsonl", "loop.jsonl")
    for name in ("folder.toml", "pipe.toml"):
        refused("run", "--spec", name, words=f"{name} is no spec file")
        refused("run", "--suite", name, words=f"{name} is no suite file")
    refused("run", "--suite", "x" * 300 + ".toml", words="File name too long")
    data = ("run", "--domain", "math", "--dry-run", "--data")
    refused(*data, "folder.jsonl", words="it is a folder, not a file")
    refused(*data, "pipe.jsonl", words="it is a pipe or a device, not a file")
    refused(*data, "loop.jsonl", words="loop.jsonl cannot be read")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("budget=10000000000000000", "--budget must be at most 10,000,000"),
        ("budget=1e99", "budget must be int, got 1e+99"),
        (f"budget={'9' * 5000}", "budget must be int"),
        (f"model={'[' * 3000}{']' * 3000}x", "model is longer than the name of a file"),
        ("seeds=1000000000", "--seeds must be at most 1,000"),
        ("workers=-1", "--workers must be at least 0"),
        ("sampling.group=0", "sampling.group must be at least 2"),
        ("sampling.logprob_gap=nan", "sampling.logprob_gap must be at most inf, got nan"),
        ("search.problems=-3", "search.problems must be at least 1"),
        ("search.kl_targets=[nan]", "search.kl_targets must be finite and above 0"),
        (f"search.kl_targets={[0.1] * 65}", "at most 64 are searched"),
        ("evaluation.problems=-1", "evaluation.problems must be at least 1"),
        ("evaluation.wide_samples=-1", "evaluation.wide_samples must be at least 0"),
        ("rewards.correct=nan", "rewards.correct must be at most"),
        ("engine.shard_rollouts=0", "engine.shard_rollouts must be at least 1"),
        ("method.grpo.steps=a", "method.grpo.steps must be int, got 'a'"),
        ("method.grpo.steps=[3]", "method.grpo.steps must be int, got [3]"),
        ("method.grpo.lr=nan", "method.grpo.lr must be a number, got nan"),
        ("method.grpo.resample=1", "method.grpo.resample must be bool, got 1"),
        ("method.random_search.sigmas=x", "method.random_search.sigmas must be a list, got 'x'"),
        ('method.random_search.sigmas=["x"]', "method.random_search.sigmas must be float, got 'x'"),
        ("=1", 'no spec key ""'),
    ],
)
def test_absurd_values_are_refused_before_anything_is_made(text: str, words: str) -> None:
    refused(
        "run",
        *SMALL,
        "--method",
        "grpo",
        "--method",
        "random_search",
        "--set",
        text,
        words=words,
    )
    assert not list(Path().iterdir())


LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
JSON = st.recursive(
    LEAVES, lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3)
)
FIELDS = [
    *sorted(limits.BOUNDS),
    "methods",
    "model",
    "benchmark",
    "data.train",
    "method.grpo.steps",
    "search.kl_targets",
    "method",
    "nothing",
]


def literal(value: Any) -> str:
    """TOML has no null and no objects here; text stands without quotes now and then."""
    return str(value) if isinstance(value, int | float | str) else json.dumps(value)


@SHORT
@given(st.lists(st.tuples(st.sampled_from(FIELDS), JSON.map(literal)), max_size=3))
def test_any_settings_make_a_spec_that_can_be_kept_or_a_usage_error(
    tmp_path_factory: Any, pairs: list[tuple[str, str]]
) -> None:
    file = tmp_path_factory.getbasetemp() / "kept.toml"
    with told():
        spec = config.load("math", file=None, changes={}, sets=[f"{key}={value}" for key, value in pairs])
        store.write_text(file, config.to_toml(spec))
        assert config.load(None, file=file, changes={}, sets=()) == spec


TABLES = st.dictionaries(
    st.sampled_from([*suiting.KEYS, "x"]),
    st.recursive(
        st.booleans() | st.integers(-9, 9) | st.floats() | st.text(st.characters(codec="utf-8"), max_size=5),
        lambda part: st.lists(part, max_size=3) | st.dictionaries(st.sampled_from([*FIELDS, "domain", "n: budget, seeds", "module", "makes"]), part, max_size=3),
    ),
)  # fmt: skip


@SHORT
@given(TABLES)
def test_any_tables_make_a_suite_or_a_usage_error(tmp_path_factory: Any, values: dict[str, Any]) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_text(toml.written(values), encoding="utf-8")
    with told(str(file)):
        suiting.load(str(file), domain="math", changes={}, sets=())


@SHORT
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_toml_or_a_usage_error(tmp_path_factory: Any, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "bytes.toml"
    file.write_bytes(content)
    with told(str(file)):
        toml.parsed(toml.read_text(file, "spec file"), str(file))


def test_a_grid_that_would_fill_the_memory_is_refused() -> None:
    axes = "".join(
        f"rewards.{key} = {[float(i) for i in range(20)]}\n" for key in ("correct", "wrong", "unparsed", "timeout")
    )
    Path("huge.toml").write_text("[shared]\ndomain = 'math'\n[grid]\n" + axes)
    refused("run", "--suite", "huge.toml", "--dry-run", words="the grid has 160,000 runs, and a suite at most 10,000")


# Rows


SUM = {"question": "What is 1+1?", "answer": "2"}
NO_ROWS = [
    (b"\xff\xfe" + json.dumps(SUM).encode("utf-16-le"), "line 1: not UTF-8: invalid start byte at byte 0"),
    (b'{"question": "a\x00b", "answer": "1"}', "line 1: not JSON: Invalid control character"),
    (b"\n\r\n" + json.dumps(SUM).encode() + b"\r\n{\n", "line 4: not JSON"),
    (b'{"question": "a\\ud800", "answer": "1"}', r"line 1: '\ud800' is half of a surrogate pair"),
    (b'{"question": "a", "answer": NaN}', "line 1: field answer: found nan"),
    (b'{"question": "a", "answer": 1e999}', "line 1: field answer: found inf"),
    (b'{"question": "a", "answer": ' + b"9" * 5000 + b"}", "line 1: not JSON that can be read: a number of more than 4300 digits"),
    (b'{"question": "a", "answer": ' + b"[" * 100_000, "line 1: not JSON that can be read: nested too deeply"),
    (b'{"question": "a", "question": "b", "answer": 1}', "line 1: field question: stands there twice"),
    (b'{"id": 1, "question": "a", "answer": 1}\n{"id": 1, "question": "b", "answer": 1}', "line 2: id rows/1 is that of line 1"),
    (b'{"task_id": "HumanEval/0", "prompt": "def f():"}', "line 1: field answer: not found among prompt, task_id"),
    (b"question,answer\n1,2\n", "line 1: not JSON"),
    (json.dumps([SUM]).encode(), "line 1: a row is a JSON object, found a list"),
    (b"", "there are no problems for selection: rows of a file belong to the split"),
    (json.dumps(SUM).encode(), "rows.jsonl has none for this one. Give more rows"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "words"), NO_ROWS, ids=[str(number) for number in range(len(NO_ROWS))])
def test_rows_that_cannot_be_read_are_named_by_file_line_and_field(content: bytes, words: str) -> None:
    Path("rows.jsonl").write_bytes(content)
    result = invoke("run", "--domain", "math", "--data", "rows.jsonl", "--dry-run")
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert "rows.jsonl" in result.stderr


def test_a_mark_carriage_returns_and_unknown_columns_do_no_harm() -> None:
    rows = [json.dumps({"question": f"What is {i}+1?", "answer": i + 1, "comment": float("nan")}) for i in range(9)]
    Path("rows.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    found = selecting.read_file(domain("math"), Path("rows.jsonl"))
    assert sum(map(len, found.values())) == 9


def domain(name: str) -> Domain:
    found: Domain = plugins.load({}).lookup("domain", name).load()()
    return found


KEYS = {
    "math": ["question", "problem", "answer", "solution", "level", "subject", "type"],
    "code": ["task_id", "prompt", "text", "entry_point", "test", "test_list", "code", "inputs", "expected", "base_input"],
    "arc": ["train", "test", "input", "output", "task_id"],
    "ai2_arc": ["question", "choices", "answer_index", "answerKey", "text", "label"],
}  # fmt: skip
ROWS = st.sampled_from(sorted(KEYS)).flatmap(
    lambda name: st.tuples(
        st.just(name),
        st.dictionaries(st.sampled_from([*KEYS[name], "id", "split"]), JSON | st.sampled_from(["1", "def f(x):\n"])),
    )
)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_any_row_is_a_problem_that_can_be_kept_or_a_usage_error(
    tmp_path_factory: Any, named: tuple[str, dict[str, Any]]
) -> None:
    name, row = named
    file = tmp_path_factory.getbasetemp() / "any.jsonl"
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    with told(f"{file}, line 1"):
        found = selecting.read_file(domain(name), file)
        (problem,) = [problem for split in found.values() for problem in split]
        file.with_name("kept").write_text(json.dumps(store.encode(problem), ensure_ascii=False), encoding="utf-8")
        assert len(problem.content_hash) == 64


LINES = st.lists(
    st.binary(max_size=40)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from(["id", "problem", "completion"]), JSON | st.just(SUM)).map(
        lambda v: json.dumps(v).encode()
    ),
    max_size=4,
).map(b"\n".join)


@SHORT
@given(LINES)
def test_any_bytes_are_lines_to_verify_each_judged_or_faulty(content: bytes) -> None:
    found = list(completions.read_lines(io.BytesIO(content), completions.reading(domain("math"))))
    for line in found:
        assert (line.problem is None) == bool(line.fault)
        json.dumps({"id": line.id, "detail": line.fault}, allow_nan=False)


@SHORT
@given(LINES)
def test_any_bytes_are_rows_or_a_usage_error(tmp_path_factory: Any, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "bytes.jsonl"
    file.write_bytes(content)
    with told(f"{file}, line "):
        assert all(isinstance(row, dict) for _, row in jsonlines.rows(file))


def test_an_endless_line_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonlines, "MAX_LINE_BYTES", 1000)

    class Endless(io.BytesIO):
        asked = 0

        def readline(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert 0 < size <= 1001
            self.asked += 1
            return b"a" * size if self.asked < 50 else b""

    assert list(jsonlines.numbered(Endless())) == [(1, None)]
    Path("long.jsonl").write_bytes(b'{"q": "' + b"a" * 1000 + b'"}\n')
    with pytest.raises(UsageError, match=r"long\.jsonl, line 1: longer than"):
        list(jsonlines.rows(Path("long.jsonl")))


def test_where_verdicts_cannot_be_written_is_said() -> None:
    Path("in.jsonl").write_text(json.dumps({"id": 1, "problem": SUM, "completion": "2"}) + "\n")
    for out, words in (
        (".", "is no result of harness verify"),
        ("x" * 252, "File name too long"),
        ("in.jsonl/x", "cannot"),
    ):
        refused("verify", "--domain", "math", "in.jsonl", "--out", out, words=words)


# Run folders and leaderboards


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resume", "none"], "none is no run folder"), (["resume", "empty"], "empty is no run folder"),
        (["report", "empty"], "empty has no finished rows"), (["diagnose", "empty"], "empty has no finished rows"),
        (["export", "empty", "x", "--method", "base"], "empty has no finished rows"), (["leaderboard", "empty"], "empty has no finished rows"),
        (["diff", "empty", "empty"], "empty has no finished rows"), (["leaderboard"], "no rows in results/leaderboard"),
        (["run", *SMALL, "--out", "file"], "cannot make the folder file"), (["run", *SMALL, "--out", "file/x"], "Not a directory"),
        (["run", *SMALL, "--out", "x" * 300], "File name too long"), (["run", *SMALL, "--out", "\udcff"], "is not UTF-8"),
    ],
)  # fmt: skip
def test_folders_that_are_none(arguments: list[str], words: str) -> None:
    Path("empty").mkdir()
    Path("file").touch()
    refused(*arguments, words=words)


def test_as_a_user_types_it() -> None:
    """In a process of its own, with bytes that are no text among the arguments."""
    done = harness("run", "--domain", "math", "--set", os.fsdecode(b"model=\xff"), cwd=Path())
    assert (done.returncode, "is not UTF-8" in done.stderr, "Traceback" in done.stderr) == (2, True, False)


@functools.cache
def small() -> Path:
    """A finished run, made once, not to be changed."""
    spec = small_spec(*PLAIN, "evaluation.problems=8", "search.problems=8", methods=("one_shot",), budget=32)
    return execute(spec, temporary())[0]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A run that others have edited: nothing says any more what its files were."""
    copied = shutil.copytree(small(), tmp_path / "run")
    (copied / "checksums.sha256").write_text("")
    return copied


def edited(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: "a,b\n1,2\n", "line 2 has other columns"),
        (lambda text: text + "1,2,3\n", "has other columns"),
        (lambda text: text.replace(",tabular,", ",../../escaped,"), "'../../escaped' cannot be the name of a domain"),
        (lambda text: text.replace(",one_shot,", ",../../one_shot,"), "cannot be the name of a method"),
        (lambda text: text.replace("\n", "\n1", 2).replace(",32,", ",many,"), "'many' is no number"),
        (lambda text: text + "x" * 200_000, "field larger than field limit"),
    ],
)
def test_a_leaderboard_that_is_none_is_named_by_file_and_line(
    root: Path, change: Callable[[str], str], words: str
) -> None:
    edited(root / "leaderboard.csv", change)
    for arguments in (["leaderboard", "run"], ["report", "run"]):
        refused(*arguments, words=words, code=1)
    assert not list(root.parent.glob("results/*/*.csv"))
    with pytest.raises(HarnessError, match=r"leaderboard\.csv"):
        leaderboard.read_csv(root / "leaderboard.csv")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("manifest.json", "{"), ("manifest.json", "[]"), ("manifest.json", "{}"), ("command.json", "{"), ("problems.jsonl", "{\n"),
        ("methods/one_shot/0/scores.json", "["), ("methods/one_shot/0/scores.json", "[]"),
        ("methods/one_shot/0/scores.json", '{"!": "Nothing"}'), ("methods/one_shot/0/scores.json", '{"!": "Finished"}'),
        ("methods/one_shot/0/scores.json", "[" * 100_000),
    ],
)  # fmt: skip
def test_a_file_that_the_harness_did_not_write_is_named(root: Path, file: str, content: str) -> None:
    (root / file).write_text(content)
    refused("report", "run", words=f"run/{file} is no", code=1)


def test_an_event_that_is_none_is_named(root: Path) -> None:
    (root / "events.jsonl").write_text("{}}\n")
    with pytest.raises(HarnessError, match=r"events\.jsonl is not what the harness writes"):
        costs.stages(root)


def test_no_path_in_a_record_leads_out_of_the_run_folder(root: Path) -> None:
    for path in ("/etc/passwd", "../x", "a/../../x", "a\0"):
        for make in (
            lambda path=path: Move(kind="direction", path=path, digest=""),
            lambda path=path: Direction(id="", kind="", norm=1, weight_norm=1, path=path, digest=""),
            lambda path=path: Direction(id="", kind="", norm=1, weight_norm=1, path="x", digest="", rms=path),
            lambda path=path: RolloutBatch(root="", folder=path, problem_ids=(), shards=(), temperature=1, samples=1),
        ):
            with pytest.raises(HarnessError, match="outside of its run folder"):
                make()
    for entry in root.glob("methods/one_shot/0/journal/*.json"):
        edited(entry, lambda text: text.replace('"folder": "', '"folder": "../../../'))
    (root / "methods/one_shot/0/scores.json").unlink()
    refused("resume", "run", "--quiet", words="outside of its run folder", code=1)


def test_no_name_in_a_suite_leads_out_of_its_folder(tmp_path: Path) -> None:
    spec = config.to_dict(RunSpec(domain="math"))
    record = {"name": "x", "source": "", "figure": "", "command": "", "prepare": [], "layout": 2}
    for name in ("../x", "/tmp/x", "a/b", ".."):
        store.write_json(tmp_path / "suite.json", {**record, "runs": [{"name": name, "axes": {}, "spec": spec}]})
        refused("resume", ".", words="cannot be the name of a run of a suite")
