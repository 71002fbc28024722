"""What holds a job, by level: resource limits, and what the kernel has beyond them.

Does: prepare a cage once, in the interpreter that forks the jobs (`enter`), and lock each job into it (`confine`).
Doesn't: run programs, keep time, or judge.

Levels, strongest first. On Linux (x86_64, aarch64) all of them have the system call filter (seccomp.py), drop every
capability and are closed to other processes of the same user.

- "full": namespaces.py. The file system is a read-only view of Python's library and nothing else; /tmp is a fresh tmpfs
  and the process number 1 of its own process namespace, per job; there is no network.
- "landlock": landlock.py. Python's library can be read, a private folder used that is emptied after each job.
- "rlimits": no file can be written; those that the user can read can be read.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from typing import NamedTuple

from harness_code import kernel, landlock, namespaces, seccomp

LEVELS = ("full", "landlock", "rlimits")
SLOTS = 2  # jobs at the same time: a program, and the tests that call it
FILE_BYTES, DESCRIPTORS, THREADS = 64 << 20, 128, 256
_CHILDREN = frozenset({"os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.system", "os.kill", "os.killpg"})


class Cage(NamedTuple):
    """What `enter` has prepared: `size` is the address space in bytes, `processes` the namespace's descriptor."""

    level: str
    size: int
    filter: bytes | None
    processes: int
    private: tuple[landlock.Private, ...]


def enter(level: str) -> Cage:
    """Prepare `level` in this interpreter, which has no other thread. Raises OSError where the kernel refuses.

    At level "full" the caller goes on in a child of the process that was started.
    """
    if level not in LEVELS:
        raise kernel.Refused(f"unknown, known are {', '.join(LEVELS)}")
    here, size, processes = seccomp.for_platform(), kernel.address_space(), -1
    private: tuple[landlock.Private, ...] = ()
    if level == "full":
        processes = namespaces.enter()
    elif level == "landlock":
        private = landlock.enter(SLOTS)
    else:
        _vanish() if here is None else os.chdir("/")
    kernel.adopt_orphans()
    kernel.hide_memory()
    kernel.forget_capabilities()
    rules = here and seccomp.program(here, keep_attributes=level != "full", read_only=level == "rlimits")
    if rules is not None:
        kernel.no_new_privileges()
    _limit_all(level)
    return Cage(level, size, rules, processes, private)


def _vanish() -> None:
    """A working directory that is empty and stays so: nothing can be made in a removed one, not even by root."""
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    os.rmdir(folder)


def fork(cage: Cage) -> int:
    """As os.fork; at level "full" the child is number 1 of a process namespace of its own."""
    if cage.level != "full":
        return os.fork()
    namespaces.split_processes()
    job = os.fork()
    if job:
        namespaces.rejoin(cage.processes)
    return job


def confine(cage: Cage, limits: dict[str, int], slot: int) -> None:
    """Lock this process, a fresh job, up for good. Raises OSError where that fails: the job must not go on then."""
    if cage.level == "full":
        namespaces.private_folder()
        namespaces.be_nobody()
    _limit(cage, limits)
    if cage.filter is None:
        _make_do()
        return
    if cage.level == "landlock":
        landlock.restrict(cage.private[slot])
    if cage.level != "rlimits":
        tempfile.tempdir = os.getcwd()
    kernel.drop_capabilities()
    try:
        kernel.install_filter(seccomp.bind_to(cage.filter, os.getpid()))
    except OSError:
        if cage.level != "rlimits":
            raise
        _make_do()


def _make_do() -> None:
    """Without a filter: an audit hook against the plain ways, and no further process where the user is not root.

    The limit counts threads as well, which is why it is not set where there is a filter.
    """
    sys.addaudithook(_refuse)
    _bound(resource.RLIMIT_NPROC, 0)


def _limit_all(level: str) -> None:
    """What binds every job alike: it inherits these limits, and the interpreter can live with them itself."""
    _bound(resource.RLIMIT_FSIZE, FILE_BYTES if level != "rlimits" else 0)
    _bound(resource.RLIMIT_NOFILE, DESCRIPTORS)
    _bound(resource.RLIMIT_CORE, 0)


def _limit(cage: Cage, limits: dict[str, int]) -> None:
    _bound(resource.RLIMIT_CPU, limits["cpu"], slack=0 if cage.level == "full" else 1)
    if cage.level == "full":  # counted within our own user namespace; elsewhere with all the user's processes
        _bound(resource.RLIMIT_NPROC, THREADS)
    if cage.size:
        _bound(resource.RLIMIT_AS, cage.size + limits["memory"])


def _bound(which: int, value: int, *, slack: int = 0) -> None:
    """`slack` between soft and hard has the CPU limit end a process by SIGXCPU, which has one meaning.

    Number 1 of a process namespace is not ended by that signal: there the hard limit, SIGKILL, comes at once.
    """
    _, hard = resource.getrlimit(which)
    top = value + slack
    if hard != resource.RLIM_INFINITY:
        value, top = min(value, hard), min(top, hard)
    resource.setrlimit(which, (value, top))


def _refuse(event: str, _: object) -> None:
    if event in _CHILDREN or event.startswith(("subprocess.", "socket.connect", "socket.bind")):
        raise PermissionError(event)


def tidy(cage: Cage, slot: int) -> None:
    """Leave nothing of the slot's job, which has ended."""
    if cage.level == "landlock":
        landlock.empty(cage.private[slot].folder)


def leave(cage: Cage) -> None:
    """Remove what `enter` has made on disk."""
    landlock.leave(cage.private)
