"""Tiny transformers of random weights with a character tokenizer, made from their configurations."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedTokenizerFast

CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " \n"
VOCABULARY = 1 + len(CHARACTERS)  # 0 ends a completion


def save_tokenizer(folder: Path, *, size: int = VOCABULARY, chat_template: str | None = None) -> None:
    """Character tokens; more of them, up to `size`, are words that no text has."""
    more = {f"<{i}>": i for i in range(VOCABULARY, size)}
    vocabulary = {"<eos>": 0, **{c: i + 1 for i, c in enumerate(CHARACTERS)}, **more}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")
    made.chat_template = chat_template
    made.save_pretrained(folder)


def save_model(folder: Path, config: PretrainedConfig, **tokenizer: Any) -> Path:
    """The folder, with weights in fp32 that are the same every time."""
    save_tokenizer(folder, **tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return folder
