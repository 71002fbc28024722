"""The `tabular` engine: softmax policies over short strings, whose every truth can be enumerated.

Does: all an engine does (sample, score, differentiate, store; tabular_training.py trains) for the policies of
tabular_policy.py, in float64 and in one thread, so that methods and statistics are tested in seconds against exact numbers.
Doesn't: understand any prompt but those of tabular_domain.py, or use options other than `shard_rollouts`. It is for
tests and controlled experiments.

`model` is "tabular" (or "tiny", the default of every engine): five classes of pass rate .6 .3 .15 .05 .01;
"tabular:.5,.2,.05": one class, that is one level, for each rate; or a folder that `materialise` wrote. Prompt tokens
are the prompt's UTF-8 bytes; completion tokens are 256 (end), then the styles, then the digits.
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

from harness import seeds, stats, store
from harness.contracts import Batch, Displacement, EngineLimits, Objective, Optimizer, Progress, TokenBatch, silent
from harness.errors import NoSignal, UsageError
from harness.types import (
    Direction,
    Finish,
    FloatArray,
    Policy,
    Rollout,
    SampleRequest,
    Shard,
    TokenScore,
    WeightedGroup,
)
from harness_engines import noise
from harness_engines.critic import credit_of
from harness_engines.tabular_domain import ANSWERS, STYLES, task_of
from harness_engines.tabular_policy import (
    COMPLETION_TOKENS,
    NAMES,
    LogProbs,
    Tables,
    class_index,
    entropy,
    kl,
    log_probs,
    tables_for,
)
from harness_engines.tabular_training import VALUES, TabularActorCritic, TabularTrainer

DEFAULT_RATES = (0.6, 0.3, 0.15, 0.05, 0.01)
EOS = 256
STYLE_0 = EOS + 1
DIGIT_0 = STYLE_0 + len(STYLES)
WEIGHTS_FILE = "tabular.safetensors"


class Rows(NamedTuple):
    """Completions as table indices; what a completion cut short lacks is 0 and masked."""

    class_B: torch.Tensor
    style_B: torch.Tensor
    offset_B: torch.Tensor
    mask_BT: torch.Tensor


class Part(NamedTuple):
    """The loss sum of one sub-batch, its gradient, and what was seen."""

    gradient: Tables
    loss: float
    groups: int
    tokens: int
    logprob_gap: float


class Tabular:
    """See the module's docstring. Raises UsageError for a model it cannot make or find."""

    def __init__(self, model: str, root: Path, options: Mapping[str, Any]) -> None:
        self.root = root
        self.model = model
        self.base = _load_base(model)
        self.shard_rollouts = int(options.get("shard_rollouts", 512))

    def tables(self, policy: Policy) -> Tables:
        """The policy's parameters, to be enumerated by the functions of tabular_policy.py."""
        formed = dict(self.base)
        for move in policy.moves:
            if move.kind == "noise":
                formed = {name: t + noise.of(move, name, t) for name, t in formed.items()}
                continue
            tensors = load_file(self.root / move.path)
            if move.kind == "checkpoint":
                formed.update({name: t.double() for name, t in tensors.items()})
            else:
                formed.update({name: formed[name] + move.step * t.double() for name, t in tensors.items()})
        return formed

    def sample(self, shards: Sequence[Shard], policy: Policy) -> Iterator[list[Rollout]]:
        tables = self.tables(policy)
        return ([r for request in shard for r in _sample(tables, request, policy.id)] for shard in shards)

    def score(
        self, rollouts: Sequence[Rollout], policy: Policy, *, temperature: float, kl_to: Policy | None = None
    ) -> list[TokenScore]:
        if not rollouts:
            return []
        own, rows = log_probs(self.tables(policy), temperature), _rows(self.base, rollouts)
        columns = [_chosen(own, rows), _per_state(entropy(own.style_CS), entropy(own.offset_CSM), rows)]
        if kl_to is not None:
            other = log_probs(self.tables(kl_to), temperature)
            columns.append(_per_state(kl(own.style_CS, other.style_CS), kl(own.offset_CSM, other.offset_CSM), rows))
        scores = []
        for row, rollout in enumerate(rollouts):
            parts = [column[row, : len(rollout.completion_tokens)].numpy().astype(np.float32) for column in columns]
            scores.append(TokenScore(parts[0], parts[1], parts[2] if kl_to is not None else None))
        return scores

    def gradient(
        self, batch: Batch, policy: Policy, objective: Objective, *, out: Path, progress: Progress = silent
    ) -> Direction:
        tables = self.tables(policy)
        parts = self._parts(tables, batch, objective)
        progress(batch.num_sub_batches, batch.num_sub_batches)
        ascent = {name: -total / batch.normaliser for name, total in _sum(parts, tables).items()}
        norms = {name: float(t.norm()) for name, t in tables.items()}
        path = self.root / out
        store.write_via(path, lambda temporary: save_file(ascent, temporary, {"weight_norms": json.dumps(norms)}))
        digest = store.digest(path)
        signal = _signal(parts)
        return Direction(
            id=digest[:16],
            kind="raw",
            norm=float(_flat(ascent).norm()),
            weight_norm=math.hypot(*norms.values()),
            path=str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path),
            digest=digest,
            groups_used=sum(part.groups for part in parts),
            sub_batches=len(parts),
            snr=signal.snr,
            agreement=signal.agreement,
            half_cosine=signal.half_cosine,
            logprob_gap=float(np.max([part.logprob_gap for part in parts])),
            tokens=sum(part.tokens for part in parts),
        )

    def moments(
        self, batch: Batch, policy: Policy, objective: Objective, *, out: Path, rms: Path, progress: Progress = silent
    ) -> Direction:
        """See harness.contracts.Engine."""
        parts = self._parts(self.tables(policy), batch, objective)
        squares = [{name: (t / batch.normaliser).square() for name, t in part.gradient.items()} for part in parts]
        sizes = {name: torch.stack([part[name] for part in squares]).mean(0).sqrt() for name in squares[0]}
        store.write_via(self.root / rms, lambda temporary: save_file(sizes, temporary))
        return self.gradient(batch, policy, objective, out=out, progress=progress)

    def _parts(self, tables: Tables, batch: Batch, objective: Objective) -> list[Part]:
        """Of the sub-batches with a live group. Raises NoSignal."""
        found = [self.sub_batch(tables, batch, s, objective) for s in range(batch.num_sub_batches)]
        parts = [part for part in found if part is not None]
        if not parts:
            raise NoSignal("the batch holds no live group")
        return parts

    def sub_batch(self, tables: Tables, batch: Batch, index: int, objective: Objective) -> Part | None:
        """Gradient of the loss sum over one sub-batch, in one microbatch; None when no group of it is live."""
        groups = list(batch.read(index))
        if not groups:
            return None
        live = {name: t.detach().requires_grad_() for name, t in tables.items()}
        seen = self._token_batch(live, groups, temperature=batch.temperature, needs=objective.needs)
        loss = objective.loss(seen)
        gradient = torch.autograd.grad(loss, list(live.values()), allow_unused=True, materialize_grads=True)
        gap = ((seen.logprobs_BT.detach() - seen.old_logprobs_BT).abs() * seen.mask_BT).max()
        tokens = int(seen.mask_BT.sum()) + sum(len(group.rollouts[0].prompt_tokens) for group in groups)
        return Part(dict(zip(live, gradient, strict=True)), float(loss.detach()), len(groups), tokens, float(gap))

    def _token_batch(
        self, tables: Tables, groups: Sequence[WeightedGroup], *, temperature: float, needs: frozenset[str]
    ) -> TokenBatch:
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        rows, own = _rows(self.base, rollouts), log_probs(tables, temperature)
        old_BT = torch.zeros(rows.mask_BT.shape, dtype=torch.float64)
        old_BT[rows.mask_BT] = torch.from_numpy(np.concatenate([r.logprobs for r in rollouts])).double()
        return TokenBatch(
            logprobs_BT=_chosen(own, rows),
            mask_BT=rows.mask_BT,
            weights_B=torch.from_numpy(np.concatenate([group.weights_G for group in groups])),
            entropy_BT=_per_state(entropy(own.style_CS), entropy(own.offset_CSM), rows) if "entropy" in needs else None,
            old_logprobs_BT=old_BT,
            ref_logprobs_BT=_chosen(log_probs(self.base, temperature), rows) if "ref_logprob" in needs else None,
            group_B=torch.tensor([g for g, group in enumerate(groups) for _ in group.rollouts]),
            values_BT=_values(tables, rows) if "value" in needs else None,
            credit=credit_of([credit for group in groups for credit in group.credits or ()], old_BT),
        )

    def values(self, tables: Tables, rollouts: Sequence[Rollout]) -> list[FloatArray]:
        """What the value tables among `tables` say of the states before each token."""
        found_BT = _values(tables, _rows(self.base, rollouts)).float().numpy()
        return [row_T[: len(r.completion_tokens)].copy() for row_T, r in zip(found_BT, rollouts, strict=True)]

    def trainer(self, policy: Policy, optimizer: Optimizer) -> TabularTrainer:
        return TabularTrainer(self, policy, optimizer)

    def actor_critic(self, policy: Policy, optimizer: Optimizer, *, critic_lr: float) -> TabularActorCritic:
        return TabularActorCritic(self, policy, optimizer, critic_lr=critic_lr)

    def displacement(self, policy: Policy) -> Displacement:
        base, moved = _flat(self.base), _flat(self.tables(policy))
        norm = float((moved - base).norm())
        return Displacement(norm, norm / float(base.norm()), float((moved != base).double().mean()))

    def materialise(self, policy: Policy, folder: Path) -> None:
        tables = self.tables(policy)
        store.write_via(folder / WEIGHTS_FILE, lambda temporary: save_file(tables, temporary))

    def limits(self) -> EngineLimits:
        count = _flat(self.base).numel()
        return EngineLimits(None, self.shard_rollouts, count, 8 * count, 8 * COMPLETION_TOKENS)

    def identity(self) -> Mapping[str, str]:
        digest = store.fingerprint([self.base[name].tolist() for name in NAMES])
        return {"revision": digest[:12], "dtype": "float64", "device": "cpu", WEIGHTS_FILE: digest}

    def close(self) -> None:
        """Nothing is held open."""


