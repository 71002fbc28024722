"""Batched sampling from a causal language model: one shard is one batch.

Does: prefill each prompt once for all its completions (sharing.py), run completions of a prompt as one row for as long
as they are equal, draw by inverse CDF from per-rollout random streams, and drop finished rows.
Doesn't: truncate the distribution (no top_p, no top_k: truncated draws bias the gradient, trl#6789), or verify.

A rollout's draws depend on its own seed only: the uniform of token t comes from the rollout's own counter-based
stream, so candidates of a line search meet common random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from harness import seeds
from harness.errors import UsageError
from harness.types import Finish, FloatArray, IntArray, Rollout, Shard
from harness_engines import recomputing, sharing
from harness_engines.model import CausalModel

LIVE_SHARE = 0.8  # rows are compacted when fewer than this share still runs


class RowLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of up to `rows` rows and `tokens` tokens each, filled in place; the first ones in use are those of
    `keys` and `values`, [rows in use, heads, length, dim]."""

    is_sliding = False

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, *, rows: int, tokens: int) -> None:
        super().__init__()
        self.used, self.length = len(keys), keys.shape[2]
        self.keys, self.values = self._buffer(keys, rows, tokens), self._buffer(values, rows, tokens)
        self.is_initialized = True

    def _buffer(self, start: torch.Tensor, rows: int, tokens: int) -> torch.Tensor:
        buffer = start.new_empty((rows, start.shape[1], tokens, start.shape[3]))
        buffer[: self.used, :, : self.length] = start
        return buffer

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        raise AssertionError("buffers exist from the start")

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        end = self.length + key_states.shape[2]
        self.keys[: self.used, :, self.length : end] = key_states
        self.values[: self.used, :, self.length : end] = value_states
        self.length = end
        return self.keys[: self.used, :, :end], self.values[: self.used, :, :end]

    def add(self, rows: torch.Tensor) -> None:
        """Copies of `rows` behind those in use."""
        for buffer in (self.keys, self.values):
            buffer[self.used : self.used + len(rows), :, : self.length] = buffer[rows, :, : self.length]
        self.used += len(rows)

    def keep(self, rows: torch.Tensor) -> None:
        """Only `rows` stay in use, in that order."""
        for buffer in (self.keys, self.values):
            buffer[: len(rows), :, : self.length] = buffer[rows, :, : self.length]
        self.used = len(rows)

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
    """One forward over the prompts. Differentiable when gradients are on: keys and values stay in the graph. The logits are
    what `module` gives for such, hidden states where it is a Body (splitting.py)."""
    width = max(len(p) for p in prompts)
    tokens = torch.full((len(prompts), width), model.pad_id, dtype=torch.long)
    mask = torch.zeros((len(prompts), width), dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = True
    tokens, mask = tokens.to(model.device), mask.to(model.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = recomputing.empty()
    inputs = {"input_ids": tokens, "attention_mask": mask, "position_ids": positions, "past_key_values": cache}
    with model.residual.since(width - 1):
        out = module(**inputs, logits_to_keep=1)
    layers = [(layer.keys, layer.values) for layer in cache.layers]
    return Prefill(out.logits[:, -1], mask, mask.sum(1), layers)


class Draw(NamedTuple):
    tokens_N: torch.Tensor
    logprobs_N: torch.Tensor
    entropies_N: torch.Tensor


def draw(logits_RV: torch.Tensor, row_N: torch.Tensor, uniforms_N: torch.Tensor, temperatures_R: torch.Tensor) -> Draw:
    """One token per completion from its row, by inverse CDF (argmax where the temperature is 0)."""
    greedy_R = temperatures_R == 0
    scaled_RV = logits_RV.float() / torch.where(greedy_R, 1.0, temperatures_R)[:, None]
    logprobs_RV = torch.log_softmax(scaled_RV, dim=-1)
    probs_RV = logprobs_RV.exp()
    cdf_NV = probs_RV.cumsum(-1)[row_N]
    tokens_N = torch.searchsorted(cdf_NV, (uniforms_N * cdf_NV[:, -1])[:, None], right=True)[:, 0]
    tokens_N = tokens_N.clamp(max=logits_RV.shape[1] - 1)
    tokens_N = torch.where(greedy_R[row_N], logits_RV.argmax(-1)[row_N], tokens_N)
    entropies_R = -torch.linalg.vecdot(probs_RV, logprobs_RV.clamp(min=torch.finfo(torch.float32).min))
    return Draw(tokens_N, logprobs_RV[row_N, tokens_N], entropies_R[row_N])


class Step(NamedTuple):
    """Logits [R, V] of the rows, and which row each running completion continues."""

    logits_RV: torch.Tensor
    row_N: torch.Tensor


class Branches:
    """The distinct running prefixes of one shard, one row each: completions that are equal so far are computed once.

    At first there is a row for every prompt. Where completions of a row part, one goes on in it and the others in new
    rows; rows whose completions have all ended idle until there are enough of them to be dropped.
    """

    def __init__(
        self, module: torch.nn.Module, start: Prefill, temperatures_P: torch.Tensor, *, rows: int, tokens: int
    ) -> None:
        self._module, self._start, self._temperatures_P = module, start, temperatures_P
        exact = start.logits_PV.dtype == torch.float32  # sharing.py would round scores to half precision, sdpa does not
        self._shared = exact and sharing.shareable(module)
        kept = 0 if self._shared else start.mask_PT.shape[1]
        layers = [RowLayer(k[:, :, :kept], v[:, :, :kept], rows=rows, tokens=kept + tokens) for k, v in start.layers]
        self._cache = Cache(layers=layers)
        self._prompt_R = torch.arange(len(start.lengths_P), device=start.lengths_P.device)
        self._depth = 0
        self._attention = self._attending()

    def temperatures(self) -> torch.Tensor:
        """Of the rows."""
        return self._temperatures_P[self._prompt_R]

    def _attending(self) -> dict[str, Any]:
        """What the forward is told of the prompts: how rows share them, or their part of the mask."""
        if self._shared:
            return {"shared": sharing.share(self._start.layers, self._start.mask_PT, self._prompt_R)}
        return {"attention_mask": self._start.mask_PT[self._prompt_R]}

    def step(self, row_N: torch.Tensor, tokens_N: torch.Tensor, pad: int) -> Step:
        """Feed one token to each running completion."""
        vocabulary, used = self._start.logits_PV.shape[1], len(self._prompt_R)
        fed_B, branch_N = torch.unique(row_N * vocabulary + tokens_N, return_inverse=True)  # ascending by row
        parent_B, token_B = fed_B // vocabulary, fed_B % vocabulary
        parts_B = torch.zeros_like(parent_B, dtype=torch.bool)
        parts_B[1:] = parent_B[1:] == parent_B[:-1]
        row_B = torch.where(parts_B, used - 1 + parts_B.cumsum(0), parent_B)
        added = parent_B[parts_B]
        for layer in self._cache.layers:
            if len(added):
                layer.add(added)
        changed = len(added) > 0
        self._prompt_R = torch.cat([self._prompt_R, self._prompt_R[added]])
        if len(row_B) < LIVE_SHARE * len(self._prompt_R):
            kept, row_B = torch.unique(row_B, return_inverse=True)
            for layer in self._cache.layers:
                layer.keep(kept)
            self._prompt_R, changed = self._prompt_R[kept], True
        if changed:
            self._attention = self._attending()
        fed_R = torch.full_like(self._prompt_R, pad).index_copy_(0, row_B, token_B)
        return Step(self._forward(fed_R), row_B[branch_N])

    def _forward(self, fed_R: torch.Tensor) -> torch.Tensor:
        attention, positions_R = self._attention, self._start.lengths_P[self._prompt_R] + self._depth
        self._depth += 1
        if not self._shared:
            own = torch.ones((len(fed_R), self._depth), dtype=torch.bool, device=fed_R.device)
            attention = {"attention_mask": torch.cat([attention["attention_mask"], own], dim=1)}
        with sharing.sharing(self._module) if self._shared else nullcontext():
            out = self._module(
                input_ids=fed_R[:, None], position_ids=positions_R[:, None], past_key_values=self._cache, **attention
            )
        logits_RV: torch.Tensor = out.logits[:, -1]
        return logits_RV


def _uniforms(shard: Shard, width: int) -> torch.Tensor:
    rows = [seeds.generator(seed).random(width, dtype=np.float32) for request in shard for seed in request.seeds]
    return torch.from_numpy(np.stack(rows))


def room(model: CausalModel, shard: Shard, prompts: list[list[int]]) -> list[int]:
    """Tokens that each request's completions may have: those asked for, or as many as the context has room for.

    Raises UsageError for a prompt that leaves none.
    """
    found = []
    for request, prompt in zip(shard, prompts, strict=True):
        left = request.max_tokens if model.context is None else model.context - len(prompt)
        if not prompt or left < 1:
            raise UsageError(
                f"the prompt of problem {request.problem_id} has {len(prompt)} tokens, the context of the model {model.context}: "
                "there is no way to answer it. Leave the problem out, or take another model."
            )
        found.append(min(request.max_tokens, left))
    return found


@torch.inference_mode()
def sample_shard(model: CausalModel, module: torch.nn.Module, shard: Shard, policy: str) -> list[Rollout]:
    """All completions of one shard, in request order."""
    device = model.device
    prompts = [model.tokenize(request.prompt) for request in shard]
    counts = torch.tensor([len(request.seeds) for request in shard])
    limits_P = torch.tensor(room(model, shard, prompts))
    total, width = int(counts.sum()), int(limits_P.max())
    tokens = torch.full((total, width), model.pad_id, dtype=torch.long, device=device)
    logprobs, entropies = torch.zeros((2, total, width), device=device)
    lengths = torch.zeros(total, dtype=torch.long, device=device)
    stopped = torch.zeros(total, dtype=torch.bool, device=device)
    eos, uniforms = torch.tensor(model.eos_ids, device=device), _uniforms(shard, width).to(device)
    start = prefill(model, module, prompts)
    temperatures_P = torch.tensor([request.temperature for request in shard], device=device)
    branches = Branches(module, start, temperatures_P, rows=total, tokens=width)
    running = torch.arange(total, device=device)
    row_N = torch.repeat_interleave(torch.arange(len(shard)), counts).to(device)
    limits = limits_P.to(device)[row_N]
    logits_RV = start.logits_PV
    for t in range(width):
        drawn = draw(logits_RV, row_N, uniforms[running, t], branches.temperatures())
        drawn = drawn._replace(tokens_N=model.agreed(drawn.tokens_N))
        tokens[running, t], lengths[running] = drawn.tokens_N, t + 1
        logprobs[running, t], entropies[running, t] = drawn.logprobs_N, drawn.entropies_N
        ended = torch.isin(drawn.tokens_N, eos)
        stopped[running] = ended
        on = (~ended & (t + 1 < limits[running])).nonzero()[:, 0]
        if len(on) == 0:
            break
        running = running[on]
        logits_RV, row_N = branches.step(row_N[on], drawn.tokens_N[on], model.pad_id)
    entropies_NT, logprobs_NT, tokens_NT = (x.cpu().numpy() for x in (entropies, logprobs, tokens.int()))
    completions = (
        Completion(tokens_NT[row, :end].copy(), logprobs_NT[row, :end].copy(), entropies_NT[row, :end].copy(), stop)
        for row, (end, stop) in enumerate(zip(lengths.tolist(), stopped.tolist(), strict=True))
    )
    return rollouts(model, shard, prompts, policy=policy, completions=completions)


class Completion(NamedTuple):
    """What a sampler drew: tokens with the one that ended it, their log-probabilities, entropies where it knows them."""

    tokens_T: IntArray
    logprobs_T: FloatArray
    entropies_T: FloatArray | None
    stopped: bool


def rollouts(
    model: CausalModel, shard: Shard, prompts: list[list[int]], *, policy: str, completions: Iterator[Completion]
) -> list[Rollout]:
    """The completions of a shard, in request order, as rollouts of the policy."""
    found = []
    for request, prompt in zip(shard, prompts, strict=True):
        prompt_tokens = np.asarray(prompt, dtype=np.int32)
        for sample_idx, seed in zip(request.sample_idxs, request.seeds, strict=True):
            drawn = next(completions)
            found.append(
                Rollout(
                    problem_id=request.problem_id,
                    sample_idx=sample_idx,
                    policy=policy,
                    seed=seed,
                    prompt_tokens=prompt_tokens,
                    completion_tokens=drawn.tokens_T,
                    logprobs=drawn.logprobs_T,
                    text=model.text(drawn.tokens_T[: len(drawn.tokens_T) - drawn.stopped].tolist()),
                    finish=Finish.STOP if drawn.stopped else Finish.LENGTH,
                    entropies=drawn.entropies_T,
                )
            )
    return found
