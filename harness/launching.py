"""Run folders, or the parts of one, side by side: each in a process of its own, with its share of the workers.

Does: keep as many going as wanted, pass on how far they are, collect what failed; end all of them with this process.
Doesn't: know what a suite or a part is, or how a run is completed (completing.py, which the processes run).
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from harness.run import Notify, Progress
from harness.stopping import Stop

STOP = b"s"  # what a child reads when it is to stop at its next shard; the end of its standard input: at once
STOPPED = 130  # its exit status then
PATIENCE = 12.0  # seconds that children have for closing what they hold
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from harness.completing import serve; serve()"


class Task(NamedTuple):
    """A run folder and what it is called in messages; with `queue`, a pipe of parts that several processes take from,
    only those that the process gets (spreading.py)."""

    label: str
    folder: Path
    queue: int | None = None


@contextmanager
def queue_of(numbers: Iterable[int]) -> Iterator[int]:
    """The reading end of a pipe that holds `numbers` (up to 32,768 of them, below 65,536), for `Task.queue`."""
    reading, writing = os.pipe()
    os.write(writing, b"".join(number.to_bytes(2) for number in numbers))
    os.close(writing)
    try:
        yield reading
    finally:
        os.close(reading)


def taken(queue: int) -> Iterator[int]:
    """Numbers of a queue that no other process has taken, in order, until there are none left."""
    while number := os.read(queue, 2):
        yield int.from_bytes(number)


class Failure(NamedTuple):
    """Why a run did not end well; `usage` is a mistake in its spec."""

    text: str
    usage: bool


class _Child:
    def __init__(self, task: Task, *, workers: int, shared: Path) -> None:
        self.task, self.workers, self.started = task, workers, time.monotonic()
        self.failure: Failure | None = None
        self._buffer = b""
        options = {"folder": str(task.folder), "workers": workers, "shared": str(shared), "queue": task.queue}
        # Ctrl-C is this process's to handle; children inherit the ignoring, from their first instruction on.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, json.dumps(sys.path), json.dumps({**options, "parent": os.getpid()})],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                pass_fds=() if task.queue is None else (task.queue,),
            )
        finally:
            signal.signal(signal.SIGINT, handler)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout

    def messages(self) -> Iterator[Any]:
        """What has come. At the end of the stream the process is waited for, and `failure` is set where it failed."""
        data = self.stdout.read(1 << 16)
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "failed" in message:
                self.failure = Failure(message["failed"], message["usage"])
            else:
                yield message
        if not data:
            self.close(time.monotonic() + PATIENCE)
            status = self.process.returncode
            if status not in (0, STOPPED) and self.failure is None:
                how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
                self.failure = Failure(f"its process {how}; what it said stands above", usage=False)

    def ask_to_stop(self) -> None:
        """At its next shard."""
        with suppress(BrokenPipeError, ValueError):  # it has ended, or is about to
            self.stdin.write(STOP)

    def ask_to_end(self) -> None:
        with suppress(BrokenPipeError):
            self.stdin.close()

    def close(self, deadline: float) -> None:
        """Wait until `deadline`, then kill."""
        self.ask_to_end()
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.stdout.close()


def shares(workers: int, runs: int) -> list[int]:
    """The workers of each of `runs` at a time: at least one, all of them in use."""
    return [max(1, workers // runs + (place < workers % runs)) for place in range(runs)]


def side_by_side(
    tasks: Sequence[Task],
    *,
    workers: int,
    at_a_time: int,
    shared: Path,
    progress: Progress,
    begin: Callable[[Task], None],
    end: Callable[[Task, float, Failure | None], None],
    notify: Notify | None = None,
    stop: Stop | None = None,
) -> None:
    """Complete the tasks in order, `at_a_time` of them at once, sharing draws through the folder `shared`.

    `begin` is called before a task is started, `end` with its seconds and what went wrong; `notify` hears of the
    finished stages of parts, as their run would without them. An exception, Ctrl-C included, ends every run first:
    finished work is on disk. When somebody asks `stop`, all stop at their next shards, and KeyboardInterrupt is raised.
    """
    stop = stop or Stop()
    queue, free = deque(tasks), shares(workers, max(1, min(at_a_time, len(tasks))))
    running: list[_Child] = []

    def pass_on() -> None:
        for child in running:
            child.ask_to_stop()

    with selectors.DefaultSelector() as ready, stop.heard_by(pass_on), _ended(running):
        while running or (queue and not stop.asked):
            while queue and free and not stop.asked:
                begin(queue[0])
                child = _Child(queue.popleft(), workers=free.pop(0), shared=shared)
                running.append(child)
                ready.register(child.stdout, selectors.EVENT_READ, child)
                if stop.asked:  # meanwhile
                    child.ask_to_stop()
            for key, _ in ready.select():
                child = key.data
                for message in child.messages():
                    if isinstance(message, dict):
                        assert notify is not None
                        notify(message["stage"], message["summary"])
                        continue
                    label, done, total = message
                    progress(f"{child.task.label}: {label}" if child.task.label else label, done, total)
                if child.stdout.closed:
                    ready.unregister(key.fileobj)
                    running.remove(child)
                    free.append(child.workers)
                    if child.process.returncode != STOPPED:
                        end(child.task, time.monotonic() - child.started, child.failure)
        stop.check()


@contextmanager
def _ended(running: Sequence[_Child]) -> Iterator[None]:
    """What is still running at the end is asked to end, and killed when it doesn't."""
    try:
        yield
    finally:
        for child in running:
            child.ask_to_end()
        deadline = time.monotonic() + PATIENCE
        for child in running:
            child.close(deadline)
