"""Run a model-written program in another process and read back what its function returned.

Does: keep one warm interpreter (runner.py) that forks a confined job per program, own the clock and the kill, bound
everything that comes back before decoding it; find out by trying which level of isolation this machine gives.
Doesn't: hold expected values (verify.py compares, in a process the program never lives in) or import the program.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import UsageError
from harness.types import Json
from harness_code import plain
from harness_code.confining import LEVELS
from harness_code.examining import CLASS_CHARS
from harness_code.jobs import Ending, Frame, Interpreter, Job, SandboxFailure
from harness_code.runner import OUT_OF_MEMORY

JOBS_PER_INTERPRETER = 1000
_REPLY_FAULTS = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)


class Limits(NamedTuple):
    """Of one job: CPU seconds (whole), wall seconds, bytes of memory beyond the interpreter's, printed characters.

    The CPU limit is the one that programs meet; the wall limit is wide, so that a busy machine changes no verdict.
    `reply` is how many bytes may come back in one frame.
    """

    cpu: int = 1
    wall: float = 5.0
    memory: int = 512 << 20
    output: int = 1 << 16
    reply: int = 8 << 20


class Call(NamedTuple):
    """What one call returned and printed."""

    value: Any
    printed: str


class Report(NamedTuple):
    """`calls` up to the first failure; `limit` is "", "time" or "memory"; `failure` says what else went wrong."""

    calls: tuple[Call, ...]
    limit: str
    failure: str


class Timed(NamedTuple):
    """A report, and the CPU seconds of the program's process."""

    report: Report
    cpu: float


class Answer(NamedTuple):
    """What a program's process sent back (None: nothing), as it came, and how the process ended."""

    reply: bytes | None
    ending: Ending

    def report(self) -> Report:
        return _unanswered(self.ending) if self.reply is None else _decode_reply(self.reply)


class Exam(NamedTuple):
    """Tests as code: `tests` is run in the names of `setup`; in it, `names` are the program's."""

    setup: str
    tests: str
    names: Sequence[str]


class Opaque:
    """A value that is no plain data: it equals itself alone."""

    def __init__(self, name: object) -> None:
        self.name = name


class Sandbox:
    """One warm interpreter at one level (None: the strongest that works). Not for use by several threads at once."""

    def __init__(self, at: str | None = None) -> None:
        self._at = at
        self._interpreter: Interpreter | None = None
        self._jobs = 0

    @property
    def level(self) -> str:
        if self._at is None:
            self._at = level()
        return self._at

    def start(self) -> Interpreter:
        """The interpreter, a fresh one every thousand jobs. Raises SandboxFailure when the level cannot be had."""
        if self._interpreter is None or self._jobs >= JOBS_PER_INTERPRETER:
            self.close()
            self._interpreter, self._jobs = Interpreter(self.level), 0
        return self._interpreter

    def close(self) -> None:
        """End the interpreter and its jobs, if any."""
        if self._interpreter is not None:
            self._interpreter.close()
        self._interpreter = None

    def run(self, program: str, entry_point: str, inputs: Sequence[Json], limits: Limits) -> Report:
        """Call `entry_point` of `program` once for every argument list. Raises SandboxFailure."""
        return self.call(program, entry_point, json.dumps(inputs), limits=limits).report()

    def call(self, program: str, entry_point: str, inputs: str, *, limits: Limits, tagged: bool = False) -> Answer:
        """As `run`, with the argument lists as one JSON text: as they are, or `tagged` (plain.py).

        For tagged arguments, values that are no plain data come back as `Opaque`; otherwise they are a failure.
        """
        request = {"program": program, "entry_point": entry_point, "inputs": inputs, "tagged": tagged, "opaque": tagged}
        with self._jobs_of(limits, 1) as (job,):
            job.send(b"C", {**request, "limits": limits._asdict()})
            frame = job.receive()
            ending = job.end()
        return Answer(None if frame is None else frame.body, ending)

    def examine(self, program: str, exam: Exam, *, limits: Limits) -> Timed:
        """Run tests that call the program. The report has no calls; its `failure` is "" when the tests have passed."""
        with self._jobs_of(limits, 2) as (job, examiner):
            job.send(b"S", {"program": program, "limits": limits._asdict()})
            setup = {"setup": exam.setup, "tests": exam.tests, "names": exam.names}
            examiner.send(b"T", {**setup, "limits": limits._asdict()})
            verdict = _converse(job, examiner)
            examined, ending = examiner.end(), job.end()
        if isinstance(verdict, str):
            return Timed(Report((), "", verdict), ending.cpu)
        return Timed(_unanswered(ending if verdict is job else examined), ending.cpu)

    @contextmanager
    def _jobs_of(self, limits: Limits, count: int) -> Iterator[list[Job]]:
        """Jobs that the block must end. Whatever goes wrong in it, an interpreter with a job left is not used again."""
        deadline = time.monotonic() + limits.wall
        control, ended = self.start().control, False
        with ExitStack() as stack:
            try:
                jobs = [Job(control, slot, deadline=deadline, frame_bytes=limits.reply) for slot in range(count)]
                for started in jobs:
                    stack.enter_context(closing(started))
                self._jobs += count
                yield jobs
                ended = True
            except OSError as error:
                raise SandboxFailure(f"the sandbox did not answer: {error}") from error
            finally:
                if not ended:
                    self.close()


