"""Leaderboard rows as a rich table, Markdown or CSV on standard output, and what else a finished run prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from harness import console, leaderboard
from harness.leaderboard import Row
from harness.report import grids, levels, results, saturation, subjects, wording

MARKDOWN = ("method", "pass@1", "gain over base", "p", "greedy", "pass@16", "format", "format_free", "KL", "train",
            "train + selection")  # fmt: skip


def show(rows: Sequence[Row], form: str) -> None:
    """Print the aggregate rows, one table for each test set (csv: all rows as they are)."""
    screen = Console(markup=False, width=None if Console().is_terminal else 160)
    if form == "csv":
        print(leaderboard.to_csv(rows), end="")
        return
    for title, group in leaderboard.ranked(rows):
        if form == "md":
            print(f"**{title}**\n\n{markdown(group)}\n")
        else:
            screen.print(console.table(title, group))
    if form == "table":
        screen.print("= tied with the first: the intervals of their gains overlap")


def markdown(group: Sequence[Row]) -> str:
    lines = ["| " + " | ".join(MARKDOWN) + " |", "|" + " --- |" * len(MARKDOWN)]
    lines += ["| " + " | ".join(map(grids.plain, cells(row))) + " |" for row in group]
    return "\n".join(lines)


def cells(row: Row) -> list[str]:
    """The columns of MARKDOWN for one row."""
    number = console.number
    return [
        leaderboard.label(row), number(row["pass@1"]), console.gain(row), number(row["p_value"], 4), number(row["greedy"]),
        number(row["pass@16"]), number(row["format"]), number(row["format_free"]), number(row["kl"]),
        number(row["train_rollouts"], 0), console.total_rollouts(row),
    ]  # fmt: skip


def show_pairs(root: Path) -> None:
    """Paired differences, and as Markdown what there is by level, by subject, after saturation and of words."""
    found = results.load(root)
    pairs = found.pairs
    if pairs:
        Console(markup=False, width=None if Console().is_terminal else 160).print(console.pairs_table(pairs))
    for section in (levels, subjects, saturation, wording):
        if text := section.markdown(found):
            print(f"\n{text}")
