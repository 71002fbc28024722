"""The sandbox: limits, confinement, the way of values, and what is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.types import Outcome
from harness.verifying import VerifierPool
from harness_code import jobs, plain, seccomp, visible
from harness_code import sandbox as sandboxes
from harness_code.comparing import first_difference, identical, oracle_of, same
from harness_code.confining import LEVELS
from harness_code.domain import Code
from harness_code.jobs import Ending, SandboxFailure
from harness_code.plain import encode
from harness_code.sandbox import Exam, Limits, Report, Sandbox, _decode_reply, _unanswered, level, probe, require

HUMANEVAL = Path(__file__).parents[2] / "shared" / "data" / "code" / "humaneval.jsonl"
INPUTS = [[[]], [[2, 3, 4]], [[1, 1]], [[-2]]]
SHORT = Limits(cpu=1, wall=10.0, memory=128 << 20)
ONE = "def f(a): return 1"


@cache
def refused(name: str) -> str:
    """Why a level cannot be had on this machine; "" when it can."""
    tried = Sandbox(name)
    try:
        tried.start()
    except SandboxFailure as failure:
        return str(failure)
    finally:
        tried.close()
    return ""


@pytest.fixture(scope="module", params=LEVELS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    if reason := refused(request.param):
        pytest.skip(reason)
    sandbox = Sandbox(request.param)
    yield sandbox
    sandbox.close()


@pytest.fixture
def weakest() -> Iterator[Sandbox]:
    sandbox = Sandbox("rlimits")
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
def test_time_limits(name: str) -> None:
    sandbox = Sandbox("rlimits" if name == "ignores the signal" else None)
    limits = Limits(cpu=1, wall=20.0 if name == "loop" else 1.1)
    started = time.monotonic()
    assert sandbox.run(LOOPS[name], "f", INPUTS, limits).limit == "time"
    assert time.monotonic() - started < (10 if name == "loop" else 3)
    sandbox.close()


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


def test_what_ends_a_job_is_told_by_how_it_ends_not_by_its_seconds(sandbox: Sandbox) -> None:
    """The kernel's limit and the CPU seconds it reports are two clocks: beside short neighbours they have differed by 40 %."""
    killed = Ending(status=signal.SIGKILL, cpu=0.1, late=False, closed=True, own=True)
    assert _unanswered(killed).limit == "time"
    assert _unanswered(killed._replace(own=False)) == Report((), "", "no answer, signal 9")
    started = time.monotonic()
    closing = "import os, time\ndef f(a):\n    os.closerange(0, 64)\n    time.sleep(60)"
    assert sandbox.run(closing, "f", INPUTS, SHORT) == Report((), "", "no answer, signal 9")
    assert sandbox.run(LOOPS["loop"], "f", INPUTS, SHORT).limit == "time"
    assert time.monotonic() - started < 15


def test_what_a_program_says_that_it_raised_is_printable() -> None:
    claim = {"calls": [], "raised": "\x1b[31m\ud800\n"}
    assert _decode_reply(json.dumps(claim).encode()).failure == "\\x1b[31m\\ud800\\n"


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


FILES = """
import os, sys, tempfile
def attempt(act):
    try:
        return act()
    except OSError as error:
        return type(error).__name__
def write(path):
    with open(path, "w") as file:
        return file.write("text")
def temporary():
    with tempfile.TemporaryDirectory() as folder:
        return write(folder + "/x")
def f(a):
    here = [attempt(lambda: write("x")), attempt(lambda: os.mkdir("y")), attempt(temporary), attempt(lambda: sorted(os.listdir(".")))]
    return [here, dict(os.environ), sys.stdin.read()]
"""


def test_no_environment_and_no_standard_input(sandbox: Sandbox) -> None:
    (call,) = sandbox.run(FILES, "f", [[[]]], SHORT).calls
    _, environment, read = call.value
    assert read == ""
    assert set(environment) <= {"PYTHONHASHSEED", "LC_CTYPE"}  # the interpreter itself may set the second


