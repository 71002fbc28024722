"""Suites as a user types them: made, continued after a kill, limited, refused; and the ones that are built in."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest
from tabular_run import execute, harness, invoke

from harness import config, leaderboard, suiting
from harness.errors import UsageError
from harness.leaderboard import COLUMNS, UNCOMPARED, read_csv
from harness.suiting import Suite

MARK = uuid.uuid4().hex
MAKER = """
import sys
from pathlib import Path
with open("log.txt", "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
print("making", *sys.argv[1:])
if sys.argv[1] == "fail":
    sys.exit(3)
Path(sys.argv[1]).write_text("")
"""
SHARED = """
[shared]
domain = "tabular"
methods = ["base", "random_search"]
budget = 256
workers = 1
engine.name = "tabular"
evaluation = {problems = 40, wide_samples = 0}
method.random_search = {perturbations = 15, keep = 3}
"""
GRID = """
[grid]
model = ["tabular:.5,.2,.05", "tabular:.3,.1"]
method.random_search.sigmas = [[0.02], [0.05, 0.1]]
"""
SIGMAS = """
[grid]
method.random_search.sigmas = [[0.02], [0.05, 0.1]]
"""
PREPARE = """
summary = "a grid of four"
[[prepare]]
module = "maker"
arguments = ["made.txt", "--size", "xs"]
makes = "made.txt"
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "maker.py").write_text(MAKER)


def written(text: str = PREPARE + SHARED + GRID, name: str = "four.toml") -> str:
    Path(name).write_text(text)
    return name


def folders() -> list[Path]:
    return sorted(Path("results/runs").glob("*"))


def comparable(path: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k not in UNCOMPARED} for row in read_csv(path)]


def runs_in(root: Path) -> list[str]:
    return sorted(path.parent.name for path in root.glob("*/spec.toml"))


def load(text: str, **changes: object) -> Suite:
    return suiting.load(written(text), domain=None, changes=changes, sets=())


