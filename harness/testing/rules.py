"""Rules of the conformance kit: what one is, and how one is judged.

Does: run rules in order on one plugin; turn whatever a plugin does, an exception included, into a finding that names
the rule, what was seen and what to do.
Doesn't: know what any rule demands (domain_rules.py, engine_rules.py, method_rules.py).

A rule whose prerequisite did not hold is skipped and says so: one mistake should not be reported under six names.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.plugins import Registration

SHOWN_CHARS = 60


class Status(StrEnum):
    """How a rule ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


class Finding(NamedTuple):
    """What one rule found. `note` says what was looked at, what was seen, or why it was skipped; `remedy` what to do."""

    rule: str
    status: Status
    note: str
    remedy: str = ""
    seconds: float = 0.0


class RuleBroken(Exception):
    """The plugin breaks the rule: what was seen, and what its author should do."""

    def __init__(self, seen: str, remedy: str) -> None:
        super().__init__(seen)
        self.seen, self.remedy = seen, remedy


class NotApplicable(Exception):
    """The rule has nothing to look at here; the text says why."""


class Rule(NamedTuple):
    """`test` looks at a subject and returns a note, or raises RuleBroken or NotApplicable. Its docstring is the promise.

    It is judged where all of `needs` passed and none of `unless` failed.
    """

    name: str
    test: Callable[[Any], str]
    needs: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()

    @property
    def promise(self) -> str:
        return (self.test.__doc__ or "").strip().partition("\n")[0]


def demand(holds: bool, seen: str, *, remedy: str) -> None:
    """Raise RuleBroken unless `holds`."""
    if not holds:
        raise RuleBroken(seen, remedy)


def loaded(registration: Registration) -> Any:
    """What is registered. Raises RuleBroken when it cannot be imported."""
    try:
        return registration.load()
    except HarnessError as error:
        remedy = f'the registered target is "{registration.target}": a module that can be imported, and a name in it'
        raise RuleBroken(str(error), remedy) from error


def findings(rules: Sequence[Rule], subject: Any) -> Iterator[Finding]:
    """One finding per rule, in order, as each is judged."""
    known: dict[str, Status] = {}
    for rule in rules:
        missing = [name for name in rule.needs if known.get(name) is not Status.PASSED]
        missing += [name for name in rule.unless if known.get(name) is Status.FAILED]
        if missing:
            found = Finding(rule.name, Status.SKIPPED, f"needs {', '.join(missing)}")
        else:
            found = _judge(rule, subject)
        known[rule.name] = found.status
        yield found


def _judge(rule: Rule, subject: Any) -> Finding:
    started = time.monotonic()
    remedy = ""
    try:
        status, note = Status.PASSED, rule.test(subject)
    except NotApplicable as reason:
        status, note = Status.SKIPPED, str(reason)
    except RuleBroken as broken:
        status, note, remedy = Status.FAILED, broken.seen, broken.remedy
    except Exception as error:  # noqa: BLE001 - the border: whatever a plugin raises is a finding about it
        status, note = Status.FAILED, f"{type(error).__name__}: {error} ({_place(error)})"
        remedy = f"do not raise here. The rule: {rule.promise}"
    return Finding(rule.name, status, note, remedy, time.monotonic() - started)


def _place(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename}:{last.lineno}, in {last.name}"


def shown(value: object) -> str:
    """A value as a finding shows it: on one line, cut where it is long."""
    text = value if isinstance(value, str) else repr(value)
    short = repr(text[:SHOWN_CHARS]) if isinstance(value, str) else text[:SHOWN_CHARS]
    return short if len(text) <= SHOWN_CHARS else f"{short}... ({len(text)} characters)"
