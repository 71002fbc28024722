"""The command line as a user types it: exit codes, messages, files, and nothing left behind by a typing mistake."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tabular_run import PLAIN, SMALL, finished, harness, invoke

from harness.config import DEFAULT_METHODS
from harness.leaderboard import COLUMNS, read_csv


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defaults are relative to the current folder; a run works from any folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def test_run_end_to_end(tmp_path: Path) -> None:
    done = harness("run", *SMALL, "--method", "one_shot", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (root,) = (tmp_path / "results/runs").iterdir()
    assert re.fullmatch(r"\d{8}-\d{6}-tabular-[0-9a-f]{8}", root.name)
    for expected in (
        "tabular / ladder / data",
        "one_shot",
        "gain over base",
        "one_shot - base",
        "report  results/runs/",
    ):
        assert expected in done.stdout
    with open(root / "leaderboard.csv", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == list(COLUMNS)
    assert [(row[10], row[14]) for row in rows] == [
        ("base", "0"), ("base", "all"), ("one_shot", "0"), ("one_shot", "all")
    ]  # fmt: skip
    made = {p.name for p in root.iterdir()}
    assert {"spec.toml", "manifest.json", "events.jsonl", "problems.jsonl", "rollouts", "verdicts", "methods"} <= made
    assert {"leaderboard.csv", "report.html", "DONE"} <= made
    assert (root / "figures/line_search.svg").stat().st_size > 1000
    assert (root / "figures/line_search.png").read_bytes().startswith(b"\x89PNG")
    own = {p.name.partition("-")[0] for p in (root / "methods/one_shot/0").iterdir()}
    assert own == {"journal", "transform", "search.json", "scores.json"}
    assert "one_shot: line search, round 3, 2 steps: 2/2" in done.stderr
    assert "--budget 256 --workers 1" in read_csv(root / "leaderboard.csv")[0]["command"]


def test_quiet_says_nothing_but_the_result() -> None:
    result = invoke("run", *SMALL, "--method", "base", "--quiet")
    assert result.exit_code == 0
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--domain", "tabulr"], ['did you mean "tabular"', "harness plugins"]),
        (["--benchmark", "laddr"], ['did you mean "ladder"']),
        (["--method", "oneshot"], ['did you mean "one_shot"']),
        (["--engine", "hff"], ['did you mean "hf"']),
        (["--set", "evaluation.problms=3"], ['did you mean "evaluation.problems"']),
        (
            ["--set", "method.one_shot.directon=raw", "--method", "one_shot"],
            ['did you mean "method.one_shot.direction"'],
        ),
        (["--set", "method.dpo.rate=1"], ["its options are set but it does not run"]),
        (["--budget", "15"], ["smaller than one group of 16", "--budget"]),
        (["--budget", "many"], ["not a valid integer"]),
        (["--selection-budget", "7"], ["cannot score 8"]),
        (["--seeds", "0"], ["--seeds must be at least 1"]),
        (["--spec", "none.toml"], ["no spec file none.toml"]),
        (["--set", "budget"], ["a.b=value"]),
        (["--no-such-flag"], ["no such option"]),
        (["--model", "tabular:2"], ["no list of pass rates"]),
        (["--model", "nowhere"], ['the tabular engine knows "tabular"']),
    ],
)
def test_a_mistake_ends_in_2_with_help_and_leaves_nothing(
    arguments: list[str], words: list[str], tmp_path: Path
) -> None:
    result = invoke("run", *SMALL, "--quiet", *arguments)
    assert result.exit_code == 2, result.output
    for word in words:
        assert word.lower() in result.stderr.lower()
    assert not [p for p in tmp_path.rglob("*") if p.is_file()], "a typing mistake leaves a run folder behind"


def test_no_domain_names_the_flag() -> None:
    result = invoke("run")
    assert result.exit_code == 2
    assert "--domain" in result.stderr


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = invoke("run", "--domain", "math", "--model", str(tmp_path / "empty"), "--quiet", "--workers", "1")
    assert result.exit_code == 2, result.output
    assert "cannot load model" in result.stderr
    assert str(tmp_path / "empty") in result.stderr


def test_a_model_without_a_tokenizer(tmp_path: Path, random_model: Path) -> None:
    shutil.copytree(random_model, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*", "special*"))
    result = invoke("run", "--domain", "math", "--model", str(tmp_path / "bare"), "--quiet", "--workers", "1")
    assert result.exit_code == 2, result.output
    assert "tokenizer" in result.stderr


def test_dry_run_promises_what_the_run_does(tmp_path: Path) -> None:
    result = invoke("run", *SMALL, "--seeds", "2", "--dry-run")
    assert result.exit_code == 0, result.output
    assert list(tmp_path.iterdir()) == []
    planned = _planned(result.output)
    assert set(planned) == set(DEFAULT_METHODS)
    for row in read_csv(finished() / "leaderboard.csv"):
        if row["seed"] == "all":
            train, selection, evaluation = planned[row["method"]]
            assert train == 2 * float(row["train_rollouts"])
            assert selection >= 2 * float(row["selection_rollouts"])
            assert evaluation == 2 * float(row["eval_rollouts"]), row["method"]


def test_dry_run_without_wide_draws(tmp_path: Path) -> None:
    plain = [word for text in PLAIN for word in ("--set", text)]
    result = invoke("run", *SMALL, *plain, "--method", "one_shot", "--dry-run")
    assert {name: counts[2] for name, counts in _planned(result.output).items()} == {"base": 200, "one_shot": 200}


def _planned(text: str) -> dict[str, tuple[int, int, int]]:
    rows = re.findall(r"│\s*(\w+)\s*│\s*(-?\d+)\s*│\s*(-?\d+)\s*│\s*(-?\d+)\s*│", text)
    return {name: (int(a), int(b), int(c)) for name, a, b, c in rows}


def copied(tmp_path: Path) -> Path:
    root = tmp_path / "run"
    shutil.copytree(finished(), root)
    return root


def test_resume_of_a_finished_run_changes_no_row(tmp_path: Path) -> None:
    root = copied(tmp_path)
    before = (root / "leaderboard.csv").read_text()
    result = invoke("resume", str(root), "--quiet")
    assert result.exit_code == 0, result.output
    assert (root / "leaderboard.csv").read_text() == before
    assert "one_shot" in result.output


@pytest.mark.parametrize(
    "arguments",
    [("resume",), ("report",), ("leaderboard",), ("export", "--method", "one_shot")],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_that_is_no_run(arguments: tuple[str, ...], exists: bool, tmp_path: Path) -> None:
    if exists:
        (tmp_path / "other").mkdir()
    command, *options = arguments
    target = ["target"] if command == "export" else []
    result = invoke(command, "other", *target, *options)
    assert result.exit_code == 2, result.output
    assert "other" in result.stderr
    assert not (tmp_path / "target").exists()


def test_a_failed_resume_removes_nothing(tmp_path: Path) -> None:
    """Whatever lies beside a spec.toml is the user's."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/spec.toml").write_text('domain = "tabulr"\n')
    (tmp_path / "mine/thesis.tex").write_text("years of work")
    assert invoke("resume", "mine").exit_code == 2
    assert (tmp_path / "mine/thesis.tex").read_text() == "years of work"
    assert (tmp_path / "mine/spec.toml").exists()