def test_no_files_at_the_weakest_level(weakest: Sandbox) -> None:
    (call,) = weakest.run(FILES, "f", [[[]]], SHORT).calls
    refusals = {"FileNotFoundError", "PermissionError"}
    assert set(call.value[0][:3]) <= refusals


@pytest.mark.parametrize("name", ["full", "landlock"])
def test_a_private_folder_that_is_empty_again_for_the_next_job(name: str) -> None:
    if reason := refused(name):
        pytest.skip(reason)
    sandbox = Sandbox(name)
    for _ in range(2):
        (call,) = sandbox.run(FILES, "f", [[[]]], SHORT).calls
        assert call.value[0] == [4, None, 4, ["x", "y"]]
    deep = "import os\ndef f(a):\n    for _ in range(1200):\n        os.mkdir('d')\n        os.chdir('d')\n    return 1"
    assert sandbox.run(deep, "f", [[[]]], Limits()).calls
    shut = (
        "import os\ndef f(a):\n    os.mkdir('d', 0)\n    os.symlink('/', 'link')\n    os.mkfifo('pipe')\n    return 1"
    )
    assert sandbox.run(shut, "f", [[[]]], Limits()).calls
    assert sandbox.run(FILES, "f", [[[]]], SHORT).calls[0].value[0][3] == ["x", "y"]
    sandbox.close()


def test_order_of_sets_is_the_same_in_every_interpreter() -> None:
    program = "def f(a):\n    return list({'one', 'two', 'three', 'four', 'five', 'six'})"
    seen = set()
    for _ in range(3):
        fresh = Sandbox()
        seen.add(tuple(fresh.run(program, "f", [[[]]], SHORT).calls[0].value))
        fresh.close()
    assert len(seen) == 1


CHILD = """
import ctypes, os, time
def f(a):
    child = ctypes.CDLL(None).fork()
    if child == 0:
        os.setsid()
        time.sleep(600)
    return child
"""


def test_no_children(sandbox: Sandbox) -> None:
    (call,) = sandbox.run(CHILD, "f", [[[]]], SHORT).calls
    assert call.value < 0


