"""Batched sampling from a causal language model: one shard is one batch.

Does: prefill each prompt once, expand its keys and values to all its completions in preallocated buffers, draw by
inverse CDF from per-rollout random streams, and drop finished rows.
Doesn't: truncate the distribution (no top_p, no top_k: truncated draws bias the gradient, trl#6789), or verify.

A rollout's draws depend on its own seed only: the uniform of token t comes from the rollout's own counter-based
stream, so candidates of a line search meet common random numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from harness import seeds
from harness.types import Finish, Rollout, Shard
from harness_engines.model import CausalModel

LIVE_SHARE = 0.8  # rows are compacted when fewer than this share still runs


class RowLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values [rows, heads, capacity, dim] filled in place up to `length`."""

    is_sliding = False

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, *, rows: torch.Tensor, capacity: int) -> None:
        super().__init__()
        self.length = keys.shape[2]
        shape = (len(rows), keys.shape[1], capacity, keys.shape[3])
        self.keys, self.values = keys.new_empty(shape), values.new_empty((*shape[:3], values.shape[3]))
        self.keys[:, :, : self.length] = keys[rows]
        self.values[:, :, : self.length] = values[rows]
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        raise AssertionError("buffers exist from the start")

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        end = self.length + key_states.shape[2]
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def keep(self, rows: torch.Tensor) -> None:
        self.keys, self.values = self.keys[rows], self.values[rows]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return int(self.keys.shape[2])


class Prefill(NamedTuple):
    """Left-padded prompts: last-token logits [P, V], mask [P, T], lengths [P] and the layers' keys and values."""

    logits_PV: torch.Tensor
    mask_PT: torch.Tensor
    lengths_P: torch.Tensor
    layers: list[tuple[torch.Tensor, torch.Tensor]]


