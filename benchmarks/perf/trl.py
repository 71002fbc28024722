"""The whole one_shot method, search included, against TRL's GRPOTrainer spending as many rollouts on the same model.

Does: CPU seconds of both for N training rollouts on the same problems with the same rewards. Of ours all that the method
did (sampling, verdicts, gradient, search with its selection rollouts), without its test; of TRL's `train()` alone,
without imports and set-up.
Doesn't: compare what was learned. TRL runs in a process of its own, under HARNESS_PERF_TRL (an interpreter that has trl
and this harness) where that is set, at the better of two batch sizes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.perf.rows import Row

BUDGET, GROUP = 4096, 16
RATE = 3e-4
BATCHES = (128, 512)  # rollouts in one update of TRL
ROOT = Path(__file__).resolve().parents[2]


def measure() -> list[Row]:
    from benchmarks.perf import subjects

    with tempfile.TemporaryDirectory() as folder:
        subjects.harness(
            "run", "--domain", "math", "--method", "one_shot", "--budget", str(BUDGET), "--workers", "1", "--quiet",
            "--out", folder, *subjects.SMALL_TEST, cwd=Path(folder),
        )  # fmt: skip
        scores = json.loads((subjects.run_folder(Path(folder)) / "methods/one_shot/0/scores.json").read_text())
    cost = scores["cost"]
    tried = {batch: in_trl(f"trl.train({batch})") for batch in BATCHES}
    best = min(tried, key=lambda batch: float(tried[batch]["cpu"]))
    seconds = ", ".join(f"{batch}: {found['cpu']:.0f} s" for batch, found in tried.items())
    return [
        Row(
            name="one_shot, whole method",
            ours=cost["cpu_seconds"],
            peer=tried[best]["cpu"],
            unit="CPU s",
            ratio=tried[best]["cpu"] / cost["cpu_seconds"],
            goal="ratio >= 3",
            note=f"TRL {tried[best]['version']} GRPOTrainer, {BUDGET} rollouts, {GROUP} a prompt, rollouts an update "
            f"({seconds}); ours spends {cost['selection_rollouts']} selection rollouts besides",
        )
    ]


def in_trl(call: str) -> dict[str, Any]:
    """What a call of this package prints as JSON, from a process that has trl and no other thing to do."""
    interpreter, module = os.environ.get("HARNESS_PERF_TRL", sys.executable), call.partition(".")[0]
    done = subprocess.run(
        [interpreter, "-c", f"from benchmarks.perf import {module}; {call}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"TRL under {interpreter}: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def train(batch: int) -> None:
    """In the process that has trl: spend the budget and print what it took as JSON."""
    done = trained(batch=batch, seed=0, logging_strategy="no")
    print(json.dumps({"cpu": done.cpu, "version": done.version}))


class Trained(NamedTuple):
    """CPU seconds of `train()`, TRL's log and its version."""

    cpu: float
    log: list[dict[str, float]]
    version: str


def trained(*, batch: int, seed: int, **settings: Any) -> Trained:
    """GRPOTrainer on the problems that `harness run --domain math` trains on, BUDGET rollouts, `batch` an update."""
    import torch
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from harness import plugins
    from harness.adapters import trl_reward, trl_rows
    from harness.budget import Stopwatch
    from harness_tiny import weights_path

    torch.set_num_threads(1)
    domain = plugins.load().lookup("domain", "math").load()()
    (max_tokens,) = (b.max_tokens for b in domain.benchmarks() if b.name == "ladder")
    with tempfile.TemporaryDirectory() as folder, trl_reward("math", workers=1) as reward:
        config = trl.GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=batch,
            num_generations=GROUP,
            max_completion_length=max_tokens,
            temperature=1.0,
            beta=0.0,
            max_steps=BUDGET // batch,
            learning_rate=RATE,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            seed=seed,
            **settings,
        )
        trainer = trl.GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(weights_path(), dtype=torch.float32),
            processing_class=AutoTokenizer.from_pretrained(weights_path(), padding_side="left"),
            reward_funcs=reward,
            args=config,
            train_dataset=Dataset.from_list(trl_rows("math", seed=seed, limit=BUDGET // GROUP)),
        )
        watch = Stopwatch()
        trainer.train()
        return Trained(watch.cost().cpu_seconds, trainer.state.log_history, trl.__version__)