def _load_base(model: str) -> Tables:
    if model in {"tabular", "tiny"}:
        return tables_for(DEFAULT_RATES)
    if model.startswith("tabular:"):
        try:
            return tables_for([float(rate) for rate in model.removeprefix("tabular:").split(",")])
        except ValueError as error:
            raise UsageError(f'"{model}" is no list of pass rates: {error}. Try tabular:.5,.2,.05') from error
    path = Path(model) / WEIGHTS_FILE
    if not path.is_file():
        raise UsageError(f'the tabular engine knows "tabular", "tabular:.5,.2,.05" or a folder with {path.name}')
    tables: Tables = load_file(path)
    return tables


def _sample(tables: Tables, request: SampleRequest, policy: str) -> Iterator[Rollout]:
    """One uniform number a token from the completion's own seed: the same draws for every policy."""
    task = task_of(request.prompt)
    greedy = request.temperature == 0
    prompt_tokens = np.frombuffer(request.prompt.encode(), dtype=np.uint8).astype(np.int32)
    style_CS, offset_CSM = log_probs(tables, 1.0 if greedy else request.temperature)
    c = class_index(tables, task.level)
    style_S, offset_SM = style_CS[c].numpy(), offset_CSM[c].numpy()
    for sample_idx, seed in zip(request.sample_idxs, request.seeds, strict=True):
        uniforms = seeds.generator(seed).random(2)
        s = _pick(style_S, uniforms[0], greedy=greedy)
        o = _pick(offset_SM[s], uniforms[1], greedy=greedy)
        digit = (task.item + o) % ANSWERS
        length = min(request.max_tokens, COMPLETION_TOKENS)
        yield Rollout(
            problem_id=request.problem_id,
            sample_idx=sample_idx,
            policy=policy,
            seed=seed,
            prompt_tokens=prompt_tokens,
            completion_tokens=np.array([STYLE_0 + s, DIGIT_0 + digit, EOS], dtype=np.int32)[:length],
            logprobs=np.array([style_S[s], offset_SM[s, o], 0.0], dtype=np.float32)[:length],
            text=f"{STYLES[s]}{digit}"[:length],
            finish=Finish.STOP if length == COMPLETION_TOKENS else Finish.LENGTH,
        )


