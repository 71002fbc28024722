"""The line search as a race against the exhaustive grid, on tabular policies whose every truth is known.

Does: draw 500 policies and directions nearly at a right angle to the gradient, so that the best step differs from run to
run, zero included; replay both searches on the same draws; compare their winners with each other, with
the truth and with every fixed target.
Doesn't: sample with an engine: completions of the tabular policies are drawn here by the same inverse CDF.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.perf.rows import Row
from harness import config, racing, stats, stepping
from harness.types import Candidate, Policy, Score
from harness_engines import tabular_policy
from harness_engines.tabular_policy import Tables

RUNS, LEVELS = 500, 5
ANGLES = (0.44 * np.pi, 0.52 * np.pi)  # to the gradient; beyond a right angle no step helps
SPEC = config.SearchSpec()
TARGETS = (0.0, *SPEC.kl_targets)
Floats = npt.NDArray[np.float64]


class Line(NamedTuple):
    """Candidates of one search: exact accuracy [C] and, by problem and draw, which completions are right [C, P, S]."""

    truth_C: Floats
    right_CPS: npt.NDArray[np.bool_]


class Outcome(NamedTuple):
    exhaustive: int
    raced: int
    rollouts: int
    within: bool


def line(generator: np.random.Generator) -> Line:
    """A random policy, a direction at a random angle to its gradient, and the steps for the KL targets."""
    rates = np.exp(generator.uniform(np.log(0.02), np.log(0.7), LEVELS))
    tables = tabular_policy.tables_for(rates.tolist())
    direction = _direction(tables, generator)
    levels = list(range(1, LEVELS + 1))
    steps = [0.0, *(_step(tables, direction, target) for target in SPEC.kl_targets)]
    moved = [{n: t + step * direction[n] for n, t in tables.items()} for step in steps]
    uniforms_PS2 = generator.random((SPEC.problems, SPEC.samples, 2))
    level_P = np.arange(SPEC.problems) % LEVELS
    truth, right = [], []
    for candidate in moved:
        logs = tabular_policy.log_probs(candidate, 1.0)
        style_C, offset_C = logs.style_CS[:, 0].exp().numpy(), logs.offset_CSM[:, 0, 0].exp().numpy()
        truth.append(float(np.mean([tabular_policy.pass_rate(candidate, level) for level in levels])))
        right.append((uniforms_PS2[..., 0] < style_C[level_P, None]) & (uniforms_PS2[..., 1] < offset_C[level_P, None]))
    return Line(np.array(truth), np.array(right))


def _direction(tables: Tables, generator: np.random.Generator) -> Tables:
    gradient = tabular_policy.exact_gradient(tables, list(range(1, LEVELS + 1)))
    angle = generator.uniform(*ANGLES)
    noise = {n: torch.from_numpy(generator.standard_normal(tuple(t.shape))) for n, t in gradient.items()}
    length = {kind: _norm(parts) for kind, parts in (("gradient", gradient), ("noise", noise))}
    return {
        n: np.cos(angle) * g / length["gradient"] + np.sin(angle) * noise[n] / length["noise"]
        for n, g in gradient.items()
    }


def _norm(tables: Tables) -> float:
    return float(sum(t.square().sum() for t in tables.values())) ** 0.5


def _step(tables: Tables, direction: Tables, target: float) -> float:
    """The step whose KL(base || candidate) is the target, by bisection."""
    low, high = 0.0, 1000.0
    for _ in range(60):
        middle = (low + high) / 2
        moved = {n: t + middle * direction[n] for n, t in tables.items()}
        reached = tabular_policy.exact_kl(tables, moved, list(range(1, LEVELS + 1))) >= target
        low, high = (low, middle) if reached else (middle, high)
    return high


def compare(found: Line) -> Outcome:
    """Both searches on the same draws; `within`: the race's winner is within one standard error of the other one."""
    rates_CP = found.right_CPS.mean(axis=2)
    exhaustive, _ = stepping.choose([_candidate(rates) for rates in found.right_CPS.sum(axis=2)])
    met, rollouts = _race(rates_CP)
    raced, _ = stepping.choose(
        [_candidate(right[:n]) for right, n in zip(found.right_CPS.sum(axis=2), met, strict=True)]
    )
    difference_P = rates_CP[exhaustive] - rates_CP[raced]
    within = bool(difference_P.mean() <= stats.clustered_se(difference_P))
    return Outcome(exhaustive, raced, rollouts * SPEC.samples, within)