def prefill(model: CausalModel, module: torch.nn.Module, prompts: list[list[int]]) -> Prefill:
    """One forward over the prompts. Differentiable when gradients are on: keys and values stay in the graph."""
    width = max(len(p) for p in prompts)
    tokens = torch.full((len(prompts), width), model.pad_id, dtype=torch.long)
    mask = torch.zeros((len(prompts), width), dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = True
    tokens, mask = tokens.to(model.device), mask.to(model.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache()
    out = module(input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1)
    layers = [(layer.keys, layer.values) for layer in cache.layers]
    return Prefill(out.logits[:, -1], mask, mask.sum(1), layers)


class Draw(NamedTuple):
    tokens_R: torch.Tensor
    logprobs_R: torch.Tensor


def draw(logits_RV: torch.Tensor, uniforms_R: torch.Tensor, temperatures_R: torch.Tensor) -> Draw:
    """One token per row by inverse CDF (argmax where the temperature is 0), with its log-probability."""
    greedy = temperatures_R == 0
    scaled_RV = logits_RV.float() / torch.where(greedy, 1.0, temperatures_R)[:, None]
    logprobs_RV = torch.log_softmax(scaled_RV, dim=-1)
    cdf_RV = logprobs_RV.exp().cumsum(-1)
    tokens_R = torch.searchsorted(cdf_RV, (uniforms_R * cdf_RV[:, -1])[:, None], right=True)[:, 0]
    tokens_R = tokens_R.clamp(max=logits_RV.shape[1] - 1)
    tokens_R = torch.where(greedy, logits_RV.argmax(-1), tokens_R)
    return Draw(tokens_R, logprobs_RV.gather(1, tokens_R[:, None])[:, 0])


class Rows:
    """The state of the running rows of one shard; `ids` maps a running row to its place in the shard."""

    def __init__(self, model: CausalModel, shard: Shard, prompts: list[list[int]], start: Prefill) -> None:
        counts = [len(request.seeds) for request in shard]
        prompt_of_R = torch.repeat_interleave(torch.arange(len(shard)), torch.tensor(counts)).to(model.device)
        self.max_tokens = max(request.max_tokens for request in shard)
        self.limits = torch.tensor([r.max_tokens for r in shard]).to(model.device)[prompt_of_R]
        capacity = start.mask_PT.shape[1] + self.max_tokens
        self.layers = [RowLayer(k, v, rows=prompt_of_R, capacity=capacity) for k, v in start.layers]
        self.ids = torch.arange(len(prompt_of_R), device=model.device)
        self.mask = torch.ones((len(self.ids), capacity), dtype=torch.bool, device=model.device)
        self.mask[:, : start.mask_PT.shape[1]] = start.mask_PT[prompt_of_R]
        self.positions = start.lengths_P[prompt_of_R]
        self.temperatures = torch.tensor([r.temperature for r in shard], device=model.device)[prompt_of_R]
        self.uniforms = _uniforms(shard, self.max_tokens).to(model.device)

    def keep(self, alive: torch.Tensor) -> None:
        for layer in self.layers:
            layer.keep(alive)
        for name in ("ids", "mask", "positions", "temperatures", "uniforms", "limits"):
            setattr(self, name, getattr(self, name)[alive])


def _uniforms(shard: Shard, width: int) -> torch.Tensor:
    rows = [seeds.generator(seed).random(width, dtype=np.float32) for request in shard for seed in request.seeds]
    return torch.from_numpy(np.stack(rows))


@torch.inference_mode()
def sample_shard(model: CausalModel, module: torch.nn.Module, shard: Shard, policy: str) -> list[Rollout]:
    """All completions of one shard, in request order."""
    prompts = [model.tokenize(request.prompt) for request in shard]
    start = prefill(model, module, prompts)
    rows = Rows(model, shard, prompts, start)
    total = len(rows.ids)
    tokens = torch.full((total, rows.max_tokens), model.pad_id, dtype=torch.long, device=model.device)
    logprobs = torch.zeros((total, rows.max_tokens), device=model.device)
    lengths = torch.zeros(total, dtype=torch.long, device=model.device)
    stopped = torch.zeros(total, dtype=torch.bool, device=model.device)
    counts = torch.tensor([len(request.seeds) for request in shard], device=model.device)
    logits_RV = torch.repeat_interleave(start.logits_PV, counts, dim=0)
    eos = torch.tensor(model.eos_ids, device=model.device)
    running = torch.ones(total, dtype=torch.bool, device=model.device)
    cache = Cache(layers=rows.layers)
    for t in range(rows.max_tokens):
        drawn = draw(logits_RV, rows.uniforms[:, t], rows.temperatures)
        here = rows.ids[running]
        tokens[here, t], logprobs[here, t], lengths[here] = drawn.tokens_R[running], drawn.logprobs_R[running], t + 1
        ended = torch.isin(drawn.tokens_R, eos)
        stopped[rows.ids[running & ended]] = True
        running = running & ~ended & (t + 1 < rows.limits)
        if not running.any():
            break
        fed = drawn.tokens_R
        if running.float().mean() < LIVE_SHARE:
            fed = fed[running]
            rows.keep(running)
            running = running[running]
        end = start.mask_PT.shape[1] + t + 1
        out = module(
            input_ids=fed[:, None],
            attention_mask=rows.mask[:, :end],
            position_ids=rows.positions[:, None],
            past_key_values=cache,
        )
        rows.positions = rows.positions + 1
        logits_RV = out.logits[:, -1]
    return _rollouts(model, shard, prompts, policy, tokens=tokens, logprobs=logprobs, lengths=lengths, stopped=stopped)


def _rollouts(
    model: CausalModel,
    shard: Shard,
    prompts: list[list[int]],
    policy: str,
    *,
    tokens: torch.Tensor,
    logprobs: torch.Tensor,
    lengths: torch.Tensor,
    stopped: torch.Tensor,
) -> list[Rollout]:
    tokens_NT = tokens.cpu().numpy().astype(np.int32)
    logprobs_NT, lengths_N, stopped_N = logprobs.cpu().numpy(), lengths.tolist(), stopped.tolist()
    rollouts, row = [], 0
    for request, prompt in zip(shard, prompts, strict=True):
        prompt_tokens = np.asarray(prompt, dtype=np.int32)
        for sample_idx, seed in zip(request.sample_idxs, request.seeds, strict=True):
            length, stop = lengths_N[row], stopped_N[row]
            completion = tokens_NT[row, :length].copy()
            rollouts.append(
                Rollout(
                    problem_id=request.problem_id,
                    sample_idx=sample_idx,
                    policy=policy,
                    seed=seed,
                    prompt_tokens=prompt_tokens,
                    completion_tokens=completion,
                    logprobs=logprobs_NT[row, :length].copy(),
                    text=model.text(completion[: length - stop].tolist()),
                    finish=Finish.STOP if stop else Finish.LENGTH,
                )
            )
            row += 1
    return rollouts
