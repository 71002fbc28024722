"""Sample and verify: from problems and a policy to judged groups on disk.

Does: plan shards (whole groups of similar prompt length), let the engine sample and the pool judge them, keep each
shard whole or not at all.
Doesn't: know what its files look like (shards.py), weigh or average. A finished shard is never sampled again, so resume continues where a run stopped.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from harness import seeds, shards, store, verifying
from harness.budget import Cost, Stopwatch
from harness.contracts import Engine, Progress, Verifiers
from harness.errors import VerifierFailure
from harness.lending import Lender, Wanted
from harness.types import Finish, Outcome, Policy, Problem, Rollout, SampleRequest, Shard, Verdict, require_inside


@store.record
@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What to sample: `samples` completions, numbered from `first`, of every problem under one policy."""

    purpose: str
    policy: Policy
    temperature: float
    samples: int
    max_tokens: int
    first: int = 0
    prefix: str = ""


@store.record
@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One rollout's verdicts: in the benchmark's own format, and leniently ("free")."""

    problem_id: str
    sample_idx: int
    verdict: Verdict
    free: Verdict
    truncated: bool
    tokens: int

    @property
    def weakest(self) -> Verdict:
        """That of the two which is an ERROR, if one is; else its own."""
        return self.free if self.free.outcome is Outcome.ERROR else self.verdict

    @property
    def failed(self) -> bool:
        return self.weakest.outcome is Outcome.ERROR


@store.record
@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedShard:
    """The verdict file of one shard, with what it cost."""

    judged: tuple[Judged, ...]
    cost: dict[str, float]


@store.record
@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutBatch:
    """A handle on judged rollouts on disk. Small and picklable; `folder` is relative to `root`."""

    root: str
    folder: str
    problem_ids: tuple[str, ...]
    shards: tuple[tuple[str, ...], ...]
    temperature: float
    samples: int

    def __post_init__(self) -> None:
        require_inside(self.folder)

    def judged(self) -> Iterator[Judged]:
        for index in range(len(self.shards)):
            yield from store.read_json(_verdict_path(Path(self.root), self.folder, index)).judged

    def forget_verdicts(self) -> None:
        """So that they are judged again: a repaired verifier must not inherit the errors of a broken one."""
        for index in range(len(self.shards)):
            _verdict_path(Path(self.root), self.folder, index).unlink()

    def group(self, problem_id: str) -> tuple[Rollout, ...]:
        """One problem's rollouts, read from its shards without loading the rest."""
        own = [i for i, ids in enumerate(self.shards) if problem_id in ids]
        parts = [shards.read_group(_shard_path(Path(self.root), self.folder, i), problem_id) for i in own]
        return tuple(rollout for part in parts for rollout in part)


SMALL_SHARD = 128  # rollouts below which a shard costs more than its worker's idling


class Collected(NamedTuple):
    """A judged batch and what it cost; the caller says which purpose its rollouts count for."""

    batch: RolloutBatch
    cost: Cost


class _Planned(NamedTuple):
    """One shard of one draw, and where it goes."""

    shard: Shard
    policy: Policy
    folder: str
    place: int


