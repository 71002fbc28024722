"""Teacher-forced forwards that run each prompt, and what completions share beyond it, once.

Does: pack groups into microbatches; forward a prompt with the tree of its completions (trees.py), or, where they share
too little, let every completion attend to its prompt's keys and values; return what objectives and scores need.
Doesn't: hold more than one microbatch; results are equal for every microbatch size up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from transformers.cache_utils import DynamicCache

from harness.contracts import TokenBatch
from harness.types import Rollout, TokenCredit, WeightedGroup
from harness_engines import critic, trees
from harness_engines.decoding import prefill
from harness_engines.model import CausalModel
from harness_engines.trees import Tree


class Micro(NamedTuple):
    """One microbatch: groups of rollouts that share a prompt, with a weight per rollout; trees for all or for none.

    `credits` are those of the rollouts, or none at all.
    """

    groups: list[tuple[Rollout, ...]]
    weights_B: npt.NDArray[np.float64]
    trees: list[Tree]
    credits: list[TokenCredit]

    @property
    def rollouts(self) -> list[Rollout]:
        return [rollout for group in self.groups for rollout in group]

    def prompts(self) -> torch.Tensor:
        """[B]: whose group a rollout is in."""
        return torch.tensor([number for number, group in enumerate(self.groups) for _ in group])


class _Piece(NamedTuple):
    """What goes into one microbatch together; `rows` of at most `length` tokens each."""

    group: WeightedGroup
    tree: Tree | None
    rows: int
    length: int


class Targets(NamedTuple):
    """Completions right-padded to one width, on the device."""

    tokens_BT: torch.Tensor
    mask_BT: torch.Tensor
    old_logprobs_BT: torch.Tensor


def microbatches(groups: Iterable[WeightedGroup], *, max_tokens: int, unit: str, as_trees: bool) -> Iterator[Micro]:
    """Pack groups of similar length until rows x (prompt + completion) would pass `max_tokens`.

    Groups are sorted by length first; with unit "rollout" a group too large for one microbatch is split. With
    `as_trees` a group whose completions share enough becomes one row: its prompt and its tree.
    """
    pieces = [_piece(group, as_trees) for group in _parts(groups, max_tokens=max_tokens, unit=unit)]
    for as_tree in (True, False):
        yield from _packed([p for p in pieces if (p.tree is not None) is as_tree], max_tokens=max_tokens)


def _packed(pieces: Sequence[_Piece], *, max_tokens: int) -> Iterator[Micro]:
    pending: list[_Piece] = []
    rows = width = 0
    for piece in sorted(pieces, key=lambda piece: piece.length):
        wider = max(width, piece.length)
        if pending and (rows + piece.rows) * wider > max_tokens:
            yield _micro(pending)
            pending, rows, wider = [], 0, piece.length
        pending.append(piece)
        rows, width = rows + piece.rows, wider
    if pending:
        yield _micro(pending)


def _piece(group: WeightedGroup, as_trees: bool) -> _Piece:
    tree = trees.grow(group.rollouts) if as_trees else None
    if tree is None or not trees.pays(tree, group.rollouts):
        return _Piece(group, None, len(group.rollouts), _length(group))
    return _Piece(group, tree, 1, len(group.rollouts[0].prompt_tokens) + len(tree.tokens_U))


def _length(group: WeightedGroup) -> int:
    longest = max(len(r.completion_tokens) for r in group.rollouts)
    return len(group.rollouts[0].prompt_tokens) + longest


def _parts(groups: Iterable[WeightedGroup], *, max_tokens: int, unit: str) -> Iterator[WeightedGroup]:
    for group in groups:
        size = len(group.rollouts) if unit == "group" else max(1, max_tokens // _length(group))
        for start in range(0, len(group.rollouts), size):
            part = slice(start, start + size)
            credits = None if group.credits is None else group.credits[part]
            yield WeightedGroup(group.rollouts[part], group.weights_G[part], credits)


def _micro(pieces: Sequence[_Piece]) -> Micro:
    weights_B = np.concatenate([piece.group.weights_G for piece in pieces])
    return Micro(
        [piece.group.rollouts for piece in pieces],
        weights_B,
        [piece.tree for piece in pieces if piece.tree is not None],
        [credit for piece in pieces for credit in piece.group.credits or ()],
    )


def targets(model: CausalModel, rollouts: Sequence[Rollout]) -> Targets:
    width = max(len(r.completion_tokens) for r in rollouts)
    tokens = torch.full((len(rollouts), width), model.pad_id, dtype=torch.long)
    mask = torch.zeros((len(rollouts), width), dtype=torch.bool)
    old = torch.zeros((len(rollouts), width))
    for row, rollout in enumerate(rollouts):
        length = len(rollout.completion_tokens)
        tokens[row, :length] = torch.from_numpy(rollout.completion_tokens)
        old[row, :length] = torch.from_numpy(rollout.logprobs)
        mask[row, :length] = True
    return Targets(tokens.to(model.device), mask.to(model.device), old.to(model.device))


class Predictions(NamedTuple):
    """Logits [M, V] of the distinct positions, and the position [B, T] that predicts each completion token."""

    logits_MV: torch.Tensor
    position_BT: torch.Tensor


def predictions(model: CausalModel, module: torch.nn.Module, micro: Micro, goal: Targets) -> Predictions:
    """What predicts every completion token; the first comes from the prompt's last position."""
    if micro.trees:
        return _of_trees(model, module, micro, goal)
    logits_BTV = _of_rows(model, module, micro, goal)
    count = logits_BTV.shape[0] * logits_BTV.shape[1]
    position_BT = torch.arange(count, device=model.device).view(goal.tokens_BT.shape)
    return Predictions(logits_BTV.flatten(0, 1), position_BT)


