"""Prefixes that completions share are computed once: the tree itself, and the same numbers with and without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_hf import make_engine, request

from harness import seeds
from harness.contracts import TokenBatch
from harness.testing.engine_subject import FixedBatch
from harness.types import Finish, Move, Policy, Rollout, SampleRequest, Shard, WeightedGroup
from harness_arc.domain import Arc
from harness_code.domain import Code
from harness_engines import forward, sharing, trees
from harness_engines.hf import HfEngine
from harness_math.domain import Math
from harness_tiny import weights_path

BASE = Policy(base="tiny")
PROMPTS = tuple(p.prompt for domain in (Math, Code, Arc) for p in domain().problems("ladder", "train", seed=0, limit=2))


def rollout(tokens: list[int], prompt: str = "p", idx: int = 0) -> Rollout:
    return Rollout(
        problem_id=prompt, sample_idx=idx, policy="", seed=0, prompt_tokens=np.array([1, 2], dtype=np.int32),
        completion_tokens=np.array(tokens, dtype=np.int32), logprobs=np.zeros(len(tokens), dtype=np.float32), text="",
        finish=Finish.STOP,
    )  # fmt: skip


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=8))
def test_nodes_are_the_distinct_prefixes(completions: list[list[int]]) -> None:
    group = [rollout(tokens) for tokens in completions]
    tree = trees.grow(group)
    fed = {tuple(tokens[:t]) for tokens in completions for t in range(1, len(tokens))}
    prefixes: list[tuple[int, ...]] = [()]
    for token, parent, depth in zip(tree.tokens_U, tree.parents_U, tree.depths_U, strict=True):
        prefixes.append((*prefixes[parent], int(token)))
        assert len(prefixes[-1]) == depth
    assert sorted(prefixes[1:]) == sorted(fed)
    for row, tokens in enumerate(completions):
        assert [prefixes[node] for node in tree.nodes_GT[row, : len(tokens)]] == [
            tuple(tokens[:t]) for t in range(len(tokens))
        ]
    seen_UU = trees.ancestors(tree)
    for i, own in enumerate(prefixes[1:]):
        assert [p for j, p in enumerate(prefixes[1:]) if seen_UU[i, j]] == [
            p for p in prefixes[1:] if own[: len(p)] == p
        ]


def shard(samples: int = 16, **changes: Any) -> Shard:
    return tuple(request(prompt, samples, max_tokens=24, **changes) for prompt in PROMPTS)


def tiny(root: Path) -> HfEngine:
    return make_engine(weights_path(), root)


def alone(request: SampleRequest) -> list[Shard]:
    """A shard for each completion, which then shares nothing."""
    return [
        (SampleRequest(**{**fields(request), "sample_idxs": (i,), "seeds": (seed,)}),)
        for i, seed in zip(request.sample_idxs, request.seeds, strict=True)
    ]


def fields(request: SampleRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in request.__dataclass_fields__}


@pytest.mark.parametrize("temperature", [1.0, 0.6, 0.0])
def test_completions_are_those_drawn_alone(tmp_path: Path, temperature: float) -> None:
    engine = tiny(tmp_path)
    (together,) = engine.sample([shard(temperature=temperature)], BASE)
    single = [r for req in shard(temperature=temperature) for (r,) in engine.sample(alone(req), BASE)]
    assert [r.text for r in together] == [r.text for r in single]
    assert len({r.text for r in together}) < len(together), "nothing was shared: the test shows nothing"
    for one, other in zip(together, single, strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)
        np.testing.assert_allclose(one.entropies, other.entropies, atol=1e-4)


def test_models_with_windows_get_copies_of_prompts_and_draw_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shared,) = tiny(tmp_path).sample([shard()], BASE)
    engine = tiny(tmp_path)
    module: Any = engine.local.model.module
    assert sharing.shareable(module)
    monkeypatch.setattr(module.config, "sliding_window", 4096, raising=False)
    assert not sharing.shareable(module)
    (copied,) = engine.sample([shard()], BASE)
    assert [r.text for r in shared] == [r.text for r in copied]


def test_the_sampler_tells_the_entropies_that_scoring_finds(tmp_path: Path) -> None:
    engine = tiny(tmp_path)
    (rollouts,) = engine.sample([shard(temperature=0.7)], BASE)
    for one, score in zip(rollouts, engine.score(rollouts, BASE, temperature=0.7), strict=True):
        np.testing.assert_allclose(one.entropies, score.entropy_T, atol=1e-4)


def groups(rollouts: list[Rollout]) -> list[WeightedGroup]:
    found = []
    for prompt in PROMPTS:
        own = tuple(r for r in rollouts if r.problem_id == prompt)
        found.append(WeightedGroup(own, seeds.generator(seeds.seed_for(1, "weights", prompt)).normal(size=len(own))))
    return found


class Everything:
    """An objective that uses all that it may ask for."""

    needs = frozenset({"entropy", "ref_logprob"})
    unit = "rollout"

    def loss(self, b: TokenBatch) -> torch.Tensor:
        assert b.entropy_BT is not None
        assert b.ref_logprobs_BT is not None
        terms_BT = (
            b.weights_B[:, None] * b.logprobs_BT + 0.3 * b.entropy_BT + (b.logprobs_BT - b.ref_logprobs_BT + 0.1) ** 2
        )
        return -(terms_BT * b.mask_BT).sum()


def test_gradients_and_scores_with_trees_are_those_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tiny(tmp_path)
    (rollouts,) = engine.sample([shard()], BASE)
    batch = FixedBatch((tuple(groups(rollouts)),), float(len(rollouts)))
    micros = list(forward.microbatches(batch.groups[0], max_tokens=4096, unit="rollout", as_trees=True))
    assert sum(len(micro.trees) for micro in micros) == len(PROMPTS), "no trees: the test shows nothing"
    kinds = []
    for limit in (trees.MAX_SHARE, 0.0):
        monkeypatch.setattr(trees, "MAX_SHARE", limit)
        engine.gradient(batch, BASE, Everything(), out=Path("g.safetensors"))
        scores = engine.score(rollouts, BASE, temperature=1.0, kl_to=BASE)
        kinds.append((load_file(tmp_path / "g.safetensors"), scores))
    (with_trees, first), (without, second) = kinds
    scale = sum(float(t.square().sum()) for t in without.values()) ** 0.5
    gap = sum(float((with_trees[n] - without[n]).square().sum()) for n in without) ** 0.5
    assert gap < 1e-5 * scale
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one.logprobs_T, other.logprobs_T, atol=1e-4)
        np.testing.assert_allclose(one.entropy_T, other.entropy_T, atol=1e-4)


def test_a_group_of_long_texts_goes_without_a_tree() -> None:
    apart = [rollout([i, *range(20)]) for i in range(4)]
    assert not trees.pays(trees.grow(apart), apart)
    same = [rollout(list(range(20))) for _ in range(4)]
    assert trees.pays(trees.grow(same), same)
    lone = [rollout([1])]
    (micro,) = forward.microbatches(
        [WeightedGroup(tuple(lone), np.ones(1))], max_tokens=64, unit="group", as_trees=True
    )
    assert micro.rollouts == lone


def test_policies_sampled_together_are_those_sampled_apart(tmp_path: Path) -> None:
    engine = tiny(tmp_path)
    noise = Policy(base="tiny", moves=(Move(kind="noise", path="", digest=f"{7:016x}", step=0.05),))
    together = list(engine.sample_each([shard(4), shard(4)], [BASE, noise]))
    apart = [next(engine.sample([shard(4)], policy)) for policy in (BASE, noise)]
    for one, other in zip(together, apart, strict=True):
        assert [(r.policy, r.text) for r in one] == [(r.policy, r.text) for r in other]
    assert [r.text for r in together[0]] != [r.text for r in together[1]]
