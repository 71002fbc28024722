"""The rules of a domain, and those of its problems: what every run takes for granted before the first verdict.

Does: check what a domain says of itself, and that its problems are whole, apart and repeatable.
Doesn't: judge anything (verdict_rules.py does), or draw from a network.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from harness.contracts import Specimen
from harness.errors import UsageError
from harness.testing import verdict_rules as verdicts
from harness.testing.domain_subject import DRAWN, DomainSubject, members_of
from harness.testing.rules import NotApplicable, Rule, RuleBroken, demand, shown
from harness.testing.verdict_rules import is_json
from harness.types import Outcome, Problem

SPLITS = ("train", "selection", "test")
FORMATS = ("strict", "lenient")


def metadata(subject: DomainSubject) -> str:
    """Name, version and every benchmark's licence, source, splits, format and max_tokens are stated."""
    domain = subject.domain
    missing = [name for name in members_of() if not callable(getattr(domain, name, None))]
    demand(not missing, f"no {', '.join(missing)}", remedy="implement harness.contracts.Domain in full")
    own = getattr(domain, "name", None)
    demand(own == subject.registration.name, f"name is {own!r}", remedy=f'say name = "{subject.registration.name}"')
    version = getattr(domain, "version", None)
    demand(type(version) is int, f"version is {version!r}", remedy="count versions of the verdicts: version = 1")
    names = [benchmark.name for benchmark in subject.benchmarks]
    demand(bool(names), "benchmarks() is empty", remedy="name at least one benchmark")
    demand(len({*names}) == len(names), f"benchmark names repeat: {names}", remedy="give each benchmark its own name")
    for b in subject.benchmarks:
        demand(bool(b.licence and b.source), f"{b.name} has no licence or source", remedy="state both, for the report")
        splits = b.splits and set(b.splits) <= set(SPLITS)
        demand(bool(splits), f"{b.name} has splits {b.splits}", remedy=f"use some of {', '.join(SPLITS)}")
        demand(b.answer_format in FORMATS, f"{b.name}: format {b.answer_format!r}", remedy="strict or lenient")
        tokens = type(b.max_tokens) is int and b.max_tokens > 0
        demand(tokens, f"{b.name} has max_tokens {b.max_tokens!r}", remedy="say how long a completion may be")
    return f"version {version}, benchmarks {', '.join(names)}"


def draw(subject: DomainSubject) -> str:
    """Problems come, from at least one benchmark, without a network; a UsageError says what is missing."""
    absent = [f"{name} skipped: {reason}" for name, reason in subject.absent.items()]
    if not subject.drawn:
        instead = f"no benchmark can be drawn here; problems made from rows() instead: {len(subject.tried)}"
        raise NotApplicable("\n".join([instead, *absent]))
    for name, splits in subject.drawn.items():
        empty = [split for split, problems in splits.items() if not problems]
        demand(not empty, f"{name} has no problems for {', '.join(empty)}", remedy="yield some, or drop the split")
    counts = (f"{name} {sum(map(len, splits.values()))}" for name, splits in subject.drawn.items())
    return "\n".join([f"problems drawn: {', '.join(counts)}", *absent])


def _all(subject: DomainSubject) -> Iterator[tuple[str, Problem]]:
    for name, splits in subject.drawn.items():
        yield from ((f"{name}, {split}", problem) for split, problems in splits.items() for problem in problems)


def problems(subject: DomainSubject) -> str:
    """Every problem is a Problem whose answer and meta are JSON, in the benchmark's answer format."""
    count = 0
    formats = {b.name: b.answer_format for b in subject.benchmarks}
    for place, problem in _all(subject):
        demand(isinstance(problem, Problem), f"{place}: {shown(problem)}", remedy="yield harness.types.Problem")
        where = f"{place}, problem {problem.id!r}"
        text = isinstance(problem.prompt, str) and problem.prompt.strip()
        demand(
            bool(text), f"{where} has the prompt {shown(problem.prompt)}", remedy="a prompt is text that is not empty"
        )
        for field in ("answer", "meta"):
            value = getattr(problem, field)
            demand(is_json(value), f"{where}: {field} is {shown(value)}", remedy="keep JSON there: lists, not tuples")
        own, stated = problem.meta.get("answer_format"), formats[place.partition(",")[0]]
        demand(own == stated, f"{where}: meta answer_format is {own!r}", remedy=f'set it to "{stated}"')
        count += 1
    for name, splits in subject.drawn.items():
        for split, found in splits.items():
            seen = f"{name}, {split}: more than {DRAWN} problems at limit={DRAWN}"
            demand(len(found) <= DRAWN, seen, remedy="stop at limit")
    return f"{count} problems"


