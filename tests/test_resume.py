"""A run killed again and again ends with the same rows as its uninterrupted twin."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import leaderboard

ROOT = Path(__file__).resolve().parent.parent
HARNESS = [sys.executable, "-c", "from harness.cli import main; main()"]


def run_harness(*arguments: str, kill_after: float | None = None) -> int:
    """Exit status; a run still going after `kill_after` seconds is killed with everything it started."""
    process = subprocess.Popen(
        [*HARNESS, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        _, error = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return -9
    assert process.returncode == 0, error.decode()
    return 0


def comparable(root: Path) -> list[dict[str, str]]:
    rows = leaderboard.read_csv(root / "leaderboard.csv")
    return [{k: v for k, v in row.items() if k not in leaderboard.UNCOMPARED} for row in rows]


@pytest.mark.parametrize(("domain", "methods"), [("tabular", ()), ("code", ("one_shot", "grpo"))])
def test_killed_again_and_again_equals_uninterrupted(tmp_path: Path, domain: str, methods: tuple[str, ...]) -> None:
    spec = str(ROOT / "benchmarks" / domain / "smoke.toml")
    run = ("run", "--spec", spec, "--quiet", *(f"--method={name}" for name in methods))
    started = time.monotonic()
    run_harness(*run, "--out", str(tmp_path / "straight"))
    (straight,) = (tmp_path / "straight").iterdir()
    whole = time.monotonic() - started
    killed = str(tmp_path / "killed")
    assert run_harness(*run, "--out", killed, kill_after=0.5 * whole) == -9
    folders = list((tmp_path / "killed").glob("*"))
    assert folders, "killed before the run folder existed: nothing was tested"
    kills, patience = 1, 0.25 * whole
    while run_harness("resume", str(folders[0]), "--quiet", kill_after=patience) != 0:
        kills, patience = kills + 1, patience * 1.2
        assert kills < 20
    assert kills >= 2
    assert comparable(folders[0]) == comparable(straight)
    leftovers = [path for path in folders[0].rglob("*.tmp")]
    assert all(path.name.startswith(".") for path in leftovers)


def test_workers_do_not_change_rows(tmp_path: Path) -> None:
    spec = str(ROOT / "benchmarks" / "code" / "smoke.toml")
    found = []
    for workers in ("1", "2"):
        out = tmp_path / workers
        run_harness("run", "--spec", spec, "--out", str(out), "--quiet", "--workers", workers, "--method", "one_shot")
        (root,) = out.iterdir()
        found.append(comparable(root))
    assert found[0] == found[1]
