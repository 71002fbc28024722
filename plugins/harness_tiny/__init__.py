"""The embedded base model: weights, tokenizer, corpus, pretraining recipe and model card (README.md).

Does: say where the weights lie; they load like any other Hugging Face checkpoint.
Doesn't: load them, or anything heavy, on import.
"""

from __future__ import annotations

from pathlib import Path


def weights_path() -> Path:
    """The folder with config.json, generation_config.json, model.safetensors and the tokenizer files."""
    return Path(__file__).resolve().parent / "weights"