@pytest.mark.skipif(sys.platform != "linux", reason="needs a subreaper")
def test_without_a_filter_children_that_left_the_group_are_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an architecture whose call numbers are not known. RLIMIT_NPROC holds ordinary users, root it does not."""
    unfiltered = "from harness_code import runner, seccomp; seccomp.for_platform = lambda: None;"
    monkeypatch.setattr(jobs, "_BOOT", jobs._BOOT.replace("from harness_code import runner;", unfiltered))
    sandbox = Sandbox("rlimits")
    (call,) = sandbox.run(CHILD, "f", [[[]]], SHORT).calls
    sandbox.close()
    assert call.value > 0 or os.getuid() != 0
    assert call.value < 0 or not Path(f"/proc/{call.value}").exists()


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.fractions(max_denominator=99)
    | st.decimals(allow_nan=False)
    | st.text()
    | st.binary(),
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
        ({"a": 1}, {10**5000: 1}, False),
        ({1, 2}, {2, 1}, True),
        ("1", 1, False),
        (None, 0, False),
    ],
)
def test_comparison(expected: Any, value: Any, equal: bool) -> None:
    assert same(expected, value) is equal


@pytest.mark.parametrize(
    ("expected", "value", "equal"),
    [
        (1, 1, True),
        (1, True, False),
        (True, 1, False),
        (0, False, False),
        (1, 1.0, False),
        (1.0, 1, False),
        (0.3, 0.1 + 0.2, True),
        (3, 3.0000001, False),
        (float("nan"), float("nan"), False),
        (float("inf"), float("inf"), True),
        (float("inf"), 1e308, False),
        (1.0, Fraction(1), False),
        ([1, 2], (1, 2), True),
        ([[1, "a"], []], ((1, "a"), ()), True),
        ([1, 2], [1, True], False),
        ([1], [1, 2], False),
        ([1, 2], {1, 2}, False),
        ([], None, False),
        ({"a": [1]}, {"a": (1,)}, True),
        ({"1": 2, "null": 4}, {1: 2, None: 4}, True),
        ({"1": 2}, {1: 2, "1": 2}, False),
        ({"a": 1}, {"b": 1}, False),
        ({"a": 1}, [["a", 1]], False),
        ("1", 1, False),
        ("a", b"a", False),
        (None, 0, False),
        (None, None, True),
    ],
)
def test_strict_comparison(expected: Any, value: Any, equal: bool) -> None:
    assert identical(expected, value) is equal


def test_comparison_as_evalplus_does_it() -> None:
    def differs(expected: Any, value: Any, **options: Any) -> bool:
        return first_difference([[4, 2]], [expected], [value], **{"atol": 0.0, "oracle": "", **options}) is not None

    assert not differs(1, True)
    assert not differs((1, 2), (1, 2))
    assert differs((1, 2), [1, 2])
    assert not differs(0.3, 0.1 + 0.2)
    assert differs(3, 3.0000001)
    assert differs([1, 0.3], [1, 0.1 + 0.2])  # close only where all are floats, or an atol is given
    assert not differs([1, 0.3], [1, 0.1 + 0.2], atol=1e-4)
    assert not differs(2.0, 2.00005, atol=1e-4)
    assert differs(2.0, 2.0002, atol=1e-4)
    assert differs(10**9, 10**9 + 1, atol=1e-4)
    assert differs([1, 2], {1, 2})
    assert not differs([1, 2], {2, 1}, oracle="sets")
    assert differs([1, 2], [[1], 2], oracle="sets")
    assert not differs("a match", True, oracle="found")
    assert differs(None, True, oracle="found")
    assert not differs(None, False, oracle="found")
    assert not differs(32, 32, oracle="surface")
    assert not differs(32, round(16 + 8 * 8**0.5), oracle="surface")
    assert differs(32, "32", oracle="surface")
    assert not first_difference([[[-6, 11, -6, 1]]], [1.0], [3.0], atol=1e-4, oracle="zero")
    assert first_difference([[[-6, 11, -6, 1]]], [1.0], ["3"], atol=1e-4, oracle="zero") == 0
    assert first_difference([[12345, 9]], [8], [14], atol=0.0, oracle="digits") is None
    # Values that raise where they are compared, or that were chosen to make a set take quadratic time.
    for value in (Decimal("sNaN"), [Decimal("sNaN")], [10**400, 1], [complex(1e308, 1e308), 1]):
        assert differs([1.5, 2.5], value)
    started = time.process_time()
    assert differs([1, 2], [k * (2**61 - 1) for k in range(1, 100_000)], oracle="sets")
    assert not differs([1, 2], [2, 1] * 100, oracle="sets")
    assert time.process_time() - started < 1
    assert oracle_of("HumanEval/32", "find_zero") == "zero"
    assert oracle_of("Mbpp/2", "similar_elements") == "sets"
    assert oracle_of("Mbpp/2", "other") == oracle_of("", "similar_elements") == ""


@pytest.mark.parametrize(
    "reply",
    [
        ["S", *[str(2**61 - 1 * k) for k in range(3)], ["l"]],
        ["i", "zz"],
        ["unknown", 1],
        [],
        {"a": 1},
        ["d", 1],
        ["q", 1, 0],
        ["q", ["i", "f" * 10_000], 1],
        ["D", "x"],
        ["t", *[["t"]] * 0, ["S", ["d"]]],
        ["S", *[k * (2**61 - 1) for k in range(1, 400)]],
        ["o", 1, 2],
        ["y", "0"],
        ["c", "1", 2],
    ],
)
def test_claims_that_are_no_plain_data_are_refused(reply: Any) -> None:
    report = _decode_reply(json.dumps({"calls": [[reply, ""]], "raised": ""}).encode())
    assert report.failure.startswith("unreadable answer")


def test_subclasses_go_as_their_base_contents() -> None:
    class Lying(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    for value, expected in ((Lying(3), 3), (Fraction(1, 2), Fraction(1, 2)), (Decimal("0.10"), Decimal("0.10"))):
        back = plain.decode(json.loads(json.dumps(encode(value))))
        assert type(back) is type(expected)
        assert back == expected
    assert plain.decode(encode(range(2, 9, 3))) == range(2, 9, 3)
    with pytest.raises(TypeError):
        encode(object())
    with pytest.raises(OverflowError):
        encode([0] * (plain.NODES + 1))
    with pytest.raises(OverflowError):
        encode(1 << plain.INT_BITS)


TREE = """
class Node:
    def __init__(self, value):
        self.value, self.left = value, None
    def __bool__(self):
        return self.value > 0
    def __eq__(self, other):
        return True
