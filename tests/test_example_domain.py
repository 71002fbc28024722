"""The example package harness-countdown: installed as a stranger's would be, checked by the kit, tried on real puzzles."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import pytest
from fresh_venv import FreshVenv

from harness.types import Outcome

PACKAGE = Path(__file__).resolve().parent.parent / "docs" / "examples" / "harness-countdown"
DATA = Path(__file__).parents[2] / "shared" / "data"
pytest.importorskip("setuptools", reason="packages are built without a download, so setuptools must be installed")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[FreshVenv, Path]:
    """A fresh environment with a copy of the package installed: building leaves files beside what is built."""
    folder = tmp_path_factory.mktemp("countdown")
    shutil.copytree(PACKAGE, folder / "package", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__", "build"))
    environment = FreshVenv(folder / "venv")
    installed = environment.run("pip install --no-deps --no-build-isolation ./package", cwd=folder)
    assert installed.returncode == 0, installed.stdout + installed.stderr
    return environment, folder


def test_it_passes_the_kit_and_its_own_tests(place: tuple[FreshVenv, Path]) -> None:
    environment, folder = place
    done = environment.run("pytest -rs", cwd=folder / "package", environment={"HARNESS_DATA": ""})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


def test_check_says_which_benchmark_is_not_there(place: tuple[FreshVenv, Path]) -> None:
    environment, folder = place
    done = environment.run("harness check countdown", cwd=folder, environment={"HARNESS_DATA": ""})
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        "game24 skipped: benchmark game24 needs logic/game24.jsonl under the folder that HARNESS_DATA names"
        in done.stdout
    )
    assert "21 passed, 0 failed, 0 skipped" in done.stdout


def test_check_takes_in_the_real_puzzles(place: tuple[FreshVenv, Path]) -> None:
    if not (DATA / "logic" / "game24.jsonl").exists():
        pytest.skip("the real puzzles (logic/game24.jsonl) are not here")
    environment, folder = place
    done = environment.run("harness check countdown", cwd=folder, environment={"HARNESS_DATA": str(DATA)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "problems drawn: ladder 360, game24 360" in done.stdout


def test_every_real_puzzle_is_judged_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gold in four forms is CORRECT, each near miss and hostile completion is what it should be."""
    path = DATA / "logic" / "game24.jsonl"
    if not path.exists():
        pytest.skip("the real puzzles (logic/game24.jsonl) are not here")
    monkeypatch.syspath_prepend(str(PACKAGE))
    domain = importlib.import_module("harness_countdown.domain").Countdown()
    problems = [domain.read(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(problems) == 1362
    for problem in problems:
        for completion, expected in domain.specimens(problem):
            assert domain.verify(problem, completion).outcome is expected, (problem.id, completion[:80])
    golds = [expected for _, expected in domain.specimens(problems[0])].count(Outcome.CORRECT)
    assert golds == 4


def test_a_countdown_row_is_judged_by_the_command_line(place: tuple[FreshVenv, Path]) -> None:
    environment, folder = place
    row = {"problem": {"nums": [19, 36, 55, 7], "target": 65}, "completion": "<answer>55 + 36 - 7 - 19</answer>"}
    (folder / "in.jsonl").write_text(json.dumps({"id": "a", **row}) + "\n")
    done = environment.run("harness verify --domain countdown in.jsonl", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["outcome"] == "correct"
