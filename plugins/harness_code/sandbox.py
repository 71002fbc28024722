"""Run a model-written program in another process and read back what its function returned.

Does: keep one warm interpreter (runner.py) that forks a confined job per program, own the clock and the kill, bound
everything that comes back before decoding it.
Doesn't: hold expected values (verify.py compares, in a process the program never lives in) or import the program.

The interpreter is started afresh, never forked from here: a forked child carries its parent's memory, and programs
have found the expected values there.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.types import Json
from harness_code.runner import OUT_OF_MEMORY, STATUS

JOBS_PER_INTERPRETER = 1000
REPLY_BYTES = 8 << 20
KILL_SECONDS = 5.0
_PR_SET_DUMPABLE = 4


class Limits(NamedTuple):
    """Of one job: CPU seconds (whole), wall seconds, bytes of memory beyond the interpreter's, printed characters.

    The CPU limit is the one that programs meet; the wall limit is wide, so that a busy machine changes no verdict.
    """

    cpu: int = 1
    wall: float = 5.0
    memory: int = 512 << 20
    output: int = 1 << 16


class Call(NamedTuple):
    """What one call returned and printed."""

    value: Any
    printed: str


class Report(NamedTuple):
    """`calls` up to the first failure; `limit` is "", "time" or "memory"; `failure` says what else went wrong."""

    calls: tuple[Call, ...]
    limit: str
    failure: str


class SandboxFailure(Exception):
    """The sandbox, not the program, went wrong: nothing can be said about the program."""


def isolation() -> str:
    """The level in force, for the manifest. "rlimits": files, network and native tricks are open to the program."""
    return "rlimits"


class Sandbox:
    """One warm interpreter, started by the first `run`. Not for use by several threads at once."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._jobs = 0

    def start(self) -> socket.socket:
        if self._control is not None and self._jobs < JOBS_PER_INTERPRETER:
            return self._control
        self.close()
        self._control, theirs = socket.socketpair()
        self._control.settimeout(KILL_SECONDS)
        with theirs:
            # Like `python -I -S`, except that the hash seed is fixed: the order of a set of strings must not decide
            # a verdict. The environment holds nothing else, so -E has nothing to ignore.
            runner = str(Path(__file__).with_name("runner.py"))
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-P", "-S", runner, str(theirs.fileno()), str(os.getpid())],
                env={"PYTHONHASHSEED": "0"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._jobs = 0
        return self._control

    def close(self) -> None:
        """End the interpreter and its job, if any."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            try:
                self._process.wait(KILL_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = self._control = None

    def run(self, program: str, entry_point: str, inputs: Sequence[Json], limits: Limits) -> Report:
        """Call `entry_point` of `program` once for every argument list. Raises SandboxFailure."""
        request = {
            "program": program,
            "entry_point": entry_point,
            "inputs": [json.dumps(arguments) for arguments in inputs],
            "limits": limits._asdict(),
        }
        try:
            reply, late, status, cpu = self._job(json.dumps(request).encode(), limits.wall)
        except OSError as error:
            self.close()
            raise SandboxFailure(f"the sandbox did not answer: {error}") from error
        if reply is None:
            return _unanswered(late, status, cpu >= limits.cpu)
        return _decode_reply(reply)

    def _job(self, request: bytes, wall: float) -> tuple[bytes | None, bool, int, float]:
        control = self.start()
        self._jobs += 1
        with contextlib.ExitStack() as stack:
            theirs_in, ours_in = (stack.enter_context(open(end, mode, buffering=0)) for end, mode in _pipe())
            ours_out, theirs_out = (stack.enter_context(open(end, mode, buffering=0)) for end, mode in _pipe())
            socket.send_fds(control, [b"J"], [theirs_in.fileno(), theirs_out.fileno()])
            theirs_in.close()
            theirs_out.close()
            deadline = time.monotonic() + wall
            with contextlib.suppress(BrokenPipeError):  # a dead job shows as a reply that never comes
                view = memoryview(request)
                while view:
                    view = view[ours_in.write(view) or 0 :]
            ours_in.close()
            reply, late = _read_line(ours_out.fileno(), deadline)
        control.sendall(b"K")
        answer = control.recv(STATUS.size)
        if len(answer) != STATUS.size:
            raise ConnectionError("it ended")
        status, cpu = STATUS.unpack(answer)
        return reply, late, status, cpu


def _pipe() -> list[tuple[int, str]]:
    read, write = os.pipe()
    return [(read, "rb"), (write, "wb")]


def _read_line(descriptor: int, deadline: float) -> tuple[bytes | None, bool]:
    """(the first complete line or None, whether the deadline passed). What follows the line is never read."""
    received = bytearray()
    while len(received) <= REPLY_BYTES:
        patience = deadline - time.monotonic()
        if patience <= 0 or not select.select([descriptor], [], [], patience)[0]:
            return None, True
        data = os.read(descriptor, 1 << 16)
        if not data:
            break
        received += data
        if (end := data.find(b"\n")) >= 0:
            return bytes(received[: len(received) - len(data) + end]), False
    return None, False


def _unanswered(late: bool, status: int, cpu_spent: bool) -> Report:
    code = os.waitstatus_to_exitcode(status)
    if late or cpu_spent or code == -signal.SIGXCPU:
        return Report((), "time", "")
    if code == OUT_OF_MEMORY:
        return Report((), "memory", "")
    return Report((), "", f"no answer, {f'signal {-code}' if code < 0 else f'status {code}'}")


def _decode_reply(reply: bytes) -> Report:
    try:
        message = json.loads(reply)
        calls = tuple(Call(_decode(value), str(printed)) for value, printed in message["calls"])
        raised = str(message["raised"])[:60]
    except (ValueError, TypeError, KeyError, RecursionError, AttributeError, OverflowError) as error:
        return Report((), "", f"unreadable answer, {type(error).__name__}")
    return Report(calls, "", raised)


def _decode(tagged: Any) -> Any:
    tag, content = tagged
    if tag in _SCALARS:
        return _SCALARS[tag](content)
    if tag == "d":
        return {_decode(key): _decode(value) for key, value in content}
    return _CONTAINERS[tag](_decode(item) for item in content)


_SCALARS: dict[str, Callable[[Any], Any]] = {
    "n": lambda _: None,
    "b": bool,
    "i": lambda text: int(text, 16),
    "f": float.fromhex,
    "s": str,
    "y": bytes.fromhex,
}
_CONTAINERS: dict[str, Any] = {"l": list, "t": tuple, "S": set}


def same(expected: Any, value: Any) -> bool:
    """Python's == on plain data, except: floats within 1e-6 of an expected finite float; NaN equals nothing."""
    if isinstance(expected, float) and isinstance(value, int | float):
        return expected == value or math.isclose(expected, value, rel_tol=1e-6, abs_tol=1e-6)
    if isinstance(expected, list | tuple) and type(expected) is type(value):
        return len(expected) == len(value) and all(map(same, expected, value))
    if isinstance(expected, dict) and isinstance(value, dict):
        return expected.keys() == value.keys() and all(same(item, value[key]) for key, item in expected.items())
    return bool(expected == value)


def hide_memory() -> None:
    """Close this process's memory and environment to other processes of the same user (Linux; root still sees)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)
