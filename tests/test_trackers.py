"""Experiment trackers as observers: what each is told, with stand-ins for the packages and, where installed, the packages."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tabular_run import PLAIN, execute, small_spec

from harness import config, pipeline, plugins
from harness.leaderboard import Row
from harness.plugins import Plugins
from harness_observers.tracking import Tracking

SETS = (*PLAIN, "method.grpo.steps=4", "method.grpo.checkpoints=2")
KINDS = {"grpo/0/train", "grpo/0/sample", "base/0/evaluate/ladder", "base/result/ladder", "grpo/result/ladder"}


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"needs {package}")


def tracked() -> Plugins:
    """All plugins, with an observer that is this test's own."""
    found = plugins.load({"HARNESS_PLUGINS": "math,methods,engines"})
    found.add(Tracking(), name="trackers", distribution="test", version="1")
    return found


def run(tmp_path: Path, *names: str, monkeypatch: pytest.MonkeyPatch, seeds: int = 1) -> tuple[Path, list[Row]]:
    monkeypatch.setenv("HARNESS_TRACKERS", ",".join(names))
    return execute(small_spec(*SETS, methods=("grpo",), seeds=seeds), tmp_path, found=tracked())


def events(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "events.jsonl").read_text().splitlines()]


class Writer:
    """In the place of TensorBoard's."""

    def __init__(self, log_dir: str) -> None:
        self.folder, self.told, self.closed = log_dir, [], False
        self.texts: dict[str, str] = {}

    def add_text(self, name: str, text: str) -> None:
        self.texts[name] = text

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.told.append((name, value, step))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[Writer]:
    made: list[Writer] = []

    def writer(log_dir: str) -> Writer:
        made.append(Writer(log_dir))
        return made[-1]

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=writer))  # type: ignore[arg-type]
    return made


def test_a_tracker_hears_every_stage_and_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writers: list[Writer]
) -> None:
    root, rows = run(tmp_path, "tensorboard", monkeypatch=monkeypatch)
    (writer,) = writers
    assert (writer.folder, writer.closed) == (str(root / "tensorboard"), True)
    assert 'name = "tabular"' in writer.texts["spec"]
    assert {name.rpartition("/")[0] for name, _, _ in writer.told} >= KINDS
    steps = [step for name, _, step in writer.told if name == "grpo/0/train/pass_rate"]
    assert steps == [0, 1, 2, 3]
    trained = [e for e in events(root) if e.get("stage") == "train"]
    assert [v for name, v, _ in writer.told if name == "grpo/0/train/pass_rate"] == [e["pass_rate"] for e in trained]
    assert {"pass_rate", "loss", "grad_norm", "mean_tokens", "groups_dead"} <= trained[0].keys()
    result = next(row for row in rows if (row["method"], row["seed"]) == ("grpo", "all"))
    assert ("grpo/result/ladder/pass@1", result["pass@1"], 0) in writer.told


def test_no_tracker_is_opened_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writers: list[Writer]
) -> None:
    monkeypatch.delenv("HARNESS_TRACKERS", raising=False)
    assert config.trackers() == ()
    execute(small_spec(*PLAIN, methods=("base",)), tmp_path, found=tracked())
    assert writers == []


def test_steps_go_on_where_an_interrupted_run_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writers: list[Writer]
) -> None:
    root, _ = run(tmp_path, "tensorboard", monkeypatch=monkeypatch)
    for lost in (root / "methods/grpo/0/scores.json", root / "leaderboard.csv"):
        lost.unlink()
    pipeline.execute(root, tracked(), progress=lambda *_: None)
    first, second = writers
    (again,) = [step for name, _, step in second.told if name == "grpo/0/evaluate/ladder/pass@1"]
    assert again == 1
    assert not [name for name, _, _ in second.told if "/train/" in name], (
        "what was read from the journal is not told twice"
    )
    assert first.closed
    assert second.closed


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("tensorbord",), 'did you mean "tensorboard"'),
        (("wandb",), "pip install 'oneshot-harness[trackers]'"),
    ],
)
def test_a_tracker_that_is_not_there_is_a_warning_and_the_run_goes_on(
    names: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.warns(UserWarning, match="observer test:trackers.harness_run_started"):
        root, rows = run(tmp_path, *names, monkeypatch=monkeypatch)
    assert all(row["status"].startswith("ok") for row in rows)
    (error,) = [e["observer_error"] for e in events(root) if "observer_error" in e]
    assert said in error


def test_a_tracker_changes_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writers: list[Writer]) -> None:
    _, rows = run(tmp_path / "with", "tensorboard", monkeypatch=monkeypatch)
    root, others = run(tmp_path / "without", monkeypatch=monkeypatch)
    assert len(writers) == 1
    assert [row["pass@1"] for row in rows] == [row["pass@1"] for row in others]
    assert root.name.rpartition("-")[2] == next((tmp_path / "with").iterdir()).name.rpartition("-")[2]


