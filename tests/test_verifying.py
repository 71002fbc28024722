"""The verifier pool against domains that sleep, die, raise, allocate and hang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import VerifierFailure
from harness.types import Outcome, Problem, Verdict
from harness.verifying import VerifierPool, _unique, check_errors

DOMAIN = """
import os, subprocess, sys, time
from pathlib import Path
from harness.types import (Outcome, Verdict)

class Odd:
    name, version = "odd", 3

    def verify(self, problem, completion):
        word, _, rest = completion.partition(" ")
        log = Path(problem.answer)
        line = ascii(completion[:50])[1:-1]
        attempts = log.read_text().splitlines().count(line) if log.exists() else 0
        with log.open("a") as stream:
            stream.write(line + "\\n")
        if word.endswith("-once"):
            if attempts:
                return Verdict(outcome=Outcome.CORRECT)
            word = word.removesuffix("-once")
        if word == "sleep":
            time.sleep(600)
        elif word == "stuck":
            9 ** 9 ** 9  # one call into C that holds the interpreter's lock
        elif word == "die":
            os.kill(os.getpid(), 9)
        elif word == "exit":
            sys.exit(5)
        elif word == "raise":
            raise KeyError(rest)
        elif word == "memory":
            bytearray(1 << 34)
        elif word == "limit":
            return Verdict(outcome=Outcome.TIMEOUT, detail="my own limit")
        elif word == "print":
            print("noise" * 1000, flush=True)
        elif word == "nonsense":
            return "correct"
        outcome = Outcome.CORRECT if word == "right" else Outcome.WRONG
        return Verdict(outcome=outcome, extracted=rest[:9], detail=str(os.getpid()))

class Slow(Odd):
    def time_limit(self, problem):
        return 60.0
    def verify(self, problem, completion):
        time.sleep(0.6)
        return Verdict(outcome=Outcome.CORRECT)

class Parent(Odd):
    def open(self):
        self.child = subprocess.Popen(["sleep", "600"])
    def verify(self, problem, completion):
        if completion == "hang":
            time.sleep(600)
        torch = str("torch" in sys.modules)
        return Verdict(outcome=Outcome.CORRECT, detail=f"{os.getpid()} {self.child.pid}", extracted=torch)

class Broken(Odd):
    def open(self):
        raise OSError("no such sandbox")

class Dying(Odd):
    def open(self):
        os._exit(9)

class Closing(Odd):
    def close(self):
        Path(os.environ["CLOSED"]).write_text("closed")
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "odd_domain.py").write_text(DOMAIN)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "log"


@pytest.fixture
def pool(log: Path) -> Iterator[VerifierPool]:
    with VerifierPool("odd_domain:Odd", workers=2, time_limit=1.0) as pool:
        yield pool


def problem(log: Path, name: str = "p") -> Problem:
    return Problem(id=name, prompt=name, answer=str(log))


