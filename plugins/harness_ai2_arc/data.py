"""The benchmarks of the AI2 Reasoning Challenge: where their files are and which splits they serve.

Does: read the files through harness.datasets.
Doesn't: know what a row means (questions.py).

| harness split | from |
| --- | --- |
| train | train file, four fifths by content hash |
| selection | train file, a fifth by content hash |
| test | test file |

Questions of the train file that are in the test file too (two of ARC-Easy) are left out of train and selection. The
published validation file is not used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from harness import datasets
from harness.contracts import Benchmark
from harness.datasets import Source
from harness.types import Problem
from harness_ai2_arc import questions

SPLITS = ("train", "selection", "test")
MAX_TOKENS = 512
REPO, REVISION = "allenai/ai2_arc", "210d026faf9955653af8916fad021475a3f00453"
LICENCE = "CC BY-SA 4.0"


class Files(NamedTuple):
    """The two files of a benchmark."""

    train: Source
    test: Source


def _source(folder: str, part: str, rows: int) -> Source:
    file = f"ai2_arc/{folder.lower().replace('-', '_')}_{part}.jsonl"
    return Source(file, REPO, REVISION, f"{folder}/{part}-00000-of-00001.parquet", LICENCE, rows)


BENCHMARKS: Mapping[str, Files] = {
    "arc_challenge": Files(_source("ARC-Challenge", "train", 1119), _source("ARC-Challenge", "test", 1172)),
    "arc_easy": Files(_source("ARC-Easy", "train", 2251), _source("ARC-Easy", "test", 2376)),
}


def benchmarks() -> Iterator[Benchmark]:
    for name in BENCHMARKS:
        yield Benchmark(
            name=name,
            splits=SPLITS,
            answer_format="lenient",
            licence=LICENCE,
            source=f"{REPO} at {REVISION[:12]}",
            max_tokens=MAX_TOKENS,
        )


def problems(benchmark: str, split: str, *, seed: int, limit: int) -> Iterator[Problem]:
    """Raises UsageError for a file that cannot be had, or a split that the benchmark does not have."""
    datasets.require_split(benchmark, split, SPLITS)
    files = BENCHMARKS[benchmark]
    test = [questions.read(row) for row in datasets.load(files.test)]
    if split == "test":
        return datasets.draw(test, split, seed=seed, limit=limit)
    held_out = {problem.content_hash for problem in test}
    train = [questions.read(row) for row in datasets.load(files.train)]
    chosen = [
        problem
        for problem in train
        if problem.content_hash not in held_out
        and (datasets.split_of(problem) == "selection") == (split == "selection")
    ]
    return datasets.draw(chosen, split, seed=seed, limit=limit)
