"""The sandbox: limits, confinement, the way of values, and what is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness_code.runner import encode
from harness_code.sandbox import Limits, Report, Sandbox, SandboxFailure, _decode_reply, same

HUMANEVAL = Path(__file__).parents[2] / "shared" / "data" / "code" / "humaneval.jsonl"
INPUTS = [[[]], [[2, 3, 4]], [[1, 1]], [[-2]]]
SHORT = Limits(cpu=1, wall=2.0, memory=128 << 20)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox()
    yield sandbox
    sandbox.close()


LOOPS = {
    "loop": "while True: pass",
    "c call": "def f(a):\n    return 9 ** 9 ** 9",
    "sleep": "import time\ndef f(a):\n    time.sleep(600)",
    "ignores the signal": "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\ndef f(a):\n    while True: pass",
    "catches all": "def f(a):\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass",
}


@pytest.mark.parametrize("name", LOOPS)
def test_time_limits(sandbox: Sandbox, name: str) -> None:
    limits = Limits(cpu=1, wall=20.0 if name == "loop" else 1.1)
    started = time.monotonic()
    assert sandbox.run(LOOPS[name], "f", INPUTS, limits).limit == "time"
    assert time.monotonic() - started < (10 if name == "loop" else 3)


@pytest.mark.parametrize(
    "body",
    [
        "return [0] * 10**11",
        "return 'x' * 10**10",
        "return bytearray(1 << 33)",
        "a = [bytes(1 << 24)]\n    return a * 2 + [bytes(1 << 27)]",
    ],
)
def test_memory_limit(sandbox: Sandbox, body: str) -> None:
    assert sandbox.run(f"def f(a):\n    {body}", "f", INPUTS, SHORT).limit == "memory"


HOSTILE = {
    "SystemExit": "import sys\ndef f(a):\n    sys.exit(0)",
    "no answer, status 0": "import os\ndef f(a):\n    os._exit(0)",
    "no answer, signal 11": "import ctypes\ndef f(a):\n    ctypes.string_at(0)",
    "PermissionError": "import os\ndef f(a):\n    os.fork()",
    "SyntaxError": "def f(a):\n    return (",
    "KeyError": "def g(a):\n    return 1",
    "TypeError": "class Equal:\n    __eq__ = lambda s, o: True\n    __hash__ = None\ndef f(a):\n    return Equal()",
    "OverflowError": "def f(a):\n    x = []\n    for _ in range(40):\n        x = [x, x]\n    return x",
    "KeyboardInterrupt": "def f(a):\n    raise KeyboardInterrupt",
    "x" * 60: "def f(a):\n    raise type('x' * 10**6, (Exception,), {})",
    "RecursionError": "def f(a):\n    return f(a)",
}


@pytest.mark.parametrize("failure", HOSTILE)
def test_hostile_programs_fail_with_their_reason(sandbox: Sandbox, failure: str) -> None:
    assert sandbox.run(HOSTILE[failure], "f", INPUTS, SHORT) == Report((), "", failure)


def test_cyclic_data_is_no_answer(sandbox: Sandbox) -> None:
    report = sandbox.run("def f(a):\n    a.append(a)\n    return a", "f", INPUTS, SHORT)
    assert report == Report((), "", "OverflowError")


def test_an_endless_reply_is_cut_off(sandbox: Sandbox) -> None:
    program = "import os\ndef f(a):\n    while True:\n        for fd in range(3, 9):\n            try: os.write(fd, b'x' * 65536)\n            except OSError: pass"
    report = sandbox.run(program, "f", INPUTS, Limits(cpu=5, wall=10.0))
    assert report.failure.startswith("no answer")


def test_jobs_do_not_see_each_other_and_arguments_are_fresh(sandbox: Sandbox) -> None:
    sandbox.run("import builtins, sys\nbuiltins.mark = sys.mark = 1\ndef f(a): return 1", "f", INPUTS, SHORT)
    report = sandbox.run(
        "import builtins, sys\ndef f(a): return hasattr(builtins, 'mark') or hasattr(sys, 'mark')", "f", INPUTS, SHORT
    )
    assert [call.value for call in report.calls] == [False] * 4
    report = sandbox.run("def f(a):\n    a.append(1)\n    return len(a)", "f", [[[]], [[]]], SHORT)
    assert [call.value for call in report.calls] == [1, 1]
    report = sandbox.run("kept = []\ndef f(a):\n    kept.append(1)\n    return kept", "f", [[[]], [[]]], SHORT)
    assert [call.value for call in report.calls] == [[1], [1, 1]]


def test_no_files_no_environment_no_standard_input(sandbox: Sandbox) -> None:
    program = """
import os, sys
def attempt(act):
    try:
        return act()
    except OSError as error:
        return type(error).__name__
def f(a):
    return [attempt(lambda: open("x", "w").close()), dict(os.environ), sys.stdin.read(), attempt(lambda: os.mkdir("y"))]
