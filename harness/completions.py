"""The input of `harness verify`: one JSON object a line, with a data row and a completion.

Does: read a stream line by line within bounded memory, let the domain turn the row into a problem, and say of a
malformed line what is wrong with it.
Doesn't: judge, or stop at a malformed line.

A line is {"id": ..., "problem": {row in the data set's own field names}, "completion": "..."}. Ids are echoed and may
repeat: order, not id, ties a verdict to its line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, cast

from harness import jsonlines
from harness.contracts import Domain
from harness.errors import BadRow, HarnessError, UsageError
from harness.jsonlines import Malformed
from harness.types import Json, Problem

DETAIL_CHARS = 300
SHAPE = '{"id": ..., "problem": {...}, "completion": "..."}'
# What a plugin's `read` may raise over an odd row besides BadRow. Anything else is a fault worth a traceback.
_ROW_FAULTS = (HarnessError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


class ReadingDomain(Domain, Protocol):
    """A domain that understands data rows."""

    def read(self, row: Mapping[str, Any]) -> Problem: ...


def reading(domain: Domain) -> ReadingDomain:
    """The domain as one that reads rows; raises UsageError when it does not."""
    if not hasattr(domain, "read"):
        raise UsageError(
            f'domain "{domain.name}" does not read data rows: {type(domain).__name__} has no read(row) '
            "(see harness.contracts.Domain)"
        )
    return cast(ReadingDomain, domain)


def read_row(domain: ReadingDomain, row: Mapping[str, Any]) -> Problem:
    """Raises BadRow for whatever a plugin's `read` may raise over an odd row."""
    try:
        return domain.read(row)
    except _ROW_FAULTS as error:
        raise BadRow(str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}") from error


class Line(NamedTuple):
    """One line of the input: a problem and a completion, or what is wrong with it. `size` is in bytes."""

    number: int
    size: int
    id: Json
    problem: Problem | None
    completion: str
    fault: str


class Input(NamedTuple):
    """An open input; `lines` is how many it has, None when that cannot be known before reading."""

    file: IO[bytes]
    lines: int | None


@contextmanager
def opened(path: Path) -> Iterator[Input]:
    """The input file, or standard input for "-". Raises UsageError when it cannot be read."""
    if str(path) == "-":
        yield Input(sys.stdin.buffer, None)
        return
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below; only a failure to open is a mistake of the user's
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    with file:
        yield Input(file, _count(file) if path.is_file() else None)


def _count(file: IO[bytes]) -> int:
    lines, last = 0, b""
    while block := file.read(1 << 20):
        lines, last = lines + block.count(b"\n"), block
    file.seek(0)
    return lines + bool(last and not last.endswith(b"\n"))


def read_lines(file: IO[bytes], domain: ReadingDomain) -> Iterator[Line]:
    """The lines of a UTF-8 file, numbered from 1. Blank lines are skipped; a byte order mark and CRLF are accepted."""
    for number, raw in jsonlines.numbered(file):
        try:
            yield _line(number, raw, domain)
        except Malformed as fault:
            yield Line(number, 0, None, None, "", str(fault)[:DETAIL_CHARS])


def _line(number: int, raw: bytes | None, domain: ReadingDomain) -> Line:
    row = jsonlines.decoded(raw)
    if not isinstance(row, dict):
        raise Malformed(f"a line is a JSON object {SHAPE}, found {jsonlines.kind(row)}")
    for field in ("id", "problem", "completion"):
        if field not in row:
            raise Malformed(f"field {field}: missing; a line is {SHAPE}")
    if not isinstance(row["problem"], dict):
        raise Malformed(
            f"field problem: a JSON object in the data set's own field names, found {jsonlines.kind(row['problem'])}"
        )
    if not isinstance(row["completion"], str):
        raise Malformed(f"field completion: text, found {jsonlines.kind(row['completion'])}")
    _check_id(row["id"])
    try:
        problem = read_row(domain, row["problem"])
    except BadRow as error:
        raise Malformed(f"problem: {error}") from error
    return Line(number, len(raw or b""), row["id"], problem, row["completion"], "")


def _check_id(value: Json) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError) as error:  # NaN, which Python reads and JSON does not know
        raise Malformed(f"field id: {error}") from error
