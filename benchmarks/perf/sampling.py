"""Sampling: rollouts per core-second of the engine against `transformers.generate`.

Does: give both the same model, problems, temperature and length limit; find generate's best batch and cache first.
Doesn't: judge. Ours includes what a run needs of a rollout (its text, log-probabilities, seeds); generate's is tokens.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.perf import subjects
from benchmarks.perf.rows import Row, interleaved, timed

PROBLEMS = {"math": 1024, "code": 256, "arc": 256}  # generate takes minutes for more
SAMPLES = 16
BATCHES = (64, 128, 256, 512)
PILOT = 1024  # rollouts on which the batch size is chosen


class Setting(NamedTuple):
    """How generate is called. `cache` None is its growing default."""

    batch: int
    cache: str | None = None


class Peer:
    """`transformers.generate`: prompts in order of length, padded on the left."""

    def __init__(self, prompts: list[list[int]], *, max_tokens: int, pad: int, eos: tuple[int, ...]) -> None:
        self.module = subjects.plain_model()
        self.prompts = sorted(prompts, key=len)
        self.max_tokens, self.pad, self.eos = max_tokens, pad, eos

    def batches(self, prompts: list[list[int]], size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for start in range(0, len(prompts), size):
            rows = prompts[start : start + size]
            width = max(map(len, rows))
            ids = torch.tensor([[self.pad] * (width - len(row)) + row for row in rows])
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
            yield ids, mask

    @torch.inference_mode()
    def generate(self, setting: Setting, *, every: int = 1) -> None:
        more: dict[str, Any] = {}
        if setting.cache:
            more = {"cache_implementation": setting.cache, "disable_compile": True}
        for ids, mask in self.batches(self.prompts[::every], setting.batch):
            self.module.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=self.max_tokens,
                pad_token_id=self.pad,
                eos_token_id=list(self.eos),
                **more,
            )

    def best(self) -> Setting:
        """By CPU seconds on every n-th prompt."""
        every = max(1, len(self.prompts) // PILOT)
        tried = {s: timed(partial(self.generate, s, every=every)).cpu for s in map(Setting, BATCHES)}
        fixed = Setting(min(tried, key=tried.__getitem__).batch, "static")
        tried[fixed] = timed(partial(self.generate, fixed, every=every)).cpu
        return min(tried, key=tried.__getitem__)


def measure() -> list[Row]:
    return [_row(domain) for domain in subjects.DOMAINS]


def _row(domain: str) -> Row:
    count = PROBLEMS[domain]
    task = subjects.ladder(domain, problems=count)
    plan = subjects.shards(task, samples=SAMPLES)
    with tempfile.TemporaryDirectory() as folder:
        engine = subjects.engine(Path(folder))
        model = engine.local.model
        prompts = [model.tokenize(p.prompt) for p in task.problems for _ in range(SAMPLES)]
        peer = Peer(prompts, max_tokens=task.max_tokens, pad=model.pad_id, eos=model.eos_ids)
        for _ in engine.sample(plan[:1], subjects.BASE):
            pass  # the first call pays for what is loaded lazily
        setting = peer.best()
        sides = interleaved(lambda: list(engine.sample(plan, subjects.BASE)), lambda: peer.generate(setting), turns=1)
        engine.close()
    rollouts = count * SAMPLES
    cache = setting.cache or "growing"
    return Row(
        name=f"sampling, {domain}",
        ours=rollouts / sides.ours.cpu,
        peer=rollouts / sides.peer.cpu,
        unit="rollouts / core-s",
        ratio=sides.peer.cpu / sides.ours.cpu,
        goal="ratio >= 3",
        note=f"transformers.generate, batch {setting.batch}, {cache} cache; {count} problems x {SAMPLES}",
    )
