"""The run folder: files that are whole or absent, records as JSON, and the journal that makes resume free.

Does: write under a temporary name, fsync, note the checksum, rename; encode records; remember finished stage calls by ordinal and a
hash of their arguments.
Doesn't: lock, delete, or know what a stage means. A method and seed of a run is written by one process at a time.
"""

from __future__ import annotations

import dataclasses
import enum
import errno
import functools
import hashlib
import json
import os
import re
import sys
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError

from harness import checksums, types
from harness.budget import Cost
from harness.errors import HarnessError, NotFinite, UsageError

T = TypeVar("T")
FAILED = "not-finite"
# Failures that no program can be blamed for: disks that are full, broken, gone or read-only, limits, rights.
OF_THE_SYSTEM = frozenset({
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE, errno.EACCES, errno.EPERM, errno.EMFILE,
    errno.ENFILE, errno.ENOMEM, errno.ENOTDIR,
})  # fmt: skip
_THEMSELVES = frozenset({str, int, float, bool, type(None)})  # what JSON has as it is
RECORDS: dict[str, type[Any]] = {
    name: kind for name, kind in vars(types).items() if isinstance(kind, type) and dataclasses.is_dataclass(kind)
}


def record(kind: type[T]) -> type[T]:
    """Class decorator: let `decode` rebuild this record."""
    RECORDS[kind.__name__] = kind
    return kind


@contextmanager
def told_clearly(root: Path) -> Iterator[None]:
    """Turn a full disk, another failure of the system's, or the end of memory into a HarnessError that says how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno not in OF_THE_SYSTEM:
            raise
        where = f" ({error.filename})" if error.filename else ""
        raise HarnessError(f"{os.strerror(error.errno)}{where}. {_go_on(root, 'Put that right')}") from error
    except MemoryError as error:
        raise HarnessError(
            f"out of memory{f': {error}' if str(error) else ''}. {_go_on(root, 'Use fewer --workers')}, or begin a new run with a "
            "smaller engine.shard_rollouts"
        ) from error


def _go_on(root: Path, remedy: str) -> str:
    return f"Nothing finished is lost. {remedy}, then: harness resume {root}"


def write_via(path: Path, writer: Callable[[str], object]) -> None:
    """Let `writer` fill a temporary file, then make it appear at `path` at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _system_errors(path):
            writer(str(temporary))
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        checksums.note(path, checksums.digest(temporary))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # there only when something failed
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def make_folder(path: Path) -> None:
    """Raises UsageError where there cannot be such a folder."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {path}: {error.strerror}") from error


@contextmanager
def _system_errors(path: Path) -> Iterator[None]:
    """With the file in them, which the system does not name; safetensors tells a full disk in words only."""
    try:
        yield
    except SafetensorError as error:
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error
        raise
    except OSError as error:
        if error.errno:  # else it was not the system
            error.filename = str(path)
        raise


def write_text(path: Path, text: str) -> None:
    write_via(path, lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any, *, compact: bool = False) -> None:
    """One value, for people to read unless `compact`: line breaks cost ten times the seconds."""
    write_text(path, json.dumps(encode(value), indent=None if compact else 1) + "\n")


def read_json(path: Path, kind: type = object) -> Any:
    """Raises HarnessError for a file that `write_json` did not write, or wrote with another kind of value."""
    with as_written(path):
        found = decode(read_plain(path))
        if not isinstance(found, kind):
            raise TypeError(f"found {type(found).__name__}, not {kind.__name__}")
    return found


def read_plain(path: Path) -> Any:
    """The same without records: objects and lists as JSON has them. Raises as `read_json`."""
    with as_written(path):
        return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def as_written(path: Path) -> Iterator[None]:
    """Inside, a fault in what is read from `path` is a HarnessError that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise HarnessError(f"{path} is gone, which the run has written") from error
    except (
        ValueError,
        LookupError,
        TypeError,
        RecursionError,
        SafetensorError,
    ) as error:  # no JSON, or no record of ours
        raise HarnessError(f"{path} is not what the harness writes ({type(error).__name__}: {error})") from error


digest = checksums.digest


def encode(value: Any) -> Any:
    """Records become {"!": class name, field: ...}; tuples become lists."""
    if type(value) in _THEMSELVES:
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        return {"!": kind.__name__, **{name: encode(getattr(value, name)) for name in _field_names(kind)}}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(encode(item) for item in value)  # a set prints in another order in every process
    if isinstance(value, dict):
        return {str(key): encode(item) for key, item in value.items()}
    return value


@functools.cache
def _field_names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


def decode(value: Any) -> Any:
    """The inverse of `encode`; sequences come back as tuples."""
    if isinstance(value, list):
        kinds = set(map(type, value))
        if kinds == {str}:  # problem ids, mostly: a run's files say the same ones thousands of times
            return tuple(map(sys.intern, value))
        return tuple(map(decode, value)) if kinds & {list, dict} else tuple(value)
    if not isinstance(value, dict):
        return value
    fields = {k: item if type(item) in _THEMSELVES else decode(item) for k, item in value.items() if k != "!"}
    if "!" not in value:
        return fields
    for name, choices in _enum_fields(value["!"]).items():
        fields[name] = choices(fields[name])
    return RECORDS[value["!"]](**fields)


@functools.cache
def _enum_fields(kind: str) -> dict[str, type[enum.Enum]]:
    hints = typing.get_type_hints(RECORDS[kind])
    return {name: hint for name, hint in hints.items() if isinstance(hint, type) and issubclass(hint, enum.Enum)}


def fingerprint(value: Any) -> str:
    """16 hex digits that identify a JSON-like value or record."""
    return hashlib.sha256(json.dumps(encode(value), sort_keys=True).encode()).hexdigest()[:16]


def write_lines(path: Path, rows: list[Any]) -> None:
    write_text(path, "".join(json.dumps(encode(row), ensure_ascii=False) + "\n" for row in rows))


def read_lines(path: Path) -> Iterator[Any]:
    """Raises HarnessError for a file that `write_lines` did not write."""
    with as_written(path), open(path, encoding="utf-8") as file:
        for line in file:
            yield decode(json.loads(line))


class Journal:
    """Finished stage calls of one method, one file each.

    A method is deterministic, so on resume its n-th call has the same arguments as before; a different hash means
    that the code or the spec has changed under the run, which is an error, not a reason to mix two runs. Numbers that are
    not finite are remembered as well: a method may go on from them, and they may not come a second time on a GPU.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ordinal = 0

    def call(self, stage: str, arguments: Any, work: Callable[[], tuple[T, Cost]]) -> tuple[T, Cost, bool]:
        """Return (result, cost, replayed). Raises NotFinite where `work` does, or did."""
        self.ordinal += 1
        key = fingerprint(arguments)
        for known in self.folder.glob(f"{self.ordinal:04d}-*.json"):
            entry = read_json(known)
            if (entry["stage"], entry["key"]) != (stage, key):
                raise HarnessError(
                    f"{known} was written by a call with other arguments: the method or the spec changed since. "
                    "Start a new run instead of resuming this one."
                )
            if FAILED in entry:
                raise NotFinite(entry[FAILED])
            return entry["result"], Cost(**entry["cost"]), True
        try:
            result, cost = work()
        except NotFinite as reason:
            self._write(FAILED, {"stage": stage, "key": key, FAILED: str(reason)})
            raise
        self._write(stage, {"stage": stage, "key": key, "result": result, "cost": cost._asdict()})
        return result, cost, False

    def _write(self, name: str, entry: dict[str, Any]) -> None:
        write_json(self.folder / f"{self.ordinal:04d}-{name}.json", entry)
