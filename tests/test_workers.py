"""Engine workers that fail or die: a message with the way to go on, and no process that outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from harness.errors import HarnessError
from harness_engines.workers import Workers


class Failing:
    """Told what to do wrong."""

    def raises(self, kind: str) -> None:
        raise HarnessError("no room: lower engine.shard_rollouts") if kind == "told" else ZeroDivisionError(kind)

    def dies(self, number: int) -> None:
        os.kill(os.getpid(), number)

    def echo(self, value: int) -> int:
        return value


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    made = Workers(Failing, [(), ()])
    yield made
    made.close()


def test_a_message_arrives_as_it_was_meant(workers: Workers) -> None:
    with pytest.raises(HarnessError) as caught:
        list(workers.run([("raises", ("told",))]))
    assert str(caught.value) == "no room: lower engine.shard_rollouts"


def test_another_error_arrives_with_its_place(workers: Workers) -> None:
    with pytest.raises(HarnessError, match=r"an engine worker failed:\n(?s:.*)in raises(?s:.*)ZeroDivisionError: bug"):
        list(workers.run([("raises", ("bug",))]))
    assert list(workers.run([("echo", (place,)) for place in range(5)])) == list(range(5)), (
        "and the workers are still there"
    )


def test_a_worker_that_is_killed_ends_the_run_with_the_way_to_go_on() -> None:
    made = Workers(Failing, [(), ()])
    try:
        with pytest.raises(
            HarnessError, match=r"out of memory, or killed.*Finished shards are kept.*harness resume RUN"
        ):
            list(made.run([("echo", (1,)), ("dies", (signal.SIGKILL,)), ("echo", (2,))]))
    finally:
        made.close()


BUSY = """
import os
from harness_engines.workers import Workers
workers = Workers(__import__, [("time",)])
list(workers.run([("sleep", (0,))]))
print(workers._processes[0].pid, flush=True)
list(workers.run([("sleep", (300,))]))
"""


def test_a_worker_in_the_middle_of_a_task_ends_with_its_parent() -> None:
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    time.sleep(0.3)  # into the task
    process.kill()
    process.communicate()
    until = time.monotonic() + 5
    while os.path.exists(f"/proc/{worker}") and time.monotonic() < until:
        time.sleep(0.02)
    assert not os.path.exists(f"/proc/{worker}"), "it computes for nobody"
