"""How often each problem was solved over the course of a recorded run: what choosing by variance reads.

Does: read histories from a JSON object {problem: [accuracy, ...]}, from JSON Lines {"index": problem, "acc": [...]} as
Wang et al. (2504.20571) published theirs, or from a method's folder in a run of the harness: one accuracy for each of
its training draws that had the problem.
Doesn't: rank problems, or know which of them a run may train on.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness import datasets, store
from harness.errors import UsageError
from harness.sampling import RolloutBatch
from harness.types import Outcome

FORMS = (
    'wanted: a JSON object {"problem": [accuracy, ...]}, JSON Lines {"index": problem, "acc": [accuracy, ...]}, or '
    "the folder of a method in a run (methods/<method>/<seed>)"
)


def read(source: Path) -> dict[str, tuple[float, ...]]:
    """Accuracies by problem, in order. Raises UsageError for what is no history."""
    if source.is_dir():
        return _of_method(source)
    found = {}
    for row in datasets.read_rows(source):
        for name, accuracies in [(row.get("index"), row["acc"])] if "acc" in row else row.items():
            good = isinstance(accuracies, list) and all(isinstance(a, int | float) for a in accuracies)
            if name is None or not good or not accuracies:
                raise UsageError(f"{source} is no history: problem {name} has {str(accuracies)[:60]}; {FORMS}")
            found[str(name)] = tuple(map(float, accuracies))
    return found


def _of_method(folder: Path) -> dict[str, tuple[float, ...]]:
    """From the draws in its journal, in the order they were made."""
    found: dict[str, list[float]] = {}
    for path in sorted((folder / "journal").glob("*-sample.json")):
        batch: RolloutBatch = store.read_json(path)["result"]
        for name, accuracy in _accuracies(replace(batch, root=str(folder.absolute().parents[2]))).items():
            found.setdefault(name, []).append(accuracy)
    if not found:
        raise UsageError(f"{folder} holds no training draws of a method; {FORMS}")
    return {name: tuple(accuracies) for name, accuracies in found.items()}


def _accuracies(batch: RolloutBatch) -> dict[str, float]:
    outcomes: dict[str, list[Outcome]] = {}
    for entry in batch.judged():
        if entry.verdict.outcome is not Outcome.ERROR:
            outcomes.setdefault(entry.problem_id, []).append(entry.verdict.outcome)
    return {name: own.count(Outcome.CORRECT) / len(own) for name, own in outcomes.items()}
