"""The public benchmarks: which file serves which split, and how its rows become problems.

Does: name files, repositories, revisions and licences; keep the test sets whole and apart.
Doesn't: understand rows (rows.py) or fetch anything (harness/datasets.py).

| benchmark | train | selection | test |
| --- | --- | --- | --- |
| gsm8k | 4/5 of GSM8K's train file, by content hash | the other 1/5 | its test file |
| dsr_sub | 4/5 of DSR-sub, the four pi examples among them | the other 1/5 | none |
| pi1, pi2, pi13, pi1209 | one row of DSR-sub | none | none |
| math500, aime24, aime25, amc23, minerva, olympiadbench | none | none | the whole file |

Evaluation sets serve nothing but test: whoever trains on a part of one and tests on the rest has another benchmark.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from harness import config
from harness.contracts import Benchmark
from harness.datasets import Source, draw, load, require_split, split_of
from harness.errors import UsageError
from harness.types import Problem
from harness_math.rows import read


class PublicSet(NamedTuple):
    """`files` maps a split to its file; one file under "train" and "selection" is shared out by content hash.

    `rows` picks rows of the file by `extra_info.index`. `carried` is the number of rows of the local copy where that of
    the hub has another. `part` names a file of the data folder that holds the known part of a set (Source.part_rows) and
    serves, with a warning, where the whole is not there.
    """

    files: Mapping[str, Source]
    note: str
    max_tokens: int = 3072
    rows: tuple[int, ...] = ()
    carried: int = 0
    part: str = ""


# extra_info.index of pi_1, pi_2, pi_13 and pi_1209 (Wang et al., arXiv 2504.20571).
EXAMPLES = {"pi1": 124, "pi2": 267, "pi13": 682, "pi1209": 789}
_MATH500 = Source(
    "math/math500.jsonl",
    "HuggingFaceH4/MATH-500",
    "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
    "test.jsonl",
    "MIT",
    rows=500,
    part_rows=250,
)
_GSM8K_TRAIN, _GSM8K_TEST = (
    Source(
        f"math/gsm8k_{part}.jsonl",
        "openai/gsm8k",
        "740312add88f781978c0658806c59bc2815b9866",
        f"main/{part}-00000-of-00001.parquet",
        "MIT",
        rows,
    )
    for part, rows in (("train", 7473), ("test", 1319))
)
# No pinned revision of this repository is known, so the content itself is checked (DSR_DIGEST).
_DSR_SUB = Source(
    "one_shot_rlvr/dsr_sub.jsonl",
    "ypwang61/One-Shot-RLVR-Datasets",
    "main",
    "data/dsr_sub-00000-of-00001.parquet",
    "Apache-2.0",
    1209,
)
DSR_DIGEST = "779b1b2c9d6058c7911aa8d141e95c92070b1ec7deb403599411ee62b51fecb7"


def _test_only(file: str, repo: str, revision: str, path: str, *, rows: int) -> Mapping[str, Source]:
    return {"test": Source(f"math/{file}", repo, revision, path, "Apache-2.0", rows)}


SETS: Mapping[str, PublicSet] = {
    "math500": PublicSet({"test": _MATH500}, "MATH-500", part="math/math500_dev.jsonl"),
    "gsm8k": PublicSet(
        {"train": _GSM8K_TRAIN, "selection": _GSM8K_TRAIN, "test": _GSM8K_TEST}, "GSM8K", max_tokens=1024
    ),
    "aime24": PublicSet(
        _test_only(
            "aime24.jsonl",
            "math-ai/aime24",
            "83a7f387baaa524a8bda0022eac0541582297103",
            "test-00000-of-00001.parquet",
            rows=30,
        ),
        "AIME 2024 I and II",
    ),
    "aime25": PublicSet(
        _test_only("aime25.jsonl", "math-ai/aime25", "563bb8404243c5f09de6ec262f2db674fe5bce9b", "test.jsonl", rows=30),
        "AIME 2025 I and II",
    ),
    "amc23": PublicSet(
        _test_only(
            "amc23.jsonl",
            "math-ai/amc23",
            "80815d37005feb82cd7f8fbc6901d5d3eff43057",
            "test-00000-of-00001.parquet",
            rows=40,
        ),
        "AMC 12 2023 A and B with numeric answers",
    ),
    "minerva": PublicSet(
        _test_only(
            "minerva_math.jsonl",
            "math-ai/minervamath",
            "ee46ddc498933b1977577953250ca5c66be64f96",
            "test.jsonl",
            rows=272,
        ),
        "Minerva Math (OCW courses)",
    ),
    "olympiadbench": PublicSet(
        _test_only(
            "olympiadbench.jsonl",
            "math-ai/olympiadbench",
            "4faaf1e6ec17d11a4218a9bf4c049ecaf954dd84",
            "test.parquet",
            rows=674,
        ),
        "OlympiadBench, English text-only mathematics: 674 rows on the hub, 675 in the copy of Qwen2.5-Math",
        carried=675,
    ),
    "dsr_sub": PublicSet({"train": _DSR_SUB, "selection": _DSR_SUB}, "DSR-sub, the 1,209 examples of One-Shot-RLVR"),
    **{
        name: PublicSet(
            {"train": _DSR_SUB, "selection": _DSR_SUB},
            f"the single training example {name} of One-Shot-RLVR",
            rows=(index,),
        )
        for name, index in EXAMPLES.items()
    },
}


def benchmarks() -> Iterator[Benchmark]:
    for name, public in SETS.items():
        source = next(iter(public.files.values()))
        yield Benchmark(
            name=name,
            splits=tuple(public.files),
            answer_format="lenient",
            licence=source.licence,
            source=f"{public.note}: {source.repo} at {source.revision}",
            max_tokens=public.max_tokens,
        )


def problems(benchmark: str, split: str, *, seed: int, limit: int) -> Iterator[Problem]:
    """Raises UsageError for a split that the benchmark does not have, and where its file is not to be had."""
    public = SETS[benchmark]
    require_split(benchmark, split, public.files)
    rows = _rows(benchmark, public.files[split])
    only = public.rows if split == "train" else ()
    found = (_problem(benchmark, row) for row in rows if _is_meant(row, only))
    if "selection" in public.files and split != "test" and not only:
        found = (problem for problem in found if _is_selected(problem) == (split == "selection"))
    return draw(found, split, seed=seed, limit=limit)


def _rows(benchmark: str, source: Source) -> list[dict[str, Any]]:
    folder, public = config.data_folder(), SETS[benchmark]
    at_hand = [file for file in (source.file, public.part) if file and folder is not None and (folder / file).exists()]
    copy = source._replace(file=at_hand[0], rows=public.carried or source.rows) if at_hand else source
    rows = load(copy)
    if source is _DSR_SUB and digest(rows) != DSR_DIGEST:
        raise UsageError(
            f"{source.file} or {source.path} of {source.repo} is not the DSR-sub that this benchmark means"
        )
    return rows


def digest(rows: list[dict[str, Any]]) -> str:
    """sha256 of DSR-sub's prompts and labels in the order of their indices, whatever file they came in."""
    content = sorted(
        [row["extra_info"]["index"], row["prompt"][0]["content"], row["reward_model"]["ground_truth"]] for row in rows
    )
    return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()


def _is_meant(row: Mapping[str, Any], only: Collection[int]) -> bool:
    """One row of DSR-sub has an empty label: nothing could be right, so it is left out. `only`: indices, if any."""
    if "extra_info" not in row:
        return True
    labelled = bool(row["reward_model"]["ground_truth"].strip())
    return labelled and (not only or row["extra_info"]["index"] in only)


def _problem(benchmark: str, row: Mapping[str, Any]) -> Problem:
    problem = read(row)
    return Problem(
        id=f"{benchmark}/{problem.id}",
        prompt=problem.prompt,
        answer=problem.answer,
        level=problem.level,
        subject=problem.subject,
        meta=problem.meta,
    )


def _is_selected(problem: Problem) -> bool:
    """A fifth by content hash; never one of the examples that the single-example benchmarks train on."""
    examples = {str(index) for index in EXAMPLES.values()}
    named = problem.id.split("/")  # dsr_sub/124, or pi1/124 where one of them selects on the rest
    return split_of(problem) == "selection" and not (named[0] in ("dsr_sub", *EXAMPLES) and named[1] in examples)
