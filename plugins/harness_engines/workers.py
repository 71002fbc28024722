"""Worker processes, each holding one model, as a crew of pooling.py.

Does: start the processes, carry tasks to them and answers back, and raise a worker's exception in the parent.
Doesn't: order tasks (pooling.py), or restart a dead worker: its death ends the run with a message, and resume continues from the last shard.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import queue
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from harness import judging, silence
from harness.errors import HarnessError
from harness_engines.pooling import Plain, Pool

Task = tuple[str, tuple[Any, ...]]
DIED = (
    "an engine worker died (out of memory, or killed). Finished shards are kept: "
    "use `harness resume RUN`, with fewer --workers if memory was short."
)


class Workers:
    """A process for each of `arguments`, in which `factory` is called once with them; tasks name methods of what it made."""

    def __init__(self, factory: Any, arguments: Sequence[tuple[Any, ...]]) -> None:
        context = mp.get_context("spawn")
        self._processes: list[BaseProcess] = []
        connections: list[Connection] = []
        # Ctrl-C is the parent's to handle; children inherit the ignoring, from their first instruction on.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        for own in arguments:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, factory, own, os.getpid()), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            connections.append(ours)
        signal.signal(signal.SIGINT, handler)
        self._connections = connections
        self._pool = Pool(self, connections)

    def run(self, tasks: Sequence[Task]) -> Iterator[Any]:
        """Results in task order. Raises HarnessError when a task fails or a worker dies."""
        return self._pool.run([Plain(task) for task in tasks])

    def submit(self, worker: Connection, message: Task) -> Connection:
        try:
            worker.send(message)
        except ConnectionError as error:
            raise HarnessError(DIED) from error
        return worker

    def wait(self, tickets: Sequence[Connection]) -> Sequence[Any]:
        return wait(tickets)

    def result(self, ticket: Connection) -> Any:
        try:
            failed, value = ticket.recv()
        except (EOFError, ConnectionError) as error:
            raise HarnessError(DIED) from error
        if failed:
            raise HarnessError(value)
        return value

    def end(self, worker: Connection) -> None:
        worker.close()

    def close(self) -> None:
        self._pool.close()
        for process in self._processes:
            process.kill()
            process.join()
        self._processes = []


def _serve(connection: Connection, factory: Any, arguments: tuple[Any, ...], parent: int) -> None:
    """Answer tasks until the parent goes away. Errors travel as text: exceptions may not pickle."""
    judging.end_with(parent)
    silence.listen()
    subject, tasks = None, queue.SimpleQueue[Task | None]()
    threading.Thread(target=_listen, args=(connection, tasks), daemon=True).start()
    while (task := tasks.get()) is not None:
        name, args = task
        try:
            subject = subject or factory(*arguments)
            answer = (False, getattr(subject, name)(*args))
        except HarnessError as error:
            answer = (True, str(error))
        except Exception:  # noqa: BLE001 - the border of a process: the parent raises it again
            answer = (True, f"an engine worker failed:\n{traceback.format_exc(limit=-6)}")
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