def _pick(logprobs: np.ndarray, uniform: float, *, greedy: bool) -> int:
    if greedy:
        return int(np.argmax(logprobs))
    # The last cumulative sum may round below 1, and the draw above it.
    return min(int(np.searchsorted(np.cumsum(np.exp(logprobs)), uniform, side="right")), len(logprobs) - 1)


def _rows(tables: Tables, rollouts: Sequence[Rollout]) -> Rows:
    index_B3, lengths = [], []
    for rollout in rollouts:
        task = task_of(bytes(rollout.prompt_tokens.astype(np.uint8)).decode())
        tokens = rollout.completion_tokens.tolist()
        offset = (tokens[1] - DIGIT_0 - task.item) % ANSWERS if len(tokens) > 1 else 0
        index_B3.append((class_index(tables, task.level), tokens[0] - STYLE_0, offset))
        lengths.append(len(tokens))
    class_B, style_B, offset_B = torch.tensor(index_B3).T
    mask_BT = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return Rows(class_B, style_B, offset_B, mask_BT)


def _chosen(own: LogProbs, rows: Rows) -> torch.Tensor:
    style_B = own.style_CS[rows.class_B, rows.style_B]
    return _columns(style_B, own.offset_CSM[rows.class_B, rows.style_B, rows.offset_B], rows)


