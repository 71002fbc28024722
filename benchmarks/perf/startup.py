"""What `harness --help` and `import harness` add to a bare interpreter.

Does: medians of wall seconds over many starts, in turns.
Doesn't: measure a cold disk.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.perf.rows import Row

STARTS = 15
BARE = (sys.executable, "-c", "pass")
IMPORT = (sys.executable, "-c", "import harness")
HELP = (sys.executable, "-c", "from harness.cli import main; main()", "--help")


def measure() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:  # elsewhere, so that the installed package is what starts
        times = {command: [_start(command, folder)] for command in (BARE, IMPORT, HELP)}
        for _ in range(STARTS):
            for command, seen in times.items():
                seen.append(_start(command, folder))
    bare, imported, helped = (statistics.median(seen[1:]) for seen in times.values())
    return [_row("import harness", imported, bare, bound=0.1), _row("harness --help", helped, bare, bound=0.2)]


def _row(name: str, seconds: float, bare: float, *, bound: float) -> Row:
    note = f"python -c pass takes {bare:.3f} s; ours is what comes on top, median of {STARTS}"
    return Row(f"start: {name}", seconds - bare, bare, "wall s added", float("nan"), f"ours <= {bound}", note)


def _start(command: tuple[str, ...], folder: str) -> float:
    started = time.monotonic()
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - started
