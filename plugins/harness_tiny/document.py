"""What a pretraining document is.

Does: hold text with loss weights, and the noise draws that all corpora share.
Doesn't: know any domain.

A document is a list of segments; the end-of-text token after the last one has weight 1. Segments are cut where the
tokenizer cuts anyway, so that prompt segments give the tokens that the prompt gives at use.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from harness_tiny.splits import content_hash, split_of

Item = TypeVar("Item")


class Segment(NamedTuple):
    text: str
    weight: float


Document = list[Segment]


def weighted(rng: random.Random, shares: dict[Item, float]) -> Item:
    return rng.choices(list(shares), weights=list(shares.values()))[0]


def in_pretrain(prompt: str) -> bool:
    """Whether the ladder keeps this prompt for pretraining, hence out of train, selection and test for ever."""
    return split_of(content_hash(prompt)) == "pretrain"


def first(draw: Callable[[], Item | None], accept: Callable[[Item], bool]) -> Item:
    """The first usable and accepted draw."""
    while True:
        item = draw()
        if item is not None and accept(item):
            return item
