"""Judged shards that the runs of a suite share, or the parts of a run: what one has drawn, no other draws again.

Does: name a shard by all that its rollouts and verdicts depend on; keep one of a name in a folder that the runs reach;
put it into a run's own folder whole or not at all, as a second name of the same file where the disk allows that; make
runs that want the same shard at the same time wait for the one that draws it.
Doesn't: count anything. A shard's cost lies in its verdict file, so every method is charged for it wherever it was drawn.

The unit is the shard because it is the sampling batch. Draws of different runs therefore share as far as their shards
are equal and no further: training problems that are a prefix of another run's share where that leaves whole shards the
same (one problem with many samples), and are drawn again where it does not.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from harness import checksums, store

SHARED = "shared"  # the folder of draws, while there is a run that may want one
LOCK = "lock"


class Wanted(NamedTuple):
    """One shard: `content` decides its rollouts and verdicts, the paths are those in the run's own folder."""

    content: Any
    rollouts: Path
    verdicts: Path


class Lender:
    """A folder of shards. `identity` is what all draws of a run depend on: model, engine, verifier, code."""

    def __init__(self, folder: Path, identity: Any) -> None:
        self._folder, self._identity = folder, store.fingerprint(identity)

    def _key(self, wanted: Wanted) -> str:
        return store.fingerprint([self._identity, wanted.content])

    @contextmanager
    def borrowed(self, shards: Sequence[Wanted]) -> Iterator[None]:
        """Put those that were drawn before in their places; inside, no other run draws the rest."""
        keys = {self._key(shard): shard for shard in shards}
        with self._claimed(sorted(keys)):
            for key, shard in keys.items():
                rollouts, verdicts = self._folder / f"{key}.safetensors", self._folder / f"{key}.json"
                if rollouts.exists() and verdicts.exists():
                    _copy(rollouts, shard.rollouts)
                    _copy(verdicts, shard.verdicts)  # last: a shard is there when its verdicts are
            yield

    def lend(self, shard: Wanted) -> None:
        """Let other runs have a shard that this one has drawn and judged."""
        key = self._key(shard)
        _copy(shard.rollouts, self._folder / f"{key}.safetensors")
        _copy(shard.verdicts, self._folder / f"{key}.json")

    @contextmanager
    def alone(self, path: Path) -> Iterator[None]:
        """Inside, no other process makes the file that `path` names."""
        with self._claimed([store.fingerprint(str(path))]):
            yield

    @contextmanager
    def _claimed(self, keys: Sequence[str]) -> Iterator[None]:
        """Hold one byte of a lock file for each key. In order, so that two runs never wait for each other; the system
        frees them when a process dies."""
        if not keys:
            yield
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with open(self._folder / LOCK, "wb") as file:
            for key in keys:
                fcntl.lockf(file, fcntl.LOCK_EX, 1, int(key[:15], 16))
            yield


def _copy(source: Path, target: Path) -> None:
    """The same file under a second name, or a copy where the disk has no such thing. Files never change once written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        os.link(source, temporary)  # not synced: a crash may lose the new name, never half of the file
    except OSError:
        store.write_via(target, lambda name: shutil.copyfile(source, name))
        return
    checksums.note(target, checksums.digest(source))
    os.replace(temporary, target)
    temporary.unlink(missing_ok=True)  # still there when both were one file already