def gone(pid: int) -> bool:
    """True once the process is dead (a zombie that waits for a foreign parent counts)."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.02)
    return False


def test_order_is_kept_equal_items_are_judged_once_and_progress_counts_all(pool: VerifierPool, log: Path) -> None:
    items = [(problem(log, f"p{i % 3}"), f"{'right' if i % 2 else 'wrong'} {i % 7}") for i in range(200)]
    seen: list[int] = []
    verdicts = pool.verify(items, seen.append)
    assert [v.outcome for v in verdicts] == [Outcome.CORRECT if i % 2 else Outcome.WRONG for i in range(200)]
    assert [v.extracted for v in verdicts] == [str(i % 7) for i in range(200)]
    assert {v.verifier for v in verdicts} == {"odd 3"}
    assert all(0 < v.seconds < 1.0 for v in verdicts)
    assert len(log.read_text().splitlines()) == len({(p.id, c) for p, c in items}) == 42
    assert seen == sorted(seen)
    assert seen[-1] == 200


def test_number_of_workers_changes_nothing(log: Path) -> None:
    words = ["right", "wrong", "right 1", "raise x", "limit", "print", "nonsense"]
    items = [(problem(log, f"p{i}"), word) for i in range(9) for word in words[: 7 if i == 0 else 3]]
    results = []
    for workers in (1, 3):
        with VerifierPool("odd_domain:Odd", workers=workers) as pool:
            results.append([(v.outcome, v.extracted) for v in pool.verify(items)])
    assert results[0] == results[1]


def test_a_hanging_item_is_killed_twice_and_takes_nothing_down(pool: VerifierPool, log: Path) -> None:
    items = [(problem(log), word) for word in ["right 1", "sleep", "right 2", "stuck", "right 3"]]
    started = time.monotonic()
    verdicts = pool.verify(items)
    assert [v.outcome.value for v in verdicts] == ["correct", "timeout", "correct", "timeout", "correct"]
    assert time.monotonic() - started < 40
    assert "killed after" in verdicts[1].detail
    assert verdicts[1].seconds >= 1.0
    assert sorted(log.read_text().splitlines()).count("sleep") == 2


@pytest.mark.parametrize("word", ["sleep-once", "die-once", "raise-once", "memory-once"])
def test_what_fails_in_the_crowd_and_not_alone_is_judged_by_the_second_run(
    pool: VerifierPool, log: Path, word: str
) -> None:
    assert [v.outcome for v in pool.verify([(problem(log), word), (problem(log), "right")])] == [Outcome.CORRECT] * 2


@pytest.mark.parametrize(
    ("word", "outcome", "detail"),
    [
        ("die", Outcome.ERROR, "death: killed by signal 9"),
        ("exit", Outcome.ERROR, "exception: SystemExit: 5"),
        ("raise boo", Outcome.ERROR, "exception: KeyError: 'boo'"),
        ("nonsense", Outcome.ERROR, "exception: TypeError: verify gave str"),
        ("memory", Outcome.TIMEOUT, "memory: MemoryError"),
        ("limit", Outcome.TIMEOUT, "my own limit"),
    ],
)
def test_failures_become_records_after_one_retry(
    pool: VerifierPool, log: Path, word: str, outcome: Outcome, detail: str
) -> None:
    first, second = pool.verify([(problem(log), word), (problem(log), "right")])
    assert first.outcome is outcome
    assert first.detail.startswith(detail)
    assert first.verifier == "odd 3"
    assert second.outcome is Outcome.CORRECT
    assert log.read_text().splitlines().count(word) == 2


def test_the_second_run_of_an_exception_is_in_a_fresh_worker(pool: VerifierPool, log: Path) -> None:
    before, _ = pool.verify([(problem(log), "right"), (problem(log), "raise")])
    after, again = pool.verify([(problem(log), "right"), (problem(log), "wrong")])
    assert before.detail != after.detail  # the worker's pid
    assert after.detail == again.detail


def test_hopeless_verifier_is_not_retried_thousands_of_times(
    pool: VerifierPool, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.verifying.ERROR_COUNT", 5)
    verdicts = pool.verify([(problem(log), f"raise {i}") for i in range(300)])
    assert {v.outcome for v in verdicts} == {Outcome.ERROR}
    assert len(log.read_text().splitlines()) == 305
    with pytest.raises(VerifierFailure, match="300 of 300"):
        check_errors(verdicts)


def test_large_completions_arrive_whole(pool: VerifierPool, log: Path) -> None:
    big = "right " + "x" * 3_000_000
    assert [v.outcome for v in pool.verify([(problem(log), big + str(i)) for i in range(5)])] == [Outcome.CORRECT] * 5


def test_lone_surrogates_survive_the_way(pool: VerifierPool, log: Path) -> None:
    (verdict,) = pool.verify([(problem(log), "right \ud800\n\x00")])
    assert verdict.extracted == "\ud800\n\x00"


def test_the_domain_sets_its_own_time_limit(log: Path) -> None:
    with VerifierPool("odd_domain:Slow", time_limit=0.1) as pool:
        assert pool.verify([(problem(log), "x")])[0].outcome is Outcome.CORRECT


def test_nothing_to_do_starts_nothing() -> None:
    with VerifierPool("no.such.module:Domain") as pool:
        assert pool.verify([]) == []


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("odd_domain:Broken", "no such sandbox"),
        ("odd_domain:Dying", "ended with status 9 before"),
        ("odd_domain:Absent", "Absent"),
        ("no_such_module:Odd", "no_such_module"),
    ],
)
def test_a_domain_that_does_not_start_ends_the_call_with_its_reason(log: Path, target: str, message: str) -> None:
    with VerifierPool(target) as pool:
        for _ in range(2):
            with pytest.raises(VerifierFailure, match=message):
                pool.verify([(problem(log), "x")])


def test_an_interrupted_call_leaves_a_usable_pool(pool: VerifierPool, log: Path) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool.verify([(problem(log), f"right {i}") for i in range(50)], interrupt)
    assert [v.extracted for v in pool.verify([(problem(log), "wrong a"), (problem(log), "wrong b")])] == ["a", "b"]


def test_close_ends_workers_and_their_children(log: Path) -> None:
    pool = VerifierPool("odd_domain:Parent", workers=2)
    verdicts = pool.verify([(problem(log), str(i)) for i in range(40)])
    assert {v.extracted for v in verdicts} == {"False"}, "a worker imported torch"
    pids = {int(pid) for v in verdicts for pid in v.detail.split()}
    pool.close()
    assert all(gone(pid) for pid in pids)


def test_close_lets_the_domain_close(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = log.with_name("marker")
    monkeypatch.setenv("CLOSED", str(marker))
    with VerifierPool("odd_domain:Closing") as pool:
        pool.verify([(problem(log), "right")])
        assert not marker.exists()
    assert marker.read_text() == "closed"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker ends with its item, not with its parent")
def test_nothing_survives_a_killed_parent(log: Path) -> None:
    script = f"""
