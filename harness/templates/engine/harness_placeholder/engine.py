"""The engine "placeholder": a language model that is one table, the logits of the next byte after each byte.

Does: all that an engine must do (sample, score, differentiate, train, store), in float64 and in the order in which
you would replace the parts by those of a larger model.
Doesn't: speak well. `model` is "tiny" (a fixed random table) or a folder that `materialise` wrote.

Shapes: V = 257 tokens (bytes, then the end), B rollouts, T completion tokens.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from harness import seeds, store
from harness.contracts import Batch, Displacement, EngineLimits, Objective, Optimizer, Progress, TokenBatch, silent
from harness.errors import NoSignal, UsageError
from harness.types import Direction, Finish, Policy, Rollout, SampleRequest, Shard, TokenScore, WeightedGroup

END = 256
V = END + 1
FILE = "placeholder.safetensors"


class Part(NamedTuple):
    """A sub-batch: the gradient of its loss sum, the loss, and what was seen."""

    gradient_VV: torch.Tensor
    loss: float
    groups: int
    tokens: int
    gap: float


class Placeholder:
    """`options`: shard_rollouts; one worker and one dtype will do for a table."""

    def __init__(self, model: str, root: Path, options: Mapping[str, Any]) -> None:
        self.root = root
        self.base_VV = _load(model)
        self.shard_rollouts = int(options["shard_rollouts"])

    def table(self, policy: Policy) -> torch.Tensor:
        """The policy's weights: the base, then its moves in order."""
        table_VV = self.base_VV
        for move in policy.moves:
            tensor_VV = load_file(self.root / move.path)["table"].double()
            table_VV = tensor_VV if move.kind == "checkpoint" else table_VV + move.step * tensor_VV
        return table_VV

    def sample(self, shards: Sequence[Shard], policy: Policy) -> Iterator[list[Rollout]]:
        table_VV = self.table(policy)
        return ([r for request in shard for r in _draw(table_VV, request, policy.id)] for shard in shards)

    def score(
        self, rollouts: Sequence[Rollout], policy: Policy, *, temperature: float, kl_to: Policy | None = None
    ) -> list[TokenScore]:
        own_VV = torch.log_softmax(self.table(policy) / temperature, -1)
        entropy_V = -(own_VV.exp() * own_VV).sum(-1)
        kl_V = None
        if kl_to is not None:
            kl_V = (own_VV.exp() * (own_VV - torch.log_softmax(self.table(kl_to) / temperature, -1))).sum(-1)
        scores = []
        for rollout in rollouts:
            before_T, after_T = _pairs(rollout)
            kl_T = None if kl_V is None else kl_V[before_T].float().numpy()
            scores.append(
                TokenScore(own_VV[before_T, after_T].float().numpy(), entropy_V[before_T].float().numpy(), kl_T)
            )
        return scores

    def gradient(
        self, batch: Batch, policy: Policy, objective: Objective, *, out: Path, progress: Progress = silent
    ) -> Direction:
        """Sub-batches are summed in index order, and divided once."""
        table_VV, parts = self.table(policy), []
        for index in range(batch.num_sub_batches):
            parts.append(self.part(table_VV, batch, index, objective))
            progress(index + 1, batch.num_sub_batches)
        if not any(part.groups for part in parts):
            raise NoSignal("the batch holds no live group")
        ascent_VV = -torch.stack([part.gradient_VV for part in parts]).sum(0) / batch.normaliser
        norms = {"weight_norms": json.dumps({"table": float(self.base_VV.norm())})}
        store.write_via(self.root / out, lambda temporary: save_file({"table": ascent_VV}, temporary, norms))
        digest = store.digest(self.root / out)
        return Direction(
            id=digest[:16],
            kind="raw",
            norm=float(ascent_VV.norm()),
            weight_norm=float(self.base_VV.norm()),
            path=str(out),
            digest=digest,
            groups_used=sum(part.groups for part in parts),
            sub_batches=len(parts),
            logprob_gap=max(part.gap for part in parts),
            tokens=sum(part.tokens for part in parts),
        )

    def part(self, table_VV: torch.Tensor, batch: Batch, index: int, objective: Objective) -> Part:
        """One sub-batch in one microbatch."""
        groups = list(batch.read(index))
        if not groups:
            return Part(torch.zeros_like(table_VV), 0.0, 0, 0, 0.0)
        live_VV = table_VV.detach().requires_grad_()
        seen = self._token_batch(live_VV, groups, batch.temperature, objective.needs)
        loss = objective.loss(seen)
        (gradient_VV,) = torch.autograd.grad(loss, [live_VV])
        gap = ((seen.logprobs_BT.detach() - seen.old_logprobs_BT).abs() * seen.mask_BT).max()
        return Part(gradient_VV, float(loss.detach()), len(groups), int(seen.mask_BT.sum()), float(gap))

    def _token_batch(
        self, table_VV: torch.Tensor, groups: Sequence[WeightedGroup], temperature: float, needs: frozenset[str]
    ) -> TokenBatch:
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        own_VV = torch.log_softmax(table_VV / temperature, -1)
        base_VV = torch.log_softmax(self.base_VV / temperature, -1)
        entropy_V = -(own_VV.exp() * own_VV).sum(-1)
        pairs = [_pairs(rollout) for rollout in rollouts]

        def padded(values: Sequence[torch.Tensor]) -> torch.Tensor:
            return torch.nn.utils.rnn.pad_sequence(list(values), batch_first=True)

        return TokenBatch(
            logprobs_BT=padded([own_VV[b, a] for b, a in pairs]),
            mask_BT=padded([torch.ones(len(b), dtype=torch.bool) for b, _ in pairs]),
            weights_B=torch.from_numpy(np.concatenate([group.weights_G for group in groups])),
            entropy_BT=padded([entropy_V[b] for b, _ in pairs]) if "entropy" in needs else None,
            old_logprobs_BT=padded([torch.from_numpy(rollout.logprobs).double() for rollout in rollouts]),
            ref_logprobs_BT=padded([base_VV[b, a] for b, a in pairs]) if "ref_logprob" in needs else None,
        )

    def trainer(self, policy: Policy, optimizer: Optimizer) -> PlaceholderTrainer:
        return PlaceholderTrainer(self, policy, optimizer)

    def displacement(self, policy: Policy) -> Displacement:
        delta_VV = self.table(policy) - self.base_VV
        norm = float(delta_VV.norm())
        return Displacement(norm, norm / float(self.base_VV.norm()), float((delta_VV != 0).double().mean()))

    def materialise(self, policy: Policy, folder: Path) -> None:
        table_VV = self.table(policy)
        store.write_via(folder / FILE, lambda temporary: save_file({"table": table_VV}, temporary))

    def limits(self) -> EngineLimits:
        return EngineLimits(None, self.shard_rollouts, V * V, 8 * V * V, 0)

    def identity(self) -> Mapping[str, str]:
        digest = store.fingerprint(self.base_VV.tolist())
        return {"revision": digest[:12], "dtype": "float64", "device": "cpu"}

    def close(self) -> None:
        """Nothing is held open."""


