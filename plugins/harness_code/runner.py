"""The sandbox's own side: a warm interpreter that forks one confined job per model-written program.

Does: serve jobs over a control socket; in each job confine the process, run the program (or the tests that call it from
another job), send back plain values.
Doesn't: import anything outside the standard library and its own neighbours, or know an expected value: what a job claims
is judged by the process that started this one (sandbox.py). Nothing here is believed for what it says about success.

Control socket, two bytes each way: `J` and a slot, with two descriptors, starts a job that reads frames from the first and
writes frames to the second; `K` and a slot ends it and is answered with its wait status, its CPU seconds and whether it had
died of itself; `W` does the same to a job whose pipe has ended, which may still be dying. The first message, from here, is a
text of stated length that says why the level cannot be had ("": it can).

A frame is four bytes of length, one byte of kind, and JSON. The first one down a job's pipe says what to do:
`C` call a function on inputs (answered by one `A`), `S` serve the calls of tests (`R` when the program is loaded, then one
`A` for each request), `T` run tests (requests go up as `Q`; the end is `P`, passed, or `F`). `X` goes up when the program
itself raised. Values are tagged (plain.py), never pickled.
"""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import socket
import struct
import sys
import types
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep
from typing import Any, NoReturn

from harness_code import confining, examining, kernel, warming
from harness_code.confining import Cage
from harness_code.plain import MANY_NODES, NODES, decode, encode, nothing_else

STATUS = struct.Struct("=id?")
HEADER = struct.Struct("=Ic")
OUT_OF_MEMORY = 77
# From the end of its pipes to the end of a dying process: microseconds, but for a busy machine.
DYING_SECONDS = 2.0
REHEARSALS = 16  # Python specializes a function after eight calls
_ANY = {
    "program": "def f(a):\n    return [a, (1, 2.5), {'x': None}]\n",
    "entry_point": "f",
    "limits": {"output": 1 << 16},
}
_REHEARSED = (
    {**_ANY, "inputs": json.dumps([[[1, 2, 3]]] * 8), "tagged": False, "opaque": False},
    {**_ANY, "inputs": json.dumps([["l", ["t", 1, 2.5, "x", ["l", 3]]]] * 8), "tagged": True, "opaque": True},
)


def serve(control: socket.socket, cage: Cage) -> None:
    """Fork a job for every request until the socket ends. Single-threaded: a fork carries one thread only."""
    jobs: dict[int, int] = {}
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 2, 2)
        if not message:
            break
        kind, slot = message[:1], message[1]
        if kind == b"J":
            jobs[slot] = _start(control, cage, slot, descriptors)
            continue
        job = jobs.pop(slot)
        own = has_ended(job, DYING_SECONDS if kind == b"W" else 0.0)
        status, cpu = _end(job, others=bool(jobs))
        control.sendall(STATUS.pack(status, cpu, own))
        confining.tidy(cage, slot)  # after the answer: half a million files take longer than the judge waits
    for slot, job in jobs.items():
        _end(job, others=False)
        confining.tidy(cage, slot)


def _start(control: socket.socket, cage: Cage, slot: int, descriptors: list[int]) -> int:
    """The process id of a new job."""
    server = os.getpid()
    job = confining.fork(cage)
    if job == 0:
        os.close(control.detach())
        os.setpgid(0, 0)
        kernel.die_with_parent()
        if cage.level != "full" and os.getppid() != server:  # it died before it could be asked to tell
            os._exit(1)
        run_job(cage, slot, *descriptors)
    with suppress(PermissionError, ProcessLookupError):
        os.setpgid(job, job)
    for descriptor in descriptors:
        os.close(descriptor)
    return job


