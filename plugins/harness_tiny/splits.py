"""How the ladders share out their problem spaces.

Does: assign a problem to one of four splits by its content hash alone, and stream distinct problems of one split
with levels in rotation and rules stratified within each level.
Doesn't: know any domain. A split never depends on a seed, so no run can train on another run's test problems, nor
on anything the embedded model was pretrained on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Generic, NamedTuple, Protocol, TypeVar

from harness.seeds import python_random, seed_for
from harness.types import Problem

SPLITS = ("pretrain", "train", "selection", "test")
LEVELS = (1, 2, 3, 4, 5)
_BOUNDS = (("pretrain", 60), ("train", 80), ("selection", 87), ("test", 100))
_REPEATS = 60
_DRAWS = 20_000


class Prompted(Protocol):
    """A drawn problem before it is built."""

    @property
    def prompt(self) -> str: ...


Stratum = TypeVar("Stratum")
Spec = TypeVar("Spec", bound=Prompted)


class Ladder(NamedTuple, Generic[Stratum, Spec]):
    """What a domain gives: its strata (rules) by level, `draw` a spec of one, and `build` the problem.

    Both may return None for an unusable draw; `build` may be slow, it only sees specs of the wanted split.
    """

    domain: str
    strata: Mapping[int, Sequence[Stratum]]
    draw: Callable[[random.Random, int, Stratum], Spec | None]
    build: Callable[[Spec], Problem | None]


def content_hash(prompt: str) -> str:
    return Problem(id="", prompt=prompt, answer=None).content_hash


def split_of(content_hash: str) -> str:
    """The split of a problem: pretrain 60 %, train 20 %, selection 7 %, test 13 % of the hash space."""
    bucket = int(content_hash[:12], 16) % 100
    return next(name for name, bound in _BOUNDS if bucket < bound)


def stream(ladder: Ladder[Stratum, Spec], split: str, *, seed: int, limit: int) -> Iterator[Problem]:
    """Up to `limit` distinct problems of `split`, level 1 to 5 in rotation, fewer when every stratum is exhausted.

    A stratum counts as exhausted when, without a new problem, `_REPEATS` draws of the split were seen before, or
    `_DRAWS` draws were made. ValueError for an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f'no ladder split "{split}"; known: {", ".join(SPLITS)}')
    rng = python_random(seed_for(seed, f"ladder/{ladder.domain}/{split}"))
    seen: set[str] = set()
    levels = [_level(ladder, level, split, rng=rng, seen=seen) for level in LEVELS]
    produced = 0
    while levels and produced < limit:
        for source in list(levels):
            problem = next(source, None) if produced < limit else None
            if problem is not None:
                produced += 1
                yield problem
            elif produced < limit:
                levels.remove(source)


def _level(
    ladder: Ladder[Stratum, Spec], level: int, split: str, *, rng: random.Random, seen: set[str]
) -> Iterator[Problem]:
    strata = list(ladder.strata[level])
    while strata:
        rng.shuffle(strata)
        for stratum in list(strata):
            problem = _fresh(ladder, level, stratum, split=split, rng=rng, seen=seen)
            if problem is None:
                strata.remove(stratum)
            else:
                yield replace(problem, id=f"ladder/{ladder.domain}/L{level}/{problem.content_hash[:12]}")


def _fresh(
    ladder: Ladder[Stratum, Spec], level: int, stratum: Stratum, *, split: str, rng: random.Random, seen: set[str]
) -> Problem | None:
    repeats = 0
    for _ in range(_DRAWS):
        spec = ladder.draw(rng, level, stratum)
        digest = "" if spec is None else content_hash(spec.prompt)
        if spec is None or split_of(digest) != split:
            continue
        if digest in seen:
            repeats += 1
            if repeats == _REPEATS:
                return None
            continue
        seen.add(digest)
        problem = ladder.build(spec)
        if problem is not None:
            return problem
    return None
