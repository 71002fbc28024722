import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tabular_run import SMALL, execute, harness, invoke, small_spec

from harness import config, plugins, selecting, store
from harness.contracts import Benchmark
from harness.errors import BadRow, HarnessError, UnknownName, UsageError
from harness.hookspecs import Register, hookimpl
from harness.plugins import Plugins
from harness.report import html
from harness.selecting import Names
from harness.types import Problem
from harness_engines.tabular_domain import Tabular

SETS = {
    "whole": ("train", "selection", "test"),
    "pool": ("train",),
    "dev": ("train", "selection"),
    "exam": ("test",),
    "quiz": ("test",),
}


class Sets:
    """A domain whose problems say where they are from."""

    name, version = "sets", 1

    def benchmarks(self) -> Iterator[Benchmark]:
        for order, (name, splits) in enumerate(SETS.items()):
            yield Benchmark(name, splits, "lenient", licence="", source="", max_tokens=100 + order)

    def problems(self, benchmark: str, split: str, *, seed: int, limit: int) -> Iterator[Problem]:
        assert split in SETS[benchmark]
        size = 3 if benchmark == "pool" else 40
        for i in range(min(limit, size)):
            text = f"{benchmark} {split} {i} {seed if split == 'train' else ''}"
            yield Problem(id=text, prompt=text, answer=i)

    def read(self, row: Mapping[str, Any]) -> Problem:
        if "q" not in row:
            raise BadRow("field q: missing")
        return Problem(id=str(row["id"]), prompt=row["q"], answer=row["a"])


