"""Public code sets: rows, answers in free text, splits, and every published solution judged by the published tests."""

from __future__ import annotations

import json
import sys
import time
import types
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import BadRow, UsageError
from harness.types import Outcome, Problem
from harness.verifying import VerifierPool
from harness_code import data, rows, verify
from harness_code.chat import find_program, helpers
from harness_code.domain import Code
from harness_code.extract import parse
from harness_code.restoring import restore
from harness_code.tasks import Asserts, task_of
from harness_code.verify import ReferenceFailure, scaled, wall_limit

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not (DATA / "code").is_dir(), reason="needs ../shared/data/code")

PROMPT = 'import math\n\n\ndef half(x):\n    return x / 2\n\n\ndef f(a: list, b=1) -> int:\n    """Add up.\n    >>> f([1, 2])\n    3\n    """\n'
BODY = "    return sum(a)\n"
WHOLE = "def f(a, b=1):\n    return sum(a)\n"
HUMANEVAL = {
    "task_id": "HumanEval/x",
    "prompt": PROMPT,
    "entry_point": "f",
    "canonical_solution": BODY,
    "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == int(half(0))\n",
}
PAIRS = {"prompt": PROMPT, "entry_point": "f", "inputs": [[[1, 2]], [[]]], "expected": [3, 0], "id": 7}
MBPP = {
    "task_id": 11,
    "text": "Add up the items of a tuple.",
    "code": "import math\nclass Box:\n    def __init__(self, x): self.x = x\ndef add(t):\n    return math.fsum(t)",
    "test_list": ["assert math.isclose(add((1, 2)), 3)", "assert add((Box(1).x, 5)) == 6.0"],
    "test_imports": [],
}
EVALPLUS = {
    "task_id": "Mbpp/9",
    "prompt": '"""\nSwap.\nassert swap((1, 2)) == (2, 1)\n"""\n',
    "entry_point": "swap",
    "canonical_solution": "def swap(t):\n    assert type(t) is tuple\n    return t[1], t[0]\n",
    "base_input": [[[1, 2]]],
    "plus_input": [[[3.5, 4.5]], [["a", "b"]]],
    "assertion": "assert swap((1, 2)) == (2, 1)",
    "atol": 0,
}


@pytest.fixture(scope="module")
def code() -> Iterator[Code]:
    domain = Code()
    yield domain
    domain.close()


def fence(text: str, language: str = "python") -> str:
    return f"```{language}\n{text}```"


