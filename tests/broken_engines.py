"""Engines with one mistake each, by the rule of the conformance kit that must name it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.contracts import Displacement
from harness.templates.engine.harness_placeholder.engine import Placeholder, PlaceholderTrainer
from harness.types import Direction, Policy, Rollout, Shard


class NoRevision(Placeholder):
    breaks = "engine.start"

    def identity(self) -> Mapping[str, str]:
        return {}


class Redrawing(Placeholder):
    """Every request changed by `change`, every rollout by `mark`."""

    def change(self, shards: list[Shard]) -> list[Shard]:
        return shards

    def mark(self, rollout: Rollout) -> Rollout:
        return rollout

    def sample(self, shards: Sequence[Shard], policy: Policy) -> Iterator[list[Rollout]]:
        asked = [list(shard) for shard in shards]
        for requests, drawn in zip(asked, super().sample(self.change(list(shards)), policy), strict=True):
            seeds = [seed for request in requests for seed in request.seeds]
            yield [self.mark(replace(rollout, seed=seed)) for rollout, seed in zip(drawn, seeds, strict=True)]


class DoublePrecision(Redrawing):
    breaks = "engine.rollouts"

    def mark(self, rollout: Rollout) -> Rollout:
        return replace(rollout, logprobs=rollout.logprobs.astype(np.float64))  # type: ignore[arg-type]


class LosesOne(Placeholder):
    breaks = "engine.rollouts"

    def sample(self, shards: Sequence[Shard], policy: Policy) -> Iterator[list[Rollout]]:
        return (drawn[1:] for drawn in super().sample(shards, policy))


class OneSeedForAll(Redrawing):
    breaks = "engine.seeds"

    def change(self, shards: list[Shard]) -> list[Shard]:
        return [tuple(replace(r, seeds=tuple(range(len(r.seeds)))) for r in shard) for shard in shards]


class GreedyIsWarm(Redrawing):
    breaks = "engine.greedy"

    def change(self, shards: list[Shard]) -> list[Shard]:
        return [tuple(replace(r, temperature=r.temperature or 1.0) for r in shard) for shard in shards]


class SeedByPosition(Redrawing):
    breaks = "engine.shard"

    def change(self, shards: list[Shard]) -> list[Shard]:
        return [
            tuple(replace(r, seeds=tuple(seed + index for seed in r.seeds)) for r in shard)
            for index, shard in enumerate(shards)
        ]


class ColdLogprobs(Placeholder):
    """Reports the probabilities of temperature 1 whatever it draws at."""

    breaks = "engine.logprobs"

    def sample(self, shards: Sequence[Shard], policy: Policy) -> Iterator[list[Rollout]]:
        for shard, drawn in zip(shards, super().sample(shards, policy), strict=True):
            if shard[0].temperature == 0:
                yield drawn
                continue
            scores = self.score(drawn, policy, temperature=1.0)
            yield [replace(r, logprobs=s.logprobs_T) for r, s in zip(drawn, scores, strict=True)]


class WrongNorm(Placeholder):
    breaks = "engine.direction"

    def gradient(self, *arguments: Any, **options: Any) -> Direction:
        found = super().gradient(*arguments, **options)
        return replace(found, norm=found.norm**2)


class Dividing(Placeholder):
    """Gradients divided by `divisor` once more."""

    divisor = 1.0

    def part(self, *arguments: Any, **options: Any) -> Any:
        found = super().part(*arguments, **options)
        return found._replace(gradient_VV=found.gradient_VV / self.divisor)


class DividesTwice(Dividing):
    breaks = "engine.gradient"
    divisor = 2.0


class AveragesMicrobatches(Dividing):
    breaks = "engine.microbatch"

    def __init__(self, model: str, root: Path, options: Mapping[str, Any]) -> None:
        super().__init__(model, root, options)
        self.divisor = 1.001 if 0 < options["microbatch_tokens"] <= 100 else 1.0


class CandidateOfItsOwn(Placeholder):
    breaks = "engine.zero_step"

    def table(self, policy: Policy) -> torch.Tensor:
        return super().table(policy) * (1.001 if policy.moves and policy.moves[0].kind == "direction" else 1.0)


class SquaredDisplacement(Placeholder):
    breaks = "engine.step"

    def displacement(self, policy: Policy) -> Displacement:
        found = super().displacement(policy)
        return found._replace(norm=found.norm**2)


class WritesTheBase(Placeholder):
    breaks = "engine.materialise"

    def materialise(self, policy: Policy, folder: Path) -> None:
        super().materialise(Policy(base=policy.base), folder)


class Forgetful(PlaceholderTrainer):
    def load(self, path: Path) -> None:
        super().load(path)
        self.optimizer.state.clear()


class ForgetsMoments(Placeholder):
    breaks = "engine.trainer"

    def trainer(self, *arguments: Any) -> PlaceholderTrainer:
        return Forgetful(self, *arguments)


class Downhill(Placeholder):
    breaks = "engine.trainer"

    def trainer(self, *arguments: Any) -> PlaceholderTrainer:
        found = super().trainer(*arguments)
        found.optimizer.param_groups[0]["maximize"] = True
        return found


BROKEN = sorted(
    (c for c in vars().copy().values() if isinstance(c, type) and "breaks" in vars(c)), key=lambda c: c.breaks
)