def depth(node):
    return 0 if node is None else 1 + depth(node.left)
def count(items):
    yield from items
def fail(kind):
    raise {"value": ValueError, "own": type("Own", (KeyError,), {}), "exit": SystemExit, "stop": StopIteration}[kind]
def grow(items):
    items.append(1)
    return items
"""
NAMES = ["Node", "depth", "count", "fail", "grow", "absent"]


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("root = Node(1)\nroot.left = Node(2)\nroot.left.left = Node(3)\nassert depth(root) == 3", ""),
        ("assert Node(1) and not Node(0)", ""),
        ("assert Node(3).value == 3", ""),
        ("assert Node(1) == Node(1)", "AssertionError"),
        ("assert Node(1) == 1", "AssertionError"),
        ("assert list(count([1, 2])) == [1, 2]\nassert next(count([5])) == 5", ""),
        ("g = count([1])\nnext(g)\ntry:\n    next(g)\nexcept StopIteration:\n    pass\nelse:\n    assert False", ""),
        ("mine = [0]\nassert grow(mine) == [0, 1]\nassert mine == [0]", ""),
        ("try:\n    fail('value')\nexcept ValueError:\n    pass", ""),
        ("assert all(map(fail, ['stop']))", "RuntimeError"),
        ("try:\n    fail('own')\nexcept KeyError:\n    pass", ""),
        ("fail('exit')", "RuntimeError"),
        ("assert absent(1) == 1", "NameError"),
        ("assert helper(2) == 3", ""),
        ("assert depth(lambda: 1) == 1", "TypeError"),
        ("import copy\ncopy.deepcopy(Node(1))", ""),
        ("assert depth(", "SyntaxError"),
    ],
)
def test_tests_reach_the_program_through_stand_ins(sandbox: Sandbox, text: str, failure: str) -> None:
    tests = Exam("def helper(x): return x + 1", text, NAMES)
    report = sandbox.examine(TREE, tests, limits=SHORT).report
    assert report.limit == ""
    assert failure in report.failure
    assert bool(failure) == bool(report.failure)


@pytest.mark.parametrize(
    ("program", "report"),
    [
        ("def f(a):\n    import os\n    os._exit(0)", Report((), "", "no answer, status 0")),
        ("import os\nos._exit(0)", Report((), "", "no answer, status 0")),
        ("def f(a):\n    return [0] * 10**11", Report((), "memory", "")),
        ("x = 1 / 0", Report((), "", "ZeroDivisionError while it is loaded")),
        ("def f(a):\n    return 'x' * (9 << 20)", Report((), "", "no answer, it is too large")),
    ],
)
def test_a_program_that_ends_under_its_tests(sandbox: Sandbox, program: str, report: Report) -> None:
    assert sandbox.examine(program, Exam("", "assert f(1) != 2", ["f"]), limits=SHORT).report == report


def test_the_level_in_force_is_found_by_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe().level == level() == next(name for name in LEVELS if not refused(name))
    if level() == "full":
        assert probe().open == probe().refused == ()
    require(level())
    monkeypatch.setattr(sandboxes, "probe", lambda: sandboxes.Probed("rlimits", ("read files",), ("no namespaces",)))
    assert level() == "rlimits"
    with pytest.raises(UsageError, match=r"isolation in force is rlimits.*landlock is demanded \(no namespaces\)"):
        require("landlock")


def test_a_level_that_lets_a_hostile_sample_through_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hostile sample succeeds where it should not: as on a machine where a mount or a rule has no effect."""
    monkeypatch.setattr(sandboxes, "_HOSTILE", "def f(folder, file, parent):\n    return ['read files']")
    found = probe.__wrapped__()
    assert (found.level, found.open) == ("rlimits", ("read files",))
    assert all("could read files" in reason or "cannot" in reason or "level" in reason for reason in found.refused)


