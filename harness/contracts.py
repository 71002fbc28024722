"""What plugins implement: the Domain, Engine, Trainer, Objective and Method protocols, and what passes between them.

Does: state shapes, units and promises; the records themselves are in types.py.
Doesn't: import torch or do anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from harness.types import (
    Contender,
    Direction,
    FloatArray,
    Outcome,
    Policy,
    Problem,
    Rollout,
    Shard,
    TokenScore,
    Verdict,
    WeightedGroup,
)

if TYPE_CHECKING:
    import torch

    from harness.stages import Stages


class Batch(Protocol):
    """What a gradient is taken of. Picklable, so that workers read their own share from disk."""

    @property
    def temperature(self) -> float: ...
    @property
    def normaliser(self) -> float: ...
    @property
    def num_sub_batches(self) -> int: ...
    def read(self, sub_batch: int) -> Iterator[WeightedGroup]:
        """The live groups of one sub-batch, in a fixed order, streamed."""
        ...


class Credit(NamedTuple):
    """The TokenCredit of a microbatch's rollouts; padding is 0."""

    advantages_BT: torch.Tensor
    returns_BT: torch.Tensor
    old_values_BT: torch.Tensor


class TokenBatch(NamedTuple):
    """One microbatch as an objective sees it; rows are rollouts, columns completion tokens.

    `group_B` numbers the groups of the microbatch from 0, as the batch gave them; `credit` is what the batch gave, too.
    `values_BT` are what an actor-critic's value head says of the state before each token. Padding is where `mask_BT` is
    false: what stands there means nothing.
    """

    logprobs_BT: torch.Tensor
    mask_BT: torch.Tensor
    weights_B: torch.Tensor
    entropy_BT: torch.Tensor | None
    old_logprobs_BT: torch.Tensor
    ref_logprobs_BT: torch.Tensor | None
    group_B: torch.Tensor | None = None
    values_BT: torch.Tensor | None = None
    credit: Credit | None = None


class Objective(Protocol):
    """A loss to minimise, summed over rollouts; the engine divides once by the batch's normaliser.

    `needs` is a subset of {"entropy", "ref_logprob", "value"}; log-probabilities of the current policy and of the sampler
    (`old_logprobs_BT`) always come, values from an ActorCritic alone. `unit` is "rollout", or "group" when a group may not
    be split.
    """

    @property
    def needs(self) -> frozenset[str]: ...
    @property
    def unit(self) -> str: ...
    def loss(self, batch: TokenBatch) -> torch.Tensor: ...


class Displacement(NamedTuple):
    """How far a policy is from its base: |delta|, |delta| / |theta|, share of weights changed after the cast."""

    norm: float
    relative: float
    changed: float


class Loaded(NamedTuple):
    """A policy as transformers has it: a model in memory, with the policy's weights in it, and its tokenizer."""

    model: Any
    tokenizer: Any


class EngineLimits(NamedTuple):
    """`context` in tokens (None: unknown); `shard_rollouts` is the sampling batch; `bytes_per_token` is the key-value cache."""

    context: int | None
    shard_rollouts: int
    parameters: int
    bytes_weights: int
    bytes_per_token: int


class Transfers(NamedTuple):
    """Bytes between this process and workers elsewhere: back to it for a gradient, to each worker for a policy that has
    files, back for a drawn token, and to a worker for a token of a rollout that another one drew.

    At most `sharing` workers have a part in a gradient.
    """

    gradient: float
    policy: float
    drawn: float
    weighed: float
    sharing: int


