"""GRPO and its relatives on the tabular engine: draws, minibatches, resampling and what is charged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tabular_run import execute, small_spec

from harness import store, weighing
from harness.budget import Budget
from harness.errors import UsageError
from harness.pipeline import Finished
from harness.report import results, training
from harness.sampling import RolloutBatch
from harness.stages import Stages
from harness.types import Problem
from harness.weighing import JoinedBatch, WeighedBatch
from harness_methods.iterating import milestones

SPEC = ("method.grpo.steps=8", "method.grpo.lr=0.1")


def scheduled(problems: int, group: int, steps: int) -> list[tuple[int, int]]:
    """(problems, samples) of each draw, of a Stages that holds nothing but these."""
    stages = Stages.__new__(Stages)
    stages.train_problems = [Problem(id=str(i), prompt=str(i), answer=None) for i in range(problems)]
    stages._base_group = group
    stages.budget = Budget(train=problems * group, selection=1)
    return [(len(part), samples) for part, samples in stages.schedule(steps)]


def test_the_proposals_thousand_steps_spend_51200_rollouts() -> None:
    draws = scheduled(3200, 16, 1000)
    sizes = [problems * samples for problems, samples in draws]
    assert sorted(set(sizes)) == [48, 64]
    assert (sizes.count(48), sizes.count(64), sum(sizes)) == (800, 200, 51_200)


@given(st.integers(1, 40), st.integers(2, 40), st.integers(1, 60))
def test_a_schedule_spends_the_budget_exactly(problems: int, group: int, steps: int) -> None:
    if steps > max(problems, group // 2):
        with pytest.raises(UsageError, match=f"make 1 to {max(problems, group // 2)}"):
            scheduled(problems, group, steps)
        return
    draws = scheduled(problems, group, steps)
    assert len(draws) == steps
    assert sum(count * samples for count, samples in draws) == problems * group
    sizes = [count * samples for count, samples in draws]
    assert max(sizes) - min(sizes) <= max(group, problems)
    assert all(samples >= 2 for _, samples in draws), "a lone rollout has no group"


@given(st.integers(1, 100), st.integers(1, 20))
def test_milestones_are_even_and_end_at_the_last_step(steps: int, count: int) -> None:
    marks = sorted(milestones(steps, count))
    assert marks[-1] == steps
    assert len(marks) == min(steps, count) or steps < count
    assert set(marks) <= set(range(1, steps + 1))


def weighed_batch(names: str, *, dead: str = "", samples: int = 4) -> WeighedBatch:
    """Weights without rollouts: a problem in `dead` has equal rewards."""
    rewards = {name: [1.0] * samples if name in dead else [1.0, *[0.0] * (samples - 1)] for name in names}
    batch = RolloutBatch(root="", folder="f", problem_ids=tuple(names), shards=(), temperature=1.0, samples=samples)
    return WeighedBatch(
        batch=batch,
        weights={name: tuple(r - np.mean(group) for r in group) for name, group in rewards.items()},
        rewards=rewards,
        sub_batches=(tuple(names[::2]), tuple(names[1::2])),
        normaliser=float(len(names) * samples),
        groups_dead=len(dead),
        pass_rate=0.5,
        mean_tokens=3.0,
        scheme="centered",
        shuffle_seed=None,
    )


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_minibatches_hold_every_group_once_and_share_the_normaliser(count: int) -> None:
    joined = JoinedBatch(parts=(weighed_batch("abcd"), replace(weighed_batch("efg"), normaliser=12.0)))
    for whole in (weighed_batch("abcdefg"), joined):
        parts = weighing.minibatches(whole, count, seed=1)
        names = [name for part in parts for own in part.parts for sub in own.sub_batches for name in sub]
        assert sorted(names) == list("abcdefg")
        assert sum(part.normaliser for part in parts) == pytest.approx(whole.normaliser)
        sizes = [sum(own.num_groups for own in part.parts) for part in parts]
        assert len(parts) == min(count, 7)
        assert max(sizes) - min(sizes) <= 1
    assert weighing.minibatches(whole, 2, seed=1)[0].key != weighing.minibatches(whole, 2, seed=2)[0].key


def test_dead_groups_leave_a_batch_that_is_to_be_filled() -> None:
    live = weighed_batch("abcde", dead="bd").live()
    assert sorted(name for part in live.sub_batches for name in part) == ["a", "c", "e"]
    assert live.normaliser == 12.0
    assert set(live.weights) == {"a", "c", "e"}


def run(tmp_path: Path, *sets: str, **changes: Any) -> tuple[dict[str, Any], Finished, Path]:
    root, rows = execute(small_spec(*SPEC, *sets, methods=["grpo"], **changes), tmp_path)
    row = next(r for r in rows if r["method"] == "grpo" and r["seed"] == 0)
    return row, store.read_json(root / "methods/grpo/0/scores.json"), root


def test_it_learns_and_its_updates_are_on_record(tmp_path: Path) -> None:
    row, finished, root = run(tmp_path)
    assert row["ci_low"] > 0
    assert (row["train_rollouts"], row["updates"], len(finished.trained)) == (256, 8, 8)
    assert np.mean([step.pass_rate for step in finished.trained[-4:]]) > finished.trained[0].pass_rate
    (root / "leaderboard.csv").unlink()  # results are read from what is finished
    curve = training.rows(results.load(root))
    assert [point["update"] for point in curve] == list(range(1, 9))
    assert [point["pass_rate"] for point in curve] == [step.pass_rate for step in finished.trained]


def test_reuse_of_a_draw_makes_more_updates_of_the_same_rollouts(tmp_path: Path) -> None:
    row, finished, _ = run(tmp_path, "method.grpo.updates_per_batch=2", "method.grpo.epochs=2")
    assert row["train_rollouts"] == 256
    assert len(finished.trained) > 8
    assert row["updates"] == len(finished.trained)


def test_resampling_pays_for_what_it_leaves_out(tmp_path: Path) -> None:
    """At a base pass rate of .05 many groups are dead, so batches need several draws and updates are fewer."""
    row, finished, _ = run(tmp_path, "method.grpo.resample=true", model="tabular:.05")
    assert row["train_rollouts"] == 256
    assert 0 < row["updates"] < 8
    assert sum(step.groups_dead for step in finished.trained) > 0


def test_a_variant_is_a_row_of_its_own_on_the_same_draws(tmp_path: Path) -> None:
    spec = small_spec(
        *SPEC, "method.slow.uses=grpo", "method.slow.lr=0.001", "method.slow.steps=8", methods=["grpo", "slow"]
    )
    root, rows = execute(spec, tmp_path)
    found = {row["method"]: row for row in rows if row["seed"] == 0}
    assert set(found) == {"base", "grpo", "slow"}
    assert found["grpo"]["delta"] > found["slow"]["delta"]
    drawn = [path.name for path in (root / "rollouts/0").iterdir() if path.name.startswith("train-0-")]
    assert len(drawn) == 1, "the first draw is of the base for both"
