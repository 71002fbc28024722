"""The records that travel between stages.

Does: define frozen, keyword-only records.
Doesn't: import torch, read files or hold behaviour beyond derived properties. What plugins implement is in contracts.py.

Four things are never confused: a wrong answer (`Outcome.WRONG`), an unparseable answer (`Outcome.UNPARSED`),
a truncated completion (`Finish.LENGTH`, on the rollout) and a failing verifier (`Outcome.ERROR`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from harness.errors import HarnessError

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]


def require_inside(path: str) -> None:
    """Raises HarnessError for a path that leads out of the folder it is relative to: records may be other people's."""
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise HarnessError(f"a record names the file {path!r}, which is outside of its run folder")


class Outcome(StrEnum):
    """What the verifier says of one completion."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSED = "unparsed"
    TIMEOUT = "timeout"
    ERROR = "error"


class Finish(StrEnum):
    """Why the sampler stopped."""

    STOP = "stop"
    LENGTH = "length"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One task. `prompt` is plain text; `answer` is what the domain's verifier compares with.

    `meta["answer_format"]` is "strict" or "lenient" (docs/design.md section 5); domains may keep more there.
    """

    id: str
    prompt: str
    answer: Json
    level: int | None = None
    subject: str | None = None
    meta: Mapping[str, Json] = field(default_factory=dict)

    @property
    def content_hash(self) -> str:
        """sha256 of the prompt with white space collapsed: two problems with one prompt are one problem."""
        return hashlib.sha256(" ".join(self.prompt.split()).encode()).hexdigest()

    @property
    def strict(self) -> bool:
        return self.meta.get("answer_format", "lenient") == "strict"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rollout:
    """One completion drawn from one policy.

    `completion_tokens` includes the end-of-sequence token when `finish` is STOP. `logprobs` has one entry per
    completion token: the sampler's natural-log probability at the sampling temperature, and `entropies` that of the
    distribution it was drawn from, in nats, where the sampler knows it. `text` is without EOS.
    """

    problem_id: str
    sample_idx: int
    policy: str
    seed: int
    prompt_tokens: IntArray
    completion_tokens: IntArray
    logprobs: FloatArray
    text: str
    finish: Finish
    entropies: FloatArray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`extracted` is the canonical answer (votes use it); `seconds` and `verifier` are stamped by the pool."""

    outcome: Outcome
    extracted: str | None = None
    format_ok: bool = False
    detail: str = ""
    seconds: float = 0.0
    verifier: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One term of a policy recipe: `direction` adds step * tensors, `checkpoint` replaces the weights, `noise` adds
    step * (each tensor's root mean square) * standard normal draws.

    `path` is relative to the run folder; `digest` is the sha256 of the file's content. Noise has no file: `path` is
    empty and `digest` its seed in hex, from which an engine makes it again (plugins/harness_engines/noise.py).
    """

    kind: str
    path: str
    digest: str
    step: float = 1.0

    def __post_init__(self) -> None:
        require_inside(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A recipe, never a mutated model: the base and the moves applied to it, in order."""

    base: str
    moves: tuple[Move, ...] = ()

    @property
    def id(self) -> str:
        parts = [[m.kind, m.digest, m.step] for m in self.moves]
        return hashlib.sha256(json.dumps([self.base, parts]).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """What a method hands in to be evaluated on test problems.

    `combine`: "single" scores each of `n` completions; "vote" takes the majority of the canonical answers of
    `n` completions of every policy; "oracle" counts a problem as solved when any completion is correct.
    `temperature` None means the run's sampling temperature. `prefix` is put before every prompt.
    """

    policies: tuple[Policy, ...]
    temperature: float | None = None
    n: int | None = None
    combine: str = "single"
    prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """An ascent direction in parameter space, stored as one safetensors file at `path` (relative to the run).

    `rms` is a second file of a raw gradient, for the kind "adam": of every weight, the root mean square over sub-batches of
    their shares of the gradient. It is empty where nobody asked for it.

    `norm` is the Euclidean norm over all tensors, `weight_norm` that of the parameters it was taken at. `snr`,
    `agreement` and `half_cosine` come from `sub_batches` disjoint sub-batches (docs/metrics.md) and are None
    below four. `logprob_gap` is the largest |trainer - sampler| token log-probability of the batch, in nats.
    """

    id: str
    kind: str
    norm: float
    weight_norm: float
    path: str
    digest: str
    groups_used: int = 0
    groups_dead: int = 0
    sub_batches: int = 0
    snr: float | None = None
    agreement: float | None = None
    half_cosine: float | None = None
    logprob_gap: float | None = None
    batch_pass_rate: float | None = None
    tokens: int = 0
    rms: str = ""

    def __post_init__(self) -> None:
        require_inside(self.path)
        require_inside(self.rms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Verdict counts of one contender on one problem set; tuples are per problem, in `problem_ids` order.

    `correct` is judged in the benchmark's own answer format, `correct_free` leniently; rollouts of which
    one of the two verdicts is an ERROR are outside `n`. Shares are over all drawn completions.
    """

    problem_ids: tuple[str, ...]
    n: tuple[int, ...]
    correct: tuple[int, ...]
    correct_free: tuple[int, ...]
    format: float
    truncated: float
    unparsed: float
    timeouts: float
    errors: int

    @property
    def accuracy(self) -> float:
        """Mean over problems of correct / n; problems without a verdict are left out; NaN when none is left."""
        rates = [c / n for c, n in zip(self.correct, self.n, strict=True) if n]
        return float(np.mean(rates)) if rates else float("nan")

    @property
    def accuracy_free(self) -> float:
        rates = [c / n for c, n in zip(self.correct_free, self.n, strict=True) if n]
        return float(np.mean(rates)) if rates else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One point of a search: a step along a direction (or any other policy) scored on the selection split.

    `kl` is KL(base || candidate) and `entropy` the candidate's own, both mean nats per token (section 4 of
    docs/design.md); `kl_target` is what the step was solved for.
    """

    policy: Policy
    step: float
    relative_step: float
    score: Score
    kl: float | None = None
    entropy: float | None = None
    kl_target: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainStep:
    """One optimizer update: the policy after it, and what its batch showed of the policy before it.

    `pass_rate` is the share of correct rollouts (of the verdicts, whatever was rewarded), `mean_tokens` the mean length
    of completions, `grad_norm` before clipping. A batch without signal changes nothing: loss and norm are 0.
    """

    policy: Policy
    pass_rate: float
    groups_dead: int
    mean_tokens: float
    loss: float
    grad_norm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A finished search: every candidate, zero first, and which one was chosen and which scored best."""

    candidates: tuple[Candidate, ...]
    chosen: int
    best: int

    @property
    def winner(self) -> Candidate:
        return self.candidates[self.chosen]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
    """`len(sample_idxs)` completions of one prompt; `seeds` holds one 63-bit seed per completion.

    `temperature` 0 means greedy.
    """

    problem_id: str
    prompt: str
    sample_idxs: tuple[int, ...]
    seeds: tuple[int, ...]
    temperature: float
    max_tokens: int


Shard: TypeAlias = tuple[SampleRequest, ...]


class TokenScore(NamedTuple):
    """Teacher-forced quantities of one rollout, one entry per completion token, in nats."""

    logprobs_T: FloatArray
    entropy_T: FloatArray
    kl_T: FloatArray | None


class TokenCredit(NamedTuple):
    """What an actor-critic learns from one rollout, one entry per completion token.

    `values_T` are those of the states before the tokens, as they were when the rollout was drawn; `returns_T` what they
    should have been; `advantages_T` weigh the tokens in the place of the rollout's weight.
    """

    advantages_T: FloatArray
    returns_T: FloatArray
    values_T: FloatArray


class WeightedGroup(NamedTuple):
    """Rollouts of one problem, none of weight 0, and one weight each; for an actor-critic the credit of their tokens."""

    rollouts: tuple[Rollout, ...]
    weights_G: npt.NDArray[np.float64]
    credits: tuple[TokenCredit, ...] | None = None
