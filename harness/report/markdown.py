"""A run, or several side by side, as Markdown for a pull request.

Does: verdict, table, paired differences, break-even, cost, and the figures by their path relative to the current folder.
Doesn't: draw (html.py writes the figures).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import console, leaderboard
from harness.passrates import losing, signals
from harness.report import break_evens, comparing, costs, grids, levels, results, summary, tables
from harness.report.results import FOCUS, Results

FIGURES = ("gains", "gain_by_pass_rate", "break_even", "line_search")


def of_run(found: Results) -> str:
    row = found.manifest["row"]
    broken, signal, lost = break_evens.rows(found), signals.rows(found), losing.split(found)
    said = "\n".join(f"- {grids.plain(line)}" for line in summary.sentences(found, broken, signal, lost))
    parts = [f"## {grids.plain(row['domain'])} / {grids.plain(', '.join(found.manifest['tests']))}"]
    if found.missing:
        parts.append(
            f"**Not finished**: {len(found.missing)} results are missing. To go on: `harness resume {found.root}`"
        )
    parts += [f"**{grids.plain(results.verdict(found))}**", said]
    parts += [
        f"**{grids.plain(title)}**\n\n{tables.markdown(group)}" for title, group in leaderboard.ranked(found.aggregate)
    ]
    parts += [_pairs(found), _break_even(broken), levels.markdown(found), _costs(found), *_figures(found.root)]
    parts.append(f"Run {row['run_id']}, commit {row['commit'] or 'of an installed package'}: `{row['command']}`")
    return "\n\n".join(part for part in parts if part) + "\n"


def of_runs(runs: Sequence[Results]) -> str:
    """A line for each run, break-even across them, then each by itself."""
    named = comparing.named(runs)
    parts = [_table(f"## {len(named)} runs side by side", comparing.HEAD, comparing.lines(named))]
    if across := comparing.across_rows(named):
        head = ("method", "domain", "runs", "break-even", "95 % interval", "in words")
        parts.append(_table("**Break-even across runs** (pass rate of the training batch)", head, across))
    return "\n\n".join([*parts, *(of_run(run.found) for run in named)])


def _table(title: str, head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    return levels.Table(list(head), [list(map(str, line)) for line in lines]).markdown(title)


def _pairs(found: Results) -> str:
    lines = [
        [p["other"], grids.spread(p["delta"], p["ci_low"], p["ci_high"]), console.number(p["p_value"], 4)]
        for p in found.pairs
    ]
    return _table("**Paired differences** on the same problems", (f"{FOCUS} minus", "pass@1 [95 %]", "p"), lines)


def _break_even(broken: Sequence[break_evens.Found]) -> str:
    lines = [[one.method, one.margin.what, *break_evens.cells(one.at)] for one in broken]
    return _table("**Break-even** (base pass rate of a test problem)", break_evens.HEAD, lines)


def _costs(found: Results) -> str:
    lines = [[leaderboard.label(r), *(console.number(r[c] or 0, 0) for c in costs.COLUMNS)] for r in costs.first(found)]
    return _table("**Cost** (mean over seeds)", ("method", *costs.COLUMNS), lines)


def _figures(root: Path) -> list[str]:
    paths = [root / f"figures/{name}.png" for name in FIGURES]
    return [f"![{path.stem}]({Path(os.path.relpath(path)).as_posix()})" for path in paths if path.exists()]
