"""Steering: vectors are added where they should be and nowhere else, and are the difference of means; the whole method."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_hf import BASE, PROMPTS, batch_of, make_engine, request
from test_method_contract import prepared, row
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, Qwen2Config

from harness import pipeline, plugins, seeds, store
from harness.contracts import Optimizer
from harness.errors import UsageError
from harness.objectives import PolicyGradient
from harness.pipeline import Finished
from harness.testing.engine_subject import FixedBatch
from harness.types import Direction, Move, Policy, Rollout, Search, Shard, WeightedGroup
from harness_engines import sharing, steering, trees
from harness_engines.hf import HfEngine

LAYER, STEP, HIDDEN = 0, 0.7, 32
DEPTHS = (0.5, 1.0)  # of two layers: both


def vector() -> torch.Tensor:
    return torch.from_numpy(seeds.generator(11).normal(size=HIDDEN)).float()


def steered(root: Path, name: str = f"steer/{LAYER}") -> Policy:
    save_file({name: vector()}, root / "v.safetensors")
    move = Move(kind="direction", path="v.safetensors", digest=store.digest(root / "v.safetensors"), step=STEP)
    return Policy(base="random", moves=(move,))


def shards(temperature: float, count: int = 4) -> list[Shard]:
    return [tuple(request(prompt, count, temperature=temperature) for prompt in PROMPTS)]


def drawn(engine: HfEngine, policy: Policy, temperature: float = 1.0, count: int = 4) -> list[Rollout]:
    return [r for shard in engine.sample(shards(temperature, count), policy) for r in shard]


def plain_model(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


def by_hand(model: Any, rollout: Rollout, temperature: float, *, step: float = STEP) -> torch.Tensor:
    """Log-probabilities [T, V] layer by layer, `step` x the vector added from the prompt's last token on."""
    tokens = torch.tensor(np.concatenate([rollout.prompt_tokens, rollout.completion_tokens]).astype(int))[None]
    count, first = tokens.shape[1], len(rollout.prompt_tokens) - 1
    places = torch.arange(count)[None]
    unseen = torch.full((count, count), -torch.inf).triu(1)[None, None]
    hidden = model.model.embed_tokens(tokens)
    rotary = model.model.rotary_emb(hidden, position_ids=places)
    for index, layer in enumerate(model.model.layers):
        hidden = layer(hidden, attention_mask=unseen, position_ids=places, position_embeddings=rotary)
        if index == LAYER:
            added = torch.zeros_like(hidden)
            added[:, first:] = step * vector()
            hidden = hidden + added
    logits = model.lm_head(model.model.norm(hidden))[0, first:-1]
    return torch.log_softmax(logits / temperature, -1)


def chosen(logprobs_TV: torch.Tensor, rollout: Rollout) -> torch.Tensor:
    return logprobs_TV.gather(1, torch.tensor(rollout.completion_tokens.astype(int))[:, None])[:, 0]


