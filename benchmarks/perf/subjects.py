"""What several measures work on: the engine on the embedded model, ladder problems, draws, and watched commands.

Does: build them through the harness's public functions; run `harness` commands and watch their memory.
Doesn't: time (rows.py).
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM

from harness import plugins, sampling
from harness.types import Outcome, Policy, Problem, Shard, Verdict
from harness_engines.hf import HfEngine
from harness_tiny import weights_path

BASE = Policy(base="tiny")
DOMAINS = ("math", "code", "arc")
HARNESS = (sys.executable, "-c", "from harness.cli import main; main()")
SMALL_TEST = ("--set", "evaluation.problems=20", "--set", "evaluation.wide_samples=0")
SHARD = 512  # rollouts sampled together: the default of a run
OPTIONS = {
    "dtype": "auto",
    "device": "cpu",
    "shard_rollouts": SHARD,
    "microbatch_tokens": 0,
    "trust_remote_code": False,
}


class Task(NamedTuple):
    """Training problems of a domain's ladder, the length limit of their completions, and who judges them."""

    problems: list[Problem]
    max_tokens: int
    target: str


def ladder(domain: str, *, problems: int) -> Task:
    registration = plugins.load().lookup("domain", domain)
    found = registration.load()()
    (benchmark,) = (b for b in found.benchmarks() if b.name == "ladder")
    chosen = list(found.problems("ladder", "train", seed=0, limit=problems))
    if len(chosen) < problems:
        raise RuntimeError(f"the ladder of {domain} gave {len(chosen)} of {problems} problems")
    return Task(chosen, benchmark.max_tokens, registration.target)


def engine(root: Path, *, workers: int = 1) -> HfEngine:
    torch.set_num_threads(1)
    return HfEngine("tiny", root, {**OPTIONS, "workers": workers})


def plain_model() -> Any:
    """The embedded model as transformers loads it, untouched by the engine."""
    return AutoModelForCausalLM.from_pretrained(weights_path(), dtype=torch.float32).eval()


def draw(task: Task, *, samples: int = 16, policy: Policy = BASE, purpose: str = "train/0") -> sampling.Draw:
    return sampling.Draw(purpose=purpose, policy=policy, temperature=1.0, samples=samples, max_tokens=task.max_tokens)


def shards(task: Task, *, samples: int = 16) -> list[Shard]:
    return sampling.plan_shards(draw(task, samples=samples), task.problems, run_seed=0, rollouts=SHARD)


class FreePool:
    """Stands for harness.verifying.VerifierPool where judging is not what is measured: one verdict for all."""

    def verify(self, items: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        return [Verdict(outcome=Outcome.WRONG, format_ok=True)] * len(items)


class Watched(NamedTuple):
    """A finished command: seconds, its highest proportional memory (PSS, whole process tree, MB), its output."""

    wall: float
    cpu: float
    peak_mb: float
    output: str


def watched(command: Sequence[str], *, cwd: Path, interval: float) -> Watched:
    """Run a command to its end and look at its memory every `interval` seconds. Raises RuntimeError when it fails."""
    started, peak, before = time.monotonic(), 0.0, _children_seconds()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=cwd, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, tree_pss_mb(process.pid))
            time.sleep(interval)
        wall = time.monotonic() - started
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[-6:])} ended with {process.returncode}: {text.strip()[-500:]}")
    return Watched(wall, _children_seconds() - before, peak, text)


def _children_seconds() -> float:
    """CPU of ended children: without the watching itself, unlike harness.budget.Stopwatch."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def harness(*arguments: str, cwd: Path, interval: float = 0.5) -> Watched:
    return watched([*HARNESS, *arguments], cwd=cwd, interval=interval)


def run_folder(out: Path) -> Path:
    (folder,) = (path for path in out.iterdir() if (path / "DONE").exists())
    return folder


def tree_pss_mb(root: int) -> float:
    """Proportional set size of a process and its descendants; a page that several share is counted once."""
    children: dict[int, list[int]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            parent = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(entry))
    total, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        waiting += children.get(pid, [])
        total += _pss_kb(pid)
    return total / 1024


def _pss_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
