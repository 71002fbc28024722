"""The line search as a race: steps solved for KL targets, candidates drawn round by round, the winner chosen.

Does: solve steps on the zero step's completions; let candidates meet blocks of selection problems, fewer in each round;
make the record of the search.
Doesn't: say who stays (racing.py) or who wins (stepping.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from harness import evaluating, racing, stepping
from harness.budget import Cost, Stopwatch
from harness.errors import EngineFailure
from harness.run import Run
from harness.sampling import Draw, RolloutBatch
from harness.stepping import Solved
from harness.types import Candidate, Direction, FloatArray, Move, Policy, Problem, Rollout, Score, Search

ROUNDING = 1e-3  # nats that a KL of zero may be off by
ZERO = Solved(step=0.0, kl=0.0, target=0.0)


@dataclass(frozen=True, kw_only=True)
class Race:
    """What all candidates of one search meet: selection `problems`, `samples` completions of each."""

    run: Run
    method: str
    seed: int
    problems: Sequence[Problem]
    samples: int

    @property
    def temperature(self) -> float:
        return self.run.spec.sampling.temperature

    def draw(self, policy: Policy) -> Draw:
        return Draw(
            purpose="selection",
            policy=policy,
            temperature=self.temperature,
            samples=self.samples,
            max_tokens=self.run.max_tokens,
        )


class Lane(NamedTuple):
    """A candidate: its policy, the step it was solved for, and its draws of each round."""

    policy: Policy
    solved: Solved
    batches: list[RolloutBatch]


def line_search(race: Race, direction: Direction, origin: Policy) -> tuple[Search, Cost]:
    """Steps along `direction` from `origin`, the zero step first; the cost counts every selection rollout."""
    solved, solving = _solve(race, direction, origin)
    steps = (ZERO, *solved)
    lanes = [Lane(_stepped(origin, direction, s.step) if s.step else origin, s, []) for s in steps]
    cost, candidates = _run(race, lanes).plus(solving), []
    for lane in lanes:
        told, spent = entropy(race.run, lane.batches, lane.policy, race.temperature)
        relative = lane.solved.step * direction.norm / direction.weight_norm
        candidates.append(
            Candidate(
                policy=lane.policy,
                step=lane.solved.step,
                relative_step=relative,
                score=_score(race, lane),
                kl=lane.solved.kl,
                entropy=told,
                kl_target=lane.solved.target or None,
            )
        )
        cost = cost.plus(spent)
    chosen, best = stepping.choose(candidates)
    return Search(candidates=tuple(candidates), chosen=chosen, best=best), cost


def _solve(race: Race, direction: Direction, origin: Policy) -> tuple[Sequence[Solved], Cost]:
    """Steps for the spec's KL targets, on the zero step's completions of the first round.

    These are drawn here and found again in that round: what drawing them costs is counted there.
    """
    rollouts = _first_completions(race, origin)
    watch = Stopwatch()
    solved = stepping.solve_steps(
        lambda step: _kl(race, rollouts, origin, _stepped(origin, direction, step)),
        race.run.spec.search.kl_targets,
        direction_norm=direction.norm,
        weight_norm=direction.weight_norm,
    )
    return solved, watch.cost()


def _first_completions(race: Race, policy: Policy) -> list[Rollout]:
    """Those of the first round; drawn only if they never were."""
    first = race.problems[: racing.first(len(race.problems))]
    label = f"{race.method}: line search"
    ((batch, _),) = race.run.collect([race.draw(policy)], first, run_seed=race.seed, label=label)
    return [r for problem_id in batch.problem_ids for r in batch.group(problem_id)]


def path(race: Race, searches: Sequence[Search]) -> Search:
    """The first search's origin and the winner of each that moved; `race` is the first one's.

    A step along one direction means nothing for a policy of several moves: it is NaN there.
    """
    origin = searches[0].candidates[0]
    rollouts, candidates = _first_completions(race, origin.policy), [origin]
    for winner in (search.winner for search in searches if search.chosen):
        several = len(winner.policy.moves) > len(origin.policy.moves) + 1
        moved = replace(
            winner,
            step=math.nan if several else winner.step,
            relative_step=race.run.engine.displacement(winner.policy).relative,
            kl=_kl(race, rollouts, origin.policy, winner.policy),
            kl_target=None,
        )
        candidates.append(moved)
    last = len(candidates) - 1
    return Search(candidates=tuple(candidates), chosen=last, best=last)


def _run(race: Race, lanes: Sequence[Lane]) -> Cost:
    """Draw for the lanes that are still in the race, round by round."""
    active, cost = list(range(len(lanes))), Cost()
    for number, part in enumerate(racing.plan(len(lanes), len(race.problems)), start=1):
        if len(active) > part.candidates:
            rates = [stepping.rates(_score(race, lanes[i])) for i in active]
            active = [active[place] for place in racing.stay(rates, part.candidates, first=active[0] == 0)]
        block = race.problems[part.start : part.stop]
        draws = [race.draw(lanes[i].policy) for i in active]
        label = f"{race.method}: line search, round {number}, {len(active)} steps"
        found = race.run.collect(draws, block, run_seed=race.seed, label=label)
        for i, (batch, spent) in zip(active, found, strict=True):
            lanes[i].batches.append(batch)
            cost = cost.plus(spent._replace(selection_rollouts=len(block) * race.samples))
    return cost


def _score(race: Race, lane: Lane) -> Score:
    """On the problems that the lane has met: the first ones."""
    met = sum(len(batch.problem_ids) for batch in lane.batches)
    return evaluating.score_of(lane.batches, race.problems[:met])


def _kl(race: Race, rollouts: Sequence[Rollout], origin: Policy, policy: Policy) -> float:
    """Not finite where the policy's distributions are not. Raises EngineFailure for one below zero."""
    scores = race.run.engine.score(rollouts, origin, temperature=race.temperature, kl_to=policy)
    kl = float(np.concatenate([score.kl_T for score in scores if score.kl_T is not None]).mean())
    if kl < -ROUNDING:
        raise EngineFailure(f"the engine gives a KL divergence of {kl:.3g} nats per token, which cannot be below zero")
    return kl


