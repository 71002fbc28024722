"""Programs of a run as EvalPlus's samples, and EvalPlus's verdicts on them beside ours, on rows in HumanEval+'s fields."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tabular_run import PLAIN, execute, invoke, small_spec, temporary

from harness import config, exporting, plugins
from harness.contracts import Displacement, EngineLimits
from harness.errors import UnknownName, UsageError
from harness.hookspecs import Register, hookimpl
from harness.plugins import Plugins
from harness.types import Finish, Policy, Rollout, SampleRequest, Shard

needs_evalplus = pytest.mark.skipif(importlib.util.find_spec("evalplus") is None, reason="needs evalplus")
ROWS: list[dict[str, Any]] = [
    {
        "task_id": "HumanEval/0",
        "prompt": 'from typing import List\n\n\ndef largest(items: List[int]) -> int:\n    """The largest item.\n    >>> largest([1, 3])\n    3\n    """\n',
        "entry_point": "largest",
        "canonical_solution": "    return max(items)\n",
        "base_input": [[[1, 3]], [[2]]],
        "plus_input": [[[-5, -2]], [[0, 0, 0]]],
        "atol": 0,
        "contract": "",
    },
    {
        "task_id": "HumanEval/1",
        "prompt": 'def mean(items):\n    """The mean of numbers.\n    >>> mean([1, 2])\n    1.5\n    """\n',
        "entry_point": "mean",
        "canonical_solution": "    return sum(items) / len(items)\n",
        "base_input": [[[1, 2]]],
        "plus_input": [[[0.1, 0.2, 0.3]], [[3]]],
        "atol": 1e-6,
        "contract": "",
    },
]  # fmt: skip
# What the policy says of each: right in a chat's fence, right as a bare body, wrong on one further input alone, prose, and
# an end of the program that a careless judge takes for success.
SAYS = {
    "HumanEval/0": [
        "Here it is:\n```python\ndef largest(items: List[int]) -> int:\n    return sorted(items)[-1]\n```\n",
        "    return max(items)\n",
        "    return max(0, *items, 0)\n",
        "I would sort them.",
    ],
    "HumanEval/1": [
        "def mean(items):\n    import math\n    return math.fsum(items) / len(items)\n",
        "    total = 0\n    for item in items:\n        total += item\n    return total / len(items)\n",
        "    return sum(items) // len(items)\n",
        "    raise SystemExit(0)\n",
    ],
}
OUTCOMES = {
    "HumanEval/0": ["correct", "correct", "wrong", "unparsed"],
    "HumanEval/1": ["correct", "correct", "wrong", "wrong"],
}


class Parrot:
    """An engine that says what SAYS holds; greedily, the first of it."""

    def __init__(self, model: str, root: Path, options: Mapping[str, Any]) -> None:
        self.root = root

    def sample(self, shards: Sequence[Shard], policy: Policy) -> Iterator[list[Rollout]]:
        for shard in shards:
            yield [self._said(request, i, seed, policy) for request in shard for i, seed in zip(request.sample_idxs, request.seeds, strict=True)]  # fmt: skip

    def _said(self, request: SampleRequest, index: int, seed: int, policy: Policy) -> Rollout:
        token, none = np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.float32)
        return Rollout(problem_id=request.problem_id, sample_idx=index, policy=policy.id, seed=seed, prompt_tokens=token,
                       completion_tokens=token, logprobs=none, text=SAYS[request.problem_id.removeprefix("rows/")][index], finish=Finish.STOP)  # fmt: skip

    def limits(self) -> EngineLimits:
        return EngineLimits(None, 64, 1, 1, 1)

    def displacement(self, policy: Policy) -> Displacement:
        return Displacement(0.0, 0.0, 0.0)

    def identity(self) -> Mapping[str, str]:
        return {"revision": "parrot"}

    def close(self) -> None:
        pass


class Extra:
    @hookimpl
    def harness_register_engines(self, register: Register) -> None:
        register("parrot", f"{__name__}:Parrot", summary="says what it is told")


def found() -> Plugins:
    known = plugins.load({})
    known.add(Extra(), name="extra", distribution="extra", version="1")
    return known


@functools.cache
def rows_file() -> Path:
    path = temporary() / "rows.jsonl"
    path.write_text("".join(json.dumps({**row, "split": "test"}) + "\n" for row in ROWS))
    return path


@functools.cache
def run() -> Path:
    """The base alone, on ROWS as test problems; the ladder, of which nothing is drawn, serves the other splits."""
    sets = [*PLAIN, "engine.name=parrot", f"data.test={rows_file()}", "data.train=ladder", "evaluation.samples=4"]
    changes = {"model": "parrot", "budget": 16, "workers": 1, "methods": ("base",)}
    root, _ = execute(config.load("code", file=None, changes=changes, sets=sets), temporary(), found=found())
    return root


def samples(tmp_path: Path, **choice: Any) -> list[dict[str, Any]]:
    target = tmp_path / "samples.jsonl"
    count = exporting.samples(run(), "base", seed=0, target=target, plugins=found(), **choice)
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert len(lines) == count
    return lines


def test_every_completion_is_a_sample_with_our_verdict_beside_it(tmp_path: Path) -> None:
    lines = samples(tmp_path)
    outcomes = {(line["task_id"], line["sample_idx"]): line["outcome"] for line in lines}
    assert outcomes == {(task, i): o for task, every in OUTCOMES.items() for i, o in enumerate(every)}
    assert all(bool(line["solution"]) == (line["outcome"] != "unparsed") for line in lines)
    assert not any(line["truncated"] for line in lines)


def test_a_solution_is_a_whole_program(tmp_path: Path) -> None:
    for line in samples(tmp_path):
        if line["outcome"] == "correct":
            space: dict[str, Any] = {}
            exec(line["solution"], space)
            assert space["largest" if line["task_id"] == "HumanEval/0" else "mean"]([1, 3]) in (3, 2)


def test_greedy_completions_are_the_run_s_greedy_ones(tmp_path: Path) -> None:
    assert [(line["task_id"], line["outcome"]) for line in samples(tmp_path, greedy=True)] == [
        ("HumanEval/0", "correct"),
        ("HumanEval/1", "correct"),
    ]


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match='no test set of this run "laddr"'):
        samples(tmp_path, test="laddr")
    (tmp_path / "samples.jsonl").touch()
    with pytest.raises(UsageError, match="exists already"):
        samples(tmp_path)
    root, _ = execute(small_spec(*PLAIN, methods=("base",)), tmp_path)
    command = ["export", str(root), str(tmp_path / "x.jsonl"), "--method", "base"]
    result = invoke(*command, "--format", "evalplus")
    assert result.exit_code == 2
    assert 'EvalPlus judges programs, and domain "tabular" has none' in result.stderr
    result = invoke(*command, "--greedy")
    assert result.exit_code == 2
    assert "--format evalplus" in result.stderr


@needs_evalplus
def test_evalplus_says_what_we_say(tmp_path: Path) -> None:
    """Its own command on the file, as a user types it; it knows pass and fail alone."""
    samples(tmp_path)
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    command = [sys.executable, "-m", "evalplus.evaluate", "--dataset", "humaneval", "--samples", "samples.jsonl"]
    own = {"HUMANEVAL_OVERRIDE_PATH": str(tasks), "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **own}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    theirs = json.loads((tmp_path / "samples_eval_results.json").read_text())["eval"]
    ours = {(line["task_id"], line["solution"]): line["outcome"] for line in samples_of(tmp_path)}
    beside = Counter(
        (ours[task, one["solution"]], one["plus_status"]) for task, every in theirs.items() for one in every
    )
    assert beside == {("correct", "pass"): 4, ("wrong", "fail"): 3, ("unparsed", "fail"): 1}


def samples_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
