"""Processes below one: who they are, and their end.

Does: list the descendants of a process where the system tells (/proc), kill them, and make this process the parent of
those below it whose own parents have ended, so that none of them gets out of sight.
Doesn't: start any. Without /proc only process groups are ended.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ROUNDS, PAUSE = 20, 0.002  # what is killed may have started another, and takes a moment to end


def adopt_orphans() -> None:
    """Descendants that lose their parents become children of this process (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def tree(pid: int) -> Iterator[int]:
    """The process and its descendants; none where there is no /proc."""
    # Every thread's list of children, where the system has them: a look at each process of a machine takes 5 ms.
    return _down(pid) if Path(f"/proc/self/task/{os.getpid()}/children").exists() else _among_all(pid)


def _down(pid: int) -> Iterator[int]:
    waiting = [pid]
    while waiting:
        yield (pid := waiting.pop())
        with suppress(OSError):  # it has just ended
            for thread in os.listdir(f"/proc/{pid}/task"):
                waiting += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())


def _among_all(pid: int) -> Iterator[int]:
    children, waiting = defaultdict(list), [pid]
    for entry in os.listdir("/proc") if Path("/proc/self/stat").exists() else ():
        if entry.isdigit() and (fields := stat(int(entry))):
            children[int(fields[1])].append(int(entry))
    while waiting:
        yield (pid := waiting.pop())
        waiting += children[pid]


def stat(pid: int) -> list[str] | None:
    """Fields after the command name (which may hold spaces), or None when the process has just ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def end(pid: int) -> None:
    """Kill a child of this process that leads a group and nobody has waited for: the group and everything below."""
    _signal_group(pid, signal.SIGSTOP)  # it starts nothing while its descendants are looked up
    end_below(pid)
    _signal_group(pid, signal.SIGKILL)


def end_below(pid: int) -> None:
    """Kill the descendants, of a process that adopts orphans also those in groups and sessions of their own."""
    for _ in range(ROUNDS):
        living = [child for child in tree(pid) if child != pid and (stat(child) or "Z")[0] not in "ZX"]
        if not living:
            return
        for child in living:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        time.sleep(PAUSE)


def end_group(pid: int) -> None:
    """Kill what is left of a group whose leader has ended."""
    _signal_group(pid, signal.SIGKILL)


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
