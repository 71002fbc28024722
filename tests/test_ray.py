"""The ray engines on a cluster of two nodes, authentication on: the same run as hf's, the same draws as vllm's, with an actor and
a node lost on the way.

Where Ray is not installed nothing here runs; the scheduling is tested without it in test_pooling.py.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from harness import config, leaderboard, pipeline, plugins, seeds, store
from harness.errors import HarnessError
from harness.objectives import PolicyGradient
from harness.testing.engine_subject import FixedBatch
from harness.types import Move, Policy, Rollout, SampleRequest, Shard, WeightedGroup
from harness_engines.hf import HfEngine
from harness_engines.hosting import key_of
from harness_engines.ray import RayEngine, RayVllmEngine
from harness_engines.vllm import VllmEngine

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='the extra "ray" is not installed')
with_vllm = pytest.mark.skipif(
    "not installed" in plugins.load({}).registered["engine", "ray-vllm"].summary,
    reason="Ray and vLLM are not installed together: make test-vllm has an environment with them",
)
BASE = Policy(base="random")
OPTIONS = {"dtype": "float32", "device": "cpu", "workers": 1, "shard_rollouts": 4, "microbatch_tokens": 256,
           "trust_remote_code": False}  # fmt: skip
RUN = (
    "engine.dtype=float32", "engine.shard_rollouts=32", "search.problems=4", "search.samples=2", "search.kl_targets=[0.04]",
    "evaluation.problems=4", "evaluation.samples=2", "evaluation.wide_samples=0", "evaluation.seen_problems=0",
    "evaluation.bin_samples=2", "evaluation.candidate_methods=[]",
)  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_AUTH_MODE", "token")
        environment.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
        environment.setenv("RAY_worker_niceness", "0")  # else other work on this machine comes first
        ray = importlib.import_module("ray")  # it reads the environment when it is imported
        Cluster = importlib.import_module("ray.cluster_utils").Cluster
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        second = nodes.add_node(num_cpus=2)
        ray.init(address=nodes.address, log_to_driver=False, logging_level="error")
        yield SimpleNamespace(nodes=nodes, second=second)
        ray.shutdown()
        nodes.shutdown()


def test_a_run_is_the_one_that_hf_makes(cluster: Any, tmp_path: Path) -> None:
    roots, rows = {}, {}
    for name, workers in (("hf", 1), ("ray", 2)):
        spec = config.load(
            "code", file=None, changes={"budget": 64, "workers": workers, "methods": ("one_shot",)},
            sets=(*RUN, f"engine.name={name}"),
        )  # fmt: skip
        roots[name] = pipeline.create(spec, out=tmp_path / name, command="harness run")
        pipeline.execute(roots[name], plugins.load({}), progress=lambda *_: None)
        found = leaderboard.read_csv(roots[name] / "leaderboard.csv")
        rows[name] = [{k: v for k, v in row.items() if k not in {*leaderboard.UNCOMPARED, "engine"}} for row in found]
    assert rows["hf"] == rows["ray"]
    files = {name: sorted(p.relative_to(root) for p in root.rglob("*.safetensors")) for name, root in roots.items()}
    assert files["hf"] == files["ray"]
    assert any("directions" in path.parts for path in files["hf"])
    for path in files["hf"]:
        assert store.digest(roots["hf"] / path) == store.digest(roots["ray"] / path), path


def shards(count: int = 24) -> list[Shard]:
    return [
        (
            SampleRequest(
                problem_id=f"p{number}",
                prompt=f"{number}+{number}=",
                sample_idxs=(0, 1, 2, 3),
                seeds=tuple(seeds.seed_for(0, "ray", str(number), i) for i in range(4)),
                temperature=1.0,
                max_tokens=12,
            ),
        )
        for number in range(count)
    ]


def keys(parts: list[list[Rollout]]) -> list[bytes]:
    return [key_of(rollout) for part in parts for rollout in part]


def batch_of(parts: list[list[Rollout]]) -> FixedBatch:
    groups = [WeightedGroup(tuple(part), np.array([1.0, -1.0, 0.5, -0.5])) for part in parts]
    return FixedBatch(tuple((group,) for group in groups), float(4 * len(parts)))


@with_vllm
def test_actors_draw_through_vllm_what_it_draws_here(cluster: Any, tmp_path: Path) -> None:
    near, hf = (kind("tiny", tmp_path, OPTIONS) for kind in (VllmEngine, HfEngine))
    save_file({n: 0.05 * t for n, t in near.local.model.base.items()}, tmp_path / "d.safetensors")
    move = Move(kind="direction", path="d.safetensors", digest=store.digest(tmp_path / "d.safetensors"), step=1.0)
    policies = [BASE, Policy(base="random", moves=(move,))] * 12
    expected = list(near.sample_each(shards(), policies))
    assert keys(expected) != keys(list(hf.sample_each(shards(), policies)))
    wanted = near.gradient(batch_of(expected), BASE, PolicyGradient(), out=Path("near.safetensors"))
    far = RayVllmEngine("tiny", tmp_path, {**OPTIONS, "workers": 2})
    try:
        assert keys(list(far.sample_each(shards(), policies))) == keys(expected)
        found = far.gradient(batch_of(expected), BASE, PolicyGradient(), out=Path("far.safetensors"))
        assert len(far._joined().places) == 2
    finally:
        far.close()
    assert found.digest == wanted.digest
    assert far.identity() == near.identity()


def test_a_lost_actor_and_a_lost_node_cost_their_shards_only(cluster: Any, random_model: Path, tmp_path: Path) -> None:
    near = HfEngine(str(random_model), tmp_path, OPTIONS)
    expected = list(near.sample(shards(), BASE))
    batch = batch_of(expected)
    wanted = near.gradient(batch, BASE, PolicyGradient(), out=Path("near.safetensors"))
    for workers in (1, 4):
        engine = RayEngine(str(random_model), tmp_path, {**OPTIONS, "workers": workers})
        assert keys(list(engine.sample(shards(), BASE))) == keys(expected)
        found = engine.gradient(batch, BASE, PolicyGradient(), out=Path(f"{workers}.safetensors"))
        assert found.digest == wanted.digest
        if workers == 1:
            engine.close()

    actors, places = engine._joined().pool._workers, engine._joined().places
    assert len(actors) == 4
    with pytest.warns(UserWarning, match="a worker was lost"):
        assert keys(_sampled(engine, lambda: _kill(actors[:1]))) == keys(expected)
    assert len(actors) == 3

    def kill_node() -> None:
        cluster.nodes.remove_node(cluster.second, allow_graceful=False)
        _await_end([actor for actor in actors if places[actor] == cluster.second.node_id])

    with pytest.warns(UserWarning, match="a worker was lost"):
        drawn = _sampled(engine, kill_node)
    assert keys(drawn) == keys(expected)
    assert len(actors) in (1, 2)  # two actors on each node, one of the four killed before
    found = engine.gradient(batch, BASE, PolicyGradient(), out=Path("left.safetensors"))
    assert found.digest == wanted.digest
    with pytest.warns(UserWarning, match="lost"), pytest.raises(HarnessError, match=r"all 4 workers were lost.*resume"):
        _sampled(engine, lambda: _kill(list(actors)))
    engine.close()


def _kill(actors: Sequence[Any]) -> None:
    for actor in actors:
        importlib.import_module("ray").kill(actor)
    _await_end(actors)


def _await_end(actors: Sequence[Any]) -> None:
    """Ray is told of a death a while after it: until then small tasks may all be done by the others."""
    assert actors
    deadline = time.monotonic() + 60
    while any(map(_answers, actors)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _answers(actor: Any) -> bool:
    ray = importlib.import_module("ray")
    try:
        ray.get(actor.place.remote())
    except ray.exceptions.RayActorError:
        return False
    return True


def _sampled(engine: RayEngine, disturb: Any) -> list[list[Rollout]]:
    """All shards, with something happening after the first one."""
    loop = engine.sample(shards(), BASE)
    first = next(loop)
    disturb()
    return [first, *loop]