"""
    (call,) = sandbox.run(program, "f", [[[]]], SHORT).calls
    first, environment, read, second = call.value
    assert (first, read, second) == ("FileNotFoundError", "", "FileNotFoundError")
    assert set(environment) <= {"PYTHONHASHSEED", "LC_CTYPE"}  # the interpreter itself may set the second


def test_order_of_sets_is_the_same_in_every_interpreter() -> None:
    program = "def f(a):\n    return list({'one', 'two', 'three', 'four', 'five', 'six'})"
    seen = set()
    for _ in range(3):
        fresh = Sandbox()
        seen.add(tuple(fresh.run(program, "f", [[[]]], SHORT).calls[0].value))
        fresh.close()
    assert len(seen) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="needs a subreaper")
def test_children_that_left_the_group_are_killed(sandbox: Sandbox) -> None:
    # libc's fork is below the audit hook, and RLIMIT_NPROC does not hold root.
    program = """
import ctypes, os, time
def f(a):
    child = ctypes.CDLL(None).fork()
    if child == 0:
        os.setsid()
        time.sleep(600)
    return child
"""
    (call,) = sandbox.run(program, "f", [[[]]], SHORT).calls
    assert call.value > 0 or os.getuid() != 0
    assert call.value < 0 or not Path(f"/proc/{call.value}").exists()


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.frozensets(st.integers(), max_size=3).map(set)
    ),
    max_leaves=12,
)


def exact(value: Any) -> Any:
    """The value with its types spelled out, sets sorted."""
    if isinstance(value, list | tuple):
        return type(value).__name__, [exact(item) for item in value]
    if isinstance(value, dict):
        return [(exact(key), exact(item)) for key, item in value.items()]
    return sorted(value) if isinstance(value, set) else repr(value)


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_values_survive_the_way_with_their_types(value: Any) -> None:
    line = json.dumps({"calls": [[encode(value), ""]], "raised": ""}).encode()
    back = _decode_reply(line).calls[0].value
    assert exact(back) == exact(value)
    assert same(value, back)


@pytest.mark.parametrize(
    ("expected", "value", "equal"),
    [
        (1, 1, True),
        (1, True, True),
        (1, 1.0, True),
        (0.3, 0.1 + 0.2, True),
        (3, 3.0000001, False),
        (1.0, 1, True),
        (float("nan"), float("nan"), False),
        (float("inf"), float("inf"), True),
        (float("inf"), 1e308, False),
        ([1, 2], (1, 2), False),
        ((1, [0.5]), (1, [0.5 + 1e-9]), True),
        ([[1], [2]], [[1], [3]], False),
        ([1], [1, 2], False),
        ({"a": 0.1}, {"a": 0.1 + 1e-12}, True),
        ({"a": 1}, {"b": 1}, False),
        ({1, 2}, {2, 1}, True),
        ("1", 1, False),
        (None, 0, False),
    ],
)
def test_comparison(expected: Any, value: Any, equal: bool) -> None:
    assert same(expected, value) is equal


def test_a_killed_interpreter_is_a_failure_and_then_replaced(sandbox: Sandbox) -> None:
    assert sandbox.run("def f(a): return 1", "f", INPUTS, SHORT).calls
    assert sandbox._process is not None
    sandbox._process.kill()
    sandbox._process.wait()
    with pytest.raises(SandboxFailure, match="the sandbox did not answer"):
        sandbox.run("def f(a): return 1", "f", INPUTS, SHORT)
    assert sandbox.run("def f(a): return 1", "f", INPUTS, SHORT).calls


@pytest.mark.skipif(sys.platform != "linux", reason="needs the kernel's parent-death signal")
def test_nothing_survives_a_killed_worker() -> None:
    script = f"""
import sys
sys.path[:] = {sys.path!r}
from harness_code.sandbox import Sandbox, Limits
sandbox = Sandbox()
pid = sandbox.run("import os\\ndef f(a): return os.getppid()", "f", [[[]]], Limits()).calls[0].value
print(pid, flush=True)
sandbox.run("def f(a):\\n    while True: pass", "f", [[[]]], Limits(cpu=500, wall=500.0))
"""
    worker = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    zygote = int(worker.stdout.readline())
    children: list[int] = []
    deadline = time.monotonic() + 20
    while not children and time.monotonic() < deadline:
        found = Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()
        children = [int(pid) for pid in found]
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    worker.stdout.close()
    assert children
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in [zygote, *children]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(_running(pid) for pid in [zygote, *children])


def _running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX"


@pytest.mark.skipif(not HUMANEVAL.exists(), reason="needs ../shared/data/code/humaneval.jsonl")
def test_no_reference_solution_of_humaneval_is_refused(sandbox: Sandbox) -> None:
    rows = [json.loads(line) for line in HUMANEVAL.read_text().splitlines()]
    failed = []
    for row in rows:
        solution = row["prompt"] + row["canonical_solution"]
        program = f"{solution}\n{row['test']}\ndef passed():\n    check({row['entry_point']})\n    return True\n"
        report = sandbox.run(program, "passed", [[]], Limits(cpu=5, wall=20.0))
        if [call.value for call in report.calls] != [True]:
            failed.append((row["task_id"], report))
    assert len(rows) == 164
    assert failed == []