class PlaceholderTrainer:
    """AdamW of torch on a live table."""

    def __init__(self, engine: Placeholder, policy: Policy, optimizer: Optimizer) -> None:
        self.engine, self.clip = engine, math.inf if optimizer.clip is None else optimizer.clip
        self.live_VV = torch.nn.Parameter(engine.table(policy).clone())
        self.optimizer = torch.optim.AdamW(
            [self.live_VV], lr=optimizer.lr, betas=optimizer.betas, weight_decay=optimizer.weight_decay
        )

    def step(self, batch: Batch, objective: Objective) -> Mapping[str, float]:
        """One update; returns loss, grad_norm (before clipping) and tokens."""
        parts = [self.engine.part(self.live_VV.data, batch, i, objective) for i in range(batch.num_sub_batches)]
        self.live_VV.grad = torch.stack([part.gradient_VV for part in parts]).sum(0) / batch.normaliser
        norm = torch.nn.utils.clip_grad_norm_([self.live_VV], self.clip)
        self.optimizer.step()
        loss = sum(part.loss for part in parts) / batch.normaliser
        return {"loss": loss, "grad_norm": float(norm), "tokens": float(sum(part.tokens for part in parts))}

    def checkpoint(self, path: Path) -> None:
        table_VV = self.live_VV.data
        store.write_via(path, lambda temporary: save_file({"table": table_VV}, temporary))

    def save(self, path: Path) -> None:
        tensors = {"table": self.live_VV.data, **self.optimizer.state[self.live_VV]}
        store.write_via(path, lambda temporary: save_file(tensors, temporary))

    def load(self, path: Path) -> None:
        tensors = load_file(path)
        self.live_VV.data.copy_(tensors.pop("table"))
        self.optimizer.state[self.live_VV] = tensors


def _load(model: str) -> torch.Tensor:
    if model != "tiny":
        path = Path(model) / FILE
        if not path.is_file():
            raise UsageError(f'the engine "placeholder" knows the model "tiny" or a folder with {FILE}, not "{model}"')
        stored_VV: torch.Tensor = load_file(path)["table"].double()
        return stored_VV
    table_VV = torch.from_numpy(seeds.generator(seeds.seed_for(0, "placeholder")).standard_normal((V, V)))
    table_VV[:, END] += 2.0  # so that completions end
    return table_VV


def _draw(table_VV: torch.Tensor, request: SampleRequest, policy: str) -> Iterator[Rollout]:
    """Each completion from its own seed: it depends on nothing else that is drawn."""
    prompt = np.frombuffer(request.prompt.encode(), dtype=np.uint8).astype(np.int32)
    logprobs_VV = torch.log_softmax(table_VV / (request.temperature or 1.0), -1).numpy()
    for sample_idx, seed in zip(request.sample_idxs, request.seeds, strict=True):
        uniforms_T = seeds.generator(seed).random(request.max_tokens)
        last, tokens, logprobs = int(prompt[-1]), [], []
        for uniform in uniforms_T:
            row_V = logprobs_VV[last]
            # The last cumulative sum may round below 1, and the draw above it.
            drawn = min(int(np.searchsorted(np.cumsum(np.exp(row_V)), uniform, side="right")), END)
            last = drawn if request.temperature else int(row_V.argmax())
            tokens.append(last)
            logprobs.append(row_V[last])
            if last == END:
                break
        yield Rollout(
            problem_id=request.problem_id,
            sample_idx=sample_idx,
            policy=policy,
            seed=seed,
            prompt_tokens=prompt,
            completion_tokens=np.array(tokens, dtype=np.int32),
            logprobs=np.array(logprobs, dtype=np.float32),
            text=bytes(token for token in tokens if token != END).decode(errors="replace"),
            finish=Finish.STOP if last == END else Finish.LENGTH,
        )


def _pairs(rollout: Rollout) -> tuple[torch.Tensor, torch.Tensor]:
    """Each completion token's predecessor, and the token."""
    after_T = torch.from_numpy(rollout.completion_tokens.astype(np.int64))
    before_T = torch.cat([torch.tensor([int(rollout.prompt_tokens[-1])]), after_T[:-1]])
    return before_T, after_T