@pytest.mark.parametrize(
    ("completion", "outcome", "format_ok"),
    [
        (BODY, "correct", True),
        ("    s = 0\n    for x in a:\n        s += x\n    return s", "correct", True),
        (WHOLE, "correct", True),
        (PROMPT + BODY, "correct", True),
        (fence(WHOLE), "correct", True),
        (fence(WHOLE, ""), "correct", True),
        (fence(WHOLE, "py"), "correct", True),
        (fence(PROMPT + BODY), "correct", True),
        (fence(BODY), "correct", True),
        (f"Sure! Here it is:\n\n{fence(WHOLE)}\n\nThis adds up all items of `a`.", "correct", True),
        ("<think>\n" + fence("def f(a):\n    return 0\n") + "\nNo.</think>\n" + fence(WHOLE), "correct", True),
        (fence("def f(a):\n    return 1\n") + "\nBetter:\n" + fence(WHOLE), "correct", True),
        (fence(WHOLE) + "\nor\n" + fence("def f(a):\n    return 1\n"), "wrong", True),
        (
            fence(WHOLE) + "\nUse it so:\n" + fence("print(f([1, 2]))\n") + "\nIt prints\n" + fence("3\n", ""),
            "correct",
            True,
        ),
        (fence("def f(a):\n    return 1\n") + "\nThe body, corrected:\n" + fence(BODY), "correct", True),
        ("```python\n" + WHOLE, "correct", True),
        (BODY + "```\nThat is all.", "correct", True),
        ("1. Like this:\n\n   ```python\n   def f(a):\n       return sum(a)\n   ```\n", "correct", True),
        ("return sum(a)", "correct", False),
        ("s = 0\n    for x in a:\n        s += x\n    return s", "correct", False),
        ("Here is the function.\nimport math\n\ndef f(a):\n    return sum(a)\n\nIt adds up.", "correct", False),
        ("From the list we take the sum:\ndef f(a):\n    return sum(a)", "correct", False),
        (BODY + "\n\ndef other():\n    return 1\n\nif __name__ == '__main__':\n    print(f([1]))\n", "correct", True),
        (BODY + "\n\ndef cut_off(x):\n    return (x +", "correct", False),
        (BODY + "\nThis function adds up.", "correct", False),
        ("def g(a):\n    return sum(a)\nf = g\n", "correct", True),
        ("f = lambda a: sum(a)", "correct", True),
        ("f: object = sum", "correct", True),
        ("from builtins import sum as f", "correct", True),
        ("class f:\n    def __new__(cls, a): return sum(a)\n", "correct", True),
        ("if True:\n    def f(a):\n        return sum(a)\n", "correct", True),
        ("from __future__ import annotations\ndef f(a: Missing):\n    return int(half(2 * sum(a)))\n", "correct", True),
        ("def half(x): return 0\ndef f(a):\n    return sum(a)\n", "correct", True),
        (
            "import sys\nsys.setrecursionlimit(9999)\ntotal = 0\nfor _ in range(3): total += 1\ndef f(a): return sum(a)",
            "correct",
            True,
        ),
        (WHOLE.replace("\n", "\r\n"), "correct", True),
        (WHOLE + "\nassert f([1]) == 2\n", "wrong", True),
        ("    pass\n", "wrong", True),
        ("def f(a):\n    print(sum(a))\n", "wrong", True),
        ("def g(a):\n    return sum(a)\n", "unparsed", False),
        ("", "unparsed", False),
        ("   \n", "unparsed", False),
        ("I would add the items up and return the sum.", "unparsed", False),
        (PROMPT, "unparsed", False),
        (fence(""), "unparsed", False),
        (fence("print(f([1, 2]))\n"), "unparsed", False),
    ],
)
def test_answers_in_free_text(code: Code, completion: str, outcome: str, format_ok: bool) -> None:
    for row in (HUMANEVAL, PAIRS):
        verdict = code.verify(code.read(row), completion)
        assert (verdict.outcome.value, verdict.format_ok) == (outcome, format_ok), verdict.detail
        assert (verdict.extracted is None) == (outcome == "unparsed")


def test_helpers_are_the_prompt_without_the_unfinished_function() -> None:
    assert helpers(PROMPT, "f").rstrip() == "import math\n\n\ndef half(x):\n    return x / 2"
    assert helpers("import re\ndef f(a):\n", "f") == "import re\n"
    assert helpers("", "f") == ""
    found = find_program("", "def f(a):\n    return 1\n", "f")
    assert found is not None
    assert found.program == "def f(a):\n    return 1\n"
    assert find_program("", "    return 1\n", "f") is None


JUNK = (
    "```\n" * 25_000,
    "def f(" * 20_000,
    "f = " * 20_000,
    "def f(a):\n" * 9_000,
    "x" * 10**6,
    "\n" * 10**6,
    " " * 10**6,
)


@pytest.mark.parametrize("junk", [*JUNK, *(f"```\n{text}\n```\n" * 9 for text in ("\n" * 9_000, "return 1\n" * 900))])
def test_junk_is_read_in_bounded_time(junk: str) -> None:
    started = time.process_time()
    for context in (PROMPT, ""):
        with warnings.catch_warnings(action="error"):
            find_program(context, junk, "f")
    assert time.process_time() - started < 3


PIECES = [
    "def f(a):\n",
    "    return a",
    "```",
    "```python\n",
    "\n",
    "f = ",
    "    ",
    "x",
    "(",
    "'",
    "\\",
    "@g\n",
    "class f:\n",
    "\0",
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*PIECES, "\ud800", "é"]), max_size=12))
def test_reading_an_answer_never_raises_and_what_it_finds_can_be_parsed(parts: list[str]) -> None:
    for context in (PROMPT, "def f(a):\n", ""):
        found = find_program(context, "".join(parts), "f")
        assert found is None or parse(found.program).tree is not None


def test_equality_is_strict_for_pairs_and_pythons_for_asserts(code: Code) -> None:
    for body, pairs, asserts in (
        ("return sum(a)", "correct", "correct"),
        ("return float(sum(a))", "wrong", "correct"),
        ("return sum(a) if a else False", "wrong", "correct"),
        ("return [sum(a)]", "wrong", "wrong"),
    ):
        completion = f"def f(a):\n    {body}\n"
        assert code.verify(code.read(PAIRS), completion).outcome == pairs
        assert code.verify(code.read(HUMANEVAL), completion).outcome == asserts
    as_tuple = {**PAIRS, "expected": [[1, [2]], []]}
    assert code.verify(code.read(as_tuple), "def f(a): return (1, (2,)) if a else ()").outcome is Outcome.CORRECT