def collect(
    draws: Sequence[Draw],
    problems: Sequence[Problem],
    *,
    run_seed: int,
    engine: Engine,
    pool: Verifiers,
    progress: Progress,
    lender: Lender | None = None,
) -> list[Collected]:
    """Sample and judge each draw; finished shards are read, not redone. A cost is the stored one of every shard.

    What `lender` has is borrowed, and what is drawn is lent.
    """
    root, known = engine.root, {problem.id: problem for problem in problems}
    size = engine.limits().shard_rollouts
    plans = [plan_shards(draw, problems, run_seed=run_seed, rollouts=size) for draw in draws]
    folders = [folder_of(draw, problems, run_seed) for draw in draws]
    planned = {  # by place: two equal draws are one
        (folder, i): _Planned(shard, draw.policy, folder, i)
        for draw, plan, folder in zip(draws, plans, folders, strict=True)
        for i, shard in enumerate(plan)
    }
    wanted = [_wanted(root, p, known) for p in planned.values() if not _is_done(root, p)]
    with contextlib.nullcontext() if lender is None else lender.borrowed(wanted):
        missing = [p for p in planned.values() if not _is_done(root, p)]
        done = len(planned) - len(missing)
        progress(done, len(planned))
        watch, failures = Stopwatch(), defaultdict[str, list[Verdict]](list)
        for one, rollouts in _rollouts(engine, missing):
            judged = judge(rollouts, known, pool)
            failures[one.folder] += [j.weakest for j in judged if j.failed]
            _stop_when_failing(failures[one.folder], [p for p in planned.values() if p.folder == one.folder], root)
            seconds = watch.cost()
            watch = Stopwatch()
            used = {"wall_seconds": seconds.wall_seconds, "cpu_seconds": seconds.cpu_seconds}
            store.write_json(
                _verdict_path(root, one.folder, one.place), JudgedShard(judged=judged, cost=used), compact=True
            )
            if lender is not None and not any(j.failed for j in judged):
                lender.lend(_wanted(root, one, known))  # not the errors of a verifier that may yet be repaired
            done += 1
            progress(done, len(planned))
    batches = [
        RolloutBatch(
            root=str(root),
            folder=folder,
            problem_ids=tuple(known),
            shards=tuple(tuple(request.problem_id for request in shard) for shard in plan),
            temperature=draw.temperature,
            samples=draw.samples,
        )
        for draw, plan, folder in zip(draws, plans, folders, strict=True)
    ]
    return [Collected(batch, _cost(batch)) for batch in batches]


def _stop_when_failing(failures: Sequence[Verdict], draw: Sequence[_Planned], root: Path) -> None:
    """Raises VerifierFailure, without verdicts left behind, as soon as no further ones can bring the errors below the limit."""
    try:
        verifying.check_errors(failures, of=sum(len(request.seeds) for p in draw for request in p.shard))
    except VerifierFailure:
        for p in draw:
            _verdict_path(root, p.folder, p.place).unlink(missing_ok=True)
        raise


def _is_done(root: Path, one: _Planned) -> bool:
    paths = _shard_path(root, one.folder, one.place), _verdict_path(root, one.folder, one.place)
    return all(path.exists() for path in paths)


def _wanted(root: Path, one: _Planned, problems: dict[str, Problem]) -> Wanted:
    content = [one.shard, one.policy.id, [problems[request.problem_id] for request in one.shard]]
    return Wanted(content, _shard_path(root, one.folder, one.place), _verdict_path(root, one.folder, one.place))


def _rollouts(engine: Engine, planned: Sequence[_Planned]) -> Iterator[tuple[_Planned, Sequence[Rollout]]]:
    """Of every shard, on disk by then. Those that were drawn before, and lack verdicts only, are not drawn again."""
    paths = [_shard_path(engine.root, one.folder, one.place) for one in planned]
    drawn = [path.exists() for path in paths]
    fresh = _sample(engine, [one for one, there in zip(planned, drawn, strict=True) if not there])
    for one, path, there in zip(planned, paths, drawn, strict=True):
        rollouts = shards.read(path) if there else next(fresh)
        if not there:
            shards.write(path, rollouts)
        yield one, rollouts
    next(fresh, None)  # to its end, where its shards are counted


def _sample(engine: Engine, planned: Sequence[_Planned]) -> Iterator[list[Rollout]]:
    """Shards of several policies at once where the engine can, else policy by policy."""
    together = getattr(engine, "sample_each", None)
    if together is not None:
        yield from together([p.shard for p in planned], [p.policy for p in planned])
        return
    for policy, group in itertools.groupby(planned, key=lambda p: p.policy):
        yield from engine.sample([p.shard for p in group], policy)


