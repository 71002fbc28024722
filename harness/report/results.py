"""Read a finished run folder back: rows, scores, searches, and the paired differences between methods.

Does: load; compare the method under test with every other method on the same problems.
Doesn't: recompute anything that the run already decided.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import leaderboard, stats, store
from harness.leaderboard import Row
from harness.pipeline import Finished

FOCUS = "one_shot"  # the method under test: every other one is compared with it


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything a report shows of one run. `finished` is keyed by (method, seed)."""

    root: Path
    manifest: dict[str, Any]
    rows: list[Row]
    finished: dict[tuple[str, int], Finished]

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(method for method, _ in self.finished))

    @property
    def aggregate(self) -> list[Row]:
        return [row for row in self.rows if row["seed"] == "all"]

    def seeds_of(self, method: str) -> list[int]:
        return sorted(seed for name, seed in self.finished if name == method)


def load(root: Path) -> Results:
    manifest = store.read_json(root / "manifest.json")
    rows = leaderboard.read_csv(root / "leaderboard.csv")
    finished = {}
    for row in rows:
        if row["seed"] != "all":
            path = root / f"methods/{row['method']}/{row['seed']}/scores.json"
            finished[row["method"], int(row["seed"])] = store.read_json(path)
    return Results(root=root, manifest=manifest, rows=rows, finished=finished)


def pairs(results: Results, focus: str = FOCUS) -> list[dict[str, Any]]:
    """`focus` minus every other method: paired by problem, combined over seeds. Empty when `focus` did not run."""
    found = []
    for other in results.methods:
        if other != focus and focus in results.methods:
            difference = _difference(results, focus, other)
            if difference is not None:
                found.append({"method": focus, "other": other, **difference})
    return found


def _difference(results: Results, focus: str, other: str) -> dict[str, float] | None:
    rates = []
    for seed in results.seeds_of(focus):
        ours, theirs = results.finished[focus, seed].evaluation, results.finished[other, seed].evaluation
        if ours is None or theirs is None:
            return None
        rates.append(leaderboard.paired_rates(theirs.sampled, ours.sampled))
    if len(rates) == 1:
        interval = stats.paired_bootstrap(*rates[0], seed=0)
        p_value = stats.sign_flip_p(*rates[0], seed=0)
        return {"delta": interval.delta, "ci_low": interval.low, "ci_high": interval.high, "p_value": p_value}
    ses = [stats.clustered_se(ours - theirs) for theirs, ours in rates]
    combined = stats.combine_seeds([float((o - t).mean()) for t, o in rates], ses, problems=len(rates[0][0]))
    p_value = leaderboard.pooled_p(rates)
    return {"delta": combined.delta, "ci_low": combined.low, "ci_high": combined.high, "p_value": p_value}


def verdict(results: Results) -> str:
    """One plain sentence: did the method under test beat the base and its controls?"""
    own = [row for row in results.aggregate if row["method"] == FOCUS]
    if not own or own[0]["delta"] in ("", None):
        reason = own[0]["status"] if own else "it did not run"
        return f"{FOCUS} has no score: {reason}."
    row = own[0]
    low, high = float(row["ci_low"]), float(row["ci_high"])
    word = "raises" if low > 0 else "lowers" if high < 0 else "does not measurably change"
    text = (
        f"One gradient step {word} pass@1 on {row['domain']} / {row['test_benchmark']}: "
        f"{float(row['base_pass@1']):.3f} to {float(row['pass@1']):.3f} "
        f"({float(row['delta']):+.3f}, 95 % interval {low:+.3f} to {high:+.3f})."
    )
    unbeaten = [p["other"] for p in pairs(results) if p["ci_low"] <= 0 and p["other"] != "base"]
    return text + (f" It is not clearly ahead of: {', '.join(unbeaten)}." if unbeaten else "")
