"""The gradient of 4,096 rollouts against a bare forward and backward over the same live rollouts.

Does: compare times and the two gradients; compare a batch of which half the groups are dead with half the batch.
Doesn't: sample or judge inside the clock. The peer has no padding (rows of equal length share a batch) and forms logits
of completion tokens only, so that what is left is the arithmetic.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from benchmarks.perf import subjects
from benchmarks.perf.rows import Row, interleaved
from harness import sampling, weighing
from harness.config import RewardSpec
from harness.contracts import silent
from harness.objectives import PolicyGradient
from harness.types import Outcome, Problem, Rollout, Verdict
from harness.verifying import VerifierPool
from harness.weighing import WeighedBatch

PROBLEMS, SAMPLES = 256, 16
MAX_TOKENS = 8192  # of one forward of the peer, as the engine's microbatch
Weighted = tuple[Rollout, float]


class Peer:
    """The same loss in plain torch."""

    def __init__(self, weighed: WeighedBatch) -> None:
        self.module = subjects.plain_model()
        self.normaliser = weighed.normaliser
        by_length: dict[int, list[Weighted]] = {}
        for index in range(weighed.num_sub_batches):
            for group in weighed.read(index):
                for rollout, weight in zip(group.rollouts, group.weights_G.tolist(), strict=True):
                    length = len(rollout.prompt_tokens) + len(rollout.completion_tokens)
                    by_length.setdefault(length, []).append((rollout, weight))
        # Equal lengths first by completion, so that few logits are formed for nothing.
        ordered = {n: sorted(rows, key=lambda r: len(r[0].completion_tokens)) for n, rows in by_length.items()}
        self.batches = [
            rows[start : start + max(1, MAX_TOKENS // n)]
            for n, rows in ordered.items()
            for start in range(0, len(rows), max(1, MAX_TOKENS // n))
        ]

    def gradient(self) -> dict[str, Any]:
        self.module.zero_grad()
        for batch in self.batches:
            self._loss(batch).backward()  # type: ignore[no-untyped-call]
        return {name: -p.grad.numpy() / self.normaliser for name, p in self.module.named_parameters()}

    def _loss(self, batch: Sequence[Weighted]) -> torch.Tensor:
        ids_BT = torch.tensor(
            np.array([np.concatenate([r.prompt_tokens, r.completion_tokens]) for r, _ in batch])
        ).long()
        counts = torch.tensor([len(rollout.completion_tokens) for rollout, _ in batch])
        keep = int(counts.max())
        logits_BKV = self.module(input_ids=ids_BT, logits_to_keep=keep + 1, use_cache=False).logits[:, :-1].float()
        chosen_BK = logits_BKV.log_softmax(-1).gather(-1, ids_BT[:, -keep:].unsqueeze(-1)).squeeze(-1)
        mask_BK = torch.arange(keep, 0, -1) <= counts.unsqueeze(1)
        weights_B = torch.tensor([weight for _, weight in batch])
        loss: torch.Tensor = -(weights_B * (chosen_BK * mask_BK).sum(1)).sum()
        return loss


class HalfDead:
    """Verdicts by turns of the sample, and all wrong for some problems: their groups carry no gradient."""

    def __init__(self, dead: frozenset[str]) -> None:
        self.dead = dead

    def verify(self, items: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        return [
            Verdict(
                outcome=Outcome.CORRECT if place % 2 and problem.id not in self.dead else Outcome.WRONG, format_ok=True
            )
            for place, (problem, _) in enumerate(items)
        ]


def measure() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for domain in subjects.DOMAINS for row in _against_bare(domain, Path(folder) / domain)]
        return [*rows, _dead_groups(Path(folder))]


def _weighed(task: subjects.Task, engine: Any, pool: Any) -> WeighedBatch:
    draw = subjects.draw(task, samples=SAMPLES)
    ((batch, _),) = sampling.collect([draw], task.problems, run_seed=0, engine=engine, pool=pool, progress=silent)
    return weighing.weigh(batch, task.problems, rewards=RewardSpec())


def _against_bare(domain: str, root: Path) -> list[Row]:
    task = subjects.ladder(domain, problems=PROBLEMS)
    engine = subjects.engine(root)
    with VerifierPool(task.target, workers=1) as pool:
        weighed = _weighed(task, engine, pool)
    peer, goal = Peer(weighed), PolicyGradient()
    kept: dict[str, Any] = {}

    def ours() -> None:
        kept["ours"] = engine.gradient(weighed, subjects.BASE, goal, out=Path("gradient.safetensors"))

    def bare() -> None:
        kept["peer"] = peer.gradient()

    sides = interleaved(ours, bare, turns=1)
    engine.close()
    mine = load_file(root / kept["ours"].path)
    apart = sum(float(np.square(mine[n].astype(float) - g).sum()) for n, g in kept["peer"].items())
    whole = sum(float(np.square(g.astype(float)).sum()) for g in kept["peer"].values())
    live = sum(map(len, peer.batches))
    drawn = PROBLEMS * SAMPLES
    note = f"bare forward + backward over the {live} rollouts of {drawn} that carry weight, no padding"
    return [
        Row(
            name=f"gradient, {domain}",
            ours=live / sides.ours.cpu,
            peer=live / sides.peer.cpu,
            unit="live rollouts / core-s",
            ratio=sides.peer.cpu / sides.ours.cpu,
            goal="ratio >= 0.9",
            note=note,
        ),
        Row(
            name=f"gradient, {domain}: difference",
            ours=(apart / whole) ** 0.5,
            peer=0.0,
            unit="norm of the difference over that of the peer",
            ratio=float("nan"),
            goal="ours <= 1e-5",
            note="the two gradients of the row above",
        ),
    ]


def _dead_groups(root: Path) -> Row:
    """Half of the groups dead against the live half alone."""
    task = subjects.ladder("math", problems=PROBLEMS)
    dead = frozenset(problem.id for problem in task.problems[::2])
    live = task._replace(problems=[problem for problem in task.problems if problem.id not in dead])
    whole_engine, half_engine = subjects.engine(root / "whole"), subjects.engine(root / "half")
    whole = _weighed(task, whole_engine, HalfDead(dead))
    half = _weighed(live, half_engine, HalfDead(dead))
    goal, out = PolicyGradient(), Path("gradient.safetensors")
    sides = interleaved(
        lambda: whole_engine.gradient(whole, subjects.BASE, goal, out=out),
        lambda: half_engine.gradient(half, subjects.BASE, goal, out=out),
        turns=3,
    )
    return Row(
        name="gradient, dead groups cost nothing",
        ours=sides.ours.cpu,
        peer=sides.peer.cpu,
        unit="CPU s",
        ratio=sides.peer.cpu / sides.ours.cpu,
        goal="ratio >= 0.95",
        note=f"{PROBLEMS} math problems x {SAMPLES}, half of them dead, against the live half alone",
    )
