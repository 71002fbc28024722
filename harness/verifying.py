"""Judge many completions in worker processes that can be killed.

Does: run `Domain.verify` in a pool of fresh interpreters, bound the wall time and memory of every single item,
retry each failure alone, and turn every failure into a `Verdict`.
Doesn't: import the domain (or torch) in the calling process, or decide what an outcome is worth. The verifier's
own limits for model-written programs belong to the domain.

What is a fact about the completion and what is a fault of the verifier:

1. A limit hit in the crowd may be the machine's fault, so the item runs again with every other worker idle. Hit
   again, in wall time or memory: `TIMEOUT`. A domain that reports `TIMEOUT` itself is asked twice for the same reason.
2. An exception in `verify`, or a worker that dies unexplained, is retried once in a fresh worker. Again: `ERROR`.
3. The clock is the parent's. An alarm inside the worker would not interrupt one long call into C.
"""

from __future__ import annotations

import re
import select
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from harness.errors import VerifierFailure
from harness.supervising import Done, Failure, Item, Worker
from harness.types import Outcome, Problem, Verdict

CHUNK, LULL_LEAST, LULL_MOST = 64, 0.0002, 0.002
# A worker starts in about 0.2 s; fewer items than this are judged before a second one is there.
ITEMS_PER_WORKER = 8
ERROR_COUNT, ERROR_SHARE = 20, 0.01
AGAIN = (Outcome.TIMEOUT, Outcome.ERROR)  # also where the domain says so itself
REASONS = 5  # the commonest, in the message that stops a run


