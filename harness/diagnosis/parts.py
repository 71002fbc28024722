"""Gradients of parts of a batch, one file each, in a folder that is emptied when their inner products are known.

Does: cut problems into parts of one mix of levels; weigh completions by their outcome, whole groups or halves; ask the
engine for a part's gradient, once.
Doesn't: draw, or charge a method: what the diagnosis uses is on its own meter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from harness import weighing
from harness.budget import Cost, Stopwatch
from harness.diagnosis.products import Vector
from harness.objectives import PolicyGradient
from harness.run import Run
from harness.sampling import RolloutBatch
from harness.types import Outcome, Problem
from harness.weighing import Rewards, WeighedBatch

TASKS = 4  # sub-batches of a part: as many processes can share it

Groups = Mapping[str, Sequence[Outcome]]  # outcomes of each problem's completions, in order
Judge = Callable[[int, Outcome], float | None]


class Job(NamedTuple):
    """A gradient to take: that of some problems of a batch."""

    name: str
    weighed: WeighedBatch
    problems: Sequence[str]


@dataclass(kw_only=True)
class Meter:
    """What one seed's diagnosis has used, kept with its results."""

    spent: Cost = field(default_factory=Cost)

    def charge(self, cost: Cost) -> None:
        self.spent = self.spent.plus(cost)


def outcomes(batch: RolloutBatch) -> Groups:
    found: dict[str, list[Outcome]] = {name: [] for name in batch.problem_ids}
    for judged in batch.judged():
        found[judged.problem_id].append(judged.verdict.outcome)
    return found


def rewarded(groups: Groups, judge: Judge) -> Rewards:
    """`judge(place in the group, outcome)` for every completion; None leaves it out."""
    return {name: [judge(place, outcome) for place, outcome in enumerate(group)] for name, group in groups.items()}


def is_correct(place: int, outcome: Outcome) -> float | None:
    """1 or 0 whatever the run rewards, so that the mean is the pass rate; a failed verifier says nothing."""
    return None if outcome is Outcome.ERROR else float(outcome is Outcome.CORRECT)


def cut(problems: Sequence[Problem], most: int) -> list[tuple[str, ...]]:
    """At most `most` parts of problems with nearly the same mix of levels; dead groups are dealt like others."""
    dealt = weighing.deal(problems)
    count = min(most, len(dealt))
    return [tuple(name for own in dealt[start::count] for name in own) for start in range(count)]


def restrict(weighed: WeighedBatch, names: Sequence[str]) -> WeighedBatch:
    """The same weights and normaliser on some problems, so that the gradients of parts add up to the whole's."""
    read = [name for name in names if any(weighed.weights.get(name, ()))]
    dealt = tuple(tuple(read[start::TASKS]) for start in range(min(TASKS, len(read))))
    return replace(weighed, weights={name: weighed.weights[name] for name in read}, sub_batches=dealt)


def gradients(run: Run, jobs: Sequence[Job], *, folder: Path, label: str, meter: Meter) -> dict[str, Vector]:
    """By name of the job, at the base, in files of `folder` (under the run's); what is there already is not redone.

    A part without a weight has a gradient of zero and no file.
    """
    found, tokens, watch = {}, 0, Stopwatch()
    for done, job in enumerate(jobs):
        run.progress(label, done, len(jobs))
        part, path = restrict(job.weighed, job.problems), folder / f"{job.name}.safetensors"
        found[job.name] = Vector((run.root / path,) if part.num_sub_batches else ())
        if part.num_sub_batches and not (run.root / path).exists():
            tokens += run.engine.gradient(part, run.base, PolicyGradient(), out=path).tokens
    run.progress(label, len(jobs), len(jobs))
    meter.charge(watch.cost()._replace(train_tokens=tokens))
    return found
