"""Calls to the kernel that Python has no function for, by ctypes: what confinement is made of.

Does: make a call by name and turn its failure into an exception that names it.
Doesn't: decide what to call: see confining.py. Nothing here is reachable from a job once its filter is on.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
from functools import cache

from harness_code import seccomp

_PDEATHSIG, _DUMPABLE, _CAPBSET_DROP, _SUBREAPER, _NO_NEW_PRIVS = 1, 4, 24, 36, 38
_FILTER_MODE, _SPEC_ALLOW = 1, 4  # a filter must not switch the speculation guards on: they slow every program down
_CAPABILITIES_V3 = 0x20080522
_LAST_CAPABILITY = 63


class Refused(OSError):
    """The kernel, or the platform, does not offer this."""


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: int | bytes | None) -> int:
    """A system call; bytes go as a pointer, None as a null pointer. Raises Refused with the kernel's reason."""
    here = seccomp.for_platform()
    if here is None:
        raise Refused(f"{name}: not on this platform")
    words = [ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_long(a or 0) for a in arguments]
    result: int = _libc().syscall(ctypes.c_long(here.numbers[name]), *words)
    if result < 0:
        code = ctypes.get_errno()
        raise Refused(code, f"{name}: {os.strerror(code)}")
    return result


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        _libc().prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))


def die_with_parent() -> None:
    """Be killed when the parent ends; whether it has ended already is the caller's to ask. Linux only."""
    _prctl(_PDEATHSIG, signal.SIGKILL)


def heed_interrupts() -> None:
    """SIGINT ends the process. Not by `signal.signal`, which turns numbers into enumerations and back on the way."""
    _libc().signal(2, None)


def adopt_orphans() -> None:
    """What a child leaves behind becomes ours, not the system's. Linux only."""
    _prctl(_SUBREAPER, 1)


def hide_memory() -> None:
    """Close this process's memory and environment to other processes of the same user (Linux; root still sees)."""
    _prctl(_DUMPABLE, 0)


def forget_capabilities() -> None:
    """None can be had back by starting another program, here or in any child. Without effect for ordinary users."""
    for capability in range(_LAST_CAPABILITY + 1):
        _prctl(_CAPBSET_DROP, capability)


def drop_capabilities() -> None:
    call("capset", struct.pack("=Ii", _CAPABILITIES_V3, 0), bytes(24))


def no_new_privileges() -> None:
    _prctl(_NO_NEW_PRIVS, 1)


def install_filter(program: bytes) -> None:
    """Put this thread, and all it starts, behind a system call filter for good."""
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    call("seccomp", _FILTER_MODE, _SPEC_ALLOW, header)


def address_space() -> int:
    """Bytes mapped now: limits are relative to it, since an absolute one below it fails every job. 0: unknown."""
    if sys.platform != "linux":
        return 0
    with open("/proc/self/statm") as status:
        return int(status.read().split()[0]) * resource.getpagesize()
