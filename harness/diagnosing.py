"""`harness diagnose RUN`: the hypothesis looked at in a finished run, not through its scores.

Does: take the gradients of parts of the base batch, of a second draw on the same problems, of correct and incorrect
completions and of the selection problems; compare them with the way the run's trainers went; keep every finished part in
RUN/diagnosis, so that a second call goes on where the first stopped.
Doesn't: change anything the run wrote, choose anything, or charge a method. Its own draws (the budget again on the
training problems, and as many completions a problem on the selection problems, each seed) lie beside those of the run
and are told as its cost.

The statistics are explained where they are computed: harness/diagnosis/{cosines,noise,linearity,signs,gains}.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness import config, mending, pipeline, store, weighing
from harness.budget import Cost
from harness.diagnosis import comparing, cosines, gains, keeping, linearity, noise, parts, signs, subject
from harness.diagnosis.keeping import FOLDER, Keeper
from harness.diagnosis.noise import Draws
from harness.diagnosis.parts import Job, Meter
from harness.diagnosis.products import Products, Vector
from harness.diagnosis.subject import Way
from harness.errors import HarnessError, UsageError
from harness.plugins import Plugins
from harness.run import Progress
from harness.sampling import Draw
from harness.weighing import MAX_SUB_BATCHES

SCORED = 100  # test completions whose log-probabilities are followed
SAME = 0.999  # cosine of the run's gradient with the sum of our parts, below which they are not of one batch
Table = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Tables by name, what was left out and why, and what it took, over all calls."""

    root: Path
    tables: Mapping[str, Table]
    skipped: tuple[str, ...]
    cost: Cost

    @property
    def folder(self) -> Path:
        return self.root / FOLDER


def diagnose(
    root: Path, plugins: Plugins, *, progress: Progress, trained: Sequence[str] = (), workers: int = 0
) -> Diagnosis:
    """Diagnose a finished run, or read back what is diagnosed already. Raises UsageError where there is nothing to."""
    if not (root / "leaderboard.csv").exists():
        hint = f"continue it with: harness resume {root}" if (root / "spec.toml").exists() else "no such run"
        raise UsageError(f"{root} has no finished rows; {hint}")
    mending.require_whole(root)
    spec = config.load(None, file=root / "spec.toml", changes={"workers": workers or None}, sets=())
    found = subject.find(root, spec, plugins, trained=trained)
    if not found.seeds and not found.ways:
        raise UsageError("nothing to diagnose: " + "; ".join(found.skipped))
    with pipeline.opened(root, spec, plugins, progress=progress) as run:
        keeper = Keeper(run, found)
        tables = _tables(keeper)
        keeper.forget()
    done = Diagnosis(root=root, tables=tables, skipped=found.skipped, cost=keeper.meter.spent)
    told = {"version": keeping.VERSION, "run": root.name, "skipped": found.skipped, "cost": done.cost._asdict()}
    store.write_json(done.folder / "diagnosis.json", _finite({**told, **tables}))
    return done


def _tables(keeper: Keeper) -> dict[str, Table]:
    seeds = keeper.found.seeds
    drawn = {seed: _gradients(keeper, seed) for seed in seeds}
    of_kinds = _kinds(keeper) if seeds else None
    found: dict[str, Table] = {
        "noise": [{"seed": seed, **noise.scale(_draws(drawn[seed]), keeper.rollouts(seed))} for seed in seeds],
        "agreement": [
            {"seed": seed, **row}
            for seed in seeds
            for row in noise.agreement(_draws(drawn[seed]), keeper.rollouts(seed))
        ],
        "ways": [row for way in keeper.found.ways for row in _way(keeper, way)],
        "linearity": [row for way in keeper.found.ways for row in _linearity(keeper, way)],
    }
    if of_kinds is not None:
        found |= comparing.tables(keeper.found, drawn, of_kinds)
        found["directions"] = [{**row, "shared_problems": _shared(keeper, row["seed"])} for row in found["directions"]]
    found["signs"] = [{"seed": seed, **row} for seed in seeds for row in _signs(keeper, seed)]
    found["gains"] = [{"seed": seed, **row} for seed in seeds for row in _gains(keeper, seed)]
    return found


def _shared(keeper: Keeper, seed: int) -> float:
    """The share of a seed's problems that another seed met too: there "other problems" is not quite true."""
    own = {p.content_hash for p in keeper.run.problems.train[seed]}
    others = {p.content_hash for s in keeper.found.seeds if s != seed for p in keeper.run.problems.train[s]}
    return len(own & others) / len(own)


