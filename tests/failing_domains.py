"""A domain whose verifier fails in the way that the completion names; imported by verifier workers."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.types import Outcome, Problem, Verdict

KEPT: list[bytes] = []
RIGHT = Verdict(outcome=Outcome.CORRECT, extracted="1", format_ok=True)


def verdict(**changes: Any) -> Verdict:
    return Verdict(**{"outcome": Outcome.CORRECT, "extracted": "1", "format_ok": True, **changes})


class Mute(ValueError):
    def __str__(self) -> str:
        raise self


class Own(BaseException):
    pass


def throw(error: BaseException) -> Verdict:
    raise error


def segfault() -> None:
    ctypes.string_at(0)


def to_replies(text: bytes, *, times: int = 1) -> None:
    """Into every pipe that can be written to: the worker's own answers among them."""
    for name in os.listdir("/proc/self/fd"):
        if "pipe" in os.readlink(f"/proc/self/fd/{name}") and int(name) > 2:
            for _ in range(times):
                try:
                    os.write(int(name), text)
                except OSError:  # the other end of a pipe
                    break


def flood() -> None:
    for stream in (sys.stdout, sys.stderr):
        for _ in range(200):
            stream.write("noise" * 20_000)
    os.write(1, b"more")


def hang() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    ctypes.PyDLL(None).sleep(600)  # in C, with the interpreter's lock


def fill() -> None:
    small = []
    while True:
        small.append(bytes(2000))


def leak() -> None:
    KEPT.append(bytes(20 << 20))


def fork_and_return() -> None:
    """Both of the two processes come back from `verify`."""
    os.fork()


def die_behind_a_child() -> None:
    """The child holds the pipe open that would tell of the death."""
    if os.fork() == 0:
        time.sleep(600)
    os._exit(3)


def daemon(log: Path) -> None:
    """A child in a session of its own, whose parent has ended: no group and no parent leads to it."""
    line = ["sh", "-c", "setsid sleep 600 >/dev/null & echo $!"]
    log.write_text(subprocess.run(line, stdout=subprocess.PIPE, check=True, text=True).stdout)


def busy_thread() -> None:
    """A thread that goes on after the item, and then never gives the interpreter's lock back."""

    def work() -> None:
        time.sleep(0.1)
        ctypes.PyDLL(None).sleep(600)

    threading.Thread(target=work, daemon=True).start()


def handlers() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def alarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.1)


def once(log: Path, fail: Callable[[], Verdict]) -> Verdict:
    if log.exists():
        return RIGHT
    log.write_text("")
    return fail()


SIMPLE: Mapping[str, Callable[[], Any]] = {
    "raise": lambda: throw(KeyError("boo")),
    "recurse": lambda: throw(RecursionError("too deep")),
    "sys.exit": lambda: sys.exit(3),
    "interrupt": lambda: throw(KeyboardInterrupt()),
    "base exception": lambda: throw(Own("mine")),
    "exception without text": lambda: throw(Mute()),
    "segfault": segfault,
    "abort": os.abort,
    "os._exit": lambda: os._exit(0),
    "none": lambda: None,
    "text": lambda: "correct",
    "outcome": lambda: verdict(outcome="maybe"),
    "extracted object": lambda: verdict(extracted=lambda: 1),
    "extracted nan": lambda: verdict(extracted=math.nan),
    "format": lambda: verdict(format_ok=None),
    "detail": lambda: verdict(detail=b"bytes"),
    "long extracted": lambda: verdict(extracted="9" * 10_000_000),
    "long detail": lambda: verdict(detail="x" * 10_000_000),
    "garble": lambda: to_replies(b"nonsense\n"),
    "forge": lambda: to_replies(b"[1, 2]\n"),
    "pour": lambda: to_replies(b"x" * 60_000, times=2000),
    "close": lambda: os.closerange(3, 64),
    "hang": hang,
    "fill": fill,
    "die behind a child": die_behind_a_child,
    "says error": lambda: verdict(outcome=Outcome.ERROR, detail="the sandbox is gone"),
    "flood": flood,
    "fork": fork_and_return,
    "handlers": handlers,
    "leak": leak,
    "alarm": alarm,
    "busy thread": busy_thread,
}


class Failing:
    name, version = "failing", 1

    def time_limit(self, problem: Problem) -> Any:
        if problem.id == "limit raises":
            raise LookupError("no limit")
        return {"limit nan": math.nan, "limit text": "soon"}.get(problem.id, 1.0)

    def verify(self, problem: Problem, completion: str) -> Any:
        log = Path(str(problem.answer)) / completion.replace(" ", "-")
        if completion == "daemon":
            daemon(log)
        elif completion.startswith("once "):
            return once(log, SIMPLE[completion.removeprefix("once ")])
        elif completion in SIMPLE:
            found = SIMPLE[completion]()
            passes = completion in ("flood", "fork", "handlers", "leak", "alarm", "busy thread")
            return RIGHT if passes else found
        return RIGHT if completion != "wrong" else verdict(outcome=Outcome.WRONG)
