"""What the rules of an engine look at: a few rollouts of its smallest model, and a batch to differentiate.

Does: make engines in a temporary run folder, draw rollouts, weigh them at random, and measure directions in weight
space through nothing but the Engine protocol.
Doesn't: know any engine. Prompts are those of the domain of the same name where there is one (the tabular engine reads
no others), else a few plain texts. The model is "tiny", which every engine takes as its smallest.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import save_file

from harness import seeds, store
from harness.config import EngineSpec
from harness.contracts import Engine
from harness.objectives import PolicyGradient
from harness.plugins import Plugins, Registration
from harness.testing.rules import loaded
from harness.types import Direction, Move, Policy, Rollout, SampleRequest, Shard, WeightedGroup

MODEL = "tiny"
_FORMAT = "Show steps, end with \\boxed{N}.\n"
# Phrased as the embedded model knows it: far from all a model has seen, fp32 gradients lose a digit.
PROMPTS = tuple(
    f"{sums} {_FORMAT}" for sums in ("Take 12. Add 9.", "Take 41. Double it.", "Take 8. Add one ten.", "Take 7.")
)
SAMPLES, MAX_TOKENS = 4, 8
SMALL_MICROBATCH = 16  # tokens: less than two rollouts
BASE = Policy(base=MODEL)
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class FixedBatch:
    """A batch held in memory; implements harness.contracts.Batch."""

    groups: tuple[tuple[WeightedGroup, ...], ...]
    normaliser: float
    temperature: float = 1.0

    @property
    def num_sub_batches(self) -> int:
        return len(self.groups)

    def read(self, sub_batch: int) -> Iterator[WeightedGroup]:
        return iter(self.groups[sub_batch])


class Gradient(NamedTuple):
    """A direction with its tensors and the weight norms of its header."""

    direction: Direction
    tensors: Arrays
    weight_norms: Mapping[str, float]


class EngineSubject:
    """A registered engine under check, on the model "tiny"."""

    def __init__(self, registration: Registration, plugins: Plugins) -> None:
        self.registration, self._plugins = registration, plugins
        self._folder = tempfile.TemporaryDirectory(prefix="harness-check-")
        self.root = Path(self._folder.name)
        self._made: list[Engine] = []

    def close(self) -> None:
        for engine in self._made:
            engine.close()
        self._folder.cleanup()

    def make(self, model: str = MODEL, **options: Any) -> Engine:
        """A fresh engine, in fp32 and on one worker where nothing else is asked for."""
        defaults = {**asdict(EngineSpec()), "dtype": "float32", "workers": 1, "shard_rollouts": SAMPLES * 2}
        engine: Engine = loaded(self.registration)(model, self.root, {**defaults, **options})
        self._made.append(engine)
        return engine

    @cached_property
    def engine(self) -> Engine:
        return self.make()

    @cached_property
    def prompts(self) -> list[str]:
        name = self.registration.name
        if ("domain", name) not in self._plugins.registered:
            return list(PROMPTS)
        domain = self._plugins.lookup("domain", name).load()()
        benchmark = next(iter(domain.benchmarks()))
        problems = domain.problems(benchmark.name, benchmark.splits[0], seed=0, limit=len(PROMPTS))
        return [problem.prompt for problem in problems]

    def shards(self, *, run: int = 0, temperature: float = 1.0) -> list[Shard]:
        """Two shards of two prompts each; `run` decides every seed."""
        requests = [_request(prompt, run=run, temperature=temperature) for prompt in self.prompts]
        return [tuple(requests[:2]), tuple(requests[2:])]

    def draw(self, policy: Policy = BASE, engine: Engine | None = None, **changes: Any) -> list[Rollout]:
        shards = (engine or self.engine).sample(self.shards(**changes), policy)
        return [rollout for shard in shards for rollout in shard]

    @cached_property
    def rollouts(self) -> list[Rollout]:
        return self.draw()

    @cached_property
    def batch(self) -> FixedBatch:
        """The rollouts in two sub-batches, with random weights of both signs."""
        groups = []
        for prompt in self.prompts:
            own = tuple(rollout for rollout in self.rollouts if rollout.problem_id == prompt)
            weights_G = seeds.generator(seeds.seed_for(0, "weights", prompt)).standard_normal(len(own))
            groups.append(WeightedGroup(own, weights_G))
        return FixedBatch((tuple(groups[::2]), tuple(groups[1::2])), normaliser=float(len(self.rollouts)))

    @property
    def opposite(self) -> FixedBatch:
        """The batch with every weight negated: optimizer state shows in what it does next."""
        flipped = (tuple(group._replace(weights_G=-group.weights_G) for group in part) for part in self.batch.groups)
        return replace(self.batch, groups=tuple(flipped))

    def gradient_of(self, engine: Engine, out: str) -> Gradient:
        direction = engine.gradient(self.batch, BASE, PolicyGradient(), out=Path(out))
        with safe_open(self.root / direction.path, framework="np") as file:
            norms = json.loads((file.metadata() or {}).get("weight_norms", "{}"))
            return Gradient(direction, {name: file.get_tensor(name) for name in sorted(file.keys())}, norms)

    @cached_property
    def gradient(self) -> Gradient:
        return self.gradient_of(self.engine, "check/gradient.safetensors")

    def noise(self, number: int) -> Arrays:
        """A random direction that moves every tensor by the same relative amount: |u_t| = |theta_t|."""
        norms = self.gradient.weight_norms
        floor = max(norms.values()) / 100  # a tensor of zeros has a gradient too
        noise = {}
        for name, tensor in self.gradient.tensors.items():
            gauss = seeds.generator(seeds.seed_for(number, "noise", name)).standard_normal(tensor.shape)
            scale = max(norms[name], floor) / max(float(np.linalg.norm(gauss)), 1e-30)
            noise[name] = (gauss * scale).astype(tensor.dtype)
        return noise

    def moved(self, tensors: Arrays, *, step: float, name: str) -> Policy:
        """The base moved by step x tensors."""
        path = self.root / f"check/{name}.safetensors"
        if not path.exists():
            store.write_via(path, lambda temporary: save_file(tensors, temporary))
        move = Move(kind="direction", path=str(path.relative_to(self.root)), digest=store.digest(path), step=step)
        return Policy(base=MODEL, moves=(move,))

    def value(self, policy: Policy) -> float:
        """Minus the loss of the batch at a policy, by `score`: what `gradient` is the gradient of."""
        total = 0.0
        for group in (group for part in self.batch.groups for group in part):
            scores = self.engine.score(group.rollouts, policy, temperature=self.batch.temperature)
            sums_G = [float(np.sum(score.logprobs_T, dtype=np.float64)) for score in scores]
            total += float(np.dot(group.weights_G, sums_G))
        return total / self.batch.normaliser


def _request(prompt: str, *, run: int, temperature: float) -> SampleRequest:
    idxs = tuple(range(SAMPLES))
    return SampleRequest(
        problem_id=prompt,
        prompt=prompt,
        sample_idxs=idxs,
        seeds=tuple(seeds.seed_for(run, "check", prompt, idx) for idx in idxs),
        temperature=temperature,
        max_tokens=MAX_TOKENS,
    )


def tokens_of(rollouts: Sequence[Rollout]) -> list[tuple[str, int, tuple[int, ...], str]]:
    """What was drawn, without what names the policy."""
    return [(r.problem_id, r.sample_idx, tuple(r.completion_tokens.tolist()), r.text) for r in rollouts]


def apart(one: Sequence[Rollout], other: Sequence[Rollout]) -> float:
    """The largest difference of log-probabilities between equal completions, in nats."""
    gaps = [np.abs(a.logprobs - b.logprobs).max(initial=0.0) for a, b in zip(one, other, strict=True)]
    return float(max(gaps, default=0.0))
