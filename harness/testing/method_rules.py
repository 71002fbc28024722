"""The rules of a method: what the comparison at one budget, and resuming, rely on.

Does: check small runs of it, counted and stopped from outside.
Doesn't: judge its gains: what a method is worth is what the harness measures.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness import checksums, leaderboard
from harness.errors import NoSignal
from harness.testing.method_subject import MethodSubject, Ran
from harness.testing.rules import NotApplicable, Rule, demand, shown

COMBINE = ("single", "vote", "oracle")
# What stages write into a run folder on a method's behalf; everything else there belongs to others.
SHARED = (checksums.NAME, "rollouts", "verdicts", "directions", "events.jsonl")
# What the interpreter and torch write by themselves while a method runs.
BY_ITSELF = ("__pycache__", "/dev/", "/torchinductor_")


def metadata(subject: MethodSubject) -> str:
    """Name, version and options with their defaults are stated."""
    method = subject.method
    demand(callable(getattr(method, "run", None)), "no run(stages)", remedy="implement harness.contracts.Method")
    own = getattr(method, "name", None)
    demand(own == subject.name, f"name is {own!r}", remedy=f'say name = "{subject.name}"')
    version = getattr(method, "version", None)
    demand(type(version) is int, f"version is {version!r}", remedy="count versions: version = 1")
    options = getattr(method, "options", {})
    good = isinstance(options, Mapping) and json.loads(json.dumps(dict(options))) == dict(options)
    demand(good, f"options is {shown(options)}", remedy="a mapping from names to defaults that TOML can write")
    return f"version {version}, options {', '.join(options) or 'none'}"


def runs(subject: MethodSubject) -> str:
    """It ends in a contender whose policies can be evaluated."""
    ran = subject.straight
    contender = ran.finished.contender
    demand(bool(contender.policies), "a contender without policies", remedy="hand in at least stages.base")
    demand(contender.combine in COMBINE, f"combine is {contender.combine!r}", remedy=f"one of {', '.join(COMBINE)}")
    status = ran.row["status"]
    demand(status.startswith("ok"), f"status {status!r}", remedy="on these problems there is signal: use it")
    return f"status {status}, pass@1 {float(ran.row['pass@1']):.3f} from {float(ran.row['base_pass@1']):.3f}"


def budget(subject: MethodSubject) -> str:
    """Exactly the training budget, or nothing of it; never more than the selection budget; all of it charged."""
    ran, drawn = subject.straight, _drawn(subject)
    most = subject.budget
    charged = {kind: int(ran.finished.cost[f"{kind}_rollouts"]) for kind in ("train", "selection")}
    demand(charged["train"] in (0, most), f"{charged['train']} training rollouts of {most}", remedy=_SPEND)
    demand(charged["selection"] <= most, f"{charged['selection']} selection rollouts of {most}", remedy=_SPEND)
    for kind, count in charged.items():
        seen = f"the engine drew {drawn[kind]} {kind} rollouts, {count} were charged"
        demand(drawn[kind] <= count, seen, remedy="draw through stages only")
    return f"train {charged['train']} of {most}, selection {charged['selection']} of {most}, counted at the engine"


_SPEND = "share the whole budget out over your draws: len(stages.train_problems) x stages.group"


def _drawn(subject: MethodSubject) -> dict[str, int]:
    """Rollouts that the engine drew while the method ran, by the split of their problem."""
    rollouts = subject.straight.watch.rollouts
    return {split: sum(rollouts[problem] for problem in ids) for split, ids in subject.splits.items()}


def held_out(subject: MethodSubject) -> str:
    """No test problem, and none that is not the run's, is drawn while the method runs."""
    drawn = _drawn(subject)
    other = sum(subject.straight.watch.rollouts.values()) - sum(drawn.values())
    seen = f"{drawn['test']} rollouts of test problems and {other} of unknown ones"
    demand(not drawn["test"] and not other, seen, remedy="learn from stages.train_problems, choose on selection ones")
    return "0 rollouts of test problems"


def files(subject: MethodSubject) -> str:
    """It writes no files of its own outside its folder."""
    ran = subject.straight
    root = ran.root.resolve()
    allowed = [root / name for name in (*SHARED, f"methods/{subject.name}")]
    for path in sorted({*ran.watch.written}):
        known = any(Path(path).is_relative_to(folder) for folder in allowed) or any(mark in path for mark in BY_ITSELF)
        demand(known, f"it touched {path}", remedy="hand results in as a contender; stages write what has to be kept")
    return f"{len({*ran.watch.written})} files and folders written, by stages"


def deterministic(subject: MethodSubject) -> str:
    """A second run gives the same row."""
    other = subject.run()
    _same_rows(
        subject.straight, other, "a second run", remedy="no clock, no chance but harness.seeds, no state between runs"
    )
    return f"{len(leaderboard.COLUMNS) - len(leaderboard.UNCOMPARED)} columns"


def _same_rows(one: Ran, other: Ran, how: str, *, remedy: str) -> None:
    different = list(_differences(one.row, other.row))
    demand(not different, f"{how} differs in {', '.join(different)}", remedy=remedy)


def _differences(one: Mapping[str, str], other: Mapping[str, str]) -> Iterator[str]:
    for column in leaderboard.COLUMNS:
        if column not in leaderboard.UNCOMPARED and one[column] != other[column]:
            yield f"{column} ({one[column] or 'empty'}, {other[column] or 'empty'})"


def resumed(subject: MethodSubject) -> str:
    """Stopped anywhere and resumed, it gives the row of an uninterrupted run."""
    calls = subject.straight.watch.calls
    if not calls:
        raise NotApplicable("it asks the engine for nothing")
    moments = sorted({(calls + 1) // 2, calls})
    for moment in moments:
        other = subject.run(stop_at=moment)
        how = f"stopped at engine call {moment} of {calls} and resumed, the row"
        _same_rows(subject.straight, other, how, remedy="run(stages) starts from the top: keep nothing outside stages")
    return f"stopped at engine calls {', '.join(map(str, moments))} of {calls}"


def dead_groups(subject: MethodSubject) -> str:
    """Where no group is live it ends in NoSignal or in a contender, never in another error."""
    ran = subject.run(hopeless=True)
    good = ran.row["status"].startswith(("ok", "no signal"))
    demand(good, f"status {ran.row['status']!r}", remedy=f"let {NoSignal.__name__} through")
    return f"status {ran.row['status']}"


_RUN = ("method.runs",)
RULES = (
    Rule("method.metadata", metadata),
    Rule("method.runs", runs, ("method.metadata",)),
    Rule("method.budget", budget, _RUN),
    Rule("method.held_out", held_out, _RUN),
    Rule("method.files", files, _RUN),
    Rule("method.deterministic", deterministic, _RUN),
    Rule("method.resumed", resumed, ("method.deterministic",)),
    Rule("method.dead_groups", dead_groups, _RUN),
)
