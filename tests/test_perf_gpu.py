"""The GPU script at its tiny shape on the CPU, as a user types it; and what its figures are counted from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tabular_run import REPOSITORY
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from benchmarks.perf import run, shapes
from benchmarks.perf.allocating import watched
from harness.types import Finish, Rollout


def test_the_script_runs_whole_at_the_tiny_shape(tmp_path: Path) -> None:
    out = tmp_path / "gpu.csv"
    line = [sys.executable, "-m", "benchmarks.perf.gpu", "--shape", "tiny", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        line, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {row["name"]: row for row in run.read(out)}
    assert {row["measure"] for row in rows.values()} == {"tiny"}
    assert {row["cpu"] for row in rows.values()} == {"cpu"}
    stages = {"one_shot: sample", "one_shot: direct", "one_shot: search", "one_shot: run"}
    names = {"sampling", "gradient", "gradient: utilisation", "matrix product", "gradient: memory"}
    assert names | stages | {"gradient, reduced and written"} <= rows.keys()
    for name, row in rows.items():
        assert float(row["ours"]) > 0, name
    assert 0 < float(rows["gradient: utilisation"]["ours"]) < 1
    assert float(rows["gradient: memory"]["ratio"]) > 1, "chunks hold less"
    seconds = {name: float(rows[name]["ours"]) for name in rows if name.startswith("one_shot: ")}
    total = seconds.pop("one_shot: run")
    assert sum(seconds.values()) < total


def test_flops_are_those_that_torch_counts() -> None:
    """Of one rollout without a prompt to share: a forward and a backward of every token in a row."""
    shape = shapes.SHAPES["tiny"]
    config = shapes.config_of(shape)
    module = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    tokens = torch.arange(1, 41)[None]
    with FlopCounterMode(display=False) as counter:
        module(tokens).logits.sum().backward()
    rollout = Rollout(
        problem_id="p", sample_idx=0, policy="", seed=0, prompt_tokens=np.arange(1, 31, dtype=np.int32),
        completion_tokens=np.arange(31, 41, dtype=np.int32), logprobs=np.zeros(10, dtype=np.float32), text="",
        finish=Finish.STOP,
    )  # fmt: skip
    numbers = sum(p.numel() for p in module.parameters())
    squares = 12.0 * 2 * 64 * (40 * 40 - 40 * 41 / 2)  # a plain implementation forms what is masked as well
    assert shapes.flops(shape, numbers, [[rollout]]) + squares == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_the_watch_sees_peaks_and_largest_tensors() -> None:
    def work() -> None:
        kept = torch.zeros(1000)
        for _ in range(5):
            kept = kept + torch.ones(1000)  # two more at a time, given back
        torch.zeros(10).view(2, 5)

    held = watched(work, device="cpu")
    assert held.largest == 4000
    assert held.peak == 3 * 4000
