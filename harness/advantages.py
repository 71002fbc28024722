"""Weights of rollouts from the rewards of their group.

Does: turn the rewards of one problem's rollouts into advantages, and shuffle rewards for the control.
Doesn't: judge, drop or store rollouts; a rollout of weight 0 is left to the caller.

A reward of None (the verifier failed) is removed first and weighs 0. A group is dead when its remaining rewards are
all exactly equal, or fewer than two remain: it carries no signal under any scheme with a baseline, and all its weights
are 0 there.

| scheme         | weight                              | source                                       |
|----------------|-------------------------------------|----------------------------------------------|
| grpo           | (r - mean) / std                    | arXiv 2402.03300 (GRPO)                      |
| centered       | r - mean                            | arXiv 2503.20783 (Dr. GRPO)                  |
| rloo           | G / (G - 1) (r - mean)              | arXiv 2402.14740 (leave-one-out baseline)    |
| maxrl          | (r - mean) / mean                   | weights 1/p of the log pass rate's gradient  |
| reinforce      | r, no baseline                      | Williams 1992; also plain likelihood weights |
| positives_only | max(0, grpo)                        | arXiv 2504.11343 (learning from successes)   |

Where it departs from its sources:
1. `std` is the population's, without the epsilon released code adds: dead groups are found by comparing rewards
   exactly, so it is never zero, and a weight does not depend on a constant.
2. Dead groups are excluded under every scheme but reinforce (arXiv 2503.14476 filters them for GRPO alone). A live group weighs the
   same either way; only the count of rollouts a batch is divided by may differ, and that is the caller's.
3. `positives_only` keeps GRPO's weights of the successes instead of 1: a rare success still counts for more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from harness import seeds
from harness.errors import UnknownName

Floats: TypeAlias = npt.NDArray[np.float64]


class GroupWeights(NamedTuple):
    """One weight a rollout, 0 where the reward is None, and whether the group is dead."""

    weights_G: Floats
    dead: bool


def _centered(rewards_G: Floats) -> Floats:
    return rewards_G - np.mean(rewards_G)


def _grpo(rewards_G: Floats) -> Floats:
    return _centered(rewards_G) / np.std(rewards_G)


def _rloo(rewards_G: Floats) -> Floats:
    return _centered(rewards_G) * (rewards_G.size / (rewards_G.size - 1))


def _maxrl(rewards_G: Floats) -> Floats:
    """At a mean of 0 or below, which penalties can bring about, 1/p means nothing: the group is left out."""
    mean = np.mean(rewards_G)
    return _centered(rewards_G) / mean if mean > 0 else np.zeros_like(rewards_G)


def _reinforce(rewards_G: Floats) -> Floats:
    return rewards_G


def _positives_only(rewards_G: Floats) -> Floats:
    return np.maximum(_grpo(rewards_G), 0.0)


SCHEMES: Mapping[str, Callable[[Floats], Floats]] = {
    "grpo": _grpo,
    "centered": _centered,
    "rloo": _rloo,
    "maxrl": _maxrl,
    "reinforce": _reinforce,
    "positives_only": _positives_only,
}


def is_dead(rewards_G: Sequence[float | None]) -> bool:
    """Whether the rewards that are not None are all exactly equal, or fewer than two."""
    return len({r for r in rewards_G if r is not None}) < 2


def group_advantages(rewards_G: Sequence[float | None], scheme: str = "grpo") -> GroupWeights:
    """Weights of one group under a scheme of the table above.

    Raises UnknownName for another scheme and ValueError for a reward that is not finite.
    """
    if scheme not in SCHEMES:
        raise UnknownName("advantage scheme", scheme, SCHEMES)
    weights_G = np.zeros(len(rewards_G))
    live_G = np.array([r is not None for r in rewards_G], dtype=bool)
    kept = np.array([r for r in rewards_G if r is not None], dtype=np.float64)
    if not np.all(np.isfinite(kept)):
        raise ValueError(f"rewards must be finite or None, got {list(rewards_G)}")
    dead = is_dead(rewards_G)
    if kept.size and (not dead or scheme == "reinforce"):
        weights_G[live_G] = SCHEMES[scheme](kept)
    return GroupWeights(weights_G, dead)


def shuffled(rewards_G: Sequence[float | None], seed: int) -> list[float | None]:
    """The same rewards, permuted among the rollouts that have one: the group's pass rate and deadness stay."""
    kept = [r for r in rewards_G if r is not None]
    order = iter(seeds.generator(seed).permutation(len(kept)))
    return [None if r is None else kept[next(order)] for r in rewards_G]
