"""Watch what a method does, from outside: every engine call, and every file opened for writing.

Does: stand in for an engine and pass everything on; count rollouts by problem; stop a method at a chosen call, as a
kill would; hear of file writes from the interpreter itself.
Doesn't: trust what the run says of itself: that is what is being checked.
"""

from __future__ import annotations

import functools
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from harness.contracts import Engine, Method, Trainer
from harness.plugins import Registration
from harness.types import Contender, Policy, Rollout, Shard

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_FOLDER_ARGUMENT = {"os.mkdir": 2, "os.rename": 2, "os.remove": 1, "os.rmdir": 1, "os.link": 2, "os.symlink": 2}
_CHANGES = (*_FOLDER_ARGUMENT, "os.truncate")


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn(Registration):
    """A registration whose target is at hand."""

    made: Any

    def load(self) -> Any:
        return self.made


class Watch:
    """What happened while the method ran: `calls` of the engine, `rollouts` by problem, `written` paths.

    `stop_at` N raises KeyboardInterrupt at the method's N-th call, once.
    """

    def __init__(self, stop_at: int | None = None) -> None:
        self.inside = False
        self.calls = 0
        self.rollouts: Counter[str] = Counter()
        self.written: list[str] = []
        self.stop_at = stop_at

    def called(self) -> None:
        if not self.inside:
            return
        self.calls += 1
        if self.calls == self.stop_at:
            self.stop_at = None
            raise KeyboardInterrupt

    def drawn(self, shard: Shard) -> None:
        if self.inside:
            for request in shard:
                self.rollouts[request.problem_id] += len(request.sample_idxs)

    @contextmanager
    def running(self) -> Iterator[None]:
        self.inside = True
        try:
            with _listening(self.written):
                yield
        finally:
            self.inside = False


class WatchedEngine:
    """An engine that tells a watch of its calls. All that is not here is the engine's own."""

    def __init__(self, inner: Engine, watch: Watch) -> None:
        self._inner, self._watch = inner, watch

    def __getattr__(self, name: str) -> Any:
        """Optional methods of engines are watched where the inner one has them."""
        found = getattr(self._inner, name)
        watched = {
            "sample_each": self._sample_each,
            "hidden": self._hidden,
            "moments": self._moments,
            "actor_critic": self._actor_critic,
        }
        return watched.get(name, found)

    def sample(self, shards: Sequence[Shard], policy: Policy) -> Iterator[list[Rollout]]:
        return self._told(shards, self._inner.sample(shards, policy))

    def _sample_each(self, shards: Sequence[Shard], policies: Sequence[Policy]) -> Iterator[list[Rollout]]:
        inner: Any = self._inner
        return self._told(shards, inner.sample_each(shards, policies))

    def _told(self, shards: Sequence[Shard], drawn: Iterator[list[Rollout]]) -> Iterator[list[Rollout]]:
        for shard, rollouts in zip(shards, drawn, strict=True):
            self._watch.called()
            self._watch.drawn(shard)
            yield rollouts

    def _hidden(self, *arguments: Any, **options: Any) -> Any:
        self._watch.called()
        inner: Any = self._inner
        return inner.hidden(*arguments, **options)

    def _moments(self, *arguments: Any, **options: Any) -> Any:
        self._watch.called()
        inner: Any = self._inner
        return inner.moments(*arguments, **options)

    def _actor_critic(self, *arguments: Any, **options: Any) -> WatchedTrainer:
        inner: Any = self._inner
        return WatchedTrainer(inner.actor_critic(*arguments, **options), self._watch)

    def score(self, *arguments: Any, **options: Any) -> Any:
        self._watch.called()
        return self._inner.score(*arguments, **options)

    def gradient(self, *arguments: Any, **options: Any) -> Any:
        self._watch.called()
        return self._inner.gradient(*arguments, **options)

    def trainer(self, *arguments: Any, **options: Any) -> WatchedTrainer:
        return WatchedTrainer(self._inner.trainer(*arguments, **options), self._watch)


class WatchedTrainer:
    """A trainer that tells a watch of its steps."""

    def __init__(self, inner: Trainer, watch: Watch) -> None:
        self._inner, self._watch = inner, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def step(self, *arguments: Any, **options: Any) -> Mapping[str, float]:
        self._watch.called()
        return self._inner.step(*arguments, **options)

    def values(self, *arguments: Any, **options: Any) -> Any:
        """Of an actor-critic."""
        self._watch.called()
        inner: Any = self._inner
        return inner.values(*arguments, **options)


class WatchedMethod:
    """A method whose run a watch knows to be one."""

    def __init__(self, inner: Method, watch: Watch) -> None:
        self._inner, self._watch = inner, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def run(self, stages: Any) -> Contender:
        with self._watch.running():
            return self._inner.run(stages)


@functools.cache
def _listeners() -> list[list[str]]:
    """Lists that hear of every write. The hook that tells them cannot be taken away, so there is one for all."""
    listeners: list[list[str]] = []

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if not listeners or (event != "open" and event not in _CHANGES):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
            return
        if isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.path.join(_folder(event, arguments), os.fsdecode(arguments[0]))
            for listener in listeners:
                listener.append(os.path.realpath(path))

    sys.addaudithook(hear)
    return listeners


def _folder(event: str, arguments: tuple[Any, ...]) -> str:
    """What a relative path is relative to: `shutil.rmtree` names files by an open folder (dir_fd)."""
    place = _FOLDER_ARGUMENT.get(event)
    link = f"/proc/self/fd/{arguments[place] if place is not None else -1}"
    return os.readlink(link) if os.path.islink(link) else ""


@contextmanager
def _listening(written: list[str]) -> Iterator[None]:
    _listeners().append(written)
    try:
        yield
    finally:
        _listeners().remove(written)