class Optimizer(NamedTuple):
    """AdamW as in torch; `clip` bounds the gradient norm (None: never)."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    clip: float | None = 1.0


class Trainer(Protocol):
    """Optimizer state over live weights. `save` and `load` make every step resumable."""

    def step(self, batch: Batch, objective: Objective) -> Mapping[str, float]:
        """One update; returns flat numbers (loss, grad_norm, tokens)."""
        ...

    def checkpoint(self, path: Path) -> None:
        """Write the live weights to one safetensors file."""
        ...

    def save(self, path: Path) -> None: ...
    def load(self, path: Path) -> None: ...


class ActorCritic(Trainer, Protocol):
    """A trainer with a value head beside the policy: a linear function of the last hidden state, zero at the start.

    The head is trained by the same steps, saved and loaded with the rest, and in no checkpoint.
    """

    def values(self, batch: Batch) -> Mapping[tuple[str, int], FloatArray]:
        """By (problem_id, sample_idx) of the rollouts of the batch: the value before each completion token."""
        ...


Progress: TypeAlias = Callable[[int, int], None]


def silent(done: int, total: int) -> None:
    """The progress that nobody watches."""


class Engine(Protocol):
    """Holds the model. `root` (the run folder) resolves the relative paths of policy moves.

    Optional: `hidden(batch, policy, *, depths, out, progress=silent) -> list[Direction]`, one for each layer that ends at
    one of the shares `depths` of all layers, of kind "hidden/<layer>": the sum over rollouts of weight x mean hidden
    state after the layer (over the positions that predict completion tokens), divided once by the normaliser. A policy
    with a step along it has that vector added there, from the position that predicts the first completion token on.

    Optional: `actor_critic(policy, optimizer, *, critic_lr) -> ActorCritic`, a trainer whose value head has a learning rate
    of its own.

    Optional: `moments(batch, policy, objective, *, out, rms, progress=silent) -> Direction`, which is `gradient` and besides
    writes to `rms` tensors of the same names and shapes: the root mean square over sub-batches of their shares of the
    gradient, of which the gradient is the sum.

    Optional: `linear() -> list[str]`, the names of the weights [out, in] of linear layers, without the head's. Directions of
    kind lora<rank> are made of these.

    Optional: `verifiers(target) -> Verifiers`, which judge completions on the machines of its workers by the domain at
    `target` ("package.module:Class"), under the isolation that this machine has.

    Optional: `transfers(parameters: float) -> Transfers`, static, of an engine whose workers are on other machines: what
    `--dry-run` says of n of them is made of it.

    Optional: `transformers(policy) -> AbstractContextManager[Loaded]`, the policy as a model of transformers while open. Raises
    UsageError for a policy that is more than weights. `harness eval` needs it.
    """

    root: Path

    def sample(self, shards: Sequence[Shard], policy: Policy) -> Iterator[list[Rollout]]:
        """One list per shard, in order. The shard is the sampling batch: results never depend on other shards.

        Optional: `sample_each(shards, policies)`, the same with a policy for each shard. Without it candidates of a
        search are sampled one after another.
        """
        ...

    def score(
        self, rollouts: Sequence[Rollout], policy: Policy, *, temperature: float, kl_to: Policy | None = None
    ) -> list[TokenScore]:
        """Teacher-forced log-probabilities, entropies and, with `kl_to`, the exact KL(policy || kl_to) per token."""
        ...

    def gradient(
        self, batch: Batch, policy: Policy, objective: Objective, *, out: Path, progress: Progress = silent
    ) -> Direction:
        """Minus the gradient of the loss over the batch, written to `out`; kind "raw".

        `progress` hears (sub-batches done, in all).
        """
        ...

    def trainer(self, policy: Policy, optimizer: Optimizer) -> Trainer: ...
    def displacement(self, policy: Policy) -> Displacement: ...
    def materialise(self, policy: Policy, folder: Path) -> None:
        """Write the policy as a checkpoint that loads like any other model."""
        ...

    def limits(self) -> EngineLimits: ...
    def identity(self) -> Mapping[str, str]:
        """Model name and content hashes, for the manifest."""
        ...

    def close(self) -> None: ...


class Verifiers(Protocol):
    """Who judges; harness.verifying.VerifierPool is one."""

    def verify(self, items: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        """One verdict per item, in order."""
        ...

    def close(self) -> None: ...


class Benchmark(NamedTuple):
    """A named problem source of a domain. `splits` are a subset of ("train", "selection", "test")."""

    name: str
    splits: tuple[str, ...]
    answer_format: str
    licence: str
    source: str
    max_tokens: int


class Specimen(NamedTuple):
    """A completion with its expected verdict: gold, near miss or hostile."""

    completion: str
    expected: Outcome


class Domain(Protocol):
    """A problem domain and its verifier.

    `verify` is pure and picklable; the pool bounds its time. A completion whose verdict has `format_ok` gets the same
    verdict when judged leniently. Optional methods: `open()` and `close()`, called once in each pool worker,
    `time_limit(problem) -> seconds`, a static `isolation() -> str` where completions are executed, and

    `read(row: Mapping[str, Any]) -> Problem`: one row in the data set's own field names (docs/design.md section 6)
    becomes one problem with meta["answer_format"] = "lenient". Its id is the row's `task_id`, `unique_id` or `id`, else
    the start of the content hash; all that `verify` needs lies in `answer` and `meta`, as JSON. Raises
    harness.errors.BadRow ("field answer: ...") that names the field, what was found and what is understood.
    `harness verify` and `--data` need it. `rows() -> Iterable[Mapping[str, Any]]` gives one example of each kind of row.

    `program(problem, completion) -> str | None`, where completions are programs: what `verify` runs of one, as a whole
    program; None where it finds none. `harness export --format evalplus` needs it.
    """

    name: str
    version: int

    def benchmarks(self) -> Iterable[Benchmark]: ...
    def problems(self, benchmark: str, split: str, *, seed: int, limit: int) -> Iterator[Problem]: ...
    def verify(self, problem: Problem, completion: str) -> Verdict: ...
    def specimens(self, problem: Problem) -> Iterable[Specimen]: ...


class Spending(NamedTuple):
    """What a method uses at most, for `--dry-run`: shares of its two budgets; `passes`, gradients taken of each training
    rollout; whether it keeps an optimizer; `tests`, completions of a test problem where they are not the run's (0)."""

    train: float = 1.0
    selection: float = 1.0
    passes: float = 1.0
    optimizer: bool = False
    tests: int = 0


Check: TypeAlias = Callable[[Any, str], None]  # value, name


class Method(Protocol):
    """Composes stages into a contender. Deterministic, holds no state, never touches files.

    Optional: `options`, its options with their defaults; `spends(options) -> Spending`, without it `Spending()`; `needs`,
    names of optional methods that its engine must have; `checks`, a Mapping[str, Check] from names of options.

    A Check raises UsageError for a value that the method cannot run with. `name` is the option as the user writes it
    ("method.grpo.lr"), for the message; the value is of the default's kind. It is asked before anything is drawn, of
    values that are given. harness/limits.py makes the common ones (`at_least(1)`, `one_of(names)`).
    """

    name: str
    version: int

    def run(self, stages: Stages) -> Contender: ...
