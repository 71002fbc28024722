"""The grpo method against TRL's GRPOTrainer: 32 updates of 128 rollouts, what they cost and what they learn.

Does: the same model, problems in the same order, verifier, rate, betas, clipping and constant schedule on both sides, for
a few seeds; CPU seconds of drawing, judging and updating; the mean pass rate of the training batches over the last
quarter of the updates.
Doesn't: count ours for the selection and test that TRL has none of. Draws differ, so curves agree in distribution only:
ours should lie within the range of TRL's seeds. TRL divides advantages by the sample's standard deviation plus 1e-4, ours
by the population's; AdamW sees no difference in scale.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.perf.rows import Row
from benchmarks.perf.trl import BUDGET, GROUP, RATE, in_trl, trained

SEEDS, BATCH = 3, 128
STEPS = BUDGET // BATCH
LAST = STEPS // 4


class Seed(NamedTuple):
    """One training: CPU seconds, and the pass rate of each update's batch."""

    cpu: float
    curve: list[float]

    @property
    def learnt(self) -> float:
        return statistics.mean(self.curve[-LAST:])


def measure() -> list[Row]:
    ours = _ours()
    found = [in_trl(f"grpo.train({seed})") for seed in range(SEEDS)]
    return rows(ours, [Seed(one["cpu"], one["curve"]) for one in found], version=found[0]["version"])


def rows(ours: list[Seed], theirs: list[Seed], *, version: str) -> list[Row]:
    own, peer = (statistics.median(seed.cpu for seed in side) for side in (ours, theirs))
    learnt, reached = ([seed.learnt for seed in side] for side in (ours, theirs))
    mean, other, low, high = statistics.mean(learnt), statistics.mean(reached), min(reached), max(reached)
    what = f"math, {STEPS} updates of {BATCH} rollouts, {GROUP} a prompt, {SEEDS} seeds; TRL {version} GRPOTrainer"
    seeds = ", ".join(f"{value:.4f}" for value in learnt)
    curve = Row(
        name="grpo, learning curve: at least TRL's lowest seed", ours=mean, peer=other, unit="mean pass rate",
        ratio=mean / other, goal=f"ours >= {low:.4f}",
        note=f"of the last {LAST} training batches; {what}: {low:.4f} to {high:.4f}; ours by seed: {seeds}",
    )  # fmt: skip
    cost = Row(
        name="grpo, updates", ours=own, peer=peer, unit="CPU s", ratio=peer / own, goal="ratio >= 1.5",
        note=f"without selection and test; median; {what}",
    )  # fmt: skip
    above = curve._replace(name="grpo, learning curve: at most TRL's highest seed", goal=f"ours <= {high:.4f}")
    return [cost, curve, above]


def _ours() -> list[Seed]:
    from benchmarks.perf import subjects

    with tempfile.TemporaryDirectory() as folder:
        subjects.harness(
            "run", "--domain", "math", "--method", "grpo", "--seeds", str(SEEDS), "--budget", str(BUDGET),
            "--selection-budget", "16", "--workers", "1", "--quiet", "--out", folder,
            "--set", f"method.grpo.steps={STEPS}", "--set", f"method.grpo.lr={RATE}",
            "--set", "method.grpo.checkpoints=1", *subjects.SMALL_TEST, cwd=Path(folder), interval=5.0,
        )  # fmt: skip
        return read(subjects.run_folder(Path(folder)), seeds=SEEDS)


def read(root: Path, *, seeds: int) -> list[Seed]:
    """From a run folder; what selection and tests take is left out by their stages."""
    from harness import pipeline, store

    # Importing the module is what lets the store read its records.
    done: list[pipeline.Finished] = [
        store.read_json(root / f"methods/grpo/{seed}/scores.json") for seed in range(seeds)
    ]
    events = [json.loads(line) for line in (root / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    return [Seed(_seconds(events, seed), [step.pass_rate for step in done[seed].trained]) for seed in range(seeds)]


def _seconds(events: list[dict[str, Any]], seed: int) -> float:
    own = [event for event in events if event.get("method") == "grpo" and event.get("seed") == seed]
    return sum(float(event.get("cpu_seconds", 0.0)) for event in own if event.get("stage") in ("sample", "train"))


def train(seed: int) -> None:
    """In the process that has trl: the same updates, and what they took and reached as JSON."""
    done = trained(
        batch=BATCH, seed=seed, loss_type="dapo", lr_scheduler_type="constant", adam_beta2=0.95, weight_decay=0.0,
        max_grad_norm=1.0, shuffle_dataset=False, logging_steps=1,
    )  # fmt: skip
    curve = [entry["reward"] for entry in done.log if "reward" in entry]
    print(json.dumps({"cpu": done.cpu, "curve": curve, "version": done.version}))
