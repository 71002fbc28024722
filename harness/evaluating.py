"""Score contenders: verdict counts per problem, on fresh draws with the same seeds for every contender.

Does: count correct, lenient-correct, format, truncated, unparsed, timeouts and errors; combine completions by vote or
oracle; evaluate on test problems sampled, greedily and, for pass@16, with many draws on some; draw what the report needs
beside: the base's pass rate of each problem, every step of a search, problems that were trained on.
Doesn't: choose anything (stepping.py) or compare (leaderboard.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from harness import store
from harness.budget import Cost
from harness.run import Run
from harness.sampling import Draw, Judged, RolloutBatch
from harness.types import Contender, Outcome, Policy, Problem, Score

BASE = "base"


@store.record
@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A contender on one test set: `sampled` at its temperature, `greedy`, and `wide` (many draws on some problems).

    `bins`, of the base alone, sorts problems by its pass rate: draws of their own, which are nobody's score. `candidates`
    are the scores of every step of the method's search, in its order, drawn as `sampled` is.
    """

    sampled: Score
    greedy: Score
    wide: Score | None
    bins: Score | None = None
    candidates: tuple[Score, ...] = ()


def score_of(batches: Sequence[RolloutBatch], problems: Sequence[Problem], *, combine: str = "single") -> Score:
    """Counts over the judged rollouts of one or several policies, per problem in order.

    "single" counts completions; "vote" and "oracle" turn all completions of a problem into one answer (n = 1).
    """
    judged_of: dict[str, list[Judged]] = {problem.id: [] for problem in problems}
    for batch in batches:
        for judged in batch.judged():
            judged_of[judged.problem_id].append(judged)
    everything = [judged for group in judged_of.values() for judged in group]
    counts = [_counts([j for j in judged_of[p.id] if not j.failed], combine) for p in problems]
    return Score(
        problem_ids=tuple(problem.id for problem in problems),
        n=tuple(n for n, _, _ in counts),
        correct=tuple(correct for _, correct, _ in counts),
        correct_free=tuple(free for _, _, free in counts),
        format=_share(judged.verdict.format_ok for judged in everything),
        truncated=_share(judged.truncated for judged in everything),
        unparsed=_share(judged.verdict.outcome is Outcome.UNPARSED for judged in everything),
        timeouts=_share(judged.verdict.outcome is Outcome.TIMEOUT for judged in everything),
        errors=sum(judged.failed for judged in everything),
    )


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / len(values) if values else float("nan")


def _counts(group: Sequence[Judged], combine: str) -> tuple[int, int, int]:
    """(n, correct, lenient-correct) of one problem."""
    if not group:
        return 0, 0, 0
    if combine == "vote":
        winner = _majority(group)
        group = [winner] if winner else group[:1]
    strict = sum(judged.verdict.outcome is Outcome.CORRECT for judged in group)
    free = sum(judged.free.outcome is Outcome.CORRECT for judged in group)
    if combine == "oracle":
        return 1, int(strict > 0), int(free > 0)
    return len(group), strict, free


def _majority(group: Sequence[Judged]) -> Judged | None:
    """The first completion that gives the most frequent canonical answer; None when none could be parsed."""
    votes = Counter(judged.verdict.extracted for judged in group if judged.verdict.extracted is not None)
    if not votes:
        return None
    answer, _ = votes.most_common(1)[0]
    return next(judged for judged in group if judged.verdict.extracted == answer)


class Scored(NamedTuple):
    """A contender's score, with the draws of its first policy behind it and what drawing cost; rollouts are not counted."""

    score: Score
    batch: RolloutBatch
    cost: Cost


def scored(
    run: Run, contender: Contender, problems: Sequence[Problem], *, seed: int, samples: int, purpose: str
) -> Scored:
    """Draws of one purpose use the same seeds for every contender: common random numbers."""
    batches, cost = [], Cost()
    for policy in contender.policies:
        draw = Draw(
            purpose=purpose,
            policy=policy,
            temperature=run.spec.sampling.temperature if contender.temperature is None else contender.temperature,
            samples=samples,
            max_tokens=run.max_tokens,
            prefix=contender.prefix,
        )
        ((batch, spent),) = run.collect([draw], problems, run_seed=seed, label="")
        batches.append(batch)
        cost = cost.plus(spent)
    return Scored(score_of(batches, problems, combine=contender.combine), batches[0], cost)


