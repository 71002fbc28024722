"""Verify a file of completions: one JSON object a line in, one verdict a line out, in the same order.

Does: take lines (completions.py) within a window of bounded size, judge it in the pool, write, go on; write a file
under another name until it is whole; say which isolation was in force.
Doesn't: sample, score or keep anything of a line once its verdict is written.

Equal lines are judged once within a window. A worker that hangs delays the window it is in, not the ones before.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from harness import completions, isolation, jsonlines
from harness.completions import Line
from harness.config import RunSpec
from harness.console import Reporter
from harness.errors import UsageError
from harness.plugins import Registration
from harness.types import Json, Outcome
from harness.verifying import VerifierPool

WINDOW_LINES, WINDOW_BYTES = 2048, 16 << 20
MAX_TIMEOUT = 86_400.0

Progress = Callable[[int, int], None]


class Summary(NamedTuple):
    """Verdicts by outcome (malformed lines are not among them), malformed lines, wall seconds."""

    counts: Counter[str]
    malformed: int
    seconds: float

    @property
    def clean(self) -> bool:
        """No malformed line and no failure of the verifier."""
        return not self.malformed and not self.counts[Outcome.ERROR]

    def __str__(self) -> str:
        by_outcome = ", ".join(f"{outcome} {self.counts[outcome]}" for outcome in Outcome if self.counts[outcome])
        malformed = f"; malformed lines {self.malformed}" if self.malformed else ""
        return f"verified {self.counts.total()} in {self.seconds:.1f} s: {by_outcome or 'nothing'}{malformed}"


def check_timeout(seconds: float | None) -> None:
    if seconds is not None and not (math.isfinite(seconds) and 0 < seconds <= MAX_TIMEOUT):
        raise UsageError(f"--timeout must be above 0 and at most {MAX_TIMEOUT:.0f} seconds, got {seconds}")


def verify(
    lines: Iterable[Line], pool: VerifierPool, *, write: Callable[[Mapping[str, Json]], None], progress: Progress
) -> Summary:
    """Judge a stream of lines and `write` one record for each, in order.

    At most a window of lines is held. `progress` hears (lines judged so far, lines read so far). Raises
    VerifierFailure when the verifier does not start.
    """
    started, counts, malformed, before = time.monotonic(), Counter[str](), 0, 0
    for window in _windows(lines):
        total, bad = before + len(window), sum(1 for line in window if line.problem is None)
        items = [(line.problem, line.completion) for line in window if line.problem is not None]
        answers = iter(pool.verify(items, partial(_shift, progress, before + bad, total)))
        for line in window:
            if line.problem is None:
                write({"id": None, "line": line.number, "outcome": Outcome.ERROR, "detail": line.fault})
                continue
            verdict = next(answers)
            counts[verdict.outcome] += 1
            write(
                {
                    "id": line.id,
                    "outcome": verdict.outcome,
                    "extracted": verdict.extracted,
                    "format_ok": verdict.format_ok,
                    "detail": verdict.detail,
                    "seconds": round(verdict.seconds, 6),
                }
            )
        malformed, before = malformed + bad, total
    return Summary(counts, malformed, time.monotonic() - started)


def _shift(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _windows(lines: Iterable[Line]) -> Iterator[list[Line]]:
    window: list[Line] = []
    size = 0
    for line in lines:
        window.append(line)
        size += line.size
        if len(window) >= WINDOW_LINES or size >= WINDOW_BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window


def check_output(path: Path, *, source: Path) -> str:
    """What to say about an earlier result at `path` that will be replaced, "" when there is none.

    Raises UsageError when something else is there: a mistyped --out must not cost anybody a file.
    """
    try:
        in_the_way = not path.is_dir() and _part_of(path).exists() and not _is_result(_part_of(path))
    except OSError as error:
        raise UsageError(f"--out {path} cannot be a file: {error.strerror}") from error
    if in_the_way:
        raise UsageError(f"{_part_of(path)} is in the way of --out {path}, and is no result of harness verify")
    if not path.exists():
        return ""
    if source.exists() and path.samefile(source):
        raise UsageError(f"--out {path} is the input itself")
    if not path.is_file() or not _is_result(path):
        raise UsageError(f"--out {path} exists and is no result of harness verify: move it away or choose another name")
    return f"{path} holds an earlier result, which is replaced when this one is whole"


def _part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _is_result(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            first = file.readline(jsonlines.MAX_LINE_BYTES)
        record = json.loads(first) if first else {"id": None, "outcome": Outcome.ERROR}
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and "id" in record and record.get("outcome") in list(Outcome)


@contextmanager
def writing(path: Path | None) -> Iterator[Callable[[Mapping[str, Json]], None]]:
    """A function that writes one record as a line, to standard output or to `path`.

    The file is called PATH.part until it is whole; after a failure or an interruption that is what remains.
    """
    if path is None:
        yield lambda record: print(json.dumps(record))
        sys.stdout.flush()
        return
    part = _part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(part, "w", encoding="ascii", newline="\n")  # noqa: SIM115 - closed below, as in `opened`
    except OSError as error:
        raise UsageError(f"cannot write {part}: {error.strerror}") from error
    try:
        with file:
            yield lambda record: print(json.dumps(record), file=file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        if part.exists() and not part.stat().st_size:
            part.unlink()


def run(
    source: Path,
    registration: Registration,
    *,
    say: Callable[[str], None],
    out: Path | None,
    workers: int | None,
    timeout: float | None,
    require_isolation: bool,
) -> bool:
    """Verify `source` ("-": standard input) into `out` (None: standard output), with progress on standard error.

    `say` gets what a person should know. Returns whether every line could be judged. Raises UsageError for what
    cannot begin, VerifierFailure for a verifier that does not start.
    """
    check_timeout(timeout)
    domain = completions.reading(registration.load()())
    level = isolation.level(domain)
    if require_isolation and not isolation.confined(level):
        raise UsageError(f"--require-isolation: the isolation in force is {level}, which is below landlock")
    notes = [check_output(out, source=source) if out else "", isolation.warning(level)]
    count = workers or RunSpec(domain=registration.name).num_workers
    # On a terminal that shows the verdicts themselves, a progress bar would break their lines.
    shown = out is None and sys.stdout.isatty()
    with completions.opened(source) as input_, Reporter(quiet=shown) as reporter:
        for note in filter(None, notes):
            say(note)
        with writing(out) as write, VerifierPool(registration.target, workers=count, override=timeout) as pool:
            summary = verify(
                completions.read_lines(input_.file, domain),
                pool,
                write=write,
                progress=partial(_show, reporter, input_.lines),
            )
        judged = summary.counts.total() + summary.malformed
        reporter("verify", judged, judged)
    say(f"{summary}\nisolation: {level}")
    return summary.clean


def _show(reporter: Reporter, lines: int | None, done: int, read: int) -> None:
    """Until the last line: how many there are is known for a file, blank lines included, and else guessed."""
    if done < (total := lines or read + 1):
        reporter("verify", done, total)