def test_an_unfinished_run_is_told_to_resume(tmp_path: Path) -> None:
    root = copied(tmp_path)
    (root / "leaderboard.csv").unlink()
    shutil.rmtree(root / "methods")
    for command in ("report", "leaderboard"):
        result = invoke(command, str(root))
        assert result.exit_code == 2
        assert f"harness resume {root}" in result.stderr


def test_interrupt_ends_in_130_and_resumes(tmp_path: Path) -> None:
    """A shell may start a background job with SIGINT ignored, so the program asks for it first."""
    program = "import signal; signal.signal(2, signal.default_int_handler); from harness.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "run", *SMALL, "--method", "one_shot", "--seeds", "3"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while "base: test" not in (line := process.stderr.readline()):
        assert line, "ended before it began"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    (root,) = (tmp_path / "results/runs").iterdir()
    assert f"harness resume {root.relative_to(tmp_path)}" in errors
    assert "Traceback" not in errors
    assert not (root / "DONE").exists()
    assert invoke("resume", str(root), "--quiet").exit_code == 0
    assert (root / "DONE").exists()


BUSY = """
import signal; signal.signal(2, signal.default_int_handler)
from harness_engines.workers import Workers
workers = Workers(__import__, [("time",)] * 2)
list(workers.run([("sleep", (0,)), ("sleep", (0,))]))
print("ready", flush=True)
try:
    list(workers.run([("sleep", (300,)), ("sleep", (300,))]))
except KeyboardInterrupt:
    workers.close()
    print("interrupted", flush=True)
"""


