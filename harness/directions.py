"""Directions in parameter space: kinds of a raw gradient, random ones, the way between policies, sums of noise.

Does: transform one stored raw gradient into the kinds that a line search can follow; make one of the way between two
policies, of the trend through several, or of noise moves.
Doesn't: differentiate (engines do), weigh rollouts (weighing.py) or choose a step (stepping.py).

Kinds, for a raw gradient g_t and base weights theta_t of tensor t (docs/design.md section 1):
  raw         g_t
  per_tensor  g_t |theta_t| / |g_t|: every tensor moves by the same relative amount; zero where g_t is zero
  sign        sign(g_t): the first step of Adam with bias correction
  orthogonal  U V^T of the SVD of a matrix g_t, rescaled to |theta_t| (Muon-like); vectors as per_tensor
  positives_only  per_tensor of the gradient weighted by positive advantages alone (another gradient)
  adam        g_t / rms_t, element by element: the root mean square over sub-batches s of their shares g_ts of g_t. Where
              AdamW heads on average while noise decides the square (docs/diagnostics.md); sign where there is no noise
  lora<rank>  g_t A_t^T A_t of the weights of linear layers, the head's not; nothing else moves. The first update of LoRA
              (2106.09685) by gradient descent: W + s B A with B = 0 gives B the gradient s g A^T and A none, so W moves by
              step x s^2 g A^T A, exactly linear in the step. A [rank, in] is drawn as PEFT does (kaiming uniform with
              a = sqrt(5): uniform within 1 / sqrt(in)), from the run seed and the tensor's name

Departures of lora, numbered:
1. It is raw, not per_tensor: LoRA has one rate for all layers, and scaling by tensor would be another method. So it is
   compared with `raw`; of that it also lacks the embedding, which no linear layer holds.
2. LoRA is trained with AdamW, whose first step is the sign of B's gradient. That is linear in the step as well, and not
   made here.
3. Which weights are of linear layers the engine says (its optional method `linear`); names and shapes do not tell.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from harness import seeds, store
from harness.errors import HarnessError, NotFinite, UnknownName, UsageError
from harness.types import Direction, Move

Array: TypeAlias = npt.NDArray[Any]
OF_MOMENTS = ("adam",)  # kinds that a gradient alone does not make


def kinds() -> tuple[str, ...]:
    """All of them; of lora, which takes any rank, one."""
    return (*of_gradient(), "positives_only", *OF_MOMENTS, "lora16")


def of_gradient() -> tuple[str, ...]:
    """Kinds made of a raw gradient and the norms of weights alone."""
    return tuple(_TRANSFORMS)


def transform(
    raw: Direction,
    kind: str,
    *,
    root: Path,
    out: str,
    seed: int = 0,
    linear: Callable[[], Sequence[str]] = tuple,
) -> Direction:
    """Write the direction of `kind` made from the raw gradient; `out` is relative to `root`.

    `seed`, the run's, and `linear`, which names the weights of linear layers, are for lora. Raises UnknownName, or UsageError
    where what the kind is made of is lacking.
    """
    make = _TRANSFORMS["per_tensor"] if kind == "positives_only" else _TRANSFORMS.get(kind)
    rank = re.fullmatch(r"lora([1-9]\d*)", kind)
    if make is None and rank is None and kind not in OF_MOMENTS:
        raise UnknownName("direction", kind, kinds(), hint="lora takes any rank.")
    gradients, norms = _read(root / raw.path)
    if make is not None:
        tensors = {name: make(g, norms[name]) for name, g in gradients.items()}
    elif rank:
        tensors = {name: _lora(gradients[name], name, rank=int(rank[1]), seed=seed) for name in linear()}
    else:
        tensors = _adam(gradients, raw, root)
    if not tensors:
        raise UsageError(f"this model has no weights of linear layers that {kind} could adapt: take another kind")
    return _write(tensors, raw, kind=kind, norms=norms, root=root, out=out)


def random_like(direction: Direction, *, seed: int, root: Path, out: str) -> Direction:
    """Gaussian tensors with the per-tensor norms of `direction`."""
    tensors, norms = _read(root / direction.path)
    noise = {}
    for name, tensor in tensors.items():
        gauss = seeds.generator(seeds.seed_for(seed, "random_direction", name)).standard_normal(tensor.shape)
        noise[name] = (gauss * (np.linalg.norm(tensor) / np.linalg.norm(gauss))).astype(tensor.dtype)
    unsigned = replace(direction, snr=None, agreement=None, half_cosine=None)  # those describe the original
    return _write(noise, unsigned, kind="random", norms=norms, root=root, out=out)


def between(start: Path, end: Path, *, root: Path, out: str) -> Direction:
    """The way from one checkpoint to another: step 0 is `start`, step 1 is `end`."""
    origin, target = load_file(start), load_file(end)
    tensors = {name: target[name] - tensor for name, tensor in sorted(origin.items())}
    norms = {name: float(np.linalg.norm(tensor)) for name, tensor in origin.items()}
    return _write(tensors, _unwritten(norms), kind="displacement", norms=norms, root=root, out=out)


def trend(start: Path, ends: Sequence[Path], *, times: Sequence[float], root: Path, out: str) -> Direction:
    """The rank-one trend of each tensor through checkpoints met at `times`: step 1 is its fit at the last of them.

    The rows theta_t - theta_0 are cut to rank one by the Gram matrix, their coefficients fitted by a line through zero
    (RELEX, 2605.21468, fits one with an intercept). Of a single checkpoint it is the displacement.
    """
    times_T, tensors, norms = np.asarray(times, dtype=np.float64), {}, {}
    with contextlib.ExitStack() as stack:
        first, *others = (stack.enter_context(safe_open(path, framework="np")) for path in (start, *ends))
        for name in sorted(first.keys()):
            origin = first.get_tensor(name)
            moved_TD = np.stack([other.get_tensor(name) - origin for other in others]).reshape(len(others), -1)
            tensors[name] = _rank_one(moved_TD, times_T).astype(origin.dtype).reshape(origin.shape)
            norms[name] = float(np.linalg.norm(origin))
    return _write(tensors, _unwritten(norms), kind="trend", norms=norms, root=root, out=out)


def _rank_one(moved_TD: Array, times_T: Array) -> Array:
    rows_TD = moved_TD.astype(np.float64)
    _, vectors_TT = np.linalg.eigh(rows_TD @ rows_TD.T)
    first_T = vectors_TT[:, -1]  # of the largest eigenvalue; its sign cancels
    slope = float(first_T @ times_T) / float(times_T @ times_T)
    return np.asarray(slope * times_T[-1] * (first_T @ rows_TD))


def superpose(start: Path, moves: Sequence[Move], *, root: Path, out: str) -> Direction:
    """The sum of noise moves at the weights `start`: step 1 adds what each of them alone would add to `start`."""
    tensors, norms = {}, {}
    for name, tensor in sorted(load_file(start).items()):
        norms[name] = float(np.linalg.norm(tensor))
        total = np.zeros_like(tensor)
        for move in moves:
            total += tensor.dtype.type(move.step) * seeds.noise(int(move.digest, 16), name, tensor.shape)
        tensors[name] = total * tensor.dtype.type(norms[name] / math.sqrt(tensor.size))
    return _write(tensors, _unwritten(norms), kind="noise", norms=norms, root=root, out=out)


def _unwritten(norms: Mapping[str, float]) -> Direction:
    """What is known before the file is written; `norms` are those of the weights it is taken at."""
    return Direction(id="", kind="", norm=0.0, weight_norm=math.hypot(*norms.values()), path="", digest="")


class _Stored(NamedTuple):
    """A file of tensors, and the norms of the weights they are directions of."""

    tensors: dict[str, Array]
    norms: dict[str, float]


def _read(path: Path) -> _Stored:
    with safe_open(path, framework="np") as file:
        header = file.metadata() or {}
        if "weight_norms" not in header:
            raise HarnessError(f"{path} is not a direction: its header has no weight_norms")
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        return _Stored(tensors, json.loads(header["weight_norms"]))


def _write(
    tensors: dict[str, Array], source: Direction, *, kind: str, norms: Mapping[str, float], root: Path, out: str
) -> Direction:
    header = {"weight_norms": json.dumps(norms)}
    store.write_via(root / out, lambda temporary: save_file(tensors, temporary, header))
    norm = float(np.sqrt(sum(np.square(t, dtype=np.float64).sum() for t in tensors.values())))
    if not math.isfinite(norm):
        raise NotFinite(f"the direction of kind {kind} has norm {norm:.3g}")
    digest = store.digest(root / out)
    return replace(source, id=digest[:16], kind=kind, norm=norm, path=out, digest=digest)


def per_tensor(gradient: Array, weight_norm: float) -> Array:
    norm = float(np.linalg.norm(gradient))
    return gradient * gradient.dtype.type(weight_norm / norm) if norm > 0 else gradient


def _orthogonal(gradient: Array, weight_norm: float) -> Array:
    if gradient.ndim != 2:
        return per_tensor(gradient, weight_norm)
    left, singular, right = np.linalg.svd(gradient, full_matrices=False)
    kept = singular > singular.max(initial=0.0) * 1e-6  # null directions of g carry no sign of their own
    return per_tensor((left * kept) @ right, weight_norm)


def _adam(gradients: Mapping[str, Array], raw: Direction, root: Path) -> dict[str, Array]:
    if not raw.rms:
        raise UsageError('"adam" is made of a gradient and its rms: take it with stages.direct(..., kind="adam")')
    sizes = load_file(root / raw.rms)
    return {name: over(gradient, sizes[name]) for name, gradient in gradients.items()}


def over(gradient: Array, sizes: Array) -> Array:
    """The quotient; where no part of a batch has a gradient the sum has none either, and nothing moves."""
    return np.asarray(gradient / np.where(sizes > 0, sizes, sizes.dtype.type(1)))


def _lora(gradient: Array, name: str, *, rank: int, seed: int) -> Array:
    width = gradient.shape[1]
    drawn = seeds.generator(seeds.seed_for(seed, "lora", name)).uniform(-1, 1, (rank, width)) / math.sqrt(width)
    down = drawn.astype(gradient.dtype)
    return np.asarray((gradient @ down.T) @ down)


_TRANSFORMS: Mapping[str, Callable[[Array, float], Array]] = {
    "raw": lambda gradient, _: gradient,
    "per_tensor": per_tensor,
    "sign": lambda gradient, _: np.sign(gradient),
    "orthogonal": _orthogonal,
}
