"""Worker processes, each holding one model: ordered results, whoever computes them.

Does: start `count` processes, hand tasks to whichever is free, yield results in task order with a bounded
look-ahead, and raise a worker's exception in the parent.
Doesn't: restart a dead worker: its death ends the run with a message, and resume continues from the last shard.
"""

from __future__ import annotations

import multiprocessing as mp
import signal
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from harness.errors import HarnessError

Task = tuple[str, tuple[Any, ...]]
LOOK_AHEAD = 2  # finished results held per worker while an earlier one is awaited


class _Worker(NamedTuple):
    process: BaseProcess
    connection: Connection


class Workers:
    """`factory(*arguments)` is called once in every process; tasks name its methods."""

    def __init__(self, count: int, factory: Any, *arguments: Any) -> None:
        context = mp.get_context("spawn")
        self._workers = []
        # Ctrl-C is the parent's to handle; children inherit the ignoring, from their first instruction on.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, factory, arguments), daemon=True)
            process.start()
            theirs.close()
            self._workers.append(_Worker(process, ours))
        signal.signal(signal.SIGINT, handler)

    def run(self, tasks: Sequence[Task]) -> Iterator[Any]:
        """Results in task order. A worker gets its next task when it is free and the look-ahead allows it."""
        done: dict[int, Any] = {}
        busy: dict[Connection, int] = {}
        free = [worker.connection for worker in self._workers]
        sent = given = 0
        try:
            while given < len(tasks):
                while free and sent < len(tasks) and sent < given + LOOK_AHEAD * len(self._workers):
                    connection = free.pop()
                    connection.send(tasks[sent])
                    busy[connection] = sent
                    sent += 1
                ready = wait(list(busy))
                for connection in [known for known in busy if known in ready]:
                    index = busy.pop(connection)  # before the answer: an error must not leave it marked busy
                    done[index] = self._receive(connection)
                    free.append(connection)
                while given in done:
                    yield done.pop(given)
                    given += 1
        except KeyboardInterrupt:
            busy.clear()  # the run is over: do not wait for what is being computed
            raise
        finally:
            for connection in busy:  # an abandoned loop must not leave answers behind for the next one
                self._receive(connection)

    def _receive(self, connection: Connection) -> Any:
        try:
            ok, value = connection.recv()
        except (EOFError, ConnectionError) as error:
            raise HarnessError(
                "an engine worker died (out of memory, or killed). Finished shards are kept: "
                "use `harness resume RUN`, with fewer --workers if memory was short."
            ) from error
        if not ok:
            raise HarnessError(f"an engine worker failed:\n{value}")
        return value

    def close(self) -> None:
        for worker in self._workers:
            worker.connection.close()
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()
        self._workers = []


def _serve(connection: Connection, factory: Any, arguments: tuple[Any, ...]) -> None:
    """Answer tasks until the parent goes away. Errors travel as text: exceptions may not pickle."""
    subject = None
    while True:
        try:
            name, args = connection.recv()
        except (EOFError, ConnectionError, KeyboardInterrupt):
            return
        try:
            subject = subject or factory(*arguments)
            answer = (True, getattr(subject, name)(*args))
        except Exception:  # noqa: BLE001 - the border of a process: the parent raises it again
            answer = (False, traceback.format_exc(limit=-6))
        connection.send(answer)
