"""Batches, objectives and enumerations that the tests of the tabular engine share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import save_file

from harness import advantages, seeds, store
from harness.contracts import TokenBatch
from harness.types import Finish, Move, Outcome, Policy, Problem, Rollout, SampleRequest, WeightedGroup
from harness_engines import tabular, tabular_policy
from harness_engines.tabular import DIGIT_0, EOS, STYLE_0
from harness_engines.tabular_domain import ANSWERS, STYLES, task_of
from harness_engines.tabular_domain import Tabular as Domain

BASE = Policy(base="tabular")
MODEL = "tabular:.5,.2,.05"
torch.set_num_threads(1)


@dataclass
class ListBatch:
    sub_batches: Sequence[Sequence[WeightedGroup]]
    normaliser: float
    temperature: float = 1.0

    @property
    def num_sub_batches(self) -> int:
        return len(self.sub_batches)

    def read(self, sub_batch: int) -> Iterator[WeightedGroup]:
        return iter(self.sub_batches[sub_batch])


class PolicyGradient:
    needs: frozenset[str] = frozenset()
    unit = "rollout"

    def loss(self, b: TokenBatch) -> torch.Tensor:
        return -(b.weights_B * (b.logprobs_BT * b.mask_BT).sum(1)).sum()


class Everything(PolicyGradient):
    """Uses all that an objective may ask for."""

    needs = frozenset({"entropy", "ref_logprob"})

    def loss(self, b: TokenBatch) -> torch.Tensor:
        assert b.entropy_BT is not None
        assert b.ref_logprobs_BT is not None
        ratio_BT = (b.logprobs_BT - b.old_logprobs_BT).exp()
        extra_BT = 0.3 * b.entropy_BT + 0.2 * (b.logprobs_BT - b.ref_logprobs_BT) ** 2
        return -((b.weights_B[:, None] * ratio_BT + extra_BT) * b.mask_BT).sum()


def problems(levels: Sequence[int], *, split: str = "train") -> list[Problem]:
    found = {level: [] for level in levels}
    for problem in Domain().problems("ladder", split, seed=0, limit=5 * 40):
        found.get(problem.level, []).append(problem)
    return [found[level].pop(0) for level in levels]


def draw(
    engine: tabular.Tabular,
    items: Sequence[Problem],
    n: int,
    *,
    run: int = 0,
    temperature: float = 1.0,
    tokens: int = 4,
) -> list[list[Rollout]]:
    shard = tuple(
        SampleRequest(
            problem_id=p.id,
            prompt=p.prompt,
            sample_idxs=tuple(range(n)),
            seeds=tuple(seeds.seed_for(run, "train/0", p.id, i) for i in range(n)),
            temperature=temperature,
            max_tokens=tokens,
        )
        for p in items
    )
    (rollouts,) = engine.sample([shard], BASE)
    return [rollouts[start : start + n] for start in range(0, len(rollouts), n)]


def rewards_of(problem: Problem, rollouts: Sequence[Rollout]) -> list[float | None]:
    return [float(Domain().verify(problem, r.text).outcome is Outcome.CORRECT) for r in rollouts]


def batch_of(
    engine: tabular.Tabular, items: Sequence[Problem], n: int, *, run: int, scheme: str, shuffle: bool = False
) -> ListBatch:
    groups = []
    for problem, rollouts in zip(items, draw(engine, items, n, run=run), strict=True):
        rewards = rewards_of(problem, rollouts)
        if shuffle:
            rewards = advantages.shuffled(rewards, seeds.seed_for(run, "shuffle", problem.id))
        weights_G, dead = advantages.group_advantages(rewards, scheme)
        if not dead:
            groups.append(WeightedGroup(tuple(rollouts), weights_G))
    return ListBatch([[g] for g in groups], normaliser=len(items) * n)


def completions(problem: Problem) -> list[Rollout]:
    """All 24 of them, in the order style, offset."""
    item = task_of(problem.prompt).item
    prompt_tokens = np.frombuffer(problem.prompt.encode(), dtype=np.uint8).astype(np.int32)
    return [
        Rollout(
            problem_id=problem.id,
            sample_idx=s * ANSWERS + o,
            policy="",
            seed=0,
            prompt_tokens=prompt_tokens,
            completion_tokens=np.array([STYLE_0 + s, DIGIT_0 + (item + o) % ANSWERS, EOS], dtype=np.int32),
            logprobs=np.zeros(3, dtype=np.float32),
            text=f"{STYLES[s]}{(item + o) % ANSWERS}",
            finish=Finish.STOP,
        )
        for s, o in itertools.product(range(len(STYLES)), range(ANSWERS))
    ]


def chances(engine: tabular.Tabular, level: int, temperature: float = 1.0) -> np.ndarray:
    """Probability of each of `completions`, written out without the engine's own functions."""
    t = {name: tensor.numpy() for name, tensor in engine.base.items()}
    style_S = np.exp((t["style"][level - 1] + t["style_shared"]) / temperature)
    offset_SM = np.exp((t["offset"][level - 1] + t["offset_shared"]) / temperature)
    offset_SM /= offset_SM.sum(1, keepdims=True)
    return ((style_S / style_S.sum())[:, None] * offset_SM).ravel()


def flat(tables: dict[str, torch.Tensor]) -> np.ndarray:
    return np.concatenate([tables[name].numpy().ravel() for name in tabular_policy.NAMES])


def checkpoint(
    engine: tabular.Tabular, tensors: dict[str, torch.Tensor], name: str, *, kind: str, step: float = 1.0
) -> Move:
    save_file(tensors, engine.root / name)
    return Move(kind=kind, path=name, digest=store.digest(engine.root / name), step=step)


def noise(engine: tabular.Tabular, seed: int, scale: float = 0.5) -> dict[str, torch.Tensor]:
    rng = seeds.generator(seed)
    return {name: torch.from_numpy(scale * rng.standard_normal(t.shape)) for name, t in engine.base.items()}
