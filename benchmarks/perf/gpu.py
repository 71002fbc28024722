"""The engine at size: sampling, gradient, memory and a whole one_shot on random weights in the shape of a real model.

    python -m benchmarks.perf.gpu [--shape qwen2.5-math-1.5b|tiny] [--only sampling]... [--out FILE.csv]

Does: one command for one device, meant to take less than 10 minutes on a GPU of the H200 class; `--shape tiny` does the same
on a CPU in seconds, so that the command is known to work. Prints a table and writes a line for each figure, with the device's
name where other measures have the processor's.
Doesn't: learn anything, or compare with what another engine learns.

Model FLOPs are counted once for what a backward recomputes (shapes.flops); utilisation is their rate over that of a large matrix
product in the same type, measured here as well.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch

from benchmarks.perf import run, shapes
from benchmarks.perf.allocating import watched
from benchmarks.perf.rows import Row
from benchmarks.perf.shapes import Coins, Shape
from harness import config, pipeline, plugins, seeds, store
from harness.objectives import PolicyGradient
from harness.testing.engine_subject import FixedBatch
from harness.types import Policy, Rollout, SampleRequest, Shard, WeightedGroup
from harness_engines import chunking
from harness_engines.hf import HfEngine
from harness_engines.local import Local

SAMPLES = 16
NONE = float("nan")
OUT = run.ROOT / "benchmarks" / "perf" / "gpu.csv"


class Bench(NamedTuple):
    """What every measure is given."""

    shape: Shape
    folder: Path
    engine: HfEngine
    base: Policy
    rollouts: list[Rollout]  # of one shard of the base, all of a prompt together

    @property
    def device(self) -> str:
        return self.engine.spec.device

    @property
    def dtype(self) -> torch.dtype:
        return self.engine.local.model.module.dtype  # type: ignore[no-any-return]


def seconds(work: Callable[[], object], device: str) -> float:
    """Wall seconds until the device is done."""
    started = time.monotonic()
    work()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic() - started


def shard(shape: Shape) -> Shard:
    return tuple(
        SampleRequest(
            problem_id=problem.id,
            prompt=problem.prompt,
            sample_idxs=tuple(range(SAMPLES)),
            seeds=tuple(seeds.seed_for(0, "test", problem.id, idx) for idx in range(SAMPLES)),
            temperature=1.0,
            max_tokens=shape.completion,
        )
        for problem in Coins().problems("ladder", "train", seed=0, limit=shape.prompts)
    )


def opened(shape: Shape, folder: Path, device: str) -> HfEngine:
    options = {"dtype": "auto", "device": device, "shard_rollouts": shape.prompts * SAMPLES, "microbatch_tokens": 0}
    return HfEngine(str(folder / "model"), folder, {**options, "workers": 1, "trust_remote_code": False})


def groups_of(rollouts: Sequence[Rollout]) -> list[WeightedGroup]:
    """With advantages by turns."""
    weights_G = np.where(np.arange(SAMPLES) % 2, 1.0, -1.0)
    return [WeightedGroup(tuple(rollouts[i : i + SAMPLES]), weights_G) for i in range(0, len(rollouts), SAMPLES)]


def sampling(bench: Bench) -> list[Row]:
    """Tokens a second of one shard, which is `generate`'s batch as well."""
    model, plan = bench.engine.local.model, shard(bench.shape)
    prompts = [model.tokenize(request.prompt) for request in plan for _ in range(SAMPLES)]
    ids = torch.tensor(prompts, device=model.device)  # of one length

    @torch.inference_mode()
    def generate() -> None:
        model.module.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
            max_new_tokens=bench.shape.completion, min_new_tokens=bench.shape.completion, pad_token_id=model.pad_id,
        )  # fmt: skip

    ours = seconds(lambda: list(bench.engine.sample([plan], bench.base)), bench.device)
    peer = seconds(generate, bench.device)
    drawn = sum(len(r.completion_tokens) for r in bench.rollouts) / ours
    generated = len(prompts) * bench.shape.completion / peer
    note = f"transformers.generate on the same {len(prompts)} prompts of {shapes.PROMPT} tokens, growing cache"
    return [Row("sampling", drawn, generated, "tokens / s", drawn / generated, "", note)]


def ceiling(bench: Bench) -> float:
    """FLOP/s of a square matrix product in the weights' type; the best of three runs of ten."""
    side = bench.shape.matrix
    square = torch.randn((side, side), device=bench.device, dtype=bench.dtype)

    def products() -> None:
        for _ in range(10):
            square @ square

    products()
    return max(10 * 2 * side**3 / seconds(products, bench.device) for _ in range(3))


def gradient(bench: Bench) -> list[Row]:
    """One sub-batch at the default microbatch; then the whole of Engine.gradient, which ends on disk."""
    local, groups = bench.engine.local, groups_of(bench.rollouts)
    batch = FixedBatch((tuple(groups),), float(len(bench.rollouts)))
    weights, goal = local.model.weights(bench.base), PolicyGradient()
    local.gradient_at(weights, FixedBatch((tuple(groups[:1]),), 1.0), 0, goal)  # the first one loads and tunes
    found: dict[str, Any] = {}
    taken = seconds(lambda: found.update(part=local.gradient_at(weights, batch, 0, goal)), bench.device)
    whole = seconds(lambda: bench.engine.gradient(batch, bench.base, goal, out=Path("gradient")), bench.device)
    tokens = found["part"].tokens
    numbers = sum(t.numel() for t in weights.values())
    rate, most = shapes.flops(bench.shape, numbers, [g.rollouts for g in groups]) / taken, ceiling(bench)
    note = f"one sub-batch, {tokens} tokens in microbatches of {local.microbatch_tokens}"
    return [
        Row("gradient", tokens / taken, NONE, "tokens / s", NONE, "", note),
        Row("gradient: utilisation", rate / most, NONE, "share of the ceiling", NONE, "ours >= 0.4", note),
        Row("matrix product", most / 1e12, NONE, "TFLOP / s", NONE, "", f"{bench.shape.matrix} squared, {bench.dtype}"),
        Row(
            "gradient, reduced and written", tokens / whole, NONE, "tokens / s", NONE, "", "Engine.gradient, same batch"
        ),
    ]


