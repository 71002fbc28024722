"""Teacher-forced forwards that run each prompt, and what completions share beyond it, once.

Does: pack groups into microbatches; forward a prompt with the tree of its completions (trees.py), or, where they share
too little, let every completion attend to its prompt's keys and values; return what objectives and scores need.
Doesn't: hold more than one microbatch, or distributions over the vocabulary (chunking.py); results are equal for every
microbatch size up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from harness.contracts import TokenBatch
from harness.types import Rollout, TokenCredit, WeightedGroup
from harness_engines import chunking, critic, recomputing, trees
from harness_engines.chunking import States
from harness_engines.decoding import prefill
from harness_engines.model import CausalModel
from harness_engines.splitting import Body
from harness_engines.trees import Tree

ALIKE = 64  # tokens; completions are not put in finer order of length, since neighbours may share a tree


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

    @property
    def passes(self) -> int:
        """Forwards of the body that `states` makes of it."""
        return 1 if self.trees or all(len(rollout.completion_tokens) == 1 for rollout in self.rollouts) else 2

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

    Groups are sorted by length first; with unit "rollout" a group too large for one microbatch is split, completions of
    like length together. With `as_trees` a group whose completions share enough becomes one row: its prompt and its tree.
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
        if unit == "group" or len(group.rollouts) * _length(group) <= max_tokens:
            yield group
        else:
            yield from _split(group, max_tokens)


def _split(group: WeightedGroup, max_tokens: int) -> Iterator[WeightedGroup]:
    """Longest completions first, as near as ALIKE, each part padded to its own longest."""
    lengths_G = [len(rollout.completion_tokens) for rollout in group.rollouts]
    left = sorted(range(len(lengths_G)), key=lambda i: -(lengths_G[i] // ALIKE))
    while left:
        longest = len(group.rollouts[0].prompt_tokens) + max(lengths_G[i] for i in left)
        size = max(1, max_tokens // longest)
        part, left = left[:size], left[size:]
        credits = None if group.credits is None else tuple(group.credits[i] for i in part)
        yield WeightedGroup(tuple(group.rollouts[i] for i in part), group.weights_G[part], credits)


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


def states(model: CausalModel, module: torch.nn.Module, micro: Micro, goal: Targets) -> States:
    """What predicts every completion token, `module` being a Body or a steering.Reader; the first token's comes from the
    prompt's last position."""
    return (_of_trees if micro.trees else _of_rows)(model, module, micro, goal)


def _of_trees(model: CausalModel, module: torch.nn.Module, micro: Micro, goal: Targets) -> States:
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
    return States(out.logits.flatten(0, 1), torch.from_numpy(position_BT).to(model.device))


def _of_rows(model: CausalModel, module: torch.nn.Module, micro: Micro, goal: Targets) -> States:
    """From a row for each completion that attends to its prompt's keys and values; positions of prompts come first."""
    start = prefill(model, module, [group[0].prompt_tokens.tolist() for group in micro.groups])
    prompt_of_B = micro.prompts().to(model.device)
    fed = goal.tokens_BT[:, :-1]
    if fed.shape[1] == 0:
        return States(start.logits_PV, prompt_of_B[:, None])
    cache = recomputing.prompts([(keys[prompt_of_B], values[prompt_of_B]) for keys, values in start.layers])
    offsets = torch.arange(fed.shape[1], device=model.device)
    out = module(
        input_ids=fed,
        attention_mask=torch.cat([start.mask_PT[prompt_of_B], torch.ones_like(fed, dtype=torch.bool)], dim=1),
        position_ids=start.lengths_P[prompt_of_B][:, None] + offsets,
        past_key_values=cache,
    )
    later_BT = len(micro.groups) + torch.arange(fed.numel(), device=model.device).view(fed.shape)
    hidden_MD = torch.cat([start.logits_PV, out.logits.flatten(0, 1)])
    return States(hidden_MD, torch.cat([prompt_of_B[:, None], later_BT], dim=1))


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
    goal, body, size = targets(model, micro.rollouts), Body(module), chunking.vocabulary(module)
    ref = None
    if "ref_logprob" in needs:  # before the policy's own forward, whose backward needs the policy's weights in place
        with torch.no_grad(), model.swapped(model.base):
            found = chunking.needed(states(model, body, micro, goal), goal.mask_BT, vocabulary=size)
            ref = chunking.tell(module, found, goal.tokens_BT, temperature=temperature, entropies=False).logprobs_BT
    seen = chunking.needed(states(model, body, micro, goal), goal.mask_BT, vocabulary=size)
    told = chunking.tell(module, seen, goal.tokens_BT, temperature=temperature, entropies="entropy" in needs)
    return TokenBatch(
        logprobs_BT=told.logprobs_BT,
        mask_BT=goal.mask_BT,
        weights_B=torch.from_numpy(micro.weights_B).float().to(model.device),
        entropy_BT=told.entropy_BT,
        old_logprobs_BT=goal.old_logprobs_BT,
        ref_logprobs_BT=ref,
        group_B=micro.prompts().to(model.device),
        values_BT=None if head_H is None or "value" not in needs else critic.values(seen, head_H),
        credit=critic.credit_of(micro.credits, goal.old_logprobs_BT),
    )
