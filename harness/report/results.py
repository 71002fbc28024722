"""Read a run folder back: rows, scores, searches, and the paired differences between methods.

Does: load, of an interrupted run what is finished; compare the method under test with every other one on the same problems.
Doesn't: recompute anything that the run already decided.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import leaderboard, pipeline, provenance, store
from harness.contracts import Displacement
from harness.errors import UsageError
from harness.leaderboard import Row
from harness.pipeline import Finished
from harness.report import charts
from harness.types import Problem, Search

FOCUS = "one_shot"  # the method under test: every other one is compared with it
LISTED = 8  # names in one sentence
STANDARD = "grpo"  # what it is meant to replace


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything a report shows of one run. `finished` and `probes` are keyed by (method, seed); `missing` are the pairs
    that an interrupted run has yet to do."""

    root: Path
    manifest: dict[str, Any]
    rows: list[Row]
    finished: dict[tuple[str, int], Finished]
    probes: dict[tuple[str, int], Search]
    missing: tuple[tuple[str, int], ...] = ()

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(method for method, _ in self.finished))

    @property
    def colors(self) -> dict[str, str]:
        """Of every method, by its label: the same one in all figures and tables."""
        return charts.palette([self.label(method) for method in self.methods])

    @property
    def aggregate(self) -> list[Row]:
        return [row for row in self.rows if row["seed"] == "all"]

    def label(self, method: str) -> str:
        """The method as tables name it."""
        return next(leaderboard.label(row) for row in self.aggregate if row["method"] == method)

    @functools.cached_property
    def pairs(self) -> list[dict[str, Any]]:
        """The method under test minus every other one."""
        return pairs(self)

    @functools.cached_property
    def tests(self) -> dict[str, list[Problem]]:
        """The problems of each test set, by its name, in their order."""
        sets: dict[str, list[Problem]] = {}
        for entry in store.read_lines(self.root / "problems.jsonl"):
            if entry["split"].startswith("test/"):
                sets.setdefault(entry["split"].removeprefix("test/"), []).append(entry["problem"])
        return sets

    def probes_of(self, method: str) -> list[Search]:
        """One for each seed in which the method probed perturbations."""
        return [probe for (name, _), probe in sorted(self.probes.items()) if name == method]

    def seeds_of(self, method: str) -> list[int]:
        return sorted(seed for name, seed in self.finished if name == method)


def load(root: Path) -> Results:
    """Raises UsageError where nothing is finished yet, with the way to go on."""
    if not (root / "manifest.json").exists():
        raise nothing(root)
    manifest, path = provenance.read(root), root / "leaderboard.csv"
    wanted = _wanted(manifest)
    if path.exists():
        rows = leaderboard.of_engine(path, manifest["row"]["engine"])
        wanted = list(dict.fromkeys((row["method"], int(row["seed"])) for row in rows if row["seed"] != "all"))
    found = {key: _folder(root, key) for key in wanted if (_folder(root, key) / "scores.json").exists()}
    if ("base", 0) not in found:
        raise nothing(root)
    finished = {key: store.read_json(folder / "scores.json", Finished) for key, folder in found.items()}
    probed = {key: folder / "probe.json" for key, folder in found.items() if (folder / "probe.json").exists()}
    return Results(
        root=root,
        manifest=manifest,
        rows=rows if path.exists() else _rows_so_far(manifest, finished),
        finished=finished,
        probes={key: store.read_json(path) for key, path in probed.items()},
        missing=tuple(key for key in wanted if key not in found),
    )


def nothing(root: Path) -> UsageError:
    hint = f"continue it with: harness resume {root}" if (root / "spec.toml").exists() else "no such run"
    return UsageError(f"{root} has no finished rows; {hint}")


def _wanted(manifest: Mapping[str, Any]) -> list[tuple[str, int]]:
    """What the run does, in its order."""
    return [(name, seed) for seed in range(manifest["spec"]["seeds"]) for name in manifest["methods"]]


