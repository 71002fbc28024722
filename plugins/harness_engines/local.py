"""The work of one process: sample shards, score rollouts, sum the gradient of one sub-batch.

Does: run single-threaded on CPU, so that a result depends on its inputs alone and never on who computed it.
Doesn't: know about other processes (workers.py) or reduce over sub-batches (hf.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from harness.contracts import Batch, Objective, TokenBatch
from harness.types import FloatArray, Policy, Rollout, Shard, TokenScore, WeightedGroup
from harness_engines import critic, forward, sharing, steering
from harness_engines.decoding import sample_shard
from harness_engines.model import CausalModel, Tensors

KEPT_MICROBATCHES, KEPT_NUMBERS = 8, 2**26


class ModelSpec(NamedTuple):
    """Everything a process needs to load the same model."""

    path: str
    root: Path
    dtype: str
    device: str
    microbatch_tokens: int
    trust_remote_code: bool


class SubGradient(NamedTuple):
    """Minus the gradient of one sub-batch's loss sum (fp32 on the CPU, not yet divided), and what was seen."""

    arrays: dict[str, npt.NDArray[np.float32]]
    groups: int
    tokens: int
    logprob_gap: float
    loss: float


class SubHidden(NamedTuple):
    """The weighted sum of one sub-batch's hidden states for each layer, in the place of a gradient.

    `squares_L` sums, over the `rollouts` that were read, the mean over tokens of the squared norm of a hidden state.
    """

    layers: list[SubGradient]
    squares_L: npt.NDArray[np.float64]
    rollouts: int


class Predicted(NamedTuple):
    """Log-probabilities of a microbatch's distinct positions, and where each completion token's are."""

    goal: forward.Targets
    logprobs_MV: torch.Tensor
    position_BT: torch.Tensor


