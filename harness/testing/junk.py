"""Completions that no verifier should stumble over.

Does: name texts that broke verifiers elsewhere: nothing at all, a megabyte, control characters, deep nesting.
Doesn't: hold hostile programs or answers of any one domain: those are the domain's own specimens.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

MEGABYTE = 1_000_000
SMALL = 5_000
_CONTROL = "".join(map(chr, [*range(32), *range(127, 160)]))

JUNK: Mapping[str, str] = MappingProxyType(
    {
        "nothing": "",
        "white space": " \t\r\n\v\f\u00a0\u3000\u2028",
        "a megabyte of words": "lorem ipsum " * (MEGABYTE // 12),
        "a megabyte of digits": "7" * MEGABYTE,
        "a megabyte of spaces": " " * MEGABYTE,
        "a megabyte of lines": "\n" * MEGABYTE,
        "a megabyte of commas": "1," * (MEGABYTE // 2),
        "signs in a row": "-" * 100_000,
        "a long sum": "1+" * 100_000,
        "NUL": "\x00" * 1_000 + "a\x00b",
        "control characters": _CONTROL * 10,
        "scripts and emoji": "\U0001d7df \uff17 \u0667 \u00bd \u216b e\u0301 \u202e\u05e9\u05dc \U0001f469\u200d\U0001f467 \ufeff\u6f22"
        * 50,
        "a lone surrogate": "\ud800 answer \udfff",
        "open brackets": "(" * 100_000,
        "nested brackets": "[" * 100_000 + "]" * 100_000,
        "nested braces": "{" * 100_000 + "}" * 100_000,
        "nested boxes": "\\boxed{" * 10_000 + "}" * 10_000,
        "backslashes": "\\" * 100_000,
        "fences": "```\n" * 25_000,
        "quotes": "\"'" * 50_000,
        "format directives": "%s%n{0}{x!r:>9999}${y}" * 100,
    }
)

ROWS: tuple[Mapping[str, object], ...] = (
    {},
    {"unknown field": 1},
    {"answer": None},
    {"prompt": 5, "question": [], "problem": {}, "text": None, "answer": "1", "test": 0, "train": "x"},
    {"prompt": "", "question": "", "problem": "", "answer": ""},
    {"id": {}, "task_id": [], "unique_id": 1.5},
)
"""Rows that no domain understands; `read` must say so with BadRow."""
