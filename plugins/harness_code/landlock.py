"""Level "landlock": the kernel lets a job read Python's library and use one private folder, and no other file.

Does: make one rule set and one folder per slot (`enter`), put a job behind it (`restrict`), empty a folder (`empty`).
Doesn't: cover modes, owners and times of files, which Landlock does not know: seccomp.py refuses those. Needs Linux 6.2
(truncation); since 6.7 binding and connecting are refused as well, since 6.12 signals and abstract sockets, which the
system call filter refuses in any case.
"""

from __future__ import annotations

import glob
import math
import os
import stat
import struct
import tempfile
from contextlib import suppress
from time import monotonic
from typing import NamedTuple

from harness_code import kernel, visible

_STALE_SECONDS = 5.0
_PREFIX = "harness-job-"
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_LEAST = 3
_EXECUTE, _WRITE, _READ, _LIST, _TRUNCATE, _IOCTL = 1, 2, 4, 8, 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE | _READ | _TRUNCATE | _IOCTL
_NETWORK, _SCOPES = 3, 3


class Private(NamedTuple):
    """One slot: the descriptor of its rule set, and its folder."""

    rules: int
    folder: str


def enter(slots: int) -> tuple[Private, ...]:
    """A rule set and a folder for each slot. Raises OSError."""
    version = kernel.call("landlock_create_ruleset", None, 0, _VERSION_FLAG)
    if version < _LEAST:
        raise kernel.Refused(f"Landlock version {version}, not {_LEAST}: Linux 6.2 is needed")
    _remove_stale()
    base = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")
    private = []
    for slot in range(slots):
        folder = os.path.join(base, str(slot))
        os.mkdir(folder, 0o700)
        private.append(Private(_rules(folder, version), folder))
    return tuple(private)


def _remove_stale() -> None:
    """Folders of interpreters that were killed before they could remove them; what takes longer is left to the next start."""
    until = monotonic() + _STALE_SECONDS
    for base in glob.glob(os.path.join(tempfile.gettempdir(), f"{_PREFIX}*-*")):
        owner = os.path.basename(base).removeprefix(_PREFIX).partition("-")[0]
        with suppress(OSError):  # another user's, or gone in the meantime
            if owner.isdigit() and not os.path.exists(f"/proc/{owner}"):
                empty(base, until)
                os.rmdir(base)


def _rules(folder: str, version: int) -> int:
    files = (_IOCTL if version < 5 else _IOCTL << 1) - 1  # every right that the kernel knows
    known = struct.pack("=Q", files)
    known += struct.pack("=Q", _NETWORK) if version >= 4 else b""
    known += struct.pack("=Q", _SCOPES) if version >= 6 else b""
    rules = kernel.call("landlock_create_ruleset", known, len(known), 0)
    for path in (*visible.parts(), *visible.FILES):
        _allow(rules, path, _READ | _LIST)
    for path in visible.DEVICES:
        _allow(rules, path, _READ | _WRITE)
    _allow(rules, folder, files & ~_EXECUTE)
    return rules


def _allow(rules: int, path: str, rights: int) -> None:
    with suppress(FileNotFoundError):
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISDIR(os.fstat(place).st_mode):
                rights &= _OF_FILES
            kernel.call("landlock_add_rule", rules, _PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
        finally:
            os.close(place)


def restrict(private: Private) -> None:
    """For a job, with no new privileges: behind the rules for good, in its folder."""
    os.chdir(private.folder)
    kernel.call("landlock_restrict_self", private.rules, 0)


def leave(slots: tuple[Private, ...]) -> None:
    """Remove the folders."""
    for private in slots:
        empty(private.folder)
        os.rmdir(private.folder)
    if slots:
        os.rmdir(os.path.dirname(slots[0].folder))


def empty(folder: str, until: float = math.inf) -> None:
    """Remove all that lies in `folder`, however deep: folders are emptied upwards, so that no path grows long.

    Raises OSError, and TimeoutError, which is one, when the clock has come to `until`.
    """
    moved = 0
    while names := os.listdir(folder):
        for name in names:
            _require_time(until)
            path = os.path.join(folder, name)
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                os.unlink(path)
                continue
            os.chmod(path, 0o700)
            for inner in os.listdir(path):
                _require_time(until)
                moved += 1
                os.rename(os.path.join(path, inner), os.path.join(folder, f"{moved:x}.{os.getpid()}"))
            os.rmdir(path)


def _require_time(until: float) -> None:
    if monotonic() > until:
        raise TimeoutError("too much to remove")
