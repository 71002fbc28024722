"""What a folder's files were when they were written: a list beside them that `sha256sum -c` reads as well.

Does: note the sha256 of every file that store.write_via makes below a folder that keeps such a list; tell which files are no
longer what was written.
Doesn't: protect what other programs write there, or repair anything (mending.py).

A line is written before its file appears, so a whole file has one however its writer ended; a file that is written again has
several, and any of them will do: its writer may have been killed between the line and the file. Without its line, which a
damaged list may have lost, a file is taken as it is.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

NAME = "checksums.sha256"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def begin(folder: Path) -> None:
    """Make `folder` one that keeps a list; one that has one goes on with it."""
    (folder / NAME).touch()


def digest(path: Path) -> str:
    """sha256 of a file's content, hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def note(path: Path, content: str) -> None:
    """Put the sha256 `content` of what is to be at `path` on the list of the nearest folder above that keeps one."""
    folder = next((folder for folder in path.parents if (folder / NAME).exists()), None)
    if folder is None:
        return
    line = f"{content}  {path.relative_to(folder).as_posix()}\n"
    descriptor = os.open(folder / NAME, os.O_WRONLY | os.O_APPEND)  # lines of several processes stay whole
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def damaged(folder: Path, *, only: Sequence[str] = ()) -> list[Path]:
    """The listed files that are there and are not what was written, relative to `folder`; of those called `only`, if given."""
    known = listed(folder)
    suspects = _differing(folder, {path: known[path] for path in map(Path, only) if path in known} if only else known)
    if not suspects:
        return []
    again = listed(folder)  # another process may have written one meanwhile
    return _differing(folder, {path: again[path] for path in suspects})


def listed(folder: Path) -> dict[Path, set[str]]:
    """Each listed file with every content that it was to have. Lines that are no lines are left out."""
    found: dict[Path, set[str]] = defaultdict(set)
    if (folder / NAME).exists():
        for line in (folder / NAME).read_text(encoding="utf-8", errors="replace").splitlines():
            if match := _LINE.fullmatch(line):
                found[Path(match[2])].add(match[1])
    return dict(found)


def _differing(folder: Path, known: dict[Path, set[str]]) -> list[Path]:
    found = []
    for path, contents in known.items():
        try:
            if digest(folder / path) not in contents:
                found.append(path)
        except FileNotFoundError:  # not made yet, or no longer kept
            continue
    return sorted(found)
