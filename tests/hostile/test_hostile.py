"""Hostile programs: none is paid, none does harm, none breaks the verifier; and none of the honest odd ones is refused.

Every program of the corpus is judged at every level of isolation that this machine gives, in one of the three forms of a
code problem (all three forms in turn over the corpus), while a folder, a process and sockets outside are watched.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.types import Outcome, Problem
from harness_code import verify, visible
from harness_code.confining import LEVELS
from harness_code.domain import Code
from harness_code.jobs import SandboxFailure
from harness_code.sandbox import Limits, Sandbox
from hostile import ANSWERS, FLOODS, PROGRAMS, STYLES
from hostile.answers import PROMPT as ANSWERED
from hostile.styles import FILES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the watch reads /proc")

INPUTS = (3, 10, 0, 7)
VALUES = {n: n * n + 10007 for n in INPUTS}
PROMPT = "def f(n):\n"
REFERENCE = "def f(n):\n    return n * n + 10007\n"
ASSERTS = "".join(f"    assert candidate({n}) == {value}\n" for n, value in VALUES.items())
ROWS = (
    {"prompt": PROMPT, "entry_point": "f", "inputs": [[n] for n in INPUTS], "expected": list(VALUES.values())},
    {"prompt": PROMPT, "entry_point": "f", "test": f"def check(candidate):\n{ASSERTS}"},
    {
        "prompt": PROMPT,
        "entry_point": "f",
        "canonical_solution": REFERENCE,
        "base_input": [[n] for n in INPUTS],
        "plus_input": [],
        "atol": 0,
    },
)
# What the weakest level leaves open: files that the user can read, so also one with the answers.
OPEN = {"full": "", "landlock": "", "rlimits": "read: "}
LEFT = "left_by_a_program"


class World(NamedTuple):
    """What stands outside, and must be as it was."""

    folder: Path
    secret: Path
    canary: subprocess.Popen[bytes]
    listener: socket.socket
    datagrams: socket.socket

    def fill_in(self, program: str) -> str:
        known = {
            "@OUTSIDE@": self.folder,
            "@SECRET@": self.secret,
            "@PORT@": self.listener.getsockname()[1],
            "@CANARY@": self.canary.pid,
            "@PARENT@": os.getpid(),
        }
        for mark, value in known.items():
            program = program.replace(mark, str(value))
        return program

    def state(self) -> dict[str, object]:
        sentinel = os.stat(self.folder / "sentinel")
        process = self.canary.pid
        return {
            "files": sorted(str(path) for path in self.folder.rglob("*")),
            "content": (self.folder / "sentinel").read_text(),
            "sentinel": (stat.S_IMODE(sentinel.st_mode), sentinel.st_uid, sentinel.st_mtime, sentinel.st_nlink),
            "attributes": os.listxattr(self.folder / "sentinel"),
            "process": (self.canary.poll(), _status(process, "State"), _status(process, "TracerPid")),
            "priority": (os.getpriority(os.PRIO_PROCESS, process), os.sched_getaffinity(process)),
            "limits": Path(f"/proc/{process}/limits").read_text(),
            "library": [str(path) for folder in visible.library() for path in Path(folder).glob("python3*/poisoned*")],
            "planted": [path for path in ("/tmp", ".", str(Path.home())) if Path(path, "sitecustomize.py").exists()],
            "shared": [path.name for path in Path("/dev/shm").glob(f"*{LEFT}*")],
            "host": socket.gethostname(),
            "connections": _arrived(self.listener) + _arrived(self.datagrams),
        }


def _status(process: int, field: str) -> str:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(line for line in lines if line.startswith(field))


def _arrived(waiting: socket.socket) -> int:
    with contextlib.suppress(BlockingIOError):
        if waiting.type == socket.SOCK_DGRAM:
            return len(waiting.recv(10))
        waiting.accept()[0].close()
        return 1
    return 0


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    # Not under the user's own temporary folder, which may be closed to others: anybody may write here.
    with tempfile.TemporaryDirectory() as base, socket.create_server(("127.0.0.1", 0)) as listener:
        folder = Path(base, "outside")
        folder.mkdir()
        os.chmod(base, 0o755)
        os.chmod(folder, 0o777)
        (folder / "sentinel").write_text("as it was")
        secret = Path(base, "secret.json")
        secret.write_text(json.dumps(VALUES))
        (folder / "secret.json").write_text(json.dumps(VALUES))
        (folder / "answers_module.py").write_text(f"TEXT = {json.dumps(VALUES)!r}")
        listener.setblocking(False)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.bind(listener.getsockname())
            datagrams.setblocking(False)
            canary = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(3600)"])
            time.sleep(0.3)  # until it sleeps
            yield World(folder, secret, canary, listener, datagrams)
            canary.kill()
            canary.wait()


@pytest.fixture(params=LEVELS)
def code(request: pytest.FixtureRequest) -> Iterator[Code]:
    """The domain at one level."""
    sandbox = Sandbox(request.param)
    try:
        sandbox.start()
    except SandboxFailure as failure:
        pytest.skip(str(failure))
    code = Code(sandbox)
    yield code
    code.close()


def judge(code: Code, programs: dict[str, str], world: World, *, forms: int) -> dict[tuple[str, int], Outcome]:
    """Outcomes by name and form; each program in so many of the three forms, in turn."""
    problems: list[Problem] = [code.read(row) for row in ROWS]
    outcomes = {}
    for number, (name, program) in enumerate(programs.items()):
        for form in range(number, number + forms):
            fenced = f"```python\n{world.fill_in(program)}\n```"
            outcomes[name, form % 3] = code.verify(problems[form % 3], fenced).outcome
    return outcomes


def test_hostile_programs_are_not_paid_and_do_no_harm(
    code: Code, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(PROGRAMS) >= 350
    # So short that loops and sleeps do not make the test long; a limit that was hit is as good as a wrong answer here.
    limits = Limits(cpu=1, wall=0.7)
    monkeypatch.setattr(verify, "scaled", lambda *_: limits)
    level, before = code._sandbox.level, world.state()
    started = time.time() - time.monotonic()
    # What runs into a limit takes its time: once over is enough at the levels that are not in force.
    chosen = PROGRAMS if level == Code.isolation() else {k: v for k, v in PROGRAMS.items() if k not in FLOODS}
    outcomes = judge(code, chosen, world, forms=1)
    paid = {name for (name, _), outcome in outcomes.items() if outcome is Outcome.CORRECT}
    assert {name for name in paid if not (OPEN[level] and name.startswith(OPEN[level]))} == set()
    assert {outcome for outcome in outcomes.values()} <= {*Outcome} - {Outcome.ERROR}
    code.close()
    assert world.state() == before
    assert _running_jobs() == []
    assert abs(time.time() - time.monotonic() - started) < 60
    assert not list(Path(tempfile.gettempdir()).glob(f"harness-job-{os.getpid()}-*"))


def test_what_the_weakest_level_leaves_open_is_open_nowhere_else(code: Code, world: World) -> None:
    """The corpus can be paid: a program that reads the answers' file solves the task where files can be read."""
    reading = {"read: open": PROGRAMS["read: open"]}
    paid = judge(code, reading, world, forms=3).values()
    assert set(paid) == ({Outcome.CORRECT} if code._sandbox.level == "rlimits" else {Outcome.WRONG})


