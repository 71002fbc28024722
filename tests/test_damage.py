"""Files of a run folder that are not what was written: named, put aside, made again; what cannot be is refused by name."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tabular_run import PLAIN, SMALL, invoke, temporary

from harness import checksums, differing, mending, pipeline, plugins, store
from harness.errors import HarnessError

METHODS = ("one_shot", "grpo", "ppo", "random_search")


@functools.cache
def whole() -> Path:
    """A finished run whose folder holds files of every kind; not to be changed."""
    named = [f"--method={name}" for name in METHODS]
    sets = [f"--set={text}" for text in PLAIN]
    result = invoke(
        "run", *SMALL, *named, *sets, "--set=engine.shard_rollouts=64", "--quiet", "--out", str(temporary())
    )
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.output.splitlines() if line.startswith("rows ")]
    return Path(line.split()[1]).parent


def truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


def zero(data: bytes) -> bytes:
    return bytes(len(data))


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


Harm = Callable[[bytes], bytes]
KINDS: list[tuple[str, Harm]] = [  # every kind of file, each harm several times
    ("manifest.json", flip),
    ("problems.jsonl", truncate),
    ("leaderboard.csv", flip),
    ("rollouts/0/train-0-*/*", truncate),  # of the base batch, which several methods share
    ("rollouts/0/train-1-*/*", flip),  # of a policy whose weights are gone
    ("verdicts/0/train-0-*/*", flip),
    ("verdicts/0/selection-*/*", zero),
    ("rollouts/0/test-*/*", flip),
    ("verdicts/0/test-*/*", truncate),
    ("directions/0/*.safetensors", flip),
    ("directions/0/*.json", truncate),
    ("methods/one_shot/0/journal/0003-*", zero),
    ("methods/one_shot/0/*.safetensors", flip),
    ("methods/one_shot/0/search.json", truncate),
    ("methods/random_search/0/probe.json", flip),
    ("methods/grpo/0/journal/0001-*", flip),
    ("methods/grpo/0/trainer/step-*", truncate),
    ("methods/grpo/0/trainer/state-*", flip),
    ("methods/ppo/0/trainer/values-*", flip),
    ("methods/base/0/scores.json", flip),
]


@pytest.mark.parametrize(("pattern", "harm"), KINDS, ids=[pattern for pattern, _ in KINDS])
def test_a_damaged_file_is_named_and_made_again(pattern: str, harm: Harm, tmp_path: Path) -> None:
    root = Path(shutil.copytree(whole(), tmp_path / "run"))
    victim = sorted(root.glob(pattern))[0]
    before = victim.read_bytes()
    victim.write_bytes(harm(before))
    with pytest.raises(HarnessError, match=f"{victim.name} .{len(harm(before))} bytes. is not what was written"):
        mending.require_whole(root)
    (told,) = mending.mend(root)
    assert told.startswith(f"{victim} (")
    assert (root / mending.ASIDE / victim.relative_to(root)).read_bytes() == harm(before), "nothing may be thrown away"
    assert not (root / "DONE").exists()
    pipeline.execute(root, plugins.load({}), progress=lambda *_: None)
    assert list(differing.differences(whole(), root)) == []
    assert checksums.damaged(root) == []
    selected = victim.match("selection-*/*")  # whose scores are in the journal
    assert victim.exists() == (not selected)


REPORTED: list[tuple[str, Harm]] = [("report.html", zero), ("figures/*", flip)]


def test_damage_everywhere_is_mended_in_one_go(tmp_path: Path) -> None:
    root = Path(shutil.copytree(whole(), tmp_path / "run"))
    victims = {sorted(root.glob(pattern))[0]: harm for pattern, harm in KINDS + REPORTED}
    for victim, harm in victims.items():
        victim.write_bytes(harm(victim.read_bytes()))
    for command in ("report", "export", "diagnose", "leaderboard"):
        refused = invoke(
            command, str(root), *(["--method", "grpo", str(tmp_path / "new")] if command == "export" else [])
        )
        assert refused.exit_code == 1, f"{command} must not read a damaged file"
        assert "more files" in refused.output
    mended = invoke("resume", str(root), "--quiet")
    assert mended.exit_code == 0, mended.output
    assert all(f"{victim} (" in mended.output for victim in victims)
    assert list(differing.differences(whole(), root)) == []


@pytest.mark.parametrize("name", ["spec.toml", "command.json"])
def test_what_nothing_else_tells_is_refused_by_name(name: str, tmp_path: Path) -> None:
    root = Path(shutil.copytree(whole(), tmp_path / "run"))
    (root / name).write_bytes(flip((root / name).read_bytes()))
    for command in ("resume", "report"):
        refused = invoke(command, str(root))
        assert refused.exit_code == 1
        assert f"{root / name} (" in refused.output
        assert "Begin a new run" in refused.output
    assert not (root / mending.ASIDE).exists()


def test_a_finished_run_is_left_alone_and_that_is_said(tmp_path: Path) -> None:
    root = Path(shutil.copytree(whole(), tmp_path / "run"))
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    again = invoke("resume", str(root), "--quiet")
    assert again.exit_code == 0
    assert f"{root} is finished: nothing was done" in again.output
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == times


@pytest.mark.parametrize("layout", [None, 1, 3])
def test_a_folder_of_another_layout_is_refused_by_name(layout: int | None, tmp_path: Path) -> None:
    root = Path(shutil.copytree(whole(), tmp_path / "run"))
    (root / checksums.NAME).unlink()
    told = json.loads((root / "command.json").read_text())
    told.pop("layout")
    (root / "command.json").write_text(json.dumps(told if layout is None else {**told, "layout": layout}))
    for command in ("resume", "report", "diagnose"):
        refused = invoke(command, str(root))
        assert refused.exit_code == 1
        assert f"{root} has layout {layout or 1}" in refused.output
        assert "the version that made it (0." in refused.output


def test_a_damaged_list_costs_no_work(tmp_path: Path) -> None:
    root = Path(shutil.copytree(whole(), tmp_path / "run"))
    (root / checksums.NAME).write_bytes(truncate((root / checksums.NAME).read_bytes()))
    (root / "DONE").unlink()
    mended = invoke("resume", str(root), "--quiet")
    assert mended.exit_code == 0, mended.output
    assert not (root / mending.ASIDE).exists()
    assert list(differing.differences(whole(), root)) == []


def test_the_list_is_one_that_sha256sum_reads(tmp_path: Path) -> None:
    checksums.begin(tmp_path)
    store.write_text(tmp_path / "a/b.txt", "text")
    store.write_text(tmp_path / "c.txt", "old")
    store.write_text(tmp_path / "c.txt", "new")
    (line, *_) = (tmp_path / checksums.NAME).read_text().splitlines()
    told = subprocess.run(
        ["sha256sum", "-c"], input=f"{line}\n", cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert told.stdout == "a/b.txt: OK\n"
    assert checksums.damaged(tmp_path) == []
    (tmp_path / "c.txt").write_text("old")  # as after a kill between its line and the file
    assert checksums.damaged(tmp_path) == []
    (tmp_path / "c.txt").write_text("other")
    assert checksums.damaged(tmp_path) == [Path("c.txt")]
    with pytest.raises(HarnessError, match=r"c\.txt \(5 bytes\) is not what was written"):
        mending.require_whole(tmp_path)


def test_a_trainer_does_not_go_on_from_another_state(tmp_path: Path) -> None:
    """A state that somebody removed: the steps after it would be others than those in the journal."""
    root = Path(shutil.copytree(whole(), tmp_path / "run"))
    journal = sorted((root / "methods/grpo/0/journal").glob("*-train.json"))
    for path in (*sorted((root / "methods/grpo/0/trainer").glob("state-*")), journal[-1], root / "DONE"):
        path.unlink()
    (root / "methods/grpo/0/scores.json").unlink()
    refused = invoke("resume", str(root), "--quiet")
    assert refused.exit_code == 1
    assert "is missing. Remove" in refused.output