def evaluate(
    run: Run,
    contender: Contender,
    problems: Sequence[Problem],
    *,
    seed: int,
    method: str,
    candidates: Sequence[Policy] = (),
) -> tuple[Evaluation, Cost]:
    """Scores of a contender on one test set; every method meets the same problems with the same seeds.

    `candidates` are the policies that its search chose from; the winner among them is not drawn twice.
    """
    spec = run.spec.evaluation
    temperature = run.spec.sampling.temperature if contender.temperature is None else contender.temperature
    test = Drawing(run, method, seed, temperature, contender.n or spec.samples)
    sampled, cost = _draw(test, contender, problems)
    greedy, spent = sampled, Cost()
    if (temperature, test.samples) != (0.0, 1):  # else the same draws, which would be counted twice
        greedy, spent = _draw(test._replace(seed=0, temperature=0.0, samples=1), contender, problems)  # greedy: no seed
    wide, bins, others = None, None, None
    cost = cost.plus(spent)
    if _looked_at_closely(run, contender, method) and spec.wide_samples > test.samples:
        more = test._replace(samples=spec.wide_samples - test.samples, first=test.samples)
        extra, spent = _draw(more, contender, problems[: spec.wide_problems])
        cost, wide = cost.plus(spent), _joined(sampled, extra)
    if method == BASE and spec.bin_samples:
        sorting = test._replace(seed=0, samples=spec.bin_samples, purpose="bins")  # one sorting for all seeds
        bins, spent = _draw(sorting, contender, problems)
        cost = cost.plus(spent)
    if candidates and contender.combine == "single":
        others, spent = _candidates(test, candidates, problems, winner=contender, score=sampled)
        cost = cost.plus(spent)
    return Evaluation(sampled=sampled, greedy=greedy, wide=wide, bins=bins, candidates=others or ()), cost


def seen(run: Run, contender: Contender, *, seed: int, method: str) -> tuple[Score | None, Cost]:
    """Fresh draws on problems that were trained on, for methods looked at closely; the same draws for each."""
    problems = run.problems.train[seed][: run.spec.evaluation.seen_problems]
    if not problems or not _looked_at_closely(run, contender, method):
        return None, Cost()
    temperature = run.spec.sampling.temperature if contender.temperature is None else contender.temperature
    test = Drawing(run, method, seed, temperature, run.spec.evaluation.samples, purpose="seen")
    return _draw(test, contender, problems)


def _looked_at_closely(run: Run, contender: Contender, method: str) -> bool:
    return method in run.spec.evaluation.wide_methods and contender.combine == "single"


class Drawing(NamedTuple):
    """How completions are drawn for a score: `samples` of each problem, numbered from `first`."""

    run: Run
    method: str
    seed: int
    temperature: float
    samples: int
    first: int = 0
    purpose: str = "test"


def _draw(test: Drawing, contender: Contender, problems: Sequence[Problem]) -> tuple[Score, Cost]:
    batches, cost = [], Cost()
    for policy in contender.policies:
        kind = "greedy" if test.temperature == 0 else f"{test.samples} samples"
        label = f"{test.method}: {test.purpose} {len(problems)} problems, {kind}"
        draw = test_draw(
            contender, policy, temperature=test.temperature, samples=test.samples, max_tokens=test.run.max_tokens
        )
        draw = replace(draw, first=test.first, purpose=test.purpose)
        ((batch, spent),) = test.run.collect([draw], problems, run_seed=test.seed, label=label)
        batches.append(batch)
        cost = cost.plus(spent._replace(eval_rollouts=len(problems) * test.samples))
    return score_of(batches, problems, combine=contender.combine), cost


def _candidates(
    test: Drawing, policies: Sequence[Policy], problems: Sequence[Problem], *, winner: Contender, score: Score
) -> tuple[tuple[Score, ...], Cost]:
    """Scores of all `policies`; that of the winner is known and not paid for again."""
    scores, cost = [], Cost()
    for policy in policies:
        if (policy,) == winner.policies:
            scores.append(score)
            continue
        found, spent = _draw(test, replace(winner, policies=(policy,)), problems)
        scores.append(found)
        cost = cost.plus(spent)
    return tuple(scores), cost


def test_draw(contender: Contender, policy: Policy, *, temperature: float, samples: int, max_tokens: int) -> Draw:
    """What one policy of a contender is asked for on test problems."""
    return Draw(
        purpose="test",
        policy=policy,
        temperature=temperature,
        samples=samples,
        max_tokens=max_tokens,
        prefix=contender.prefix,
    )


def _joined(score: Score, extra: Score) -> Score:
    """More draws on the first problems of `score`; the shares are those of the extra draws."""
    first = len(extra.problem_ids)
    return Score(
        problem_ids=extra.problem_ids,
        n=_sum(score.n[:first], extra.n),
        correct=_sum(score.correct[:first], extra.correct),
        correct_free=_sum(score.correct_free[:first], extra.correct_free),
        format=extra.format,
        truncated=extra.truncated,
        unparsed=extra.unparsed,
        timeouts=extra.timeouts,
        errors=score.errors + extra.errors,
    )


def _sum(left: Sequence[int], right: Sequence[int]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(left, right, strict=True))
