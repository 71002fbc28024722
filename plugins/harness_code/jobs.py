"""The interpreter that forks jobs, and a job, as the process that judges sees them.

Does: start the interpreter at a level of isolation; start a job in one of its slots, send and receive frames (runner.py
says of what form) until the deadline, kill the job and say how it ended.
Doesn't: parse what comes back, or trust any of it.

The interpreter is started afresh, never forked from here: a forked child carries its parent's memory, and programs
have found the expected values there.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import HarnessError
from harness_code.runner import HEADER, STATUS

START_SECONDS, KILL_SECONDS = 60.0, 20.0
# Like `python -I -S`, except that the hash seed is fixed (-E would ignore it): the order of a set of strings must not
# decide a verdict. The folder of this package can be imported from only until the interpreter is made ready.
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from harness_code import runner; del sys.path[0]; "
    "runner.main(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])"
)


class SandboxFailure(HarnessError):
    """The sandbox, not the program, went wrong: nothing can be said about the program."""


class Interpreter:
    """A running, warm interpreter at `level`. Raises SandboxFailure when it cannot be had."""

    def __init__(self, level: str) -> None:
        self.control, theirs = socket.socketpair()
        with theirs:
            here = str(Path(__file__).resolve().parents[1])
            self.process = subprocess.Popen(
                [sys.executable, "-s", "-P", "-S", "-c", _BOOT, here, str(theirs.fileno()), str(os.getpid()), level],
                env={"PYTHONHASHSEED": "0"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        refused = self._refused()
        if refused:
            self.close()
            raise SandboxFailure(f"level {level}: {refused}")
        self.control.settimeout(KILL_SECONDS)

    def _refused(self) -> str:
        """Why the interpreter is not ready; "" when it is."""
        self.control.settimeout(START_SECONDS)
        try:
            size = self.control.recv(1)
            return self.control.recv(size[0]).decode() if size and size[0] else "" if size else "it did not start"
        except OSError as error:
            return str(error)

    def close(self) -> None:
        """End it and its jobs, if any."""
        self.control.close()
        try:
            self.process.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Frame(NamedTuple):
    """`kind` is one byte, `body` JSON that nobody has parsed yet."""

    kind: bytes
    body: bytes


class Ending(NamedTuple):
    """`status` as of os.wait, CPU seconds, and whether the deadline passed; its pipe ended; it died of itself."""

    status: int
    cpu: float
    late: bool
    closed: bool
    own: bool


class Job:
    """A job that has been started; `end` must be called. All methods raise OSError when the interpreter is gone."""

    def __init__(self, control: socket.socket, slot: int, *, deadline: float, frame_bytes: int) -> None:
        self._control, self._slot, self._deadline, self._frame_bytes = control, slot, deadline, frame_bytes
        self._received = bytearray()
        self._late = self._closed = False
        theirs_in, self._requests = os.pipe()
        self._replies, theirs_out = os.pipe()
        try:
            socket.send_fds(control, [b"J" + bytes([slot])], [theirs_in, theirs_out])
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        os.set_blocking(self._requests, False)
        os.set_blocking(self._replies, False)

    def send(self, kind: bytes, message: Any) -> None:
        self.forward(Frame(kind, json.dumps(message).encode()))

    def forward(self, frame: Frame) -> None:
        """A job that is dead, or does not read until the deadline, shows as a reply that never comes."""
        data = memoryview(HEADER.pack(len(frame.body), frame.kind) + frame.body)
        while data:
            try:
                data = data[os.write(self._requests, data) :]
            except BlockingIOError:
                if not self._wait(self._requests, select.POLLOUT):
                    return
            except BrokenPipeError:
                return

    def receive(self) -> Frame | None:
        """The next frame; None when there is none: the deadline, the end of the job, or a frame that is too large."""
        header = self._take(HEADER.size)
        if header is None:
            return None
        size, kind = HEADER.unpack(header)
        body = self._take(size) if size <= self._frame_bytes else None
        return None if body is None else Frame(kind, body)

    def _take(self, size: int) -> bytes | None:
        while len(self._received) < size:
            try:
                data = os.read(self._replies, 1 << 16)  # what a pipe holds
            except BlockingIOError:
                if not self._wait(self._replies, select.POLLIN):
                    return None
                continue
            if not data:
                self._closed = True
                return None
            self._received += data
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken

    def _wait(self, descriptor: int, event: int) -> bool:
        poll = select.poll()
        poll.register(descriptor, event)
        patience = max(0.0, self._deadline - time.monotonic())
        self._late = not poll.poll(patience * 1000)
        return not self._late

    def end(self) -> Ending:
        """Kill it, whatever it does, and all that it started; afterwards nothing of it exists."""
        self._control.sendall((b"W" if self._closed else b"K") + bytes([self._slot]))
        answer = self._control.recv(STATUS.size)
        if len(answer) != STATUS.size:
            raise ConnectionError("it ended")
        status, cpu, own = STATUS.unpack(answer)
        return Ending(status, cpu, self._late, self._closed, own)

    def close(self) -> None:
        os.close(self._requests)
        os.close(self._replies)
