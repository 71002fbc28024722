"""The conformance kit in pytest: one test item per rule.

Does: collect the rules of the plugins named by `--harness-check`, run a plugin's rules once, in order, on demand.
Doesn't: judge (harness.testing does).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from harness import config, plugins, testing
from harness.errors import UsageError
from harness.plugins import Plugins, Registration
from harness.testing.rules import Finding, Status


def items_of(session: pytest.Session, names: Sequence[str]) -> Iterator[RuleItem]:
    """Raises pytest.UsageError for a name that is not registered."""
    config.forbid_network()
    found = plugins.load()
    for name in names:
        try:
            registrations = testing.registrations(name, found)
        except UsageError as error:
            raise pytest.UsageError(str(error)) from error
        for registration in registrations:
            checked = Checked(registration, found)
            for rule in testing.rules_of(registration):
                place = f"harness-check::{name}::{rule}"
                yield RuleItem.from_parent(session, name=rule, nodeid=place, checked=checked, rule=rule)


class Checked:
    """One plugin under check; a rule that is asked for is judged together with those before it."""

    def __init__(self, registration: Registration, found: Plugins) -> None:
        self._findings = testing.check(registration, found)
        self._known: dict[str, Finding] = {}

    def finding(self, rule: str) -> Finding:
        while rule not in self._known:
            found = next(self._findings)
            self._known[found.rule] = found
        return self._known[rule]


class RuleFailed(Exception):
    """Carries the finding to the report."""


class RuleItem(pytest.Item):
    """A rule as a test."""

    def __init__(self, *, checked: Checked, rule: str, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._checked, self._rule = checked, rule

    def runtest(self) -> None:
        found = self._checked.finding(self._rule)
        if found.status is Status.SKIPPED:
            pytest.skip(found.note)
        if found.status is Status.FAILED:
            raise RuleFailed(f"{found.rule}: {found.note}\nWhat to do: {found.remedy}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        return str(excinfo.value) if isinstance(excinfo.value, RuleFailed) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[str, int | None, str]:
        return "harness-check", None, self.nodeid
