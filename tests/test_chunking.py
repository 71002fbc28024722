"""Log-probabilities, entropies and gradients in chunks of positions: the numbers of the whole, the memory of a chunk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from model_kit import VOCABULARY, save_model
from test_architectures import SHAPE
from test_hf import BASE, _stepped, batch_of, drawn, make_engine
from transformers import AutoModelForCausalLM, Qwen2Config

from benchmarks.perf.allocating import watched
from harness import seeds
from harness.objectives import PolicyGradient, TokenEntropy
from harness_engines import chunking
from harness_engines.chunking import States

WIDE = 5000  # a vocabulary beside which nothing else of the model is large
POSITIONS, ROWS, COLUMNS = 23, 4, 9
TEMPERATURE = 0.7


def config(*, tied: bool, size: int = VOCABULARY) -> Qwen2Config:
    return Qwen2Config(**{**SHAPE, "vocab_size": size}, tie_word_embeddings=tied)


class Given(NamedTuple):
    """Hidden states of which some predict several tokens and some none, and what weighs the answers."""

    module: Any
    ids_M: torch.Tensor
    position_BT: torch.Tensor
    tokens_BT: torch.Tensor
    weights_2BT: torch.Tensor


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def given(request: pytest.FixtureRequest) -> Given:
    rng = seeds.generator(seeds.seed_for(0, "chunking"))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = AutoModelForCausalLM.from_config(config(tied=request.param), dtype=torch.float32).eval()
    shape = (ROWS, COLUMNS)
    return Given(
        module,
        torch.from_numpy(rng.integers(0, VOCABULARY, POSITIONS)),
        torch.from_numpy(rng.integers(0, POSITIONS, shape)),
        torch.from_numpy(rng.integers(0, VOCABULARY, shape)),
        torch.from_numpy(rng.normal(size=(2, *shape))).float(),
    )


def told(given: Given, *, entropies: bool) -> dict[str, torch.Tensor]:
    """Values, and gradients of a weighted sum of them, by name."""
    module = given.module
    module.zero_grad()
    hidden_MD = module.model(given.ids_M[None]).last_hidden_state[0]
    hidden_MD.retain_grad()
    found = chunking.tell(
        module,
        States(hidden_MD, given.position_BT),
        given.tokens_BT,
        temperature=TEMPERATURE,
        entropies=entropies,
    )
    total = (given.weights_2BT[0] * found.logprobs_BT).sum()
    if found.entropy_BT is not None:
        total = total + (given.weights_2BT[1] * found.entropy_BT.square()).sum()
    total.backward()
    values = {"logprobs": found.logprobs_BT, "hidden": hidden_MD.grad}
    if found.entropy_BT is not None:
        values["entropy"] = found.entropy_BT
    return values | {name: p.grad.clone() for name, p in module.named_parameters()}


@pytest.mark.parametrize("entropies", [True, False])
@pytest.mark.parametrize("positions", [1, 4, POSITIONS - 1])
def test_chunks_give_the_values_and_gradients_of_the_whole(
    given: Given, monkeypatch: pytest.MonkeyPatch, entropies: bool, positions: int
) -> None:
    whole = told(given, entropies=entropies)
    monkeypatch.setattr(chunking, "CHUNK_NUMBERS", positions * VOCABULARY)
    parts = told(given, entropies=entropies)
    assert parts.keys() == whole.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(
            parts[name], tensor, rtol=1e-5, atol=1e-5 * float(tensor.detach().abs().max()), msg=name
        )


@pytest.mark.parametrize("objective", [PolicyGradient(), TokenEntropy()], ids=["logprobs", "entropies"])
def test_no_tensor_is_larger_than_a_chunk_or_a_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: Any
) -> None:
    save_model(tmp_path, config(tied=True, size=WIDE), size=WIDE)
    engine = make_engine(tmp_path, tmp_path, microbatch_tokens=4096)
    rollouts = drawn(engine)
    batch, weights = batch_of(rollouts, sub_batches=1), engine.local.model.weights(BASE)
    positions = len(rollouts) * 12 - 12  # at least: completions rarely end, and share first tokens
    largest_weight = max(t.numel() * 4 for t in weights.values())
    moved = _stepped(engine, tmp_path, step=0.01)

    def largest() -> tuple[int, int]:
        gradient = watched(lambda: engine.local.gradient_at(weights, batch, 0, objective), device="cpu")
        scores = watched(lambda: engine.score(rollouts, BASE, temperature=1.0, kl_to=moved), device="cpu")
        return gradient.largest, scores.largest

    whole = largest()
    assert min(whole) >= positions * WIDE * 4 > 4 * largest_weight, "the distributions were never held: shows nothing"
    monkeypatch.setattr(chunking, "CHUNK_NUMBERS", 8 * WIDE)
    engine.local._kept.clear()
    assert max(largest()) == largest_weight


def test_scores_in_chunks_are_those_of_the_whole(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(random_model, tmp_path)
    rollouts, moved = drawn(engine, temperature=0.8), _stepped(engine, tmp_path, step=0.05)
    whole = engine.score(rollouts, moved, temperature=0.8, kl_to=BASE)
    monkeypatch.setattr(chunking, "CHUNK_NUMBERS", 7 * VOCABULARY)
    engine.local._kept.clear()
    for one, other in zip(whole, engine.score(rollouts, moved, temperature=0.8, kl_to=BASE), strict=True):
        for name in ("logprobs_T", "entropy_T", "kl_T"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-5)
