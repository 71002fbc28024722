"""Fixtures shared by tests: a random tiny transformer with a character tokenizer, made once per session."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_kit import VOCABULARY, save_model
from transformers import LlamaConfig

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a 2-layer Llama of random weights (tied embeddings, grouped queries) in fp32."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
        initializer_range=0.3,
    )
    return save_model(tmp_path_factory.mktemp("random_model"), config)
