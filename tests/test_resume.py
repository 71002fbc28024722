"""A run killed again and again ends as its uninterrupted twin, and so does one with other numbers of workers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tabular_run import REPOSITORY, harness

from harness import differing

KILLS = 6


def test_killed_again_and_again_equals_uninterrupted() -> None:
    """`python -m benchmarks.faults.kills` does this for every family of methods (docs/reliability.md)."""
    families = ("one update", "iterating")
    named = [f"--family={family}" for family in families]
    command = [sys.executable, "-m", "benchmarks.faults.kills", "--kills", str(KILLS), "--seed", "1", *named]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    kills = dict(re.findall(r"^(.+): (\d+) kills, .* 0 differences$", done.stdout, flags=re.MULTILINE))
    assert set(kills) == set(families), done.stdout
    assert all(int(count) >= KILLS // 2 for count in kills.values()), "it ended before it was killed often"


def test_workers_do_not_change_a_run(tmp_path: Path) -> None:
    spec = str(REPOSITORY / "benchmarks" / "code" / "smoke.toml")
    for workers in ("1", "2"):
        own = ("--out", str(tmp_path / workers), "--workers", workers, "--method", "one_shot")
        done = harness("run", "--spec", spec, "--quiet", *own, cwd=tmp_path, timeout=400)
        assert done.returncode == 0, done.stderr
    (one,), (two,) = ((tmp_path / workers).iterdir() for workers in ("1", "2"))
    assert list(differing.differences(one, two)) == []
