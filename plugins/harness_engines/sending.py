"""What travels to workers that share no folder with the run, and what each of them has already.

Does: make the message of a task: a policy's files once for each content, a sub-batch as arrays but for the rollouts that
the worker drew itself; remember from the answers which ones those are.
Doesn't: choose workers (pooling.py) or open messages (hosting.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from harness.contracts import Batch
from harness.types import Move, Policy, Rollout, WeightedGroup
from harness_engines.hosting import KEPT_FILES, Answer, Key, Message, Portion, key_of


class Sender:
    """`root` is the run folder; `put` turns a file's bytes (an array of uint8) into a reference that workers can fetch."""

    def __init__(self, root: Path, put: Callable[[Any], Any]) -> None:
        self._root, self._put = root, put
        self._references: dict[str, Any] = {}
        self.held: dict[Hashable, set[Key]] = defaultdict(set)

    def message(self, name: str, arguments: tuple[Any, ...]) -> Message:
        moves = [move for one in arguments if isinstance(one, Policy) for move in one.moves if move.path]
        files = {move.digest: self._reference(move) for move in moves}
        return Message(name, tuple(_there(a) if isinstance(a, Policy) else a for a in arguments), files)

    def _reference(self, move: Move) -> Any:
        found = self._references.pop(move.digest, None)
        if found is None:
            found = self._put(np.fromfile(self._root / move.path, dtype=np.uint8))
        while len(self._references) >= KEPT_FILES:
            self._references.pop(next(iter(self._references)))
        self._references[move.digest] = found  # the last one used comes last
        return found

    def note(self, worker: Hashable, answer: Answer) -> None:
        self.held[worker].update(answer.kept)
        self.held[worker].difference_update(answer.dropped)


def _there(policy: Policy) -> Policy:
    """As a worker knows it: files lie in its folder under their digests."""
    return replace(policy, moves=tuple(replace(m, path=m.digest) if m.path else m for m in policy.moves))


class Errand:
    """A task whose arguments travel as they are; implements harness_engines.pooling.Job."""

    def __init__(self, sender: Sender, name: str, arguments: tuple[Any, ...]) -> None:
        self.sender, self.name, self.arguments = sender, name, arguments

    def worth(self, worker: Hashable) -> float:
        return 0.0

    def message(self, worker: Hashable) -> Message:
        return self.sender.message(self.name, self.arguments)

    def taken(self, worker: Hashable, answer: Answer) -> Any:
        self.sender.note(worker, answer)
        return answer.value


class Reduction(Errand):
    """A sub-batch (the first two arguments: the batch and its index) to be reduced where most of it lies."""

    @cached_property
    def _tokens(self) -> Mapping[Key, int]:
        """Read twice, here and for the message, so that not all sub-batches are in memory at once."""
        return {key_of(r): len(r.completion_tokens) for group in self._groups() for r in group.rollouts}

    def _groups(self) -> Iterator[WeightedGroup]:
        batch: Batch = self.arguments[0]
        return batch.read(self.arguments[1])

    def worth(self, worker: Hashable) -> float:
        held = self.sender.held[worker]
        return sum(tokens for key, tokens in self._tokens.items() if key in held) if held else 0.0

    def message(self, worker: Hashable) -> Message:
        batch, held = self.arguments[0], self.sender.held[worker]
        groups = tuple(_named(group, held) for group in self._groups())
        portion = Portion(groups, batch.temperature, batch.normaliser)
        return self.sender.message(self.name, (portion, 0, *self.arguments[2:]))


def _named(group: WeightedGroup, held: set[Key]) -> WeightedGroup:
    """Keys in the place of rollouts that the worker has; the others without what no gradient needs."""
    keys = [key_of(rollout) for rollout in group.rollouts]
    sent = [k if k in held else replace(r, text="", entropies=None) for k, r in zip(keys, group.rollouts, strict=True)]
    return group._replace(rollouts=cast("tuple[Rollout, ...]", tuple(sent)))
