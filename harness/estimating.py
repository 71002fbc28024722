"""How fast a model samples and learns and what it holds in memory: measured on a probe, or worked out from assumptions.

Does: time a few rollouts of a small model on this machine; for a large or absent one, turn parameters into seconds by a
stated device and stated shares of its peak.
Doesn't: count rollouts (planning.py). An assumption is never shown as a measurement.

Assumed: 2 FLOPs per parameter and generated token, 6 per trained token (2 forward, 4 backward); attention over the
context and forwards of the line search are left out. Completions are taken to be as long as they may be.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import NamedTuple

from harness import sampling, sizing
from harness.config import RunSpec
from harness.run import Run
from harness.sampling import Draw
from harness.types import Outcome

PROBE_PROBLEMS, PROBE_SAMPLES = 16, 4
SHARE_OF_GRADIENT = 2.0  # a gradient costs about this many times the sampling of the same rollouts
PROCESS = 0.5e9  # bytes of the libraries in each process
DEVICE, PEAK = "one H200 in bf16", 989e12  # FLOP/s without sparsity, as its data sheet says
SAMPLING, TRAINING = 0.10, 0.40  # of the peak: sampling waits for memory, gradients do not
PROMPT = 256  # tokens of a prompt, where none was seen


class Pace(NamedTuple):
    """`completion` and `trained` are tokens of a rollout (trained: with its share of the prompt in a group that is all
    live), `generating` and `training` seconds of a token; the rest is bytes: weights, one more number for each (4), the cache of a shard."""

    measured: bool
    completion: float
    trained: float
    generating: float
    training: float
    weights: float
    numbers: float
    cache: float
    processes: int
    note: str

    def memory(self, *, gradient: bool, optimizer: bool) -> float:
        """Base and candidate in every process; a gradient, half of it and a part; weights, moments and sum of an optimizer."""
        held = self.processes * (2 * self.weights + self.cache + (PROCESS if self.measured else 0.0))
        return held + self.numbers * (3 * gradient + 4 * optimizer)


def probed(run: Run) -> Pace:
    """Of a few rollouts of the base, drawn and judged twice: the first ones start the processes."""
    problems = run.problems.train[0][:PROBE_PROBLEMS]
    draw = Draw(
        purpose="probe",
        policy=run.base,
        temperature=run.spec.sampling.temperature,
        samples=PROBE_SAMPLES,
        max_tokens=run.max_tokens,
    )
    sampling.collect([draw], problems[:1], run_seed=-1, engine=run.engine, pool=run.pool, progress=lambda *_: None)
    started = time.monotonic()
    ((batch, cost),) = run.collect([draw], problems, run_seed=0, label="")
    judged = list(batch.judged())
    seconds = (time.monotonic() - started) / len(judged)
    prompts = [len(batch.group(problem.id)[0].prompt_tokens) for problem in problems]
    completion = cost.gen_tokens / len(judged)
    trained = completion + sum(prompts) / len(prompts) / run.spec.sampling.group
    correct = sum(j.verdict.outcome is Outcome.CORRECT for j in judged) / len(judged)
    limits, workers = run.engine.limits(), run.spec.num_workers
    return Pace(
        measured=True,
        completion=completion,
        trained=trained,
        generating=seconds / completion,
        training=SHARE_OF_GRADIENT * seconds / trained,
        weights=limits.bytes_weights,
        numbers=4.0 * limits.parameters,
        cache=limits.shard_rollouts * limits.bytes_per_token * (run.max_tokens + max(prompts)),
        processes=workers + (workers > 1),
        note=f"Measured on {len(judged)} rollouts: {completion:.0f} tokens each, {seconds * 1e3:.1f} ms each with {workers} "
        f"workers, {correct:.1%} correct.",
    )


def assumed(spec: RunSpec, *, max_tokens: int) -> Pace:
    """For a model that is not loaded. NaN where neither a folder nor its name tells how large it is."""
    parameters = sizing.parameters(spec.model)
    cache = _bytes_per_token(spec.model) * spec.engine.shard_rollouts * (max_tokens + PROMPT)
    size = "of unknown size" if math.isnan(parameters) else f"of {parameters / 1e9:.2f}B parameters"
    left_out = ", without key-value cache" if not cache else f", {cache / 2**30:.0f} of it key-value cache"
    return Pace(
        measured=False,
        completion=max_tokens,
        trained=max_tokens + PROMPT / spec.sampling.group,
        generating=2 * parameters / (SAMPLING * PEAK),
        training=6 * parameters / (TRAINING * PEAK),
        weights=2 * parameters,
        numbers=4 * parameters,
        cache=cache,
        processes=1,
        note=f"Estimated, not measured: a model {size}, 2 FLOPs a parameter and generated token, 6 a trained one, on "
        f"{DEVICE} ({PEAK / 1e12:.0f} TFLOP/s), {SAMPLING:.0%} of it reached in sampling and {TRAINING:.0%} in training; every "
        f"completion {max_tokens:,} tokens long, its longest; memory in bf16 with fp32 gradients and moments{left_out}.",
    )


def _bytes_per_token(model: str) -> float:
    """Of the key-value cache in bf16, from a folder's config.json; 0 where there is none."""
    path = Path(model) / "config.json"
    if not path.exists():
        return 0.0
    config = json.loads(path.read_text(encoding="utf-8"))
    heads = config.get("num_attention_heads", 1)
    width = config.get("head_dim") or config.get("hidden_size", 0) // heads
    return float(2 * 2 * config.get("num_hidden_layers", 0) * config.get("num_key_value_heads", heads) * width)
