"""Credit of single tokens from a value head: generalised advantage estimation (1506.02438) with the verdict's reward at
the end of a completion.

Does: turn values and rewards into advantages and returns for every token of a batch; keep values in a file.
Doesn't: hold a value head (engines do) or discount: gamma is 1, since the only reward comes at the end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import save_file

from harness import advantages, store
from harness.errors import UsageError
from harness.types import FloatArray, TokenCredit
from harness.weighing import Credits, WeighedBatch

Floats: TypeAlias = npt.NDArray[np.float64]


class Values(NamedTuple):
    """The value before each token of every rollout, by (problem_id, sample_idx), and the digest of their file."""

    digest: str
    of: Mapping[tuple[str, int], FloatArray]


def gae(values: Sequence[npt.NDArray[Any]], rewards: Sequence[float], *, lam: float) -> list[Floats]:
    """Advantages of the tokens of each completion: A_t = delta_t + lam A_{t+1}, delta_t = V_{t+1} - V_t.

    `values` holds V of the state before each token; after the last one V is 0 and the reward comes. With `lam` 1 it is
    the reward less V_t, with 0 it is delta_t.
    """
    width = max(len(own_T) for own_T in values)
    values_BT = np.zeros((len(values), width + 1))
    for row, own_T in enumerate(values):  # ends stand in one column, so that no mask is needed
        values_BT[row, width - len(own_T) : width] = own_T
    found_BT = np.diff(values_BT)
    found_BT[:, -1] += rewards
    for t in reversed(range(width - 1)):
        found_BT[:, t] += lam * found_BT[:, t + 1]
    return [found_BT[row, width - len(own_T) :] for row, own_T in enumerate(values)]


def credit(weighed: WeighedBatch, values: Values, *, lam: float, whiten: bool) -> WeighedBatch:
    """`weighed` with credits for its tokens; rollouts without a reward (a failed verifier) are not read any more.

    `whiten` gives the advantages mean 0 and standard deviation 1 over the tokens of the whole batch; returns are made of
    them before. Rewards that are all exactly equal say nothing of any token: then no rollout is read. Raises UsageError.
    """
    if not 0 <= lam <= 1:
        raise UsageError(f"lambda of generalised advantages lies between 0 and 1, got {lam}")
    earned = {key: weighed.rewards[key[0]][key[1]] for key in values.of}
    rewards = {key: reward for key, reward in earned.items() if reward is not None}
    if advantages.is_dead(list(rewards.values())):
        return replace(weighed, sub_batches=())
    found = dict(zip(rewards, gae([values.of[key] for key in rewards], list(rewards.values()), lam=lam), strict=True))
    tokens = np.concatenate(list(found.values()))
    centre, size = (float(tokens.mean()), float(tokens.std()) or 1.0) if whiten else (0.0, 1.0)
    credits = {key: _credit(own_T, values.of[key], centre=centre, size=size) for key, own_T in found.items()}
    read = {problem_id for problem_id, _ in credits}
    kept = [tuple(name for name in part if name in read) for part in weighed.sub_batches]
    key = store.fingerprint([values.digest, lam, whiten])
    return replace(weighed, sub_batches=tuple(part for part in kept if part), credits=Credits(key, credits))


def _credit(advantages_T: Floats, values_T: FloatArray, *, centre: float, size: float) -> TokenCredit:
    whitened_T = ((advantages_T - centre) / size).astype(np.float32)
    return TokenCredit(whitened_T, (advantages_T + values_T).astype(np.float32), values_T)


def write(values: Mapping[tuple[str, int], FloatArray], path: Path) -> str:
    """Values in one file, about as large as the log-probabilities of the rollouts; returns its digest."""
    header = {"rollouts": json.dumps(list(values))}
    tensors = {
        "values": np.concatenate(list(values.values())).astype(np.float32),
        "lengths": np.array([len(own_T) for own_T in values.values()], dtype=np.int64),
    }
    store.write_via(path, lambda temporary: save_file(tensors, temporary, header))
    return store.digest(path)


def read(path: Path, digest: str) -> Values:
    """What `write` wrote."""
    with safe_open(path, framework="np") as file:
        keys = [(str(name), int(place)) for name, place in json.loads(file.metadata()["rollouts"])]
        ends = np.cumsum(file.get_tensor("lengths"))
        return Values(digest, dict(zip(keys, np.split(file.get_tensor("values"), ends[:-1]), strict=True)))