def _per_state(first_C: torch.Tensor, second_CS: torch.Tensor, rows: Rows) -> torch.Tensor:
    """A quantity of the distribution each token was drawn from; that of the end is certain, hence 0."""
    return _columns(first_C[rows.class_B], second_CS[rows.class_B, rows.style_B], rows)


def _columns(style_B: torch.Tensor, digit_B: torch.Tensor, rows: Rows) -> torch.Tensor:
    columns_BT = torch.stack([style_B, digit_B, torch.zeros_like(style_B)], dim=1)[:, : rows.mask_BT.shape[1]]
    return columns_BT * rows.mask_BT


def _values(tables: Tables, rows: Rows) -> torch.Tensor:
    """A state is what was written so far: the value head is a table over states, that is linear in their indicators."""
    start_C, style_CS, offset_CSM = (tables[name] for name in VALUES)
    before_end_B = offset_CSM[rows.class_B, rows.style_B, rows.offset_B]
    columns_BT = torch.stack([start_C[rows.class_B], style_CS[rows.class_B, rows.style_B], before_end_B], dim=1)
    return columns_BT[:, : rows.mask_BT.shape[1]] * rows.mask_BT


def _flat(tables: Tables) -> torch.Tensor:
    return torch.cat([tables[name].flatten() for name in NAMES])


def _sum(parts: Sequence[Part], like: Tables) -> Tables:
    totals = {name: torch.zeros_like(t) for name, t in like.items()}
    for part in parts:
        totals = {name: total + part.gradient[name] for name, total in totals.items()}
    return totals


def _signal(parts: Sequence[Part]) -> stats.GradientSignal:
    flat_S = torch.stack([_flat(part.gradient) for part in parts])
    even, odd = flat_S[::2].sum(0), flat_S[1::2].sum(0)
    cosine = float(even @ odd / (even.norm() * odd.norm()).clamp_min(1e-300))
    return stats.gradient_signal(float(flat_S.sum(0).square().sum()), flat_S.square().sum(1).tolist(), cosine)
