"""The public benchmarks of the code domain: which file serves which split, and how its rows become problems.

Does: HumanEval and MBPP from files (harness/datasets.py), HumanEval+ and MBPP+ through the evalplus package's own loader.
Doesn't: judge. Splits of MBPP and MBPP+ are the published ones, told by task number: 601-974 train, 511-600 selection,
11-510 test; the numbers below are for few-shot prompts and serve nothing here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from harness import config, datasets
from harness.contracts import Benchmark
from harness.datasets import Source
from harness.errors import UsageError
from harness.types import Problem
from harness_code import rows

MAX_TOKENS = 768
_MBPP_NUMBERS = {"train": range(601, 975), "selection": range(511, 601), "test": range(11, 511)}
_EVALPLUS = {"humaneval_plus": "get_human_eval_plus", "mbpp_plus": "get_mbpp_plus"}

HUMANEVAL = Source(
    file="code/humaneval.jsonl",
    repo="openai/openai_humaneval",
    revision="7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544",
    path="openai_humaneval/test-00000-of-00001.parquet",
    licence="MIT",
    rows=164,
)
_MBPP = Source(
    file="code/mbpp_sanitized.jsonl",
    repo="google-research-datasets/mbpp",
    revision="4bb6404fdc6cacfda99d4ac4205087b89d32030c",
    path="sanitized",
    licence="CC-BY-4.0",
    rows=427,
    part_rows=399,
)
# On the hub every split has a file of its own.
MBPP = {
    split: _MBPP._replace(path=f"sanitized/{name}-00000-of-00001.parquet", rows=count)
    for split, name, count in (("train", "train", 120), ("selection", "validation", 43), ("test", "test", 257))
}


class PublicSet(NamedTuple):
    """A benchmark and how to get the problems of one of its splits."""

    benchmark: Benchmark
    load: Callable[[str], Iterable[Problem]]


def _humaneval(_: str) -> Iterator[Problem]:
    return map(rows.read, datasets.load(HUMANEVAL))


def _mbpp(split: str) -> Iterator[Problem]:
    """From one file with all splits where the data folder has it, else from the split's own."""
    folder = config.data_folder()
    whole = folder is not None and (folder / _MBPP.file).exists()
    found = datasets.load(_MBPP if whole else MBPP[split])
    return map(rows.read, _numbered(found, split))


def _numbered(found: Iterable[Mapping[str, Any]], split: str) -> Iterator[Mapping[str, Any]]:
    return (row for row in found if int(str(row["task_id"]).rpartition("/")[2]) in _MBPP_NUMBERS[split])


def _evalplus(name: str, split: str) -> Iterator[Problem]:
    """Raises UsageError where the package is missing, or its data can neither be found nor fetched."""
    try:
        loader = getattr(importlib.import_module("evalplus.data"), _EVALPLUS[name])
    except ImportError as error:
        raise UsageError(
            f"benchmark {name} is read by the evalplus package, which cannot be imported ({error}): "
            "pip install 'oneshot-harness[evalplus]'"
        ) from error
    try:
        tasks: Mapping[str, Mapping[str, Any]] = loader()
    except (OSError, EOFError) as error:  # urllib's errors are OSErrors
        raise UsageError(
            f"the evalplus package could not load {name} ({error}): it fetches the file once from its own releases "
            "and keeps it in its cache folder. Run it once where there is a network and copy that folder."
        ) from error
    found: Iterable[Mapping[str, Any]] = tasks.values()
    if name == "mbpp_plus":
        found = _numbered(found, split)
    # Its loader has restored the types of arguments: they are not to be restored a second time.
    return (rows.read({key: value for key, value in row.items() if key != "assertion"}) for row in found)


def _set(
    name: str, splits: tuple[str, ...], source: str, licence: str, load: Callable[[str], Iterable[Problem]]
) -> PublicSet:
    return PublicSet(Benchmark(name, splits, "lenient", licence, source, MAX_TOKENS), load)


_ALL = ("train", "selection", "test")
SETS = {
    found.benchmark.name: found
    for found in (
        _set("humaneval", ("test",), f"{HUMANEVAL.repo} at {HUMANEVAL.revision}", HUMANEVAL.licence, _humaneval),
        _set("mbpp", _ALL, f"{_MBPP.repo} (sanitized) at {_MBPP.revision}", _MBPP.licence, _mbpp),
        _set(
            "humaneval_plus",
            ("test",),
            "evalplus 0.3.1: HumanEval+",
            "Apache-2.0",
            partial(_evalplus, "humaneval_plus"),
        ),
        _set("mbpp_plus", _ALL, "evalplus 0.3.1: MBPP+", "Apache-2.0", partial(_evalplus, "mbpp_plus")),
    )
}


def problems(benchmark: str, split: str, *, seed: int, limit: int) -> Iterator[Problem]:
    """Raises UsageError for a split that the benchmark does not have, and when its data cannot be had."""
    found = SETS[benchmark]
    datasets.require_split(benchmark, split, found.benchmark.splits)
    return datasets.draw(found.load(split), split, seed=seed, limit=limit)
