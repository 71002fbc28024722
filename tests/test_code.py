"""The code domain: extraction, verdicts, and programs that try to be paid without solving."""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UnknownName
from harness.types import Outcome, Problem
from harness.verifying import VerifierPool
from harness_code.confining import LEVELS
from harness_code.domain import Code
from harness_code.extract import lenient_program, strict_program
from harness_code.sandbox import Sandbox

PREFIX = "# Task: Keep even items. Return the sum. Body only, use return.\ndef f(a):\n"
INPUTS = [[[]], [[2, 3, 4]], [[1, 1]], [[-2]]]
PROBLEM = Problem(
    id="code/1",
    prompt=PREFIX,
    answer={"entry_point": "f", "inputs": INPUTS, "expected": [0, 6, 0, -2]},
    meta={"answer_format": "strict", "prefix": PREFIX},
)
LENIENT = replace(PROBLEM, meta={"answer_format": "lenient", "prefix": PREFIX})
RIGHT = "    a = [x for x in a if x%2==0]\n    return sum(a)\n"


@pytest.fixture(scope="module")
def code() -> Iterator[Code]:
    domain = Code()
    yield domain
    domain.close()


@pytest.mark.parametrize(
    ("completion", "strict", "lenient"),
    [
        (RIGHT, "correct", "correct"),
        (RIGHT.rstrip("\n"), "correct", "correct"),
        ("    return sum(x for x in a if not x % 2)", "correct", "correct"),
        (
            "    total = 0\n\n    # even\n    for x in a:\n        total += x * (x % 2 == 0)\n    return total\n",
            "correct",
            "correct",
        ),
        ("    return sum(a)\n", "wrong", "wrong"),
        ("    return None\n", "wrong", "wrong"),
        ("    return [sum(x for x in a if x%2==0)]\n", "wrong", "wrong"),
        ("    return a[0]\n", "wrong", "wrong"),
        ("    return undefined\n", "wrong", "wrong"),
        ("    a = [x for x in a if x%2==0]\n    print(sum(a))\n", "unparsed", "correct"),
        ("    print('so', 1)\n    print(sum(a))\n", "unparsed", "wrong"),
        (RIGHT + "print(f)\n", "unparsed", "correct"),
        (RIGHT + "print(g)\n", "unparsed", "correct"),
        (RIGHT + "while True: pass\n", "unparsed", "correct"),
        (RIGHT + "def g(a):\n    return a\n", "unparsed", "correct"),
        (RIGHT + "This sums the even items.", "unparsed", "correct"),
        (RIGHT + "    return (", "unparsed", "correct"),
        ("return sum(a)\n", "unparsed", "unparsed"),
        ("    pass\n", "unparsed", "wrong"),
        ("    return\n", "unparsed", "wrong"),
        ("", "unparsed", "unparsed"),
        ("I do not know.", "unparsed", "unparsed"),
        ("def f(a):\n" + RIGHT, "unparsed", "correct"),
        ("Sure:\n```python\ndef f(a):\n" + RIGHT + "```\nDone.", "unparsed", "correct"),
        ("Sure:\n```python\nimport math\ndef f(a):\n" + RIGHT + "```", "unparsed", "correct"),
        ("```\n    return 1\n```\nor\n```\n" + RIGHT + "```", "unparsed", "correct"),
        ("Here it is.\nimport math\n\ndef f(a):\n" + RIGHT + "\nIt works.", "unparsed", "correct"),
        (PREFIX, "unparsed", "unparsed"),
    ],
)
def test_formats(code: Code, completion: str, strict: str, lenient: str) -> None:
    verdict = code.verify(PROBLEM, completion)
    free = code.verify(LENIENT, completion)
    assert (verdict.outcome.value, free.outcome.value) == (strict, lenient)
    assert verdict.format_ok == free.format_ok == (strict != "unparsed")
    assert (verdict.extracted is None) == (strict == "unparsed")


def test_canonical_programs_differ_in_layout_only(code: Code) -> None:
    one = code.verify(PROBLEM, "    return  sum( a )  # all\n")
    two = code.verify(PROBLEM, "    return sum(a)")
    assert one.extracted == two.extracted
    assert one.extracted != code.verify(PROBLEM, "    return sum(a, 0)").extracted


@pytest.mark.parametrize(
    "junk",
    [
        "x" * 1_000_000,
        "(" * 10_000,
        "    return " + "-" * 60_000 + "1",
        "    return " + "a." * 30_000 + "a",
        "    return 1" + "+1" * 30_000,
        "    return " + "[" * 150 + "]" * 150,
        "```" * 20_000,
        "\n" * 1_000_000,
        "    x = 1\n" * 6_000 + "    return (\n",
        "    return 1\n\x00",
        "    return '\ud800'\n",
        "    return '\N{SNOWMAN}' + 'é'\n",
    ],
)
def test_junk_is_not_correct_and_takes_no_time(code: Code, junk: str) -> None:
    started = time.monotonic()
    for problem in (PROBLEM, LENIENT):
        assert code.verify(problem, junk).outcome in (Outcome.UNPARSED, Outcome.WRONG)
    assert time.monotonic() - started < 6


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=" \n\tadefnrtu()[]:=+`#1'\"\\", max_size=80))
def test_extraction_never_raises_and_strict_is_lenient_too(text: str) -> None:
    strict = strict_program(PROBLEM, "    " + text, "f")
    lenient = lenient_program(PROBLEM, "    " + text, "f")
    assert strict is None or strict == lenient


