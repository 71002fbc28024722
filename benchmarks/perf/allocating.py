"""What a piece of torch work holds at its highest: from the allocator of a GPU, or by watching every operation on the CPU.

Does: peak bytes beyond what was held before, and the largest tensor that was made.
Doesn't: see memory that one operation takes and gives back inside itself, on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Held(NamedTuple):
    """Bytes. `largest` is of one tensor, 0 on a GPU, where it is not looked at."""

    peak: int
    largest: int


class _Watch(TorchDispatchMode):
    """Backward passes of the CPU run in the calling thread, and are seen as well."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self.largest = self._sum = 0
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}  # some of it gone since; `_sum` is of all

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_key(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        found = func(*args, **(kwargs or {}))
        for tensor in (t for t in tree_leaves(found) if isinstance(t, torch.Tensor)):
            if _key(tensor) not in given:
                self._see(tensor.untyped_storage())
        return found

    def _see(self, storage: torch.UntypedStorage) -> None:
        _, before = self._made.get(storage._cdata, (None, 0))  # the address of one that is gone
        self._made[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self._sum += storage.nbytes() - before
        self.largest = max(self.largest, storage.nbytes())
        if self._sum > self.peak:
            self._made = {key: own for key, own in self._made.items() if not own[0].expired()}
            self._sum = sum(size for _, size in self._made.values())
            self.peak = max(self.peak, self._sum)


def _key(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def watched(work: Callable[[], object], *, device: str) -> Held:
    """`work` is run once."""
    if torch.device(device).type == "cpu":
        with _Watch() as seen:
            work()
        return Held(seen.peak, seen.largest)
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    torch.cuda.synchronize(device)
    return Held(torch.cuda.max_memory_allocated(device) - before, 0)