@pytest.mark.parametrize("plain_attention", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_sampling_and_scoring_add_the_vector_as_a_forward_by_hand(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, temperature: float, plain_attention: bool
) -> None:
    """Trees and rows, prompts shared and copied, score and KL."""
    engine, policy = make_engine(random_model, tmp_path), steered(tmp_path)
    if not plain_attention:
        monkeypatch.setattr(sharing, "shareable", lambda _: False)
    rollouts, plain = drawn(engine, policy, temperature, count=8), plain_model(random_model)
    groups = [[r for r in rollouts if r.problem_id == prompt] for prompt in PROMPTS]
    as_trees = {trees.pays(trees.grow(group), group) for group in groups}
    assert (True in as_trees) == (temperature == 0.2), "both layouts are to be met"
    scores = engine.score(rollouts, policy, temperature=temperature, kl_to=BASE)
    back = engine.score(rollouts, BASE, temperature=temperature, kl_to=policy)
    for rollout, score, other in zip(rollouts, scores, back, strict=True):
        with torch.no_grad():
            own_TV = by_hand(plain, rollout, temperature)
            base_TV = by_hand(plain, rollout, temperature, step=0.0)
        expected = chosen(own_TV, rollout).numpy()
        np.testing.assert_allclose(rollout.logprobs, expected, atol=1e-5 / temperature)
        np.testing.assert_allclose(score.logprobs_T, expected, atol=1e-5 / temperature)
        np.testing.assert_allclose(score.logprobs_T, rollout.logprobs, atol=1e-4)
        np.testing.assert_allclose(other.logprobs_T, chosen(base_TV, rollout).numpy(), atol=1e-5 / temperature)
        for kl_T, p_TV, q_TV in ((score.kl_T, own_TV, base_TV), (other.kl_T, base_TV, own_TV)):
            np.testing.assert_allclose(kl_T, (p_TV.exp() * (p_TV - q_TV)).sum(-1).numpy(), rtol=1e-4, atol=1e-4)
    assert max(float(np.mean(score.kl_T)) for score in back) > 0.01, "the vector changes next to nothing"


def test_the_gradient_at_a_steered_policy_is_that_of_its_weights(random_model: Path, tmp_path: Path) -> None:
    engine, policy = make_engine(random_model, tmp_path), steered(tmp_path)
    batch = batch_of(drawn(engine, policy))
    found = engine.gradient(batch, policy, PolicyGradient(), out=Path("g.safetensors"))
    plain, total = plain_model(random_model), torch.zeros(())
    for group in (g for part in batch.groups for g in part):
        for rollout, weight in zip(group.rollouts, group.weights_G, strict=True):
            total = total + weight * chosen(by_hand(plain, rollout, 1.0), rollout).sum()
    (total / batch.normaliser).backward()  # type: ignore[no-untyped-call]
    tensors = load_file(tmp_path / "g.safetensors")
    assert tensors.keys() == dict(plain.named_parameters()).keys()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(tensors[name], parameter.grad, rtol=1e-3, atol=1e-5)
    assert found.logprob_gap is not None
    assert found.logprob_gap < 1e-4


def bits(engine: HfEngine) -> list[bytes]:
    rollouts = drawn(engine, BASE)
    scores = engine.score(rollouts, BASE, temperature=1.0)
    return [r.logprobs.tobytes() for r in rollouts] + [s.logprobs_T.tobytes() for s in scores]


def test_after_a_steered_policy_the_base_is_bitwise_what_it_was(random_model: Path, tmp_path: Path) -> None:
    engine, policy = make_engine(random_model, tmp_path), steered(tmp_path)
    before = bits(engine)
    engine.local._kept.clear()
    drawn(engine, policy)
    assert bits(engine) == before
    model = engine.local.model
    with model.loaded(policy), model.loaded(BASE):
        assert not any(layer._forward_hooks for layer in model.residual.layers)
    with model.loaded(policy):
        with model.loaded(BASE):
            pass
        assert [len(layer._forward_hooks) for layer in model.residual.layers] == [1, 0]


def contrast(rollouts: list[Rollout], *, sub_batches: int = 4) -> FixedBatch:
    """Every third completion is called correct; weights r - mean."""
    groups = []
    for prompt in PROMPTS:
        own = tuple(r for r in rollouts if r.problem_id == prompt)
        rewards_G = np.array([float(r.sample_idx % 3 == 0) for r in own])
        groups.append(WeightedGroup(own, rewards_G - rewards_G.mean()))
    return FixedBatch(tuple(tuple(groups[i::sub_batches]) for i in range(sub_batches)), float(len(rollouts)))


def mean_hidden(plain: Any, rollout: Rollout) -> npt.NDArray[np.float64]:
    """[layer, hidden]: mean over the positions that predict completion tokens, of transformers' own hidden states.

    The last layer is read by a hook, since transformers reports it after the final norm.
    """
    last: list[torch.Tensor] = []
    handle = plain.model.layers[-1].register_forward_hook(lambda _module, _inputs, output: last.append(output))
    tokens = torch.tensor(np.concatenate([rollout.prompt_tokens, rollout.completion_tokens]).astype(int))[None]
    with torch.no_grad():
        states = plain(tokens, output_hidden_states=True).hidden_states
    handle.remove()
    first = len(rollout.prompt_tokens) - 1
    return np.stack([h[0, first:-1].double().numpy().mean(0) for h in (*states[1:-1], last[0])])


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_the_direction_is_the_difference_of_means_by_problem(
    random_model: Path, tmp_path: Path, temperature: float
) -> None:
    engine, plain = make_engine(random_model, tmp_path), plain_model(random_model)
    rollouts = drawn(engine, BASE, temperature, count=8)
    found = engine.hidden(contrast(rollouts), BASE, depths=DEPTHS, out=Path("h"))
    graded = engine.gradient(contrast(rollouts), BASE, PolicyGradient(), out=Path("g.safetensors"))
    expected_LH = np.zeros((2, HIDDEN))
    for prompt in PROMPTS:
        own = [r for r in rollouts if r.problem_id == prompt]
        right = np.array([r.sample_idx % 3 == 0 for r in own])
        states_GLH = np.stack([mean_hidden(plain, r) for r in own])
        rate = right.mean()
        difference_LH = states_GLH[right].mean(0) - states_GLH[~right].mean(0)
        expected_LH += len(own) * rate * (1 - rate) * difference_LH / len(rollouts)
    assert [d.kind for d in found] == ["hidden/0", "hidden/1"]
    for layer, direction in enumerate(found):
        tensors = load_file(tmp_path / direction.path)
        np.testing.assert_allclose(tensors[f"steer/{layer}"].numpy(), expected_LH[layer], atol=2e-6)
        assert direction.norm == pytest.approx(float(np.linalg.norm(expected_LH[layer])), rel=1e-4)
        assert (direction.groups_used, direction.sub_batches) == (4, 4)
        assert direction.agreement is not None
        assert direction.tokens == graded.tokens


def test_its_weight_norm_is_the_typical_size_of_a_hidden_state(random_model: Path, tmp_path: Path) -> None:
    """One token each: the mean over rollouts is over the prompts' last positions."""
    engine, plain = make_engine(random_model, tmp_path), plain_model(random_model)
    one = [tuple(request(prompt, 3, max_tokens=1) for prompt in PROMPTS)]
    rollouts = [r for shard in engine.sample(one, BASE) for r in shard]
    (direction,) = engine.hidden(contrast(rollouts), BASE, depths=(0.5,), out=Path("h"))
    squares = [float(np.square(mean_hidden(plain, r)[0]).sum()) for r in rollouts]
    assert direction.weight_norm == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-5)
    with safe_open(tmp_path / direction.path, framework="np") as file:
        assert json.loads(file.metadata()["weight_norms"]) == {"steer/0": direction.weight_norm}
    assert direction.norm < 1e-5, "before the first token there is nothing to tell correct from incorrect"


