"""The runner of benchmarks/perf: rows, goals, table and CSV, on measures that measure nothing."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tabular_run import REPOSITORY, finished

sys.path.insert(0, str(REPOSITORY))  # benchmarks is no part of the installed package

from benchmarks.perf import grpo, rows, run
from benchmarks.perf.rows import Row

NONE = float("nan")
GOOD = Row("fast", 30.0, 10.0, "things / core-s", 3.0, "ratio >= 3", "a peer | of ours")
SLOW = GOOD._replace(name="slow", ratio=0.5)
PLAIN = Row("size", 12345.6, NONE, "MB", NONE, "", "no goal")
MACHINE = {"date": "2026-01-01 00:00", "commit": "abc", "cpu": "a cpu, of many words", "cores": 2, "python": "3.11"}


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        ("ratio >= 3", True),
        (">= 3.5", False),
        ("ours <= 30", True),
        ("ours <= 2e1", False),
        ("ratio <= 1", False),
        ("", None),
    ],
)
def test_goals(goal: str, met: bool | None) -> None:
    assert rows.is_met(GOOD._replace(goal=goal)) is met


def test_nothing_measured_meets_nothing() -> None:
    assert rows.is_met(GOOD._replace(ratio=NONE)) is False


def test_a_goal_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="goal of fast"):
        rows.is_met(GOOD._replace(goal="3x"))


def test_both_sides_are_run_in_turns() -> None:
    calls: list[str] = []
    sides = rows.interleaved(lambda: calls.append("ours"), lambda: calls.append("peer"), turns=3)
    assert calls == ["ours", "peer", "peer", "ours", "ours", "peer"]
    assert min(*sides.ours, *sides.peer) >= 0


def written(path: Path, measure: str, *found: Row) -> None:
    run.merge(path, measure, [run.line(measure, row, seconds=1.0, load=0.5, machine=MACHINE) for row in found])


def test_csv_keeps_other_measures_and_replaces_its_own(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    written(path, "startup", PLAIN)
    written(path, "gradient", GOOD, SLOW)
    written(path, "gradient", SLOW)
    found = run.read(path)
    assert [(line["measure"], line["name"], line["met"]) for line in found] == [
        ("gradient", "slow", "no"),
        ("startup", "size", ""),
    ]
    assert tuple(found[0]) == run.COLUMNS
    assert (found[1]["peer"], found[1]["ratio"], found[1]["cpu"]) == ("", "", MACHINE["cpu"])


def test_table_shows_failures_and_whole_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "results.csv"
    written(path, "sampling", GOOD)
    written(path, "trl", run.failure("trl", "No module named 'trl'"))
    written(path, "startup", PLAIN)
    text = run.as_markdown(run.read(path)).splitlines()
    assert text[2] == "| fast | 30 | 10 | things / core-s | 3 | ratio >= 3 | yes | a peer / of ours |"
    assert text[3] == "| trl |  |  |  |  |  | failed | No module named 'trl' |"
    assert "| 12,346 |" in text[4]
    run.show(run.read(path))
    assert "failed" in capsys.readouterr().out


def fake(folder: Path, name: str, body: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A measure in a package of its own, which child processes find as well."""
    package = folder / "fake_measures"
    package.mkdir(exist_ok=True)
    (package / f"{name}.py").write_text(body, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return "fake_measures"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise RuntimeError('the peer has no wheel')", "RuntimeError: the peer has no wheel"),
        ("import no_such_peer", "No module named 'no_such_peer'"),
        ("import os\ndef measure(): os._exit(9)", "ended with 9"),
        ("import time\ndef measure(): time.sleep(60)", "stopped after 3 s"),
        (f"def measure(): return [('a', {GOOD.ours}, 1.0, 's', 1.0, '1.5x', '')]", "AttributeError"),
    ],
)
def test_a_measure_that_fails_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, reason: str) -> None:
    limit = 3 if "sleep" in body else 60
    (row,) = run.measured("fails", limit=limit, package=fake(tmp_path, "fails", body, monkeypatch))
    assert (row.name, row.goal) == ("fails", run.FAILED)
    assert math.isnan(row.ratio)
    assert reason in row.note


def test_a_measure_runs_alone_with_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = """
import os
from benchmarks.perf.rows import Row
def measure():
    print("noise")
    return [Row("threads", float(os.environ["OMP_NUM_THREADS"]), float("nan"), "", float("nan"), "ours <= 1", str(os.getpid()))]
"""
    (row,) = run.measured("alone", package=fake(tmp_path, "alone", body, monkeypatch))
    assert (row.name, row.ours, rows.is_met(row)) == ("threads", 1.0, True)
    assert row.note != str(os.getpid())


def test_every_measure_that_exists_is_run_by_the_runner() -> None:
    folder = REPOSITORY / "benchmarks" / "perf"
    measures = {path.stem for path in folder.glob("*.py") if "def measure(" in path.read_text(encoding="utf-8")}
    assert measures <= {*run.MEASURES, *run.APART}


def test_our_side_of_the_comparison_of_grpo_is_read_by_a_fresh_process() -> None:
    """The measure's own: nothing else there has taught the store a run's records."""
    code = (
        "import sys; from pathlib import Path; from benchmarks.perf import grpo; "
        "print([(seed.cpu > 0, len(seed.curve), 0 < seed.learnt < 1) for seed in grpo.read(Path(sys.argv[1]), seeds=2)])"
    )
    line = [sys.executable, "-c", code, str(finished())]
    done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    steps = len(grpo.read(finished(), seeds=2)[0].curve)
    assert done.stdout.strip() == str([(True, steps, True)] * 2), done.stderr
