"""Tasks for workers that can be lost: results in order, whoever computes them.

Does: hand each task to the worker with the fewest, the one first that it has most of the ingredients of; keep one waiting
at each; yield results in task order with a bounded look-ahead; give what a lost worker had not answered to the others.
Doesn't: know what a worker is or what a task needs (workers.py, ray.py, sending.py), or replace a worker that was lost.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from harness.errors import HarnessError

QUEUED = 2  # tasks at a worker: the one it computes and the next
LOOK_AHEAD = 4  # tasks per worker that are under way or finished while an earlier one is awaited


class Lost(Exception):
    """The worker is gone and will not answer; its text says how."""


class Crew(Protocol):
    """How workers are reached. A worker does its tasks in the order in which they were submitted."""

    def submit(self, worker: Any, message: Any) -> Hashable:
        """Returns a ticket at once."""
        ...

    def wait(self, tickets: Sequence[Any]) -> Iterable[Any]:
        """Those of the tickets that are answered, or whose worker is lost: one at least."""
        ...

    def result(self, ticket: Any) -> Any:
        """Raises Lost, or HarnessError with what the task raised."""
        ...

    def end(self, worker: Any) -> None: ...


class Job(Protocol):
    """A task on its way to a worker and back."""

    def worth(self, worker: Hashable) -> float:
        """How much of what the task needs the worker has."""
        ...

    def message(self, worker: Hashable) -> Any: ...
    def taken(self, worker: Hashable, answer: Any) -> Any:
        """The result that the answer holds. A worker's answers are taken in the order of its tasks."""
        ...


class Plain(NamedTuple):
    """A job that travels as it is, to anyone; implements Job."""

    content: Any

    def worth(self, worker: Hashable) -> float:
        return 0.0

    def message(self, worker: Hashable) -> Any:
        return self.content

    def taken(self, worker: Hashable, answer: Any) -> Any:
        return answer


class _Sent(NamedTuple):
    ticket: Hashable
    place: int


class Pool:
    """`workers` as the crew knows them. Not for two loops at a time."""

    def __init__(self, crew: Crew, workers: Sequence[Hashable]) -> None:
        self._crew, self._workers, self._count = crew, list(workers), len(workers)
        self._abandoned: _Round | None = None  # a loop that was left before its end, with tasks under way

    def run(self, jobs: Sequence[Job]) -> Iterator[Any]:
        """Results in the order of the jobs. Raises HarnessError when a task fails, or when no worker is left."""
        if self._abandoned is not None:  # only now: when the run is over, nobody waits for what is being computed
            self._abandoned.drain()
        now = self._abandoned = _Round(self._crew, self._workers, jobs)
        given = 0
        while given < len(jobs):
            if not self._workers:
                raise HarnessError(
                    f"all {self._count} workers were lost. Finished shards are kept: `harness resume RUN` starts "
                    "new ones. If memory was short, use fewer --workers or a smaller engine.shard_rollouts."
                )
            now.hand_out(given + LOOK_AHEAD * len(self._workers))
            now.collect()
            while given in now.results:
                yield now.results.pop(given)
                given += 1
        self._abandoned = None

    def close(self) -> None:
        for worker in self._workers:
            self._crew.end(worker)
        self._workers.clear()


class _Round:
    """One loop over jobs. `held` are the tasks at each worker, `results` those not yet given out, by place."""

    def __init__(self, crew: Crew, workers: list[Hashable], jobs: Sequence[Job]) -> None:
        self._crew, self._workers, self._jobs = crew, workers, jobs
        self._waiting = list(range(len(jobs)))
        self.held: dict[Hashable, deque[_Sent]] = {worker: deque() for worker in workers}
        self.results: dict[int, Any] = {}

    def hand_out(self, end: int) -> None:
        """Of the jobs before `end`, as many as workers have room for."""
        while ready := [place for place in self._waiting if place < end]:
            worker = min(self.held, key=lambda known: len(self.held[known]))
            if len(self.held[worker]) == QUEUED:
                return
            place = max(ready, key=lambda one: (self._jobs[one].worth(worker), -one))
            ticket = self._crew.submit(worker, self._jobs[place].message(worker))
            self._waiting.remove(place)
            self.held[worker].append(_Sent(ticket, place))

    def collect(self) -> None:
        """Wait for an answer; only the first task of a worker can have one."""
        firsts = {own[0].ticket: worker for worker, own in self.held.items() if own}
        for ticket in self._crew.wait(list(firsts)):
            self._take(firsts[ticket])

    def _take(self, worker: Hashable) -> None:
        sent = self.held[worker].popleft()  # before the answer: an error must not leave it marked as held
        try:
            answer = self._crew.result(sent.ticket)
        except Lost as loss:
            self.held[worker].appendleft(sent)
            self._lose(worker, loss)
        else:
            self.results[sent.place] = self._jobs[sent.place].taken(worker, answer)

    def _lose(self, worker: Hashable, loss: Lost) -> None:
        again = [sent.place for sent in self.held.pop(worker)]
        self._waiting = sorted([*self._waiting, *again])
        self._workers.remove(worker)
        self._crew.end(worker)
        warnings.warn(
            f"a worker was lost ({loss}): {len(again)} tasks go to the {len(self._workers)} that are left", stacklevel=2
        )

    def drain(self) -> None:
        """An abandoned loop must not leave answers behind for the next one."""
        for worker, own in self.held.items():
            for sent in own:
                with suppress(Lost, HarnessError):
                    self._jobs[sent.place].taken(worker, self._crew.result(sent.ticket))
            own.clear()
