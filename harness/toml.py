"""TOML as users write it and as run folders keep it.

Does: read a text file that a user names, parse it, write values; say which file and which line is wrong.
Doesn't: know what keys mean (config.py, suiting.py).
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import limits
from harness.errors import UsageError

DEEPEST = 32


def read_text(file: Path, what: str) -> str:
    """The text of a file that a user names, without a byte order mark. Raises UsageError for what is no such file."""
    try:
        if not file.is_file():
            raise UsageError(f"{file} is no {what}" if file.exists() else f"no {what} {file}")
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{file}, line {line} is not UTF-8: {error.reason}") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UsageError(f"cannot read {what} {limits.short(str(file))}: {error}") from error


def parsed(text: str, place: str) -> dict[str, Any]:
    """Raises UsageError that says where `place` is not TOML, or has numbers or nesting that nothing could work with."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{place} is not TOML: {error}") from error
    except ValueError as error:  # of int()
        raise UsageError(f"{place} has a number of more than {sys.get_int_max_str_digits()} digits") from error
    except RecursionError as error:
        raise UsageError(f"{place} is nested too deeply") from error
    _require_sane(values, place, DEEPEST)
    return values


def _require_sane(value: Any, place: str, depth: int) -> None:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise UsageError(f"{place} has a number of {value.bit_length()} bits; TOML's have 64")
    if isinstance(value, dict | list):
        if not depth:
            raise UsageError(f"{place} is nested too deeply: at most {DEEPEST} tables and lists in each other")
        for item in value.values() if isinstance(value, dict) else value:
            _require_sane(item, place, depth - 1)


def written(values: Mapping[str, Any]) -> str:
    """Values and nested tables as TOML."""
    return "\n".join(_lines(values, "")) + "\n"


def _lines(values: Mapping[str, Any], prefix: str) -> list[str]:
    plain = {k: v for k, v in values.items() if not isinstance(v, Mapping)}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            place = f"{prefix}{_key(key)}"
            lines += ["", f"[{place}]", *_lines(value, f"{place}.")]
    return lines


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML escapes are JSON's, and DEL
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return repr(value)
