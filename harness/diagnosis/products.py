"""Inner products of vectors as large as the model, tensor by tensor.

Does: read gradients, directions and displacements from their files, a slice of each at a time, and keep nothing but a
matrix of inner products for every tensor, in fp64. Cosines, norms and ranks of the diagnosis are sums over these.
Doesn't: hold a whole vector, or know what the vectors are. A tied tensor has one name and counts once.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from harness import store

Floats = npt.NDArray[np.float64]
SLICE_NUMBERS = 2**24  # numbers in memory at a time, all vectors together


class Vector(NamedTuple):
    """The sum of files of tensors (none: zero), less another file."""

    paths: tuple[Path, ...]
    minus: Path | None = None


class Slice(NamedTuple):
    """The same part of one tensor of every vector; where a file lacks the tensor it is zero."""

    tensor: str
    values_VX: Floats


@dataclass(frozen=True, kw_only=True)
class Products:
    """Inner products of the vectors named `labels`, for each of `tensors`."""

    labels: tuple[str, ...]
    tensors: tuple[str, ...]
    dots_TVV: Floats

    @property
    def total(self) -> Floats:
        """Over all tensors."""
        summed: Floats = self.dots_TVV.sum(0)
        return summed

    def places(self, labels: Sequence[str]) -> list[int]:
        return [self.labels.index(label) for label in labels]


def slices(vectors: Sequence[Vector]) -> Iterator[Slice]:
    """Every tensor of any of the vectors in fp64, in slices of bounded size; tensors in order of name."""
    with contextlib.ExitStack() as stack:
        files: dict[Path, Any] = {}
        for vector in vectors:
            for path in (*vector.paths, *([vector.minus] if vector.minus else [])):
                if path not in files:
                    files[path] = stack.enter_context(safe_open(path, framework="np"))
        shapes = {name: file.get_slice(name).get_shape() for file in files.values() for name in file.keys()}  # noqa: SIM118
        for name in sorted(shapes):
            shape = shapes[name] or [1]
            width = int(np.prod(shape[1:], dtype=np.int64))
            rows = max(1, SLICE_NUMBERS // (len(vectors) * max(1, width)))
            for start in range(0, shape[0], rows):
                part = slice(start, min(start + rows, shape[0]))
                zero_X = np.zeros((part.stop - part.start) * width)
                yield Slice(name, np.stack([_values(files, vector, name, part, zero_X) for vector in vectors]))


def _values(files: Mapping[Path, Any], vector: Vector, name: str, part: slice, zero_X: Floats) -> Floats:
    values_X = sum((_read(files[path], name, part, zero_X) for path in vector.paths), zero_X)
    return values_X if vector.minus is None else values_X - _read(files[vector.minus], name, part, zero_X)


def _read(file: Any, name: str, part: slice, zero_X: Floats) -> Floats:
    if name not in file.keys():  # noqa: SIM118
        return zero_X
    whole = file.get_slice(name)
    values: npt.NDArray[Any] = whole[part] if whole.get_shape() else file.get_tensor(name)
    return values.astype(np.float64).ravel()


def multiply(vectors: Mapping[str, Vector]) -> Products:
    """The inner products of all vectors with each other."""
    dots: dict[str, Floats] = {}
    for part in slices(list(vectors.values())):
        product_VV = part.values_VX @ part.values_VX.T
        dots[part.tensor] = dots[part.tensor] + product_VV if part.tensor in dots else product_VV
    return Products(labels=tuple(vectors), tensors=tuple(dots), dots_TVV=np.stack(list(dots.values())))


def save(products: Products, path: Path) -> None:
    header = {"index": json.dumps({"labels": products.labels, "tensors": products.tensors})}
    store.write_via(path, lambda temporary: save_file({"dots": products.dots_TVV}, temporary, header))


def load(path: Path) -> Products:
    with safe_open(path, framework="np") as file:
        index = json.loads(file.metadata()["index"])
    dots_TVV = load_file(path)["dots"]
    return Products(labels=tuple(index["labels"]), tensors=tuple(index["tensors"]), dots_TVV=dots_TVV)