def test_an_interpreter_that_does_not_start_is_a_failure_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SandboxFailure, match="level none"):
        Sandbox("none").run(ONE, "f", INPUTS, SHORT)
    monkeypatch.setattr(jobs, "_BOOT", "import sys; sys.exit(3)")
    with pytest.raises(SandboxFailure, match="it did not start"):
        Sandbox("rlimits").run(ONE, "f", INPUTS, SHORT)


def test_a_new_interpreter_after_so_many_jobs(monkeypatch: pytest.MonkeyPatch, weakest: Sandbox) -> None:
    monkeypatch.setattr(sandboxes, "JOBS_PER_INTERPRETER", 3)
    pids = []
    for _ in range(5):
        assert weakest.run(ONE, "f", INPUTS, SHORT).calls
        assert weakest._interpreter is not None
        pids.append(weakest._interpreter.process.pid)
    assert len(set(pids)) == 2


def test_a_killed_interpreter_is_a_failure_and_then_replaced(sandbox: Sandbox) -> None:
    assert sandbox.run(ONE, "f", INPUTS, SHORT).calls
    assert sandbox._interpreter is not None
    sandbox._interpreter.process.kill()
    sandbox._interpreter.process.wait()
    with pytest.raises(SandboxFailure, match="the sandbox did not answer"):
        sandbox.run(ONE, "f", INPUTS, SHORT)
    assert sandbox.run(ONE, "f", INPUTS, SHORT).calls


