"""evolution: sums of noise as directions, the estimate against the true gradient, the budget to the rollout."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tabular_kit import flat
from tabular_run import PLAIN, execute, small_spec

from harness import directions, plugins, store
from harness.contracts import Optimizer
from harness.errors import NoSignal, UsageError
from harness.leaderboard import Row
from harness.types import Direction, Move, Policy, Rollout, Search, Shard
from harness_engines.hf import HfEngine
from harness_engines.tabular import Tabular
from harness_engines.tabular_policy import exact_gradient, pass_rate
from harness_methods import evolution

LEVELS = (1, 2, 3)
MODEL = "tabular:.5,.2,.05"
NOISE = [Move(kind="noise", path="", digest=f"{i:016x}", step=step) for i, step in enumerate([0.03, -0.01, 0.02])]


def superposed(engine: Tabular | HfEngine, policy: Policy, moves: Sequence[Move]) -> tuple[Direction, Policy]:
    """The direction of `moves`, and the policy at step 1 of it."""
    engine.trainer(policy, Optimizer(lr=0.0)).checkpoint(engine.root / "start.safetensors")
    found = directions.superpose(engine.root / "start.safetensors", moves, root=engine.root, out="noise.safetensors")
    return found, replace(policy, moves=(Move(kind="direction", path=found.path, digest=found.digest),))


def test_a_sum_of_noise_is_what_each_move_alone_adds(tmp_path: Path) -> None:
    engine, base = Tabular(MODEL, tmp_path, {}), Policy(base=MODEL)
    found, policy = superposed(engine, base, NOISE)
    alone = [engine.tables(replace(base, moves=(move,))) for move in NOISE]
    for name, tensor in engine.tables(policy).items():
        total = sum(tables[name] - engine.base[name] for tables in alone)
        torch.testing.assert_close(tensor - engine.base[name], total, rtol=1e-6, atol=1e-9)
    assert (found.kind, found.groups_used) == ("noise", 0)
    assert found.weight_norm == pytest.approx(float(np.linalg.norm(flat(engine.base))))


def test_one_move_is_the_perturbation_itself_on_a_transformer(random_model: Path, tmp_path: Path) -> None:
    options = {"dtype": "float32", "device": "cpu", "workers": 1, "shard_rollouts": 2, "microbatch_tokens": 512,
               "trust_remote_code": False}  # fmt: skip
    engine, base = HfEngine(str(random_model), tmp_path, options), Policy(base=str(random_model))
    _, policy = superposed(engine, base, NOISE[:1])
    ours = engine.local.model.weights(policy)
    theirs = engine.local.model.weights(replace(base, moves=(NOISE[0],)))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-5, atol=1e-7)


def fake(budget: int, problems: int, **options: Any) -> Any:
    """All that the choice of perturbations looks at."""
    return SimpleNamespace(
        budget=SimpleNamespace(train=budget), train_problems=list(range(problems)), method="evolution", seed=0,
        options={**evolution.Evolution.options, **options},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("budget", "problems", "most", "antithetic", "expected"),
    [
        (4096, 256, 256, True, 256),
        (4000, 250, 256, True, 250),
        (272, 17, 256, True, 136),  # 272 = 16 x 17: 2 problems each
        (272, 17, 100, False, 68),
        (272, 17, 20, False, 17),  # odd: not for pairs
        (272, 17, 20, True, 16),
        (64, 1, 256, True, 64),  # one problem: every perturbation meets it once
    ],
)
def test_the_population_shares_out_the_budget(
    budget: int, problems: int, most: int, antithetic: bool, expected: int
) -> None:
    stages = fake(budget, problems, population=most, antithetic=antithetic)
    moves = evolution.perturbations(stages)
    assert len(moves) == expected
    assert budget % expected == 0
    assert budget // expected <= problems
    seeds_ = Counter(move.digest for move in moves)
    assert set(seeds_.values()) == {2 if antithetic else 1}
    assert sum(move.step for move in moves) == pytest.approx(0 if antithetic else 0.02 * expected)


def test_a_population_too_small_for_the_budget_is_refused() -> None:
    with pytest.raises(UsageError, match="no population from 16 to 8 shares out 4096 rollouts"):
        evolution.perturbations(fake(4096, 256, population=8))


@pytest.mark.parametrize(("antithetic", "least"), [(True, 0.9), (False, 0.85)])
def test_the_estimate_points_along_the_gradient(antithetic: bool, least: float, tmp_path: Path) -> None:
    """With exact pass rates as fitness: E[f(theta + sigma s eps) eps] = sigma s grad f for noise of scale s, so that the
    direction is s^2 grad f to first order, s the RMS of each tensor; M draws in d dimensions leave cos^2 = M / (M + d)."""
    engine, base = Tabular(MODEL, tmp_path, {}), Policy(base=MODEL)
    moves = evolution.perturbations(fake(4000, 4000, population=4000, antithetic=antithetic, sigma=0.02))
    fitness = []
    for move in moves:
        tables = engine.tables(replace(base, moves=(move,)))
        fitness.append(float(np.mean([pass_rate(tables, level) for level in LEVELS])))
    _, policy = superposed(engine, base, evolution.weighted(moves, fitness))
    estimate = flat(engine.tables(policy)) - flat(engine.base)
    gradient = exact_gradient(engine.base, LEVELS)
    scaled = flat({name: g * engine.base[name].square().mean() for name, g in gradient.items()})
    cosine = estimate @ scaled / np.linalg.norm(estimate) / np.linalg.norm(scaled)
    assert cosine > least
    draws = len({move.digest for move in moves})
    assert cosine == pytest.approx(math.sqrt(draws / (draws + len(scaled))), abs=0.06)


def test_fitness_is_z_scored_and_pairs_are_merged() -> None:
    moves = [replace(NOISE[0], step=0.02), replace(NOISE[0], step=-0.02), replace(NOISE[1], step=0.02),
             replace(NOISE[1], step=-0.02)]  # fmt: skip
    found = evolution.weighted(moves, [0.5, 0.1, 0.2, 0.2])
    spread = np.std([0.5, 0.1, 0.2, 0.2])
    assert [(m.digest, m.step) for m in found] == [(NOISE[0].digest, pytest.approx((0.5 - 0.1) / spread / 4))]
    again = evolution.weighted(moves, [0.35, 0.15, 0.2, 0.2])
    assert evolution.weighted(moves, [0.7, 0.3, 0.4, 0.4]) == [replace(m, step=pytest.approx(m.step)) for m in again]
    unjudged = evolution.weighted(moves, [0.5, 0.1, math.nan, 0.2])
    assert unjudged[1].step == pytest.approx(-(0.2 - 0.8 / 3) / np.std([0.5, 0.1, 0.2]) / 4)


@pytest.mark.parametrize("fitness", [[0.25] * 4, [0.5, 0.5, 0.1, 0.1], [math.nan] * 4])
def test_perturbations_that_score_alike_give_no_direction(fitness: list[float]) -> None:
    """Also pairs that score alike: forward and back cancel."""
    moves = [replace(move, step=sign * 0.02) for move in NOISE[:2] for sign in (1, -1)]
    with pytest.raises(NoSignal, match="4 perturbations scored alike"):
        evolution.weighted(moves, fitness)


class Counting(Tabular):
    """Keeps which policy every completion was drawn from, as an outsider sees it."""

    seen: list[tuple[str, str]] = []  # noqa: RUF012 - shared by the engines of one test

    def sample(self, shards: Sequence[Shard], policy: Policy) -> Iterator[list[Rollout]]:
        for shard in shards:
            Counting.seen += [(request.problem_id, policy.id) for request in shard for _ in request.seeds]
        return super().sample(shards, policy)


def test_the_budget_is_spent_exactly_and_the_step_searched(tmp_path: Path) -> None:
    Counting.seen = []
    found = plugins.load({})
    entry = found.registered["engine", "tabular"]
    found.registered["engine", "tabular"] = replace(entry, target=f"{__name__}:Counting")
    sets = ("method.evolution.population=64", "method.evolution.sigma=0.2", *PLAIN)
    root, rows = execute(small_spec(*sets, methods=("evolution",), budget=512), tmp_path, found=found)
    row: Row = next(row for row in rows if row["method"] == "evolution" and row["seed"] == 0)
    splits = {line["problem"].id: line["split"] for line in store.read_lines(root / "problems.jsonl")}
    train = [(name, policy) for name, policy in Counting.seen if splits[name] == "train/0"]
    assert len(train) == row["train_rollouts"] == 512
    assert set(Counter(policy for _, policy in train).values()) == {8}
    assert len({name for name, _ in train}) == 8, "all meet the same problems"
    selection = sum(splits[name] == "selection" for name, _ in Counting.seen)
    assert selection <= row["selection_rollouts"] <= 512
    assert (row["updates"], row["train_tokens"], row["direction"]) == (0, 0, "noise")
    search: Search = store.read_json(root / "methods/evolution/0/search.json")
    assert len(search.candidates) > 3
    assert not (root / "methods/evolution/0/probe.json").exists(), "no base among them: no density to be read"
    ((path,),) = [[p for p in (root / "methods/evolution/0").glob("superpose-*")]]
    moved = load_file(path)
    assert all(np.isfinite(t).all() for t in moved.values())
