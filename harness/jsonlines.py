"""Files of one JSON object a line, as other people write them.

Does: number the lines; hold no more of one than a line may have; decode it, or say what is wrong with it; refuse what is no
regular file where a file is read whole.
Doesn't: know what a row means (selecting.py, completions.py).

UTF-8, with or without a byte order mark and carriage returns; blank lines are nobody's. NaN and Infinity are read, as
Python writes them. A key that stands twice in an object is refused: which of the two is meant nobody knows.
"""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from harness.errors import HarnessError, UsageError

MAX_LINE_BYTES = 64 << 20
_MARK = b"\xef\xbb\xbf"


class Malformed(HarnessError):
    """What is wrong with a line."""


def numbered(file: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines that are not blank; None for one that is longer than a line may be, of which no more is held."""
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        raw = raw.removeprefix(_MARK) if number == 1 else raw
        if len(raw) <= MAX_LINE_BYTES:
            if raw.strip():
                yield number, raw
            continue
        while raw and not raw.endswith(b"\n"):
            raw = file.readline(MAX_LINE_BYTES)
        yield number, None


def decoded(raw: bytes | None) -> Any:
    """The value of a line. Raises Malformed, which says what is wrong and where in the line."""
    if raw is None:
        raise Malformed(f"longer than {MAX_LINE_BYTES >> 20} MiB")
    try:
        return json.loads(raw.decode().strip(), object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        raise Malformed(f"not UTF-8: {error.reason} at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise Malformed(f"not JSON: {error}") from error  # its place is one in this line
    except ValueError as error:  # of int()
        raise Malformed(
            f"not JSON that can be read: a number of more than {sys.get_int_max_str_digits()} digits; write it as text"
        ) from error
    except RecursionError as error:
        raise Malformed("not JSON that can be read: nested too deeply") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise Malformed(f"field {twice}: stands there twice")
    return found


def rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object) of a whole file. Raises UsageError that names the file, and the line."""
    require_file(path)
    with open(path, "rb") as file:
        for number, raw in numbered(file):
            yield number, _row(raw, f"{path}, line {number}")


def whole(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of one JSON list, or of one object. Raises UsageError as `rows` does."""
    require_file(path)
    values = _placed(path.read_bytes().removeprefix(_MARK), str(path))
    listed = values if isinstance(values, list) else [values]
    return [_object(value, f"{path}, row {number}") for number, value in enumerate(listed, start=1)]


def require_file(path: Path) -> None:
    """Raises UsageError where there is none to be read to its end: a pipe or a device would keep the reader for ever."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            path.open("rb").close()
            return
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UsageError(f"{path} cannot be read: {error}") from error
    found = "folder" if stat.S_ISDIR(mode) else "pipe or a device"
    raise UsageError(f"{path} cannot be read: it is a {found}, not a file")


def _row(raw: bytes | None, place: str) -> dict[str, Any]:
    found = _object(_placed(raw, place), place)
    if raw and b"\\u" in raw:
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start]
            raise UsageError(
                f"{place}: {half!a} is half of a surrogate pair and no character: the text was cut"
            ) from error
    return found


def _placed(raw: bytes | None, place: str) -> Any:
    try:
        return decoded(raw)
    except Malformed as error:
        raise UsageError(f"{place}: {error}") from error


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{place}: a row is a JSON object, found {kind(value)}")
    return value


def kind(value: object) -> str:
    """What a value is called in messages."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