@pytest.mark.parametrize(
    "line",
    [
        "b'garbage'",
        "b'{\"calls\": 1}'",
        "b'[' * 100_000",
        'b\'{"calls": [], "raised": ""}\'',
        "b''",
        "b'1e999999'",
        "b'\\xff'",
        'b\'{"calls": [[["i", "zz"], ""]], "raised": ""}\'',
        'b\'{"calls": [[["S", [["l", []]]], ""]], "raised": ""}\'',
    ],
)
def test_garbage_in_the_result_pipe_is_wrong(code: Code, line: str) -> None:
    body = f"""    import os
    for fd in range(3, 64):
        try:
            os.write(fd, {line} + bytes([10]))
        except OSError:
            pass
    return 0
"""
    verdict = code.verify(PROBLEM, body)
    assert verdict.outcome is Outcome.WRONG
    assert verdict.format_ok


def test_always_equal_objects_never_reach_the_comparison(code: Code) -> None:
    body = "    class Same(int):\n        def __eq__(self, other): return True\n        __hash__ = int.__hash__\n    return Same(7)\n"
    assert code.verify(PROBLEM, body).outcome is Outcome.WRONG
    assert code.verify(PROBLEM, body.replace("Same(7)", "Same(sum(x for x in a if x%2==0))")).outcome is Outcome.CORRECT


HUNT = """
    import gc, os, re, sys
    found, frame = set(), sys._getframe()
    while frame is not None:
        found |= set(re.findall(r"8675\\d{3}", repr(frame.f_locals)[:100000]))
        frame = frame.f_back
    for each in gc.get_objects():
        if type(each) in (dict, list, tuple):
            values = list(each.values()) if type(each) is dict else each
            found |= {str(x) for x in values if type(x) is int and 0 < x < 10**7 and str(x)[:4] == "8675"}
    try:
        maps, memory = open("/proc/self/maps").readlines(), open("/proc/self/mem", "rb", 0)
    except OSError:
        maps = []
    for line in maps:
        span, mode = line.split()[:2]
        if mode.startswith("rw"):
            start, end = (int(x, 16) for x in span.split("-"))
            try:
                memory.seek(start)
                found |= {x.decode() for x in re.findall(rb"8675\\d{3}", memory.read(end - start))}
            except (OSError, ValueError, OverflowError):
                pass
    return int(min(found, default="0", key=lambda x: abs(int(x) % 1000 - 309)))  # other digits may lie about
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("level", ["rlimits", None])
@pytest.mark.parametrize("hidden", [True, False])
def test_expected_values_are_not_in_the_jobs_frames_objects_or_memory(hidden: bool, level: str | None) -> None:
    inputs = [[[1]]] if hidden else [[[8675309]]]
    problem = replace(PROBLEM, answer={"entry_point": "f", "inputs": inputs, "expected": [8675309]})
    code = Code(Sandbox(level))
    verdict = code.verify(problem, HUNT.lstrip("\n"))
    code.close()
    # The second case shows that the hunt finds what is there.
    assert verdict.outcome is (Outcome.WRONG if hidden else Outcome.CORRECT)


def test_ladder_specimens_hold_in_the_pool() -> None:
    domain = Code()
    problems = list(domain.problems("ladder", "test", seed=3, limit=10))
    specimens = [(problem, specimen) for problem in problems for specimen in domain.specimens(problem)]
    # The limits take their time: once is enough.
    kept = [(p, s) for p, s in specimens if p is problems[0] or s.expected is not Outcome.TIMEOUT]
    with VerifierPool("harness_code.domain:Code", workers=2) as pool:
        verdicts = pool.verify([(problem, specimen.completion) for problem, specimen in kept])
    assert [v.outcome for v in verdicts] == [specimen.expected for _, specimen in kept]
    assert pickle.loads(pickle.dumps(domain)).name == "code"


def test_unknown_benchmark_names_the_known() -> None:
    with pytest.raises(UnknownName, match="ladder"):
        Code().problems("laddr", "test", seed=0, limit=1)
    formats = {benchmark.name: benchmark.answer_format for benchmark in Code().benchmarks()}
    assert formats.pop("ladder") == "strict"
    assert set(formats.values()) == {"lenient"}
    assert Code.isolation() in LEVELS
