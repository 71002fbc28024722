"""What of a finished run can be diagnosed: its base batches, directions, searches and the ways its trainers went.

Does: find them, replaying the journal of the methods that made them; say what is missing and how to get it.
Doesn't: draw, differentiate, or write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from harness import directions
from harness.config import RunSpec
from harness.contracts import Method
from harness.diagnosis.products import Vector
from harness.errors import UnknownName
from harness.methods import check_options, methods_of
from harness.pipeline import Finished
from harness.plugins import Plugins
from harness.report import results
from harness.report.results import Results
from harness.run import Run
from harness.sampling import RolloutBatch
from harness.stages import Stages
from harness.types import Direction, Policy, Search
from harness.weighing import WeighedBatch

FOCUS, SHUFFLED, TRAINED = "one_shot", "one_shot_shuffled", "grpo"
HOW = "harness run ... --method one_shot --method one_shot_shuffled --method grpo --set method.grpo.checkpoints=16"


class Way(NamedTuple):
    """The kept policies of one trainer in one seed, by the number of updates before them."""

    method: str
    seed: int
    steps: tuple[int, ...]
    policies: tuple[Policy, ...]

    def moved(self, root: Path, base: Path) -> dict[str, Vector]:
        """Displacements from the base, by label."""
        paths = [root / policy.moves[-1].path for policy in self.policies]
        return {label: Vector((path,), minus=base) for label, path in zip(self.labels, paths, strict=True)}

    @property
    def labels(self) -> list[str]:
        return [f"{self.method}/{self.seed}/{step}" for step in self.steps]


class Base(NamedTuple):
    """The base batch of one seed as it was weighed, and the stored raw gradient of it."""

    batch: RolloutBatch
    weighed: WeighedBatch
    raw: Direction


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A finished run. `focus` names its one_shot ("" if it has none), `shuffled` the control's."""

    results: Results
    methods: Mapping[str, Method]
    options: Mapping[str, Mapping[str, object]]
    focus: str
    shuffled: str
    ways: tuple[Way, ...]
    skipped: tuple[str, ...]

    @property
    def root(self) -> Path:
        return self.results.root

    @property
    def seeds(self) -> list[int]:
        """Those in which the focus found a direction."""
        return [seed for seed in self.results.seeds_of(self.focus) if self._done(self.focus, seed).direction]

    @property
    def kinds(self) -> list[str]:
        """Kinds of direction in the run that are made of its raw gradient alone."""
        found = {
            d.kind for (name, _), done in self.results.finished.items() if (d := done.direction) and self._real(name)
        }
        return sorted(found & set(directions.of_gradient()))

    def _real(self, name: str) -> bool:
        return self.methods[name].name == FOCUS

    def _done(self, name: str, seed: int) -> Finished:
        return self.results.finished[name, seed]

    def stored(self) -> dict[str, Vector]:
        """The direction each method's search followed, by label."""
        return {
            f"{name}/{seed}": Vector((self.root / done.direction.path,))
            for (name, seed), done in self.results.finished.items()
            if done.direction is not None
        }

    def searches(self, seed: int) -> dict[str, tuple[Search, Direction]]:
        """Searches along one direction from the base, by method."""
        found = {}
        for name in self.methods:
            done = self._done(name, seed)
            if done.search is not None and done.direction is not None and _along(done.search, done.direction):
                found[name] = (done.search, done.direction)
        return found

    def base(self, run: Run, seed: int, *, shuffle: bool = False) -> Base:
        """Replayed from the journal of the focus, or of its shuffled control."""
        name = self.shuffled if shuffle else self.focus
        stages = Stages(run, method=name, seed=seed, options=self.options[name])
        batch = stages.base_batch()
        weighed = stages.weigh(batch, shuffle=shuffle)
        return Base(batch, weighed, stages.direct(weighed, stages.base))


def _along(search: Search, direction: Direction) -> bool:
    moves = [candidate.policy.moves for candidate in search.candidates[1:]]
    return bool(moves) and all(len(m) == 1 and m[0].digest == direction.digest for m in moves)


def find(root: Path, spec: RunSpec, plugins: Plugins, *, trained: Sequence[str]) -> Subject:
    """In a finished run; `trained` names the methods whose ways are looked at, none: all that are grpo."""
    found = results.load(root)
    methods = methods_of(spec, plugins)
    options = check_options(spec, methods)
    for name in trained:
        if name not in methods:
            raise UnknownName("method in this run", name, methods)
    ways = _ways(found, trained or [name for name in methods if methods[name].name == TRAINED])
    focus = _first(methods, FOCUS, unlike="positives_only", options=options)
    shuffled = _first(methods, SHUFFLED, unlike="positives_only", options=options)
    return Subject(
        results=found, methods=methods, options=options, focus=focus, shuffled=shuffled, ways=ways,
        skipped=tuple(_skipped(focus, shuffled, ways, seeds=spec.seeds, trained=trained)),
    )  # fmt: skip


def _first(
    methods: Mapping[str, Method], name: str, *, unlike: str, options: Mapping[str, Mapping[str, object]]
) -> str:
    """The first method that is `name`; positives_only is another gradient."""
    return next((n for n, m in methods.items() if m.name == name and options[n].get("direction") != unlike), "")


def _ways(found: Results, names: Sequence[str]) -> tuple[Way, ...]:
    ways = []
    for name in names:
        for seed in found.seeds_of(name):
            kept: dict[Policy, int] = {}
            for number, step in enumerate(found.finished[name, seed].trained, start=1):
                if step.policy.moves and (found.root / step.policy.moves[-1].path).exists():
                    kept.setdefault(step.policy, number)
            if kept:
                ways.append(Way(name, seed, tuple(kept.values()), tuple(kept)))
    return tuple(ways)


def _skipped(focus: str, shuffled: str, ways: Sequence[Way], *, seeds: int, trained: Sequence[str]) -> list[str]:
    """What the run does not hold, what is left out for it, and how to get it."""
    lines = []
    if not focus:
        lines.append(f"no {FOCUS} in this run: no gradient of a base batch, hence only linearity. Get it with: {HOW}")
    if not ways:
        asked = ", ".join(trained) or TRAINED
        lines.append(
            f"no kept checkpoint of {asked}: no cosines with a trainer's way, no linearity. Get it with: {HOW}"
        )
    if focus and ways and not shuffled:
        lines.append(f"no {SHUFFLED} in this run: cosines stand without that control. Get it with: {HOW}")
    if seeds < 2:
        lines.append("one seed: nothing to compare with the way of another one. Get it with: --seeds 2")
    return lines
