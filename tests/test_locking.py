"""One writer at a time: the second is refused by name, a dead one's place is taken, no row of a leaderboard is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tabular_run import SMALL, finished, invoke, small_spec

from harness import leaderboard, locking, pipeline
from harness.locking import InUse

HOLD = "import sys, time; from pathlib import Path; from harness import locking\nwith locking.alone(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)"
MERGE = """
import sys
from pathlib import Path
from harness import leaderboard
rows, number = leaderboard.read_csv(Path(sys.argv[1])), sys.argv[3]
for k in range(5):
    leaderboard.merge([{**row, "run_id": f"run-{number}-{k}"} for row in rows], Path(sys.argv[2]))
"""


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_lock_file_is_there_while_it_is_held_alone(tmp_path: Path) -> None:
    with locking.alone(tmp_path):
        assert (tmp_path / locking.NAME).exists()
        with (
            pytest.raises(InUse, match=f"process {os.getpid()} on {os.uname().nodename}, since "),
            locking.alone(tmp_path),
        ):
            pass
        assert (tmp_path / locking.NAME).exists(), "the refused one must not remove it"
    assert list(tmp_path.iterdir()) == []
    with locking.alone(tmp_path):
        pass


def test_what_a_killed_process_held_is_taken_over(tmp_path: Path) -> None:
    with held(tmp_path) as other:
        with pytest.raises(InUse, match=f"process {other.pid} "), locking.alone(tmp_path):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert (tmp_path / locking.NAME).exists()
        with locking.alone(tmp_path):
            assert f'"pid": {os.getpid()},' in (tmp_path / locking.NAME).read_text()


def test_a_run_folder_that_another_process_writes_is_refused_and_kept(tmp_path: Path) -> None:
    root = pipeline.create(small_spec(methods=["base"]), out=tmp_path, command="harness run")
    with held(root) as other:
        refused = invoke("resume", str(root))
        assert refused.exit_code == 2
        assert f"{root} is being written by process {other.pid} on " in refused.output
        assert (root / "spec.toml").exists()
    done = invoke("resume", str(root), "--quiet")
    assert done.exit_code == 0, done.output
    assert not (root / locking.NAME).exists()


def test_a_suite_that_another_process_runs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.toml").write_text('summary = "two"\n[shared]\nmethods = ["base"]\n[grid]\nbudget = [256, 512]\n')
    small = [*SMALL[:6], *SMALL[8:]]  # without its budget
    command = ["run", "--suite", "two.toml", *small, "--quiet", "--out", "out"]
    assert invoke(*command).exit_code == 0
    (root,) = Path("out").iterdir()
    (root / "DONE").unlink()
    with held(root.resolve()) as other:
        refused = invoke(*command)
    assert refused.exit_code == 2
    assert f"process {other.pid} on " in refused.output


def test_eight_processes_lose_no_row_of_a_leaderboard(tmp_path: Path) -> None:
    source = finished() / "leaderboard.csv"
    arguments = [sys.executable, "-c", MERGE, str(source), str(tmp_path / "board")]
    writers = [subprocess.Popen([*arguments, str(number)]) for number in range(8)]
    assert [writer.wait() for writer in writers] == [0] * 8
    rows = leaderboard.read_csv(tmp_path / "board" / "tabular.csv")
    assert len(rows) == 8 * 5 * len(leaderboard.read_csv(source))
    assert {row["run_id"] for row in rows} == {f"run-{number}-{k}" for number in range(8) for k in range(5)}
    assert [path.name for path in (tmp_path / "board").iterdir()] == ["tabular.csv"]
