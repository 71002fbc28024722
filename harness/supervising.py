"""One verifier worker as the pool sees it: its process, its answers, its clock and its end.

Does: send a chunk of items without waiting for the worker; turn a death, an item past its time and answers that make no
sense into a failure of the item it was at; end the worker with everything that it started.
Doesn't: choose items, retry, or make verdicts of failures (verifying.py).
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from harness import judging, processes
from harness.errors import VerifierFailure
from harness.types import Outcome, Problem, Verdict

START_SECONDS = 120.0
READ_BYTES, READS = 1 << 16, 16  # at a time: who floods must not keep the pool from its clocks
LONGEST_ANSWER = 1 << 20  # bytes; those of judging.py are shorter
OUTCOMES = {outcome.value: outcome for outcome in Outcome}
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from harness.judging import serve; serve()"


class Failure(NamedTuple):
    """In place of a verdict; `kind` is "time", "memory", "exception" or "death"."""

    kind: str
    detail: str
    seconds: float


class Done(NamedTuple):
    job: int
    result: Verdict | Failure


class Item(NamedTuple):
    problem: Problem
    completion: str


class Worker:
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
        os.set_blocking(self.requests.fileno(), False)
        os.set_blocking(self.replies.fileno(), False)
        self.time_limit, self.override = time_limit, override
        self.verifier, self.pace = "", 0.0  # seconds an item, lately
        self.chunk: deque[int] = deque()
        self.unsent = memoryview(b"")
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

    @property
    def ended(self) -> bool:
        return self.replies.closed

    def send(self, jobs: Sequence[int], items: Sequence[Item]) -> None:
        """Hand over a chunk; the clock of its first item starts when the worker says that it has unpacked it."""
        payload = judging.pickled([tuple(items[job]) for job in jobs])
        self.chunk.extend(jobs)
        self._limits.clear()
        self.deadline = time.monotonic() + START_SECONDS
        self.unsent = memoryview(len(payload).to_bytes(8, "big") + payload)
        self.push()

    def push(self) -> None:
        """Send what the worker has room for: one that does not read must not stop the pool."""
        try:
            while self.unsent and (written := self.requests.write(self.unsent)):
                self.unsent = self.unsent[written:]
        except BrokenPipeError:  # the death shows as the end of `replies`
            self.unsent = memoryview(b"")

    def receive(self) -> Iterator[Done]:
        """Everything that has arrived. A dead worker yields a failure for the item it was at."""
        over = self._read()
        try:
            for message in self._messages():
                yield from self._message(message)
                if self.ended:
                    return
        except (ValueError, TypeError, LookupError, RecursionError):
            self.kill()
            yield from self._failed("death", "something other than verdicts was written where they go")
        else:
            if over:
                yield from self._died()

    def _read(self) -> bool:
        """Take in what has come; whether it was the last."""
        for _ in range(READS):
            if not (data := self.replies.read(READ_BYTES)):
                return data is not None  # None: nothing more yet
            self._buffer += data
        return False

    def _messages(self) -> Iterator[Any]:
        *lines, self._buffer = self._buffer.split(b"\n")
        try:
            messages = json.loads(f"[{b','.join(lines).decode()}]")
        except ValueError:
            messages = map(json.loads, lines)  # those before the one that is none
        yield from messages
        if len(self._buffer) > LONGEST_ANSWER:
            raise ValueError("an answer without an end")

    def _message(self, message: dict[str, Any] | list[Any]) -> Iterator[Done]:
        if isinstance(message, list) or "failure" in message:
            result = self._result(message)
            self.pace += (result.seconds - self.pace) / 8
            yield Done(self.chunk.popleft(), result)
            self._wind()
            if isinstance(result, Failure) and result.kind == "memory":
                self.kill()  # what fills it may be left over from other items
        elif "limits" in message:
            self._limits.extend(message["limits"])
            self._wind()
        elif "ready" in message:
            self.verifier = message["ready"]
        else:
            self.kill()
            raise VerifierFailure(f"the verifier did not start: {message['failed']}")

    def _result(self, message: dict[str, Any] | list[Any]) -> Verdict | Failure:
        if isinstance(message, dict):
            return Failure(message["failure"], message["detail"], message["seconds"])
        outcome, extracted, format_ok, detail, seconds = message
        values = {"extracted": extracted, "format_ok": format_ok, "detail": detail, "seconds": seconds}
        return Verdict(outcome=OUTCOMES[outcome], **values, verifier=self.verifier)

    def _wind(self) -> None:
        self._started = time.monotonic()
        limit = self._limits.popleft() if self._limits else None
        self.deadline = self._started + (self.override or (self.time_limit if limit is None else limit))

    def _failed(self, kind: str, detail: str) -> Iterator[Done]:
        """Of an ended worker: a failure of the item it was at, if it was at any."""
        if self.chunk:
            yield Done(self.chunk.popleft(), Failure(kind, detail, time.monotonic() - self._started))
        elif not self.ready:
            raise VerifierFailure(f"a verifier worker {detail} before it judged anything")

    def _died(self) -> Iterator[Done]:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(1.0)  # the pipe ends a moment before the process: do not make the signal ours
        yield from self._failed("death", how(self.kill()))

    def overdue(self, now: float) -> Iterator[Done]:
        """End the worker when its present item is past its time."""
        if self.ended or not self.busy or now < self.deadline:
            return
        if self.process.poll() is not None:  # a child of it, which holds its pipe, has hidden the end
            yield from self._died()
            return
        self.kill()
        if not self.chunk:
            raise VerifierFailure(f"a verifier worker was not ready within {START_SECONDS:.0f} s")
        yield from self._failed("time", f"killed after {now - self._started:.1f} s")

    def kill(self) -> int:
        """End the worker, its group and its descendants; returns how it ended (minus the signal, or the status)."""
        if not self.ended:
            if self.process.poll() is None:
                processes.end(self.process.pid)
            else:
                processes.end_group(self.process.pid)
            self.process.wait()
            self.requests.close()
            self.replies.close()
        return self.process.wait()

    def finish(self, deadline: float) -> None:
        """Let an idle worker whose `requests` are closed run the domain's `close`, then kill what is left."""
        select.select([self.replies], [], [], max(0.0, deadline - time.monotonic()))  # readable: it has ended
        self.kill()


def how(code: int) -> str:
    """A process's end in words."""
    if code >= 0:
        return f"ended with status {code}"
    names = {number.value: number.name for number in signal.Signals}
    return f"killed by signal {-code} ({names.get(-code, 'unknown')})"
