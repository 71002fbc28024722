"""Gaussian noise as a move of a recipe: a seed and a size, never a file.

Does: make one tensor's noise again from (seed, tensor name), drawn in fp32 on the CPU (harness/seeds.py), so that every
engine, device and weight type forms the same candidate.
Doesn't: form or cast weights (model.py, tabular.py).
"""

from __future__ import annotations

import math

import torch

from harness import seeds
from harness.types import Move


def of(move: Move, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """step * RMS(`tensor`) * standard normal draws, in the shape, type and place of `tensor`. A zero tensor stays zero."""
    gauss = torch.from_numpy(seeds.noise(int(move.digest, 16), name, tuple(tensor.shape)))
    rms = float(torch.linalg.vector_norm(tensor)) / math.sqrt(tensor.numel())
    return gauss.to(device=tensor.device, dtype=tensor.dtype) * (move.step * rms)
