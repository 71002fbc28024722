"""The rules of verdicts: what every method, statistic and report takes for granted of a verifier.

Does: check verdicts on specimens, junk and echoed prompts, and the problems that `read` makes of rows.
Doesn't: judge whether the verifier's notion of a right answer is a good one: only its author can.

Four things are never confused (docs/design.md section 4): wrong, unparsed, truncated, and a failing verifier.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from harness.errors import BadRow
from harness.testing.domain_subject import ROWS_OF_ITS_OWN, Case, DomainSubject, Judged, leniently, readings
from harness.testing.junk import ROWS
from harness.testing.probing import probe
from harness.testing.rules import NotApplicable, RuleBroken, demand, shown
from harness.types import Outcome, Problem

# A limit made for slow programs says nothing of reading; a megabyte is read in a fraction of a second.
JUNK_SECONDS = 5.0


def is_json(value: Any) -> bool:
    """Whether JSON gives the value back as it was."""
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError):
        return False


def verdict(subject: DomainSubject) -> str:
    """The domain and its verdicts can be pickled, and a verdict holds an Outcome, text and a truth value."""
    golds = [case for case in subject.specimen_cases if case.kind == "gold"]
    firsts = list({case.benchmark: case for case in reversed(golds)}.values())
    for case in firsts:
        found = probe(subject.registration.target, case.problem, case.completion)
        demand(
            not found.domain,
            f"the domain: {'; '.join(found.domain)}",
            remedy="define __reduce__ to leave out what is open",
        )
        seen = f"{case.place}: {'; '.join(found.verdict)}"
        demand(not found.verdict, seen, remedy="return a harness.types.Verdict, whatever a completion says")
        demand(
            not found.pickled, f"{case.place}: the verdict {'; '.join(found.pickled)}", remedy="keep plain values in it"
        )
    return f"{len(firsts)} verdicts looked at in a process of their own"


def _wanted(judged: Sequence[Judged], kind: str) -> list[Judged]:
    return [found for found in judged if found.case.kind == kind]


def _show(found: Judged) -> str:
    case, verdict = found
    detail = f" ({verdict.detail})" if verdict.detail else ""
    return f"{case.place}: {shown(case.completion)} is {verdict.outcome.value}{detail}"


def gold(subject: DomainSubject) -> str:
    """A right completion is CORRECT."""
    found = _wanted(subject.specimen_verdicts, "gold")
    for one in found:
        right = one.verdict.outcome is Outcome.CORRECT
        demand(right, f"{_show(one)}, expected correct", remedy="make the verifier take it, or the specimen right")
    return f"{len(found)} gold specimens"


def near_miss(subject: DomainSubject) -> str:
    """A completion that is nearly right, or hostile, is not CORRECT."""
    found = _wanted(subject.specimen_verdicts, "miss")
    for one in found:
        paid = one.verdict.outcome is Outcome.CORRECT
        demand(not paid, f"{_show(one)}, expected {one.case.expected}", remedy="a reward for this teaches cheating")
    return f"{len(found)} near misses and hostile completions"


def outcomes(subject: DomainSubject) -> str:
    """What is not CORRECT is so for the stated reason: wrong, unparsed, or a limit."""
    found = _wanted(subject.specimen_verdicts, "miss")
    for one in found:
        same = one.verdict.outcome in (one.case.expected, Outcome.CORRECT)  # the latter is near_miss's to report
        demand(same, f"{_show(one)}, expected {one.case.expected}", remedy="tell wrong, unparsed and limits apart")
    return f"{len(found)} expected outcomes"


def junk(subject: DomainSubject) -> str:
    """Junk of any size gets some verdict: an exception of the verifier is never one."""
    for one in subject.junk_verdicts:
        ended = one.verdict.outcome is not Outcome.ERROR
        demand(ended, _show(one), remedy="catch what your parser raises and say UNPARSED")
    return f"{len(subject.junk_verdicts)} pieces of junk"


def time(subject: DomainSubject) -> str:
    """Junk of any size is judged within the time and memory limits."""
    for one in subject.junk_verdicts:
        # The pool's own words; a domain may report a limit of its own that a completion met in time.
        killed = one.verdict.outcome is Outcome.TIMEOUT and one.verdict.detail.startswith(("time:", "memory:"))
        demand(not killed, _show(one), remedy="read in one pass: bound lengths and depths before you parse")
    slowest = max(subject.junk_verdicts, key=lambda one: one.verdict.seconds)
    fast = slowest.verdict.seconds <= JUNK_SECONDS
    demand(fast, f"{_show(slowest)} after {slowest.verdict.seconds:.1f} s", remedy="read in one pass, in linear time")
    return f"the slowest took {slowest.verdict.seconds:.2f} s ({slowest.case.name})"


def junk_reward(subject: DomainSubject) -> str:
    """Junk earns no reward."""
    for one in subject.junk_verdicts:
        demand(one.verdict.outcome is not Outcome.CORRECT, _show(one), remedy="demand an answer before you compare")
    return f"{len(subject.junk_verdicts)} pieces of junk"


def echo(subject: DomainSubject) -> str:
    """The prompt echoed back is not CORRECT, where the gold does not occur in it."""
    cases = [
        Case(name, read, "echo", "the prompt echoed back", problem.prompt)
        for name, problem in subject.tried
        if not _occurs(subject, problem)
        for read in readings(problem)
    ]
    if not cases:
        raise NotApplicable("the gold occurs in every prompt")
    for one in subject.judge(cases):
        paid = one.verdict.outcome is Outcome.CORRECT
        demand(not paid, _show(one), remedy="read the answer from where the format puts it, not from anywhere")
    return f"{len({case.problem.id for case in cases})} of {len(subject.tried)} prompts"


def _occurs(subject: DomainSubject, problem: Problem) -> bool:
    answers = problem.answer if isinstance(problem.answer, list) else [problem.answer]
    plain = {str(answer) for answer in answers if isinstance(answer, str | int | float)}
    golds = {verdict.extracted for verdict in subject.golds_of(problem)} - {None, ""}
    return any(str(text) in problem.prompt for text in plain | golds)


def _same(one: Judged, other: Judged) -> bool:
    return all(
        getattr(one.verdict, field) == getattr(other.verdict, field) for field in ("outcome", "extracted", "format_ok")
    )


def _both(first: Judged, second: Judged) -> str:
    parts = (f"{v.outcome.value} {v.extracted!r} format_ok={v.format_ok}" for v in (first.verdict, second.verdict))
    return f"{first.case.place}: {shown(first.case.completion)} is {', then '.join(parts)}"


def deterministic(subject: DomainSubject) -> str:
    """The same completion gets the same verdict twice."""
    again = subject.judge([one.case for one in subject.settled])
    for first, second in zip(subject.settled, again, strict=True):
        demand(
            _same(first, second), _both(first, second), remedy="keep no state between verdicts, and no clock or chance"
        )
    return f"{len(again)} verdicts"


def process(subject: DomainSubject) -> str:
    """The same completion gets the same verdict in another process."""
    again = subject.judge_elsewhere([one.case for one in subject.settled])
    for first, second in zip(subject.settled, again, strict=True):
        demand(_same(first, second), _both(first, second), remedy="rely on no hash order, process id or environment")
    return f"{len(again)} verdicts"


def lenient(subject: DomainSubject) -> str:
    """A completion in the demanded format gets the same verdict leniently."""
    found = [one for one in subject.settled if one.case.problem.strict and one.verdict.format_ok]
    if not found:
        raise NotApplicable("no specimen of a strict benchmark is in its format")
    cases = [one.case._replace(problem=leniently(one.case.problem)) for one in found]
    for first, second in zip(found, subject.judge(cases), strict=True):
        demand(_same(first, second), _both(first, second), remedy="the lenient reading must contain the strict one")
    return f"{len(found)} verdicts"


def read(subject: DomainSubject) -> str:
    """Rows become problems and survive the way; a row that is not understood is a BadRow that names the field."""
    reader = getattr(subject.domain, "read", None)
    if reader is None and hasattr(subject.domain, "rows"):
        raise RuleBroken("rows() gives rows that nothing reads", "implement read(row)")
    if reader is None:
        raise NotApplicable("no read(row): `harness verify` and --data will not take this domain")
    for row in ROWS:
        _refused(reader, row)
    for row in subject.rows:
        problem = reader(row)
        seen = f"the row {shown(row)} becomes {shown(problem)}"
        good = isinstance(problem, Problem) and bool(problem.id) and not problem.strict
        demand(good, seen, remedy='give an id, and meta["answer_format"] = "lenient"')
        demand(reader(json.loads(json.dumps(row))) == problem, f"{seen}, then another", remedy="read must be pure")
        whole = is_json(problem.answer) and is_json(problem.meta)
        demand(whole and pickle.loads(pickle.dumps(problem)) == problem, seen, remedy="keep JSON in answer and meta")
    return f"{len(ROWS)} rows refused, {len(subject.rows)} rows of its own read"


def _refused(reader: Any, row: Mapping[str, object]) -> None:
    remedy = 'raise harness.errors.BadRow("field NAME: found ..., understood ...")'
    try:
        problem = reader(row)
    except BadRow as error:
        demand("field" in str(error), f"the row {shown(row)}: {shown(str(error))}", remedy=remedy)
    else:
        raise RuleBroken(f"the row {shown(row)} became {shown(asdict(problem))}", remedy)


def rows(subject: DomainSubject) -> str:
    """What a row became can be judged: its gold is CORRECT."""
    if not subject.rows:
        raise NotApplicable("no rows(): yield one row of each kind that read understands")
    cases = [
        Case(ROWS_OF_ITS_OWN, problem, "gold", "gold", one.completion, one.expected)
        for problem in subject.of_rows
        for one in subject.domain.specimens(problem)
        if one.expected is Outcome.CORRECT
    ]
    for one in subject.judge(cases):
        demand(one.verdict.outcome is Outcome.CORRECT, _show(one), remedy="keep all that verify needs in the problem")
    return f"{len(cases)} gold specimens of {len(subject.rows)} rows"