def has_ended(job: int, patience: float) -> bool:
    """Whether a child is dead, or dies within so many seconds (Linux). It stays to be waited for."""
    if sys.platform != "linux":
        return False
    deadline = monotonic() + patience
    while os.waitid(os.P_PID, job, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if monotonic() >= deadline:
            return False
        sleep(0.001)
    return True


def _end(job: int, *, others: bool) -> tuple[int, float]:
    """Kill a job; its wait status and CPU seconds."""
    kill_group(job)
    with suppress(ProcessLookupError):
        os.kill(job, signal.SIGKILL)  # before it could set its group
    _, status, usage = os.wait4(job, 0)
    if not others:
        sweep()
    return status, usage.ru_utime + usage.ru_stime


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


class Line:
    """A job's two pipes."""

    def __init__(self, requests: int, replies: int) -> None:
        self._requests, self._replies = requests, replies

    def send(self, kind: bytes, message: Any = None) -> None:
        body = json.dumps(message).encode()
        data = memoryview(HEADER.pack(len(body), kind) + body)
        while data:
            data = data[os.write(self._replies, data) :]

    def receive(self) -> tuple[bytes, Any]:
        """Kind and message; leaves the process when the other side has closed."""
        size, kind = HEADER.unpack(self._read(HEADER.size))
        return kind, json.loads(self._read(size).decode())

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = os.read(self._requests, min(size - len(data), 1 << 20))
            if not part:
                os._exit(0)
            data += part
        return bytes(data)


def run_job(cage: Cage, slot: int, requests: int, replies: int) -> NoReturn:
    """The life of a job. Leaves by `os._exit`: no atexit, no finalizer and no thread of the candidate runs on."""
    try:
        kernel.heed_interrupts()
        line = Line(requests, replies)
        kind, request = line.receive()
        confining.confine(cage, request["limits"], slot)
        JOBS[kind](line, request)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except BaseException:  # noqa: BLE001 - the reader sees the status
        os._exit(1)
    os._exit(0)


def call_on_inputs(line: Line, request: dict[str, Any]) -> None:
    """Load the program, then call its entry point once per input. Stops at the first exception."""
    printed, calls, raised = Printed.put_in_place(request["limits"]["output"]), [], ""
    refer, nodes = (examining.class_name, MANY_NODES) if request["opaque"] else (nothing_else, NODES)
    try:
        function = load(request["program"])[request["entry_point"]]
        for given in json.loads(request["inputs"]):
            printed.clear()
            # Encoded at once, so that neither this call nor a later one can change what is kept.
            arguments = decode(given) if request["tagged"] else given
            calls.append([encode(function(*arguments), refer, nodes=nodes), printed.text()])
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001 - a record, like the verifier's own border
        raised = examining.class_name(error)
    line.send(b"A", {"calls": calls, "raised": raised})


def serve_tests(line: Line, request: dict[str, Any]) -> None:
    """Load the program, then do what tests in another job ask, until they end."""
    printed = Printed.put_in_place(request["limits"]["output"])
    try:
        requests = examining.Requests(load(request["program"]))
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001 - a record
        line.send(b"X", examining.class_name(error))
        return
    line.send(b"R")
    while True:
        _, question = line.receive()
        printed.clear()
        try:
            answer = ["value", requests.answer(question)]
        except MemoryError:
            raise
        except BaseException as error:  # noqa: BLE001 - a record
            answer = ["raised", examining.known_class(error)]
        line.send(b"A", answer)


def run_tests(line: Line, request: dict[str, Any]) -> None:
    """Run the tests; each use of the program goes up as a question and waits for its answer."""
    Printed.put_in_place(request["limits"]["output"])

    def ask(question: Any) -> Any:
        line.send(b"Q", question)
        return line.receive()[1]

    try:
        examining.examine(request["setup"], request["tests"], request["names"], ask)
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001 - a record
        line.send(b"F", {"raised": examining.class_name(error), "line": examining.line_of(error)})
        return
    line.send(b"P")


JOBS: dict[bytes, Callable[[Line, dict[str, Any]], None]] = {b"C": call_on_inputs, b"S": serve_tests, b"T": run_tests}


def load(program: str) -> dict[str, Any]:
    """The names of the program, run as a module of its own. Raises whatever it raises."""
    module = types.ModuleType("solution")
    sys.modules["solution"] = module  # dataclasses look their module up
    exec(compile(program, "<solution>", "exec", dont_inherit=True), module.__dict__)
    return module.__dict__


class Printed(io.TextIOBase):
    """Standard output of the program, up to a number of characters."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.clear()

    @classmethod
    def put_in_place(cls, limit: int) -> Printed:
        printed = cls(limit)
        sys.stdout = sys.stderr = printed
        return printed

    def clear(self) -> None:
        self.parts: list[str] = []
        self.left = self.limit

    def write(self, text: str) -> int:
        kept = str(text)[: self.left]
        self.left -= len(kept)
        self.parts.append(kept)
        return len(text)

    def text(self) -> str:
        return "".join(self.parts)


def rehearse() -> None:
    """Run a program of our own as a job does, in this process, before any job is forked.

    What Python and the linker set up on first use is then set up once. What each job would change of it in memory, the
    kernel would copy for each, page by page, and that is most of what a job costs.
    """
    streams = sys.stdout, sys.stderr
    for request in _REHEARSED * REHEARSALS:
        (requests, ours), (theirs, replies) = os.pipe(), os.pipe()
        Line(theirs, ours).send(b"C", request)
        line = Line(requests, replies)
        kind, received = line.receive()
        JOBS[kind](line, received)
        for descriptor in (requests, ours, theirs, replies):
            os.close(descriptor)
    sys.stdout, sys.stderr = streams
    del sys.modules["solution"]


def main(descriptor: int, parent: int, level: str) -> None:
    """Serve the control socket until it ends or the parent dies."""
    control = socket.socket(fileno=descriptor)
    kernel.die_with_parent()
    if os.getppid() != parent:
        return
    kernel.heed_interrupts()  # the first call, which sets up what every job's call needs
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    warming.import_all()
    try:
        cage = confining.enter(level)
    except OSError as error:
        tell(control, str(error) or type(error).__name__)
        return
    rehearse()
    gc.collect()
    gc.freeze()
    tell(control, "")
    try:
        serve(control, cage)
    finally:
        confining.leave(cage)


def tell(control: socket.socket, reason: str) -> None:
    text = reason.encode()[:200]
    control.sendall(bytes([len(text)]) + text)
