"""Directions and training of the tabular engine against finite differences and exact expectations."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tabular_kit import (
    BASE,
    MODEL,
    Everything,
    ListBatch,
    PolicyGradient,
    batch_of,
    chances,
    checkpoint,
    completions,
    draw,
    flat,
    noise,
    problems,
)

from harness import advantages, stats, store
from harness.contracts import Optimizer, TokenBatch
from harness.errors import NoSignal
from harness.types import Move, Policy, WeightedGroup
from harness_engines import tabular, tabular_policy
from harness_engines.tabular_training import TabularTrainer


@pytest.fixture
def engine(tmp_path: Path) -> tabular.Tabular:
    return tabular.Tabular(MODEL, tmp_path, {"shard_rollouts": 64})


def _finite_differences(value: object, tables: dict[str, torch.Tensor], h: float = 1e-5) -> np.ndarray:
    slopes = []
    for name in tabular_policy.NAMES:
        for i in range(tables[name].numel()):
            ends = []
            for sign in (1, -1):
                moved = {key: t.clone() for key, t in tables.items()}
                moved[name].view(-1)[i] += sign * h
                ends.append(value(moved))  # type: ignore[operator]
            slopes.append((ends[0] - ends[1]) / (2 * h))
    return np.array(slopes)


def test_exact_gradient_is_the_slope_of_the_pass_rate(engine: tabular.Tabular) -> None:
    levels = [1, 3, 3, 2]

    def mean_rate(tables: dict[str, torch.Tensor]) -> float:
        return float(np.mean([tabular_policy.pass_rate(tables, level, temperature=0.7) for level in levels]))

    exact = flat(tabular_policy.exact_gradient(engine.base, levels, temperature=0.7))
    assert exact == pytest.approx(_finite_differences(mean_rate, engine.base), abs=1e-9)


@pytest.mark.parametrize("objective", [PolicyGradient(), Everything()])
def test_direction_is_minus_the_slope_of_the_loss(engine: tabular.Tabular, objective: PolicyGradient) -> None:
    batch = batch_of(engine, problems([1, 2, 1]), 6, run=2, scheme="grpo")
    batch.temperature = 0.7
    start = checkpoint(engine, noise(engine, 3), "start", kind="direction")
    policy = Policy(base="tabular", moves=(start,))

    def loss(tables: dict[str, torch.Tensor]) -> float:
        parts = [engine.sub_batch(tables, batch, s, objective) for s in range(batch.num_sub_batches)]
        return sum(p.loss for p in parts if p is not None) / batch.normaliser

    engine.gradient(batch, policy, objective, out=Path("d.safetensors"))
    found = flat(load_file(engine.root / "d.safetensors"))
    assert -found == pytest.approx(_finite_differences(loss, engine.tables(policy)), abs=1e-8)


def test_objectives_see_what_the_engine_scores(engine: tabular.Tabular) -> None:
    policy = Policy(base="tabular", moves=(checkpoint(engine, noise(engine, 5), "moved", kind="direction"),))
    (rollouts,), (short,) = (draw(engine, problems([2]), 3, tokens=tokens) for tokens in (3, 2))
    mixed, seen = (*rollouts, *short), []

    class Witness(Everything):
        def loss(self, b: TokenBatch) -> torch.Tensor:
            seen.append(b)
            return super().loss(b)

    batch = ListBatch([[WeightedGroup(mixed, np.arange(1.0, 7.0))]], 1, temperature=0.7)
    engine.sub_batch(engine.tables(policy), batch, 0, Witness())
    own, ref = (engine.score(mixed, p, temperature=0.7) for p in (policy, BASE))
    for row, rollout in enumerate(mixed):
        mask_T = seen[0].mask_BT[row].numpy()
        assert mask_T.tolist() == [True, True, row < 3]
        for found_BT, expected_T in (
            (seen[0].logprobs_BT, own[row].logprobs_T),
            (seen[0].entropy_BT, own[row].entropy_T),
            (seen[0].old_logprobs_BT, rollout.logprobs),
            (seen[0].ref_logprobs_BT, ref[row].logprobs_T),
        ):
            assert found_BT[row].detach().numpy()[mask_T] == pytest.approx(expected_T, abs=1e-6)
    assert seen[0].weights_B.tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("group", [2, 3])
@pytest.mark.parametrize("scheme", sorted(advantages.SCHEMES))
def test_expected_direction_is_that_of_every_possible_group(tmp_path: Path, group: int, scheme: str) -> None:
    engine = tabular.Tabular("tabular:.3", tmp_path, {})
    (problem,) = problems([1])
    every, chance = completions(problem), chances(engine, 1)
    groups = []
    for picks in itertools.product(range(len(every)), repeat=group):
        weights_G = advantages.group_advantages([float(i == 0) for i in picks], scheme).weights_G
        if weights_G.any():
            groups.append(WeightedGroup(tuple(every[i] for i in picks), weights_G * np.prod(chance[list(picks)])))
    engine.gradient(ListBatch([groups], normaliser=group), BASE, PolicyGradient(), out=Path("d"))
    expected = tabular_policy.expected_direction(engine.base, [1], group=group, scheme=scheme)
    assert flat(load_file(tmp_path / "d")) == pytest.approx(flat(expected), abs=1e-12)


def test_gain_of_linear_schemes_is_known() -> None:
    for p, group in ((0.3, 8), (0.02, 16)):
        assert tabular_policy.expected_gain(p, group=group, scheme="rloo") == pytest.approx(group)
        assert tabular_policy.expected_gain(p, group=group, scheme="centered") == pytest.approx(group - 1)


def _sampled_directions(engine: tabular.Tabular, *, scheme: str, runs: int, shuffle: bool = False) -> np.ndarray:
    items, found = problems([1, 2, 3] * 3), []
    for run in range(runs):
        batch = batch_of(engine, items, 8, run=run, scheme=scheme, shuffle=shuffle)
        engine.gradient(batch, BASE, PolicyGradient(), out=Path("d"))
        found.append(flat(load_file(engine.root / "d")))
    return np.array(found)


def _common(engine: tabular.Tabular) -> np.ndarray:
    """Coordinates moved often enough for a normal mean: 20 draws or more of their completion over all runs."""
    offsets = np.concatenate([chances(engine, level) for level in (1, 2, 3)]) * 200 * 3 * 8 >= 20
    sizes = {name: t.numel() for name, t in engine.base.items()}
    return np.concatenate([offsets if n == "offset" else np.ones(sizes[n], bool) for n in tabular_policy.NAMES])


def _z(values_R: np.ndarray, truth: np.ndarray | float) -> np.ndarray:
    return (values_R.mean(0) - truth) / (values_R.std(0, ddof=1) / math.sqrt(len(values_R)))


@pytest.mark.parametrize("scheme", ["rloo", "grpo"])
def test_sampled_directions_average_to_the_exact_one(engine: tabular.Tabular, scheme: str) -> None:
    found_RD = _sampled_directions(engine, scheme=scheme, runs=200)
    levels = [1, 2, 3]
    exact = flat(tabular_policy.expected_direction(engine.base, levels, group=8, scheme=scheme))
    if scheme == "rloo":
        assert exact == pytest.approx(flat(tabular_policy.exact_gradient(engine.base, levels)), abs=1e-15)
    z_D = _z(found_RD, exact)[_common(engine)]
    assert np.abs(z_D).max() < 4.5
    assert 0.6 < np.mean(z_D**2) < 1.6
    inner_R = found_RD @ exact
    assert abs(_z(inner_R, exact @ exact)) < 3
    assert abs(_z(inner_R, 0.0)) > 20


def test_shuffled_rewards_have_no_direction(engine: tabular.Tabular) -> None:
    found_RD = _sampled_directions(engine, scheme="grpo", runs=200, shuffle=True)
    exact = flat(tabular_policy.exact_gradient(engine.base, [1, 2, 3]))
    z_D = _z(found_RD, 0.0)[_common(engine)]
    assert np.abs(z_D).max() < 4.5
    assert 0.6 < np.mean(z_D**2) < 1.6
    assert abs(_z(found_RD @ exact, 0.0)) < 3


def test_direction_reports_its_batch(engine: tabular.Tabular) -> None:
    whole = batch_of(engine, problems([1] * 10), 8, run=0, scheme="grpo")
    groups = [g for (g,) in whole.sub_batches]
    batch = ListBatch([groups[:2], [], groups[2:4], groups[4:6], groups[6:8]], whole.normaliser)
    direction = engine.gradient(batch, BASE, PolicyGradient(), out=engine.root / "a" / "d.safetensors")
    assert (direction.path, direction.kind, direction.groups_used) == ("a/d.safetensors", "raw", 8)
    assert direction.sub_batches == 4
    assert direction.digest == store.digest(engine.root / direction.path)
    assert direction.logprob_gap is not None
    assert direction.logprob_gap < 1e-6
    parts = [flat(engine.sub_batch(engine.base, batch, s, PolicyGradient()).gradient) for s in (0, 2, 3, 4)]  # type: ignore[union-attr]
    halves = parts[0] + parts[2], parts[1] + parts[3]
    assert direction.half_cosine == pytest.approx(np.dot(*halves) / np.prod([np.linalg.norm(h) for h in halves]))
    signal = stats.gradient_signal(float(np.sum(sum(parts) ** 2)), [float(p @ p) for p in parts])
    assert (direction.snr, direction.agreement) == pytest.approx((signal.snr, signal.agreement))
    stored = flat(load_file(engine.root / direction.path))
    assert stored == pytest.approx(-sum(parts) / whole.normaliser, abs=1e-15)
    assert direction.norm == pytest.approx(np.linalg.norm(stored))
    assert direction.weight_norm == pytest.approx(np.linalg.norm(flat(engine.base)))
    with safe_open(engine.root / direction.path, framework="pt") as file:
        norms = json.loads(file.metadata()["weight_norms"])
    assert norms == {name: pytest.approx(float(t.norm())) for name, t in engine.base.items()}
    few = engine.gradient(ListBatch([groups[:1]] * 3, 8), BASE, PolicyGradient(), out=Path("few"))
    assert (few.snr, few.agreement, few.half_cosine) == (None, None, None)
    with pytest.raises(NoSignal):
        engine.gradient(ListBatch([[], []], 8), BASE, PolicyGradient(), out=Path("none"))


def test_one_step_along_a_sampled_direction_lifts_every_level(engine: tabular.Tabular) -> None:
    batch = batch_of(engine, problems([1, 2, 3] * 10), 16, run=0, scheme="grpo")
    found = engine.gradient(batch, BASE, PolicyGradient(), out=Path("d"))
    move = Move(kind="direction", path=found.path, digest=found.digest, step=0.5 / found.norm)
    tables = engine.tables(Policy(base="tabular", moves=(move,)))
    for level in (1, 2, 3):
        assert tabular_policy.pass_rate(tables, level) > tabular_policy.pass_rate(engine.base, level)
    assert found.agreement is not None
    assert found.agreement > 0.5


def _train(engine: tabular.Tabular, optimizer: Optimizer, steps: range, load: Path | None = None) -> TabularTrainer:
    trainer = engine.trainer(BASE, optimizer)
    if load is not None:
        trainer.load(load)
    for run in steps:
        trainer.step(batch_of(engine, problems([1, 2, 3]), 8, run=run, scheme="grpo"), PolicyGradient())
    return trainer


@pytest.mark.parametrize("clip", [None, 0.05])
def test_trainer_is_adamw_written_out(engine: tabular.Tabular, clip: float | None) -> None:
    optimizer = Optimizer(lr=0.03, betas=(0.9, 0.95), weight_decay=0.1, clip=clip)
    trainer = engine.trainer(BASE, optimizer)
    theta = flat(engine.base)
    first, second = np.zeros_like(theta), np.zeros_like(theta)
    for t in range(1, 5):
        batch = batch_of(engine, problems([1, 2]), 8, run=t, scheme="grpo")
        report = trainer.step(batch, PolicyGradient())
        here = checkpoint(engine, dict(_unflat(engine, theta)), f"theta{t}", kind="checkpoint")
        engine.gradient(batch, Policy(base="tabular", moves=(here,)), PolicyGradient(), out=Path("g"))
        g = -flat(load_file(engine.root / "g"))
        assert report["grad_norm"] == pytest.approx(np.linalg.norm(g))
        g *= min(1.0, clip / (np.linalg.norm(g) + 1e-6)) if clip is not None else 1.0
        first, second = 0.9 * first + 0.1 * g, 0.95 * second + 0.05 * g * g
        theta = theta * (1 - 0.03 * 0.1)
        theta -= 0.03 * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.95**t)) + 1e-8)
        trainer.checkpoint(engine.root / "live")
        assert flat(load_file(engine.root / "live")) == pytest.approx(theta, abs=1e-10)


def _unflat(engine: tabular.Tabular, theta: np.ndarray) -> Iterator[tuple[str, torch.Tensor]]:
    start = 0
    for name in tabular_policy.NAMES:
        shape = engine.base[name].shape
        yield name, torch.from_numpy(theta[start : start + shape.numel()].copy()).reshape(shape)
        start += shape.numel()


def test_loaded_trainer_continues_as_if_uninterrupted(engine: tabular.Tabular, tmp_path: Path) -> None:
    optimizer = Optimizer(lr=0.05)
    _train(engine, optimizer, range(6)).checkpoint(tmp_path / "straight")
    _train(engine, optimizer, range(3)).save(tmp_path / "state")
    _train(engine, optimizer, range(3, 6), load=tmp_path / "state").checkpoint(tmp_path / "resumed")
    assert (tmp_path / "straight").read_bytes() == (tmp_path / "resumed").read_bytes()
