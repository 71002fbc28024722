"""Which problems a run learns from, chooses on and is tested on.

Does: resolve names (benchmarks of the domain, one level of them as in ladder@3, or .jsonl files of rows) for the three
splits; read rows; draw problems, evenly from several sources; refuse problems that two splits share, by content.
Doesn't: know what a row means: that is the domain's `read`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import NamedTuple

from harness import completions, datasets, jsonlines
from harness.config import RunSpec, is_file
from harness.contracts import Benchmark, Domain
from harness.errors import BadRow, HarnessError, UnknownName, UsageError
from harness.types import Problem

SPLITS = ("train", "selection", "test")
DEFAULT_BENCHMARK = "ladder"
AT = "@"  # before a level, in the name of a source
DRAWN_FOR_ONE = 20  # problems of a benchmark that are looked at, at most, for each one of a level
FILE_MAX_TOKENS = 1024  # for completions of problems read from a file, which does not say


class Names(NamedTuple):
    """The sources of each split: benchmark names or .jsonl files."""

    train: tuple[str, ...]
    selection: tuple[str, ...]
    test: tuple[str, ...]

    def __str__(self) -> str:
        trained, tested = ("+".join(label(name) for name in part) for part in (self.train, self.test))
        return tested if trained == tested else f"{trained} -> {tested}"


class Selected(NamedTuple):
    """Training problems by run seed, selection problems, test problems by test set; `max_tokens` of a completion."""

    names: Names
    train: Mapping[int, tuple[Problem, ...]]
    selection: tuple[Problem, ...]
    test: Mapping[str, tuple[Problem, ...]]
    max_tokens: int


def names(domain: Domain, spec: RunSpec) -> Names:
    """What the spec means by its names.

    `benchmark` stands for all three. Where only `data.train` or only `data.test` is given, it serves the other splits
    too, as far as it has them. Raises UnknownName, or UsageError for a split that a source does not have.
    """
    data = spec.data
    default = spec.benchmark or ("" if data.train or data.test else DEFAULT_BENCHMARK)
    common = (default,) if default else ()
    train = data.train or common or _having(domain, data.test, "train")
    test = data.test or common or _having(domain, data.train, "test")
    selection = data.selection or _having(domain, train, "selection") or _having(domain, test, "selection")
    found = Names(train, selection, test)
    for split, chosen in zip(SPLITS, found, strict=True):
        _require(domain, split, chosen, given=(*common, *data.train, *data.test))
    return found


def _splits(domain: Domain, name: str) -> tuple[str, ...]:
    return SPLITS if is_file(name) else find_benchmark(domain, name).splits


def _having(domain: Domain, sources: Sequence[str], split: str) -> tuple[str, ...]:
    return tuple(name for name in sources if split in _splits(domain, name))


def _require(domain: Domain, split: str, sources: Sequence[str], *, given: Sequence[str]) -> None:
    how = {"train": "--train NAME", "test": "--test NAME", "selection": "--set data.selection=NAME"}[split]
    for name in sources or given:
        if split not in _splits(domain, name):
            raise UsageError(
                f"{name} has no {split} problems (it has: {', '.join(_splits(domain, name))}); name a benchmark of "
                f"{domain.name} that has some with {how}: {', '.join(_known(domain, split))}"
            )


def _known(domain: Domain, split: str) -> list[str]:
    return [benchmark.name for benchmark in domain.benchmarks() if split in benchmark.splits]


def label(name: str) -> str:
    """How a source is called in rows: a file by its stem."""
    return Path(name).stem if is_file(name) else name


class Source(NamedTuple):
    """A benchmark, all of it or one level."""

    name: str
    level: int | None


def _parsed(name: str) -> Source:
    benchmark, at, level = name.partition(AT)
    if at and not level.isdecimal():
        raise UsageError(f"{name}: a level is a number, as in {benchmark}{AT}3")
    return Source(benchmark, int(level) if at else None)


def _drawn(domain: Domain, name: str, split: str, *, seed: int, limit: int) -> Iterator[Problem]:
    """Problems of a benchmark; those of one level are the first ones of that level that the whole benchmark gives."""
    source = _parsed(name)
    if source.level is None:
        return domain.problems(name, split, seed=seed, limit=limit)
    found = domain.problems(source.name, split, seed=seed, limit=DRAWN_FOR_ONE * limit)
    return islice((problem for problem in found if problem.level == source.level), limit)


def find_benchmark(domain: Domain, name: str) -> Benchmark:
    name = _parsed(name).name
    benchmarks = {benchmark.name: benchmark for benchmark in domain.benchmarks()}
    if name not in benchmarks:
        raise UnknownName(
            f"benchmark of {domain.name}",
            name,
            benchmarks,
            hint="Choose with --benchmark NAME; a file of rows ends in .jsonl.",
        )
    return benchmarks[name]


def select(domain: Domain, spec: RunSpec) -> Selected:
    """Training problems by seed; selection and test are the same for all seeds.

    Raises UsageError for an empty split or a row that cannot be read, HarnessError for problems in two splits.
    """
    chosen = names(domain, spec)
    files = {
        name: read_file(domain, Path(name)) for name in sorted({n for part in chosen for n in part}) if is_file(name)
    }

    def draw(sources: Sequence[str], split: str, *, seed: int, limit: int) -> tuple[Problem, ...]:
        lists = [
            datasets.draw(files[name][split], split, seed=seed, limit=limit)
            if name in files
            else _drawn(domain, name, split, seed=seed, limit=limit)
            for name in sources
        ]
        return _evenly([list(problems) for problems in lists], limit)

    found = Selected(
        names=chosen,
        train={s: draw(chosen.train, "train", seed=s, limit=spec.num_train_problems) for s in range(spec.seeds)},
        selection=draw(chosen.selection, "selection", seed=0, limit=spec.search.problems),
        test={label(n): draw([n], "test", seed=0, limit=spec.evaluation.problems) for n in chosen.test},
        max_tokens=spec.sampling.max_tokens or max_tokens(domain, chosen),
    )
    _check(found)
    return found


def _evenly(lists: Sequence[Sequence[Problem]], limit: int) -> tuple[Problem, ...]:
    """One of each source in turn, each problem once."""
    first: dict[str, Problem] = {}
    for rank in zip_longest(*lists):
        for problem in rank:
            if problem is not None:
                first.setdefault(problem.content_hash, problem)
    return tuple(first.values())[:limit]


def max_tokens(domain: Domain, chosen: Names) -> int:
    """Of a completion: the most that any of the sources wants."""
    every = {name for part in chosen for name in part}
    return max(FILE_MAX_TOKENS if is_file(name) else find_benchmark(domain, name).max_tokens for name in every)


def _check(found: Selected) -> None:
    tests = {f"test set {name}": problems for name, problems in found.test.items()}
    train = {f"train of seed {seed}": problems for seed, problems in found.train.items()}
    sets = {"selection": found.selection, **tests, **train}
    for name, problems in sets.items():
        if not problems:
            raise UsageError(f"there are no problems for {name}{_why(found.names)}")
    hashes = {name: {problem.content_hash for problem in problems} for name, problems in sets.items()}
    held_out = [("selection", other) for other in (*tests, *train)] + [
        (test, other) for test in tests for other in train
    ]
    for name, other in held_out:
        if shared := hashes[name] & hashes[other]:
            raise HarnessError(f"{len(shared)} problems are in both {name} and {other}: results would be inflated")


def _why(chosen: Names) -> str:
    files = sorted({name for part in chosen for name in part if is_file(name)})
    if not files:
        return ""
    return (
        f": rows of a file belong to the split that their field `split` names, else to one by content (50 % train, 20 % selection, "
        f"30 % test), and {', '.join(files)} has none for this one. Give more rows, that field, or --train, --test and --set data.selection=..."
    )


def _named(problem: Problem, prefix: str) -> Problem:
    return dataclasses.replace(problem, id=f"{prefix}/{problem.id}")


def read_file(domain: Domain, path: Path) -> dict[str, list[Problem]]:
    """Problems of a .jsonl file by split: a row's own `split`, else by content hash (50 / 20 / 30 %).

    Ids get the file's name in front. Raises UsageError that names file, line and field.
    """
    reader = completions.reading(domain)
    found: dict[str, list[Problem]] = {split: [] for split in SPLITS}
    lines: dict[str, int] = {}
    for number, row in jsonlines.rows(path):
        place = f"{path}, line {number}"
        try:
            problem = _named(completions.read_row(reader, row), path.stem)
        except BadRow as error:
            raise UsageError(f"{place}: {error}") from error
        if lines.setdefault(problem.id, number) != number:
            raise UsageError(f"{place}: id {problem.id} is that of line {lines[problem.id]} already")
        split = row.get("split", datasets.split_of(problem))
        if split not in SPLITS:
            raise UsageError(f"{place}: field split is {split!r}; it must be one of {', '.join(SPLITS)}")
        found[split].append(problem)
    return found
