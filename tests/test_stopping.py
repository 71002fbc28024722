"""Signals and silence: the first stops at the next shard, the second now, nothing is lost and no process is left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest
from tabular_run import REPOSITORY

from harness import differing, silence, stopping
from harness.stopping import Stop

SIZES = (
    "budget=128",
    "evaluation.problems=16",
    "evaluation.samples=2",
    "evaluation.seen_problems=0",
    "evaluation.bin_samples=0",
)
SMALL = (
    "run", "--spec", str(REPOSITORY / "benchmarks" / "code" / "smoke.toml"), *(f"--set={size}" for size in SIZES),
    "--method", "one_shot", "--workers", "2", "--quiet", "--out",
)  # fmt: skip
COMMAND = [str(Path(sys.executable).with_name("harness"))]


def nothing(*_: object) -> None:
    pass


def test_who_asked_is_heard_at_the_next_progress() -> None:
    stop, told, heard = Stop(), list[tuple[str, int, int]](), list[str]()
    progress = stop.at(lambda *at: told.append(at))
    progress("sample", 1, 3)
    with stop.heard_by(lambda: heard.append("asked")):
        stop.ask()
    stop.ask()
    assert heard == ["asked"], "after the block nobody listens"
    with pytest.raises(KeyboardInterrupt):
        progress("sample", 2, 3)
    assert told == [("sample", 1, 3), ("sample", 2, 3)], "told first: the shard is on disk"


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_the_first_signal_asks_and_the_second_interrupts(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(known) for known in stopping.SIGNALS]
    with stopping.on_signals() as stop:
        signal.raise_signal(number)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert "stopping at the next shard" in capfd.readouterr().err
    assert [signal.getsignal(known) for known in stopping.SIGNALS] == before


class Marked:
    """A `harness` command whose processes, children of children included, can be found."""

    def __init__(self, *arguments: str) -> None:
        self.mark = uuid.uuid4().hex
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HARNESS_TEST_MARK": self.mark}
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - background jobs ignore it
        )

    def wait(self) -> str:
        """What it said; its status is in `process`."""
        _, told = self.process.communicate(timeout=400)
        return told

    def processes(self) -> list[int]:
        return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if self.mark in read(path)]

    def left(self, *, within: float = 3.0) -> list[int]:
        """Its processes that are still there after a moment."""
        until = time.monotonic() + within
        while (found := self.processes()) and time.monotonic() < until:
            time.sleep(0.05)
        return found


def read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


def shards(root: Path) -> set[Path]:
    return set(root.rglob("verdicts/*/*/*.json"))


def more_shards(root: Path, than: set[Path], running: Marked) -> None:
    until = time.monotonic() + 200
    while not shards(root) - than:
        assert running.process.poll() is None, running.wait()
        assert time.monotonic() < until, "no shard after minutes"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that was stopped in every way, each time within a stage, and its twin."""
    straight, out = tmp_path_factory.mktemp("straight"), tmp_path_factory.mktemp("stopped")
    twin = Marked(*SMALL, str(straight))
    arguments: tuple[str, ...] = (*SMALL, str(out))
    for ways in ([signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT], [signal.SIGKILL]):
        one, before = Marked(*arguments), shards(out)
        more_shards(out, before, one)
        assert len(one.processes()) >= 3, "this process, two engine workers and the verifier"
        for number in ways:
            one.process.send_signal(number)
            time.sleep(0.05)
        told = one.wait()
        (root,) = out.iterdir()
        if signal.SIGKILL not in ways:
            assert one.process.returncode == 130, told
            assert f"Continue with: harness resume {root}" in told
            assert "Traceback" not in told
        assert one.left() == [], f"processes are left after {ways}"
        assert shards(out) > before
        arguments = ("resume", str(root), "--quiet", "--workers", "2")
    last = Marked(*arguments)
    told = last.wait()
    assert last.process.returncode == 0, told
    assert last.left() == []
    assert twin.wait() == ""
    assert twin.left() == []
    return root, next(straight.iterdir())


def test_stopped_in_every_way_equals_uninterrupted(stopped: tuple[Path, Path]) -> None:
    assert list(differing.differences(*stopped)) == []


def test_a_run_that_fails_leaves_no_process(tmp_path: Path) -> None:
    """In the middle: the folder of its draws is a file."""
    one = Marked(*SMALL, str(tmp_path))
    more_shards(tmp_path, set(), one)
    (root,) = tmp_path.iterdir()
    (root / "directions").write_text("")
    told = one.wait()
    assert one.process.returncode == 1, told
    assert f"Not a directory ({root / 'directions'}" in told
    assert "Traceback" not in told
    assert one.left() == []


def test_a_watchdog_names_stage_item_and_stack() -> None:
    said: list[str] = []
    heard = threading.Event()

    def say(text: str) -> None:
        said.append(text)
        heard.set()

    with silence.watched(nothing, say=say, after=0.1) as progress:
        progress("one_shot: sample 4096 rollouts", 12, 40)
        assert heard.wait(10)
    assert re.match(
        r"no progress for \d+ s in: one_shot: sample 4096 rollouts, 12 of 40 done\. It goes on; process \d+ is at\n",
        said[0],
    )
    assert "assert heard.wait(10)" in said[0], "where the main thread is"


def test_a_watchdog_is_silent_where_there_is_progress() -> None:
    said: list[str] = []
    with silence.watched(nothing, say=said.append, after=1.0) as progress:
        for done in range(10):
            time.sleep(0.15)
            progress("sample", done, 10)
    assert said == []


LISTENER = """
import subprocess, sys, time
from harness import silence
if len(sys.argv) > 1:
    silence.listen()
    print("ready", flush=True)
    time.sleep(60)
child = subprocess.Popen([sys.executable, __file__, "child"], stdout=subprocess.PIPE)
deaf = subprocess.Popen(["sleep", "60"])
assert child.stdout.readline() == b"ready\\n"
with silence.watched(lambda *_: None, say=print, after=0.2):
    time.sleep(1)
assert deaf.poll() is None, "who does not listen is left alone"
child.kill(), deaf.kill()
"""


def test_a_watchdog_has_its_children_tell_where_they_are(tmp_path: Path) -> None:
    script = tmp_path / "listener.py"
    script.write_text(LISTENER)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f'File "{script}", line 7 in <module>' in done.stderr