def _of_trees(model: CausalModel, module: torch.nn.Module, micro: Micro, goal: Targets) -> Predictions:
    """One row for each prompt: padding, the prompt, its tree, padding."""
    prompts = [group[0].prompt_tokens for group in micro.groups]
    before, after = max(len(p) for p in prompts), max(len(tree.tokens_U) for tree in micro.trees)
    tokens_PL = np.full((len(prompts), before + after), model.pad_id, dtype=np.int64)
    places_PL = np.zeros_like(tokens_PL)
    seen_PLL = np.zeros((*tokens_PL.shape, before + after), dtype=np.bool_)
    seen_PLL[:, np.arange(before + after), np.arange(before + after)] = True  # a row that sees nothing would be NaN
    position_BT = np.zeros(goal.tokens_BT.shape, dtype=np.int64)
    row = 0
    for index, (prompt, tree) in enumerate(zip(prompts, micro.trees, strict=True)):
        first, end = before - len(prompt), before + len(tree.tokens_U)
        tokens_PL[index, first:before], tokens_PL[index, before:end] = prompt, tree.tokens_U
        places_PL[index, first:before], places_PL[index, before:end] = (
            range(len(prompt)),
            len(prompt) - 1 + tree.depths_U,
        )
        seen_PLL[index, first:before, first:before] = np.tri(len(prompt), dtype=np.bool_)
        seen_PLL[index, before:end, first:before] = True
        seen_PLL[index, before:end, before:end] = trees.ancestors(tree)
        nodes_GT = tree.nodes_GT
        position_BT[row : row + len(nodes_GT), : nodes_GT.shape[1]] = index * (after + 1) + nodes_GT
        row += len(nodes_GT)
    with model.residual.since(before - 1):
        out = module(
            input_ids=torch.from_numpy(tokens_PL).to(model.device),
            position_ids=torch.from_numpy(places_PL).to(model.device),
            attention_mask=torch.from_numpy(seen_PLL)[:, None].to(model.device),
            use_cache=False,
            logits_to_keep=after + 1,
        )
    return Predictions(out.logits.flatten(0, 1), torch.from_numpy(position_BT).to(model.device))


