"""The work of one process: sample shards, score rollouts, sum the gradient of one sub-batch.

Does: run single-threaded on CPU, so that a result depends on its inputs alone and never on who computed it.
Doesn't: know about other processes (workers.py) or reduce over sub-batches (hf.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from harness.contracts import Batch, Objective, TokenBatch
from harness.errors import HarnessError
from harness.types import FloatArray, Policy, Rollout, Shard, TokenScore, WeightedGroup
from harness_engines import chunking, critic, forward, recomputing, sharing, splitting, steering
from harness_engines.decoding import sample_shard
from harness_engines.model import CausalModel, Tensors
from harness_engines.splitting import Body

KEPT_MICROBATCHES, KEPT_NUMBERS = 8, 2**26
NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
SMALLEST_MICROBATCH = 64  # tokens; a device without room for that has none for a run
T = TypeVar("T")


class ModelSpec(NamedTuple):
    """Everything a process needs to load the same model."""

    path: str
    root: Path
    dtype: str
    device: str
    microbatch_tokens: int
    trust_remote_code: bool
    gradient_checkpointing: bool = False


class SubGradient(NamedTuple):
    """Minus the gradient of one sub-batch's loss sum (fp32, not yet divided), and what was seen.

    `arrays` are tensors where they were made, and NumPy arrays when they leave a process.
    """

    arrays: Mapping[str, Any]
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
    """Of a microbatch's distinct positions: where each completion token's is, their number, and log-probabilities [C, V] of
    a chunk of them."""

    goal: forward.Targets
    position_BT: torch.Tensor
    positions: int
    logprobs: Callable[[slice], torch.Tensor]


def require_out_of_memory(error: Exception) -> None:
    """Raise it again where it is another one. The allocator of main memory has no exception of its own."""
    if not isinstance(error, torch.OutOfMemoryError | MemoryError) and NO_MEMORY not in str(error):
        raise error


class Local:
    """A model in this process."""

    def __init__(self, spec: ModelSpec) -> None:
        if spec.device == "cpu":
            torch.set_num_threads(1)
        self.spec = spec
        self.model = self._load()
        self.microbatch_tokens = spec.microbatch_tokens
        self._kept: dict[tuple[Any, ...], Predicted] = {}

    def _load(self) -> CausalModel:
        spec = self.spec
        return CausalModel(
            spec.path, spec.root, dtype=spec.dtype, device=spec.device, trust_remote_code=spec.trust_remote_code
        )

    def sample(self, shard: Shard, policy: Policy) -> list[Rollout]:
        try:
            with self.model.loaded(policy) as module:
                return sample_shard(self.model, module, shard, policy.id)
        except (RuntimeError, MemoryError) as error:  # shards are planned, and a smaller one would draw otherwise
            require_out_of_memory(error)
            raise HarnessError(
                f"{self.spec.device} has no room for {sum(len(request.seeds) for request in shard)} completions at a "
                "time: lower engine.shard_rollouts or sampling.max_tokens"
            ) from error

    def _fitting(self, work: Callable[[], T]) -> T:
        """Work from microbatches; where memory runs out, again from the start with microbatches half as large."""
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                require_out_of_memory(error)
                if self.microbatch_tokens // 2 < SMALLEST_MICROBATCH:
                    raise HarnessError(
                        f"{self.spec.device} has no room for a microbatch of {self.microbatch_tokens} tokens: "
                        "--set engine.gradient_checkpointing=true needs less, other processes there may need it"
                    ) from error
            self.microbatch_tokens //= 2
            text = f"out of memory on {self.spec.device}: microbatches of {self.microbatch_tokens} tokens from here on"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
            if torch.cuda.is_available():  # after the exception, which held on to what was being computed
                torch.cuda.empty_cache()

    @torch.inference_mode()
    def score(
        self, rollouts: Sequence[Rollout], policy: Policy, temperature: float, kl_to: Policy | None
    ) -> list[TokenScore]:
        return self._fitting(lambda: self._scores(rollouts, policy, temperature, kl_to))

    def _scores(
        self, rollouts: Sequence[Rollout], policy: Policy, temperature: float, kl_to: Policy | None
    ) -> list[TokenScore]:
        scores: dict[tuple[str, int], TokenScore] = {}
        groups = _by_prompt(rollouts)
        for micro in self._microbatches(groups, unit="rollout"):
            scores.update(self._score(micro, policy, temperature, kl_to))
        return [scores[rollout.problem_id, rollout.sample_idx] for rollout in rollouts]

    def _kept_prediction(self, micro: forward.Micro, policy: Policy, temperature: float) -> Predicted:
        """Of the last microbatches, where they are small: a line search asks for those of its origin again and again."""
        key = (policy.id, temperature, tuple((r.problem_id, r.sample_idx, r.policy, r.seed) for r in micro.rollouts))
        if key in self._kept:
            return self._kept[key]
        found = self._predicted(micro, policy, temperature)
        if found.positions * self._vocabulary <= min(KEPT_NUMBERS // KEPT_MICROBATCHES, chunking.CHUNK_NUMBERS):
            logprobs_MV = found.logprobs(slice(None))
            found = found._replace(logprobs=lambda _: logprobs_MV)
            while len(self._kept) >= KEPT_MICROBATCHES:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = found
        return found

    def _predicted(self, micro: forward.Micro, policy: Policy, temperature: float) -> Predicted:
        goal = forward.targets(self.model, micro.rollouts)
        with self.model.loaded(policy) as module:
            seen = forward.states(self.model, Body(module), micro, goal)
        hidden_MD, position_BT = chunking.needed(seen, goal.mask_BT, vocabulary=self._vocabulary)

        def logprobs(part: slice) -> torch.Tensor:
            with self.model.loaded(policy) as module:
                return chunking.log_softmax(splitting.logits(module, hidden_MD[part]), temperature)

        return Predicted(goal, position_BT, len(hidden_MD), logprobs)

    @property
    def _vocabulary(self) -> int:
        return chunking.vocabulary(self.model.module)

    def _score(
        self, micro: forward.Micro, policy: Policy, temperature: float, kl_to: Policy | None
    ) -> dict[tuple[str, int], TokenScore]:
        own = self._kept_prediction(micro, policy, temperature)
        other = None if kl_to is None else self._predicted(micro, kl_to, temperature)
        pairs = chunking.Pairs(own.position_BT.flatten(), own.goal.tokens_BT.flatten())
        chosen_K = torch.empty(len(pairs.token_K), device=self.model.device)
        entropy_M, kl_M = torch.empty((2, own.positions), device=self.model.device)
        for part in chunking.parts(own.positions, self._vocabulary):
            logprobs_CV, inside = own.logprobs(part), pairs.inside(part)
            chosen_K[inside] = logprobs_CV[pairs.places(inside, part)]
            entropy_M[part] = chunking.entropy(logprobs_CV)
            if other is not None:
                kl_M[part] = (logprobs_CV.exp() * (logprobs_CV - other.logprobs(part))).sum(-1)
        chosen_BT = chosen_K.view(own.position_BT.shape).cpu().numpy()
        entropy_BT, kl_BT = (x[own.position_BT].cpu().numpy() for x in (entropy_M, kl_M))
        found = {}
        for row, rollout in enumerate(micro.rollouts):
            length = len(rollout.completion_tokens)
            found[rollout.problem_id, rollout.sample_idx] = TokenScore(
                chosen_BT[row, :length].copy(),
                entropy_BT[row, :length].copy(),
                None if other is None else kl_BT[row, :length].copy(),
            )
        return found

    def _microbatches(self, groups: Sequence[WeightedGroup], *, unit: str) -> Iterator[forward.Micro]:
        as_trees = sharing.shareable(self.model.module)
        return forward.microbatches(groups, max_tokens=self.microbatch_tokens, unit=unit, as_trees=as_trees)

    def gradient(self, batch: Batch, index: int, policy: Policy, objective: Objective) -> SubGradient:
        found = self.gradient_at(self.model.weights(policy), batch, index, objective)
        return found._replace(arrays={name: t.cpu().numpy() for name, t in found.arrays.items()})

    def gradient_at(self, weights: Tensors, batch: Batch, index: int, objective: Objective) -> SubGradient:
        """Microbatches stream through; each backward is added to fp32 buffers and dropped.

        Among the weights may be a value head.
        """
        return self._fitting(lambda: self._gradient_at(weights, batch, index, objective))

    def _gradient_at(self, weights: Tensors, batch: Batch, index: int, objective: Objective) -> SubGradient:
        head_H = weights[critic.HEAD].detach().requires_grad_() if critic.HEAD in weights else None
        sink = {name: torch.zeros_like(weights[name], dtype=torch.float32) for name in self.model.parameters}
        tokens, gap, loss = 0, 0.0, 0.0
        live = list(batch.read(index))
        with self.model.swapped(weights) as module, _Collecting(self.model, sink), self._recomputed():
            for micro, counts in self._turns(self._microbatches(live, unit=objective.unit)):
                seen = forward.token_batch(
                    self.model, module, micro, temperature=batch.temperature, needs=objective.needs, head_H=head_H
                )
                value = counts * objective.loss(seen)
                value.backward()  # type: ignore[no-untyped-call]
                loss += float(value.detach())
                gap = float(np.maximum(gap, _gap(seen)))  # max() would drop a NaN
                tokens += counts * (
                    int(seen.mask_BT.sum()) + sum(len(group[0].prompt_tokens) for group in micro.groups)
                )
        if head_H is not None:
            sink[critic.HEAD] = torch.zeros_like(head_H) if head_H.grad is None else head_H.grad
        return SubGradient({name: t.neg_() for name, t in sink.items()}, len(live), tokens, gap, loss)

    def _turns(self, micros: Iterator[forward.Micro]) -> Iterator[tuple[forward.Micro, int]]:
        """Those that this process takes the gradient of, and whether they count, 1 or 0."""
        return ((micro, 1) for micro in micros)

    def _recomputed(self) -> AbstractContextManager[None]:
        return recomputing.recomputed(self.model.residual.layers if self.spec.gradient_checkpointing else ())

    @torch.inference_mode()
    def values_at(self, weights: Tensors, batch: Batch, index: int) -> dict[tuple[str, int], FloatArray]:
        """What the value head among `weights` says of the states before each token."""
        return self._fitting(lambda: self._values_at(weights, batch, index))

    def _values_at(self, weights: Tensors, batch: Batch, index: int) -> dict[tuple[str, int], FloatArray]:
        found = {}
        with self.model.swapped(weights) as module:
            for micro in self._microbatches(list(batch.read(index)), unit="rollout"):
                seen = forward.states(self.model, Body(module), micro, forward.targets(self.model, micro.rollouts))
                values_BT = critic.values(seen, weights[critic.HEAD]).cpu().numpy()
                for r, values_T in zip(micro.rollouts, values_BT, strict=True):
                    found[r.problem_id, r.sample_idx] = values_T[: len(r.completion_tokens)].copy()
        return found

    @torch.inference_mode()
    def hidden(self, batch: Batch, index: int, policy: Policy, layers: Sequence[int]) -> SubHidden:
        """A rollout's hidden state is the mean over its completion tokens of those that predict them."""
        return self._fitting(lambda: self._hidden(batch, index, policy, layers))

    def _hidden(self, batch: Batch, index: int, policy: Policy, layers: Sequence[int]) -> SubHidden:
        live, count = list(batch.read(index)), len(layers)
        size = self.model.module.config.hidden_size
        sum_LH, squares_L, tokens = torch.zeros((count, size), dtype=torch.float64), np.zeros(count), 0
        with self.model.loaded(policy) as module:
            reader = steering.Reader(module, [self.model.residual.layers[layer] for layer in layers])
            for micro in self._microbatches(live, unit="rollout"):
                goal = forward.targets(self.model, micro.rollouts)
                hidden_MD, position_BT = forward.states(self.model, reader, micro, goal)
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
                self.sink[name].add_(parameter.grad)
                parameter.grad = None

        return move

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()
        for parameter in self.model.parameters.values():
            parameter.requires_grad_(False)
            parameter.grad = None  # of a backward that was broken off
