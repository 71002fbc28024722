"""Gains by subject of the test problems, for every method that changes anything.

Does: restrict test scores to one subject and compare with the base, paired by problem, over seeds.
Doesn't: show subjects of a few problems, or anything where fewer than two subjects are left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import leaderboard, store
from harness.report.levels import Table
from harness.report.results import Results
from harness.types import Score

FEWEST = 10  # problems of a subject below which its interval says nothing


def subjects_of(root: Path) -> dict[str, str]:
    """Subject of every test problem that has one, by problem id."""
    entries = (entry for entry in store.read_lines(root / "problems.jsonl") if entry["split"].startswith("test/"))
    return {e["problem"].id: e["problem"].subject for e in entries if e["problem"].subject}


def rows(found: Results) -> list[dict[str, Any]]:
    """One row per method and subject: problems, seeds, base_pass@1, pass@1, the gain with its interval."""
    subject_of, out = subjects_of(found.root), []
    met = Counter(subject_of.get(name) for name in found.finished["base", 0].evaluation.sampled.problem_ids)
    shown = sorted(name for name, count in met.items() if name is not None and count >= FEWEST)
    for method in found.methods if len(shown) > 1 else ():
        pairs = _pairs(found, method)
        if all(base == own for base, own in pairs):
            continue
        for subject in shown:
            own = [(_only(base, subject_of, subject), _only(score, subject_of, subject)) for base, score in pairs]
            gain = leaderboard.comparison(own)
            out.append(
                {
                    "method": found.label(method), "subject": subject, "problems": met[subject], "seeds": len(pairs),
                    "base_pass@1": sum(base.accuracy for base, _ in own) / len(own),
                    "pass@1": sum(score.accuracy for _, score in own) / len(own),
                    "delta": gain.delta, "ci_low": gain.ci_low, "ci_high": gain.ci_high,
                }
            )  # fmt: skip
    return out


def _pairs(found: Results, method: str) -> list[tuple[Score, Score]]:
    """(base, method) of each seed."""
    finished, seeds = found.finished, found.seeds_of(method)
    return [(finished["base", s].evaluation.sampled, finished[method, s].evaluation.sampled) for s in seeds]


def _only(score: Score, subject_of: Mapping[str, str], subject: str) -> Score:
    kept = [place for place, name in enumerate(score.problem_ids) if subject_of.get(name) == subject]
    return replace(
        score,
        problem_ids=tuple(score.problem_ids[place] for place in kept),
        n=tuple(score.n[place] for place in kept),
        correct=tuple(score.correct[place] for place in kept),
        correct_free=tuple(score.correct_free[place] for place in kept),
    )


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Subjects down, methods across."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines = []
    for first in (row for row in rows if row["method"] == methods[0]):
        own = [row for row in rows if row["subject"] == first["subject"]]
        gains = [f"{r['delta']:+.3f} [{r['ci_low']:+.3f}, {r['ci_high']:+.3f}]" for r in own]
        lines.append([f"{first['subject']} ({first['problems']})", f"{first['base_pass@1']:.3f}", *gains])
    return Table(["subject", "base", *methods], lines)


def markdown(found: Results) -> str:
    return table(rows(found)).markdown("**Gains by subject** [95 % interval]")