def test_an_interruption_leaves_no_job_behind(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(jobs.Job, "receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sandbox.run("import time\ntime.sleep(600)", "f", INPUTS, SHORT)
    assert sandbox._interpreter is None
    assert not _of_interpreter(os.getpid())
    assert sandbox.run(ONE, "f", INPUTS, SHORT).calls


# Ends with this process, so that a killed test run leaves no spinning program behind either.
WORKER = """
import ctypes, os, signal, sys
sys.path[:] = {path!r}
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
from harness_code.sandbox import Exam, Limits, Sandbox
sandbox, limits = Sandbox({level!r}), Limits(cpu=60, wall=60.0)
sandbox.run("def f(a): return 1", "f", [[[]]], limits)
print(sandbox._interpreter.process.pid, flush=True)
sandbox.examine({program!r}, Exam("", "while True: f(1)", ["f"]), limits=limits)
"""
SPINNING = {
    "loop": "def f(a):\n    while True: pass",
    "closed pipes": "import os\ndef f(a):\n    os.closerange(0, 64)\n    while True: pass",
    "deaf": "import signal\nfor k in range(1, 65):\n    try: signal.signal(k, signal.SIG_IGN)\n    except (OSError, ValueError): pass\ndef f(a):\n    while True: pass",
    "stopped": "import os, signal\ndef f(a):\n    os.kill(os.getpid(), signal.SIGSTOP)\n    while True: pass",
    "threads": "import threading\ndef spin():\n    while True: pass\ndef f(a):\n    [threading.Thread(target=spin).start() for _ in range(9)]\n    spin()",
    "questions": "import ctypes, os\nctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\ndef f(a): return [os.getpid()]",
}


@pytest.mark.skipif(sys.platform != "linux", reason="needs the kernel's parent-death signal")
@pytest.mark.parametrize("victim", ["judge", "interpreter"])
@pytest.mark.parametrize("spinning", SPINNING)
@pytest.mark.parametrize("name", LEVELS)
def test_nothing_survives_a_killed_judge_or_interpreter(name: str, spinning: str, victim: str) -> None:
    if reason := refused(name):
        pytest.skip(reason)
    script = WORKER.format(path=sys.path, level=name, program=SPINNING[spinning])
    worker = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert worker.stdout is not None
    interpreter = int(worker.stdout.readline())
    # The interpreter at level "full" is two processes, outside and inside its namespaces; two jobs come on top.
    least = 4 if name == "full" else 3
    _await(lambda: len(_of_interpreter(worker.pid)) >= least or spinning == "closed pipes", seconds=20)
    time.sleep(0.1)
    os.kill(worker.pid if victim == "judge" else interpreter, signal.SIGKILL)
    worker.wait(10)
    worker.stdout.close()
    _await(lambda: not _of_interpreter(worker.pid), seconds=2)


def _await(condition: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def at_full() -> Code:
    return Code(Sandbox("full"))


def at_landlock() -> Code:
    return Code(Sandbox("landlock"))


def at_rlimits() -> Code:
    return Code(Sandbox("rlimits"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", LEVELS)
def test_nothing_survives_the_hard_kill_of_a_pool(name: str) -> None:
    if reason := refused(name):
        pytest.skip(reason)
    target = f"{__name__}:at_{name}"
    row = {"prompt": "def f(a):\n", "entry_point": "f", "inputs": [[1]], "expected": [1]}
    problem = Code().read(row)
    with VerifierPool(target, override=1.0) as pool:
        (verdict,) = pool.verify([(problem, SPINNING["loop"])])
        assert (verdict.outcome, verdict.detail[:14]) == (Outcome.TIMEOUT, "time: killed a")
        _await(lambda: not _orphans(), seconds=2)


def _orphans() -> list[int]:
    """Running interpreters, jobs included, whose judge is gone."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_text().split("\0")
            judge = words[-3] if any("runner.main" in word for word in words) else "self"
            if not Path("/proc", judge).exists() and _running(path.parent.name):
                found.append(int(path.parent.name))
    return found


def _of_interpreter(parent: int) -> list[int]:
    """Running processes that were started with the parent's id on the interpreter's command line, forks included."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if (
            str(parent).encode() in words
            and any(b"harness_code" in word for word in words)
            and _running(path.parent.name)
        ):
            found.append(int(path.parent.name))
    return found


def _running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


HEADERS = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), Path("/usr/include/asm-generic/unistd.h")


@pytest.mark.skipif(not all(path.exists() for path in HEADERS), reason="needs the kernel's header files")
def test_call_numbers_are_the_kernels() -> None:
    here, generic = (
        {name: number for name, number in re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", path.read_text())}
        for path in HEADERS
    )
    words = seccomp._TABLE.split()
    for name, x86, arm in zip(words[::3], words[1::3], words[2::3], strict=True):
        if int(x86) < 450:  # later ones than these headers may know
            assert here[name] == x86, name
            # The same name at another number, behind a condition, comes later in the file.
            assert generic.get(name, arm) == arm or name in ("renameat",), name


def test_every_call_of_the_filter_has_a_number() -> None:
    names = {*seccomp._DENIED.split(), *seccomp.ATTRIBUTES.split(), *seccomp.WRITING.split(), *seccomp.LATER}
    words = seccomp._TABLE.split()
    assert names | {rule.name for rule in (*seccomp._RULES, *seccomp._READ_ONLY)} <= set(words[::3])
    assert len(words[::3]) == len(set(words[::3]))


def test_packages_are_not_among_what_can_be_read() -> None:
    shown = list(visible.parts())
    assert shown
    for package in visible.packages():
        assert not any(package == path or package.startswith(path + "/") for path in shown)


def test_python_without_its_packages_is_all_that_can_be_read(sandbox: Sandbox) -> None:
    if sandbox.level == "rlimits":
        pytest.skip("files can be read at this level")
    program = """
import glob, os, sys
def f(paths):
    def attempt(path):
        try:
            return bool(os.listdir(path))
        except OSError:
            return False
    import wave, zipfile
    return [attempt(path) for path in paths]
"""
    paths = [*visible.packages(), str(Path(__file__).parent), str(Path.home()), "/proc", "/sys", "/var", "/root"]
    (call,) = sandbox.run(program, "f", [[paths]], SHORT).calls
    # A parent of the library may exist, as a folder that holds nothing else.
    home = [path for path, open_ in zip(paths, call.value, strict=True) if open_]
    assert all(folder.startswith(path + "/") for path in home for folder in visible.library() if path in folder)
    assert not set(home) & {*visible.packages(), str(Path(__file__).parent), "/proc", "/sys", "/var"}


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
