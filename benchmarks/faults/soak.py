"""A long run watched from outside: memory, open files and processes of everything that it starts, stopped once and resumed.

Does: run one_shot at 65,536 rollouts in each of several seeds on the embedded model, ask it to stop once, resume it, and write
a row every few seconds; at the end say how memory went.
Doesn't: judge what came out.

Memory is the proportional set size: a page that several processes share is counted once. It rises with the first gradient, whose
room the allocators keep, and must be flat after that.

    python -m benchmarks.faults.soak [--rollouts N] [--seeds N] [--stop-after SECONDS] [--out FILE.csv]
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from harness import processes

EVERY = 5.0  # seconds between two rows
OUT = Path(__file__).with_name("soak.csv")


class Seen(NamedTuple):
    """One look at a process and all that it started."""

    seconds: float
    attempt: int
    processes: int
    files: int
    megabytes: float
    largest_megabytes: float
    shards: int


def look(pid: int, *, begun: float, attempt: int, root: Path) -> Seen:
    family = list(processes.tree(pid))
    memory = [size for one in family if (size := megabytes(one))]
    files = sum(count_files(one) for one in family)
    shards = sum(1 for _ in root.rglob("verdicts/*/*/*.json"))
    seconds = time.monotonic() - begun
    return Seen(seconds, attempt, len(memory), files, sum(memory), max(memory, default=0.0), shards)


def megabytes(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def count_files(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def watch(command: list[str], *, attempt: int, begun: float, root: Path, stop_after: float | None) -> Iterator[Seen]:
    """Rows until the command ends; it is asked to stop after `stop_after` seconds. Raises RuntimeError when it fails."""
    process, started = subprocess.Popen(command), time.monotonic()
    while process.poll() is None:
        time.sleep(EVERY)
        yield look(process.pid, begun=begun, attempt=attempt, root=root)
        if stop_after is not None and time.monotonic() - started > stop_after:
            process.send_signal(signal.SIGTERM)
            stop_after = None
    if process.returncode not in (0, 130):
        raise RuntimeError(f"{command} ended with status {process.returncode}")


def summary(rows: list[Seen]) -> Iterator[str]:
    """For every attempt what was seen in each fifth of its time."""
    for attempt in sorted({row.attempt for row in rows}):
        own = [row for row in rows if row.attempt == attempt and row.processes]
        first, last = own[0].seconds, own[-1].seconds
        yield f"attempt {attempt}: {last - first:.0f} s, {own[-1].shards - own[0].shards} shards"
        for fifth in range(5):
            low, high = (first + (last - first) * part / 5 for part in (fifth, fifth + 1))
            part = [row for row in own if low <= row.seconds <= high]
            if not part:
                continue
            memory = sorted(row.megabytes for row in part)
            yield (
                f"  fifth {fifth + 1}: median {memory[len(memory) // 2]:.0f} MB, most {memory[-1]:.0f} MB (of one process "
                f"{max(row.largest_megabytes for row in part):.0f}), files up to {max(row.files for row in part)}, "
                f"processes up to {max(row.processes for row in part)}"
            )


@click.command(context_settings={"show_default": True})
@click.option("--rollouts", default=65536, help="training budget of each seed")
@click.option("--seeds", default=4)
@click.option("--stop-after", default=600.0, help="seconds before it is asked to stop, once")
@click.option("--out", type=click.Path(path_type=Path), default=OUT)
def main(rollouts: int, seeds: int, stop_after: float, out: Path) -> None:
    harness, rows, begun = str(Path(sys.executable).with_name("harness")), list[Seen](), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        size = ("--budget", str(rollouts), "--selection-budget", "16384", "--seeds", str(seeds))
        run = ["run", "--domain", "code", "--method", "one_shot", *size, "--out", folder]
        for row in watch([harness, *run], attempt=1, begun=begun, root=root, stop_after=stop_after):
            rows.append(row)
        (own,) = root.iterdir()
        if not (own / "DONE").exists():
            resume = [harness, "resume", str(own)]
            for row in watch(resume, attempt=2, begun=begun, root=root, stop_after=None):
                rows.append(row)
        size = sum(path.stat().st_size for path in own.rglob("*") if path.is_file()) / 1e6
    with open(out, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Seen._fields)
        writer.writerows([round(value, 1) for value in row] for row in rows)
    click.echo("\n".join([*summary(rows), f"run folder {size:.0f} MB"]))


if __name__ == "__main__":
    main()
