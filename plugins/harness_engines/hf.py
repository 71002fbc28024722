"""The `hf` engine: any causal language model that transformers loads, sampled and differentiated by our own loops.

Does: spread shards, scoring and sub-batch gradients over worker processes, single-threaded ones on the CPU or one for each
GPU, and reduce sub-batch gradients in index order, so that results are bitwise equal for every number of workers.
Doesn't: truncate distributions, merge adapters, keep optimizer state (training.py), split a model over devices (fsdp.py), or
train (`trainer`) on more than one.

Departures from common practice, numbered:
1. The planned shard is the sampling batch; shards never mix, so a rollout does not depend on who sampled it.
2. Gradients are sums over completions of sequence-summed log-probabilities at the sampling temperature, divided
   once by the number of rollouts drawn, dead groups included.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file

from harness import stats, store
from harness.contracts import Batch, Displacement, EngineLimits, Loaded, Objective, Optimizer, Progress, silent
from harness.types import Direction, Policy, Rollout, Shard, TokenScore
from harness_engines import steering
from harness_engines.local import Local, ModelSpec, SubGradient, SubHidden
from harness_engines.model import Tensors, file_hashes
from harness_engines.training import HfActorCritic, HfTrainer
from harness_engines.workers import Workers

MICROBATCH_TOKENS = {True: 2048, False: 16_384}  # by "on the CPU", where a small one stays in its caches
SCORE_CHUNK = 64  # rollouts per scoring task; fixed, so that worker counts do not change results


class HfEngine:
    """`options`: dtype, device ("auto"), workers, shard_rollouts, microbatch_tokens, trust_remote_code; and
    gradient_checkpointing, False where it is left out."""

    def __init__(self, model: str, root: Path, options: Mapping[str, Any]) -> None:
        self.root = root
        devices = devices_of(options)
        device = devices[0]
        path = _embedded() if model == "tiny" else model
        self.spec = ModelSpec(
            path=path,
            root=root,
            dtype=_dtype(str(options["dtype"]), device),
            device=device,
            microbatch_tokens=int(options["microbatch_tokens"]) or MICROBATCH_TOKENS[device == "cpu"],
            trust_remote_code=bool(options["trust_remote_code"]),
            gradient_checkpointing=bool(options.get("gradient_checkpointing", False)),
        )
        self._specs = [self.spec._replace(device=name) for name in devices]
        self.shard_rollouts = int(options["shard_rollouts"])
        self._factory = self.factory(options)
        self.local = self._factory(self.spec)
        self._workers: Workers | None = None
        _ = self.local.model.eos_ids  # a model without one is refused before anything is drawn

    def factory(self, options: Mapping[str, Any]) -> Callable[[ModelSpec], Local]:
        """What does the work of one process. Picklable: each makes its own."""
        return Local

    def _run(self, name: str, tasks: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        if len(self._specs) == 1:
            return (getattr(self.local, name)(*task) for task in tasks)
        self._workers = self._workers or Workers(self._factory, [(spec,) for spec in self._specs])
        return self._workers.run([(name, task) for task in tasks])

    def sample(self, shards: Sequence[Shard], policy: Policy) -> Iterator[list[Rollout]]:
        return self._run("sample", [(shard, policy) for shard in shards])

    def sample_each(self, shards: Sequence[Shard], policies: Sequence[Policy]) -> Iterator[list[Rollout]]:
        return self._run("sample", list(zip(shards, policies, strict=True)))

    def score(
        self, rollouts: Sequence[Rollout], policy: Policy, *, temperature: float, kl_to: Policy | None = None
    ) -> list[TokenScore]:
        chunks = [rollouts[start : start + SCORE_CHUNK] for start in range(0, len(rollouts), SCORE_CHUNK)]
        parts = self._run("score", [(chunk, policy, temperature, kl_to) for chunk in chunks])
        return [score for part in parts for score in part]

    def gradient(
        self, batch: Batch, policy: Policy, objective: Objective, *, out: Path, progress: Progress = silent
    ) -> Direction:
        return self._gradient(_Reduction(batch.normaliser), batch, policy, objective, out=out, progress=progress)

    def moments(
        self, batch: Batch, policy: Policy, objective: Objective, *, out: Path, rms: Path, progress: Progress = silent
    ) -> Direction:
        """See harness.contracts.Engine."""
        total = _Moments(batch.normaliser)
        found = self._gradient(total, batch, policy, objective, out=out, progress=progress)
        store.write_via(self.root / rms, lambda temporary: save_file(total.rms(), temporary))
        return found

    def _gradient(
        self, total: _Reduction, batch: Batch, policy: Policy, objective: Objective, *, out: Path, progress: Progress
    ) -> Direction:
        tasks = [(batch, index, policy, objective) for index in range(batch.num_sub_batches)]
        for done, part in enumerate(self._run("gradient", tasks), start=1):
            total.add(part)
            progress(done, len(tasks))
        weights = self.local.model.weights(policy)
        norms = {name: float(weights[name].double().norm()) for name in self.local.model.base}
        return replace(self._written(total, norms, out=out), logprob_gap=total.gap)

    def linear(self) -> list[str]:
        """See harness.contracts.Engine."""
        return self.local.model.linear

    def hidden(
        self, batch: Batch, policy: Policy, *, depths: Sequence[float], out: Path, progress: Progress = silent
    ) -> list[Direction]:
        """See harness.contracts.Engine. Of layer i a direction holds the tensor steer/i; it is of kind hidden/i."""
        layers = self.local.model.residual.at(depths)
        tasks = [(batch, index, policy, layers) for index in range(batch.num_sub_batches)]
        totals, squares_L, rollouts = [_Reduction(batch.normaliser) for _ in layers], np.zeros(len(layers)), 0
        for done, part in enumerate(self._run("hidden", tasks), start=1):
            seen: SubHidden = part
            for total, own in zip(totals, seen.layers, strict=True):
                total.add(own)
            squares_L, rollouts = squares_L + seen.squares_L, rollouts + seen.rollouts
            progress(done, len(tasks))
        found = []
        for layer, total, square in zip(layers, totals, squares_L, strict=True):
            norms = {steering.name_of(layer): math.sqrt(square / rollouts)}
            written = self._written(total, norms, out=out / f"layer-{layer}.safetensors")
            found.append(replace(written, kind=f"hidden/{layer}"))
        return found

    def _written(self, total: _Reduction, norms: Mapping[str, float], *, out: Path) -> Direction:
        path = self.root / out
        store.write_via(path, lambda temporary: save_file(total.sum, temporary, {"weight_norms": json.dumps(norms)}))
        digest, signal = store.digest(path), total.signal()
        return Direction(
            id=digest[:16],
            kind="raw",
            norm=_norm(total.sum),
            weight_norm=math.sqrt(sum(n * n for n in norms.values())),
            path=str(out),
            digest=digest,
            groups_used=total.groups,
            sub_batches=len(total.square_norms),
            tokens=total.tokens,
            snr=signal.snr,
            agreement=signal.agreement,
            half_cosine=signal.half_cosine,
        )

    def trainer(self, policy: Policy, optimizer: Optimizer) -> HfTrainer:
        return HfTrainer(self.local, policy, optimizer)

    def actor_critic(self, policy: Policy, optimizer: Optimizer, *, critic_lr: float) -> HfActorCritic:
        return HfActorCritic(self.local, policy, optimizer, critic_lr=critic_lr)

    def displacement(self, policy: Policy) -> Displacement:
        return self.local.model.displacement(policy)

    def materialise(self, policy: Policy, folder: Path) -> None:
        self.local.model.materialise(policy, folder)

    def transformers(self, policy: Policy) -> AbstractContextManager[Loaded]:
        """See harness.contracts.Engine."""
        self.local.model.unsteered(policy, "lending")
        return self.local.model.lent(policy)

    def limits(self) -> EngineLimits:
        config = self.local.model.module.config
        weights = self.local.model.base.values()
        parameters = sum(t.numel() for t in weights)
        heads = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", 1)
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        per_token = 2 * config.num_hidden_layers * heads * width * next(iter(weights)).element_size()
        size = sum(t.numel() * t.element_size() for t in weights)
        return EngineLimits(self.local.model.context, self.shard_rollouts, parameters, size, per_token)

    def identity(self) -> Mapping[str, str]:
        hashes = file_hashes(self.spec.path, code=self.spec.trust_remote_code)
        revision = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()[:12]
        return {"revision": revision, "dtype": self.spec.dtype, "device": self.device_name(), **hashes}

    def device_name(self) -> str:
        return torch.cuda.get_device_name(self.spec.device) if self.spec.device.startswith("cuda") else "cpu"

    def close(self) -> None:
        if self._workers is not None:
            self._workers.close()


def opened(model: str, root: Path, options: Mapping[str, Any]) -> HfEngine:
    """The engine that the options ask for."""
    if options.get("fsdp", False):
        from harness_engines.fsdp import FsdpEngine

        return FsdpEngine(model, root, options)
    return HfEngine(model, root, options)


class Signal(NamedTuple):
    """Consistency of the sub-batches; None below stats.MIN_SUB_BATCHES of them."""

    snr: float | None
    agreement: float | None
    half_cosine: float | None


class _Reduction:
    """Sub-batch gradients summed in index order in main memory; norms and two half sums are all that is kept of the parts."""

    def __init__(self, normaliser: float) -> None:
        self.normaliser = normaliser
        self.sum: Tensors = {}
        self.even: Tensors = {}
        self.square_norms: list[float] = []
        self.groups = self.tokens = 0
        self.gap = 0.0

    def add(self, part: SubGradient) -> None:
        own = {name: torch.from_numpy(array).div_(self.normaliser) for name, array in part.arrays.items()}
        self.square_norms.append(_norm(own) ** 2)
        self.see(own)
        if len(self.square_norms) % 2 == 1:
            _add(self.even, own)
        _add(self.sum, own)
        self.groups, self.tokens = self.groups + part.groups, self.tokens + part.tokens
        self.gap = float(np.maximum(self.gap, part.logprob_gap))  # max() would drop a NaN

    def see(self, own: Tensors) -> None:
        """A part on its way."""

    def signal(self) -> Signal:
        if len(self.square_norms) < stats.MIN_SUB_BATCHES:
            return Signal(None, None, None)
        odd = {name: tensor - self.even[name] for name, tensor in self.sum.items()}
        dot = sum(float(a.double().flatten() @ odd[name].double().flatten()) for name, a in self.even.items())
        cosine = dot / max(_norm(self.even) * _norm(odd), 1e-300)
        signal = stats.gradient_signal(_norm(self.sum) ** 2, self.square_norms)
        return Signal(signal.snr, signal.agreement, cosine)


class _Moments(_Reduction):
    """Keeps the root of the sum of squares as well, one more copy; a hypotenuse, since small squares would underflow."""

    def __init__(self, normaliser: float) -> None:
        super().__init__(normaliser)
        self.root: Tensors = {}

    def see(self, own: Tensors) -> None:
        for name, tensor in own.items():
            self.root[name] = torch.hypot(self.root[name], tensor) if name in self.root else tensor.abs()

    def rms(self) -> Tensors:
        return {name: tensor / math.sqrt(len(self.square_norms)) for name, tensor in self.root.items()}


def _add(total: Tensors, part: Tensors) -> None:
    for name, tensor in part.items():
        if name in total:
            total[name] += tensor
        else:
            total[name] = tensor.clone()


def _norm(tensors: Tensors) -> float:
    return math.sqrt(sum(float(torch.linalg.vector_norm(t, dtype=torch.float64)) ** 2 for t in tensors.values()))


def devices_of(options: Mapping[str, Any]) -> list[str]:
    """One for each process: CPUs, or the GPUs of this machine where none is named, at most as many as `workers`."""
    name, workers = str(options["device"]), int(options["workers"])
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        return [f"cuda:{number}" for number in range(max(1, min(workers, torch.cuda.device_count())))]
    return [name] * (workers if name == "cpu" else 1)


def _dtype(name: str, device: str) -> str:
    if name != "auto":
        return name
    return "float32" if device == "cpu" else "bfloat16"


def _embedded() -> str:
    from harness_tiny import weights_path

    return str(weights_path())
