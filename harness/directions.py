"""From weighted rollouts to a direction: the batch a gradient is taken of, and the kinds of direction.

Does: deal live groups into stratified sub-batches, give the policy-gradient loss, and transform one stored raw
gradient into the kinds that a line search can follow.
Doesn't: differentiate (engines do) or choose a step (stepping.py).

Kinds, for a raw gradient g_t and base weights theta_t of tensor t (docs/design.md section 1):
  raw         g_t
  per_tensor  g_t |theta_t| / |g_t|: every tensor moves by the same relative amount; zero where g_t is zero
  sign        sign(g_t): the first step of Adam with bias correction
  orthogonal  U V^T of the SVD of a matrix g_t, rescaled to |theta_t| (Muon-like); vectors as per_tensor
  positives_only  per_tensor of the gradient weighted by positive advantages alone (another gradient)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import save_file

from harness import advantages, seeds, store
from harness.contracts import TokenBatch
from harness.errors import HarnessError, NoSignal, UnknownName
from harness.sampling import RolloutBatch
from harness.types import Direction, Outcome, Problem, WeightedGroup

if TYPE_CHECKING:
    import torch

    from harness.config import RewardSpec

MAX_SUB_BATCHES = 16
Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class PolicyGradient:
    """REINFORCE with the batch's weights: minus the sum of weight x sequence log-probability."""

    needs: frozenset[str] = frozenset()
    unit: str = "rollout"

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        return -(batch.weights_B * (batch.logprobs_BT * batch.mask_BT).sum(1)).sum()


@dataclass(frozen=True, slots=True, kw_only=True)
class WeighedBatch:
    """A rollout batch with one weight per rollout; implements harness.contracts.Batch.

    `normaliser` is the number of rollouts drawn, dead groups included, so that the estimate does not depend on how
    many groups turned out dead. `sub_batches` holds the ids of live problems.
    """

    batch: RolloutBatch
    weights: Mapping[str, tuple[float, ...]]
    sub_batches: tuple[tuple[str, ...], ...]
    normaliser: float
    groups_dead: int
    pass_rate: float
    scheme: str
    shuffle_seed: int | None

    @property
    def temperature(self) -> float:
        return self.batch.temperature

    @property
    def num_sub_batches(self) -> int:
        return len(self.sub_batches)

    @property
    def key(self) -> str:
        """Names the gradient of this batch: same key, same numbers."""
        return store.fingerprint([self.batch.folder, self.scheme, self.shuffle_seed])

    def read(self, sub_batch: int) -> Iterator[WeightedGroup]:
        for problem_id in self.sub_batches[sub_batch]:
            weights = self.weights[problem_id]
            pairs = [(r, w) for r, w in zip(self.batch.group(problem_id), weights, strict=True) if w != 0]
            yield WeightedGroup(tuple(r for r, _ in pairs), np.array([w for _, w in pairs]))


def weigh(
    batch: RolloutBatch,
    problems: Sequence[Problem],
    *,
    rewards: RewardSpec,
    scheme: str = "grpo",
    shuffle_seed: int | None = None,
) -> WeighedBatch:
    """Group-normalised advantages from the stored verdicts; with `shuffle_seed` of rewards shuffled within groups."""
    rewards_of: dict[str, list[float | None]] = {}
    correct = judged = 0
    for entry in batch.judged():
        reward = rewards.of(entry.verdict.outcome)
        rewards_of.setdefault(entry.problem_id, []).append(reward)
        judged += reward is not None
        correct += entry.verdict.outcome is Outcome.CORRECT
    if shuffle_seed is not None:
        rewards_of = {
            key: advantages.shuffled(group, seeds.seed_for(shuffle_seed, "shuffle", key))
            for key, group in rewards_of.items()
        }
    live = [problem for problem in problems if not advantages.is_dead(rewards_of[problem.id])]
    weights = {p.id: tuple(advantages.group_advantages(rewards_of[p.id], scheme).weights_G.tolist()) for p in live}
    return WeighedBatch(
        batch=batch,
        weights=weights,
        sub_batches=deal(live),
        normaliser=float(len(problems) * batch.samples),
        groups_dead=len(problems) - len(live),
        pass_rate=correct / judged if judged else float("nan"),
        scheme=scheme,
        shuffle_seed=shuffle_seed,
    )