def _race(rates_CP: Floats) -> tuple[list[int], int]:
    """Problems met by each candidate, and in all."""
    active, met = list(range(len(rates_CP))), [0] * len(rates_CP)
    for part in racing.plan(len(rates_CP), rates_CP.shape[1]):
        if len(active) > part.candidates:
            stay = racing.stay([rates_CP[i, : part.start] for i in active], part.candidates, first=active[0] == 0)
            active = [active[place] for place in stay]
        for i in active:
            met[i] = part.stop
    return met, sum(met)


def _candidate(right_P: npt.NDArray[np.int64]) -> Candidate:
    count: dict[str, Any] = {"n": (SPEC.samples,) * len(right_P), "correct": tuple(int(c) for c in right_P)}
    shares: dict[str, Any] = {"format": 1.0, "truncated": 0.0, "unparsed": 0.0, "timeouts": 0.0, "errors": 0}
    ids = tuple(str(i) for i in range(len(right_P)))
    score = Score(problem_ids=ids, correct_free=count["correct"], **count, **shares)
    return Candidate(policy=Policy(base=""), step=0.0, relative_step=0.0, score=score)


class Summary(NamedTuple):
    """Over all runs: how often each target is the true best, the share within one standard error of the exhaustive winner,
    rollouts of a race and of the grid, and the mean true accuracy of the race, the grid and each fixed target."""

    best: Counter[float]
    within: float
    rollouts: float
    grid_rollouts: int
    raced: float
    exhaustive: float
    fixed: dict[float, float]


def summarise(runs: int, *, seed: int = 0) -> Summary:
    generator = np.random.default_rng(seed)
    lines = [line(generator) for _ in range(runs)]
    outcomes = [compare(found) for found in lines]
    return Summary(
        best=Counter(TARGETS[int(found.truth_C.argmax())] for found in lines),
        within=float(np.mean([outcome.within for outcome in outcomes])),
        rollouts=float(np.mean([outcome.rollouts for outcome in outcomes])),
        grid_rollouts=len(TARGETS) * SPEC.problems * SPEC.samples,
        raced=float(np.mean([f.truth_C[o.raced] for f, o in zip(lines, outcomes, strict=True)])),
        exhaustive=float(np.mean([f.truth_C[o.exhaustive] for f, o in zip(lines, outcomes, strict=True)])),
        fixed={target: float(np.mean([f.truth_C[i] for f in lines])) for i, target in enumerate(TARGETS)},
    )


def measure() -> list[Row]:
    found = summarise(RUNS)
    best_fixed = max(found.fixed, key=lambda target: found.fixed[target])
    spread = ", ".join(f"{target:g}: {found.best[target]}" for target in TARGETS)
    return [
        Row(
            "line search, rollouts", found.rollouts, float(found.grid_rollouts), "selection rollouts",
            found.grid_rollouts / found.rollouts, "ratio >= 2", "peer: the exhaustive grid",
        ),
        Row(
            "line search, within one standard error", found.within, 1.0, "share of runs", found.within, "ratio >= 0.95",
            f"of the exhaustive winner; {RUNS} runs by true best target: {spread}",
        ),
        Row(
            "line search, true accuracy", found.raced, found.fixed[best_fixed], "mean accuracy",
            found.raced / found.fixed[best_fixed], "ratio >= 1", f"peer: the best fixed target, {best_fixed:g}; the grid has {found.exhaustive:.4f}",
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    for row in measure():
        print(row)
