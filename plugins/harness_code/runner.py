"""The sandbox's own side: a warm interpreter that forks one confined job per model-written program.

Does: serve jobs over a control socket; in each job limit the process, run the program, send back plain values.
Doesn't: import anything outside the standard library, or know an expected value: what a job claims is judged by the
process that started this one (sandbox.py). Nothing here is believed for what it says about success.

Control socket, one byte each way: `J` with two descriptors starts a job that reads its request from the first and
writes one line of JSON to the second; any further byte (or the end of the socket) ends the job and is answered with
its wait status and CPU seconds.

Request: {"program", "entry_point", "inputs", "limits": {"cpu", "memory", "output"}}. Reply:
{"calls": [[value, printed], ...], "raised": exception class or ""}; values are tagged (`_encode`), never pickled.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import socket
import struct
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import sleep
from typing import Any, NoReturn

STATUS = struct.Struct("=id")
OUT_OF_MEMORY = 77
NODES, DEPTH, INT_BITS = 100_000, 300, 4_000_000
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
# Imported once, before any fork: programs use them, and importing costs more than running.
WARM = (
    "bisect",
    "collections",
    "copy",
    "functools",
    "heapq",
    "itertools",
    "math",
    "operator",
    "re",
    "string",
    "typing",
)
NO_CHILDREN = frozenset({"os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.system", "os.kill", "os.killpg"})


def serve(control: socket.socket) -> None:
    """Fork a job for every request until the socket ends. Single-threaded: a fork carries one thread only."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # children that a job leaves behind become ours, and `sweep` finds them
    for name in WARM:
        importlib.import_module(name)
    size = address_space()
    server = os.getpid()
    gc.collect()
    gc.freeze()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 2)
        if not message:
            return
        job = os.fork()
        if job == 0:
            control.close()
            os.setpgid(0, 0)
            run_job(descriptors[0], descriptors[1], size=size, server=server)
        os.setpgid(job, job)
        for descriptor in descriptors:
            os.close(descriptor)
        control.recv(1)
        kill_group(job)
        _, status, usage = os.wait4(job, 0)
        sweep()
        control.sendall(STATUS.pack(status, usage.ru_utime + usage.ru_stime))