def deal(problems: Sequence[Problem]) -> tuple[tuple[str, ...], ...]:
    """Disjoint sub-batches of problems, each with nearly the same mix of levels; never splits a group."""
    count = min(MAX_SUB_BATCHES, len(problems))
    ordered = sorted(problems, key=lambda p: (p.level or 0, p.content_hash))
    return tuple(tuple(p.id for p in ordered[start::count]) for start in range(count))


def require_signal(weighed: WeighedBatch) -> None:
    """Raises NoSignal when every group is dead."""
    if not weighed.sub_batches:
        raise NoSignal(
            f"no group with both rewards among {weighed.groups_dead} (batch pass rate {weighed.pass_rate:.4f}): "
            "there is no direction. Use easier problems, a larger sampling.group or a larger --budget."
        )


def kinds() -> tuple[str, ...]:
    return (*_TRANSFORMS, "positives_only")


def transform(raw: Direction, kind: str, *, root: Path, out: str) -> Direction:
    """Write the direction of `kind` made from the raw gradient; `out` is relative to `root`."""
    make = _TRANSFORMS["per_tensor"] if kind == "positives_only" else _TRANSFORMS.get(kind)
    if make is None:
        raise UnknownName("direction", kind, kinds())
    tensors, norms = _read(root / raw.path)
    return _write({n: make(g, norms[n]) for n, g in tensors.items()}, raw, kind=kind, norms=norms, root=root, out=out)


def random_like(direction: Direction, *, seed: int, root: Path, out: str) -> Direction:
    """Gaussian tensors with the per-tensor norms of `direction`."""
    tensors, norms = _read(root / direction.path)
    noise = {}
    for name, tensor in tensors.items():
        gauss = seeds.generator(seeds.seed_for(seed, "random_direction", name)).standard_normal(tensor.shape)
        noise[name] = (gauss * (np.linalg.norm(tensor) / np.linalg.norm(gauss))).astype(tensor.dtype)
    unsigned = replace(direction, snr=None, agreement=None, half_cosine=None)  # those describe the original
    return _write(noise, unsigned, kind="random", norms=norms, root=root, out=out)


def _read(path: Path) -> tuple[dict[str, Array], dict[str, float]]:
    with safe_open(path, framework="np") as file:
        metadata = file.metadata() or {}
        if "weight_norms" not in metadata:
            raise HarnessError(f"{path} is not a direction: its header has no weight_norms")
        return {name: file.get_tensor(name) for name in sorted(file.keys())}, json.loads(metadata["weight_norms"])


def _write(
    tensors: dict[str, Array], source: Direction, *, kind: str, norms: Mapping[str, float], root: Path, out: str
) -> Direction:
    header = {"weight_norms": json.dumps(norms)}
    store.write_via(root / out, lambda temporary: save_file(tensors, temporary, header))
    norm = float(np.sqrt(sum(np.square(t, dtype=np.float64).sum() for t in tensors.values())))
    digest = store.digest(root / out)
    return replace(source, id=digest[:16], kind=kind, norm=norm, path=out, digest=digest)


def _per_tensor(gradient: Array, weight_norm: float) -> Array:
    norm = float(np.linalg.norm(gradient))
    return gradient * gradient.dtype.type(weight_norm / norm) if norm > 0 else gradient


def _orthogonal(gradient: Array, weight_norm: float) -> Array:
    if gradient.ndim != 2:
        return _per_tensor(gradient, weight_norm)
    left, singular, right = np.linalg.svd(gradient, full_matrices=False)
    kept = singular > singular.max(initial=0.0) * 1e-6  # null directions of g carry no sign of their own
    return _per_tensor((left * kept) @ right, weight_norm)


_TRANSFORMS: Mapping[str, Callable[[Array, float], Array]] = {
    "raw": lambda gradient, _: gradient,
    "per_tensor": _per_tensor,
    "sign": lambda gradient, _: np.sign(gradient),
    "orthogonal": _orthogonal,
}
