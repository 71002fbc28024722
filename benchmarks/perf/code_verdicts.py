"""Verdicts on programs, at full isolation, against EvalPlus's `untrusted_check`, which is a bare fork.

Does: judge the same programs, right and wrong ones, with both on the same inputs, one at a time, in turns; the ladder of
the code domain, and the prereleases of HumanEval+ and MBPP+ where the data folder has them.
Doesn't: compare verdicts beyond demanding that both accept what is right and refuse what is wrong: see
benchmarks/verifiers/evalplus_agreement.py.

EvalPlus forks this process, and what a fork costs grows with the memory of its parent: nothing large is imported here.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

from benchmarks.perf.rows import Row, interleaved, timed
from benchmarks.verifiers import evalplus_agreement as agreement
from harness.types import Outcome, Problem
from harness_code import rows
from harness_code.domain import Code
from harness_code.extract import strict_program
from harness_code.sandbox import LEVELS, Sandbox, SandboxFailure
from harness_code.tasks import Differential, Pairs, answer_of, task_of

LADDER, PUBLIC, EVERY, TURNS = 100, 25, 4, 3
GOAL = "ratio >= 1.5"
NAN = float("nan")
MISSING = "needs pip install evalplus==0.3.1"
# Programs differ in what they do, not in what they cost to judge: a right one and a wrong one of each problem.
WRONG = "    return 'no such answer'\n"
CHANGED = "v + 1 if isinstance(v, (int, float, complex)) else [v]"


class Sample(NamedTuple):
    """One program, as each side takes it, and whether it is right."""

    problem: Problem
    completion: str
    program: str
    right: bool


class Work(NamedTuple):
    """What both sides do; `theirs` gives EvalPlus's word on each sample, None where it is not installed."""

    title: str
    samples: list[Sample]
    theirs: Callable[[], list[str]] | None


def measure() -> list[Row]:
    check = _peer()
    with closing(Code(_sandbox())) as domain:
        domain.open()
        return [_row(domain, work) for work in (_ladder(domain, check), *_public(domain, check)) if work.samples]


def _peer() -> Any:
    try:
        return importlib.import_module("evalplus.eval")
    except ImportError:
        return None


def _sandbox() -> Sandbox:
    """At the level that the goal is about; where the machine lacks it, at the one in force, which the rows name."""
    sandbox = Sandbox(LEVELS[0])
    try:
        sandbox.start()
    except SandboxFailure:
        return Sandbox()
    return sandbox


def _row(domain: Code, work: Work) -> Row:
    """Judging once before the clock starts also has every reference run once, on both sides."""
    for sample, outcome in zip(work.samples, _judged(domain, work.samples), strict=True):
        if (outcome is Outcome.CORRECT) != sample.right:
            raise RuntimeError(f"{sample.problem.id}: {outcome}, expected {'right' if sample.right else 'wrong'}")
    count, at = len(work.samples), f"{len(work.samples)} programs, level {domain.isolation()}"
    title = f"code verdicts: {work.title}"
    if work.theirs is None:
        cost = timed(lambda: _judged(domain, work.samples))
        return Row(title, 1000 * cost.cpu / count, NAN, "CPU ms", NAN, GOAL, f"{at}; {MISSING}")
    for sample, word in zip(work.samples, work.theirs(), strict=True):
        if (word == "pass") != sample.right:
            raise RuntimeError(f"{sample.problem.id}: evalplus says {word}")
    sides = interleaved(lambda: _judged(domain, work.samples), work.theirs, turns=TURNS)
    ours, peer = sides
    wall = f"wall {1000 * ours.wall / count:.1f} against {1000 * peer.wall / count:.1f} ms"
    ratio = peer.cpu / ours.cpu
    return Row(title, 1000 * ours.cpu / count, 1000 * peer.cpu / count, "CPU ms", ratio, GOAL, f"{at}; {wall}")


def _judged(domain: Code, samples: list[Sample]) -> list[Outcome]:
    return [domain.verify(sample.problem, sample.completion).outcome for sample in samples]


def _ladder(domain: Code, check: Any) -> Work:
    samples = list(itertools.chain.from_iterable(map(_pair, domain.problems("ladder", "test", seed=0, limit=LADDER))))

    def theirs() -> list[str]:
        return [_word(check, sample) for sample in samples]

    return Work("ladder", samples, theirs if check else None)


def _pair(problem: Problem) -> Iterator[Sample]:
    task = task_of(problem)
    assert isinstance(task, Pairs)
    table = {repr(given[0]): value for given, value in zip(task.inputs, task.expected, strict=True)}
    for body, right in ((f"    return {table!r}[repr(a)]\n", True), (WRONG, False)):
        program = strict_program(problem, body, task.entry_point)
        assert program is not None
        yield Sample(problem, body, program, right)


def _word(check: Any, sample: Sample) -> str:
    task = task_of(sample.problem)
    assert isinstance(task, Pairs)
    times = [0.0] * len(task.inputs)
    answer = check.untrusted_check(
        "mbpp", sample.program, task.inputs, task.entry_point,
        expected=task.expected, atol=0, ref_time=times, fast_check=True,
    )  # fmt: skip
    return str(answer[0])


def _public(domain: Code, check: Any) -> Iterator[Work]:
    """Without EvalPlus the inputs that break a row's own solution are not known, hence no rows."""
    for name in agreement.FILES if check else ():
        samples: list[Sample] = []
        asked: list[tuple[agreement.Peer, str]] = []
        for row in itertools.islice(agreement.published(name), 0, None, EVERY):
            problem = rows.read(row)
            task = task_of(problem)
            assert isinstance(task, Differential)
            peer = agreement.Peer(name, task)
            if not peer.kept or len(samples) >= 2 * PUBLIC:
                continue
            kept = task._replace(arguments=[task.arguments[place] for place in peer.kept])
            problem = replace(problem, answer=answer_of(kept))
            right_one = f"```python\n{task.reference}\n```"
            if peer.says(task.reference) != "pass" or domain.verify(problem, right_one).outcome is not Outcome.CORRECT:
                continue  # the prereleases hold solutions that fail
            wrong = agreement.variant(task.reference, task.entry_point, CHANGED, peer.last)
            for program, right in ((task.reference, True), (wrong, False)):
                samples.append(Sample(problem, f"```python\n{program}\n```", program, right))
                asked.append((peer, program))

        def theirs(asked: list[tuple[agreement.Peer, str]] = asked) -> list[str]:
            return [peer.says(program) for peer, program in asked]

        yield Work(f"{name}+ prerelease", samples, theirs)


if __name__ == "__main__":
    for found in measure():
        print(found)