def _gradients(keeper: Keeper, seed: int) -> Products:
    """Products of the parts of both draws with each other and with every displacement."""

    def work(meter: Meter) -> dict[str, Vector]:
        found, base = keeper.drawn(seed, meter), keeper.found.base(keeper.run, seed)
        keeper.kinds(seed, lambda: found)
        stored = Vector((keeper.root / base.raw.path,))
        return {**found, "stored": stored, "theta": Vector((keeper.base(),)), **keeper.moved()}

    labels = [label for way in keeper.found.ways for label in way.labels]
    found = keeper.multiplied(f"{seed}/gradients", labels, work)
    keeper.forget(str(seed))
    total, own = found.total, found.places([f"a{part}" for part in range(len(keeper.cuts(seed)))])
    (stored,) = found.places(["stored"])
    same = total[own, stored].sum() / math.sqrt(total[np.ix_(own, own)].sum() * total[stored, stored])
    if same < SAME:
        raise HarnessError(
            f"the gradient of seed {seed}'s base batch has cosine {same:.4f} with the one the run stored: the model, "
            "the data or the weighting differ from those of the run. Diagnose it with the version that made it."
        )
    return found


def _draws(found: Products) -> Draws:
    total, count = found.total, sum(label[0] == "a" and label[1:].isdigit() for label in found.labels)
    a, b = (found.places([f"{draw}{part}" for part in range(count)]) for draw in "ab")
    return Draws(*(total[np.ix_(left, right)] for left, right in ((a, a), (a, b), (b, b))))


def _kinds(keeper: Keeper) -> Products:
    """Products of all kinds of direction of all seeds with each other, with the controls and with every displacement."""

    def work(_: Meter) -> dict[str, Vector]:
        found: dict[str, Vector] = {}
        for seed in keeper.found.seeds:
            made = keeper.kinds(seed, functools.partial(keeper.drawn, seed, Meter()))  # its cost is told already
            found |= {f"{kind}/{seed}": vector for kind, vector in made.items()}
            if keeper.found.shuffled:
                raw = keeper.found.base(keeper.run, seed, shuffle=True).raw
                found[f"shuffled/{seed}"] = Vector((keeper.root / raw.path,))
        stored = {f"method/{label}": vector for label, vector in keeper.found.stored().items()}
        return {**found, **stored, **keeper.moved()}

    labels = [keeper.found.kinds, list(keeper.found.stored()), [way.labels for way in keeper.found.ways]]
    return keeper.multiplied("kinds", labels, work)


def _way(keeper: Keeper, way: Way) -> Table:
    """Length and bend of a way, checkpoint by checkpoint."""
    dots = _stacked(keeper, way).total
    base = float(keeper.multiplied("base", "theta", lambda _: {"theta": Vector((keeper.base(),))}).total[0, 0])
    return [
        {"method": way.method, "seed": way.seed, "step": step, "relative": math.sqrt(dots[i, i] / base),
         "cosine_with_last": cosines.cosine(dots, i, -1)}
        for i, step in enumerate(way.steps)
    ]  # fmt: skip


def _stacked(keeper: Keeper, way: Way) -> Products:
    key = [way.labels, [policy.id for policy in way.policies]]
    name = f"{way.seed}/way-{way.method}"
    return keeper.multiplied(name, key, lambda _: way.moved(keeper.root, keeper.base()))


def _linearity(keeper: Keeper, way: Way) -> Table:
    """By tensor, then "all" with log-probabilities, and the same figures of AdamW on noise."""
    stacked, key = _stacked(keeper, way), [way.labels, [policy.id for policy in way.policies]]
    of_weights: Table = keeper.part(
        f"{way.seed}/weights-{way.method}",
        key,
        lambda _: linearity.of_weights(list(way.moved(keeper.root, keeper.base()).values()), way.steps),
    )
    of_logprobs = keeper.part(f"{way.seed}/logprobs-{way.method}", key, lambda _: _logprobs(keeper, way))
    by_tensor = dict(zip(stacked.tensors, stacked.dots_TVV, strict=True))
    rows = [
        {"method": way.method, "seed": way.seed, **row,
         **linearity.of_displacements(by_tensor.get(row["tensor"], stacked.total), way.steps)}
        for row in of_weights
    ]  # fmt: skip
    rows[-1] |= of_logprobs
    nothing = {"tensor": "AdamW on pure noise", **linearity.of_noise(way.steps)}
    return [*rows, {"method": way.method, "seed": way.seed, **nothing}]