def test_a_suite_is_prepared_run_read_again_and_shown(tmp_path: Path) -> None:
    first = harness("run", "--suite", written(), cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    (root,) = folders()
    assert re.fullmatch(r"suite-four-[0-9a-f]{8}", root.name)
    assert {path.name for path in root.iterdir() if path.is_file()} == {
        "suite.toml", "suite.json", "leaderboard.csv", "checksums.sha256", "DONE"
    }  # fmt: skip
    assert (root / "suite.toml").read_text() == Path("four.toml").read_text()
    short = [re.sub("-[0-9a-f]{8}$", "", name) for name in runs_in(root)]
    assert short == [
        f"model={model},method.random_search.sigmas={sigmas}"
        for model in ("tabular-.3-.1", "tabular-.5-.2-.05")
        for sigmas in ("0.02", "0.05+0.1")
    ]
    assert "prepare 1 of 1: python -m maker made.txt --size xs" in first.stderr
    assert "making made.txt" in first.stderr
    assert "run 3 of 4: model=tabular-.3-.1 method.random_search.sigmas=0.02" in first.stderr
    assert re.search(r"run 3 of 4: model=tabular-.3-.1 method.random_search.sigmas=0.02: done, \d+ s", first.stderr)
    rows = read_csv(root / "leaderboard.csv")
    assert list(rows[0]) == list(COLUMNS)
    assert [(r["model"], r["method"], r["seed"]) for r in rows[:4]] == [
        ("tabular:.5,.2,.05", "base", "0"), ("tabular:.5,.2,.05", "base", "all"),
        ("tabular:.5,.2,.05", "random_search", "0"), ("tabular:.5,.2,.05", "random_search", "all"),
    ]  # fmt: skip
    assert len(rows) == 16
    _shows_what_the_rows_say(first.stdout, root)

    again = harness("run", "--suite", "four.toml", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert folders() == [root]
    assert read_csv(root / "leaderboard.csv") == rows
    assert (tmp_path / "log.txt").read_text() == "made.txt --size xs\n", "prepared once"
    assert "made.txt is there" in again.stderr
    assert again.stderr.count("(done before)") == 4
    assert "probe" not in again.stderr
    assert again.stdout == first.stdout


def _shows_what_the_rows_say(text: str, root: Path) -> None:
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    gains = [line for line in lines if len(line) == 7]
    aggregate = [row for row in read_csv(root / "leaderboard.csv") if row["seed"] == "all"]
    assert [line[2] for line in gains] == [row["method"] for row in aggregate]
    for line, row in zip(gains, aggregate, strict=True):
        assert line[0] == row["model"].replace(":", "-").replace(",", "-")
        assert line[3:5] == [f"{float(row[column]):.3f}" for column in ("base_pass@1", "pass@1")]
    densities = [line for line in lines if len(line) == 9]
    assert [line[1] for line in densities] == ["0.02", "0.05+0.1"] * 2
    for line in densities:
        assert line[2] == "random_search"
        assert line[3] in line[1].split("+"), "the best of the sigmas that this run tried"
    assert f"rows    {root / 'leaderboard.csv'}" in text


def test_a_run_of_a_suite_is_an_ordinary_run(tmp_path: Path) -> None:
    suite = load(SHARED + SIGMAS, seeds=2)
    point = suite.points[1]
    assert point.spec.seeds == 2
    assert point.spec.method["random_search"]["sigmas"] == [0.05, 0.1]
    assert invoke("run", "--suite", "four.toml", "--seeds", "2", "--quiet").exit_code == 0
    (root,) = folders()
    assert root == suite.folder(Path("results/runs"))
    alone, _ = execute(point.spec, tmp_path / "alone")
    inside = root / point.name
    assert comparable(inside / "leaderboard.csv") == comparable(alone / "leaderboard.csv")
    assert (inside / "report.html").exists()
    assert (inside / "spec.toml").read_text() == (alone / "spec.toml").read_text()
    assert {row["run_id"] for row in read_csv(root / "leaderboard.csv")} == {p.name for p in suite.points}
    shown = invoke("leaderboard", str(root), "--format", "csv")
    assert len(shown.stdout.splitlines()) == 1 + 2 * 2 * 3
    assert invoke("report", str(root)).stdout.count("report.html") == 3, (
        "one for each run, and one of them side by side"
    )
    (inside / "leaderboard.csv").unlink()
    shutil.rmtree(inside / "methods")
    begun = invoke("report", str(root))
    assert begun.exit_code == 0
    assert f"harness resume {inside}" in begun.stderr
    assert begun.stdout.splitlines() == [str(root / suite.points[0].name / "report.html")]


TWO = PREPARE + SHARED + '[grid]\nmodel = ["tabular:.5,.2,.05", "tabular:.3,.1"]\n'
PROGRAM = "import signal; signal.signal(2, signal.default_int_handler); from harness.cli import main; main()"


def left() -> list[str]:
    """Command lines of processes that belong to a suite of this test, by its mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if MARK.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " ")[:200])
    return found


def stopped(how: signal.Signals, *, at: str, all_of_it: bool = True, at_once: int = 1) -> tuple[int, str]:
    """Start the suite, `at_once` runs at a time, and send it (all of its processes, as a terminal does, or the first one
    alone) a signal when `at` is on standard error and the runs are drawing: exit status and what was said after. No
    process may be left."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "run", "--suite", written(TWO), "--workers", str(at_once)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "SUITE_TEST": MARK},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    while at not in (line := process.stderr.readline()):
        assert line, "ended before it got there"
    while process.poll() is None and 1 < at_once != len(list(Path("results").glob("runs/*/*/rollouts"))):
        time.sleep(0.05)
    if all_of_it:
        os.killpg(process.pid, how)
    else:
        process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    until = time.monotonic() + 20
    while left() and time.monotonic() < until:
        time.sleep(0.1)
    assert left() == []
    return process.returncode, errors


def test_a_killed_suite_goes_on_to_the_same_rows(tmp_path: Path) -> None:
    assert stopped(signal.SIGKILL, at="run 2 of 2")[0] == -signal.SIGKILL
    (root,) = folders()
    assert not (root / "DONE").exists()
    assert not (root / "leaderboard.csv").exists()
    assert len([name for name in runs_in(root) if (root / name / "DONE").exists()]) == 1
    done = harness("run", "--suite", "four.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert folders() == [root]
    assert done.stderr.count("(done before)") == 1
    assert (tmp_path / "log.txt").read_text().count("\n") == 1
    assert not (root / "shared").exists()
    assert invoke("run", "--suite", "four.toml", "--quiet", "--out", "straight").exit_code == 0
    assert comparable(root / "leaderboard.csv") == comparable(Path("straight") / root.name / "leaderboard.csv")


@pytest.mark.parametrize("all_of_it", [True, False], ids=["terminal", "process"])
def test_an_interrupt_ends_all_runs_in_130_and_says_how_to_go_on(all_of_it: bool) -> None:
    status, errors = stopped(signal.SIGINT, at="run 2 of 2", all_of_it=all_of_it, at_once=2)
    (root,) = folders()
    assert status == 130, errors
    assert f"harness resume {root}" in errors
    assert "Traceback" not in errors
    if all_of_it:
        return
    Path("four.toml").unlink()  # the folder is enough
    assert invoke("resume", str(root), "--quiet").exit_code == 0
    assert (root / "DONE").exists()
    assert len(read_csv(root / "leaderboard.csv")) == 8


def test_runs_end_with_the_process_that_started_them() -> None:
    """Killed by itself, so that it can tell nobody."""
    stopped(signal.SIGKILL, at="run 2 of 2", all_of_it=False, at_once=2)


def test_runs_go_side_by_side_and_draw_what_they_share_once(tmp_path: Path) -> None:
    text = SHARED.replace("workers = 1", "workers = 2") + "[grid]\nbudget = [64, 128, 256]"
    done = harness("run", "--suite", written(text), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (root,) = folders()
    lines = [line for line in done.stderr.splitlines() if line.startswith("run ")]
    assert [line.split(":")[0] for line in lines[:2]] == ["run 3 of 3", "run 2 of 3"], "the largest first, two at once"
    assert [line for line in lines if "done" in line] != lines[:3]
    files = [path for name in runs_in(root) for path in (root / name / "verdicts").glob("*/test-*/*.json")]
    same: dict[bytes, set[int]] = {}
    for path in files:
        same.setdefault(path.read_bytes(), set()).add(path.stat().st_ino)
    assert len(files) > len(same), "the base's test draws are in every run"
    assert all(len(inodes) == 1 for inodes in same.values()), "drawn once, though the runs were under way together"
    assert not (root / "shared").exists()


def test_a_failing_run_is_told_at_the_end_and_takes_no_other_down(tmp_path: Path) -> None:
    text = SHARED + '[grid]\nmodel = ["tabular:2", "tabular:.5"]'
    done = harness("run", "--suite", written(text), cwd=tmp_path)
    assert done.returncode == 2
    (root,) = folders()
    (name,) = runs_in(root)
    assert name.startswith("model=tabular-.5-")
    assert (root / name / "DONE").exists()
    assert not (root / "DONE").exists()
    assert not (root / "leaderboard.csv").exists()
    *_, last = done.stderr.strip().splitlines()
    assert "1 of 2 runs failed" in done.stderr
    assert "run 1 of 2: model=tabular-2: UsageError" in last
    assert "no list of pass rates" in last


SLOW = "import time; print('begun', flush=True); time.sleep(60)"


def test_an_interrupted_preparation_leaves_nothing_but_its_own(tmp_path: Path) -> None:
    (tmp_path / "maker.py").write_text(SLOW)
    started = time.monotonic()
    status, errors = stopped(signal.SIGINT, at="begun")
    assert time.monotonic() - started < 40
    assert status == 130
    assert "Give the same command again" in errors
    assert folders() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [(('"made.txt", ', '"fail", '), "ended with status 3"), (('= "made.txt"', '= "other.txt"'), "did not make other"),
     (('"maker"', '"makr"'), "No module named makr")],
)  # fmt: skip
def test_a_failing_preparation_ends_in_1(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    done = harness("run", "--suite", written((PREPARE + SHARED + GRID).replace(*change)), "--quiet", cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert folders() == []


@pytest.mark.parametrize(
    ("text", "arguments", "words"),
    [
        (SHARED.replace("budget", "budgt"), [], ["four.toml", 'did you mean "budget"']),
        (SHARED + '[grid]\nengine.nme = ["tabular"]', [], ["four.toml", 'did you mean "engine.name"']),
        (SHARED + "[grid]\nseeds = 3", [], ["four.toml", "grid.seeds must be a list"]),
        (SHARED + "[grid]\nseeds = []", [], ["four.toml", "grid.seeds must be a list"]),
        (SHARED + "[grid]\nseeds = [1, 1]", [], ["four.toml", "same run"]),
        (SHARED + "[grid]\nseeds = [0]", [], ["four.toml", "--seeds must be at least 1"]),
        (SHARED + "[grid]\nbudget.x = [3]", [], ["four.toml", '"budget" is a value']),
        (SHARED + '[grid]\nmethods = [["random_search"], ["random_search", "one_shott"]]', [],
         ["four.toml", 'did you mean "one_shot"']),
        (SHARED + "[grid]\nmethod.random_search.sigma = [[0.1]]", [], ["random_search.sigmas"]),
        (SHARED + "[gird]\nseeds = [1]", [], ["four.toml", 'did you mean "grid"']),
        (SHARED.replace('domain = "tabular"', ""), [], ["four.toml", "no domain given"]),
        ("[shared", [], ["four.toml is not TOML"]),
        (SHARED + '[grid]\n"budget, seeds" = [[64, 1], 128]', [], ["four.toml", 'grid."budget, seeds" sets 2 keys']),
        (SHARED + '[grid]\n"way: budget" = [["a", 64], 128]', [], ["four.toml", "each of its values is a list of 2"]),
        ('figure = "update"\n' + SHARED, [], ["four.toml", 'did you mean "updates"']),
        ("grid = 3", [], ["four.toml", "[grid] is a table"]),
        (PREPARE.replace("makes =", "mkes ="), [], ["four.toml", 'did you mean "makes"']),
        (PREPARE.replace('makes = "made.txt"', ""), [], ["four.toml", "needs makes"]),
        (SHARED + GRID, ["--model", "tabular"], ["model is an axis of this suite"]),
        (SHARED + GRID, ["--set", "method.random_search.sigmas=[0.1]"], ["sigmas is an axis"]),
        (SHARED + GRID, ["--set", "buget=3"], ['did you mean "budget"']),
        (SHARED + '[grid]\ndomain = ["tabular", "math"]', ["--domain", "mth"], ['did you mean "math"']),
        (SHARED + GRID, ["--spec", "x.toml"], ["exclude each other"]),
        (SHARED.replace('"tabular"\nmeth', '"tabulr"\nmeth'), [], ["four.toml", 'did you mean "tabular"']),
        (SHARED.replace("budget", 'model = "tabular:2"\nbudget'), [], ["no list of pass rates"]),
    ],
)  # fmt: skip
def test_a_mistake_ends_in_2_with_help_and_leaves_nothing(text: str, arguments: list[str], words: list[str]) -> None:
    result = invoke("run", "--suite", written(text), "--quiet", *arguments)
    assert result.exit_code == 2, result.output
    for word in words:
        assert word.lower() in result.stderr.lower()
    assert not list(Path().rglob("*.json")), "a mistake leaves a folder behind"
    assert not Path("log.txt").exists()


def test_an_unknown_suite_names_what_exists() -> None:
    result = invoke("run", "--suite", "size")
    assert result.exit_code == 2
    for word in ('no suite "size"', f"Known: {', '.join(suiting.names())}", 'did you mean "sizes"', "FILE.toml"):
        assert word in result.stderr
    assert "no suite file nowhere.toml" in invoke("run", "--suite", "nowhere.toml").stderr


def test_a_domain_limits_the_grid() -> None:
    text = SHARED.replace('domain = "tabular"\n', "") + '[grid]\ndomain = ["math", "tabular"]\nseeds = [1, 2]'
    every = load(text)
    assert [(p.spec.domain, p.spec.seeds) for p in every.points] == [
        ("math", 1), ("math", 2), ("tabular", 1), ("tabular", 2)
    ]  # fmt: skip
    limited = suiting.load(written(text), domain="tabular", changes={}, sets=())
    assert [p.spec for p in limited.points] == [p.spec for p in every.points[2:]]
    assert [dict(p.axes) for p in limited.points] == [{"seeds": "1"}, {"seeds": "2"}]
    assert limited.folder(Path()) != every.folder(Path())
    shown = invoke("run", "--suite", "four.toml", "--domain", "tabular", "--dry-run")
    assert shown.stdout.count("run      seeds=") == 2


def test_one_axis_may_set_several_keys() -> None:
    text = SHARED + '[grid]\n"budget, method.random_search.perturbations" = [[64, 3], [256, 15]]\nseeds = [1, 2]'
    points = load(text).points
    found = [(p.spec.budget, p.spec.method["random_search"]["perturbations"], p.spec.seeds) for p in points]
    assert found == [(64, 3, 1), (64, 3, 2), (256, 15, 1), (256, 15, 2)]
    assert dict(points[0].axes) == {"budget": "64", "seeds": "1"}, "named by the first key"
    for flag in ("--budget", "64"), ("--set", "method.random_search.perturbations=3"):
        result = invoke("run", "--suite", "four.toml", "--dry-run", *flag)
        assert "is an axis of this suite" in result.stderr


def test_an_axis_with_a_name_of_its_own_names_its_values() -> None:
    text = (
        SHARED
        + '[grid]\n"way: model, seeds" = [["easy", "tabular:.5", 1], ["hard 1", "tabular:.1", 2]]\nbudget = [64, 128]'
    )
    points = load(text).points
    assert [(p.spec.model, p.spec.seeds, p.spec.budget) for p in points] == [
        ("tabular:.5", 1, 64), ("tabular:.5", 1, 128), ("tabular:.1", 2, 64), ("tabular:.1", 2, 128)
    ]  # fmt: skip
    assert [dict(p.axes) for p in points[1:3]] == [{"way": "easy", "budget": "128"}, {"way": "hard-1", "budget": "64"}]
    result = invoke("run", "--suite", "four.toml", "--dry-run", "--model", "tabular")
    assert "is an axis of this suite" in result.stderr
    single = load(SHARED + '[grid]\n"kind: seeds" = [["one", 1], ["two", 2]]').points
    assert [(dict(p.axes), p.spec.seeds) for p in single] == [({"kind": "one"}, 1), ({"kind": "two"}, 2)]


def test_a_model_may_be_one_of_each_domain_and_is_prepared_for_those_in_the_grid() -> None:
    prepare = PREPARE.replace("made.txt", "made-{domain}")
    text = prepare + SHARED.replace('domain = "tabular"\n', "") + (
        '[grid]\ndomain = ["math", "tabular"]\nmodel = ["tabular", "made-{domain}"]'
    )  # fmt: skip
    every = load(text)
    assert [p.spec.model for p in every.points] == ["tabular", "made-math", "tabular", "made-tabular"]
    assert [(p.arguments[0], p.makes) for p in every.prepare] == [
        ("made-math", "made-math"), ("made-tabular", "made-tabular")
    ]  # fmt: skip
    limited = suiting.load(written(text), domain="tabular", changes={}, sets=())
    assert limited.prepare == every.prepare[1:]
    assert load(PREPARE + SHARED + GRID).prepare == load(PREPARE + SHARED).prepare, "without a domain in it: once"


def test_axes_may_be_nested_dotted_or_quoted() -> None:
    spellings = ("[grid]\nengine.shard_rollouts = [64, 32]", '[grid]\n"engine.shard_rollouts" = [64, 32]',
                 "[grid.engine]\nshard_rollouts = [64, 32]")  # fmt: skip
    found = [load(SHARED + text).points for text in spellings]
    assert found[0] == found[1] == found[2]
    assert [p.spec.engine.shard_rollouts for p in found[0]] == [64, 32]
    assert {p.spec.engine.name for p in found[0]} == {"tabular"}, "an axis inside a shared table leaves the rest of it"


def test_flags_win_over_what_is_shared_and_change_the_folder() -> None:
    plain, more = load(SHARED + GRID), load(SHARED + GRID, budget=512)
    assert {p.spec.budget for p in more.points} == {512}
    assert plain.folder(Path()) != more.folder(Path())
    assert not {p.name for p in plain.points} & {p.name for p in more.points}
    assert load(SHARED + GRID, workers=2).folder(Path()) == plain.folder(Path()), "workers change no result"


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["results/models/tiny-xs/model", "results/models/tiny-s/model", "tiny"], ["tiny-xs", "tiny-s", "tiny"]),
        (["Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-7B"], ["Qwen2.5-1.5B", "Qwen2.5-7B"]),
        (["a/b", "b/a"], ["a-b", "b-a"]),
        ([["base"], ["base", "one_shot"]], ["base", "base+one_shot"]),
        ([0.5, True, "a b\n/../c"], ["0.5", "True", "a-b--..-c"]),
        (["é", "x" * 99], ["x", "x" * 40]),
    ],
)
def test_labels_are_short_and_safe_as_file_names(values: list[object], labels: list[str]) -> None:
    assert suiting._labels(values) == labels


def test_points_of_one_label_still_have_folders_of_their_own() -> None:
    names = [point.name for point in load(SHARED + '[grid]\nmodel = ["tabular:.5", "tabular,.5"]').points]
    assert [name.rpartition("-")[0] for name in names] == ["model=tabular-.5"] * 2
    assert len(set(names)) == 2


def test_without_an_axis_there_is_one_run() -> None:
    (point,) = load(SHARED).points
    assert point.name == f"run-{point.spec.hash}"
    assert str(point) == point.name


def test_a_folder_keeps_its_specs_whatever_the_file_says_now() -> None:
    suite = load(PREPARE + SHARED.replace("budget", "search.kl_targets = []\nbudget") + GRID)
    root = Path("kept")
    suiting.open_folder(suite, root, "harness run")
    written(SHARED.replace("256", "512") + GRID)
    again, command = suiting.reopen(root)
    assert again.points == suite.points
    assert again.prepare == suite.prepare
    assert again.text == suite.text
    assert command == "harness run"
    record = json.loads((root / "suite.json").read_text())
    assert set(record["runs"][0]["spec"]) == set(config.to_dict(suite.points[0].spec))
    assert suiting.discard_unstarted(root)
    assert not root.exists()


def test_dry_run_lists_and_writes_nothing() -> None:
    result = invoke("run", "--suite", written(), "--dry-run")
    assert result.exit_code == 0, result.output
    assert "prepare  python -m maker made.txt --size xs\n" in result.stdout
    assert result.stdout.count("run      model=") == 4
    assert "base, random_search; 1 seed(s)" in result.stdout
    assert "suite-four-" in result.stdout
    assert {path.name for path in Path().iterdir()} == {"maker.py", "four.toml"}


@pytest.mark.parametrize("name", suiting.names())
def test_built_in_suites_expand(name: str) -> None:
    suite = suiting.load(name, domain=None, changes={}, sets=())
    assert len(suite.points) > 1
    assert 'summary = "' in suite.text


def test_sizes_compares_three_models_in_three_domains() -> None:
    suite = suiting.load("sizes", domain=None, changes={"seeds": 3}, sets=())
    assert [dict(p.axes) for p in suite.points] == [
        {"domain": domain, "model": model} for domain in ("math", "code", "arc") for model in ("tiny-xs", "tiny-s", "tiny")
    ]  # fmt: skip
    assert {p.spec.methods for p in suite.points} == {("base", "one_shot", "random_search")}
    assert {p.spec.seeds for p in suite.points} == {3}
    made = {Path(p.makes).parent / "model" for p in suite.prepare}
    assert {Path(p.spec.model) for p in suite.points} == {*made, Path("tiny")}
    for prepare in suite.prepare:
        assert Path(prepare.arguments[prepare.arguments.index("--out") + 1]) == Path(prepare.makes).parent
        assert prepare.module == "harness_tiny.pretrain"


def test_rows_of_two_points_never_replace_each_other(tmp_path: Path) -> None:
    """Rows are merged by run id: the spec's hash is part of it, so points of one label differ across suites."""
    first, second = load(SHARED + GRID), load(SHARED + GRID, budget=512)
    rows = [{"domain": "tabular", "run_id": p.name, "method": "base", "seed": "0", "engine": "hf", "test_benchmark": "ladder"}
            for suite in (first, second) for p in suite.points]  # fmt: skip
    (path,) = leaderboard.merge(rows, tmp_path / "merged")
    assert len(read_csv(path)) == 8


def test_a_suite_that_is_no_list_of_tables_is_refused() -> None:
    with pytest.raises(UsageError, match=r"four\.toml: \[\[prepare\]\] is a list of tables"):
        load("prepare = 3\n" + SHARED)