def test_workers_give_bitwise_equal_directions_and_steered_rollouts(random_model: Path, tmp_path: Path) -> None:
    one, two = make_engine(random_model, tmp_path), make_engine(random_model, tmp_path, workers=2)
    try:
        batch, policy = contrast(drawn(one, BASE)), steered(tmp_path)
        ours = one.hidden(batch, BASE, depths=DEPTHS, out=Path("one"))
        theirs = two.hidden(batch, BASE, depths=DEPTHS, out=Path("two"))
        assert [d.digest for d in ours] == [d.digest for d in theirs]
        for a, b in zip(drawn(one, policy), drawn(two, policy), strict=True):
            assert a.logprobs.tobytes() == b.logprobs.tobytes()
    finally:
        one.close()
        two.close()


def test_what_a_steered_policy_cannot_do_is_said(random_model: Path, tmp_path: Path) -> None:
    engine, policy = make_engine(random_model, tmp_path), steered(tmp_path)
    assert engine.displacement(policy) == (0.0, 0.0, 0.0)
    with pytest.raises(UsageError, match="exporting a steered policy is impossible"):
        engine.materialise(policy, tmp_path / "export")
    assert not (tmp_path / "export").exists()
    with pytest.raises(UsageError, match="training a steered policy is impossible"):
        engine.trainer(policy, Optimizer(lr=1e-3))
    for name in ("steer/2", "steer/x", "model.nowhere"):
        with pytest.raises(UsageError, match=f'no tensor "{name}"'):
            drawn(engine, steered(tmp_path, name))
    for depths in ((), (0.0,), (1.1,)):
        with pytest.raises(UsageError, match="shares of the model's layers"):
            engine.hidden(contrast(drawn(engine, BASE)), BASE, depths=depths, out=Path("h"))