def _logprobs(keeper: Keeper, way: Way) -> dict[str, float]:
    """Of the base's first test completions, scored at the base and at every kept policy."""
    spec, run = keeper.run.spec, keeper.run
    problems = next(iter(run.problems.test.values()))
    draw = Draw(
        purpose="test", policy=run.base, temperature=spec.sampling.temperature,
        samples=spec.evaluation.samples, max_tokens=run.max_tokens,
    )  # fmt: skip
    ((batch, _),) = run.collect([draw], problems, run_seed=way.seed, label="")  # drawn by the run, as base was tested
    rollouts = [batch.group(problem.id)[0] for problem in problems[:SCORED]]
    scored = [
        [score.logprobs_T for score in run.engine.score(rollouts, policy, temperature=spec.sampling.temperature)]
        for policy in (run.base, *way.policies)
    ]
    tokens = linearity.of_logprobs(np.array([np.concatenate(rows) for rows in scored], dtype=np.float64), way.steps)
    whole = linearity.of_logprobs(
        np.array([[row.sum() for row in rows] for rows in scored], dtype=np.float64), way.steps
    )
    return {**{f"token_{k}": v for k, v in tokens.items()}, **{f"completion_{k}": v for k, v in whole.items()}}


def _signs(keeper: Keeper, seed: int) -> Table:
    """By level and overall, from the base batch: halves of every group, correct and incorrect apart."""
    run, problems = keeper.run, keeper.run.problems.train[seed]

    def work(meter: Meter) -> Table:
        batch, levels = keeper.found.base(run, seed).batch, signs.levels(problems)
        groups = parts.outcomes(batch)
        weighed = {
            side: weighing.weigh(batch, problems, rewards=parts.rewarded(groups, judge), scheme="reinforce")
            for side, judge in signs.SIDES.items()
        }
        jobs = [
            Job(f"{level}/{side}{part}", weighed[side], names)
            for level, own in levels.items()
            for side in signs.SIDES
            for part, names in enumerate(parts.cut(own, signs.PARTS))
        ]
        label, folder = f"diagnosis: correct and incorrect, seed {seed}", keeper.vectors / f"signs-{seed}"
        made = parts.gradients(run, jobs, folder=folder, label=label, meter=meter)
        return signs.by_level(made, {level: signs.count(groups, own) for level, own in levels.items()})

    rows: Table = keeper.part(f"{seed}/signs", None, work)
    keeper.forget(f"signs-{seed}")
    return rows


def _gains(keeper: Keeper, seed: int) -> Table:
    """For every method that searched along one direction."""
    searches = keeper.found.searches(seed)
    if not searches:
        return []
    met = max(len(c.score.problem_ids) for search, _ in searches.values() for c in search.candidates)
    problems = keeper.run.problems.selection[:met]

    def work(meter: Meter) -> dict[str, Vector]:
        batch = keeper.fresh(problems, samples=keeper.run.spec.sampling.group, seed=seed, meter=meter)
        rewards = parts.rewarded(parts.outcomes(batch), parts.is_correct)
        weighed = weighing.weigh(batch, problems, rewards=rewards, scheme="rloo")
        jobs = [Job(f"s{i}", weighed, names) for i, names in enumerate(parts.cut(problems, MAX_SUB_BATCHES))]
        label, folder = f"diagnosis: gradients on selection problems, seed {seed}", keeper.vectors / f"gains-{seed}"
        found = parts.gradients(keeper.run, jobs, folder=folder, label=label, meter=meter)
        return {**found, **{name: Vector((keeper.root / d.path,)) for name, (_, d) in searches.items()}}

    found = keeper.multiplied(f"{seed}/gains", [met, list(searches)], work)
    keeper.forget(f"gains-{seed}")
    own = [place for place, label in enumerate(found.labels) if label not in searches]
    rows: Table = []
    for method, (search, direction) in searches.items():
        slope = gains.slope(found.total[own, found.labels.index(method)])
        rows += [{"method": method, "kind": direction.kind, **row} for row in gains.along(search, slope)]
    return rows


def _finite(value: Any) -> Any:
    """For readers of strict JSON: what is not a number is null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