class Local:
    """A model in this process."""

    def __init__(self, spec: ModelSpec) -> None:
        if spec.device == "cpu":
            torch.set_num_threads(1)
        self.spec = spec
        self.model = CausalModel(
            spec.path, spec.root, dtype=spec.dtype, device=spec.device, trust_remote_code=spec.trust_remote_code
        )
        self._kept: dict[tuple[Any, ...], Predicted] = {}

    def sample(self, shard: Shard, policy: Policy) -> list[Rollout]:
        with self.model.loaded(policy) as module:
            return sample_shard(self.model, module, shard, policy.id)

    @torch.inference_mode()
    def score(
        self, rollouts: Sequence[Rollout], policy: Policy, temperature: float, kl_to: Policy | None
    ) -> list[TokenScore]:
        scores: dict[tuple[str, int], TokenScore] = {}
        groups = _by_prompt(rollouts)
        for micro in self._microbatches(groups, unit="rollout"):
            scores.update(self._score(micro, policy, temperature, kl_to))
        return [scores[rollout.problem_id, rollout.sample_idx] for rollout in rollouts]

    def _predicted(self, micro: forward.Micro, policy: Policy, temperature: float) -> Predicted:
        """Of the last microbatches, where they are small: a line search asks for those of its origin again and again."""
        key = (policy.id, temperature, tuple((r.problem_id, r.sample_idx, r.policy, r.seed) for r in micro.rollouts))
        if key in self._kept:
            return self._kept[key]
        goal = forward.targets(self.model, micro.rollouts)
        with self.model.loaded(policy) as module:
            logits_MV, position_BT = forward.predictions(self.model, module, micro, goal)
        found = Predicted(goal, forward.log_softmax(logits_MV, temperature), position_BT)
        if found.logprobs_MV.numel() <= KEPT_NUMBERS // KEPT_MICROBATCHES:
            while len(self._kept) >= KEPT_MICROBATCHES:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = found
        return found

    def _score(
        self, micro: forward.Micro, policy: Policy, temperature: float, kl_to: Policy | None
    ) -> dict[tuple[str, int], TokenScore]:
        goal, logprobs_MV, position_BT = self._predicted(micro, policy, temperature)
        chosen = logprobs_MV[position_BT, goal.tokens_BT].cpu().numpy()
        entropy = forward.entropy(logprobs_MV)[position_BT].cpu().numpy()
        kl = None
        if kl_to is not None:
            with self.model.loaded(kl_to) as module:
                other_MV = forward.log_softmax(
                    forward.predictions(self.model, module, micro, goal).logits_MV, temperature
                )
            kl = (logprobs_MV.exp() * (logprobs_MV - other_MV)).sum(-1)[position_BT].cpu().numpy()
        found = {}
        for row, rollout in enumerate(micro.rollouts):
            length = len(rollout.completion_tokens)
            own = None if kl is None else kl[row, :length].copy()
            found[rollout.problem_id, rollout.sample_idx] = TokenScore(
                chosen[row, :length].copy(), entropy[row, :length].copy(), own
            )
        return found

    def _microbatches(self, groups: Sequence[WeightedGroup], *, unit: str) -> Iterator[forward.Micro]:
        as_trees = sharing.shareable(self.model.module)
        return forward.microbatches(groups, max_tokens=self.spec.microbatch_tokens, unit=unit, as_trees=as_trees)

    def gradient(self, batch: Batch, index: int, policy: Policy, objective: Objective) -> SubGradient:
        return self.gradient_at(self.model.weights(policy), batch, index, objective)

    def gradient_at(self, weights: Tensors, batch: Batch, index: int, objective: Objective) -> SubGradient:
        """Microbatches stream through; each backward is added to fp32 buffers and dropped.

        Among the weights may be a value head.
        """
        head_H = weights[critic.HEAD].detach().requires_grad_() if critic.HEAD in weights else None
        sink = {name: torch.zeros_like(weights[name], dtype=torch.float32) for name in self.model.parameters}
        groups = tokens = 0
        gap = loss = 0.0
        with self.model.swapped(weights) as module, _Collecting(self.model, sink):
            live = list(batch.read(index))
            groups = len(live)
            for micro in self._microbatches(live, unit=objective.unit):
                seen = forward.token_batch(
                    self.model, module, micro, temperature=batch.temperature, needs=objective.needs, head_H=head_H
                )
                value = objective.loss(seen)
                value.backward()  # type: ignore[no-untyped-call]
                loss += float(value.detach())
                gap = float(np.maximum(gap, _gap(seen)))  # max() would drop a NaN
                tokens += int(seen.mask_BT.sum()) + sum(len(group[0].prompt_tokens) for group in micro.groups)
        if head_H is not None:
            sink[critic.HEAD] = torch.zeros_like(head_H) if head_H.grad is None else head_H.grad
        return SubGradient({name: (-t).cpu().numpy() for name, t in sink.items()}, groups, tokens, gap, loss)

    @torch.inference_mode()
    def values_at(self, weights: Tensors, batch: Batch, index: int) -> dict[tuple[str, int], FloatArray]:
        """What the value head among `weights` says of the states before each token."""
        found = {}
        with self.model.swapped(weights) as module:
            for micro in self._microbatches(list(batch.read(index)), unit="rollout"):
                goal = forward.targets(self.model, micro.rollouts)
                values_BT = (
                    forward.valued(self.model, module, micro, goal, head_H=weights[critic.HEAD]).values_BT.cpu().numpy()
                )
                for r, values_T in zip(micro.rollouts, values_BT, strict=True):
                    found[r.problem_id, r.sample_idx] = values_T[: len(r.completion_tokens)].copy()
        return found

    @torch.inference_mode()
    def hidden(self, batch: Batch, index: int, policy: Policy, layers: Sequence[int]) -> SubHidden:
        """A rollout's hidden state is the mean over its completion tokens of those that predict them."""
        live, count = list(batch.read(index)), len(layers)
        size = self.model.module.config.hidden_size
        sum_LH, squares_L, tokens = torch.zeros((count, size), dtype=torch.float64), np.zeros(count), 0
        with self.model.loaded(policy) as module:
            reader = steering.Reader(module, [self.model.residual.layers[layer] for layer in layers])
            for micro in self._microbatches(live, unit="rollout"):
                goal = forward.targets(self.model, micro.rollouts)
                hidden_MD, position_BT = forward.predictions(self.model, reader, micro, goal)
                hidden_BTLH = hidden_MD.float().view(-1, count, size)[position_BT]
                share_BT = (goal.mask_BT / goal.mask_BT.sum(1, keepdim=True)).float()
                mean_BLH = torch.einsum("bt,btlh->blh", share_BT, hidden_BTLH).double().cpu()
                sum_LH += torch.einsum("b,blh->lh", torch.from_numpy(micro.weights_B), mean_BLH)
                squares_L += torch.einsum("bt,btl->l", share_BT, hidden_BTLH.square().sum(-1)).double().cpu().numpy()
                tokens += int(goal.mask_BT.sum()) + sum(len(group[0].prompt_tokens) for group in micro.groups)
        vectors = [{steering.name_of(i): sum_H.float().numpy()} for i, sum_H in zip(layers, sum_LH, strict=True)]
        found = [SubGradient(vector, len(live), tokens, logprob_gap=0.0, loss=0.0) for vector in vectors]
        return SubHidden(found, squares_L, sum(len(group.rollouts) for group in live))


def _gap(seen: TokenBatch) -> float:
    return float(((seen.logprobs_BT.detach() - seen.old_logprobs_BT).abs() * seen.mask_BT).max())


def _by_prompt(rollouts: Sequence[Rollout]) -> list[WeightedGroup]:
    groups: dict[str, list[Rollout]] = {}
    for rollout in rollouts:
        groups.setdefault(rollout.problem_id, []).append(rollout)
    return [WeightedGroup(tuple(group), np.zeros(len(group))) for group in groups.values()]


class _Collecting:
    """While open, every finished parameter gradient is moved into fp32 `sink` (also with bf16 weights)."""

    def __init__(self, model: CausalModel, sink: Tensors) -> None:
        self.model, self.sink = model, sink

    def __enter__(self) -> None:
        self.handles = []
        for name, parameter in self.model.parameters.items():
            parameter.requires_grad_(True)
            handle = parameter.register_post_accumulate_grad_hook(self._hook(name))  # type: ignore[no-untyped-call]
            self.handles.append(handle)

    def _hook(self, name: str):  # type: ignore[no-untyped-def]
        def move(parameter: torch.Tensor) -> None:
            if parameter.grad is not None:
                self.sink[name] += parameter.grad.float()
                parameter.grad = None

        return move

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()
        for parameter in self.model.parameters.values():
            parameter.requires_grad_(False)