def test_honest_programs_in_odd_styles_are_not_refused(code: Code, world: World) -> None:
    assert len(STYLES) >= 50
    writable = code._sandbox.level != "rlimits"
    styles = {name: program for name, program in STYLES.items() if writable or name not in FILES}
    outcomes = judge(code, styles, world, forms=1)
    assert {key for key, outcome in outcomes.items() if outcome is not Outcome.CORRECT} == set()
    wrong = {name: program.replace("10007", "10006") for name, program in styles.items()}
    # The same programs with another constant: what was accepted was the value, not the style.
    outcomes = judge(code, wrong, world, forms=1)
    assert {key for key, outcome in outcomes.items() if outcome is not Outcome.WRONG} == set()


@pytest.fixture(scope="module")
def strongest() -> Iterator[Code]:
    code = Code()
    yield code
    code.close()


def test_right_answers_as_models_write_them_are_not_refused(strongest: Code) -> None:
    assert len(ANSWERS) >= 50
    reference = REFERENCE.partition("\n")[2]
    for row in ROWS:
        problem = strongest.read({**row, "prompt": ANSWERED, "canonical_solution": reference})
        for name, answer in ANSWERS.items():
            assert strongest.verify(problem, answer).outcome is Outcome.CORRECT, name
            wrong = strongest.verify(problem, answer.replace("10007", "10006"))
            assert wrong.outcome is Outcome.WRONG, name


MBPP = {
    "task_id": 11,
    "text": "The square of a number, plus 10007.",
    "code": REFERENCE,
    "test_list": [f"assert f({n}) == {value}" for n, value in VALUES.items()],
    "test_imports": [],
}
# No loop, and no 10007: what is made of these may be a program, and never the right one.
PIECES = [
    *(
        "def f(n):\n",
        "def f(a):\n",
        "    return n * n",
        "    return a",
        "    yield n\n",
        "lambda n: ",
        "class f:\n",
        "f = ",
        "f(n)",
    ),
    *(
        "```",
        "```python\n",
        "\n",
        "    ",
        "\t",
        "(",
        ")",
        "'",
        '"""',
        "\\",
        "#",
        "@f\n",
        "\0",
        "\ud800",
        "\r\n",
        "# é",
        "1",
        "*",
        "~~~",
    ),
    *(
        "import os\n",
        "os._exit(0)\n",
        "raise SystemExit\n",
        "print(n)\n",
        "global f\n",
        "del f\n",
        "assert f\n",
        "None",
        "return",
    ),
]
JUNK = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=6).map(lambda parts: "def f(n):\n    return " + "".join(parts)),
    st.text(max_size=60),
)


@cache
def _problems() -> dict[str, Problem]:
    code = Code()
    kinds = dict(zip(("pairs", "check", "evalplus"), map(code.read, ROWS), strict=True))
    ladder = next(problem for problem in code.problems("ladder", "test", seed=0, limit=50) if problem.level == 3)
    lenient = replace(ladder, meta={**ladder.meta, "answer_format": "lenient"})
    return {**kinds, "asserts": code.read(MBPP), "ladder": ladder, "lenient ladder": lenient}


@pytest.mark.parametrize("kind", ["pairs", "check", "evalplus", "asserts", "ladder", "lenient ladder"])
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(junk=JUNK)
def test_junk_ends_in_time_and_is_neither_paid_nor_an_error(strongest: Code, kind: str, junk: str) -> None:
    started = time.monotonic()
    verdict = strongest.verify(_problems()[kind], junk)
    assert verdict.outcome in (Outcome.WRONG, Outcome.UNPARSED)
    assert time.monotonic() - started < 10


def _running_jobs() -> list[str]:
    """Processes of interpreters that this process has started, jobs included: they share the command line."""
    mine, found = str(os.getpid()).encode(), []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if mine in words and any(b"harness_code" in word for word in words):
                found.append(path.parent.name)
    return found
