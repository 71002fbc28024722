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

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self

from harness import judging
from harness.errors import VerifierFailure
from harness.types import Outcome, Problem, Verdict

START_SECONDS = 120.0
CHUNK, LULL_LEAST, LULL_MOST = 64, 0.0002, 0.002
# A worker starts in about 0.2 s; fewer items than this are judged before a second one is there.
ITEMS_PER_WORKER = 8
ERROR_COUNT, ERROR_SHARE = 20, 0.01
OUTCOMES = {outcome.value: outcome for outcome in Outcome}
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from harness.judging import serve; serve()"


class _Failure(NamedTuple):
    kind: str  # "time", "memory", "exception" or "death"
    detail: str
    seconds: float


class _Done(NamedTuple):
    job: int
    result: Verdict | _Failure


class _Item(NamedTuple):
    problem: Problem
    completion: str


class _Worker:
    """One child interpreter and what it is busy with. Its start is not waited for."""

    def __init__(self, target: str, *, time_limit: float, override: float | None, memory_limit: int) -> None:
        options = json.dumps({"target": target, "memory": memory_limit, "parent": os.getpid()})
        # A group of its own, so that one killpg takes the domain's children too, and Ctrl-C reaches the parent only.
        self.process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, json.dumps(sys.path), options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.requests, self.replies = self.process.stdin, self.process.stdout
        os.set_blocking(self.replies.fileno(), False)
        self.time_limit, self.override = time_limit, override
        self.verifier, self.pace = "", 0.0  # seconds an item, lately
        self.chunk: deque[int] = deque()
        self._limits: deque[float | None] = deque()
        self._buffer = bytearray()
        self._started = time.monotonic()
        self.deadline = self._started + START_SECONDS

    @property
    def ready(self) -> bool:
        return bool(self.verifier)

    @property
    def busy(self) -> bool:
        return bool(self.chunk) or not self.ready

    def send(self, jobs: Sequence[int], items: Sequence[_Item]) -> None:
        """Hand over a chunk; the clock of its first item starts when the worker says that it has unpacked it."""
        payload = judging.pickled([tuple(items[job]) for job in jobs])
        self.chunk.extend(jobs)
        self._limits.clear()
        self.deadline = time.monotonic() + START_SECONDS
        with suppress(BrokenPipeError):  # the death shows as the end of `replies`
            view = memoryview(len(payload).to_bytes(8, "big") + payload)
            while view:
                view = view[self.requests.write(view) or 0 :]

    def receive(self) -> Iterator[_Done]:
        """Everything that has arrived. A dead worker yields a failure for the item it was at."""
        while data := self.replies.read(1 << 16):
            self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        for message in json.loads(f"[{b','.join(lines).decode()}]"):
            yield from self._message(message)
        if data is not None:  # the end, where None means that nothing more has come yet
            yield self._died()

    def _message(self, message: dict[str, Any] | list[Any]) -> Iterator[_Done]:
        if isinstance(message, list) or "failure" in message:
            result = self._result(message)
            self.pace += (result.seconds - self.pace) / 8
            yield _Done(self.chunk.popleft(), result)
            self._wind()
        elif "limits" in message:
            self._limits.extend(message["limits"])
            self._wind()
        elif "ready" in message:
            self.verifier = message["ready"]
        else:
            self.kill()
            raise VerifierFailure(f"the verifier did not start: {message['failed']}")

    def _result(self, message: dict[str, Any] | list[Any]) -> Verdict | _Failure:
        if isinstance(message, dict):
            return _Failure(message["failure"], message["detail"], message["seconds"])
        outcome, extracted, format_ok, detail, seconds = message
        values = {"extracted": extracted, "format_ok": format_ok, "detail": detail, "seconds": seconds}
        return Verdict(outcome=OUTCOMES[outcome], **values, verifier=self.verifier)

    def _wind(self) -> None:
        self._started = time.monotonic()
        limit = self._limits.popleft() if self._limits else None
        self.deadline = self._started + (self.override or (self.time_limit if limit is None else limit))

    def _died(self) -> _Done:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(1.0)  # the pipe ends a moment before the process: do not make the signal ours
        code = self.kill()
        how = f"killed by signal {-code}" if code < 0 else f"ended with status {code}"
        if not self.chunk:
            raise VerifierFailure(f"a verifier worker {how} before it judged anything")
        return _Done(self.chunk.popleft(), _Failure("death", how, time.monotonic() - self._started))

    def overdue(self, now: float) -> _Done | None:
        """Kill the worker when its present item is past its time."""
        if not self.busy or now < self.deadline:
            return None
        self.kill()
        if not self.chunk:
            raise VerifierFailure(f"a verifier worker was not ready within {START_SECONDS:.0f} s")
        seconds = now - self._started
        return _Done(self.chunk.popleft(), _Failure("time", f"killed after {seconds:.1f} s", seconds))

    def kill(self) -> int:
        """End the worker and its group; returns how it ended (minus the signal, or the status)."""
        if not self.replies.closed:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.requests.close()
            self.replies.close()
        return self.process.wait()

    def finish(self, deadline: float) -> None:
        """Let an idle worker whose `requests` are closed run the domain's `close`, then kill what is left."""
        select.select([self.replies], [], [], max(0.0, deadline - time.monotonic()))  # readable: it has ended
        self.kill()


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
        self._start = partial(_Worker, target, time_limit=time_limit, override=override, memory_limit=memory_limit)
        self._count = max(1, workers)
        self._verifier = ""
        self._workers: list[_Worker] = []

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
            self._retire([worker for worker in self._workers if worker.chunk or worker.process.returncode is not None])
        return [verdicts[place] for place in places]

    def _crowd(self, items: Sequence[_Item], keep: Callable[[int, Verdict], None]) -> list[_Done]:
        suspects = []
        count = min(self._count, -(-len(items) // ITEMS_PER_WORKER))
        for done in self._drive(items, deque(range(len(items))), count):
            if isinstance(done.result, Verdict) and done.result.outcome is not Outcome.TIMEOUT:
                keep(done.job, done.result)
            else:
                suspects.append(done)
        return suspects

    def _alone(self, items: Sequence[_Item], suspects: Sequence[_Done], keep: Callable[[int, Verdict], None]) -> None:
        errors, spoiled = 0, False
        for job, first in sorted(suspects, key=lambda done: done.job):
            # Once the verifier has failed beyond doubt, thousands of retries would only delay the message.
            hopeless = errors >= ERROR_COUNT and errors > ERROR_SHARE * len(items)
            if hopeless and isinstance(first, _Failure) and first.kind == "exception":
                keep(job, self._settle(first))
                continue
            if spoiled or isinstance(first, _Failure):
                self._retire(self._workers[:])
            (_, second), *_ = self._drive(items, deque([job]), 1)
            spoiled = isinstance(second, _Failure)
            verdict = second if isinstance(second, Verdict) else self._settle(second)
            errors += verdict.outcome is Outcome.ERROR
            keep(job, verdict)

    def _settle(self, failure: _Failure) -> Verdict:
        limit = failure.kind in ("time", "memory")
        return Verdict(
            outcome=Outcome.TIMEOUT if limit else Outcome.ERROR,
            detail=f"{failure.kind}: {failure.detail}",
            seconds=failure.seconds,
            verifier=self._verifier,
        )

    def _drive(self, items: Sequence[_Item], queue: deque[int], count: int) -> Iterator[_Done]:
        """Run the queue on at most `count` workers and yield what comes back, in any order."""
        while queue or any(worker.chunk for worker in self._workers):
            self._feed(items, queue, count)
            for worker in self._wait():
                yield from worker.receive()
                self._verifier = worker.verifier or self._verifier
            now = time.monotonic()
            for worker in self._workers[:]:
                late = worker.overdue(now)
                if worker.process.returncode is not None:
                    self._workers.remove(worker)
                    queue.extendleft(reversed(worker.chunk))
                if late is not None:
                    yield late

    def _feed(self, items: Sequence[_Item], queue: deque[int], count: int) -> None:
        while queue and len(self._workers) < count:
            self._workers.append(self._start())
        for worker in self._workers[:count]:
            if queue and not worker.busy:
                # Guided sizes: large chunks first, single items at the end, so that all workers end together.
                size = max(1, min(CHUNK, len(queue) // (2 * count)))
                worker.send([queue.popleft() for _ in range(size)], items)

    def _wait(self) -> list[_Worker]:
        """The workers with something to read, or none when a deadline comes first."""
        busy = {worker.replies.fileno(): worker for worker in self._workers if worker.busy}
        poll = select.poll()  # not a selector: this runs once an item, and an epoll is four system calls
        for descriptor in busy:
            poll.register(descriptor, select.POLLIN)
        patience = min((worker.deadline for worker in busy.values()), default=0.0) - time.monotonic()
        # A wake-up costs more than a quick item: answers gather in the pipe for half of what the chunk may still take.
        lull = min([LULL_MOST, patience, *((len(worker.chunk) - 1) * worker.pace / 2 for worker in busy.values())])
        if lull > LULL_LEAST:
            time.sleep(lull)
        return [busy[descriptor] for descriptor, _ in poll.poll(max(0.0, patience) * 1000)]

    def _retire(self, workers: Sequence[_Worker]) -> None:
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


def _unique(items: Sequence[tuple[Problem, str]]) -> tuple[list[_Item], list[int]]:
    """The distinct items, and for every item the place of its equal. By text, since == takes an answer True for 1."""
    versions: dict[str, list[Problem]] = {}
    firsts: dict[int, Problem] = {}  # by identity: the first that is equal
    known: dict[tuple[int, str], int] = {}
    unique: list[_Item] = []
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
            unique.append(_Item(first, completion))
        places.append(place)
    return unique, places


def check_errors(verdicts: Sequence[Verdict]) -> None:
    """Raise VerifierFailure when ERROR verdicts are at least 20 and more than 1 %: the rewards cannot be trusted."""
    errors = [verdict for verdict in verdicts if verdict.outcome is Outcome.ERROR]
    if len(errors) >= ERROR_COUNT and len(errors) > ERROR_SHARE * len(verdicts):
        raise VerifierFailure(
            f"the verifier failed on {len(errors)} of {len(verdicts)} completions (limit: 1 %). First: "
            f"{errors[0].detail}. Judge that completion with `harness verify` to see the failure by itself."
        )
