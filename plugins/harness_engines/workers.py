"""Worker processes, each holding one model: ordered results, whoever computes them.

Does: start the processes, keep a task waiting at each, so that none idles while the parent is at other work, yield
results in task order with a bounded look-ahead, and raise a worker's exception in the parent.
Doesn't: restart a dead worker: its death ends the run with a message, and resume continues from the last shard.
"""

from __future__ import annotations

import multiprocessing as mp
import queue
import signal
import threading
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from harness.errors import HarnessError

Task = tuple[str, tuple[Any, ...]]
QUEUED = 2  # tasks at a worker: the one it computes and the next
LOOK_AHEAD = 4  # tasks per worker that are under way or finished while an earlier one is awaited


class _Worker(NamedTuple):
    process: BaseProcess
    connection: Connection


class Workers:
    """A process for each of `arguments`, in which `factory` is called once with them; tasks name methods of what it made."""

    def __init__(self, factory: Any, arguments: Sequence[tuple[Any, ...]]) -> None:
        context = mp.get_context("spawn")
        self._workers = []
        # Ctrl-C is the parent's to handle; children inherit the ignoring, from their first instruction on.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        for own in arguments:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, factory, own), daemon=True)
            process.start()
            theirs.close()
            self._workers.append(_Worker(process, ours))
        signal.signal(signal.SIGINT, handler)

    def run(self, tasks: Sequence[Task]) -> Iterator[Any]:
        """Results in task order. The worker with the fewest tasks gets the next one, as far as the look-ahead allows."""
        done: dict[int, Any] = {}
        held: dict[Connection, deque[int]] = {worker.connection: deque() for worker in self._workers}
        sent = given = 0
        try:
            while given < len(tasks):
                while sent < min(len(tasks), given + LOOK_AHEAD * len(held)):
                    connection = min(held, key=lambda known: len(held[known]))
                    if len(held[connection]) == QUEUED:
                        break
                    connection.send(tasks[sent])
                    held[connection].append(sent)
                    sent += 1
                ready = wait([known for known, own in held.items() if own])
                for connection in [known for known in held if known in ready]:
                    index = held[connection].popleft()  # before the answer: an error must not leave it marked as held
                    done[index] = self._receive(connection)
                while given in done:
                    yield done.pop(given)
                    given += 1
        except KeyboardInterrupt:
            held.clear()  # the run is over: do not wait for what is being computed
            raise
        finally:
            for connection, own in held.items():  # an abandoned loop must not leave answers behind for the next one
                for _ in own:
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
    subject, tasks = None, queue.SimpleQueue[Task | None]()
    threading.Thread(target=_listen, args=(connection, tasks), daemon=True).start()
    while (task := tasks.get()) is not None:
        name, args = task
        try:
            subject = subject or factory(*arguments)
            answer = (True, getattr(subject, name)(*args))
        except Exception:  # noqa: BLE001 - the border of a process: the parent raises it again
            answer = (False, traceback.format_exc(limit=-6))
        try:
            connection.send(answer)
        except ConnectionError:  # the parent is gone
            return


def _listen(connection: Connection, tasks: queue.SimpleQueue[Task | None]) -> None:
    """Take tasks as they come: a parent that sends one while this process sends an answer would wait for ever."""
    try:
        while True:
            tasks.put(connection.recv())
    except (EOFError, ConnectionError):
        tasks.put(None)
