"""The public ARC-AGI benchmarks: where their files are, and which of them serve train, selection and test.

Does: read the files through harness.datasets and turn every task into one problem for each test pair.
Doesn't: know the ladder (ladder.py).

| harness split | arc_agi_1 | arc_agi_2 |
| --- | --- | --- |
| train | training set, the tasks outside selection | the same of ARC-AGI-2 |
| selection | training set, a fifth of the tasks by content hash | the same of ARC-AGI-2 |
| test | public evaluation set | the same of ARC-AGI-2 |

All pairs of a task are in one split. The two benchmarks overlap: most tasks of ARC-AGI-1, evaluation set included, are
training tasks of ARC-AGI-2, and 6 tasks are in both evaluation sets. A run that trains on ARC-AGI-2 and tests on
ARC-AGI-1 is refused by content hash, which is the same in both (tasks.py, departure 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from harness import datasets
from harness.contracts import Benchmark
from harness.datasets import Source
from harness.types import Problem
from harness_arc import tasks

SPLITS = ("train", "selection", "test")
MAX_TOKENS = 2048  # a 30 x 30 grid is 1800 tokens where every digit and every separator is one
LICENCE = "Apache-2.0"
_HUB, _HUB_REVISION = "lordspline/arc-agi", "f323416db0d359989e3e88630ca0c21911f31754"
# No copy on the hub is known to be whole and unchanged: the repository itself.
_GIT, _GIT_REVISION = "arcprize/ARC-AGI-2", "f3283f727488ad98fe575ea6a5ac981e4a188e49"


class Files(NamedTuple):
    """The two files of a benchmark: `training` serves train and selection, `evaluation` serves test."""

    training: Source
    evaluation: Source
    described: str


def _first(part: str, file: str, *, part_rows: int) -> Source:
    path = f"data/{part}-00000-of-00001.parquet"
    return Source(f"arc_agi/{file}.jsonl", _HUB, _HUB_REVISION, path, LICENCE, rows=400, part_rows=part_rows)


def _second(part: str, *, rows: int, part_rows: int) -> Source:
    file = f"arc_agi/arc_agi_2_{part}.jsonl"
    return Source(file, _GIT, _GIT_REVISION, f"data/{part}", LICENCE, rows, part_rows, hub=False)


BENCHMARKS: Mapping[str, Files] = {
    "arc_agi_1": Files(
        _first("training", "arc_agi_1_training", part_rows=399),
        _first("evaluation", "arc_agi_1_evaluation_dev", part_rows=200),
        "ARC-AGI-1 (fchollet/ARC-AGI), public training and evaluation sets",
    ),
    "arc_agi_2": Files(
        _second("training", rows=1000, part_rows=809),
        _second("evaluation", rows=120, part_rows=119),
        "ARC-AGI-2 (arcprize/ARC-AGI-2), public training and evaluation sets",
    ),
}


def benchmarks() -> Iterator[Benchmark]:
    for name, files in BENCHMARKS.items():
        yield Benchmark(
            name=name,
            splits=SPLITS,
            answer_format="lenient",
            licence=LICENCE,
            source=f"{files.described}; {files.evaluation.repo} at {files.evaluation.revision[:12]}",
            max_tokens=MAX_TOKENS,
        )


def problems(benchmark: str, split: str, *, seed: int, limit: int) -> Iterator[Problem]:
    """One problem for each test pair; pairs of a task follow one another except in "train", which is shuffled."""
    datasets.require_split(benchmark, split, SPLITS)
    files = BENCHMARKS[benchmark]
    rows = datasets.load(files.evaluation if split == "test" else files.training)
    made = [problem for row in rows for problem in _pairs(row, split)]
    return datasets.draw(made, split, seed=seed, limit=limit)


def _pairs(row: Mapping[str, Any], split: str) -> list[Problem]:
    """The problems of a task, none when it belongs to another split."""
    task = tasks.task_of(row)
    selected = tasks.split_of(task) == "selection"
    if split != "test" and selected != (split == "selection"):
        return []
    return [tasks.problem(task, index) for index in range(len(task.tests))]