def _cost(batch: RolloutBatch) -> Cost:
    """Tokens, verifier calls and seconds of a batch."""
    cost = Cost()
    for index in range(len(batch.shards)):
        path = _verdict_path(Path(batch.root), batch.folder, index)
        shard = store.read_plain(path)  # records would take nine times as long
        tokens = sum(judged["tokens"] for judged in shard["judged"])
        cost = cost.plus(Cost(gen_tokens=tokens, verifier_calls=len(shard["judged"]), **shard["cost"]))
    return cost


def plan_shards(draw: Draw, problems: Sequence[Problem], *, run_seed: int, rollouts: int) -> list[Shard]:
    """Groups ordered by prompt length, cut into shards of at most `rollouts` completions; a larger group takes several.

    Shards are of equal size, and an even number unless they would be small; the longest come first: workers end together.
    """
    ordered = sorted(problems, key=lambda p: (-len(p.prompt), p.id))
    all_idxs = range(draw.first, draw.first + draw.samples)
    pieces = [tuple(all_idxs[start : start + rollouts]) for start in range(0, draw.samples, rollouts)]
    requests = [_request(draw, problem, run_seed, idxs) for problem in ordered for idxs in pieces]
    per_shard = _per_shard(len(requests), most=max(1, rollouts // draw.samples), smallest=SMALL_SHARD // draw.samples)
    return [tuple(requests[start : start + per_shard]) for start in range(0, len(requests), per_shard)]


def _per_shard(requests: int, *, most: int, smallest: int) -> int:
    count = math.ceil(requests / most)
    even = count + count % 2
    return math.ceil(requests / (even if requests >= even * smallest else count))


def _request(draw: Draw, problem: Problem, run_seed: int, idxs: tuple[int, ...]) -> SampleRequest:
    return SampleRequest(
        problem_id=problem.id,
        prompt=draw.prefix + problem.prompt,
        sample_idxs=idxs,
        seeds=tuple(seeds.seed_for(run_seed, draw.purpose, problem.id, i) for i in idxs),
        temperature=draw.temperature,
        max_tokens=draw.max_tokens,
    )


def folder_of(draw: Draw, problems: Sequence[Problem], run_seed: int) -> str:
    """Named by content, so that methods which ask for the same draws share them."""
    key = store.fingerprint([draw, [problem.id for problem in problems]])
    return f"{run_seed}/{draw.purpose.replace('/', '-')}-{key[:12]}"


def _shard_path(root: Path, folder: str, index: int) -> Path:
    return root / "rollouts" / folder / f"shard-{index:05d}.safetensors"


def _verdict_path(root: Path, folder: str, index: int) -> Path:
    return root / "verdicts" / folder / f"shard-{index:05d}.json"


def judge(rollouts: Sequence[Rollout], problems: dict[str, Problem], pool: Verifiers) -> tuple[Judged, ...]:
    """Verdicts in the benchmark's format; where that format is strict and was missed, lenient ones as well."""
    verdicts = pool.verify([(problems[r.problem_id], r.text) for r in rollouts])
    again = [
        i
        for i, (rollout, verdict) in enumerate(zip(rollouts, verdicts, strict=True))
        if problems[rollout.problem_id].strict and verdict.outcome is Outcome.UNPARSED
    ]
    free = list(verdicts)
    lenient = pool.verify([(_lenient(problems[rollouts[i].problem_id]), rollouts[i].text) for i in again])
    for i, verdict in zip(again, lenient, strict=True):
        free[i] = verdict
    return tuple(
        Judged(
            problem_id=rollout.problem_id,
            sample_idx=rollout.sample_idx,
            verdict=verdict,
            free=other,
            truncated=rollout.finish is Finish.LENGTH,
            tokens=len(rollout.completion_tokens),
        )
        for rollout, verdict, other in zip(rollouts, verdicts, free, strict=True)
    )


def _lenient(problem: Problem) -> Problem:
    return replace(problem, meta={**problem.meta, "answer_format": "lenient"})
