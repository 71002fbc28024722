"""Ctrl-C and SIGTERM: the first asks a run to stop at its next shard, where nothing is lost; the second stops it now.

Does: remember that somebody asked; tell those who wait for other processes; interrupt at the next progress.
Doesn't: end other processes (launching.py) or say how to go on (cli.py).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from harness.run import Progress

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ASKED = b"\nstopping at the next shard, so that nothing is lost; once more (Ctrl-C) stops now\n"


class Stop:
    """Whether somebody asked for an end."""

    def __init__(self) -> None:
        self.asked = False
        self._hearers: list[Callable[[], None]] = []

    def ask(self) -> None:
        self.asked = True
        for hearer in self._hearers:
            hearer()

    @contextmanager
    def heard_by(self, hearer: Callable[[], None]) -> Iterator[None]:
        """Inside, `hearer` is called when somebody asks, from a signal handler or another thread."""
        self._hearers.append(hearer)
        try:
            yield
        finally:
            self._hearers.remove(hearer)

    def at(self, progress: Progress) -> Progress:
        """The same progress, which raises KeyboardInterrupt once somebody asked: it is told of what is on disk."""

        def told(label: str, done: int, total: int) -> None:
            progress(label, done, total)
            self.check()

        return told

    def check(self) -> None:
        """Raises KeyboardInterrupt where somebody asked."""
        if self.asked:
            raise KeyboardInterrupt


@contextmanager
def on_signals() -> Iterator[Stop]:
    """Inside, the first of SIGNALS asks, the second raises KeyboardInterrupt, and later ones do not disturb the closing."""
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        if not stop.asked:
            os.write(2, ASKED)  # not print: the signal may have come in the middle of one
            stop.ask()
            return
        for known in SIGNALS:
            signal.signal(known, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
