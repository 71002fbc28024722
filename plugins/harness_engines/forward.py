"""Teacher-forced forwards that run each prompt once for all of its completions.

Does: pack groups into microbatches, forward the prompts, let every completion attend to its prompt's keys and
values, and return log-probabilities, entropies and exact per-token KL at the sampling temperature.
Doesn't: hold more than one microbatch; results are equal for every microbatch size up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from transformers.cache_utils import DynamicCache

from harness.contracts import TokenBatch
from harness.types import Rollout, WeightedGroup
from harness_engines.decoding import prefill
from harness_engines.model import CausalModel


class Micro(NamedTuple):
    """One microbatch: groups of rollouts that share a prompt, with a weight per rollout."""

    groups: list[tuple[Rollout, ...]]
    weights_B: npt.NDArray[np.float64]

    @property
    def rollouts(self) -> list[Rollout]:
        return [rollout for group in self.groups for rollout in group]


class Targets(NamedTuple):
    """Completions right-padded to one width, on the device."""

    tokens_BT: torch.Tensor
    mask_BT: torch.Tensor
    old_logprobs_BT: torch.Tensor


def microbatches(groups: Iterable[WeightedGroup], *, max_tokens: int, unit: str) -> Iterator[Micro]:
    """Pack groups of similar length until rows x (prompt + completion) would pass `max_tokens`.

    Groups are sorted by length first; with unit "rollout" a group too large for one microbatch is split.
    """
    pending: list[WeightedGroup] = []
    rows = width = 0
    for group in _pieces(sorted(groups, key=_length), max_tokens=max_tokens, unit=unit):
        wider = max(width, _length(group))
        if pending and (rows + len(group.rollouts)) * wider > max_tokens:
            yield _micro(pending)
            pending, rows, wider = [], 0, _length(group)
        pending.append(group)
        rows, width = rows + len(group.rollouts), wider
    if pending:
        yield _micro(pending)


def _length(group: WeightedGroup) -> int:
    longest = max(len(r.completion_tokens) for r in group.rollouts)
    return len(group.rollouts[0].prompt_tokens) + longest


def _pieces(groups: Iterable[WeightedGroup], *, max_tokens: int, unit: str) -> Iterator[WeightedGroup]:
    for group in groups:
        size = len(group.rollouts) if unit == "group" else max(1, max_tokens // _length(group))
        for start in range(0, len(group.rollouts), size):
            yield WeightedGroup(group.rollouts[start : start + size], group.weights_G[start : start + size])


def _micro(groups: Sequence[WeightedGroup]) -> Micro:
    return Micro([group.rollouts for group in groups], np.concatenate([group.weights_G for group in groups]))


def targets(model: CausalModel, rollouts: Sequence[Rollout]) -> Targets:
    width = max(len(r.completion_tokens) for r in rollouts)
    tokens = torch.full((len(rollouts), width), model.pad_id, dtype=torch.long)
    mask = torch.zeros((len(rollouts), width), dtype=torch.bool)
    old = torch.zeros((len(rollouts), width))
    for row, rollout in enumerate(rollouts):
        length = len(rollout.completion_tokens)
        tokens[row, :length] = torch.from_numpy(rollout.completion_tokens)
        old[row, :length] = torch.from_numpy(rollout.logprobs)
        mask[row, :length] = True
    return Targets(tokens.to(model.device), mask.to(model.device), old.to(model.device))


def completion_logits(model: CausalModel, module: torch.nn.Module, micro: Micro, goal: Targets) -> torch.Tensor:
    """Logits [B, T, V] that predict each completion token; the first comes from the prompt's last position."""
    start = prefill(model, module, [group[0].prompt_tokens.tolist() for group in micro.groups])
    counts = torch.tensor([len(group) for group in micro.groups])
    prompt_of_B = torch.repeat_interleave(torch.arange(len(counts)), counts).to(model.device)
    first = start.logits_PV[prompt_of_B][:, None]
    if goal.tokens_BT.shape[1] == 1:
        return first
    cache = DynamicCache()
    for index, (keys, values) in enumerate(start.layers):
        cache.update(keys[prompt_of_B], values[prompt_of_B], index)
    fed = goal.tokens_BT[:, :-1]
    offsets = torch.arange(fed.shape[1], device=model.device)
    out = module(
        input_ids=fed,
        attention_mask=torch.cat([start.mask_PT[prompt_of_B], torch.ones_like(fed, dtype=torch.bool)], dim=1),
        position_ids=start.lengths_P[prompt_of_B][:, None] + offsets,
        past_key_values=cache,
    )
    return torch.cat([first, out.logits], dim=1)


def log_softmax(logits_BTV: torch.Tensor, temperature: float) -> torch.Tensor:
    return torch.log_softmax(logits_BTV.float() / temperature, dim=-1)


def chosen(logprobs_BTV: torch.Tensor, tokens_BT: torch.Tensor) -> torch.Tensor:
    return logprobs_BTV.gather(2, tokens_BT[:, :, None])[:, :, 0]


def entropy(logprobs_BTV: torch.Tensor) -> torch.Tensor:
    return -(logprobs_BTV.exp() * logprobs_BTV).sum(-1)


def token_batch(
    model: CausalModel, module: torch.nn.Module, micro: Micro, *, temperature: float, needs: frozenset[str]
) -> TokenBatch:
    """What an objective sees, with the graph of the current policy behind it."""
    goal = targets(model, micro.rollouts)
    ref = None
    if "ref_logprob" in needs:  # before the policy's own forward, whose backward needs the policy's weights in place
        with torch.no_grad(), model.swapped(model.base):
            ref = chosen(log_softmax(completion_logits(model, module, micro, goal), temperature), goal.tokens_BT)
    logprobs_BTV = log_softmax(completion_logits(model, module, micro, goal), temperature)
    return TokenBatch(
        logprobs_BT=chosen(logprobs_BTV, goal.tokens_BT),
        mask_BT=goal.mask_BT,
        weights_B=torch.from_numpy(micro.weights_B).float().to(model.device),
        entropy_BT=entropy(logprobs_BTV) if "entropy" in needs else None,
        old_logprobs_BT=goal.old_logprobs_BT,
        ref_logprobs_BT=ref,
    )