def kill_group(leader: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def sweep() -> None:
    """Kill what left the job's process group. Usually there is nothing and this is one system call."""
    for _ in range(1000):
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        for child in children():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        sleep(0.001)


def children() -> list[int]:
    found = []
    for name in os.listdir("/proc") if sys.platform == "linux" else ():
        try:
            with open(f"/proc/{name}/stat") as stat:
                parent = int(stat.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        if parent == os.getpid():
            found.append(int(name))
    return found


def run_job(request_fd: int, reply_fd: int, *, size: int, server: int) -> NoReturn:
    """The life of a job. Leaves by `os._exit`: no atexit, no finalizer and no thread of the candidate runs on."""
    try:
        with open(request_fd, "rb") as stream:
            request = json.loads(stream.read())
        confine(request["limits"], size)
        if os.getppid() != server:  # it died before `confine` asked to die with it
            os._exit(1)
        reply = json.dumps(execute(request)).encode() + b"\n"
        while reply:
            reply = reply[os.write(reply_fd, reply) :]
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except BaseException:  # noqa: BLE001 - the reader sees the status
        os._exit(1)
    os._exit(0)


def confine(limits: dict[str, int], size: int) -> None:
    """Everything that holds this process before it meets the program. The one place to extend.

    rlimits bound one process, NPROC forbids more of them but not to root; the audit hook stops the honest ways to
    make children or signals. None of it stops determined native code: see `sandbox.isolation`.
    """
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for which, value in (
        (resource.RLIMIT_CPU, limits["cpu"]),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        bound(which, value)
    if size:
        bound(resource.RLIMIT_AS, size + limits["memory"])

    def refuse(event: str, _: object) -> None:
        if event in NO_CHILDREN or event.startswith(("subprocess.", "socket.connect", "socket.bind")):
            raise PermissionError(event)

    sys.addaudithook(refuse)


def bound(which: int, value: int) -> None:
    # One second between soft and hard, so that the CPU limit ends the process by SIGXCPU, which has one meaning.
    _, hard = resource.getrlimit(which)
    top = value + 1 if which == resource.RLIMIT_CPU else value
    if hard != resource.RLIM_INFINITY:
        value, top = min(value, hard), min(top, hard)
    resource.setrlimit(which, (value, top))


def execute(request: dict[str, Any]) -> dict[str, Any]:
    """Run the program, then call its entry point once per input. Stops at the first exception."""
    printed = Printed(request["limits"]["output"])
    sys.stdout = sys.stderr = printed
    module = types.ModuleType("solution")
    sys.modules["solution"] = module  # dataclasses look their module up
    calls = []
    try:
        exec(compile(request["program"], "<solution>", "exec"), module.__dict__)
        function = module.__dict__[request["entry_point"]]
        for arguments in request["inputs"]:
            printed.clear()
            # Encoded at once, so that a later call cannot change an earlier value.
            value = encode(function(*json.loads(arguments)))
            calls.append([value, printed.text()])
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001 - a record, like the verifier's own border
        return {"calls": calls, "raised": class_name(error)}
    return {"calls": calls, "raised": ""}


def class_name(error: BaseException) -> str:
    # Not `type(error).__name__`: a metaclass of the candidate's may answer that.
    return str(type.__dict__["__name__"].__get__(type(error)))[:60]


class Printed:
    """Standard output of the program, up to a number of characters."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.clear()

    def clear(self) -> None:
        self.parts: list[str] = []
        self.left = self.limit

    def write(self, text: str) -> int:
        kept = str(text)[: self.left]
        self.left -= len(kept)
        self.parts.append(kept)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def text(self) -> str:
        return "".join(self.parts)


def encode(value: Any) -> list[Any]:
    """Plain data as [tag, content]; TypeError for the rest. Subclasses of builtins go as their base contents."""
    return _encode(value, [NODES], DEPTH)


def _encode(value: Any, nodes: list[int], depth: int) -> list[Any]:
    nodes[0] -= 1
    if nodes[0] < 0 or depth < 0:
        raise OverflowError("too much data")
    if value is None:
        return ["n", None]
    for base in type.mro(type(value)):
        if base in _SCALARS:
            return _SCALARS[base](value)
        if base in _CONTAINERS:
            tag, items = _CONTAINERS[base]
            return [tag, [_encode(item, nodes, depth - 1) for item in items(value)]]
        if base is dict:
            pairs = dict.items(value)
            return ["d", [[_encode(key, nodes, depth - 1), _encode(item, nodes, depth - 1)] for key, item in pairs]]
    raise TypeError("not plain data")


def _encode_int(value: int) -> list[Any]:
    if int.bit_length(value) > INT_BITS:
        raise OverflowError("too large an integer")
    return ["i", int.__format__(value, "x")]  # decimal conversion is quadratic, and refused above 4300 digits


_SCALARS: dict[type, Callable[[Any], list[Any]]] = {
    bool: lambda value: ["b", value is True],
    int: _encode_int,
    float: lambda value: ["f", float.hex(value)],
    str: lambda value: ["s", str.__add__("", value)],
    bytes: lambda value: ["y", bytes.hex(value)],
}
_CONTAINERS: dict[type, tuple[str, Callable[[Any], Iterator[Any]]]] = {
    list: ("l", list.__iter__),
    tuple: ("t", tuple.__iter__),
    set: ("S", set.__iter__),
    frozenset: ("S", frozenset.__iter__),
}


def address_space() -> int:
    """Bytes mapped now: limits are relative to it, since an absolute one below it fails every job. 0: unknown."""
    if sys.platform != "linux":
        return 0
    with open("/proc/self/statm") as status:
        return int(status.read().split()[0]) * resource.getpagesize()


def prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


def main() -> None:
    """`runner.py DESCRIPTOR PARENT`: serve the control socket until it ends or the parent dies."""
    control = socket.socket(fileno=int(sys.argv[1]))
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[2]):
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    # A working directory that is empty and stays so: nothing can be made in a removed directory, not even by root.
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    os.rmdir(folder)
    serve(control)


if __name__ == "__main__":
    main()
