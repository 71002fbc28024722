"""Every random number of a run comes from here.

Does: turn (run seed, purpose, problem, sample) into a 63-bit seed by sha256, and make generators from seeds.
Doesn't: know the policy, so that candidates and methods meet the same draws. Never `seed + i`: neighbouring
seeds would share draws.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import numpy.typing as npt


def seed_for(run_seed: int, purpose: str, problem_id: str = "", sample_idx: int = 0) -> int:
    """A 63-bit seed. `purpose` is one of train/<iteration>, selection, test, bins, or a name of the caller's own."""
    text = f"{run_seed}\x1f{purpose}\x1f{problem_id}\x1f{sample_idx}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int) -> np.random.Generator:
    """A counter-based NumPy generator: the same stream on every platform."""
    return np.random.Generator(np.random.Philox(key=seed))


def noise(seed: int, tensor: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """What a move of kind "noise" adds to the tensor of that name, per unit of size: standard normal draws in fp32.

    Every tensor has a stream of its own, so tensors of one shape never share noise.
    """
    return generator(seed_for(seed, "noise", tensor)).standard_normal(shape, dtype=np.float32)


def python_random(seed: int) -> random.Random:
    return random.Random(seed)
