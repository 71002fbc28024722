"""The conformance kit: every built-in passes, and each rule names the plugin that breaks it, alone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import broken_domains
import broken_engines
import broken_methods
import pytest
from click.testing import CliRunner

from harness import authoring, plugins, testing
from harness.cli import Friendly
from harness.errors import UnknownName
from harness.plugins import Broken, Plugins, Registration
from harness.testing import probing, rules
from harness.testing.rules import Finding, NotApplicable, Rule, RuleBroken, Status
from harness.testing.watching import StandIn
from harness.types import Outcome, Problem, Verdict

DATA = Path(__file__).parents[2] / "shared" / "data"
FOUND = plugins.load({})
BUILT_IN = [
    (kind, name)
    for kind, name in sorted(FOUND.registered)
    if FOUND.registered[kind, name].distribution == plugins.OWN
    and name not in ("ray", "ray-vllm", "vllm")  # their own tests, where they are
]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if DATA.is_dir():
        monkeypatch.setenv("HARNESS_DATA", str(DATA))


def failed(findings: Iterator[Finding]) -> dict[str, str]:
    return {found.rule: f"{found.note}; {found.remedy}" for found in findings if found.status is Status.FAILED}


@pytest.mark.parametrize(("kind", "name"), BUILT_IN, ids=lambda value: value)
def test_every_built_in_passes(kind: str, name: str) -> None:
    findings = list(testing.check(FOUND.registered[kind, name], FOUND))
    assert failed(iter(findings)) == {}
    assert sum(found.status is Status.PASSED for found in findings) >= 7
    assert [found.rule for found in findings] == testing.rules_of(FOUND.registered[kind, name])


def test_a_domain_is_checked_in_seconds() -> None:
    """20 s is the promise on one core; the ladders take 1 to 6, and a busy machine may need several times that."""
    findings = testing.check(FOUND.registered["domain", "tabular"], FOUND)
    assert sum(found.seconds for found in findings) < 20


def registration(kind: str, *, target: str = "", made: object = None) -> Registration:
    facts = {"kind": kind, "name": "placeholder", "summary": "", "distribution": "test", "version": "1"}
    return Registration(target=target, **facts) if target else StandIn(target="", made=made, **facts)


@pytest.mark.parametrize("kind", broken_domains.BROKEN, ids=lambda kind: f"{kind.breaks}-{kind.__name__}")
def test_a_broken_domain_is_caught_by_name(kind: type) -> None:
    findings = list(testing.check(registration("domain", target=f"broken_domains:{kind.__name__}"), FOUND))
    assert list(failed(iter(findings))) == [kind.breaks]


@pytest.mark.parametrize("kind", broken_engines.BROKEN, ids=lambda kind: f"{kind.breaks}-{kind.__name__}")
def test_a_broken_engine_is_caught_by_name(kind: type) -> None:
    assert list(failed(testing.check(registration("engine", made=kind), FOUND))) == [kind.breaks]


@pytest.mark.parametrize("kind", broken_methods.BROKEN, ids=lambda kind: f"{kind.breaks}-{kind.__name__}")
def test_a_broken_method_is_caught_by_name(kind: type) -> None:
    kind = type(kind.__name__, (kind,), {})  # with class state of its own
    assert list(failed(testing.check(registration("method", made=kind), FOUND))) == [kind.breaks]


@pytest.mark.parametrize(
    ("kind", "broken"),
    [("domain", broken_domains), ("engine", broken_engines), ("method", broken_methods)],
    ids=["domain", "engine", "method"],
)
def test_every_rule_has_a_plugin_that_breaks_it(kind: str, broken: SimpleNamespace) -> None:
    assert {each.breaks for each in broken.BROKEN} == set(testing.rules_of(registration(kind, target="x:y")))


def test_a_domain_that_cannot_be_imported_is_a_finding() -> None:
    (first, *rest) = testing.check(registration("domain", target="no_such_module:Domain"), FOUND)
    assert (first.rule, first.status) == ("domain.metadata", Status.FAILED)
    assert "no_such_module" in first.note
    assert "no_such_module:Domain" in first.remedy
    assert {found.status for found in rest} == {Status.SKIPPED}


class WithoutData(broken_domains.Placeholder):
    """What a domain of public sets is where none of them can be had."""

    def problems(self, benchmark: str, split: str, **options: Any) -> Iterator[Problem]:
        if benchmark == "ladder":
            raise UnknownName("data set", "far.jsonl", ["near.jsonl"])
        return super().problems(benchmark, split, **options)


class WithoutDataAndRows(WithoutData):
    def rows(self) -> Iterator[Mapping[str, Any]]:
        return iter(())


class AnyNumberWithoutData(WithoutData, broken_domains.Judging):
    def change(self, verdict: Verdict, problem: Problem, completion: str) -> Verdict:
        return replace(verdict, outcome=Outcome.CORRECT) if verdict.extracted else verdict


class SaysNothing(broken_domains.Placeholder):
    def verify(self, problem: Problem, completion: str) -> Verdict:
        time.sleep(60)
        raise AssertionError


class Raises(broken_domains.Placeholder):
    def verify(self, problem: Problem, completion: str) -> Verdict:
        raise KeyError("claim")


def checked(kind: type) -> list[Finding]:
    return list(testing.check(registration("domain", target=f"test_testing:{kind.__name__}"), FOUND))


def test_where_no_benchmark_is_there_verdicts_are_checked_on_rows() -> None:
    findings = checked(WithoutData)
    assert failed(iter(findings)) == {}
    skipped = {found.rule.removeprefix("domain.") for found in findings if found.status is Status.SKIPPED}
    assert skipped == {"draw", "problems", "ids", "splits", "repeatable", "lenient"}
    assert "made from rows() instead: 1" in next(found.note for found in findings if found.rule == "domain.draw")
    assert "domain.near_miss" in failed(iter(checked(AnyNumberWithoutData)))


def test_a_plugin_of_which_little_can_be_checked_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Plugins()
    found.registered = {("domain", "placeholder"): registration("domain", target="test_testing:WithoutDataAndRows")}
    code, output = invoke("check", "placeholder", found=found, monkeypatch=monkeypatch)
    assert code == 1
    assert "3 passed, 0 failed, 18 skipped\nMore rules were skipped than passed" in output


@pytest.mark.parametrize(
    ("kind", "said"),
    [(SaysNothing, "no verdict within 1 s"), (Raises, "KeyError: 'claim'; File \"" + __file__)],
    ids=["hangs", "raises"],
)
def test_a_verifier_without_verdicts_is_told_apart(kind: type, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "SECONDS", 1.0 if kind is SaysNothing else probing.SECONDS)
    assert said in failed(iter(checked(kind)))["domain.verdict"]


def test_benchmarks_that_are_not_there_are_listed_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    class Half(broken_domains.Placeholder):
        def benchmarks(self):  # type: ignore[no-untyped-def]
            (ladder,) = super().benchmarks()
            return (ladder, ladder._replace(name="far away"))

        def problems(self, benchmark, split, **options):  # type: ignore[no-untyped-def]
            if benchmark == "far away":
                raise (
                    plugins.HarnessError("x") if split == "x" else UnknownName("data set", "far.jsonl", ["near.jsonl"])
                )
            return super().problems(benchmark, split, **options)

    monkeypatch.setattr(broken_domains, "Half", Half, raising=False)
    found = next(
        f for f in testing.check(registration("domain", target="broken_domains:Half"), FOUND) if f.rule == "domain.draw"
    )
    assert found.status is Status.PASSED
    assert 'far away skipped: no data set "far.jsonl"' in found.note


def test_findings_carry_what_was_seen_and_what_to_do() -> None:
    def holds(_: object) -> str:
        """It holds."""
        return "looked at 3"

    def broken(_: object) -> str:
        raise RuleBroken("seen", "do this")

    def absent(_: object) -> str:
        raise NotApplicable("nothing to look at")

    def stumbles(_: object) -> str:
        """It does not stumble."""
        raise KeyError("field")

    table = (
        Rule("a", holds),
        Rule("b", broken, ("a",)),
        Rule("c", holds, ("a", "b")),
        Rule("d", absent),
        Rule("e", stumbles),
    )
    found = [finding._replace(seconds=0.0) for finding in rules.findings(table, None)]
    assert found[:4] == [
        Finding("a", Status.PASSED, "looked at 3"),
        Finding("b", Status.FAILED, "seen", "do this"),
        Finding("c", Status.SKIPPED, "needs b"),
        Finding("d", Status.SKIPPED, "nothing to look at"),
    ]
    assert "KeyError: 'field'" in found[4].note
    assert "in stumbles" in found[4].note
    assert "It does not stumble." in found[4].remedy


def test_names_are_looked_up_among_all_kinds_with_suggestions() -> None:
    assert [r.kind for r in testing.registrations("tabular", FOUND)] == ["domain", "engine"]
    ill = Plugins()
    ill.registered = FOUND.registered
    ill.broken.append(Broken(name="x", distribution="acme", version="2", error="ImportError: no gpu"))
    with pytest.raises(UnknownName, match=r'did you mean "math"\?.*broken: acme 2 \(ImportError: no gpu\)'):
        testing.registrations("maths", ill)


def invoke(*arguments: str, found: Plugins, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    monkeypatch.setattr(plugins, "load", lambda: found)
    group = Friendly("harness", commands={"check": authoring.check})
    result = CliRunner().invoke(group, list(arguments))
    return result.exit_code, result.output


def test_the_command_prints_one_line_per_rule_and_ends_in_1_for_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Plugins()
    found.registered = {("domain", "placeholder"): registration("domain", target="broken_domains:NearlyWillDo")}
    code, output = invoke("check", "placeholder", found=found, monkeypatch=monkeypatch)
    assert code == 1
    for rule in testing.rules_of(found.registered["domain", "placeholder"]):
        assert output.count(f" {rule} ") == 1, output
    (line,) = [line for line in output.splitlines() if line.startswith("  failed")]
    assert "domain.near_miss" in line
    assert "is correct, expected wrong" in line
    assert "what to do: a reward for this teaches cheating" in output
    assert "20 passed, 1 failed, 0 skipped" in output


def test_the_command_ends_in_0_without_failures_and_in_2_for_a_wrong_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert invoke("check", "base", found=FOUND, monkeypatch=monkeypatch)[0] == 0
    code, output = invoke("check", "bse", found=FOUND, monkeypatch=monkeypatch)
    assert code == 2
    assert 'did you mean "base"?' in output
    code, output = invoke("check", found=FOUND, monkeypatch=monkeypatch)
    assert code == 2
    assert "what to check: ai2_arc, arc, base" in " ".join(output.split())


def test_rules_are_items_of_pytest(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "harness.testing", "--harness-check", "tabular", "-v", "-rs", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "harness-check::tabular::domain::near_miss PASSED" in done.stdout
    assert "harness-check::tabular::engine::gradient PASSED" in done.stdout
    assert "no read(row)" in done.stdout