SMALL = {"vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 8}
SMALL |= {"bos_token_id": 0, "eos_token_id": 0}


@pytest.mark.parametrize(
    "config", [Qwen2Config(**SMALL, num_key_value_heads=1), GPTNeoXConfig(**SMALL), GPT2Config(**SMALL)], ids=type
)
def test_layers_are_found_in_other_architectures(config: Any) -> None:
    model = AutoModelForCausalLM.from_config(config).eval()
    residual, tokens = steering.Residual(model), torch.arange(6)[None]
    assert residual.at((0.01, 0.34, 0.3, 0.6, 1.0)) == [0, 1, 2]
    with torch.no_grad():
        states = model(input_ids=tokens, output_hidden_states=True).hidden_states
        seen = steering.Reader(model, residual.layers[:2])(input_ids=tokens, logits_to_keep=4).logits
        torch.testing.assert_close(seen, torch.cat(states[1:3], -1)[:, -4:])
        with residual.steered({"steer/1": torch.ones(8)}), residual.since(4):
            moved = steering.Reader(model, residual.layers[:2])(input_ids=tokens).logits
    added = torch.zeros_like(moved)
    added[:, 4:, 8:] = 1
    torch.testing.assert_close(moved, torch.cat(states[1:3], -1) + added)


def test_the_whole_method_on_the_embedded_model(tmp_path: Path) -> None:
    changes = {"budget": 256, "selection_budget": 192, "search": {"kl_targets": [0.02, 0.08], "samples": 1}}
    few = {"problems": 12, "samples": 1, "wide_samples": 0}
    root = prepared(tmp_path, "hidden_direction", domain="code", evaluation=few, **changes)
    pipeline.execute(root, plugins.load({}), progress=lambda *_: None)
    found = row(root, "hidden_direction")
    assert (found["train_rollouts"], found["updates"], found["changed_weights"]) == ("256", "0", "0.0")
    assert 0 < int(found["selection_rollouts"]) <= 192
    assert int(found["train_tokens"]) > 256
    finished: Finished = store.read_json(root / "methods/hidden_direction/0/scores.json")
    calls = sorted((root / "methods/hidden_direction/0/journal").iterdir())
    assert [c.stem.partition("-")[2] for c in calls] == ["sample", "hidden", "search", "search", "search"]
    directions: list[Direction] = store.read_json(calls[1])["result"]
    searches: list[Search] = [store.read_json(c)["result"] for c in calls[2:]]
    assert [d.kind for d in directions] == ["hidden/0", "hidden/1", "hidden/2"]
    assert all(search.candidates[0].policy.moves == () for search in searches), "the zero step is a candidate"
    assert len({search.winner.score.problem_ids for search in searches}) == 1, "winners met the same problems"
    accuracies = [search.winner.score.accuracy for search in searches]
    assert finished.search == searches[int(np.argmax(accuracies))]
    assert finished.direction == directions[int(np.argmax(accuracies))]
    assert finished.contender.policies == (finished.search.winner.policy,)


def test_an_engine_without_hidden_states_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    root = prepared(tmp_path, "hidden_direction")
    with pytest.raises(UsageError, match=r'hidden_direction needs an engine with "hidden".*Tabular.*--engine hf'):
        pipeline.execute(root, plugins.load({}), progress=lambda *_: None)
    assert not (root / "rollouts").exists()