def _folder(root: Path, key: tuple[str, int]) -> Path:
    return root / f"methods/{key[0]}/{key[1]}"


def _rows_so_far(manifest: dict[str, Any], finished: Mapping[tuple[str, int], Finished]) -> list[Row]:
    """As the run will write them, but for what only the engine knows: how far the weights moved."""
    own: dict[str, list[Finished]] = {name: [] for name in manifest["methods"]}
    for (name, _), done in finished.items():
        own[name].append(done)
    unknown = Displacement(math.nan, math.nan, math.nan)
    return leaderboard.of_csv(leaderboard.to_csv(pipeline.rows_of(manifest, own, lambda _: unknown)))


def pairs(results: Results, focus: str = FOCUS) -> list[dict[str, Any]]:
    """`focus` minus every other method: paired by problem, combined over seeds. Empty when `focus` did not run."""
    if focus not in results.methods:
        return []
    others = [method for method in results.methods if method != focus]
    return [{"method": focus, "other": results.label(other), **_difference(results, focus, other)} for other in others]


def _difference(results: Results, focus: str, other: str) -> dict[str, Any]:
    found = results.finished
    seeds = [seed for seed in results.seeds_of(focus) if (other, seed) in found]  # all, unless interrupted
    scores = [(found[other, seed].evaluation.sampled, found[focus, seed].evaluation.sampled) for seed in seeds]
    return leaderboard.comparison(scores)._asdict()


def verdict(results: Results) -> str:
    """One plain sentence: did the method under test beat the base and its controls?"""
    own = [row for row in results.aggregate if row["method"] == FOCUS]
    if not own:
        return f"{FOCUS} did not run."
    row = own[0]
    if row["ci_low"] == "":
        reason = "the zero step was chosen" if str(row["status"]).startswith("ok") else row["status"]
        return f"One gradient step changes nothing on {row['domain']} / {row['test_benchmark']}: {str(reason).rstrip('.')}."
    low, high = float(row["ci_low"]), float(row["ci_high"])
    word = "raises" if low > 0 else "lowers" if high < 0 else "does not measurably change"
    text = (
        f"One gradient step {word} pass@1 on {row['domain']} / {row['test_benchmark']}: "
        f"{float(row['base_pass@1']):.3f} to {float(row['pass@1']):.3f} "
        f"({float(row['delta']):+.3f}, 95 % interval {low:+.3f} to {high:+.3f})."
    )
    others = [p for p in results.pairs if p["other"] not in ("base", STANDARD)]
    behind = [p["other"] for p in others if p["ci_high"] < 0]
    unbeaten = [p["other"] for p in others if p["ci_low"] <= 0 <= p["ci_high"]]
    text += _against_standard(results, float(row["delta"]))
    text += f" It is behind: {listed(behind)}." if behind else ""
    return text + (f" It is not clearly ahead of: {listed(unbeaten)}." if unbeaten else "")


def listed(names: Sequence[str]) -> str:
    """As many as a sentence holds."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _against_standard(results: Results, gain: float) -> str:
    """How it stands to standard RLVR at the same budget of training rollouts."""
    found = [pair for pair in results.pairs if pair["other"] == STANDARD]
    theirs = [row for row in results.aggregate if row["method"] == STANDARD and row["ci_low"] != ""]
    if not found or not theirs:
        return ""
    (pair,), whole = found, float(theirs[0]["delta"])
    updates = round(float(theirs[0]["updates"]))
    known = (
        float(theirs[0]["ci_low"]) > 0 and gain > 0 and not results.missing
    )  # of an interrupted run's seeds not all are in both
    share = f"one_shot's gain is {gain / whole:.0%} of that; " if known else ""
    apart = f"{pair['delta']:+.3f}, 95 % interval {pair['ci_low']:+.3f} to {pair['ci_high']:+.3f}"
    return f" {STANDARD} ({updates} updates on as many rollouts) gains {whole:+.3f}: {share}difference {apart}."