import sys
sys.path[:] = {sys.path!r}
from harness.types import (Problem)
from harness.verifying import VerifierPool
problem = Problem(id="p", prompt="p", answer={str(log)!r})
pool = VerifierPool("odd_domain:Parent", time_limit=500)
print(pool.verify([(problem, "x")])[0].detail, flush=True)
pool.verify([(problem, "hang")])
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker, child = map(int, parent.stdout.readline().split())
    time.sleep(0.2)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert gone(worker)
    os.kill(child, signal.SIGKILL)  # a child is its domain's to guard; harness_code's sandbox does (test_code.py)


def _verdicts(errors: int, total: int) -> list[Verdict]:
    return [Verdict(outcome=Outcome.ERROR if i < errors else Outcome.WRONG) for i in range(total)]


@pytest.mark.parametrize(("errors", "total"), [(0, 0), (19, 19), (19, 100), (20, 2000), (100, 10_000)])
def test_few_errors_are_records(errors: int, total: int) -> None:
    check_errors(_verdicts(errors, total))


@pytest.mark.parametrize(("errors", "total"), [(20, 20), (20, 1999), (101, 10_000)])
def test_many_errors_stop_the_run(errors: int, total: int) -> None:
    with pytest.raises(VerifierFailure, match=f"{errors} of {total}"):
        check_errors(_verdicts(errors, total))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["strict", "lenient"]), st.sampled_from("xyz"))))
def test_equal_items_share_a_place_and_no_others_do(drawn: list[tuple[str, str, str]]) -> None:
    items = [(Problem(id=i, prompt=i, answer=None, meta={"answer_format": f}), text) for i, f, text in drawn]
    unique, places = _unique(items)
    assert [tuple(unique[place]) for place in places] == items
    assert len(unique) == len(set(drawn))


@pytest.mark.parametrize(("name", "version"), [("math", 1), ("code", 2), ("arc", 1), ("ai2_arc", 1)])
def test_built_in_domains_register_without_importing_anything_heavy(name: str, version: int) -> None:
    script = f"""
import sys
sys.path[:] = {sys.path!r}
from harness_{name} import plugin
found = []
plugin.harness_register_domains(register=lambda *names, summary: found.append((names, summary)))
((registered, target), summary), = found
assert registered == {name!r} and len(summary) > 20
assert not {{"numpy", "torch", "sympy", "harness.types", "harness_{name}.domain"}} & set(sys.modules)
import importlib
module, _, attribute = target.partition(":")
domain = getattr(importlib.import_module(module), attribute)()
assert (domain.name, domain.version) == ({name!r}, {version})
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_answers_that_python_calls_equal_are_judged_apart() -> None:
    """True == 1 == 1.0, but a verifier may be strict about types."""
    one = Problem(id="p", prompt="?", answer=1)
    items = [(one, "x"), (Problem(id="p", prompt="?", answer=True), "x"), (Problem(id="p", prompt="?", answer=1), "x")]
    unique, places = _unique(items)
    assert [item.problem.answer for item in unique] == [1, True]
    assert places == [0, 1, 0]
