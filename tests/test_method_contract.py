"""The Method interface carries methods that iterate and methods that hand in several policies.

A small GRPO and a two-policy vote are written against it here and run through the whole pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import config, leaderboard, pipeline, plugins, store
from harness.contracts import Optimizer, TokenBatch
from harness.errors import BudgetExceeded
from harness.hookspecs import Register, hookimpl
from harness.pipeline import Finished
from harness.stages import Stages
from harness.types import Contender

SMALL = {
    "budget": 512,
    "selection_budget": 256,
    "evaluation": {"problems": 60, "wide_samples": 0},
    "search": {"kl_targets": [0.1, 0.4]},
}


@dataclass(frozen=True)
class Clipped:
    """PPO's clipped surrogate with the sampler's log-probabilities as the old policy's."""

    clip: float = 0.2
    needs: frozenset[str] = frozenset()
    unit: str = "rollout"

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        ratio_BT = (batch.logprobs_BT - batch.old_logprobs_BT).exp()
        weights_B1 = batch.weights_B[:, None]
        clipped_BT = ratio_BT.clamp(1 - self.clip, 1 + self.clip)
        return -(torch.minimum(ratio_BT * weights_B1, clipped_BT * weights_B1) * batch.mask_BT).sum()


class Grpo:
    """Small fresh batches, AdamW, checkpoint chosen on selection."""

    name, version = "small_grpo", 1
    options: Mapping[str, Any] = {"steps": 8, "lr": 0.05}

    def run(self, stages: Stages) -> Contender:
        steps = int(stages.options["steps"])
        size = len(stages.train_problems) // steps
        trainer = stages.trainer(stages.base, Optimizer(lr=float(stages.options["lr"])))
        checkpoints = [stages.base]
        for step in range(steps):
            problems = stages.train_problems[step * size : (step + 1) * size]
            batch = stages.sample(problems, trainer.policy, samples=stages.group, iteration=step)
            trainer.step(stages.weigh(batch), Clipped())
            if (step + 1) % (steps // 2) == 0:
                checkpoints.append(trainer.keep())
        contenders = [Contender(policies=(policy,)) for policy in checkpoints]
        return contenders[stages.select(contenders).chosen]


class TwoPolicyVote:
    """Base and one_shot vote with four completions each."""

    name, version = "vote", 1
    options: Mapping[str, Any] = {}

    def run(self, stages: Stages) -> Contender:
        direction = stages.transform(stages.direct(stages.weigh(stages.base_batch()), stages.base), "per_tensor")
        winner = stages.search(direction).winner.policy
        return Contender(policies=(stages.base, winner), n=4, combine="vote")


class Greedy:
    """Asks for more than its budget."""

    name, version = "greedy_for_rollouts", 1
    options: Mapping[str, Any] = {}

    def run(self, stages: Stages) -> Contender:
        stages.base_batch()
        stages.sample(stages.train_problems, stages.base, samples=stages.group, iteration=1)
        return Contender(policies=(stages.base,))


class Plugin:
    @hookimpl
    def harness_register_methods(self, register: Register) -> None:
        for kind in (Grpo, TwoPolicyVote, Greedy):
            register(kind.name, f"{__name__}:{kind.__name__}", summary="test")


def with_test_methods() -> plugins.Plugins:
    found = plugins.load()
    found.add(Plugin(), name="test", distribution="test", version="1")
    return found


def prepared(tmp_path: Path, *methods: str, domain: str = "tabular", **changes: Any) -> Path:
    values = {**SMALL, "methods": list(methods), "workers": 1, **changes}
    if domain == "tabular":
        values.update(model="tabular", engine={"name": "tabular"})
    spec = config.load(domain, file=None, changes=values, sets=())
    return pipeline.create(spec, out=tmp_path, command="test")


def run(tmp_path: Path, *methods: str, domain: str = "tabular", **changes: Any) -> Path:
    root = prepared(tmp_path, *methods, domain=domain, **changes)
    pipeline.execute(root, with_test_methods(), progress=lambda *_: None)
    return root


def row(root: Path, method: str) -> dict[str, str]:
    return next(r for r in leaderboard.read_csv(root / "leaderboard.csv") if r["method"] == method)


def test_grpo_learns_and_pays_for_every_rollout(tmp_path: Path) -> None:
    root = run(tmp_path, "small_grpo")
    found = row(root, "small_grpo")
    assert float(found["ci_low"]) > 0
    assert int(found["train_rollouts"]) == 512
    assert 0 < int(found["selection_rollouts"]) <= 256
    assert int(found["updates"]) == 8


def test_grpo_runs_on_the_embedded_model(tmp_path: Path) -> None:
    root = run(tmp_path, "small_grpo", domain="code", budget=256, method={"small_grpo": {"steps": 2, "lr": 1e-4}})
    found = row(root, "small_grpo")
    assert found["status"].startswith("ok")
    assert int(found["updates"]) == 2
    finished: Finished = store.read_json(root / "methods/small_grpo/0/scores.json")
    assert finished.search is not None
    assert len({candidate.policy.id for candidate in finished.search.candidates}) == 3


@pytest.mark.parametrize("moment", [1, 6, 11])
def test_an_interrupted_iterating_method_resumes_to_the_same_row(tmp_path: Path, moment: int) -> None:
    straight = run(tmp_path / "straight", "small_grpo")
    seen = 0

    def interrupt(label: str, done: int, total: int) -> None:
        nonlocal seen
        seen += label.startswith("small_grpo: sample")
        if seen == moment:
            raise KeyboardInterrupt

    root = prepared(tmp_path / "resumed", "small_grpo")
    with pytest.raises(KeyboardInterrupt):
        pipeline.execute(root, with_test_methods(), progress=interrupt)
    pipeline.execute(root, with_test_methods(), progress=lambda *_: None)
    for column in set(leaderboard.COLUMNS) - set(leaderboard.UNCOMPARED):
        assert row(root, "small_grpo")[column] == row(straight, "small_grpo")[column], column


def test_several_policies_vote(tmp_path: Path) -> None:
    root = run(tmp_path, "vote")
    finished: Finished = store.read_json(root / "methods/vote/0/scores.json")
    assert finished.evaluation is not None
    assert set(finished.evaluation.sampled.n) == {1}
    assert row(root, "vote")["eval_rollouts"] == str(2 * 60 * 4 + 2 * 60)


def test_a_method_cannot_pass_its_budget(tmp_path: Path) -> None:
    with pytest.raises(BudgetExceeded, match="512 train rollouts asked for, 0 of 512 left"):
        run(tmp_path, "greedy_for_rollouts")
