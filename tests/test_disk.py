"""A disk that is full at any moment of a run: a message with the way to go on, and after it the same run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tabular_run import REPOSITORY, harness

from harness import differing

SPEC = str(REPOSITORY / "benchmarks" / "tabular" / "smoke.toml")
OWN_MOUNTS = ["unshare", "--user", "--map-root-user", "--mount"]


def has_own_mounts(folder: Path) -> bool:
    try:
        tried = subprocess.run(
            [*OWN_MOUNTS, "mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True, check=False
        )
    except FileNotFoundError:
        return False
    return tried.returncode == 0


def test_a_full_disk_stops_a_run_that_goes_on_once_there_is_room(tmp_path: Path) -> None:
    if not has_own_mounts(tmp_path):
        pytest.skip("this system allows no mounts of one's own (user namespaces): no disk can be filled")
    run = ("run", "--spec", SPEC, "--method", "one_shot", "--method", "grpo", "--workers", "1", "--quiet", "--out")
    straight, disk, said = (tmp_path / name for name in ("straight", "disk", "said"))
    disk.mkdir(), said.mkdir()
    assert harness(*run, str(straight), cwd=tmp_path).returncode == 0
    script = [sys.executable, str(REPOSITORY / "tests" / "full_disk.py"), str(disk), str(said), *run, str(disk)]
    done = subprocess.run([*OWN_MOUNTS, *script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = [path.read_text() for path in sorted(said.glob("[0-9]*"))][: int(done.stdout)]
    assert len(told) >= 10, "it was full only now and then"
    for text in told:
        assert "No space left on device" in text
        assert "Traceback" not in text
        assert "Nothing finished is lost" in text
    assert sum("harness resume" in text for text in told) >= 10
    (twin,) = straight.iterdir()
    assert list(differing.differences(twin, said / "run")) == []
