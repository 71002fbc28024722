"""What a method composes: sample, weigh, direct, step, train, select; journalled, metered, shared.

Does: give every method the same stages under one budget; remember each finished call, so that a resumed method runs
from the top and finished calls return from disk; share identical draws and gradients between methods while charging
each in full.
Doesn't: decide anything about a method, or let one touch files.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from harness import choosing, directing, directions, history, racing, searching, stepping, store, weighing
from harness.budget import Budget, Cost, Stopwatch
from harness.contracts import Objective, Optimizer
from harness.errors import UsageError
from harness.objectives import PolicyGradient
from harness.run import Run
from harness.sampling import Draw, RolloutBatch
from harness.training import StageTrainer, watched, weights_files
from harness.types import Contender, Direction, Move, Policy, Problem, Search, TrainStep
from harness.weighing import GradientBatch, PairedBatch, Rewards, WeighedBatch

T = TypeVar("T")


class Stages:
    """The stages as one method in one run seed sees them.

    `train_problems` and `selection_problems` are what it may learn and choose from; `options` are its own, checked; `budget`
    is its meter; `context` is how many tokens the model takes, where the engine knows. `last_search` and `last_direction` are
    what its row reports, `last_probe` what densities are read from, `trained` the steps of its trainer.
    """

    def __init__(self, run: Run, *, method: str, seed: int, options: Mapping[str, Any]) -> None:
        self._run, self.method, self.seed, self.options = run, method, seed, options
        self.folder = f"methods/{method}/{seed}"
        self._weights = functools.partial(weights_files, run, folder=self.folder)
        self._journal = store.Journal(run.root / self.folder / "journal")
        self.train_problems, self.selection_problems = run.problems.train[seed], run.problems.selection
        self.group = run.spec.sampling.group
        self._base_group = run.spec.budget // len(self.train_problems)  # more than `group` where problems are few
        self.budget = Budget(train=len(self.train_problems) * self._base_group, selection=run.spec.selection_total)
        self.temperature = run.spec.sampling.temperature
        self.max_tokens, self.context = run.max_tokens, run.engine.limits().context
        self.base = run.base
        self._drawn: dict[str, Problem] = {}
        self.last_search: Search | None = None
        self.last_probe: Search | None = None
        self.last_direction: Direction | None = None
        self.trained: list[TrainStep] = []

    def _call(self, stage: str, arguments: Any, work: Callable[[], tuple[T, Cost]]) -> T:
        started = time.monotonic()
        result, cost, replayed = self._journal.call(stage, arguments, work)
        self.budget.charge(cost)
        if not replayed:
            summary = {"method": self.method, "seed": self.seed, "seconds": time.monotonic() - started}
            self._run.notify(stage, {**summary, **watched(result), **{k: v for k, v in cost._asdict().items() if v}})
        return result

    def base_batch(self) -> RolloutBatch:
        """The training batch of the base policy, as large as the budget: shared by methods, charged to each."""
        return self.sample(self.train_problems, self.base, samples=self._base_group, iteration=0)

    @property
    def most_updates(self) -> int:
        """As many draws as the training budget makes without a lone rollout."""
        return max(len(self.train_problems), self._base_group // 2)

    def schedule(self, steps: int) -> list[tuple[Sequence[Problem], int]]:
        """The training budget in `steps` nearly equal draws: (problems, samples of each). Raises UsageError.

        Every problem is met once, in order, with all its samples; where there are fewer problems than steps, all
        problems are met at every step, with a share of their samples.
        """
        problems, count = self.train_problems, len(self.train_problems)
        if not 0 < steps <= self.most_updates:
            raise UsageError(
                f"{steps} updates were asked for; {count} training problems with {self._base_group} rollouts each make "
                f"1 to {self.most_updates}"
            )
        if count >= steps:
            cuts = [count * step // steps for step in range(steps + 1)]
            return [(problems[a:b], self._base_group) for a, b in itertools.pairwise(cuts)]
        cuts = [self._base_group * step // steps for step in range(steps + 1)]
        return [(problems, b - a) for a, b in itertools.pairwise(cuts)]

    def sample(
        self, problems: Sequence[Problem], policy: Policy, *, samples: int, iteration: int, free: bool = False
    ) -> RolloutBatch:
        """Draw and judge training rollouts. `iteration` numbers the fresh draws of an iterating method from 0.

        `free`: the method does not look at verdicts, which then are for its learning curve and not charged.
        """
        rollouts = len(problems) * samples
        self._drawn.update({problem.id: problem for problem in problems})
        draw = Draw(
            purpose=f"train/{iteration}",
            policy=policy,
            temperature=self.temperature,
            samples=samples,
            max_tokens=self.max_tokens,
        )

        def work() -> tuple[RolloutBatch, Cost]:
            self.budget.require(train=rollouts)
            label = f"{self.method}: sample {rollouts} rollouts"
            ((batch, cost),) = self._run.collect([draw], problems, run_seed=self.seed, label=label)
            calls = 0 if free else cost.verifier_calls
            return replace(batch, root=""), cost._replace(train_rollouts=rollouts, verifier_calls=calls)

        batch = self._call("sample", [draw, [p.id for p in problems], free], work)
        return replace(batch, root=str(self._run.root))  # a run folder may have moved since

    def weigh(
        self,
        batch: RolloutBatch,
        *,
        scheme: str = "grpo",
        shuffle: bool = False,
        rewards: Rewards | None = None,
        whole: bool = False,
        group: int = 0,
    ) -> WeighedBatch:
        """Advantages per group; `shuffle` permutes the rewards within each group first (a control).

        `rewards` by problem replace those of the verdicts; `whole` keeps rollouts of weight 0, for losses with an
        entropy or KL term. A group is all rollouts of a problem, or every `group` of them.
        """
        return weighing.weigh(
            batch,
            self._problems_of(batch),
            rewards=self._run.spec.rewards if rewards is None else rewards,
            scheme=scheme,
            shuffle_seed=self.seed if shuffle else None,
            whole=whole,
            group=group,
        )

    def pair(self, batch: RolloutBatch, *, per_problem: int) -> PairedBatch:
        """Pairs of a correct and an incorrect completion, for a preference loss."""
        return weighing.pair(batch, self._problems_of(batch), per_problem=per_problem, seed=self.seed)

    def _problems_of(self, batch: RolloutBatch) -> list[Problem]:
        return [self._drawn[problem_id] for problem_id in batch.problem_ids]

    def entropies(self, batch: RolloutBatch, policy: Policy) -> Mapping[str, Sequence[float]]:
        """The summed token entropy of every rollout, by problem: as the sampler told it, else by scoring."""
        return self._call("entropies", [batch.folder, policy.id], lambda: searching.sums(self._run, batch, policy))

    def history(self, source: str) -> Mapping[str, Sequence[float]]:
        """Accuracies of a recorded run by problem (harness/history.py), read once: a resumed run has the same."""
        return self._call("history", source, lambda: (history.read(Path(source)), Cost()))

    def direct(
        self, weighed: GradientBatch, policy: Policy, objective: Objective | None = None, *, kind: str = "raw"
    ) -> Direction:
        """The raw ascent direction at `policy`, fit to make `kind` of. Raises NoSignal when every group is dead."""
        goal = objective or PolicyGradient()
        key = store.fingerprint([weighed.key, policy.id, goal])

        def work() -> tuple[Direction, Cost]:
            weighing.require_signal(weighed)
            out = f"directions/{self.seed}/{key}.safetensors"
            take = functools.partial(directing.gradient, self._run, weighed, policy, out=out, method=self.method)
            return take(objective=goal, moments=kind in directions.OF_MOMENTS)

        self.last_direction = self._call("direct", key, work)
        return self.last_direction

    def hidden(self, weighed: GradientBatch, policy: Policy, *, depths: Sequence[float]) -> list[Direction]:
        """For each layer the weighted sum of hidden states over rollouts, to be added after it: a policy steered so.

        A rollout's hidden state is its mean over completion tokens; `depths` are shares of the layers, of which each
        gives one direction. The method says needs = ("hidden",). Raises NoSignal when every group is dead.
        """
        key = store.fingerprint([weighed.key, policy.id, list(depths)])

        def work() -> tuple[list[Direction], Cost]:
            weighing.require_signal(weighed)
            out = f"directions/{self.seed}/{key}"
            return directing.hidden(self._run, weighed, policy, depths=depths, out=out, method=self.method)

        return list(self._call("hidden", key, work))

    def transform(self, raw: Direction, kind: str) -> Direction:
        """The direction of `kind` made from a raw gradient (harness/directions.py)."""
        linear = functools.partial(directing.linear, self._run.engine, method=self.method)
        make = functools.partial(directions.transform, raw, kind, root=self._run.root, seed=self.seed, linear=linear)
        return self._make("transform", [raw.digest, kind], make)

    def randomise(self, direction: Direction) -> Direction:
        """A Gaussian direction with the per-tensor norms of `direction` (a control)."""
        make = functools.partial(directions.random_like, direction, root=self._run.root, seed=self.seed)
        return self._make("randomise", direction.digest, make)

    def displacement(self, start: Policy, end: Policy) -> Direction:
        """The way from one trained policy to another as a direction (step 0: `start`, step 1: `end`)."""

        def make(out: str) -> Direction:
            with self._weights([start, end]) as files:
                return directions.between(*files, root=self._run.root, out=out)

        return self._make("displacement", [start.id, end.id], make)

    def trend(self, start: Policy, ends: Sequence[Policy], times: Sequence[float]) -> Direction:
        """The steady part of the way from `start` through `ends`, which it met at `times` (directions.trend)."""

        def make(out: str) -> Direction:
            with self._weights([start, *ends]) as (first, *others):
                return directions.trend(first, others, times=times, root=self._run.root, out=out)

        return self._make("trend", [start.id, [end.id for end in ends], list(times)], make)

    def superpose(self, start: Policy, moves: Sequence[Move]) -> Direction:
        """The sum of noise moves at `start` as a direction (directions.superpose)."""

        def make(out: str) -> Direction:
            with self._weights([start]) as (first,):
                return directions.superpose(first, moves, root=self._run.root, out=out)

        return self._make("superpose", [start.id, list(moves)], make)

    def _make(self, stage: str, arguments: Any, make: Callable[..., Direction]) -> Direction:
        """Every call has a file of its own: policies refer to what it wrote."""
        out = f"{self.folder}/{stage}-{store.fingerprint(arguments)}.safetensors"

        def work() -> tuple[Direction, Cost]:
            watch = Stopwatch()
            return make(out=out), watch.cost()

        self.last_direction = self._call(stage, arguments, work)
        return self.last_direction

    def search(self, direction: Direction, *, origin: Policy | None = None, share: float = 1.0) -> Search:
        """Line search from `origin` (the base) over steps solved for the spec's KL targets, zero included: a race.

        `share` is the part of the selection budget that it may spend; KL is from `origin`.
        """
        start = origin or self.base
        arguments = [direction.digest, start.id, share]
        self.last_search = self._call("search", arguments, lambda: self._search(direction, start, share))
        return self.last_search

    def search_each(self, directions: Sequence[Direction]) -> Search:
        """A search along each with an equal share of the selection budget; that of the best winner, the earliest of
        equals. All meet the same problems with the same draws, so choosing among winners takes no further rollouts."""
        found = [self.search(direction, share=1 / len(directions)) for direction in directions]
        winners = [search.winner for search in found]
        best, _ = stepping.choose(winners, cautious=False)
        self.last_search, self.last_direction = found[best], directions[best]
        return self.last_search

    def _search(self, direction: Direction, origin: Policy, share: float) -> tuple[Search, Cost]:
        left = min(self.budget.selection_left, int(share * self.budget.selection))
        return searching.line_search(self._race(left), direction, origin)

    def path(self, searches: Sequence[Search], *, share: float) -> Search:
        """Several searches of `share` each, one from where the other ended, as one: KL is from the first one's origin.

        Its candidates are that origin and the winner of every search that moved. Draws nothing.
        """

        def work() -> tuple[Search, Cost]:
            watch = Stopwatch()
            race = self._race(int(share * self.budget.selection))  # that of the first search
            return searching.path(race, searches), watch.cost()

        self.last_search = self._call("path", [list(searches), share], work)
        return self.last_search

    def _race(self, rollouts: int) -> searching.Race:
        """A line search that costs at most `rollouts`. Raises UsageError when no step could be scored."""
        candidates = len(self._run.spec.search.kl_targets) + 1
        if rollouts < candidates:
            raise UsageError(
                f"{self.method} has {rollouts} selection rollouts for a search among {candidates} steps, of "
                f"{self.budget.selection} in all: raise --selection-budget, or give fewer search.kl_targets"
            )
        problems, samples = racing.sizes(rollouts, candidates, **self._wanted())
        own = self.selection_problems[:problems]
        return searching.Race(run=self._run, method=self.method, seed=self.seed, problems=own, samples=samples)

    def select(self, contenders: Sequence[Contender], *, cautious: bool = False) -> Search:
        """Score contenders (checkpoints, temperatures, ...) on the selection split, the most cautious first."""
        arguments = [list(contenders), cautious]
        self.last_search = self._call("select", arguments, lambda: self._select(contenders, cautious))
        return self.last_search

    def _select(self, contenders: Sequence[Contender], cautious: bool) -> tuple[Search, Cost]:
        policies = sum(len(contender.policies) for contender in contenders)
        if self.budget.selection_left < policies:
            self.budget.require(selection=policies)
        count, samples = stepping.selection_sizes(self.budget.selection_left, policies, **self._wanted())
        search, cost = choosing.among(
            self._run,
            contenders,
            self.selection_problems[:count],
            seed=self.seed,
            samples=samples,
            purpose="selection",
            label=f"{self.method}: selection",
            cautious=cautious,
        )
        return search, cost._replace(selection_rollouts=policies * count * samples)

    def probe(self, contenders: Sequence[Contender], problems: Sequence[Problem], *, temperature: float) -> Search:
        """Score contenders on training problems, one completion each; charged as training rollouts.

        A candidate's `step` is that of its last move. Nothing is chosen by caution: `chosen` is `best`.
        """
        arguments = [list(contenders), [p.id for p in problems], temperature]
        found = self._call("probe", arguments, lambda: self._probe(contenders, problems, temperature))
        if contenders[0].policies == (self.base,):  # a density is one of scores above the base's
            self.last_probe = found
        return found

    def _probe(
        self, contenders: Sequence[Contender], problems: Sequence[Problem], temperature: float
    ) -> tuple[Search, Cost]:
        rollouts = len(problems) * sum(len(contender.policies) for contender in contenders)
        self.budget.require(train=rollouts)
        search, cost = choosing.among(
            self._run,
            [replace(contender, temperature=temperature) for contender in contenders],
            problems,
            seed=self.seed,
            samples=1,
            purpose="probe",
            label=f"{self.method}: probe of {len(contenders)}",
            cautious=False,
        )
        return search, cost._replace(train_rollouts=rollouts)

    def _wanted(self) -> dict[str, int]:
        spec = self._run.spec.search
        return {"problems": min(spec.problems, len(self.selection_problems)), "samples": spec.samples}

    def trainer(self, policy: Policy, optimizer: Optimizer, *, critic_lr: float = 0.0) -> StageTrainer:
        """AdamW from `policy` on; one per method and seed. `critic_lr` adds a value head (needs = ("actor_critic",))."""
        return StageTrainer(
            self._run, policy, optimizer, folder=self.folder, call=self._call, trained=self.trained, critic_lr=critic_lr
        )