def test_mbpp_rows_call_what_the_program_defines(code: Code) -> None:
    problem = code.read(MBPP)
    task = task_of(problem)
    assert isinstance(task, Asserts)
    assert (problem.id, task.entry_point, task.names, task.setup) == ("11", "add", ["Box", "add"], "import math")
    assert problem.prompt == f'"""\nAdd up the items of a tuple.\n{MBPP["test_list"][0]}\n"""\n'
    assert code.verify(problem, fence(str(MBPP["code"]))).outcome is Outcome.CORRECT
    assert code.verify(problem, fence("def add(t): return sum(t)")).detail == "NameError in line 3 of the tests"
    without_solution = {key: value for key, value in MBPP.items() if key != "code"}
    assert code.read({**without_solution, "test_imports": ["import math"]}).answer == {
        **dict(problem.answer),  # type: ignore[arg-type]
        "reference": "",
    }
    builtin = {**MBPP, "code": "def sum(a, b): return a + b", "test_list": ["assert sum(1, 2) == 3"]}
    assert task_of(code.read(builtin)).entry_point == "sum"


def test_the_types_that_json_lost_are_found_in_the_asserts(code: Code) -> None:
    problem = code.read(EVALPLUS)
    for program, outcome in (
        (str(EVALPLUS["canonical_solution"]), "correct"),
        ("def swap(t): return list(reversed(t))", "wrong"),
        ("def swap(t): return tuple(reversed(t))", "correct"),
        ("def swap(t): return (t[1], t[0]) if t != ('a', 'b') else 0", "wrong"),
        ("def swap(t): return (t[1], t[0]) if type(t[0]) is not float else (t[1] + 1e-9, t[0])", "correct"),
        ("def swap(t): raise ValueError", "wrong"),
    ):
        assert code.verify(problem, fence(program)).outcome == outcome, program
    assert restore("assert g({1}, [(1, 2)], 1j)", "g", [[[3], [[4, 5]], "2j"]]) == [[{3}, [(4, 5)], 2j]]
    assert restore("no python (", "g", [[[3]]]) == [[[3]]]


def test_the_answer_of_a_solution_is_right_as_it_came_unless_it_differs_from_itself(code: Code) -> None:
    for value, outcome in (
        ("t", "correct"),
        ('float("inf")', "correct"),
        ("object", "wrong"),
        ('float("nan")', "wrong"),
    ):
        solution = f"def swap(t):\n    return {value}\n"
        problem = code.read({**EVALPLUS, "canonical_solution": solution})
        for program in (solution, f"{solution}swap.used = True\n", f"print(1)\n{solution}"):
            assert code.verify(problem, fence(program)).outcome == outcome, (value, program)
        (*_, reference) = code._judge._references.values()
        assert bool(reference.reply) is (outcome == "correct")
        assert code.verify(problem, fence("def swap(t): return [t]")).outcome is Outcome.WRONG


def test_rows_of_one_prompt_and_solution_are_not_taken_for_each_other(code: Code) -> None:
    row = {**EVALPLUS, "task_id": "one", "assertion": ""}
    answer = fence("def swap(t): return (t[1], t[0])")
    tuples = str(EVALPLUS["canonical_solution"]).replace("    assert type(t) is tuple\n", "")
    for inputs in ([[[1, 2]]], [[[3, 4]], [[5, 6]]], [[["a", "b"]]]):
        problem = code.read({**row, "canonical_solution": tuples, "base_input": inputs, "plus_input": []})
        assert code.verify(problem, answer).outcome is Outcome.CORRECT
        assert code.verify(problem, fence("def swap(t): return t")).outcome is Outcome.WRONG


def test_a_solution_that_fails_is_no_fault_of_the_completion(code: Code) -> None:
    problem = code.read({**EVALPLUS, "canonical_solution": "def swap(t):\n    return t[9]\n"})
    with pytest.raises(ReferenceFailure, match="fails on input 0: IndexError"):
        code.verify(problem, "def swap(t): return t")
    problem = code.read({**HUMANEVAL, "canonical_solution": "    return 0\n"})
    assert code.verify(problem, BODY).outcome is Outcome.CORRECT