class Package:
    """In the place of trackio and W&B, which have `init`, `log` and `finish` alike."""

    def __init__(self) -> None:
        self.opened: dict[str, Any] = {}
        self.told: list[tuple[dict[str, float], int | None]] = []
        self.metrics: dict[str, str] = {}
        self.finished = 0

    def init(self, **how: Any) -> Package:
        print("a dashboard is somewhere")
        self.opened = how
        return self

    def log(self, numbers: dict[str, float], step: int | None = None) -> None:
        self.told.append((numbers, step))

    def define_metric(self, names: str, step_metric: str) -> None:
        self.metrics[names] = step_metric

    def finish(self) -> None:
        self.finished += 1

    Settings = staticmethod(dict)


def test_trackio_and_wandb_are_local_and_get_the_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trackio, wandb = Package(), Package()
    monkeypatch.setitem(sys.modules, "trackio", trackio)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "wandb", wandb)  # type: ignore[arg-type]
    root, _ = run(tmp_path, "trackio", "wandb", monkeypatch=monkeypatch)
    for package in (trackio, wandb):
        assert (package.opened["project"], package.opened["name"]) == ("oneshot-harness", root.name)
        assert package.opened["config"]["engine"]["name"] == "tabular"
        assert package.finished == 1
    assert "space_id" not in trackio.opened
    assert (wandb.opened["mode"], wandb.opened["dir"]) == ("offline", str(root))
    losses = [(numbers["grpo/0/train/loss"], step) for numbers, step in trackio.told if "grpo/0/train/loss" in numbers]
    assert [step for _, step in losses] == [0, 1, 2, 3]
    theirs = [numbers for numbers, _ in wandb.told if "grpo/0/train/loss" in numbers]
    assert [(n["grpo/0/train/loss"], n["grpo/0/train/step"]) for n in theirs] == losses
    assert wandb.metrics["grpo/0/train/*"] == "grpo/0/train/step"
    assert all(step is None for _, step in wandb.told), "W&B's own steps may not go back"
    assert wandb.opened["settings"] == {"silent": True, "console": "off"}
    assert capsys.readouterr().out.count("a dashboard is somewhere") == 1, "trackio's words go to standard error"


@needs("tensorboard")
def test_tensorboard_itself_reads_the_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    root, _ = run(tmp_path, "tensorboard", monkeypatch=monkeypatch)
    read = EventAccumulator(str(root / "tensorboard"))
    read.Reload()
    trained = [e for e in events(root) if e.get("stage") == "train"]
    curve = [(event.step, event.value) for event in read.Scalars("grpo/0/train/pass_rate")]
    assert curve == [(i, pytest.approx(e["pass_rate"])) for i, e in enumerate(trained)]


@needs("trackio")
def test_trackio_itself_keeps_the_numbers(tmp_path: Path) -> None:
    """In a process of its own: it fixes the folder of its files when it is imported."""
    program = """
import sys
from pathlib import Path
from harness_observers.trackers import Trackio
log = Trackio(Path(sys.argv[1]))
for step in range(3):
    log.write("grpo/0/train", {"loss": step / 2}, step)
log.close()
from trackio.sqlite_storage import SQLiteStorage
kept = SQLiteStorage.get_logs("oneshot-harness", Path(sys.argv[1]).name)
print([(line["step"], line["grpo/0/train/loss"]) for line in kept])
"""
    root, _ = execute(small_spec(*PLAIN, methods=("base",)), tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", program, str(root)],
        env={**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "[(0, 0.0), (1, 0.5), (2, 1.0)]\n", done.stderr


@needs("wandb")
def test_wandb_itself_writes_an_offline_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, _ = run(tmp_path, "wandb", monkeypatch=monkeypatch)
    assert not [e for e in events(root) if "observer_error" in e]
    (folder,) = (root / "wandb").glob("offline-run-*")
    (file,) = folder.glob("*.wandb")
    assert file.stat().st_size > 1000
    assert b"grpo/0/train/pass_rate" in file.read_bytes()
