"""Log-probabilities and entropies of hidden states, a chunk of positions at a time, forward and backward.

Does: bound what is held of the distributions over the vocabulary. Where all of them fit into one chunk they are kept for
the backward as usual; else the backward makes each chunk's logits again, so that nothing of the size positions x vocabulary
exists at any time, and moves the gradient of the head's weights on chunk by chunk.
Doesn't: run bodies of models (splitting.py) or choose microbatches (forward.py).

With z the logits over the temperature, p = softmax(z), a weight w_k on log p(y_k) and u on the entropy H of a position, the
gradient by z is sum_k w_k (onehot(y_k) - p) - u p (log p + H).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from harness_engines import splitting

CHUNK_NUMBERS = 2**25  # positions x vocabulary; 134 MB in fp32, of which a chunk's backward holds about four


class States(NamedTuple):
    """Hidden states [M, D] of the distinct positions, and the position [B, T] that predicts each completion token."""

    hidden_MD: torch.Tensor
    position_BT: torch.Tensor


class Told(NamedTuple):
    """Of completion tokens: log-probability, and the entropy before it where it was asked for."""

    logprobs_BT: torch.Tensor
    entropy_BT: torch.Tensor | None


def log_softmax(logits_MV: torch.Tensor, temperature: float) -> torch.Tensor:
    return torch.log_softmax(logits_MV.float() / temperature, dim=-1)


def entropy(logprobs_MV: torch.Tensor) -> torch.Tensor:
    return -(logprobs_MV.exp() * logprobs_MV).sum(-1)


def parts(positions: int, vocabulary: int) -> list[slice]:
    """Positions in chunks of at most CHUNK_NUMBERS logits."""
    size = max(1, CHUNK_NUMBERS // vocabulary)
    return [slice(start, min(start + size, positions)) for start in range(0, positions, size)]


def vocabulary(module: torch.nn.Module) -> int:
    """How many logits a position has."""
    config: Any = module.config
    return int(config.get_text_config().vocab_size)


def needed(states: States, mask_BT: torch.Tensor, *, vocabulary: int) -> States:
    """Where one chunk is not enough: without the states that predict padding alone, whose position becomes any other."""
    if len(parts(len(states.hidden_MD), vocabulary)) == 1:
        return states
    used, place_K = torch.unique(states.position_BT[mask_BT], return_inverse=True)
    position_BT = torch.zeros_like(states.position_BT).masked_scatter_(mask_BT, place_K)
    return States(states.hidden_MD[used], position_BT)


def tell(
    module: torch.nn.Module, states: States, tokens_BT: torch.Tensor, *, temperature: float, entropies: bool
) -> Told:
    """Differentiable. The module's weights must be in place until the backward is done, which then adds to the gradients of
    the head's parameters as every backward() does; torch.autograd.grad would not see them."""
    hidden_MD, position_BT = states
    if len(parts(len(hidden_MD), vocabulary(module))) == 1:
        logprobs_MV = log_softmax(splitting.logits(module, hidden_MD), temperature)
        entropy_M = entropy(logprobs_MV) if entropies else None
        logprobs_BT = logprobs_MV[position_BT, tokens_BT]
    else:
        pairs = Pairs(position_BT.flatten(), tokens_BT.flatten())
        asked = _Asked(module, pairs, temperature, entropies)
        logprobs_K, entropy_M = _Chunked.apply(hidden_MD, asked)  # type: ignore[no-untyped-call]
        logprobs_BT = logprobs_K.view(tokens_BT.shape)
    return Told(logprobs_BT, None if entropy_M is None else entropy_M[position_BT])


class Pairs(NamedTuple):
    """A position and a token that it predicts."""

    position_K: torch.Tensor
    token_K: torch.Tensor

    def inside(self, part: slice) -> torch.Tensor:
        """Numbers of the pairs whose position is in the chunk."""
        is_inside_K = (self.position_K >= part.start) & (self.position_K < part.stop)
        return torch.nonzero(is_inside_K).flatten()

    def places(self, inside: torch.Tensor, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Row and column of these pairs in the chunk's logits."""
        return self.position_K[inside] - part.start, self.token_K[inside]


class _Asked(NamedTuple):
    """What is to be told of hidden states, and by which module."""

    module: torch.nn.Module
    pairs: Pairs
    temperature: float
    entropies: bool


class _Chunked(torch.autograd.Function):
    """(log-probabilities of the pairs, entropies of the positions or None), from hidden states."""

    @staticmethod
    def forward(ctx: Any, hidden_MD: torch.Tensor, asked: _Asked) -> tuple[torch.Tensor, torch.Tensor | None]:
        module, pairs, temperature, entropies = asked
        logprobs_K = torch.empty(len(pairs.token_K), device=hidden_MD.device)
        entropy_M = torch.empty(len(hidden_MD), device=hidden_MD.device) if entropies else None
        for part in parts(len(hidden_MD), vocabulary(module)):
            logprobs_CV = log_softmax(splitting.logits(module, hidden_MD[part]), temperature)
            inside = pairs.inside(part)
            logprobs_K[inside] = logprobs_CV[pairs.places(inside, part)]
            if entropy_M is not None:
                entropy_M[part] = entropy(logprobs_CV)
        ctx.save_for_backward(hidden_MD, *() if entropy_M is None else (entropy_M,))
        ctx.asked = asked
        return logprobs_K, entropy_M

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> tuple[torch.Tensor, None]:
        (hidden_MD, *entropies), (module, pairs, temperature, _) = ctx.saved_tensors, ctx.asked
        to_logprobs_K, to_entropy_M = slopes
        to_hidden_MD = torch.empty_like(hidden_MD)
        for part in parts(len(hidden_MD), vocabulary(module)):
            with torch.enable_grad():
                own_CD = hidden_MD[part].detach().requires_grad_()
                logits_CV = splitting.logits(module, own_CD)
            inside = pairs.inside(part)
            slope_CV = _slope(
                log_softmax(logits_CV.detach(), temperature),
                pairs.places(inside, part),
                to_logprobs_K[inside],
                entropies=(entropies[0][part], to_entropy_M[part]) if entropies else None,
            )
            torch.autograd.backward(logits_CV, slope_CV.div_(temperature).to(logits_CV.dtype))
            to_hidden_MD[part] = own_CD.grad
        return to_hidden_MD, None


def _slope(
    logprobs_CV: torch.Tensor,
    places: tuple[torch.Tensor, torch.Tensor],
    weight_K: torch.Tensor,
    *,
    entropies: tuple[torch.Tensor, torch.Tensor] | None,
) -> torch.Tensor:
    """The gradient by the logits over the temperature; `logprobs_CV` is used up. `entropies` and what they weigh."""
    weight_C = weight_K.new_zeros(len(logprobs_CV)).index_add_(0, places[0], weight_K)
    slope_CV = logprobs_CV.exp()
    if entropies is None:
        slope_CV.mul_(-weight_C[:, None])
    else:
        entropy_C, weigh_C = entropies
        factor_CV = logprobs_CV.add_(entropy_C[:, None]).mul_(weigh_C[:, None]).add_(weight_C[:, None])
        slope_CV.mul_(factor_CV).neg_()
    return slope_CV.index_put_(places, weight_K, accumulate=True)
