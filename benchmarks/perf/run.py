"""Measure the harness against its peers: one table, and benchmarks/perf/results.csv. `make perf` calls it.

    python -m benchmarks.perf.run [--only NAME]...

Does: run every measure in a process of its own with one OpenMP thread; print the table, also as Markdown;
write a line for each row, with versions, processor, load, date and commit. Rows of measures that were not run stay.
Doesn't: hide: a measure that failed, or whose peer is missing, is a row that says so and meets no goal.
"""

from __future__ import annotations

import csv
import datetime
import importlib
import io
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.perf.rows import Row, is_met
from harness import store

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "perf" / "results.csv"
MEASURES = (
    "sampling", "sampling_stage", "gradient", "racing", "two_processes", "trl", "grpo", "code_verdicts", "math_verdicts", "memory",
    "reporting", "startup",
)  # fmt: skip
APART = ("vllm",)  # in an environment of their own: only when named
PACKAGES = ("torch", "transformers", "trl", "evalplus", "math-verify")
COLUMNS = ("measure", *Row._fields, "met", "seconds", "load", "date", "commit", "cpu", "cores", "python", *PACKAGES)
LIMIT = 3600  # seconds of one measure
FAILED = "failed"
Line = dict[str, Any]


@click.command()
@click.option(
    "--only", multiple=True, type=click.Choice((*MEASURES, *APART)), metavar="NAME", help="a measure, repeatable"
)
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, help="the CSV to write")
def main(only: tuple[str, ...], out: Path) -> None:
    """Measure the harness against its peers."""
    machine = describe()
    for name in only or MEASURES:
        print(f"{name} ...", file=sys.stderr, flush=True)
        load, started = os.getloadavg()[0], time.monotonic()
        rows = measured(name)
        seconds = time.monotonic() - started
        print(f"{name}: {len(rows)} rows, {seconds:.0f} s", file=sys.stderr, flush=True)
        merge(out, name, [line(name, row, seconds=seconds, load=load, machine=machine) for row in rows])
    lines = read(out)
    show(lines)
    print(f"\n{as_markdown(lines)}")


def measured(name: str, *, limit: float = LIMIT, package: str = "benchmarks.perf") -> list[Row]:
    """The rows of one measure, made in a process of its own; one row that says why where there are none."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "rows.json"
        code = f"from benchmarks.perf import run; run.measure_here({f'{package}.{name}'!r}, {str(answer)!r})"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, text=True, timeout=limit, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return [failure(name, f"stopped after {limit:.0f} s")]
        if not answer.exists():
            reasons = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
            return [failure(name, reasons[-1])]
        return [Row(*values) for values in json.loads(answer.read_text(encoding="utf-8"))]


def measure_here(module: str, answer: str) -> None:
    """In the measure's own process: write its rows as JSON."""
    rows: Sequence[Row] = importlib.import_module(module).measure()
    for row in rows:
        is_met(row)  # a goal that is none is the measure's mistake, and told as such
    Path(answer).write_text(json.dumps(rows), encoding="utf-8")


def failure(name: str, reason: str) -> Row:
    none = float("nan")
    return Row(name, none, none, "", none, FAILED, reason)


def line(name: str, row: Row, *, seconds: float, load: float, machine: Line) -> Line:
    """One line of results.csv. `met` is yes, no, failed, or empty for a row without a goal."""
    met = FAILED if row.goal == FAILED else {True: "yes", False: "no", None: ""}[is_met(row)]
    values: Line = {**row._asdict(), "goal": "" if row.goal == FAILED else row.goal}
    numbers = {key: _cell(value) for key, value in values.items()}
    return {"measure": name, **numbers, "met": met, "seconds": f"{seconds:.0f}", "load": f"{load:.1f}", **machine}


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)


def describe() -> Line:
    """What was measured with: the same for all rows of one call."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M"),
        "commit": commit,
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def _cpu_model() -> str:
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    names = [text.partition(":")[2].strip() for text in lines if text.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(package: str) -> str:
    """Also of trl in its own environment (trl.py)."""
    other = os.environ.get("HARNESS_PERF_TRL") if package == "trl" else None
    if other:
        code = f"from importlib.metadata import version; print(version({package!r}))"
        return subprocess.run([other, "-c", code], capture_output=True, text=True, check=False).stdout.strip()
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def read(path: Path) -> list[Line]:
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def merge(path: Path, measure: str, lines: Sequence[Line]) -> None:
    """Replace the lines of one measure; lines keep the order of MEASURES."""
    kept = [old for old in read(path) if old["measure"] != measure]
    order = {name: place for place, name in enumerate((*MEASURES, *APART))}
    merged = sorted([*kept, *lines], key=lambda found: order.get(found["measure"], len(order)))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(merged)
    store.write_text(path, text.getvalue())


HEAD = ("figure", "ours", "peer", "unit", "ratio", "goal", "met", "peer is")


def cells(found: Line) -> tuple[str, ...]:
    """A line of results.csv as the table shows it."""
    ours, peer, ratio = (_short(found[key]) for key in ("ours", "peer", "ratio"))
    shown = (found["name"], ours, peer, found["unit"], ratio, found["goal"], found["met"], found["note"])
    return tuple(cell.replace("|", "/") for cell in shown)


def _short(text: str) -> str:
    return f"{float(text):.3g}" if text and abs(float(text)) < 1000 else f"{float(text):,.0f}" if text else ""


def show(lines: Sequence[Line]) -> None:
    table = Table(title="The harness against its peers", title_justify="left")
    for name in HEAD:
        table.add_column(name, justify="right" if name in ("ours", "peer", "ratio") else "left")
    for found in lines:
        table.add_row(*cells(found), style={"no": "yellow", FAILED: "red"}.get(found["met"]))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def as_markdown(lines: Sequence[Line]) -> str:
    top = ["| " + " | ".join(HEAD) + " |", "|" + " --- |" * len(HEAD)]
    return "\n".join([*top, *("| " + " | ".join(cells(found)) + " |" for found in lines)])


if __name__ == "__main__":
    main()
