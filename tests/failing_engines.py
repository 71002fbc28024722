"""The tabular engine with one fault each, by name; what a run makes of them is in test_failing_engines.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from harness.contracts import Optimizer
from harness.types import Direction, Policy, Rollout, Shard, TokenScore
from harness_engines.tabular import EOS, Tabular
from harness_engines.tabular_training import TabularTrainer


class Redrawn(Tabular):
    """Shards changed on their way, of moved policies alone where `moved`."""

    moved = False

    def change(self, drawn: list[Rollout]) -> list[Rollout]:
        return [self.mark(rollout) for rollout in drawn]

    def mark(self, rollout: Rollout) -> Rollout:
        return rollout

    def sample(self, shards: Sequence[Shard], policy: Policy) -> Iterator[list[Rollout]]:
        touched = bool(policy.moves) or not self.moved
        return (self.change(drawn) if touched else drawn for drawn in super().sample(shards, policy))


class FewerRollouts(Redrawn):
    def change(self, drawn: list[Rollout]) -> list[Rollout]:
        return drawn[:-1]


class OtherOrder(Redrawn):
    def change(self, drawn: list[Rollout]) -> list[Rollout]:
        return drawn[::-1]


class FewerShards(Tabular):
    def sample(self, shards: Sequence[Shard], policy: Policy) -> Iterator[list[Rollout]]:
        return super().sample(shards[:-1], policy)


class NoTokens(Redrawn):
    def mark(self, rollout: Rollout) -> Rollout:
        return replace(rollout, completion_tokens=rollout.completion_tokens[:0], logprobs=rollout.logprobs[:0])


class FewerLogprobs(Redrawn):
    def mark(self, rollout: Rollout) -> Rollout:
        return replace(rollout, logprobs=rollout.logprobs[:1])


class NegativeTokens(Redrawn):
    def mark(self, rollout: Rollout) -> Rollout:
        return replace(rollout, completion_tokens=-rollout.completion_tokens)


class UnknownTokens(Redrawn):
    """Outside the vocabulary, which only the engine knows: it fails when it meets them again."""

    def mark(self, rollout: Rollout) -> Rollout:
        return replace(rollout, completion_tokens=rollout.completion_tokens + 9999)


class NoUnicode(Redrawn):
    def mark(self, rollout: Rollout) -> Rollout:
        return replace(rollout, text="\ud800")


class LogprobsAboveZero(Redrawn):
    def mark(self, rollout: Rollout) -> Rollout:
        return replace(rollout, logprobs=rollout.logprobs + np.float32(5))


class NanLogits(Redrawn):
    def mark(self, rollout: Rollout) -> Rollout:
        return replace(rollout, logprobs=np.full_like(rollout.logprobs, np.nan))


class NanCandidates(NanLogits):
    moved = True


class EndsAtOnce(Redrawn):
    def mark(self, rollout: Rollout) -> Rollout:
        end = np.array([EOS], dtype=np.int32)
        return replace(rollout, completion_tokens=end, logprobs=np.zeros(1, dtype=np.float32), text="")


class RaisesInTheMiddle(Tabular):
    def sample(self, shards: Sequence[Shard], policy: Policy) -> Iterator[list[Rollout]]:
        for number, drawn in enumerate(super().sample(shards, policy)):
            if number:
                raise RuntimeError("CUDA error: device-side assert triggered")
            yield drawn


class CannotStart(Tabular):
    def __init__(self, model: str, root: Path, options: Mapping[str, Any]) -> None:
        raise RuntimeError("header too large")


class Directed(Tabular):
    """The gradient's file changed, its norm with it."""

    def change(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return tensors

    def gradient(self, *arguments: Any, **options: Any) -> Direction:
        found = super().gradient(*arguments, **options)
        norms = _header(self.root / found.path)
        tensors = self.change(load_file(self.root / found.path))
        save_file(tensors, self.root / found.path, norms)
        return replace(found, norm=float(torch.cat([t.flatten() for t in tensors.values()]).norm()))


def _header(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


class NanGradient(Directed):
    def change(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tensors["style"][0, 0] = torch.nan
        return tensors


class InfiniteGradient(Directed):
    def change(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tensors["style"][0, 0] = torch.inf
        return tensors


class ZeroGradient(Directed):
    def change(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: torch.zeros_like(t) for name, t in tensors.items()}


class SomeTensorsZero(Directed):
    def change(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: torch.zeros_like(t) if "shared" in name else t for name, t in tensors.items()}


class Gap(Tabular):
    def gradient(self, *arguments: Any, **options: Any) -> Direction:
        return replace(super().gradient(*arguments, **options), logprob_gap=3.0)


class Diverging(TabularTrainer):
    """One step is NaN."""

    steps, bad = 0, 2

    def step(self, *arguments: Any) -> Mapping[str, float]:
        self.steps += 1
        found = super().step(*arguments)
        return {**found, "grad_norm": float("nan")} if self.steps == self.bad else found


class NanStep(Tabular):
    def trainer(self, policy: Policy, optimizer: Optimizer) -> TabularTrainer:
        return Diverging(self, policy, optimizer)


class NanStepLater(Tabular):
    def trainer(self, policy: Policy, optimizer: Optimizer) -> TabularTrainer:
        made = Diverging(self, policy, optimizer)
        made.bad = 4
        return made


class NanStepThenGreedy(NanStepLater, NanCandidates):
    """What was kept before is not finite either, where it is asked greedily: in the evaluation alone."""

    def sample(self, shards: Sequence[Shard], policy: Policy) -> Iterator[list[Rollout]]:
        greedy = any(request.temperature == 0 for shard in shards for request in shard)
        return super().sample(shards, policy) if greedy else Tabular.sample(self, shards, policy)


class Measured(Tabular):
    """KL changed, where it is asked for."""

    def change(self, kl_T: np.ndarray) -> np.ndarray:
        return kl_T

    def score(self, rollouts: Sequence[Rollout], policy: Policy, **how: Any) -> list[TokenScore]:
        found = super().score(rollouts, policy, **how)
        return [s if s.kl_T is None else s._replace(kl_T=self.change(s.kl_T)) for s in found]


class NanKl(Measured):
    def change(self, kl_T: np.ndarray) -> np.ndarray:
        return kl_T * np.float32(np.nan)


class NanKlFarOut(Measured):
    """As of a step so large that the logits overflow."""

    def change(self, kl_T: np.ndarray) -> np.ndarray:
        return np.where(kl_T > 0.1, np.float32(np.nan), kl_T)


class NegativeKl(Measured):
    def change(self, kl_T: np.ndarray) -> np.ndarray:
        return -kl_T - np.float32(1)


class NoKl(Measured):
    def change(self, kl_T: np.ndarray) -> np.ndarray:
        return kl_T * np.float32(0)


class NanScores(Tabular):
    def score(self, *arguments: Any, **how: Any) -> list[TokenScore]:
        found = super().score(*arguments, **how)
        return [s._replace(logprobs_T=s.logprobs_T * np.float32(np.nan)) for s in found]