def test_limits_scale_with_the_reference() -> None:
    assert [scaled(3, seconds).cpu for seconds in (0.0, 0.2, 0.31, 1.0, 99.0)] == [3, 3, 4, 10, 30]
    assert scaled(10, 0.5).cpu == 10
    assert scaled(3).wall == 9.0
    code = Code()
    limits = {name: wall_limit(rows.read(row)) for name, row in (("pairs", PAIRS), ("asserts", HUMANEVAL))}
    assert limits == {"pairs": scaled(3).wall, "asserts": 2 * scaled(30).wall}
    assert code.time_limit(rows.read(PAIRS)) > limits["pairs"]
    ladder = next(iter(code.problems("ladder", "test", seed=0, limit=1)))
    assert code.time_limit(ladder) == verify.LADDER.wall + 3


def test_a_slow_reference_widens_the_limit(code: Code) -> None:
    slow = "    import time\n    end = time.process_time() + 0.5\n    while time.process_time() < end: pass\n    return sum(a)\n"
    problem = code.read({**HUMANEVAL, "canonical_solution": slow})
    assert code.verify(problem, slow.replace("0.5", "2.0")).outcome is Outcome.CORRECT


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "field test: missing, found nothing; understood are HumanEval"),
        ({"answer": 1, "prompt": "x"}, "field test: missing, found answer, prompt"),
        ({**HUMANEVAL, "entry_point": "f g"}, "field entry_point: found 'f g', understood is the name"),
        ({**HUMANEVAL, "entry_point": None}, "field entry_point: found None, understood is text"),
        ({**HUMANEVAL, "test": "assert ("}, "field test: no Python, see its line 1"),
        ({**HUMANEVAL, "prompt": ["x"]}, "field prompt: found list, understood is text"),
        ({"test": "x", "prompt": "y"}, "field entry_point: missing"),
        ({**PAIRS, "inputs": []}, "field inputs: found list, understood is a list that is not empty"),
        ({**PAIRS, "inputs": [1, 2]}, "field inputs: item 0 is 1, understood is a list of arguments"),
        ({**PAIRS, "expected": [1]}, "field expected: 1 values for 2 inputs"),
        ({**PAIRS, "expected": [1, float("nan")]}, "field expected: "),
        ({**MBPP, "test_list": "assert True"}, "field test_list: found 'assert True', understood is a list of text"),
        ({**MBPP, "test_list": []}, "field test_list: empty"),
        ({**MBPP, "test_list": ["assert 1 == 1"]}, "field test_list: calls no function of the program"),
        ({**EVALPLUS, "atol": "0"}, "field atol: found '0', understood is a number from 0 on"),
        ({**EVALPLUS, "plus_input": [3]}, "field plus_input: understood is a list of lists"),
        ({**EVALPLUS, "plus_input": [[object()]], "assertion": None}, "field plus_input: not plain data"),
        ({**EVALPLUS, "canonical_solution": ""}, "field canonical_solution: found '', understood is text"),
    ],
)
def test_rows_that_are_not_understood(row: Mapping[str, Any], message: str) -> None:
    with pytest.raises(BadRow) as error:
        rows.read(row)
    assert str(error.value).startswith(message)


def test_problems_of_rows_are_json_and_hold_all() -> None:
    for row, name in ((HUMANEVAL, "HumanEval/x"), (PAIRS, "7"), (MBPP, "11"), (EVALPLUS, "Mbpp/9")):
        problem = rows.read(row)
        assert problem.id == name
        assert not problem.strict
        assert json.loads(json.dumps([problem.answer, dict(problem.meta)], allow_nan=False)) == [
            problem.answer,
            problem.meta,
        ]
        unnamed = {key: value for key, value in row.items() if key not in ("task_id", "id")}
        assert rows.read(unnamed).id == problem.content_hash[:16]


def test_specimens_hold(code: Code) -> None:
    for row in (HUMANEVAL, PAIRS, MBPP, EVALPLUS):
        problem = code.read(row)
        for specimen in code.specimens(problem):
            if specimen.expected is not Outcome.TIMEOUT:
                assert code.verify(problem, specimen.completion).outcome is specimen.expected, specimen.completion


# The published solutions, by the published tests.