def _of_rows(model: CausalModel, module: torch.nn.Module, micro: Micro, goal: Targets) -> torch.Tensor:
    """Logits [B, T, V] from a row for each completion that attends to its prompt's keys and values."""
    start = prefill(model, module, [group[0].prompt_tokens.tolist() for group in micro.groups])
    prompt_of_B = micro.prompts().to(model.device)
    first = start.logits_PV[prompt_of_B][:, None]
    if goal.tokens_BT.shape[1] == 1:
        return first
    cache = DynamicCache()
    for index, (keys, values) in enumerate(start.layers):
        cache.update(keys[prompt_of_B], values[prompt_of_B], index)
    fed = goal.tokens_BT[:, :-1]
    offsets = torch.arange(fed.shape[1], device=model.device)
    out = module(
        input_ids=fed,
        attention_mask=torch.cat([start.mask_PT[prompt_of_B], torch.ones_like(fed, dtype=torch.bool)], dim=1),
        position_ids=start.lengths_P[prompt_of_B][:, None] + offsets,
        past_key_values=cache,
    )
    return torch.cat([first, out.logits], dim=1)


def log_softmax(logits_MV: torch.Tensor, temperature: float) -> torch.Tensor:
    return torch.log_softmax(logits_MV.float() / temperature, dim=-1)


def entropy(logprobs_MV: torch.Tensor) -> torch.Tensor:
    return -(logprobs_MV.exp() * logprobs_MV).sum(-1)


class Valued(NamedTuple):
    """What predicts every completion token, and the value [B, T] of the state before it."""

    logits_MV: torch.Tensor
    position_BT: torch.Tensor
    values_BT: torch.Tensor


def valued(model: CausalModel, module: torch.nn.Module, micro: Micro, goal: Targets, *, head_H: torch.Tensor) -> Valued:
    """As `predictions`, with what a value head says."""
    with critic.reading(module, head_H) as seen:
        logits_MV, position_BT = predictions(model, module, micro, goal)
    values_RL, *others = seen
    if not micro.trees:  # those of the prompts: the last position predicts the first token of each completion
        values_RL = torch.cat([values_RL[micro.prompts().to(model.device), -1:], *others], dim=1)
    return Valued(logits_MV, position_BT, values_RL.flatten()[position_BT])


def token_batch(
    model: CausalModel,
    module: torch.nn.Module,
    micro: Micro,
    *,
    temperature: float,
    needs: frozenset[str],
    head_H: torch.Tensor | None = None,
) -> TokenBatch:
    """What an objective sees, with the graph of the current policy, and of a value head, behind it."""
    goal = targets(model, micro.rollouts)
    ref = None
    if "ref_logprob" in needs:  # before the policy's own forward, whose backward needs the policy's weights in place
        with torch.no_grad(), model.swapped(model.base):
            found = predictions(model, module, micro, goal)
            ref = log_softmax(found.logits_MV, temperature)[found.position_BT, goal.tokens_BT]
    values_BT = None
    if head_H is None or "value" not in needs:
        logits_MV, position_BT = predictions(model, module, micro, goal)
    else:
        logits_MV, position_BT, values_BT = valued(model, module, micro, goal, head_H=head_H)
    logprobs_MV = log_softmax(logits_MV, temperature)
    return TokenBatch(
        logprobs_BT=logprobs_MV[position_BT, goal.tokens_BT],
        mask_BT=goal.mask_BT,
        weights_B=torch.from_numpy(micro.weights_B).float().to(model.device),
        entropy_BT=entropy(logprobs_MV)[position_BT] if "entropy" in needs else None,
        old_logprobs_BT=goal.old_logprobs_BT,
        ref_logprobs_BT=ref,
        group_B=micro.prompts().to(model.device),
        values_BT=values_BT,
        credit=critic.credit_of(micro.credits, goal.old_logprobs_BT),
    )