def spec(**data: tuple[str, ...]) -> config.RunSpec:
    benchmark = data.pop("benchmark", ("",))[0]
    sets = [f"data.{split}={json.dumps(names)}" for split, names in data.items()]
    return config.load("sets", file=None, changes={"benchmark": benchmark, "budget": 256}, sets=sets)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"benchmark": ("whole",)}, (("whole",), ("whole",), ("whole",))),
        ({"train": ("whole",)}, (("whole",), ("whole",), ("whole",))),
        ({"test": ("whole",)}, (("whole",), ("whole",), ("whole",))),
        ({"train": ("dev",), "test": ("exam", "quiz")}, (("dev",), ("dev",), ("exam", "quiz"))),
        ({"train": ("pool", "dev"), "test": ("exam",)}, (("pool", "dev"), ("dev",), ("exam",))),
        ({"train": ("pool",), "test": ("whole",)}, (("pool",), ("whole",), ("whole",))),
        ({"train": ("pool",), "selection": ("dev",), "test": ("exam",)}, (("pool",), ("dev",), ("exam",))),
        ({"benchmark": ("whole",), "test": ("exam",)}, (("whole",), ("whole",), ("exam",))),
    ],
)  # fmt: skip
def test_what_names_stand_for(given: dict[str, tuple[str, ...]], expected: tuple[Any, ...]) -> None:
    assert selecting.names(Sets(), spec(**given)) == Names(*expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train": ("pool",), "test": ("exam",)}, r"pool has no selection problems \(it has: train\); name a benchmark of "
         r"sets that has some with --set data.selection=NAME: whole, dev"),
        ({"train": ("dev",)}, r"dev has no test problems .* --test NAME: whole, exam, quiz"),
        ({"test": ("exam",)}, r"exam has no train problems .* --train NAME: whole, pool, dev"),
        ({"benchmark": ("exam",)}, r"exam has no train problems"),
    ],
)  # fmt: skip
def test_a_missing_split_says_who_has_one(given: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        selecting.names(Sets(), spec(**given))


def test_an_unknown_benchmark_is_named() -> None:
    with pytest.raises(UnknownName, match=r'no benchmark of sets "exma".*did you mean "exam"'):
        selecting.names(Sets(), spec(train=("dev",), test=("exma",)))


def test_sources_take_turns_and_small_ones_end_early() -> None:
    found = selecting.select(Sets(), spec(train=("pool", "dev"), test=("exam", "quiz")))
    ids = [problem.id.split()[0] for problem in found.train[0]]
    assert ids[:7] == ["pool", "dev", "pool", "dev", "pool", "dev", "dev"]
    assert (ids.count("pool"), len(ids)) == (3, 16)
    assert {name: len(problems) for name, problems in found.test.items()} == {"exam": 40, "quiz": 40}
    assert found.max_tokens == 104  # the longest of the benchmarks


def test_overlap_is_refused_between_train_and_a_test_set_and_allowed_between_test_sets(tmp_path: Path) -> None:
    rows = [{"id": i, "q": "exam test 1 " if i == 0 else f"own {i}", "a": i, "split": s}
            for i, s in enumerate(["train", "selection", "test"])]  # fmt: skip
    file = written(tmp_path / "mine.jsonl", rows)
    with pytest.raises(HarnessError, match="1 problems are in both test set exam and train of seed 0"):
        selecting.select(Sets(), spec(benchmark=(file,), test=("exam",)))
    rows[0]["split"], rows[2]["split"] = "test", "train"
    found = selecting.select(Sets(), spec(benchmark=(written(Path(file), rows),), test=("exam", file)))
    assert {p.prompt.strip() for p in found.test["mine"]} <= {p.prompt.strip() for p in found.test["exam"]}


def written(path: Path, rows: list[Any]) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def test_rows_without_a_split_are_shared_out_by_content(tmp_path: Path) -> None:
    file = written(tmp_path / "mine.jsonl", [{"id": i, "q": f"what is {i}?", "a": i} for i in range(2000)])
    found = selecting.read_file(Sets(), Path(file))
    shares = [len(found[split]) / 2000 for split in selecting.SPLITS]
    assert shares == pytest.approx([0.5, 0.2, 0.3], abs=0.04)
    assert found["test"][0].id.startswith("mine/")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["{"], r"mine.jsonl, line 1: not JSON"),
        (["", "[1]"], r"mine.jsonl, line 2: a row is a JSON object, found a list"),
        ([{"id": 1}], r"mine.jsonl, line 1: field q: missing"),
        ([{"q": "x", "a": 0}], r"mine.jsonl, line 1: KeyError: 'id'"),
        ([{"id": 1, "q": "x", "a": 0}, {"id": 1, "q": "y", "a": 0}], r"line 2: id mine/1 is that of line 1 already"),
        ([{"id": 1, "q": "x", "a": 0, "split": "dev"}], r"line 1: field split is 'dev'; it must be one of train"),
        ([{"id": 1, "q": "x", "a": 0, "split": ["train"]}], r"line 1: field split is \['train'\]"),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_field(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        selecting.read_file(Sets(), Path(written(tmp_path / "mine.jsonl", rows)))


def test_a_file_that_is_not_there_is_said() -> None:
    with pytest.raises(UsageError, match=r"nowhere.jsonl cannot be read"):
        selecting.select(Sets(), spec(benchmark=("nowhere.jsonl",)))


def test_one_training_problem_gets_the_whole_budget(tmp_path: Path) -> None:
    """Few problems mean larger groups, drawn in shards of the usual size; every rollout of the budget is spent."""
    sets = ("engine.shard_rollouts=100", "data.train=first1", "data.test=ladder")
    root, rows = execute(small_spec(*sets, domain="few", methods=("one_shot",)), tmp_path, found=with_few())
    assert [row["train_rollouts"] for row in rows if row["method"] == "one_shot"] == [256, 256]
    assert len(list((root / "rollouts/0").glob("train-0-*/shard-*"))) == 3
    assert store.read_json(root / "manifest.json")["splits"]["train/0"] == 1


class Few(Tabular):
    """The tabular ladder and its first problems."""

    name = "few"

    def benchmarks(self) -> Iterator[Benchmark]:
        for ladder in super().benchmarks():
            yield from (ladder, ladder._replace(name="first1"), ladder._replace(name="first8"))

    def problems(self, benchmark: str, split: str, *, seed: int, limit: int) -> Iterator[Problem]:
        fewer = limit if benchmark == "ladder" else min(limit, int(benchmark.removeprefix("first")))
        return super().problems("ladder", split, seed=seed, limit=fewer)


class Extra:
    @hookimpl
    def harness_register_domains(self, register: Register) -> None:
        register("few", f"{__name__}:Few", summary="x")


def with_few() -> Plugins:
    found = plugins.load({})
    found.add(Extra(), name="extra", distribution="extra", version="1")
    return found


def test_several_test_sets_give_a_row_each(tmp_path: Path) -> None:
    sets = ("data.train=ladder", 'data.test=["ladder", "first8"]')
    found = with_few()
    root, rows = execute(small_spec(*sets, domain="few", methods=("one_shot",)), tmp_path, found=found)
    assert [(row["train_benchmark"], row["test_benchmark"], row["test_problems"]) for row in rows] == [
        ("ladder", "ladder", 40)] * 4 + [("ladder", "first8", 8)] * 4  # fmt: skip
    assert rows[0]["data_hash"] != rows[4]["data_hash"]
    assert rows[4]["eval_rollouts"] < rows[0]["eval_rollouts"]
    page = html.write(root, found).read_text()
    assert "The sections below are about ladder." in page
    assert "few / first8 / data" in page


def test_the_command_line_takes_a_file_of_rows(tmp_path: Path) -> None:
    file = written(
        tmp_path / "sums.jsonl", [{"question": f"What is {i}+{i}?", "answer": str(2 * i)} for i in range(60)]
    )
    done = harness("run", "--domain", "math", "--data", Path(file).name, "--dry-run", "--budget", "64", "--workers", "1",
                   "--set", "sampling.max_tokens=16", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "math / sums, model tiny" in done.stdout


def test_data_and_benchmark_exclude_each_other(tmp_path: Path) -> None:
    for arguments, message in (
        (["--data", "x.jsonl", "--benchmark", "ladder"], "--data and --benchmark exclude each other"),
        (["--data", "x.csv"], "rows come as JSON Lines"),
        (["--domain", "math", "--data", "x.jsonl"], "x.jsonl cannot be read"),
    ):
        result = invoke("run", *SMALL, *arguments, "--out", str(tmp_path / "runs"))
        assert result.exit_code == 2, result.output
        assert message in result.output
    assert not list((tmp_path / "runs").glob("*"))


def test_a_level_of_a_benchmark_is_a_source() -> None:
    """The first problems of the level that the whole benchmark gives; rows name it."""
    whole = selecting.select(Tabular(), small_spec(budget=1280))
    one = selecting.select(Tabular(), small_spec(budget=256, benchmark="ladder@2"))
    assert {p.level for part in (one.train[0], one.selection, one.test["ladder@2"]) for p in part} == {2}
    assert one.train[0] == tuple(p for p in whole.train[0] if p.level == 2)
    assert len(one.test["ladder@2"]) == 40
    assert one.max_tokens == whole.max_tokens


def test_a_level_that_is_none_is_refused() -> None:
    for name, words in (("ladder@two", "a level is a number"), ("ladder@9", "there are no problems")):
        with pytest.raises(UsageError, match=words):
            selecting.select(Tabular(), small_spec(benchmark=name))
    with pytest.raises(UnknownName, match='did you mean "ladder"'):
        selecting.select(Tabular(), small_spec(benchmark="lader@2"))