@contextmanager
def chunks_of(numbers: int) -> Iterator[None]:
    """Of logits."""
    before, chunking.CHUNK_NUMBERS = chunking.CHUNK_NUMBERS, numbers
    try:
        yield
    finally:
        chunking.CHUNK_NUMBERS = before


def memory(bench: Bench) -> list[Row]:
    """Highest while a gradient is made, over weights and gradient; layers are recomputed on both sides."""
    local = Local(bench.engine.spec._replace(microbatch_tokens=bench.shape.microbatch, gradient_checkpointing=True))
    batch = FixedBatch((tuple(groups_of(bench.rollouts)[:2]),), 1.0)
    weights = local.model.weights(bench.base)
    size = sum(t.numel() * t.element_size() for t in weights.values())
    needed = size + sum(4 * t.numel() for t in weights.values())

    def work() -> object:
        return local.gradient_at(weights, batch, 0, PolicyGradient())

    work()  # the first one loads and tunes
    with chunks_of(bench.shape.chunk):
        ours = (size + watched(work, device=bench.device).peak) / needed
    with chunks_of(2**62):
        peer = (size + watched(work, device=bench.device).peak) / needed
    note = f"peer: all logits at once; microbatches of {bench.shape.microbatch} tokens, {needed / 1e9:.3g} GB needed"
    return [Row("gradient: memory", ours, peer, "peak / (weights + gradient)", peer / ours, "ours <= 1.15", note)]


def one_shot(bench: Bench) -> list[Row]:
    """Seconds by stage of a run of one_shot and its base, from start to rows."""
    shape = bench.shape
    found = plugins.load({})
    found.add(shapes.Plugin(), name=Coins.name, distribution="benchmarks", version="0")
    sets = (
        f"budget={shape.budget}", f"selection_budget={shape.selection}", f"sampling.max_tokens={shape.budget_completion}",
        f"engine.device={bench.device}", "evaluation.problems=32", "evaluation.samples=1", "evaluation.wide_samples=0",
        "evaluation.seen_problems=0", "evaluation.bin_samples=0", "evaluation.candidate_methods=[]",
        "sampling.logprob_gap=10", 'methods=["base", "one_shot"]',
    )  # fmt: skip
    spec = config.load(Coins.name, file=None, changes={"model": str(bench.folder / "model"), "workers": 1}, sets=sets)
    root = pipeline.create(spec, out=bench.folder / "runs", command="benchmarks.perf.gpu")
    total = seconds(lambda: pipeline.execute(root, found, progress=lambda *_: None), bench.device)
    stages: dict[str, float] = {}
    for event in store.read_lines(root / "events.jsonl"):
        if event.get("method") == "one_shot" and "seconds" in event:
            stages[event["stage"]] = stages.get(event["stage"], 0.0) + event["seconds"]
    note = f"{shape.budget} rollouts of at most {shape.budget_completion} tokens, {shape.selection} for the search"
    rows = [Row(f"one_shot: {stage}", taken, NONE, "s", NONE, "", note) for stage, taken in stages.items()]
    return [*rows, Row("one_shot: run", total, NONE, "s", NONE, "", f"{note}; load, base, tests and rows included")]


MEASURES = {work.__name__: work for work in (sampling, gradient, memory, one_shot)}


@click.command()
@click.option(
    "--shape", "name", type=click.Choice(tuple(shapes.SHAPES)), default="qwen2.5-math-1.5b", show_default=True
)
@click.option("--device", default="auto", show_default=True, help="a torch device")
@click.option("--only", multiple=True, type=click.Choice(tuple(MEASURES)), metavar="NAME", help="a measure, repeatable")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, help="the CSV to write")
def main(name: str, device: str, only: tuple[str, ...], out: Path) -> None:
    """Measure the engine at size on one device."""
    shape = shapes.SHAPES[name]
    with tempfile.TemporaryDirectory() as temporary:
        folder, started = Path(temporary), time.monotonic()
        shapes.save(shape, folder / "model", dtype=torch.bfloat16)
        engine = opened(shape, folder, device)
        base = Policy(base=name)
        (rollouts,) = engine.sample([shard(shape)], base)  # the first one loads and tunes
        bench = Bench(shape, folder, engine, base, rollouts)
        machine = {**run.describe(), "cpu": engine.device_name()}
        lines = []
        for measure in only or MEASURES:
            print(f"{measure} ... ({time.monotonic() - started:.0f} s so far)", file=sys.stderr, flush=True)
            load, begun = os.getloadavg()[0], time.monotonic()
            rows = MEASURES[measure](bench)
            lines += [run.line(name, r, seconds=time.monotonic() - begun, load=load, machine=machine) for r in rows]
    run.merge(out, name, lines)
    run.show(lines)
    print(f"\n{run.as_markdown(lines)}")


if __name__ == "__main__":
    main()