class VerifierPool:
    """Workers that judge (problem, completion) pairs by the domain at `target` ("package.module:Class").

    `time_limit` is the wall seconds of one item where the domain has no `time_limit(problem)`, `override` (a user's
    wish) those of every item; `memory_limit` is the address space in bytes that a worker may grow by. Workers start
    when needed, serve every later call, and end with `close()`, with the `with` block, or with the calling process (on
    Linux: with the thread that started them).
    """

    def __init__(
        self,
        target: str,
        *,
        workers: int = 1,
        time_limit: float = 2.0,
        override: float | None = None,
        memory_limit: int = 2 << 30,
    ) -> None:
        self._start = partial(Worker, target, time_limit=time_limit, override=override, memory_limit=memory_limit)
        self._count = max(1, workers)
        self._verifier = ""
        self._workers: list[Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def verify(
        self, items: Sequence[tuple[Problem, str]], on_progress: Callable[[int], None] | None = None
    ) -> list[Verdict]:
        """One verdict per item, in order; equal items are judged once. `on_progress` gets the number judged so far.

        Raises VerifierFailure when the domain cannot be imported or its workers do not start.
        """
        unique, places = _unique(items)
        copies = Counter(places)
        verdicts: dict[int, Verdict] = {}
        done = 0

        def keep(job: int, verdict: Verdict) -> None:
            nonlocal done
            verdicts[job] = verdict
            done += copies[job]
            if on_progress is not None:
                on_progress(done)

        try:
            suspects = self._crowd(unique, keep)
            self._alone(unique, suspects, keep)
        finally:
            self._retire([worker for worker in self._workers if worker.chunk or worker.ended])
        return [verdicts[place] for place in places]

    def _crowd(self, items: Sequence[Item], keep: Callable[[int, Verdict], None]) -> list[Done]:
        suspects = []
        count = min(self._count, -(-len(items) // ITEMS_PER_WORKER))
        for done in self._drive(items, deque(range(len(items))), count):
            if isinstance(done.result, Verdict) and done.result.outcome not in AGAIN:
                keep(done.job, done.result)
            else:
                suspects.append(done)
        return suspects

    def _alone(self, items: Sequence[Item], suspects: Sequence[Done], keep: Callable[[int, Verdict], None]) -> None:
        errors, spoiled = 0, False
        for job, first in sorted(suspects, key=lambda done: done.job):
            # Once the verifier has failed beyond doubt, thousands of retries would only delay the message.
            hopeless = errors >= ERROR_COUNT and errors > ERROR_SHARE * len(items)
            if hopeless and self._settle(first).outcome is Outcome.ERROR:
                keep(job, self._settle(first))
                continue
            if spoiled or _failed(first):
                self._retire(self._workers[:])
            ((_, second),) = self._drive(items, deque([job]), 1)
            verdict, spoiled = self._settle(second), _failed(second)
            errors += verdict.outcome is Outcome.ERROR
            keep(job, verdict)
        if spoiled:
            self._retire(self._workers[:])

    def _settle(self, found: Verdict | Failure) -> Verdict:
        if isinstance(found, Verdict):
            return found
        limit = found.kind in ("time", "memory")
        return Verdict(
            outcome=Outcome.TIMEOUT if limit else Outcome.ERROR,
            detail=f"{found.kind}: {found.detail}",
            seconds=found.seconds,
            verifier=self._verifier,
        )

    def _drive(self, items: Sequence[Item], queue: deque[int], count: int) -> Iterator[Done]:
        """Run the queue on at most `count` workers and yield what comes back, in any order."""
        while queue or any(worker.chunk for worker in self._workers):
            self._feed(items, queue, count)
            for worker in self._wait():
                worker.push()
                yield from worker.receive()
                self._verifier = worker.verifier or self._verifier
            now = time.monotonic()
            for worker in self._workers[:]:
                yield from worker.overdue(now)
                if worker.ended:
                    self._workers.remove(worker)
                    queue.extendleft(reversed(worker.chunk))

    def _feed(self, items: Sequence[Item], queue: deque[int], count: int) -> None:
        while queue and len(self._workers) < count:
            self._workers.append(self._start())
        for worker in self._workers[:count]:
            if queue and not worker.busy:
                # Guided sizes: large chunks first, single items at the end, so that all workers end together.
                size = max(1, min(CHUNK, len(queue) // (2 * count)))
                worker.send([queue.popleft() for _ in range(size)], items)

    def _wait(self) -> list[Worker]:
        """The workers with something to read, or room for what they are to get; none when a deadline comes first."""
        busy = {worker.replies.fileno(): worker for worker in self._workers if worker.busy}
        unsent = {worker.requests.fileno(): worker for worker in busy.values() if worker.unsent}
        poll = select.poll()  # not a selector: this runs once an item, and an epoll is four system calls
        for descriptor in busy:
            poll.register(descriptor, select.POLLIN)
        for descriptor in unsent:
            poll.register(descriptor, select.POLLOUT)
        patience = min((worker.deadline for worker in busy.values()), default=0.0) - time.monotonic()
        # A wake-up costs more than a quick item: answers gather in the pipe for half of what the chunk may still take.
        lull = min([LULL_MOST, patience, *((len(worker.chunk) - 1) * worker.pace / 2 for worker in busy.values())])
        if lull > LULL_LEAST and not unsent:
            time.sleep(lull)
        found = poll.poll(max(0.0, patience) * 1000)
        return list(dict.fromkeys(busy.get(d) or unsent[d] for d, _ in found))

    def _retire(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            self._workers.remove(worker)
            worker.kill()

    def close(self) -> None:
        """End every worker; a later `verify` starts new ones."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.requests.close()
        deadline = time.monotonic() + 1.0
        for worker in workers:
            worker.finish(deadline)


def _unique(items: Sequence[tuple[Problem, str]]) -> tuple[list[Item], list[int]]:
    """The distinct items, and for every item the place of its equal. By text, since == takes an answer True for 1."""
    versions: dict[str, list[Problem]] = {}
    firsts: dict[int, Problem] = {}  # by identity: the first that is equal
    known: dict[tuple[int, str], int] = {}
    unique: list[Item] = []
    places = []
    for problem, completion in items:
        first = firsts.get(id(problem))
        if first is None:
            same_id = versions.setdefault(problem.id, [])
            first = next((other for other in same_id if repr(other) == repr(problem)), problem)
            firsts[id(problem)] = first
            if first is problem:
                same_id.append(problem)
        place = known.setdefault((id(first), completion), len(unique))
        if place == len(unique):
            unique.append(Item(first, completion))
        places.append(place)
    return unique, places


def _failed(result: Verdict | Failure) -> bool:
    return isinstance(result, Failure) or result.outcome is Outcome.ERROR


def check_errors(verdicts: Sequence[Verdict], *, of: int = 0) -> None:
    """Raise VerifierFailure when ERROR verdicts are at least 20 and more than 1 %: the rewards cannot be trusted.

    `of` is the number of all verdicts, where more than these are to come.
    """
    errors, of = [verdict for verdict in verdicts if verdict.outcome is Outcome.ERROR], max(of, len(verdicts))
    if len(errors) >= ERROR_COUNT and len(errors) > ERROR_SHARE * of:
        raise VerifierFailure(
            f"the verifier failed on {len(errors)} of {of} completions (limit: 1 %). The commonest reasons:\n"
            f"{_commonest(errors)}\nJudge such a completion with `harness verify` to see the failure by itself."
        )


def _commonest(errors: Sequence[Verdict]) -> str:
    """Reasons with their counts, each by its first wording; those that differ in numbers and quotations are one."""
    firsts: dict[str, str] = {}
    kinds = [re.sub(r"\d+|'[^']*'|\"[^\"]*\"", "", verdict.detail) for verdict in errors]
    for kind, verdict in zip(kinds, errors, strict=True):
        firsts.setdefault(kind, " ".join(verdict.detail.split()) or "no reason given")
    return "\n".join(f"{count:>6} x {firsts[kind]}" for kind, count in Counter(kinds).most_common(REASONS))
