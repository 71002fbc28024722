"""Models of random weights in the shapes of real ones, and problems whose verdicts are coins: what gpu.py works on.

Does: make the checkpoint in a folder; count its FLOPs; give a domain of its own.
Doesn't: say anything about learning: the weights know nothing, and a verdict is a bit of the completion's checksum.
"""

from __future__ import annotations

import string
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

from harness import seeds
from harness.contracts import Benchmark, Specimen
from harness.hookspecs import Register, hookimpl
from harness.types import Outcome, Problem, Rollout, Verdict
from harness_engines import chunking

PROMPT = 256  # tokens


class Shape(NamedTuple):
    """`config` of a Qwen2 model; how much each measure does with it."""

    config: dict[str, Any]
    matrix: int  # side of the squares whose product is the ceiling
    prompts: int  # each sampled 16 times in one shard
    completion: int  # tokens
    microbatch: int  # tokens, where memory is what is measured
    chunk: int  # logits, there as well
    budget: int
    selection: int
    budget_completion: int


SHAPES = {
    "qwen2.5-math-1.5b": Shape(
        config={
            "vocab_size": 151_936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
            "num_attention_heads": 12, "num_key_value_heads": 2, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
        },
        matrix=8192, prompts=32, completion=256, microbatch=2048, chunk=chunking.CHUNK_NUMBERS, budget=4096, selection=2048, budget_completion=128,
    ),
    "tiny": Shape(
        config={
            "vocab_size": 8192, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "tie_word_embeddings": True,
        },
        matrix=256, prompts=2, completion=8, microbatch=8192, chunk=2**16, budget=64, selection=32, budget_completion=4,
    ),
}  # fmt: skip


def save(shape: Shape, folder: Path, *, dtype: torch.dtype) -> None:
    """A checkpoint with a tokenizer of one token for each byte, and fillers; nothing ends a completion but chance."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(f"<{number}>" for number in range(len(alphabet), shape.config["vocab_size"]))]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges=[]))
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=tokens[-1], pad_token=tokens[-1])
    made.save_pretrained(folder)  # read as the tokenizer of the model's type, which cuts text into bytes
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config_of(shape), dtype=dtype).save_pretrained(folder)


def config_of(shape: Shape) -> Qwen2Config:
    last = shape.config["vocab_size"] - 1
    return Qwen2Config(**shape.config, bos_token_id=None, eos_token_id=last, pad_token_id=last)


def flops(shape: Shape, parameters: int, groups: Sequence[Sequence[Rollout]]) -> float:
    """Of a forward and a backward over the distinct tokens of the groups, nothing computed twice: 6 for each parameter
    (the tied embeddings are the head's matrix) and token, 12 for each layer, token that is seen and number of its heads."""
    config = shape.config
    tokens = seen = 0
    for group in groups:
        prompt = len(group[0].prompt_tokens)
        tokens, seen = tokens + prompt, seen + prompt * (prompt + 1) // 2
        for length in (len(rollout.completion_tokens) for rollout in group):
            tokens, seen = tokens + length, seen + length * prompt + length * (length + 1) // 2
    return 6.0 * parameters * tokens + 12.0 * config["num_hidden_layers"] * config["hidden_size"] * seen


class Coins:
    """The `Domain`: prompts of random letters; a completion is right by one bit of its checksum."""

    name = "coins"
    version = 1

    def benchmarks(self) -> Iterable[Benchmark]:
        splits = ("train", "selection", "test")
        yield Benchmark("ladder", splits, answer_format="strict", licence="-", source="random letters", max_tokens=128)

    def problems(self, benchmark: str, split: str, *, seed: int, limit: int) -> Iterator[Problem]:
        for number in range(limit):
            draw = seeds.python_random(seeds.seed_for(seed, f"coins/{split}", str(number)))
            prompt = "".join(draw.choices(string.ascii_lowercase, k=PROMPT))
            meta = {"answer_format": "strict"}
            yield Problem(id=f"{split}/{number}", prompt=prompt, answer=number, level=None, subject="coins", meta=meta)

    def verify(self, problem: Problem, completion: str) -> Verdict:
        is_right = zlib.crc32(f"{problem.id} {completion}".encode()) & 1
        return Verdict(outcome=Outcome.CORRECT if is_right else Outcome.WRONG, format_ok=True)

    def specimens(self, problem: Problem) -> Iterable[Specimen]:
        return ()


class Plugin:
    """Registers the domain."""

    @hookimpl
    def harness_register_domains(self, register: Register) -> None:
        register(Coins.name, f"{__name__}:{Coins.__name__}", summary="verdicts by chance, for measures of speed")
