"""Kinds of direction made of one draw's parts, so that every kind exists once a draw and copies can be compared.

Does: sum the parts (raw), transform the sum as a run does (directions.py), and divide it by the root mean square of the
parts (adam).
Doesn't: make kinds that are another gradient (positives_only).

`adam` is where AdamW heads from the base on average: its step is a mean gradient over the root of a mean square, and that
square is mostly noise of small batches. The parts' mean square stands for it: batches of 1/16 of the budget. With no
noise it is `sign`, with noise alone deciding the square it is the gradient in units of its noise.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import save_file

from harness import directions, store
from harness.diagnosis import products
from harness.diagnosis.products import Vector
from harness.types import Direction

ALWAYS = ("raw", "sign", "adam")
Tensors = dict[str, npt.NDArray[Any]]


def make(
    parts: Callable[[], Sequence[Vector]], kinds: Sequence[str], *, like: Path, root: Path, folder: Path
) -> dict[str, Vector]:
    """Files of `kinds`, ALWAYS among them, in `folder` (relative to `root`), made of the parts' gradients.

    `like` is a direction with the same tensors: a draw without signal has no file that would tell them.
    """
    wanted = {kind: folder / f"{kind}.safetensors" for kind in kinds}
    if not all((root / path).exists() for path in wanted.values()):
        _write_sums(parts(), like=like, raw=root / wanted["raw"], adam=root / wanted["adam"])
        raw = Direction(id="", kind="raw", norm=0.0, weight_norm=0.0, path=str(wanted["raw"]), digest="")
        for kind, path in wanted.items():
            if kind not in ("raw", "adam"):
                directions.transform(raw, kind, root=root, out=str(path))
    return {kind: Vector((root / path,)) for kind, path in wanted.items()}


def _write_sums(parts: Sequence[Vector], *, like: Path, raw: Path, adam: Path) -> None:
    shapes, header = _shapes(like)
    sums: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in shapes}
    scaled: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in shapes}
    for part in products.slices(parts):
        total_X = part.values_VX.sum(0)
        size_X = np.sqrt((part.values_VX**2).mean(0))
        sums[part.tensor].append(total_X.astype(np.float32))
        scaled[part.tensor].append(directions.over(total_X, size_X).astype(np.float32))
    for path, pieces in ((raw, sums), (adam, scaled)):
        tensors = {n: _joined(pieces[n], shape) for n, shape in shapes.items()}
        store.write_via(path, functools.partial(_save, tensors, header))


def _joined(pieces: Sequence[npt.NDArray[Any]], shape: Sequence[int]) -> npt.NDArray[Any]:
    return np.concatenate(pieces).reshape(shape) if pieces else np.zeros(shape, dtype=np.float32)


def _save(tensors: Tensors, header: dict[str, str], path: str) -> None:
    save_file(tensors, path, header)


def _shapes(like: Path) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Of the tensors of a gradient, and the header that makes its file a direction."""
    with safe_open(like, framework="np") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        return shapes, {"weight_norms": file.metadata()["weight_norms"]}