def entropy(run: Run, batches: Sequence[RolloutBatch], policy: Policy, temperature: float) -> tuple[float | None, Cost]:
    """Mean entropy per token on the policy's own completions; none for greedy draws."""
    if temperature == 0:
        return None, Cost()
    watch = Stopwatch()
    rollouts = [r for batch in batches for problem_id in batch.problem_ids for r in batch.group(problem_id)]
    return float(np.concatenate(_entropies(run, rollouts, policy, temperature)).mean()), watch.cost()


def sums(run: Run, batch: RolloutBatch, policy: Policy) -> tuple[dict[str, tuple[float, ...]], Cost]:
    """Each rollout's token entropies added up, by problem in the order of its group."""
    watch, found = Stopwatch(), {}
    for problem_id in batch.problem_ids:
        entropies = _entropies(run, batch.group(problem_id), policy, batch.temperature)
        found[problem_id] = tuple(float(entropy_T.sum(dtype=np.float64)) for entropy_T in entropies)
    return found, watch.cost()


def _entropies(run: Run, rollouts: Sequence[Rollout], policy: Policy, temperature: float) -> list[FloatArray]:
    """Of the distribution of every token, as the sampler told it, else by scoring."""
    told = [rollout.entropies for rollout in rollouts if rollout.entropies is not None]
    if len(told) == len(rollouts):
        return told
    return [score.entropy_T for score in run.engine.score(rollouts, policy, temperature=temperature)]


def _stepped(origin: Policy, direction: Direction, step: float) -> Policy:
    move = Move(kind="direction", path=direction.path, digest=direction.digest, step=step)
    return replace(origin, moves=(*origin.moves, move))
