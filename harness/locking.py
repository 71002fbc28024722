"""One writer at a time: a file that its writer keeps locked, and that the system unlocks when the writer ends, however it ends.

Does: refuse a second writer by the name of the first (process, host, since when), or wait for it; take over what a dead one
left.
Doesn't: keep anybody out where the file system has no locks (some network mounts): a warning says so, and work goes on.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import UsageError

NAME = "writer.json"


class InUse(UsageError):
    """Another process writes to the folder."""


@contextmanager
def alone(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the folder's lock; the lock file is there only meanwhile. Raises InUse unless told to `wait`."""
    descriptor = _acquired(folder / NAME, wait=wait)
    try:
        yield
    finally:
        if descriptor is not None:
            (folder / NAME).unlink(missing_ok=True)  # while it is locked: see _acquired
            os.close(descriptor)


def _acquired(path: Path, *, wait: bool) -> int | None:
    """The locked file, with this process in it. Its last holder may have removed it meanwhile: then once more."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            told = os.read(descriptor, 1 << 12)
            os.close(descriptor)
            raise InUse(f"{path.parent} is being written by {_writer(told)}; wait for it, or stop it first") from None
        except OSError as error:
            os.close(descriptor)
            warnings.warn(f"{path.parent}: no lock can be had ({error}); start no second process on it", stacklevel=4)
            return None
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(_self()).encode(), 0)
            return descriptor
        os.close(descriptor)


def _self() -> dict[str, str | int]:
    since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": os.uname().nodename, "since": since}


def _writer(told: bytes) -> str:
    try:
        known = json.loads(told)
    except ValueError:  # it has just begun
        return "another process"
    return f"process {known['pid']} on {known['host']}, since {known['since']}"
