"""How often completions speak of going over their own work: the words that Wang et al. (2504.20571) count.

Does: count, for every method, the sampled test completions that contain each word, over all test sets and seeds.
Doesn't: tell whether the reflection is any good. Where no method's completions hold a word there is nothing to show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from harness import shards
from harness.report import drawn
from harness.report.levels import Table
from harness.report.results import Results

WORDS = ("rethink", "recheck", "recalculate")


class Counted(NamedTuple):
    """`holding`: completions that contain each of WORDS; `any`: at least one of them."""

    method: str
    completions: int
    holding: tuple[int, ...]
    any: int


def rows(found: Results) -> list[Counted]:
    """One for each method, the base first; empty when no completion holds a word."""
    if not drawn.known(found):
        return []
    counted = [_count(found.label(method), list(_texts(found, method))) for method in found.methods]
    return counted if any(one.any for one in counted) else []


def _count(method: str, texts: Sequence[str]) -> Counted:
    lowered = [text.casefold() for text in texts]
    holding = tuple(sum(word in text for text in lowered) for word in WORDS)
    return Counted(method, len(texts), holding, sum(any(word in text for word in WORDS) for text in lowered))


def _texts(found: Results, method: str) -> Iterator[str]:
    for seed in found.seeds_of(method):
        for problems in found.tests.values():
            for folder in drawn.folders(found, method, seed, problems):
                yield from shards.texts(found.root, folder)


def table(found: Sequence[Counted]) -> Table:
    lines = [[c.method, str(c.completions), *map(str, c.holding), str(c.any)] for c in found]
    return Table(["method", "completions", *WORDS, "any of them"], lines)


def markdown(found: Results) -> str:
    return table(rows(found)).markdown("**Words of reflection** (test completions)")
