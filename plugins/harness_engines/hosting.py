"""A worker far away: a model, the rollouts that it drew lately, and the files of the policies at hand.

Does: the work of `Local` on what comes in a message, where nothing but the model and the packages is shared with the
sender: files of policies come along, sub-batches as arrays, with rollouts that were drawn here named by their key.
Doesn't: know how messages travel (ray.py) or what others have (sending.py).
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.errors import HarnessError
from harness.types import Rollout, WeightedGroup
from harness_engines.local import Local, ModelSpec
from harness_engines.model import file_hashes

KEPT_TOKENS = 2**23  # of rollouts, at about a dozen bytes each
KEPT_FILES = 8  # besides those in use; each is as large as the model in fp32
DECIDING = ("oneshot-harness", "torch", "transformers", "tokenizers")  # packages whose versions rollouts depend on
EMBEDDED = "tiny"
Key = bytes


class Facts(NamedTuple):
    """What workers must have in common: packages, and hashes of the model's files."""

    packages: Mapping[str, str]
    model: Mapping[str, str]


class Message(NamedTuple):
    """A call of a method of Local. `files` are those that policies need, by digest, as the sender's references."""

    name: str
    arguments: tuple[Any, ...]
    files: Mapping[str, Any]


class Answer(NamedTuple):
    """The result, and the keys of rollouts that the worker keeps since, and of those it no longer has."""

    value: Any
    kept: tuple[Key, ...] = ()
    dropped: tuple[Key, ...] = ()


class Portion(NamedTuple):
    """One sub-batch as it travels; implements harness.contracts.Batch once it is `filled`.

    In its groups a rollout that the worker has is its key.
    """

    groups: tuple[WeightedGroup, ...]
    temperature: float
    normaliser: float
    num_sub_batches: int = 1

    def read(self, sub_batch: int) -> Iterator[WeightedGroup]:
        return iter(self.groups)

    def filled(self, known: Mapping[Key, Rollout]) -> Portion:
        groups = [
            group._replace(rollouts=tuple(r if isinstance(r, Rollout) else known[r] for r in group.rollouts))
            for group in self.groups
        ]
        return self._replace(groups=tuple(groups))


def key_of(rollout: Rollout) -> Key:
    """Names everything about a rollout that a gradient depends on."""
    own = (rollout.problem_id, rollout.sample_idx, rollout.policy, rollout.seed, len(rollout.prompt_tokens))
    name = hashlib.blake2b(repr(own).encode(), digest_size=16)
    for array in (rollout.prompt_tokens, rollout.completion_tokens, rollout.logprobs):
        name.update(array.tobytes())
    return name.digest()


class Kept:
    """The rollouts added last, as many as have `limit` tokens in all."""

    def __init__(self, limit: int = KEPT_TOKENS) -> None:
        self.rollouts: dict[Key, Rollout] = {}
        self._limit, self._tokens = limit, 0

    def add(self, rollouts: Sequence[Rollout]) -> tuple[Key, ...]:
        """Returns the keys of those that had to go."""
        for key, rollout in ((key_of(one), one) for one in rollouts):
            self._drop(key)
            self.rollouts[key] = rollout
            self._tokens += len(rollout.completion_tokens)
        gone = []
        while self._tokens > self._limit:
            gone.append(next(iter(self.rollouts)))
            self._drop(gone[-1])
        return tuple(gone)

    def _drop(self, key: Key) -> None:
        if key in self.rollouts:
            self._tokens -= len(self.rollouts.pop(key).completion_tokens)


class Host:
    """`fetch` turns a reference to a file into its bytes, an array of uint8; `factory` makes what does the work."""

    def __init__(
        self, spec: ModelSpec, fetch: Callable[[Any], Any], factory: Callable[[ModelSpec], Local] = Local
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="harness-worker-")
        self._root, self._fetch, self._factory, self._kept = Path(self._folder.name), fetch, factory, Kept()
        self._spec = spec._replace(root=self._root, path=_place_of(spec.path))
        self._local: Local | None = None

    def open(self, expected: Facts) -> None:
        """Load the model. Raises HarnessError where packages or model are other than the sender's."""
        found = facts(self._spec.path, tuple(expected.packages))
        for what, (there, here) in zip(Facts._fields, zip(expected, found, strict=True), strict=True):
            if there != here:
                raise HarnessError(
                    f"a worker's {what} differs: {_differing(here, there)} where the run has {_differing(there, here)}. "
                    "Every node needs the same packages, and the same model at the same path."
                )
        self._local = self._factory(self._spec)

    def do(self, message: Message) -> Answer:
        """Raises what the method of Local raises."""
        self._bring(message.files)
        filled = [a.filled(self._kept.rollouts) if isinstance(a, Portion) else a for a in message.arguments]
        value = getattr(self._local, message.name)(*filled)
        if message.name != "sample":
            return Answer(value)
        dropped = self._kept.add(value)
        return Answer(value, tuple(map(key_of, value)), dropped)

    def _bring(self, files: Mapping[str, Any]) -> None:
        for digest, reference in files.items():
            path = self._root / digest
            if path.exists():
                path.touch()
            else:
                np.asarray(self._fetch(reference)).tofile(path)
        others = sorted((p for p in self._root.iterdir() if p.name not in files), key=lambda p: p.stat().st_mtime_ns)
        for path in others[: max(0, len(others) - KEPT_FILES)]:
            path.unlink()


def facts(path: str, packages: Sequence[str] = DECIDING) -> Facts:
    """Of this process and the model at `path`."""
    return Facts({name: _version(name) for name in packages}, file_hashes(path))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _place_of(path: str) -> str:
    if path != EMBEDDED:
        return path
    from harness_tiny import weights_path  # where the package lies on this machine

    return str(weights_path())


def _differing(own: Mapping[str, str], other: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value[:12]}" for name, value in own.items() if other.get(name) != value) or "none"
