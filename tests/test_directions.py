"""Kinds of direction against closed forms, sub-batches, and the weights a gradient is taken with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from tabular_kit import BASE, ListBatch, problems

from harness import advantages, directing, directions, sampling, seeds, store, weighing
from harness.config import RewardSpec, SamplingSpec
from harness.contracts import TokenBatch
from harness.errors import HarnessError, NoSignal, UnknownName
from harness.sampling import Draw, RolloutBatch
from harness.types import Direction, Move, Outcome, Policy, Problem, SampleRequest, Verdict, WeightedGroup
from harness_engines.local import Local, ModelSpec, SubGradient
from harness_engines.tabular import Tabular

RNG = seeds.generator(11)
GRADIENT = {
    "matrix": RNG.standard_normal((4, 6)).astype(np.float32),
    "tall": RNG.standard_normal((7, 3)).astype(np.float32),
    "bias": RNG.standard_normal(5).astype(np.float32),
    "cube": RNG.standard_normal((2, 3, 4)).astype(np.float32),
    "zero": np.zeros((3, 2), dtype=np.float32),
}
WEIGHT_NORMS = {"matrix": 2.0, "tall": 0.5, "bias": 3.0, "cube": 1.25, "zero": 7.0}


def direction(root: Path, tensors: dict[str, np.ndarray] = GRADIENT) -> Direction:
    save_file(tensors, root / "raw.safetensors", {"weight_norms": json.dumps(WEIGHT_NORMS)})
    norm = float(np.sqrt(sum((t.astype(float) ** 2).sum() for t in tensors.values())))
    digest = store.digest(root / "raw.safetensors")
    return Direction(
        id=digest[:16],
        kind="raw",
        norm=norm,
        weight_norm=8.0,
        path="raw.safetensors",
        digest=digest,
        groups_used=5,
        snr=1.5,
    )


def made(root: Path, kind: str) -> tuple[Direction, dict[str, np.ndarray]]:
    found = directions.transform(direction(root), kind, root=root, out=f"out/{kind}.safetensors")
    return found, load_file(root / found.path)


@pytest.mark.parametrize("kind", [*directions.of_gradient(), "positives_only"])
def test_every_kind_is_a_whole_direction(kind: str, tmp_path: Path) -> None:
    found, tensors = made(tmp_path, kind)
    assert found.kind == kind
    assert found.path == f"out/{kind}.safetensors"
    assert found.digest == store.digest(tmp_path / found.path)
    assert found.norm == pytest.approx(np.sqrt(sum((t.astype(float) ** 2).sum() for t in tensors.values())), rel=1e-6)
    assert (found.weight_norm, found.groups_used, found.snr) == (8.0, 5, 1.5)
    assert {n: t.shape for n, t in tensors.items()} == {n: t.shape for n, t in GRADIENT.items()}
    assert not tensors["zero"].any(), "what has no gradient does not move"
    assert all(np.isfinite(t).all() for t in tensors.values())
    assert all(float((t * GRADIENT[n]).sum()) > 0 for n, t in tensors.items() if n != "zero"), "still an ascent"


@pytest.mark.parametrize("kind", ["per_tensor", "positives_only"])
def test_per_tensor_keeps_the_angle_and_takes_the_weight_norm(kind: str, tmp_path: Path) -> None:
    _, tensors = made(tmp_path, kind)
    for name in ("matrix", "tall", "bias", "cube"):
        assert np.linalg.norm(tensors[name]) == pytest.approx(WEIGHT_NORMS[name], rel=1e-5)
        cosine = (tensors[name] * GRADIENT[name]).sum() / np.linalg.norm(tensors[name]) / np.linalg.norm(GRADIENT[name])
        assert cosine == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize(
    ("gap", "dtype", "stops"),
    [(0.09, "float32", False), (0.11, "float32", True), (0.17, "bfloat16", False), (1.1, "bfloat16", True),
     (float("nan"), "bfloat16", True), (None, "float32", False)],
)  # fmt: skip
def test_a_trainer_of_another_policy_than_the_sampler_is_refused(
    gap: float | None, dtype: str, stops: bool, tmp_path: Path
) -> None:
    run: Any = SimpleNamespace(
        spec=SimpleNamespace(sampling=SamplingSpec()), engine=SimpleNamespace(identity=lambda: {"dtype": dtype})
    )
    found = replace(direction(tmp_path), logprob_gap=gap)
    with pytest.raises(HarnessError, match="disagree by") if stops else nullcontext():
        directing.check_gap(run, found)


def test_raw_is_the_gradient(tmp_path: Path) -> None:
    _, tensors = made(tmp_path, "raw")
    assert all((tensors[name] == g).all() for name, g in GRADIENT.items())


def test_sign_is_the_first_step_of_adam(tmp_path: Path) -> None:
    found, tensors = made(tmp_path, "sign")
    assert all((tensors[name] == np.sign(g)).all() for name, g in GRADIENT.items())
    assert found.norm == pytest.approx(np.sqrt(sum(np.count_nonzero(g) for g in GRADIENT.values())))


def test_orthogonal_is_u_v_transposed_of_full_rank_matrices(tmp_path: Path) -> None:
    _, tensors = made(tmp_path, "orthogonal")
    for name in ("matrix", "tall"):
        left, _, right = np.linalg.svd(GRADIENT[name].astype(float), full_matrices=False)
        rank = min(GRADIENT[name].shape)
        np.testing.assert_allclose(tensors[name], left @ right * WEIGHT_NORMS[name] / np.sqrt(rank), atol=1e-5)
        values = np.linalg.svd(tensors[name], compute_uv=False)
        np.testing.assert_allclose(values, WEIGHT_NORMS[name] / np.sqrt(rank), rtol=1e-4)
    for name in ("bias", "cube"):
        expected = GRADIENT[name] * WEIGHT_NORMS[name] / np.linalg.norm(GRADIENT[name])
        np.testing.assert_allclose(tensors[name], expected, rtol=1e-5)


def test_orthogonal_leaves_null_directions_alone(tmp_path: Path) -> None:
    left, right = RNG.standard_normal((5, 1)), RNG.standard_normal((1, 5))
    low = {**GRADIENT, "matrix": (left @ right).astype(np.float32)}
    found = directions.transform(direction(tmp_path, low), "orthogonal", root=tmp_path, out="o.safetensors")
    values = np.linalg.svd(load_file(tmp_path / found.path)["matrix"], compute_uv=False)
    assert values[0] == pytest.approx(WEIGHT_NORMS["matrix"], rel=1e-4)
    assert values[1:].max() < 1e-4


def test_transform_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match='did you mean "orthogonal"'):
        made(tmp_path, "ortogonal")
    save_file(GRADIENT, tmp_path / "plain.safetensors")
    with pytest.raises(HarnessError, match="not a direction"):
        directions.transform(replace(direction(tmp_path), path="plain.safetensors"), "raw", root=tmp_path, out="o")


def test_random_like_has_the_norms_and_not_the_angle(tmp_path: Path) -> None:
    source = direction(tmp_path)
    found = directions.random_like(source, seed=0, root=tmp_path, out="a.safetensors")
    again = directions.random_like(source, seed=0, root=tmp_path, out="b.safetensors")
    other = directions.random_like(source, seed=1, root=tmp_path, out="c.safetensors")
    assert found.digest == again.digest != other.digest
    assert found.kind == "random"
    assert found.norm == pytest.approx(source.norm, rel=1e-5)
    tensors = load_file(tmp_path / "a.safetensors")
    for name, gradient in GRADIENT.items():
        assert np.linalg.norm(tensors[name]) == pytest.approx(np.linalg.norm(gradient), rel=1e-5)
        assert tensors[name].dtype == gradient.dtype
    wide = direction(tmp_path, {"matrix": np.ones((100, 100), dtype=np.float32)})
    noise = load_file(tmp_path / directions.random_like(wide, seed=0, root=tmp_path, out="d.safetensors").path)[
        "matrix"
    ]
    assert abs(noise.sum()) / np.linalg.norm(noise) / 100 < 0.05, "cosine with the source"


def test_a_random_direction_claims_no_signal(tmp_path: Path) -> None:
    """The row of a control must not show the signal-to-noise ratio of the gradient it took the norms from."""
    found = directions.random_like(direction(tmp_path), seed=0, root=tmp_path, out="a.safetensors")
    assert (found.snr, found.agreement, found.half_cosine) == (None, None, None)


@given(st.lists(st.integers(1, 4) | st.none(), max_size=60))
def test_deal_is_disjoint_complete_and_stratified(levels: list[int | None]) -> None:
    items = [Problem(id=str(i), prompt=f"prompt {i}", answer=None, level=level) for i, level in enumerate(levels)]
    dealt = weighing.deal(items)
    assert len(dealt) == min(weighing.MAX_SUB_BATCHES, len(items))
    assert sorted(i for sub in dealt for i in sub) == sorted(p.id for p in items)
    for level in set(levels):
        own = {p.id for p in items if p.level == level}
        counts = [len(own & set(sub)) for sub in dealt]
        assert max(counts) - min(counts) <= 1
    assert weighing.deal(items[::-1]) == dealt, "the order of problems does not matter"


@dataclass
class Ratio:
    """The first step of PPO; asks for reference log-probabilities that it does not use."""

    needs: frozenset[str] = frozenset()
    unit: str = "rollout"

    def loss(self, b: TokenBatch) -> Any:
        ratio_BT = (b.logprobs_BT - b.old_logprobs_BT).exp()
        return -(b.weights_B[:, None] * ratio_BT * b.mask_BT).sum()


class Moved:
    """The random transformer, a policy away from its base, and three groups drawn from that policy."""

    def __init__(self, model: Path, root: Path) -> None:
        self.spec = ModelSpec(
            path=str(model), root=root, dtype="float32", device="cpu", microbatch_tokens=16, trust_remote_code=False
        )
        self.local = Local(self.spec)
        rng = seeds.generator(3)
        noise = {n: 0.05 * rng.standard_normal(t.shape) for n, t in self.local.model.base.items()}
        save_file({n: t.astype(np.float32) for n, t in noise.items()}, root / "moved.safetensors")
        move = Move(kind="direction", path="moved.safetensors", digest="d")
        self.policy = Policy(base="random", moves=(move,))
        rollouts = self.local.sample(tuple(self._request(i) for i in range(3)), self.policy)
        weights_G = np.array([1.0, -1.0, 0.5, -0.5])
        self.groups = [WeightedGroup(tuple(rollouts[4 * i : 4 * i + 4]), weights_G) for i in range(3)]

    def _request(self, index: int) -> SampleRequest:
        drawn = tuple(seeds.seed_for(0, "train/0", str(index), i) for i in range(4))
        return SampleRequest(
            problem_id=str(index), prompt="hello" + "x" * index, sample_idxs=(0, 1, 2, 3), seeds=drawn, temperature=1.0,
            max_tokens=8,
        )  # fmt: skip

    def gradient(self, *needs: str) -> SubGradient:
        batch = ListBatch([self.groups], normaliser=1.0)
        return self.local.gradient(batch, 0, self.policy, Ratio(frozenset(needs)))


@pytest.fixture(scope="module")
def moved(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Moved:
    return Moved(random_model, tmp_path_factory.mktemp("moved"))


def test_reference_logprobs_do_not_disturb_the_gradient(moved: Moved) -> None:
    """They come from the base, in the middle of a backward pass through the policy."""
    plain, with_reference = moved.gradient(), moved.gradient("ref_logprob")
    assert with_reference.logprob_gap < 1e-4, "the trainer's policy is the sampler's"
    for name, array in plain.arrays.items():
        np.testing.assert_allclose(with_reference.arrays[name], array, atol=1e-4, err_msg=name)


def test_a_gap_that_is_no_number_is_not_swallowed(moved: Moved) -> None:
    rollouts = moved.groups[1].rollouts
    broken = replace(rollouts[2], logprobs=np.full_like(rollouts[2].logprobs, np.nan))
    kept = list(moved.groups)
    try:
        moved.groups[1] = WeightedGroup((*rollouts[:2], broken, rollouts[3]), moved.groups[1].weights_G)
        assert np.isnan(moved.gradient().logprob_gap), "NaN log-probabilities would pass for a gap of 0"
    finally:
        moved.groups = kept


class FixedPool:
    """Gives the outcomes of a list, one group after the other, in the order they are asked for."""

    def __init__(self, outcomes: Sequence[Sequence[Outcome]], items: Sequence[Problem]) -> None:
        self.of = {p.id: list(group) for p, group in zip(items, outcomes, strict=True)}

    def verify(self, items: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        return [Verdict(outcome=self.of[p.id].pop(0) if p.strict else Outcome.WRONG, format_ok=True) for p, _ in items]


C, W, U, T, E = Outcome.CORRECT, Outcome.WRONG, Outcome.UNPARSED, Outcome.TIMEOUT, Outcome.ERROR
OUTCOMES = ([C, W, W, W], [C, C, C, C], [W, U, T, W], [C, E, W, C], [E, E, E, C], [U, C, C, T])
ITEMS = problems((1, 2, 3, 4, 5, 1))


def judged_batch(root: Path) -> RolloutBatch:
    draw = Draw(purpose="train/0", policy=BASE, temperature=1.0, samples=4, max_tokens=4)
    engine: Any = Tabular("tabular", root, {"shard_rollouts": 8})
    pool: Any = FixedPool(OUTCOMES, ITEMS)
    return sampling.collect([draw], ITEMS, run_seed=0, engine=engine, pool=pool, progress=lambda *_: None)[0].batch


def weigh(root: Path, **options: Any) -> weighing.WeighedBatch:
    return weighing.weigh(judged_batch(root), ITEMS, rewards=RewardSpec(), **options)


def test_weights_are_group_normalised_and_dead_groups_counted(tmp_path: Path) -> None:
    weighed = weigh(tmp_path)
    live = [0, 3, 5]
    assert set(weighed.weights) == {ITEMS[i].id for i in live}
    assert weighed.groups_dead == 3
    assert weighed.normaliser == 24.0
    assert weighed.pass_rate == pytest.approx(10 / 20), "correct over judged, verifier errors outside"
    np.testing.assert_allclose(weighed.weights[ITEMS[0].id], np.array([3, -1, -1, -1]) / np.sqrt(3))
    np.testing.assert_allclose(weighed.weights[ITEMS[5].id], [-1, 1, 1, -1])
    assert weighed.num_sub_batches == 3


def test_verifier_errors_are_removed_before_the_group_is_normalised(tmp_path: Path) -> None:
    weighed = weigh(tmp_path)
    lone = advantages.group_advantages([1.0, 0.0, 1.0]).weights_G
    assert list(weighed.weights[ITEMS[3].id]) == pytest.approx([lone[0], 0.0, lone[1], lone[2]])
    groups = {g.rollouts[0].problem_id: g for s in range(weighed.num_sub_batches) for g in weighed.read(s)}
    assert [r.sample_idx for r in groups[ITEMS[3].id].rollouts] == [0, 2, 3]
    assert set(groups) == set(weighed.weights)


def test_positives_only_reads_successes_alone(tmp_path: Path) -> None:
    weighed = weigh(tmp_path, scheme="positives_only")
    groups = {g.rollouts[0].problem_id: g for s in range(weighed.num_sub_batches) for g in weighed.read(s)}
    assert [r.sample_idx for r in groups[ITEMS[0].id].rollouts] == [0]
    assert all((g.weights_G > 0).all() for g in groups.values())


def test_shuffling_keeps_every_group_and_moves_some_rewards(tmp_path: Path) -> None:
    plain = weigh(tmp_path)
    shuffled = [weigh(tmp_path, shuffle_seed=s) for s in range(4)]
    for other in shuffled:
        assert set(other.weights) == set(plain.weights)
        for name, weights in plain.weights.items():
            assert sorted(other.weights[name]) == pytest.approx(sorted(weights))
        assert (other.groups_dead, other.pass_rate, other.normaliser) == (3, plain.pass_rate, 24.0)
        assert other.weights[ITEMS[3].id][1] == 0.0, "a rollout without a verdict gets no other's reward"
    assert any(other.weights != plain.weights for other in shuffled)
    assert len({other.key for other in [plain, *shuffled]}) == 5
    assert weigh(tmp_path, scheme="rloo").key != plain.key


def test_no_live_group_is_no_signal(tmp_path: Path) -> None:
    zero = RewardSpec(correct=0.0)
    weighed = weighing.weigh(judged_batch(tmp_path), ITEMS, rewards=zero)
    assert weighed.groups_dead == 6
    with pytest.raises(NoSignal, match=r"6 .*batch pass rate 0\.5000"):
        weighing.require_signal(weighed)


def test_penalties_make_groups_live(tmp_path: Path) -> None:
    weighed = weighing.weigh(judged_batch(tmp_path), ITEMS, rewards=RewardSpec(unparsed=-1.0, timeout=-0.5))
    expected = np.array([0.0, -1.0, -0.5, 0.0])
    expected = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(weighed.weights[ITEMS[2].id], expected)
    assert weighed.groups_dead == 2
