"""What a finished suite prints: gains by run and method, contrasts along its axes, densities of good perturbations.

Does: read the run folders of a suite; write its figure, where its file asks for one.
Doesn't: rank: the runs of a grid answer different questions, often on different data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness import console, leaderboard
from harness.report import contrasts, density, frontier, low_rates, low_rates_chart, results
from harness.report.results import Results
from harness.suiting import Point, Suite

HEAD = ("method", "base pass@1", "pass@1", "gain over base [95 %]", "status")


def show(suite: Suite, root: Path) -> None:
    """Print the gains; contrasts where an axis allows them, densities where a method probed perturbations."""
    screen = Console(markup=False, width=None if Console().is_terminal else 160)
    axes = list(suite.points[0].axes)
    gains = _table(f"suite {suite.name}", [*axes, *HEAD])
    probes = _table(
        f"density of good perturbations: share at least {density.HEADLINE:.2f} above the base, and below it",
        [*axes, "method", "sigma", "perturbations", "base", "best", "above", "below"],
    )
    loaded = [(point, results.load(root / point.name)) for point in suite.points]
    runs = [(point.axes, found) for point, found in loaded]
    for own, found in runs:
        _add_gains(gains, list(own.values()), found)
        _add_densities(probes, list(own.values()), found)
    screen.print(gains)
    paired = _contrasts(runs)
    if paired.row_count:
        screen.print(paired)
    if probes.row_count:
        screen.print(probes)
        screen.print(
            "greedy, on training problems; the sigma with the largest share above. Both shares alike: no more than noise."
        )
    if suite.figure == low_rates.ALONG:
        _show_low_rates(screen, loaded, root)
    elif suite.figure:
        drawn = frontier.write(loaded, root, suite.figure)
        screen.print(f"figure  {drawn or 'none: no method here updates the model'}", soft_wrap=True, highlight=False)


def _show_low_rates(screen: Console, runs: Sequence[tuple[Point, Results]], root: Path) -> None:
    found = low_rates.rows(runs)
    if not found:
        screen.print(f"figure  none: {results.FOCUS} did not run")
        return
    for domain, (head, lines) in low_rates.tables(found).items():
        shown = _table(f"where low base pass rates break one_shot: {domain}", head)
        for line in lines:
            shown.add_row(*line)
        screen.print(shown)
    for name, crossed in low_rates.break_evens(runs).items():
        screen.print(f"{name}: {crossed.words}", highlight=False)
    for sentence in low_rates.sentences(found):
        screen.print(sentence, highlight=False)
    screen.print(f"figure  {low_rates_chart.write(found, root)}", soft_wrap=True, highlight=False)


def _table(title: str, head: list[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in head:
        table.add_column(name, overflow="fold")
    return table


def _add_gains(table: Table, labels: list[str], found: Results) -> None:
    for row in found.aggregate:
        status = "" if row["status"] == "ok" else str(row["status"])
        scores = (console.number(row["base_pass@1"]), console.number(row["pass@1"]), console.gain(row))
        table.add_row(*labels, leaderboard.label(row), *scores, status)


def _contrasts(runs: list[tuple[Mapping[str, str], Results]]) -> Table:
    table = _table(
        f"{results.FOCUS} at two values of an axis, paired by problem", ["", "contrast", "pass@1 [95 %]", "p"]
    )
    for c in contrasts.contrasts(runs):
        d, others = c.difference, " ".join(c.others.values())
        interval = f"{d.delta:+.3f} [{d.ci_low:+.3f}, {d.ci_high:+.3f}]"
        table.add_row(others, f"{c.axis} {c.last} - {c.first}", interval, console.number(d.p_value, 4))
    return table


def _add_densities(table: Table, labels: list[str], found: Results) -> None:
    """One line per method: the sigma with the most perturbations above the margin, and as many below as it has."""
    index = density.MARGINS.index(density.HEADLINE)
    for method in found.methods:
        every = density.densities(found.probes_of(method))
        if every:
            d = density.densest(every)
            values = (d.base, d.best, d.above[index], d.below[index])
            table.add_row(*labels, method, f"{d.sigma:g}", str(d.perturbations), *map(console.number, values))
