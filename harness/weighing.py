"""From judged rollouts to the batch a gradient is taken of: one weight for every rollout.

Does: turn rewards into advantages group by group; deal groups into stratified sub-batches; make pairs for a preference
loss; cut a batch into minibatches and join several.
Doesn't: compute advantages (advantages.py) or differentiate (engines do).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from harness import advantages, seeds, store
from harness.advantages import GroupWeights
from harness.errors import NoSignal
from harness.sampling import RolloutBatch
from harness.types import Outcome, Problem, Rollout, TokenCredit, WeightedGroup

if TYPE_CHECKING:
    from harness.config import RewardSpec

MAX_SUB_BATCHES = 16
Rewards: TypeAlias = Mapping[str, Sequence[float | None]]


class Credits(NamedTuple):
    """The credit of tokens by (problem_id, sample_idx), and the key that names these numbers."""

    key: str
    of: Mapping[tuple[str, int], TokenCredit]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeighedBatch:
    """A rollout batch with one weight per rollout; implements harness.contracts.Batch.

    `normaliser` is the number of rollouts drawn, dead groups included, so that the estimate does not depend on how
    many groups turned out dead. `sub_batches` holds the ids of problems that are read: those with a weight other than
    0, or all of them with `whole`, for losses that also look at rollouts of weight 0. `mean_tokens` is the mean length
    of its completions. `rewards` are those the weights were made of. With `credits` (crediting.py) the rollouts that have
    none are not read.
    """

    batch: RolloutBatch
    weights: Mapping[str, tuple[float, ...]]
    rewards: Rewards
    sub_batches: tuple[tuple[str, ...], ...]
    normaliser: float
    groups_dead: int
    pass_rate: float
    mean_tokens: float
    scheme: str
    shuffle_seed: int | None
    whole: bool = False
    credits: Credits | None = None

    @property
    def temperature(self) -> float:
        return self.batch.temperature

    @property
    def num_sub_batches(self) -> int:
        return len(self.sub_batches)

    @property
    def num_groups(self) -> int:
        return sum(len(part) for part in self.sub_batches)

    def live(self) -> WeighedBatch:
        """Without dead groups, which then do not count in the normaliser either."""
        kept = [tuple(n for n in part if not advantages.is_dead(self.rewards[n])) for part in self.sub_batches]
        return _only(self, [part for part in kept if part], per_group=self.batch.samples)

    @property
    def key(self) -> str:
        """Names the gradient of this batch: same key, same numbers."""
        own = {name: self.weights[name] for part in self.sub_batches for name in part}
        parts = [self.batch.folder, self.scheme, self.shuffle_seed, own, self.sub_batches, self.normaliser, self.whole]
        return store.fingerprint(parts + ([] if self.credits is None else [self.credits.key]))

    def read(self, sub_batch: int) -> Iterator[WeightedGroup]:
        for problem_id in self.sub_batches[sub_batch]:
            weights = self.weights[problem_id]
            pairs = zip(self.batch.group(problem_id), weights, strict=True)
            kept = [(r, w) for r, w in pairs if (w != 0 or self.whole) and self._credited(r)]
            credits = (
                None if self.credits is None else tuple(self.credits.of[problem_id, r.sample_idx] for r, _ in kept)
            )
            yield WeightedGroup(tuple(r for r, _ in kept), np.array([w for _, w in kept]), credits)

    def _credited(self, rollout: Rollout) -> bool:
        return self.credits is None or (rollout.problem_id, rollout.sample_idx) in self.credits.of


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedBatch:
    """Pairs of a correct and an incorrect completion of one problem; a group is a pair, of weights 1 and -1.

    `pairs` holds, by problem, the places (correct, incorrect) within its group; `normaliser` is their number.
    """

    batch: RolloutBatch
    pairs: Mapping[str, tuple[tuple[int, int], ...]]
    sub_batches: tuple[tuple[str, ...], ...]
    groups_dead: int
    pass_rate: float

    @property
    def temperature(self) -> float:
        return self.batch.temperature

    @property
    def normaliser(self) -> float:
        return float(sum(len(self.pairs[name]) for part in self.sub_batches for name in part))

    @property
    def num_sub_batches(self) -> int:
        return len(self.sub_batches)

    @property
    def key(self) -> str:
        return store.fingerprint([self.batch.folder, self.pairs, self.sub_batches])

    def read(self, sub_batch: int) -> Iterator[WeightedGroup]:
        for problem_id in self.sub_batches[sub_batch]:
            group = self.batch.group(problem_id)
            for chosen, rejected in self.pairs[problem_id]:
                yield WeightedGroup((group[chosen], group[rejected]), np.array([1.0, -1.0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedBatch:
    """Several batches as one, sub-batch after sub-batch; they share a temperature and, to mean much, a policy."""

    parts: tuple[WeighedBatch, ...]

    @property
    def temperature(self) -> float:
        return self.parts[0].temperature

    @property
    def normaliser(self) -> float:
        return sum(part.normaliser for part in self.parts)

    @property
    def num_sub_batches(self) -> int:
        return sum(part.num_sub_batches for part in self.parts)

    @property
    def key(self) -> str:
        return store.fingerprint([part.key for part in self.parts])

    @property
    def groups_dead(self) -> int:
        return sum(part.groups_dead for part in self.parts)

    @property
    def pass_rate(self) -> float:
        return _mean([(part.pass_rate, part.normaliser) for part in self.parts])

    @property
    def mean_tokens(self) -> float:
        return _mean([(part.mean_tokens, part.normaliser) for part in self.parts])

    def read(self, sub_batch: int) -> Iterator[WeightedGroup]:
        for part in self.parts:
            if sub_batch < part.num_sub_batches:
                yield from part.read(sub_batch)
                return
            sub_batch -= part.num_sub_batches


GradientBatch: TypeAlias = WeighedBatch | PairedBatch | JoinedBatch


def weigh(
    batch: RolloutBatch,
    problems: Sequence[Problem],
    *,
    rewards: RewardSpec | Rewards,
    scheme: str = "grpo",
    shuffle_seed: int | None = None,
    whole: bool = False,
    group: int = 0,
) -> WeighedBatch:
    """Weights from the stored verdicts, or from `rewards` given by problem; with `shuffle_seed` permuted in groups.

    `group` 0 compares all rollouts of a problem, another number every so many of them, as they were drawn.
    """
    rewards_of: dict[str, list[float | None]] = {problem.id: [] for problem in problems}
    correct = judged = tokens = total = 0
    for entry in batch.judged():
        verdict = entry.verdict.outcome
        if not isinstance(rewards, Mapping):
            rewards_of[entry.problem_id].append(rewards.of(verdict))
        judged, correct = judged + (verdict is not Outcome.ERROR), correct + (verdict is Outcome.CORRECT)
        tokens, total = tokens + entry.tokens, total + 1
    if isinstance(rewards, Mapping):
        rewards_of = {problem.id: list(rewards[problem.id]) for problem in problems}
    if shuffle_seed is not None:
        rewards_of = {
            key: advantages.shuffled(group, seeds.seed_for(shuffle_seed, "shuffle", key))
            for key, group in rewards_of.items()
        }
    found = {key: _group_weights(rewards, scheme, group) for key, rewards in rewards_of.items()}
    weights = {key: [w for part in parts for w in part.weights_G] for key, parts in found.items()}
    read = [problem for problem in problems if whole or any(weights[problem.id])]
    return WeighedBatch(
        batch=batch,
        weights={p.id: tuple(map(float, weights[p.id])) for p in read},
        rewards=rewards_of,
        sub_batches=deal(read),
        normaliser=float(len(problems) * batch.samples),
        groups_dead=sum(part.dead for parts in found.values() for part in parts),
        pass_rate=correct / judged if judged else float("nan"),
        mean_tokens=tokens / total if total else float("nan"),
        scheme=scheme,
        shuffle_seed=shuffle_seed,
        whole=whole,
    )


def _group_weights(rewards: Sequence[float | None], scheme: str, group: int) -> list[GroupWeights]:
    size = group or len(rewards)
    parts = [rewards[start : start + size] for start in range(0, len(rewards), size)]
    return [advantages.group_advantages(part, scheme) for part in parts]


def pair(batch: RolloutBatch, problems: Sequence[Problem], *, per_problem: int, seed: int) -> PairedBatch:
    """At most `per_problem` pairs of each problem, no completion in two pairs of it; ERROR verdicts are in none."""
    found: dict[str, list[Outcome]] = {problem.id: [] for problem in problems}
    for entry in batch.judged():
        found[entry.problem_id].append(entry.verdict.outcome)
    pairs = {}
    for name, outcomes in found.items():
        right = [i for i, outcome in enumerate(outcomes) if outcome is Outcome.CORRECT]
        wrong = [i for i, outcome in enumerate(outcomes) if outcome not in (Outcome.CORRECT, Outcome.ERROR)]
        generator = seeds.generator(seeds.seed_for(seed, "pairs", name))
        drawn = zip(generator.permutation(right).tolist(), generator.permutation(wrong).tolist(), strict=False)
        pairs[name] = tuple((int(a), int(b)) for a, b in list(drawn)[:per_problem])
    live = [problem for problem in problems if pairs[problem.id]]
    outcomes = [outcome for group in found.values() for outcome in group if outcome is not Outcome.ERROR]
    return PairedBatch(
        batch=batch,
        pairs={problem.id: pairs[problem.id] for problem in live},
        sub_batches=deal(live),
        groups_dead=len(problems) - len(live),
        pass_rate=sum(o is Outcome.CORRECT for o in outcomes) / len(outcomes) if outcomes else float("nan"),
    )


def minibatches(batch: WeighedBatch | JoinedBatch, count: int, *, seed: int) -> list[JoinedBatch]:
    """The groups that are read, dealt at random into at most `count` batches of equal size; groups stay whole.

    The normaliser is shared out by groups, so that the minibatch losses average to the whole batch's.
    """
    parts = batch.parts if isinstance(batch, JoinedBatch) else (batch,)
    groups = [(part, name) for part in parts for own in part.sub_batches for name in own]
    order = seeds.generator(seed).permutation(len(groups)).tolist()
    share, dealt = batch.normaliser / max(1, len(groups)), []
    for start in range(min(count, len(groups))):
        own = [groups[i] for i in order[start::count]]
        names = [(part, tuple(name for other, name in own if other is part)) for part in parts]
        dealt.append(JoinedBatch(parts=tuple(_only(part, [mine], per_group=share) for part, mine in names if mine)))
    return dealt


def pair_minibatches(batch: PairedBatch, count: int, *, seed: int) -> list[PairedBatch]:
    """The pairs, dealt at random into at most `count` batches of equal size; those of one problem may part."""
    found = [(name, one) for name, own in batch.pairs.items() for one in own]
    order, dealt = seeds.generator(seed).permutation(len(found)).tolist(), []
    for start in range(min(count, len(found))):
        own: dict[str, tuple[tuple[int, int], ...]] = {}
        for name, one in (found[i] for i in sorted(order[start::count])):
            own[name] = (*own.get(name, ()), one)
        dealt.append(replace(batch, pairs=own, sub_batches=(tuple(own),)))
    return dealt


def _only(weighed: WeighedBatch, sub_batches: Sequence[tuple[str, ...]], *, per_group: float) -> WeighedBatch:
    names = [name for part in sub_batches for name in part]
    return replace(
        weighed,
        sub_batches=tuple(sub_batches),
        normaliser=per_group * len(names),
        weights={name: weighed.weights[name] for name in names},
        rewards={name: weighed.rewards[name] for name in names},
    )


def deal(problems: Sequence[Problem]) -> tuple[tuple[str, ...], ...]:
    """Disjoint sub-batches of problems, each with nearly the same mix of levels; never splits a group."""
    count = min(MAX_SUB_BATCHES, len(problems))
    ordered = sorted(problems, key=lambda p: (p.level or 0, p.content_hash))
    return tuple(tuple(p.id for p in ordered[start::count]) for start in range(count))


def require_signal(weighed: GradientBatch) -> None:
    """Raises NoSignal when no rollout has a weight."""
    if not weighed.num_sub_batches:
        raise NoSignal(
            f"no group with both rewards among {weighed.groups_dead} (batch pass rate {weighed.pass_rate:.4f}): "
            "there is no direction. Use easier problems, a larger sampling.group or a larger --budget."
        )


def _mean(weighted: Sequence[tuple[float, float]]) -> float:
    total = sum(weight for _, weight in weighted)
    return sum(value * weight for value, weight in weighted) / total if total else float("nan")