def ids(subject: DomainSubject) -> str:
    """No two problems of a benchmark share an id."""
    for name, splits in subject.drawn.items():
        seen: dict[str, str] = {}
        for split, found in splits.items():
            for problem in found:
                good = isinstance(problem.id, str) and bool(problem.id)
                demand(good, f"{name}, {split}: id {problem.id!r}", remedy="an id is text that is not empty")
                twice = f"{name}: id {problem.id} is in {seen.get(problem.id)} and again in {split}"
                demand(problem.id not in seen, twice, remedy="derive the id from what makes the problem what it is")
                seen[problem.id] = split
    return f"benchmarks {', '.join(subject.drawn)}"


def splits(subject: DomainSubject) -> str:
    """Train, selection and test share no problem, by content hash."""
    for name, drawn in subject.drawn.items():
        hashes = {split: {problem.content_hash for problem in found} for split, found in drawn.items()}
        for one, other in combinations(hashes, 2):
            shared = len(hashes[one] & hashes[other])
            demand(not shared, f"{name}: {shared} prompts are in {one} and in {other}", remedy=_SPLIT_REMEDY)
    return f"up to {max(len(p) for d in subject.drawn.values() for p in d.values())} problems of each split"


_SPLIT_REMEDY = "share problems out by content hash: harness.datasets.split_of"


def repeatable(subject: DomainSubject) -> str:
    """The same seed gives the same problems in the same order."""
    for name, drawn in subject.drawn.items():
        for split in drawn:
            same = subject.draw(name, split) == drawn[split]
            different = f"{name}, {split}: two draws with one seed differ"
            demand(same, different, remedy="draw all randomness from harness.seeds with the seed given")
    return "drawn twice with one seed"


def names(subject: DomainSubject) -> str:
    """A benchmark that does not exist is a UsageError that says which do."""
    try:
        list(subject.domain.problems("no such benchmark", "test", seed=0, limit=1))
    except UsageError as error:
        known = [benchmark.name for benchmark in subject.benchmarks if benchmark.name in str(error)]
        demand(bool(known), f"the message names no benchmark: {shown(str(error))}", remedy=_NAMES_REMEDY)
        return shown(str(error))
    raise RuleBroken("an unknown benchmark gave problems", _NAMES_REMEDY)


_NAMES_REMEDY = "raise harness.errors.UnknownName(kind, name, known)"


def specimens(subject: DomainSubject) -> str:
    """Every problem has specimens: at least one gold and one that is not."""
    if not subject.tried:
        raise NotApplicable("no problem to try: no benchmark can be drawn here, and no rows() gives one")
    for name, problem, found in subject.specimens:
        where = f"{name}, problem {problem.id}"
        for one in found:
            good = isinstance(one, Specimen) and isinstance(one.completion, str) and isinstance(one.expected, Outcome)
            demand(good, f"{where}: {shown(one)}", remedy="yield Specimen(text, Outcome...)")
        kinds = {one.expected is Outcome.CORRECT for one in found}
        demand(kinds == {True, False}, f"{where}: {len(found)} specimens, gold and others wanted", remedy=_BOTH)
    return f"{len(subject.specimen_cases)} specimens of {len(subject.tried)} problems"


_BOTH = "yield a right completion, near misses, and whatever might cheat the verifier"


_WHOLE = ("domain.draw", "domain.problems")
_VERDICTS = ("domain.specimens", "domain.verdict")
RULES = (
    Rule("domain.metadata", metadata),
    Rule("domain.draw", draw, ("domain.metadata",)),
    Rule("domain.problems", problems, ("domain.draw",)),
    Rule("domain.ids", ids, ("domain.problems",)),
    Rule("domain.splits", splits, ("domain.problems",)),
    Rule("domain.repeatable", repeatable, ("domain.problems",)),
    Rule("domain.names", names, ("domain.metadata",), unless=("domain.draw",)),
    Rule("domain.specimens", specimens, ("domain.metadata",), unless=_WHOLE),
    Rule("domain.verdict", verdicts.verdict, ("domain.specimens",)),
    Rule("domain.gold", verdicts.gold, _VERDICTS),
    Rule("domain.near_miss", verdicts.near_miss, _VERDICTS),
    Rule("domain.outcomes", verdicts.outcomes, _VERDICTS),
    Rule("domain.junk", verdicts.junk, _VERDICTS),
    Rule("domain.time", verdicts.time, _VERDICTS),
    Rule("domain.junk_reward", verdicts.junk_reward, _VERDICTS),
    Rule("domain.echo", verdicts.echo, _VERDICTS),
    Rule("domain.deterministic", verdicts.deterministic, _VERDICTS),
    Rule("domain.process", verdicts.process, (*_VERDICTS, "domain.deterministic")),
    Rule("domain.lenient", verdicts.lenient, (*_VERDICTS, "domain.deterministic")),
    Rule("domain.read", verdicts.read, ("domain.metadata",)),
    Rule("domain.rows", verdicts.rows, ("domain.read", "domain.gold")),
)