def test_an_interrupt_reaches_the_user_past_busy_engine_workers() -> None:
    """A terminal sends Ctrl-C to every process of the group: the workers must neither die of it nor be waited for."""
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)  # past the line that says so, into the wait for the workers
    os.killpg(process.pid, signal.SIGINT)
    try:
        output, errors = process.communicate(timeout=20)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert output == "interrupted\n"
    assert "Traceback" not in errors


def test_leaderboard_merges_shows_and_exports(tmp_path: Path) -> None:
    result = invoke("leaderboard", str(finished()))
    assert result.exit_code == 0, result.output
    assert "random_direction" in result.output
    merged = tmp_path / "results/leaderboard/tabular.csv"
    first = merged.read_text()
    assert len(read_csv(merged)) == 30
    assert invoke("leaderboard", str(finished())).exit_code == 0
    assert merged.read_text() == first
    shown = invoke("leaderboard", "--format", "csv")
    assert shown.stdout == first
    table = invoke("leaderboard", "--format", "md").stdout
    assert "| method | pass@1 |" in table
    assert len([line for line in table.splitlines() if line.startswith("| one_shot |")]) == 1


def test_an_empty_leaderboard_says_what_to_name() -> None:
    result = invoke("leaderboard")
    assert result.exit_code == 2
    assert "name one or more run folders" in result.stderr


def test_plugins_lists_every_builtin() -> None:
    result = invoke("plugins", "--json")
    listed = json.loads(result.stdout)
    names = {(p["kind"], p["name"]) for p in listed["plugins"]}
    assert {("domain", d) for d in ("math", "code", "arc", "tabular")} <= names
    assert {("engine", e) for e in ("hf", "tabular")} <= names
    assert {("method", m) for m in DEFAULT_METHODS} <= names
    assert listed["broken"] == []
    assert "one policy-gradient step" in invoke("plugins").output


def test_doctor_names_versions_and_loads_every_plugin() -> None:
    result = invoke("doctor")
    assert result.exit_code == 0, result.output
    assert "torch" in result.output
    assert "FAILED" not in result.output
    assert "BROKEN" not in result.output


def test_export_writes_a_model_that_runs(tmp_path: Path) -> None:
    result = invoke("export", str(finished()), "model", "--method", "one_shot", "--seed", "1")
    assert result.exit_code == 0, result.output
    row = next(r for r in read_csv(finished() / "leaderboard.csv") if (r["method"], r["seed"]) == ("one_shot", "1"))
    again = [*SMALL, "--model", str(tmp_path / "model"), "--method", "base", "--seeds", "2", "--quiet"]
    assert invoke("run", *again).exit_code == 0
    (root,) = (tmp_path / "results/runs").iterdir()
    base = next(r for r in read_csv(root / "leaderboard.csv") if r["seed"] == "1")
    assert base["pass@1"] == row["pass@1"], "the exported model answers the same draws the same way"
    assert base["model_revision"] != row["model_revision"]


def test_export_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    result = invoke("export", str(finished()), "there", "--method", "one_shot")
    assert result.exit_code == 2
    assert "exists already" in result.stderr
    result = invoke("export", str(finished()), "new", "--method", "oneshot")
    assert result.exit_code == 2
    assert "one_shot/0" in result.stderr


def test_spec_file_reproduces_a_run(tmp_path: Path) -> None:
    """The spec a run wrote is a spec: same hash, same folder name but for the time."""
    result = invoke("run", "--spec", str(finished() / "spec.toml"), "--method", "base", "--seeds", "2", "--quiet")
    assert result.exit_code == 0, result.output
    (root,) = (tmp_path / "results/runs").iterdir()
    ours = [r["pass@1"] for r in read_csv(root / "leaderboard.csv")]
    assert ours == [r["pass@1"] for r in read_csv(finished() / "leaderboard.csv") if r["method"] == "base"]


def test_version_and_help() -> None:
    assert "0." in invoke("--version").output
    text = invoke("--help").output
    for command in ("run", "resume", "report", "leaderboard", "plugins", "export", "doctor"):
        assert f"  {command}" in text
    assert "harness run --domain code" in text
    for option in ("--model", "--benchmark", "--method", "--budget", "--selection-budget", "--seeds", "--engine",
                   "--spec", "--set", "--workers", "--out", "--dry-run", "--offline", "--quiet"):  # fmt: skip
        assert option in invoke("run", "--help").output
