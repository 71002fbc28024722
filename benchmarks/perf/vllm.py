"""Sampling: our sampler against vLLM's CPU build, on the same shards with the same weights, one thread each.

Does: draw the same requests (prompts, seeds, limits) through both engines in turns, text and log-probabilities included.
Doesn't: count vLLM's start. Runs in the environment of `make test-vllm`, where both sides can be had: `make perf-vllm`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.perf import subjects
from benchmarks.perf.rows import Row, interleaved
from harness_engines.hf import HfEngine
from harness_engines.vllm import VllmEngine

PROBLEMS, SAMPLES = 64, 16
DTYPES = ("float32", "bfloat16")
TURNS = 2


def measure() -> list[Row]:
    return [row for dtype in DTYPES for row in _rows(dtype)]


def _rows(dtype: str) -> list[Row]:
    options = {**subjects.OPTIONS, "workers": 1, "dtype": dtype}
    with tempfile.TemporaryDirectory() as folder:
        ours, peer = HfEngine("tiny", Path(folder), options), VllmEngine("tiny", Path(folder), options)
        return [_row(domain, dtype, ours, peer) for domain in subjects.DOMAINS]


def _row(domain: str, dtype: str, ours: HfEngine, peer: VllmEngine) -> Row:
    plan = subjects.shards(subjects.ladder(domain, problems=PROBLEMS), samples=SAMPLES)
    for engine in (ours, peer):
        list(engine.sample(plan[:1], subjects.BASE))  # starts vLLM, puts the weights, loads what is lazy
    sides = interleaved(*(lambda e=e: list(e.sample(plan, subjects.BASE)) for e in (ours, peer)), turns=TURNS)
    rollouts = PROBLEMS * SAMPLES
    return Row(
        name=f"sampling against vLLM, {domain}, {dtype}",
        ours=rollouts / sides.ours.cpu,
        peer=rollouts / sides.peer.cpu,
        unit="rollouts / core-s",
        ratio=sides.peer.cpu / sides.ours.cpu,
        goal="",
        note=f"vLLM {peer.version} on a CPU, eager, prefix caching; {PROBLEMS} problems x {SAMPLES}",
    )
