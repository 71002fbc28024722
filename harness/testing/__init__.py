"""The conformance kit: what a plugin must do so that runs, statistics and reports can rely on it.

Does: check a registered domain, engine or method rule by rule, on the command line (`harness check NAME`), from
Python (`check`) and as a pytest plugin (`pytest -p harness.testing --harness-check NAME`: one test per rule).
Doesn't: use a network, a hub or a large model.

A domain is tried on every benchmark that can be drawn here, an engine on the model it takes for "tiny", a method in
small runs of the tabular engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.errors import UnknownName
from harness.testing.rules import Finding, Rule, Status, findings

if TYPE_CHECKING:
    import pytest

    from harness.plugins import Plugins, Registration

__all__ = ["Finding", "Status", "check", "registrations", "rules_of"]


class Kit(NamedTuple):
    """The rules of one kind of plugin, and what makes the subject they look at."""

    rules: Sequence[Rule]
    subject: Callable[[Registration, Plugins], Any]


def _domain() -> Kit:
    from harness.testing.domain_rules import RULES
    from harness.testing.domain_subject import DomainSubject

    return Kit(RULES, lambda registration, _: DomainSubject(registration))


def _engine() -> Kit:
    from harness.testing.engine_rules import RULES
    from harness.testing.engine_subject import EngineSubject

    return Kit(RULES, EngineSubject)


def _method() -> Kit:
    from harness.testing.method_rules import RULES
    from harness.testing.method_subject import MethodSubject

    return Kit(RULES, MethodSubject)


KITS: Mapping[str, Callable[[], Kit]] = {"domain": _domain, "engine": _engine, "method": _method}


def registrations(name: str, plugins: Plugins) -> list[Registration]:
    """What is registered under a name: one plugin, or several of different kinds. Raises UnknownName with the nearest."""
    found = [plugins.registered[kind, name] for kind in KITS if (kind, name) in plugins.registered]
    if not found:
        ill = "".join(f" Installed but broken: {b.distribution} {b.version} ({b.error})." for b in plugins.broken)
        known = {known for _, known in plugins.registered}
        raise UnknownName("domain, engine or method", name, known, hint=f"See: harness plugins.{ill}")
    return found


def rules_of(registration: Registration) -> list[str]:
    """The names of the rules for this kind of plugin, in the order in which they are judged."""
    return [rule.name for rule in KITS[registration.kind]().rules]


def check(registration: Registration, plugins: Plugins) -> Iterator[Finding]:
    """One finding per rule, each as soon as it is known. Nothing the plugin does raises."""
    kit = KITS[registration.kind]()
    with closing(kit.subject(registration, plugins)) as subject:
        yield from findings(kit.rules, subject)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("harness").addoption(
        "--harness-check",
        action="append",
        default=[],
        metavar="NAME",
        help="check a registered domain, engine or method by the conformance kit, one test per rule; repeatable",
    )


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    if wanted := config.getoption("--harness-check"):
        from harness.testing.items import items_of

        items.extend(items_of(session, wanted))
