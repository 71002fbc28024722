"""Public data sets: one file each, from the data folder or from the Hugging Face hub at a pinned revision.

Does: find a file (HARNESS_DATA first, then the hub's cache, then the hub), read its rows, check their number; share
problems out to splits by content hash; put them in the order that every domain hands them out in. A set that has no
pinned copy on the hub is read from the data folder only, as a file or as a copy of its repository's folder.
Doesn't: know what a row means: that is the domain's `read`. It never falls back on another file or revision.

JSON Lines and JSON need nothing else; a parquet file needs pyarrow.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from harness import config, jsonlines, seeds
from harness.errors import UsageError
from harness.types import Problem

# By content hash, in per cent, for sets that come as one file. Frozen: other bounds would make other benchmarks.
BOUNDS = (("train", 50), ("selection", 70), ("test", 100))


class Source(NamedTuple):
    """One file of a public data set.

    `file` is its path under the data folder (JSON Lines or JSON), `path` the one in the hub's data set `repo` at
    `revision` (40 hex digits). It must have `rows` rows. A file in the data folder may have `part_rows` instead, where
    only a part of the set can be had as a plain file: that is warned about, since the score is not the published one.

    With `hub` False, `repo` and `revision` are a Git repository and its commit, and `path` a folder there with one JSON
    file a row, named by the row's task_id; a copy of it may stand in the data folder in place of `file`.
    """

    file: str
    repo: str
    revision: str
    path: str
    licence: str
    rows: int
    part_rows: int = 0
    hub: bool = True


def load(source: Source) -> list[dict[str, Any]]:
    """All rows, in the file's order.

    Raises UsageError when the file is neither in the data folder nor to be had from the hub (naming file, repository,
    revision and what to do), cannot be read, or does not have the number of rows that it must have.
    """
    folder = config.data_folder()
    local = None if folder is None else _place(folder / source.file)
    found = local if local is not None and local.exists() else _fetch(source, local)
    rows = read_rows(found)
    if len(rows) == source.part_rows and found == local:
        warnings.warn(
            f"{local} has {len(rows)} of the {source.rows} published rows: a score on it is not the benchmark's",
            stacklevel=2,
        )
    elif len(rows) != source.rows:
        allowed = f"{source.rows} rows" + (f" (or {source.part_rows}, a known part)" if source.part_rows else "")
        raise UsageError(
            f"{found} has {len(rows)} rows and must have {allowed}: it is cut off or another version. "
            f"Get {source.path} of {source.repo} at {source.revision}."
        )
    return rows


def _place(file: Path) -> Path:
    """The file, or the folder of one file a row that stands for it."""
    return file.with_suffix("") if not file.exists() and file.with_suffix("").is_dir() else file


def _fetch(source: Source, local: Path | None) -> Path:
    """The file from the hub or its cache; UsageError says how to get what cannot be had."""
    looked = f"there is no {local}" if local else "HARNESS_DATA is not set"
    place = "under a folder and set HARNESS_DATA to that folder"
    if not source.hub:
        raise UsageError(
            f"cannot find {source.path} of {source.repo}: {looked}. Clone the repository {source.repo}, check out "
            f"{source.revision}, and copy its {source.path} to {Path(source.file).with_suffix('')} {place}."
        )
    from huggingface_hub import constants, hf_hub_download  # slow to import: only where a file is not at hand
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(source.repo, source.path, revision=source.revision, repo_type="dataset"))
    except (OSError, EntryNotFoundError) as error:
        *_, reason = str(error).strip().splitlines() or [type(error).__name__]
        hub = "offline, the hub may not be asked" if constants.HF_HUB_OFFLINE else f"the hub fails ({reason})"
        raise UsageError(
            f"cannot get {source.path} of the Hugging Face data set {source.repo} at revision {source.revision}: "
            f"{looked}, and {hub}. Where there is a network, fetch it once with: "
            f"hf download {source.repo} {source.path} --repo-type dataset --revision {source.revision}; or put the "
            f"rows as JSON Lines into {source.file} {place}."
        ) from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl, .json (a list) or .parquet file, or of a folder of .json files (one row each, by name).

    Raises UsageError that names the file and the line.
    """
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        return [{"task_id": file.stem, **row} for file in files for row in read_rows(file)]
    if path.suffix == ".parquet":
        return _read_parquet(path)
    return jsonlines.whole(path) if path.suffix == ".json" else [row for _, row in jsonlines.rows(path)]


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise UsageError(f"{path} is a parquet file, which needs pyarrow: pip install pyarrow") from error
    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return rows


def split_of(problem: Problem) -> str:
    """The split of a problem by its content hash alone: train 50 %, selection 20 %, test 30 % of the hash space."""
    bucket = int(problem.content_hash[:12], 16) % 100
    return next(name for name, bound in BOUNDS if bucket < bound)


def split_by_hash(problems: Iterable[Problem], split: str) -> list[Problem]:
    """The problems of one split ("train", "selection" or "test"), in their order."""
    return [problem for problem in problems if split_of(problem) == split]


def draw(problems: Iterable[Problem], split: str, *, seed: int, limit: int) -> Iterator[Problem]:
    """What a domain's `problems` yields for a public set: "train" shuffled by `seed`, the rest in order; cut at `limit`.

    A problem that occurs twice (the same prompt) is kept once, where it stands first.
    """
    first: dict[str, Problem] = {}
    for problem in problems:
        first.setdefault(problem.content_hash, problem)
    distinct = list(first.values())
    if split == "train":
        seeds.python_random(seeds.seed_for(seed, "order")).shuffle(distinct)
    return iter(distinct[:limit])


def require_split(benchmark: str, split: str, known: Iterable[str]) -> None:
    """Raise UsageError that names the splits a benchmark has, unless `split` is one of them."""
    names = list(known)
    if split not in names:
        raise UsageError(f'benchmark {benchmark} has no split "{split}"; it has: {", ".join(names)}')