def read_file(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / "code" / f"{name}.jsonl").read_text().splitlines()]


def reference_of(problem: Problem) -> str:
    task = task_of(problem)
    assert isinstance(task, Asserts)
    return task.reference


@needs_data
@pytest.mark.parametrize(
    ("name", "count", "failing"),
    [
        ("humaneval", 164, ()),
        ("mbpp_sanitized", 399, ()),
        ("mbpp_test500_ldb", 500, ("MBPP/56", "MBPP/349", "MBPP/436")),
    ],
)
def test_published_solutions_pass_and_spoilt_ones_do_not(name: str, count: int, failing: tuple[str, ...]) -> None:
    found = read_file(name)
    problems = [rows.read(row) for row in found]
    right = [
        row["canonical_solution"] if name == "humaneval" else fence(reference_of(p) + "\n")
        for row, p in zip(found, problems, strict=True)
    ]
    spoilt = [
        fence(f"{reference_of(p)}\n{task_of(p).entry_point} = lambda *a, **k: 'no such answer'\n")
        for p in problems[::5]
    ]
    items = [*zip(problems, right, strict=True), *zip(problems[::5], spoilt, strict=True)]
    with VerifierPool("harness_code.domain:Code", workers=2) as pool:
        verdicts = pool.verify(items)
    assert len(problems) == count
    wrong = [p.id for p, v in zip(problems, verdicts, strict=False) if v.outcome is not Outcome.CORRECT]
    assert wrong == list(failing)
    assert {v.outcome for v in verdicts[count:]} == {Outcome.WRONG}
    assert {v.outcome for v in verdicts} <= {Outcome.CORRECT, Outcome.WRONG}


@needs_data
def test_benchmarks_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(DATA))
    code = Code()
    humaneval = list(code.problems("humaneval", "test", seed=0, limit=1000))
    assert (len(humaneval), humaneval[0].id) == (164, "HumanEval/0")
    with pytest.warns(UserWarning, match="399 of the 427 published rows"):
        splits = {s: list(code.problems("mbpp", s, seed=0, limit=1000)) for s in ("train", "selection", "test")}
    assert {split: len(problems) for split, problems in splits.items()} == {"train": 111, "selection": 42, "test": 239}
    assert len({p.content_hash for problems in splits.values() for p in problems}) == 392
    assert all(11 <= int(p.id) <= 510 for p in splits["test"])
    with pytest.raises(UsageError, match='humaneval has no split "train"; it has: test'):
        code.problems("humaneval", "train", seed=0, limit=1)


def test_absent_data_and_packages_are_said_with_their_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "evalplus.data", None)
    with pytest.raises(UsageError, match=r"pip install 'oneshot-harness\[evalplus\]'"):
        data.problems("humaneval_plus", "test", seed=0, limit=1)

    def offline() -> None:
        raise OSError("no network")

    fake = types.SimpleNamespace(get_human_eval_plus=offline)
    monkeypatch.setitem(sys.modules, "evalplus.data", fake)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="could not load humaneval_plus"):
        data.problems("humaneval_plus", "test", seed=0, limit=1)


def test_plus_sets_come_from_the_packages_own_loader(monkeypatch: pytest.MonkeyPatch, code: Code) -> None:
    """Its loader gives tuples, sets and complex numbers; `assertion` must not be used to restore them once more."""
    tasks = {
        f"Mbpp/{number}": {**EVALPLUS, "task_id": f"Mbpp/{number}", "prompt": f'"""Swap {number}."""\n', "base_input": [[(1, 2)]], "plus_input": [[(1j, frozenset({3}))]]}
        for number in (9, 300, 555, 700)
    }  # fmt: skip
    fake = types.SimpleNamespace(get_mbpp_plus=lambda: tasks)
    monkeypatch.setitem(sys.modules, "evalplus.data", fake)  # type: ignore[arg-type]
    ids = {}
    for split in ("train", "selection", "test"):
        (problem,) = data.problems("mbpp_plus", split, seed=0, limit=9)
        ids[split] = problem.id
        assert code.verify(problem, fence(str(EVALPLUS["canonical_solution"]))).outcome is Outcome.CORRECT
        assert code.verify(problem, fence("def swap(t): return t")).outcome is Outcome.WRONG
    assert ids == {"train": "Mbpp/700", "selection": "Mbpp/555", "test": "Mbpp/300"}
