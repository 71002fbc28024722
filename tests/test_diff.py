"""`harness diff`: every kind of difference is found and named; what never is the same twice is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tabular_run import finished, invoke

from harness import differing, shards, store


def first(root: Path, pattern: str) -> Path:
    return sorted(root.glob(pattern))[0]


def edited(path: Path, *keys: Any, value: Any) -> None:
    """A leaf of a JSON file."""
    whole = json.loads(path.read_text())
    place = whole
    for key in keys[:-1]:
        place = place[key]
    assert place[keys[-1]] != value
    place[keys[-1]] = value
    store.write_text(path, json.dumps(whole))


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    store.write_text(path, text.replace(old, new, 1))


def other_tokens(root: Path) -> None:
    path = first(root, "rollouts/0/train-0-*/*")
    rollouts = shards.read(path)
    changed = rollouts[3].completion_tokens.copy()
    changed[-1] = (changed[-1] + 1) % 2
    shards.write(path, [*rollouts[:3], replace(rollouts[3], completion_tokens=changed), *rollouts[4:]])


def other_logprobs(root: Path) -> None:
    path = first(root, "rollouts/0/train-0-*/*")
    rollouts = shards.read(path)
    shards.write(path, [replace(rollouts[0], logprobs=rollouts[0].logprobs - np.float32(0.25)), *rollouts[1:]])


def longer_direction(root: Path) -> None:
    path = first(root, "directions/0/*.safetensors")
    tensors = {name: tensor * 1.5 for name, tensor in load_file(path).items()}
    store.write_via(path, lambda name: save_file(tensors, name))


def fewer_draws(root: Path) -> None:
    shutil.rmtree(first(root, "methods/grpo/0"))


CASES: list[tuple[Callable[[Path], None], str, str]] = [
    (lambda root: replaced(root / "spec.toml", "temperature = 1.0", "temperature = 0.5"), "spec", "sampling.temperature 1.0, 0.5"),
    (lambda root: edited(root / "manifest.json", "packages", "numpy", value="0.1"), "made with", "packages.numpy"),
    (lambda root: replaced(root / "problems.jsonl", '"level": 1', '"level": 5'), "problems", "level 1, 5"),
    (other_tokens, "rollouts", "1 completions differ, such as "),
    (other_tokens, "rollouts", "other tokens from "),
    (other_logprobs, "rollouts", "the same tokens, log-probabilities up to 0.25 apart"),
    (lambda root: edited(first(root, "verdicts/0/train-0-*/*"), "judged", 0, "verdict", "outcome", value="timeout"),
     "verdicts", "1 verdicts differ, such as "),
    (longer_direction, "directions", "0.5 of its norm apart"),
    (lambda root: edited(first(root, "methods/one_shot/0/journal/0001-*"), "key", value="0"), "methods", "one_shot/0: call 0001-sample: other arguments"),
    (lambda root: edited(root / "methods/base/1/scores.json", "status", value="odd"), "methods", "base/1: scores: status "),
    (fewer_draws, "methods", "grpo/0: only in "),
    (lambda root: replaced(root / "leaderboard.csv", ",ok,", ",odd,"), "rows", "on ladder: "),
]  # fmt: skip


@pytest.mark.parametrize(("change", "section", "text"), CASES)
def test_every_kind_of_difference_is_found_and_named(
    change: Callable[[Path], None], section: str, text: str, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(finished(), tmp_path / "run"))
    change(root)
    found = list(differing.differences(finished(), root))
    assert {difference.section for difference in found} == {section}
    assert any(text in difference.text for difference in found), found


def test_names_dates_and_seconds_are_no_difference(tmp_path: Path) -> None:
    root = Path(shutil.copytree(finished(), tmp_path / "run"))
    edited(root / "manifest.json", "row", "date", value="20000101-000000")
    edited(first(root, "verdicts/0/train-0-*/*"), "cost", "wall_seconds", value=1e6)
    edited(first(root, "methods/one_shot/0/journal/0001-*"), "cost", "cpu_seconds", value=1e6)
    done = invoke("diff", str(finished()), str(root))
    assert done.exit_code == 0
    assert done.output == "the same in all but names, dates and seconds\n"


def test_as_a_user_types_it(tmp_path: Path) -> None:
    root = Path(shutil.copytree(finished(), tmp_path / "run"))
    edited(root / "methods/base/1/scores.json", "status", value="odd")
    done = invoke("diff", str(finished()), str(root))
    assert done.exit_code == 1
    assert done.output == 'methods\n  base/1: scores: status "ok", "odd"\n'
    assert invoke("diff", str(finished()), str(tmp_path)).exit_code == 2
