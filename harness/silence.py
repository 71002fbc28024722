"""A watchdog: after a long silence it says which stage is at what, and where in the code every process is.

Does: pass progress on, and tell the stack of this process, and of those it started, when none comes.
Doesn't: end anything: a shard of a large model may well take an hour.

Processes that this one started tell their stacks on standard error when they get the signal that `listen` prepares them for;
others are left alone, since it would end them. Linux only: elsewhere only this process tells.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import processes
from harness.run import Progress

SILENCE = 600.0  # seconds before the first message; the next ones come after twice as long each
FRAMES = 12  # of a stack, the innermost ones
SIGNAL = signal.SIGUSR1


def listen() -> None:
    """Have this process write its stacks to standard error whenever it is asked by SIGNAL."""
    faulthandler.register(SIGNAL, all_threads=True)


@contextmanager
def watched(progress: Progress, *, say: Callable[[str], None], after: float = SILENCE) -> Iterator[Progress]:
    """The same progress; inside, `say` hears from another thread of each silence of `after` seconds and more."""
    dog = _Watchdog(say, after)
    over, main = threading.Event(), threading.get_ident()
    thread = threading.Thread(target=dog.watch, args=(over, main), daemon=True)
    thread.start()

    def told(label: str, done: int, total: int) -> None:
        dog.heard(label, done, total)
        progress(label, done, total)

    try:
        yield told
    finally:
        over.set()
        thread.join()


class _Watchdog:
    def __init__(self, say: Callable[[str], None], after: float) -> None:
        self._say, self._after = say, after
        self.heard("its beginning", 0, 0)

    def heard(self, label: str, done: int, total: int) -> None:
        self._last, self._patience = time.monotonic(), self._after
        self._label, self._done, self._total = label or "a stage without a name", done, total

    def watch(self, over: threading.Event, main: int) -> None:
        while not over.wait(self._after / 10):
            silent = time.monotonic() - self._last
            if silent >= self._patience:
                self._patience = 2 * silent
                self._say(self._told(silent, main))
                for process in processes.tree(os.getpid()):
                    if process != os.getpid():
                        _ask(process)

    def _told(self, silent: float, main: int) -> str:
        at = f", {self._done} of {self._total} done" if self._total else ""
        frames = traceback.format_stack(sys._current_frames()[main])[-FRAMES:]
        stack = "".join(frames).rstrip()
        return f"no progress for {silent:.0f} s in: {self._label}{at}. It goes on; process {os.getpid()} is at\n{stack}"


def _ask(pid: int) -> None:
    """Send SIGNAL to a process that handles it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        caught = next(int(line.split()[1], 16) for line in status if line.startswith("SigCgt"))
        if caught >> (SIGNAL - 1) & 1:
            os.kill(pid, SIGNAL)
    except (OSError, StopIteration):
        return
