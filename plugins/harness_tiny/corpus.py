"""The pretraining corpus: documents of three domains in fixed shares, tokenized, never repeated.

Does: draw the documents of one optimizer step from (seed, step) alone, so that a run can resume anywhere.
Doesn't: cache anything; making and tokenizing text costs about a fiftieth of the training time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from harness.seeds import python_random, seed_for
from harness_tiny import corpus_arc, corpus_code, corpus_math
from harness_tiny.document import Document, weighted

SHARES = {"math": 0.40, "code": 0.22, "arc": 0.38}
_DOMAINS = {"math": corpus_math.document, "code": corpus_code.document, "arc": corpus_arc.document}


class Encoder(Protocol):
    """What this module needs of a tokenizer."""

    eos_token_id: int

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


class Tokens(NamedTuple):
    """A tokenized document; `weights[i]` is the loss weight of predicting `ids[i]`."""

    ids: list[int]
    weights: list[float]


def document(rng: random.Random, progress: float) -> Document:
    return _DOMAINS[weighted(rng, SHARES)](rng, progress)


def tokenize(document: Document, encoder: Encoder) -> Tokens:
    ids: list[int] = []
    weights: list[float] = []
    for segment in document:
        piece = encoder.encode(segment.text, add_special_tokens=False)
        ids += piece
        weights += [segment.weight] * len(piece)
    return Tokens([*ids, encoder.eos_token_id], [*weights, 1.0])


def step_documents(encoder: Encoder, *, seed: int, step: int, progress: float, tokens: int) -> list[Tokens]:
    """Documents of one optimizer step, at least `tokens` tokens in all, shortest first."""
    rng = python_random(seed_for(seed, f"pretrain/{step}"))
    documents, total = [], 0
    while total < tokens:
        documents.append(tokenize(document(rng, progress), encoder))
        total += len(documents[-1].ids)
    return sorted(documents, key=lambda d: len(d.ids))


def sample_texts(*, seed: int, count: int) -> Iterator[str]:
    """Plain texts for training the tokenizer, from all stages of the curriculum."""
    rng = python_random(seed_for(seed, "tokenizer"))
    for _ in range(count):
        yield "".join(segment.text for segment in document(rng, rng.random()))
