"""Methods with one mistake each, by the rule of the conformance kit that must name it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from harness import limits
from harness.contracts import Check
from harness.sampling import Draw
from harness.stages import Stages
from harness.templates.method.harness_placeholder.method import Placeholder
from harness.types import Contender


class AnotherName(Placeholder):
    breaks = "method.metadata"
    name = "other"


class OptionsThatTomlCannotWrite(Placeholder):
    breaks = "method.metadata"
    options: Mapping[str, Any] = {"scheme": "rloo", "direction": "per_tensor", "kinds": ("raw",)}


class ChecksNoOption(Placeholder):
    breaks = "method.metadata"
    checks: Mapping[str, Check] = {"sheme": limits.one_of(["rloo"])}


class RefusesItsDefault(Placeholder):
    breaks = "method.metadata"
    checks: Mapping[str, Check] = {"scheme": limits.one_of(["grpo"])}


class HandsInNothing(Placeholder):
    breaks = "method.runs"

    def run(self, stages: Stages) -> Contender:
        return Contender(policies=())


class HalfTheBudget(Placeholder):
    breaks = "method.budget"

    def run(self, stages: Stages) -> Contender:
        half = stages.train_problems[: len(stages.train_problems) // 2]
        stages.weigh(stages.sample(half, stages.base, samples=stages.group, iteration=0))
        return Contender(policies=(stages.base,))


def _draw_past_the_meter(stages: Stages, split: str) -> None:
    run = stages._run
    problems = run.problems.test["ladder"] if split == "test" else stages.train_problems
    draw = Draw(purpose="peek", policy=run.base, temperature=1.0, samples=2, max_tokens=4)
    run.collect([draw], problems, run_seed=stages.seed, label="")


class PastTheMeter(Placeholder):
    breaks = "method.budget"

    def run(self, stages: Stages) -> Contender:
        _draw_past_the_meter(stages, "train")
        return super().run(stages)


class PeeksAtTheTest(Placeholder):
    breaks = "method.held_out"

    def run(self, stages: Stages) -> Contender:
        _draw_past_the_meter(stages, "test")
        return super().run(stages)


class KeepsNotes(Placeholder):
    breaks = "method.files"

    def run(self, stages: Stages) -> Contender:
        (stages._run.root.parent / "notes.txt").write_text("seen")
        return super().run(stages)


class ChangesTheSpec(Placeholder):
    breaks = "method.files"

    def run(self, stages: Stages) -> Contender:
        with open(stages._run.root / "spec.toml", "a", encoding="utf-8") as file:
            file.write("\n")
        return super().run(stages)


class Moody(Placeholder):
    breaks = "method.deterministic"
    runs: ClassVar[list[str]] = []

    def run(self, stages: Stages) -> Contender:
        self.runs.append("")
        return Contender(policies=(stages.base,), temperature=1 / len(self.runs))


class RemembersFolders(Placeholder):
    breaks = "method.resumed"
    seen: ClassVar[set[str]] = set()

    def run(self, stages: Stages) -> Contender:
        root = str(stages._run.root)
        known = root in self.seen
        self.seen.add(root)
        contender = super().run(stages)
        return Contender(policies=contender.policies, temperature=0.3 if known else None)


class DividesByThePassRate(Placeholder):
    breaks = "method.dead_groups"

    def run(self, stages: Stages) -> Contender:
        weighed = stages.weigh(stages.base_batch())
        temperature = min(1.0, 1 / weighed.pass_rate)
        return Contender(policies=(stages.base,), temperature=temperature)


BROKEN = sorted(
    (c for c in vars().copy().values() if isinstance(c, type) and "breaks" in vars(c)), key=lambda c: c.breaks
)
