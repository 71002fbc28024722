"""The hf engine on other architectures than the embedded model's, each made from a configuration with random weights.

Shapes in which they differ: tied and untied embeddings, biases, norms of queries and keys, learned positions, windows, and
caps and scales of logits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_kit import VOCABULARY, save_model
from safetensors.torch import load_file
from test_hf import BASE, PROMPTS, batch_of, drawn, make_engine, plain_logprobs
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from benchmarks.perf.allocating import watched
from harness.contracts import TokenBatch
from harness.types import Rollout
from harness_engines import chunking

SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE, tie_word_embeddings=False),
    "qwen2": Qwen2Config(**SHAPE, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SHAPE, head_dim=8, tie_word_embeddings=False),
    "mistral": MistralConfig(**SHAPE, head_dim=8, sliding_window=6),
    "gemma2": Gemma2Config(**SHAPE, head_dim=8, final_logit_softcapping=3.0, sliding_window=64),
    "cohere": CohereConfig(**SHAPE, logit_scale=0.25),
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=0, eos_token_id=0,
        initializer_range=0.3,
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=list(CONFIGS))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp(request.param), CONFIGS[request.param])


class Informed:
    """An objective of log-probabilities and entropies, neither of them linear."""

    needs = frozenset({"entropy"})
    unit = "rollout"

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        assert batch.entropy_BT is not None
        terms_BT = batch.weights_B[:, None] * batch.logprobs_BT + 0.2 * batch.entropy_BT.square()
        return -(terms_BT * batch.mask_BT).sum()


def plain(folder: Path) -> torch.nn.Module:
    loaded: torch.nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return loaded


def plain_loss(module: torch.nn.Module, rollout: Rollout, weight: float) -> torch.Tensor:
    """Of one rollout alone, without padding or cache."""
    tokens = torch.tensor(np.concatenate([rollout.prompt_tokens, rollout.completion_tokens]).astype(int))
    start = len(rollout.prompt_tokens) - 1
    logprobs_TV = torch.log_softmax(module(tokens[None]).logits[0, start:-1].float(), -1)
    chosen_T = logprobs_TV.gather(1, tokens[start + 1 :, None])[:, 0]
    entropy_T = -(logprobs_TV.exp() * logprobs_TV).sum(-1)
    return -(weight * chosen_T + 0.2 * entropy_T.square()).sum()


def test_sampler_and_scores_agree_with_a_plain_forward(model: Path, tmp_path: Path) -> None:
    engine, module = make_engine(model, tmp_path), plain(model)
    capped = getattr(module.config, "attn_logit_softcapping", None)  # of scores, which sdpa cannot
    assert engine.local.model.module.config._attn_implementation == ("eager" if capped else "sdpa")
    rollouts = drawn(engine)
    scores = engine.score(rollouts, BASE, temperature=1.0)
    for rollout, score in zip(rollouts, scores, strict=True):
        with torch.no_grad():
            expected = plain_logprobs(module, rollout).numpy()
        np.testing.assert_allclose(rollout.logprobs, expected, atol=1e-4)
        np.testing.assert_allclose(score.logprobs_T, expected, atol=1e-4)
        np.testing.assert_allclose(score.entropy_T, rollout.entropies, atol=1e-4)


@pytest.mark.parametrize("chunk", [chunking.CHUNK_NUMBERS, 5 * VOCABULARY], ids=["whole", "chunked"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_the_gradient_of_packed_rollouts_is_that_of_one_at_a_time(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, checkpointing: bool
) -> None:
    monkeypatch.setattr(chunking, "CHUNK_NUMBERS", chunk)
    engine = make_engine(model, tmp_path, microbatch_tokens=4096, gradient_checkpointing=checkpointing)
    batch = batch_of(drawn(engine), sub_batches=1)
    engine.gradient(batch, BASE, Informed(), out=Path("g.safetensors"))
    module = plain(model)
    for group in batch.groups[0]:
        for rollout, weight in zip(group.rollouts, group.weights_G.tolist(), strict=True):
            (plain_loss(module, rollout, weight) / batch.normaliser).backward()  # type: ignore[no-untyped-call]
    found = load_file(tmp_path / "g.safetensors")
    expected = {name: -p.grad for name, p in module.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    scale = sum(float(t.square().sum()) for t in expected.values()) ** 0.5
    gap = sum(float((found[n] - t).square().sum()) for n, t in expected.items()) ** 0.5
    assert gap < 1e-5 * scale


def test_recomputed_layers_hold_less_and_give_the_same_bits(model: Path, tmp_path: Path) -> None:
    peaks, digests = [], []
    for checkpointing in (False, True):
        engine = make_engine(model, tmp_path, microbatch_tokens=4096, gradient_checkpointing=checkpointing)
        batch = batch_of(drawn(engine, max_tokens=32), sub_batches=1)
        weights = engine.local.model.weights(BASE)
        peaks.append(watched(lambda: engine.local.gradient_at(weights, batch, 0, Informed()), device="cpu").peak)  # noqa: B023
        digests.append(engine.gradient(batch, BASE, Informed(), out=Path("g.safetensors")).digest)
    assert digests[0] == digests[1]
    assert peaks[1] < 0.8 * peaks[0]


TEMPLATE = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}~{% endfor %}{% if add_generation_prompt %}[bot]{% endif %}"


@pytest.mark.parametrize(
    ("template", "expected"), [(TEMPLATE, f"[user]{PROMPTS[0]}~[bot]"), (None, PROMPTS[0])], ids=["chat", "plain"]
)
def test_prompts_go_through_the_chat_template_where_there_is_one(
    tmp_path: Path, template: str | None, expected: str
) -> None:
    save_model(tmp_path, CONFIGS["llama"], chat_template=template)
    rollout, *_ = drawn(make_engine(tmp_path, tmp_path), count=1)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert "".join(tokenizer.decode([t]) for t in rollout.prompt_tokens) == expected
