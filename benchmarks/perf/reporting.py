"""Report and leaderboard over many rows: seconds and peak memory of the commands, their start included.

Seconds are of the CPU: the commands are one process, so that these are what one waits on an idle machine.

Does: make many rows of one finished run (on the tabular engine, 300 test problems): once as one run of 50 methods and 10
seeds and once as one of 1,000 rows, for the report, and once as many runs, for the leaderboard.
Doesn't: run that often. The copies differ in method, seed, run and name alone.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.perf import subjects
from benchmarks.perf.rows import Row
from harness import leaderboard, store

ROWS = 1000
METHODS, SEEDS = 50, 10
LOOK = 0.05  # seconds between two looks at the memory of commands that are soon done


def measure() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        original = _finished(root / "original")
        one, many = _many_seeds(original, root / "one"), _many_runs(original, root / "many")
        fifty = _many_methods(original, root / "fifty")
        wide = subjects.harness("report", str(fifty), cwd=root, interval=LOOK)
        report = subjects.harness("report", str(one), cwd=root, interval=LOOK)
        into = str(root / "board")
        merged = subjects.harness("leaderboard", *map(str, many), "--into", into, cwd=root, interval=LOOK)
        shown = subjects.harness("leaderboard", str(one), "--into", str(root / "other"), cwd=root, interval=LOOK)
        count = sum(len(leaderboard.read_csv(path)) for path in Path(into).glob("*.csv"))
    if count != ROWS:
        raise RuntimeError(f"the leaderboard has {count} rows, not {ROWS}")
    return [
        *_rows("report, 50 methods", wide, f"harness report of one run of {METHODS} methods and {SEEDS} seeds"),
        *_rows("report", report, "harness report of one run with 1,000 rows (99 seeds of 10 methods)"),
        *_rows("leaderboard, 100 runs", merged, "harness leaderboard merging 100 runs of 10 rows"),
        *_rows("leaderboard, one run", shown, "harness leaderboard merging one run of 1,000 rows"),
    ]


def _rows(name: str, done: subjects.Watched, note: str) -> list[Row]:
    none = float("nan")
    return [
        Row(f"{name}: time", done.cpu, none, "CPU s", none, "ours <= 20", f"{note}; {done.wall:.1f} s of wall here"),
        Row(f"{name}: memory", done.peak_mb, none, "MB peak PSS", none, "ours <= 500", note),
    ]


def _finished(out: Path) -> Path:
    subjects.harness(
        "run", "--domain", "tabular", "--engine", "tabular", "--model", "tabular", "--budget", "1024", "--workers", "1",
        "--quiet", "--out", str(out), cwd=Path.cwd(),
    )  # fmt: skip
    return subjects.run_folder(out)


def _many_seeds(original: Path, copy: Path) -> Path:
    """One run folder: seed 0 of each method again and again, and the rows of all seeds."""
    shutil.copytree(original, copy)
    rows = leaderboard.read_csv(original / "leaderboard.csv")
    kept = [row for row in rows if row["seed"] == "all"]
    seeds = ROWS // len(kept) - 1
    (copy / "leaderboard.csv").unlink()
    made: list[dict[str, Any]] = []
    for row in rows:
        if row["seed"] == "all":
            continue
        for seed in range(seeds):
            made.append({**row, "seed": seed})
            if seed:
                shutil.copytree(original / f"methods/{row['method']}/0", copy / f"methods/{row['method']}/{seed}")
    store.write_text(copy / "leaderboard.csv", leaderboard.to_csv([*made, *kept]))
    return copy


def _many_methods(original: Path, copy: Path) -> Path:
    """One run folder: the methods of the run again and again under other names, each with the same seed ten times."""
    shutil.copytree(original, copy)
    rows, made = leaderboard.read_csv(original / "leaderboard.csv"), []
    for number in range(METHODS // sum(row["seed"] == "all" for row in rows)):
        for row in rows:
            name = f"{row['method']}_{number}" if number else row["method"]
            seeds = range(SEEDS) if row["seed"] != "all" else ["all"]
            made += [{**row, "method": name, "seed": seed} for seed in seeds]
            for seed in seeds if row["seed"] != "all" else ():
                target = copy / f"methods/{name}/{seed}"
                if not target.exists():
                    shutil.copytree(original / f"methods/{row['method']}/0", target)
    store.write_text(copy / "leaderboard.csv", leaderboard.to_csv(made))
    return copy


def _many_runs(original: Path, folder: Path) -> list[Path]:
    """Run folders of other names, of which the leaderboard reads the rows alone."""
    rows = leaderboard.read_csv(original / "leaderboard.csv")
    made = []
    for place in range(ROWS // len(rows)):
        name = f"{original.name}-{place:03d}"
        store.write_text(folder / name / "leaderboard.csv", leaderboard.to_csv([{**r, "run_id": name} for r in rows]))
        made.append(folder / name)
    return made
