"""extrapolate: ways between policies as directions, their rank-one trend against numpy's SVD, the budget to the rollout."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tabular_run import PLAIN, execute, small_spec, temporary

from harness import directions, plugins, seeds, store
from harness.contracts import Optimizer
from harness.hookspecs import Register, hookimpl
from harness.leaderboard import Row
from harness.objectives import PolicyGradient
from harness.pipeline import Finished
from harness.stages import Stages
from harness.training import weights_files
from harness.types import Contender, Move, Policy, Rollout, Shard
from harness_engines.hf import HfEngine
from harness_engines.tabular import Tabular

Arrays = dict[str, npt.NDArray[np.float32]]
FAST = ("method.extrapolate.lr=0.05", *PLAIN)
SHAPES = {"matrix": (6, 5), "bias": (7,), "still": (3,)}


def tensors(seed: int, scale: float = 1.0) -> Arrays:
    """Random ones; "still" is what no update moves."""
    rng = seeds.generator(seed)
    drawn = {name: (scale * rng.standard_normal(shape)).astype(np.float32) for name, shape in SHAPES.items()}
    return {**drawn, "still": np.ones(3, np.float32)}


def trend(root: Path, start: Arrays, ends: Sequence[Arrays], times: Sequence[float]) -> Arrays:
    for number, held in enumerate([start, *ends]):
        save_file(held, root / f"{number}.safetensors")
    files = [root / f"{number}.safetensors" for number in range(1 + len(ends))]
    found = directions.trend(files[0], files[1:], times=times, root=root, out="trend.safetensors")
    made = load_file(root / found.path)
    assert found.kind == "trend"
    assert found.digest == store.digest(root / found.path)
    assert found.norm == pytest.approx(np.sqrt(sum((t.astype(float) ** 2).sum() for t in made.values())), rel=1e-6)
    weights = np.sqrt(sum((t.astype(float) ** 2).sum() for t in start.values()))
    assert found.weight_norm == pytest.approx(weights, rel=1e-6)
    return made


def plus(start: Arrays, *terms: tuple[float, Arrays]) -> Arrays:
    total = {name: tensor.astype(np.float64) for name, tensor in start.items()}
    for size, term in terms:
        total = {name: total[name] + (0 if name == "still" else size) * term[name] for name in total}
    return {name: tensor.astype(np.float32) for name, tensor in total.items()}


def test_a_straight_way_is_its_own_trend(tmp_path: Path) -> None:
    """theta_t = theta_0 + t v, met at uneven times: the trend is T v."""
    start, way, times = tensors(1), tensors(2), [1.0, 2.0, 5.0, 8.0]
    found = trend(tmp_path, start, [plus(start, (t, way)) for t in times], times)
    for name in ("matrix", "bias"):
        np.testing.assert_allclose(found[name], 8 * way[name], rtol=1e-4, atol=1e-5)
    assert not found["still"].any()


def test_one_checkpoint_is_the_displacement(tmp_path: Path) -> None:
    start, end = tensors(1), {**tensors(2), "still": tensors(1)["still"]}
    found = trend(tmp_path, start, [end], [16.0])
    other = directions.between(tmp_path / "0.safetensors", tmp_path / "1.safetensors", root=tmp_path, out="between")
    for name, tensor in load_file(tmp_path / other.path).items():
        np.testing.assert_allclose(found[name], tensor, rtol=1e-6)
        np.testing.assert_array_equal(tensor, end[name] - start[name])


def test_the_trend_is_the_linear_fit_of_the_first_singular_component(tmp_path: Path) -> None:
    """RELEX by a full SVD, with the line through zero, for each tensor by itself."""
    start, times = tensors(1), np.array([2.0, 4.0, 6.0, 8.0, 10.0])
    ends = [plus(start, (t / 10, tensors(2)), (1.0, tensors(30 + i, 0.4))) for i, t in enumerate(times)]
    found = trend(tmp_path, start, ends, times.tolist())
    for name in ("matrix", "bias"):
        rows_TD = np.stack([(end[name] - start[name]).ravel() for end in ends]).astype(np.float64)
        left, singular, right = np.linalg.svd(rows_TD, full_matrices=False)
        coefficients_T = left[:, 0] * singular[0]
        (slope,), *_ = np.linalg.lstsq(times[:, None], coefficients_T, rcond=None)
        np.testing.assert_allclose(found[name].ravel(), 10 * slope * right[0], rtol=1e-4, atol=1e-5)


def test_the_trend_keeps_less_of_the_noise_than_the_last_displacement(tmp_path: Path) -> None:
    start, way, times = tensors(1), tensors(2), [float(t) for t in range(1, 9)]
    ends = [plus(start, (t / 8, way), (1.0, tensors(int(40 + t), 0.5))) for t in times]
    found = trend(tmp_path, start, ends, times)

    def cosine(ours: Mapping[str, npt.NDArray[Any]]) -> float:
        one, other = (np.concatenate([t[n].ravel() for n in ("matrix", "bias")]) for t in (ours, way))
        return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

    assert cosine(found) > cosine({name: ends[-1][name] - start[name] for name in start}) + 0.05


class Walk:
    """Trains twice, and hands in the base, the end, and what displacement and trend say the end is."""

    name, version = "walk", 1
    options: Mapping[str, Any] = {}

    def run(self, stages: Stages) -> Contender:
        live, kept = stages.trainer(stages.base, Optimizer(lr=0.05)), []
        for number, (problems, samples) in enumerate(stages.schedule(2)):
            batch = stages.sample(problems, live.policy, samples=samples, iteration=number)
            live.step(stages.weigh(batch), PolicyGradient())
            kept.append(live.keep())
        whole = stages.displacement(stages.base, kept[1])
        second = stages.displacement(kept[0], kept[1])
        steps = [Move(kind="direction", path=d.path, digest=d.digest) for d in (whole, second)]
        from_base = replace(stages.base, moves=(steps[0],))
        from_first = replace(kept[0], moves=(*kept[0].moves, steps[1]))
        return Contender(policies=(kept[1], from_base, from_first, kept[0]))


class Plugin:
    @hookimpl
    def harness_register_methods(self, register: Register) -> None:
        register("walk", f"{__name__}:Walk", summary="test")


def test_step_one_of_a_displacement_is_its_end(tmp_path: Path) -> None:
    found = plugins.load({})
    found.add(Plugin(), name="test", distribution="test", version="1")
    root, _ = execute(small_spec(methods=("walk",)), tmp_path, found=found)
    done: Finished = store.read_json(root / "methods/walk/0/scores.json")
    engine = Tabular("tabular", root, {})
    end, from_base, from_first, first = (engine.tables(policy) for policy in done.contender.policies)
    for name, tensor in end.items():
        torch.testing.assert_close(from_base[name], tensor, rtol=0, atol=1e-12)
        torch.testing.assert_close(from_first[name], tensor, rtol=0, atol=1e-12)
        assert not torch.equal(first[name], tensor)
    assert sorted(p.name.partition("-")[0] for p in (root / "methods/walk/0").iterdir() if p.is_file()) == [
        "displacement", "displacement", "scores.json"
    ], "two ways to one end do not overwrite each other, and nothing else stays"  # fmt: skip


def test_a_checkpoint_is_read_as_it_was_written(random_model: Path, tmp_path: Path) -> None:
    """Its own fp32 file: a run in bf16 would round the displacement of small updates away."""
    options = {"dtype": "bfloat16", "device": "cpu", "workers": 1, "shard_rollouts": 2, "microbatch_tokens": 512,
               "trust_remote_code": False}  # fmt: skip
    engine = HfEngine(str(random_model), tmp_path, options)
    base = Policy(base=str(random_model))
    live = engine.trainer(base, Optimizer(lr=0.0))
    for parameter in live.weights.values():
        parameter.data += 1e-6
    live.checkpoint(tmp_path / "end.safetensors")
    move = Move(kind="checkpoint", path="end.safetensors", digest=store.digest(tmp_path / "end.safetensors"))
    run = type("Run", (), {"root": tmp_path, "engine": engine})()
    with weights_files(run, [base, replace(base, moves=(move,))], folder=".") as files:
        found = directions.between(*files, root=tmp_path, out="way.safetensors")
    assert files[1] == tmp_path / "end.safetensors"
    assert not files[0].exists(), "what was written for the moment is gone"
    way = load_file(tmp_path / found.path)
    assert np.median(np.abs(way["model.layers.0.mlp.up_proj.weight"])) == pytest.approx(1e-6, rel=0.1)


class Counting(Tabular):
    """Keeps which policy every completion was drawn from, as an outsider sees it."""

    seen: list[tuple[str, str]] = []  # noqa: RUF012 - shared by the engines of one test

    def sample(self, shards: Sequence[Shard], policy: Policy) -> Iterator[list[Rollout]]:
        for shard in shards:
            Counting.seen += [(request.problem_id, policy.id) for request in shard for _ in request.seeds]
        return super().sample(shards, policy)


@functools.cache
def extrapolated(*sets: str) -> tuple[Path, Row, Finished, Mapping[str, Counter[str]]]:
    """A run, its row, its result, and completions by split and problem."""
    Counting.seen = []
    found = plugins.load({})
    entry = found.registered["engine", "tabular"]
    found.registered["engine", "tabular"] = replace(entry, target=f"{__name__}:Counting")
    spec = small_spec(*FAST, *sets, methods=("extrapolate",), budget=512)
    root, rows = execute(spec, temporary(), found=found)
    drawn = Counter(name for name, _ in Counting.seen)
    splits: dict[str, Counter[str]] = {}
    for line in store.read_lines(root / "problems.jsonl"):
        name = line["problem"].id
        splits.setdefault(line["split"], Counter())[name] = drawn[name]
    row = next(row for row in rows if row["method"] == "extrapolate" and row["seed"] == 0)
    return root, row, store.read_json(root / "methods/extrapolate/0/scores.json"), splits


def test_the_budget_is_spent_exactly_and_the_updates_counted() -> None:
    _, row, _, drawn = extrapolated()
    assert set(drawn["train/0"].values()) == {16}
    assert drawn["train/0"].total() == row["train_rollouts"] == 512
    assert drawn["selection"].total() <= row["selection_rollouts"] <= 512
    assert row["updates"] == 32
    assert row["direction"] == "trend"
    assert (row["dead_groups"], row["batch_pass_rate"], row["snr"]) == (None, None, None), "it comes from no batch"


def test_it_goes_farther_than_the_updates_went() -> None:
    """A small rate leaves the last policy close to the base; the search goes on along its way, and gains."""
    root, row, done, _ = extrapolated(
        *(f"method.extrapolate.{option}" for option in ("lr=0.01", "rank_one=false", "steps=8"))
    )
    assert done.search is not None
    ended = Tabular("tabular", root, {}).displacement(done.trained[-1].policy).relative
    assert row["direction"] == "displacement"
    assert row["step"] > 1
    assert row["relative_step"] == pytest.approx(row["step"] * ended, rel=1e-6)
    assert row["delta"] > 0.1


def test_without_a_live_group_there_is_no_way_to_follow(tmp_path: Path) -> None:
    _, rows = execute(small_spec(methods=("extrapolate",), model="tabular:.0000000001", budget=512), tmp_path)
    row = next(row for row in rows if row["method"] == "extrapolate")
    assert row["status"] == "no signal: none of 32 batches had a live group: no policy moved"
    assert row["train_rollouts"] == 512
