"""Score contenders: verdict counts per problem, on fresh draws with the same seeds for every contender.

Does: count correct, lenient-correct, format, truncated, unparsed, timeouts and errors; combine completions by vote or
oracle; evaluate on test problems sampled, greedily and, for pass@16, with many draws on some.
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


@store.record
@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A contender on one test set: `sampled` at its temperature, `greedy`, and `wide` (many draws on some problems)."""

    sampled: Score
    greedy: Score
    wide: Score | None


def score_of(batches: Sequence[RolloutBatch], problems: Sequence[Problem], *, combine: str = "single") -> Score:
    """Counts over the judged rollouts of one or several policies, per problem in order.

    "single" counts completions; "vote" and "oracle" turn all completions of a problem into one answer (n = 1).
    """
    judged_of: dict[str, list[Judged]] = {problem.id: [] for problem in problems}
    for batch in batches:
        for judged in batch.judged():
            judged_of[judged.problem_id].append(judged)
    everything = [judged for group in judged_of.values() for judged in group]
    counts = [_counts([j for j in judged_of[p.id] if _has_verdict(j)], combine) for p in problems]
    return Score(
        problem_ids=tuple(problem.id for problem in problems),
        n=tuple(n for n, _, _ in counts),
        correct=tuple(correct for _, correct, _ in counts),
        correct_free=tuple(free for _, _, free in counts),
        format=_share(judged.verdict.format_ok for judged in everything),
        truncated=_share(judged.truncated for judged in everything),
        unparsed=_share(judged.verdict.outcome is Outcome.UNPARSED for judged in everything),
        timeouts=_share(judged.verdict.outcome is Outcome.TIMEOUT for judged in everything),
        errors=sum(judged.verdict.outcome is Outcome.ERROR for judged in everything),
    )


def _has_verdict(judged: Judged) -> bool:
    return judged.verdict.outcome is not Outcome.ERROR


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
    run: Run, contender: Contender, problems: Sequence[Problem], *, seed: int, method: str
) -> tuple[Evaluation, Cost]:
    """Scores of a contender on one test set; every method meets the same problems with the same seeds."""
    spec = run.spec.evaluation
    temperature = run.spec.sampling.temperature if contender.temperature is None else contender.temperature
    samples = contender.n or spec.samples
    sampled, cost = _test(run, contender, problems, seed=seed, method=method, temperature=temperature, samples=samples)
    greedy, spent = sampled, Cost()
    if (temperature, samples) != (0.0, 1):  # else the same draws, which would be counted twice
        greedy, spent = _test(run, contender, problems, seed=seed, method=method, temperature=0.0, samples=1)
    cost, wide = cost.plus(spent), None
    if method in spec.wide_methods and contender.combine == "single" and spec.wide_samples > samples:
        few = problems[: spec.wide_problems]
        extra, spent = _test(
            run,
            contender,
            few,
            seed=seed,
            method=method,
            temperature=temperature,
            samples=spec.wide_samples - samples,
            first=samples,
        )
        cost, wide = cost.plus(spent), _joined(sampled, extra)
    return Evaluation(sampled=sampled, greedy=greedy, wide=wide), cost


def _test(
    run: Run,
    contender: Contender,
    problems: Sequence[Problem],
    *,
    seed: int,
    method: str,
    temperature: float,
    samples: int,
    first: int = 0,
) -> tuple[Score, Cost]:
    batches, cost = [], Cost()
    for policy in contender.policies:
        draw = test_draw(contender, policy, temperature=temperature, samples=samples, max_tokens=run.max_tokens)
        draw = replace(draw, first=first)
        kind = "greedy" if temperature == 0 else f"{samples} samples"
        label = f"{method}: test {len(problems)} problems, {kind}"
        ((batch, spent),) = run.collect(
            [draw], problems, run_seed=seed if temperature else 0, label=label
        )  # greedy: no seed
        batches.append(batch)
        cost = cost.plus(spent._replace(eval_rollouts=len(problems) * samples))
    return score_of(batches, problems, combine=contender.combine), cost


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
