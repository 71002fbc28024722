"""The distinct prefixes of one prompt's completions as a tree, so that what completions share is computed once.

Does: number the prefixes of a group, and build the attention mask under which one row of tokens holds prompt and tree.
Doesn't: run a model (forward.py).

At temperature 1 the embedded model's completions of a prompt share most of their tokens (of 16, about a third of the
prefixes are distinct), so a tree has a third of the tokens. Long texts part early and share nothing: see `pays`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness.types import Rollout

MAX_SHARE = 0.8  # of a tree's nodes to all tokens, above which a row for each completion is as good
MAX_NODES = 2048  # the mask grows with the square

Ints = npt.NDArray[np.int64]


class Tree(NamedTuple):
    """Node 0 is the end of the prompt, node i > 0 the prefix that ends with `tokens_U[i - 1]`.

    `parents_U` and `depths_U` (1 for a first token) are those of nodes 1, 2, ...; parents come before children.
    `nodes_GT` names the node that predicts token t of completion g; entries beyond a completion's end are 0.
    """

    tokens_U: Ints
    parents_U: Ints
    depths_U: Ints
    nodes_GT: Ints


def grow(group: Sequence[Rollout]) -> Tree:
    """The tree of the completions of one prompt."""
    lengths_G = np.array([len(rollout.completion_tokens) for rollout in group])
    tokens_GT = np.zeros((len(group), int(lengths_G.max())), dtype=np.int64)
    for row, rollout in enumerate(group):
        tokens_GT[row, : lengths_G[row]] = rollout.completion_tokens
    nodes_GT = np.zeros_like(tokens_GT)
    base = int(tokens_GT.max()) + 1
    tokens, parents, depths, count = [], [], [], 1
    for t in range(1, tokens_GT.shape[1]):
        on = np.flatnonzero(lengths_G > t)
        keys, of = np.unique(nodes_GT[on, t - 1] * base + tokens_GT[on, t - 1], return_inverse=True)
        nodes_GT[on, t] = count + of
        count += len(keys)
        parents.append(keys // base)
        tokens.append(keys % base)
        depths.append(np.full(len(keys), t))
    none = [np.zeros(0, dtype=np.int64)]
    return Tree(np.concatenate(none + tokens), np.concatenate(none + parents), np.concatenate(none + depths), nodes_GT)


def pays(tree: Tree, group: Sequence[Rollout]) -> bool:
    total = sum(len(rollout.completion_tokens) - 1 for rollout in group)
    return len(tree.tokens_U) <= min(MAX_SHARE * total, MAX_NODES)


def ancestors(tree: Tree) -> npt.NDArray[np.bool_]:
    """[U, U]: whether the column's node is the row's, or before it on the way from the prompt."""
    seen_UU = np.eye(len(tree.tokens_U), dtype=np.bool_)
    for node, parent in enumerate(tree.parents_U):
        if parent:
            seen_UU[node] |= seen_UU[parent - 1]
    return seen_UU
