"""Softmax policies over two-symbol strings, and their exact truth by enumeration.

Does: hold the four tables, and compute pass rates, gradients, KL, entropy and the expectation of any group-weighted
gradient estimator without sampling.
Doesn't: sample, read prompts or files (tabular.py).

A completion of class c is drawn as style s ~ softmax(style[c] + style_shared), then offset o ~
softmax(offset[c, s] + offset_shared), then the end with certainty. The digit written is (item + o) mod M, so what is
learnt of one item holds for all items of the class, and the shared tables carry it to other classes. Right: style 0
and offset 0. Temperature divides the logits. Shapes: C classes, S styles, M offsets; float64 throughout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from harness.advantages import group_advantages
from harness_engines.tabular_domain import ANSWERS, STYLES

Tables = dict[str, torch.Tensor]
COMPLETION_TOKENS = 3  # style, digit, end
NAMES = ("style", "style_shared", "offset", "offset_shared")


class LogProbs(NamedTuple):
    style_CS: torch.Tensor
    offset_CSM: torch.Tensor


def tables_for(pass_rates: Sequence[float]) -> Tables:
    """Tables whose class c is right with probability pass_rates[c], exactly, at temperature 1.

    Style and offset fail independently: each is right with probability sqrt(p). The likeliest wrong style is the
    second, the likeliest wrong offset 1; the modal completion is wrong in style below p = .16, in offset below .11. The
    shared tables hold a common preference, so that no table is all zero. Raises ValueError for a rate outside (0, 1).
    """
    if not pass_rates or not all(0.0 < p < 1.0 for p in pass_rates):
        raise ValueError(f"pass rates must lie strictly between 0 and 1, got {list(pass_rates)}")
    style_shared = torch.log(_descending(len(STYLES))).roll(1)
    offset_shared = torch.log(_descending(ANSWERS)).roll(1)
    right_C = [math.sqrt(p) for p in pass_rates]
    style_CS = torch.stack([torch.log(_one_right(right, len(STYLES))) for right in right_C])
    offset_CM = torch.stack([torch.log(_one_right(right, ANSWERS)) for right in right_C])
    return {
        "style": style_CS - style_shared,
        "style_shared": style_shared,
        "offset": (offset_CM - offset_shared)[:, None].repeat(1, len(STYLES), 1),
        "offset_shared": offset_shared,
    }


def _descending(size: int) -> torch.Tensor:
    weights = 0.5 ** torch.arange(size, dtype=torch.float64)
    return weights / weights.sum()


def _one_right(right: float, size: int) -> torch.Tensor:
    return torch.cat([torch.tensor([right], dtype=torch.float64), (1.0 - right) * _descending(size - 1)])


def class_index(tables: Mapping[str, torch.Tensor], level: int) -> int:
    """The table row of a level, counted from 1; levels beyond the last class share the last."""
    return min(level, tables["style"].shape[0]) - 1


def log_probs(tables: Mapping[str, torch.Tensor], temperature: float) -> LogProbs:
    return LogProbs(
        torch.log_softmax((tables["style"] + tables["style_shared"]) / temperature, dim=-1),
        torch.log_softmax((tables["offset"] + tables["offset_shared"]) / temperature, dim=-1),
    )


def entropy(logprobs: torch.Tensor) -> torch.Tensor:
    """Nats, over the last axis."""
    return -(logprobs.exp() * logprobs).sum(-1)


def kl(logprobs: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """KL(first || other) in nats, over the last axis."""
    return (logprobs.exp() * (logprobs - other)).sum(-1)


def pass_rate(
    tables: Mapping[str, torch.Tensor], level: int, *, temperature: float = 1.0, strict: bool = True
) -> float:
    """Probability of a right completion; with `strict` False any style will do (`format_free`)."""
    style_CS, offset_CSM = log_probs(tables, temperature)
    right_S = (style_CS + offset_CSM[:, :, 0])[class_index(tables, level)].exp()
    return float(right_S[0] if strict else right_S.sum())


def _pass_rates(tables: Mapping[str, torch.Tensor], levels: Sequence[int], temperature: float) -> torch.Tensor:
    style_CS, offset_CSM = log_probs(tables, temperature)
    return (style_CS[:, 0] + offset_CSM[:, 0, 0]).exp()[[class_index(tables, level) for level in levels]]


def exact_gradient(tables: Tables, levels: Sequence[int], *, temperature: float = 1.0) -> Tables:
    """Gradient of the mean strict pass rate over `levels` (one entry per problem)."""
    return _weighted_gradient(tables, levels, [1.0] * len(levels), temperature)


def expected_direction(
    tables: Tables, levels: Sequence[int], *, group: int, scheme: str, temperature: float = 1.0
) -> Tables:
    """Expectation of sum_i w_i grad log pi(y_i) / (problems x group), one problem a level; dead groups weigh what
    the scheme gives them."""
    rates = _pass_rates(tables, levels, temperature).tolist()
    gains = [expected_gain(p, group=group, scheme=scheme) / group for p in rates]
    return _weighted_gradient(tables, levels, gains, temperature)


def _weighted_gradient(tables: Tables, levels: Sequence[int], weights: Sequence[float], temperature: float) -> Tables:
    live = {name: t.detach().requires_grad_() for name, t in tables.items()}
    rates = _pass_rates(live, levels, temperature)
    mean = (rates * torch.tensor(weights, dtype=torch.float64)).mean()
    return dict(zip(live, torch.autograd.grad(mean, list(live.values())), strict=True))


def expected_gain(rate: float, *, group: int, scheme: str) -> float:
    """The factor between grad p and the expected group estimator E[sum_i w_i grad log pi(y_i)], rewards 0 and 1.

    With k ~ Binomial(G, p) successes of weight w+ and failures of weight w-, and conditional scores grad p / p and
    -grad p / (1 - p): sum over k of P(k) (k w+ / p - (G - k) w- / (1 - p)). RLOO gives G, centered G - 1.
    """
    total = 0.0
    for k in range(group + 1):
        weights_G = group_advantages([1.0] * k + [0.0] * (group - k), scheme).weights_G
        chance = math.comb(group, k) * rate**k * (1.0 - rate) ** (group - k)
        total += chance * float(np.sum(weights_G[:k]) / rate - np.sum(weights_G[k:]) / (1.0 - rate))
    return total


def exact_entropy(tables: Tables, levels: Sequence[int], *, temperature: float = 1.0) -> float:
    """Mean nats per token of the policy's own completions, problems weighted equally."""
    own = log_probs(tables, temperature)
    offset_C = (own.style_CS.exp() * entropy(own.offset_CSM)).sum(-1)
    return _per_token(tables, levels, entropy(own.style_CS) + offset_C)


def exact_kl(tables: Tables, other: Tables, levels: Sequence[int], *, temperature: float = 1.0) -> float:
    """KL(tables || other), mean nats per token of completions of `tables`, problems weighted equally."""
    own, theirs = log_probs(tables, temperature), log_probs(other, temperature)
    offset_C = (own.style_CS.exp() * kl(own.offset_CSM, theirs.offset_CSM)).sum(-1)
    return _per_token(tables, levels, kl(own.style_CS, theirs.style_CS) + offset_C)


def _per_token(tables: Tables, levels: Sequence[int], sums_C: torch.Tensor) -> float:
    return float(sums_C[[class_index(tables, level) for level in levels]].mean()) / COMPLETION_TOKENS
