"""Commands for those who write plugins: check one by the conformance kit, start one from a working package.

Does: look names up, print one line per rule, write a folder; exit code 1 when a rule is broken, or when so many were
skipped that nothing can be said.
Doesn't: hold rules (harness/testing) or templates (harness/templates). Imports neither before a command needs it.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from harness.testing import Finding

COLOURS = {"passed": "green", "failed": "red", "skipped": "yellow"}
KINDS = ("domain", "method", "engine")


@click.command()
@click.argument("name", default="", metavar="NAME")
@click.pass_context
def check(ctx: click.Context, name: str) -> None:
    """Check a domain, engine or method by every rule that runs rely on.

    One line per rule: passed, failed (with what was seen and what to do) or skipped (with the reason). No network is
    used. Exit code 1 where a rule failed or more were skipped than passed. As tests: pytest -p harness.testing
    --harness-check NAME.
    """
    from harness import config, plugins, testing

    config.forbid_network()
    found = plugins.load()
    if not name:
        known = ", ".join(sorted({known for _, known in found.registered}))
        raise click.UsageError(f"give the NAME of what to check: {known}", ctx)
    counts: Counter[testing.Status] = Counter()
    for registration in testing.registrations(name, found):
        click.echo(f"{registration.kind} {name} of {registration.distribution} {registration.version}")
        for finding in testing.check(registration, found):
            _print(finding)
            counts[finding.status] += 1
    click.echo(", ".join(f"{counts[status]} {status.value}" for status in testing.Status))
    if few := counts[testing.Status.SKIPPED] > counts[testing.Status.PASSED]:
        click.echo(
            f"More rules were skipped than passed, so little is known of {name}. The first reasons above say why."
        )
    if few or counts[testing.Status.FAILED]:
        ctx.exit(1)


def _print(finding: Finding) -> None:
    first, *more = finding.note.splitlines() or [""]
    status = click.style(f"{finding.status.value:7}", fg=COLOURS[finding.status.value])
    click.echo(f"  {status} {finding.rule:22} {finding.seconds:6.2f} s  {first}")
    for line in more:
        click.echo(textwrap.indent(line, " " * 12))
    if finding.remedy:
        click.echo(f"{' ' * 12}what to do: {finding.remedy}")


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
def new(kind: str, name: str) -> None:
    """Start a plugin: an installable package with a passing test in ./harness-NAME."""
    from harness import scaffold

    folder = scaffold.create(kind, name)
    click.echo(f"{folder}: a working {kind}, its tests and a README. Next:")
    click.echo(f"  pip install --no-deps --no-build-isolation -e {folder}\n  harness check {name}")
    click.echo(f"What to change: {folder}/harness_{name}/{kind}.py. Tests: python -m pytest {folder}")