def _converse(job: Job, examiner: Job) -> str | Job:
    """Carry questions to the program and answers back. "" (passed), what failed, or the job that fell silent."""
    loaded = job.receive()
    if loaded is None:
        return job
    if loaded.kind != b"R":
        return f"{_class(_parsed(loaded.body))} while it is loaded"
    while question := examiner.receive():
        if question.kind == b"P":
            return ""
        if question.kind != b"Q":
            message = _parsed(question.body)
            return f"{_class(message.get('raised'))} in line {message.get('line')} of the tests"
        job.forward(question)
        answer = job.receive()
        if answer is None:
            return job
        examiner.forward(Frame(b"A", answer.body))
    return examiner


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return {}


def _class(name: object) -> str:
    """What a program says that it raised, in printable ASCII. Never empty: that is how a passed test reads."""
    return ascii(name[:CLASS_CHARS])[1:-1] if isinstance(name, str) and name else "an exception"


def _unanswered(ending: Ending) -> Report:
    """The CPU limit ends a job by SIGXCPU, or by SIGKILL where that has no effect.

    CPU seconds do not tell: the limit is counted in ticks of the clock, the report in run time, and beside many short
    neighbours the report has been seen at six tenths of the limit.
    """
    code = os.waitstatus_to_exitcode(ending.status)
    if ending.late or code == -signal.SIGXCPU or (ending.own and code == -signal.SIGKILL):
        return Report((), "time", "")
    if code == OUT_OF_MEMORY:
        return Report((), "memory", "")
    how = f"signal {-code}" if code < 0 else f"status {code}"
    return Report((), "", f"no answer, {how if ending.closed else 'it is too large'}")


def _decode_reply(reply: bytes) -> Report:
    try:
        message = json.loads(reply)
        calls = tuple(Call(plain.decode(value, Opaque), str(printed)) for value, printed in message["calls"])
        raised = _class(message["raised"]) if message["raised"] else ""
    except _REPLY_FAULTS as error:
        return Report((), "", f"unreadable answer, {type(error).__name__}")
    return Report(calls, "", raised)


class Probed(NamedTuple):
    """The level in force, what a hostile sample could do at it all the same, and why no stronger one is in force."""

    level: str
    open: tuple[str, ...]
    refused: tuple[str, ...]


@cache
def probe() -> Probed:
    """Try the levels from the strongest on, by running samples; once per process. Raises SandboxFailure if none works."""
    refused = []
    for name in LEVELS:
        try:
            with closing(Sandbox(name)) as sandbox:
                could = _try(sandbox)
        except SandboxFailure as failure:
            refused.append(str(failure))
            continue
        if not could or name == LEVELS[-1]:
            return Probed(name, could, tuple(refused))
        refused.append(f"level {name}: a hostile program could {', '.join(could)}")
    raise SandboxFailure("; ".join(refused))


def level() -> str:
    """The level in force: one of LEVELS."""
    return probe().level


def require(least: str) -> None:
    """Raise UsageError when the level in force is weaker than `least`."""
    found = probe()
    if LEVELS.index(found.level) > LEVELS.index(least):
        why = "; ".join(found.refused)
        raise UsageError(f"the isolation in force is {found.level}, and at least {least} is demanded ({why})")


# So wide that a busy machine does not look like one that lacks a level.
_PATIENT = Limits(cpu=5, wall=60.0)
# Its import is read from Python's library, as no other here is.
_RIGHT = "import colorsys\ndef f(a):\n    return [sorted(a), {1: (2.5, 'x')}]"
_WRONG = "def f(a):\n    return a"
# What a program must not be able to do; it returns what it could.
_HOSTILE = """
import os, socket
def attempt(act):
    try:
        act()
    except (OSError, PermissionError):
        return False
    return True
def child():
    if os.fork() == 0:
        os._exit(0)
def f(folder, file, parent):
    acts = {
        "write files": lambda: open(folder + "/x", "w"),
        "read files": lambda: open(file),
        "make processes": child,
        "make sockets": socket.socket,
        "send signals": lambda: os.kill(parent, 0),
        "read the memory of others": lambda: open("/proc/%d/mem" % parent, "rb"),
    }
    return [name for name, act in acts.items() if attempt(act)]
"""


def _try(sandbox: Sandbox) -> tuple[str, ...]:
    """What a hostile program could do. Raises SandboxFailure when a right or a wrong one is not seen as it is."""
    right, wrong = (sandbox.run(program, "f", [[[2, 1]]], _PATIENT) for program in (_RIGHT, _WRONG))
    if right != Report((Call([[1, 2], {1: (2.5, "x")}], ""),), "", "") or wrong != Report((Call([2, 1], ""),), "", ""):
        raise SandboxFailure(f"level {sandbox.level}: a plain program fails ({right.failure or right.limit})")
    with tempfile.TemporaryDirectory() as folder:
        hostile = sandbox.run(_HOSTILE, "f", [[folder, str(Path(__file__).resolve()), os.getpid()]], _PATIENT)
        left = ("leave a file",) if os.listdir(folder) else ()
    could = hostile.calls[0].value if hostile.calls else [f"fail ({hostile.failure or hostile.limit})"]
    return (*map(str, could), *left)
