"""Expected gains of one_shot on tabular policies, over pass rates and budgets, with every step judged exactly.

    python -m harness_engines.tabular_gains --out results/suites/low_pass_rate

Does: move the pass rate in three ways (a level's rate, temperature, a step along or against the exact direction); for each
draw many batches, take the direction of their first N rollouts, solve its steps, race them as one_shot does, and enumerate
the true pass rate of what was chosen and of every step.
Doesn't: go through an engine or a run folder, or cost test draws.

A batch needs no rollouts one by one: the gradient of a group depends on how often each of the 24 completions came up, so
groups are drawn as multinomial counts. KL, pass rates and the direction of infinite N (the expectation of the weighted sum
over groups of 16) come from tabular_policy.py. `potential` is the gain of the best step, the zero step among them, by
the truth: what the direction could earn under a search without error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import numpy.typing as npt
import torch

from harness import directions, racing, seeds, stepping
from harness.advantages import group_advantages
from harness.config import SearchSpec
from harness.passrates import crossing
from harness.passrates.ordering import Gain, ordering
from harness.report import low_rates, low_rates_chart
from harness.types import Candidate, Policy, Score
from harness_engines.tabular import DEFAULT_RATES
from harness_engines.tabular_policy import (
    Tables,
    class_index,
    exact_kl,
    expected_direction,
    log_probs,
    pass_rate,
    tables_for,
)

Floats = npt.NDArray[np.float64]
GROUP = 16
SCHEME = "grpo"
SELECTION = 1024
BUDGETS = (128, 512, 2048, 8192, 32768)
LEVELS = (0.9, 0.6, 0.3, 0.1, 0.05, 0.03, 0.01, 0.003, 0.001, 3e-4, 1e-4, 3e-5)
TEMPERATURES = (0.5, 0.7, 1.0, 1.5, 2.0, 4.0)
STEPPED = (0.5, 0.3, 0.1, 0.05, 0.03, 0.01, 0.003, 0.001, 3e-4, 1e-4, 3e-5)


class Setting(NamedTuple):
    """A policy at a temperature, and the levels its problems take in turn."""

    way: str
    name: str
    tables: Tables
    temperature: float
    levels: tuple[int, ...]

    def rate(self, tables: Tables) -> float:
        """The exact mean pass rate of `tables` on these problems."""
        return float(np.mean([pass_rate(tables, level, temperature=self.temperature) for level in self.levels]))


class Step(NamedTuple):
    """A policy on the line, its pass rate and its share of right styles and offsets, by class."""

    step: float
    tables: Tables
    rate: float


def settings() -> Iterator[Setting]:
    mixed, levels = tables_for(DEFAULT_RATES), tuple(range(1, len(DEFAULT_RATES) + 1))
    for rate in LEVELS:
        yield Setting("level", f"{rate:g}", tables_for([rate]), 1.0, (1,))
    for temperature in TEMPERATURES:
        yield Setting("temperature", f"{temperature:g}", mixed, temperature, levels)
    base = Setting("stepped", "", mixed, 1.0, levels)
    line = per_tensor(base, expected_direction(mixed, levels, group=GROUP, scheme=SCHEME))
    for rate in STEPPED:
        step = bisected(lambda a: base.rate(moved(mixed, line, a)), rate, low=-1.0, high=1.0)
        yield base._replace(name=f"{rate:g}", tables=moved(mixed, line, step))


def bisected(rate_at: Callable[[float], float], wanted: float, *, low: float, high: float) -> float:
    """The step between `low` and `high` at which a rising rate has the value wanted."""
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if rate_at(middle) < wanted else (low, middle)
    return (low + high) / 2


def moved(tables: Tables, direction: Tables, step: float) -> Tables:
    return {name: t + step * direction[name] for name, t in tables.items()}


def per_tensor(setting: Setting, gradient: Tables) -> Tables:
    """The kind of direction that one_shot follows by default."""
    return {
        name: torch.from_numpy(directions.per_tensor(gradient[name].numpy(), float(t.norm())))
        for name, t in setting.tables.items()
    }


def counts(setting: Setting, problems: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """How often each completion (style, offset) came up in the group of each problem: problems x styles x offsets."""
    style_CS, offset_CSM = log_probs(setting.tables, setting.temperature)
    chances_CSM = (style_CS[:, :, None] + offset_CSM).exp().numpy()
    chances_PK = chances_CSM[classes(setting, problems)].reshape(problems, -1)
    drawn_PK = rng.multinomial(GROUP, chances_PK / chances_PK.sum(1, keepdims=True))
    return np.asarray(drawn_PK.reshape(problems, *chances_CSM.shape[1:]), dtype=np.int64)


def classes(setting: Setting, problems: int) -> npt.NDArray[np.int64]:
    places = [class_index(setting.tables, level) for level in setting.levels]
    return np.resize(np.array(places, dtype=np.int64), problems)


def gradient(setting: Setting, counts_PSM: npt.NDArray[np.int64]) -> Tables | None:
    """Sum over rollouts of weight times the gradient of the log-probability; None when every group is dead."""
    weighted_PSM = counts_PSM * _weights(counts_PSM)
    if not weighted_PSM.any():
        return None
    own = log_probs(setting.tables, setting.temperature)
    weighted_CSM = np.zeros(own.offset_CSM.shape)
    np.add.at(weighted_CSM, classes(setting, len(counts_PSM)), weighted_PSM)
    sums_CSM = torch.from_numpy(weighted_CSM) / setting.temperature
    sums_CS = sums_CSM.sum(2)
    style_CS = sums_CS - sums_CS.sum(1, keepdim=True) * own.style_CS.exp()
    offset_CSM = sums_CSM - sums_CS[:, :, None] * own.offset_CSM.exp()
    shared = {"style_shared": style_CS.sum(0), "offset_shared": offset_CSM.sum((0, 1))}
    return {"style": style_CS, "offset": offset_CSM, **shared}


def _weights(counts_PSM: npt.NDArray[np.int64]) -> Floats:
    """The weight of each completion in its group: one of the right one, another of all the rest."""
    rewards = [[1.0] * k + [0.0] * (GROUP - k) for k in range(GROUP + 1)]
    weights_KG = np.stack([group_advantages(own, SCHEME).weights_G for own in rewards])
    right_P = counts_PSM[:, 0, 0]
    weights_PSM = np.repeat(weights_KG[right_P, -1], counts_PSM[0].size).reshape(counts_PSM.shape)
    weights_PSM[:, 0, 0] = weights_KG[right_P, 0]
    return weights_PSM


def steps(setting: Setting, direction: Tables) -> list[Step]:
    """The zero step and those of the default KL targets, with their true rates."""
    base = setting.tables

    def kl_at(step: float) -> float:
        return exact_kl(base, moved(base, direction, step), setting.levels, temperature=setting.temperature)

    norms = [math.sqrt(sum(float(t.square().sum()) for t in own.values())) for own in (direction, base)]
    targets = SearchSpec().kl_targets
    solved = stepping.solve_steps(kl_at, targets, direction_norm=norms[0], weight_norm=norms[1])
    along = [(s.step, moved(base, direction, s.step)) for s in solved]
    return [Step(step, tables, setting.rate(tables)) for step, tables in [(0.0, base), *along]]


def race(setting: Setting, lanes: Sequence[Step], rng: np.random.Generator) -> Step:
    """The step that the search of one_shot takes from SELECTION rollouts: common random numbers, rounds, caution."""
    spec = SearchSpec()
    problems, samples = racing.sizes(SELECTION, len(lanes), problems=spec.problems, samples=spec.samples)
    uniforms_PN2 = rng.random((problems, samples, 2))
    right_LPN = [_right(setting, lane.tables, uniforms_PN2) for lane in lanes]
    active, met = list(range(len(lanes))), [0] * len(lanes)
    for part in racing.plan(len(lanes), problems):
        if len(active) > part.candidates:
            rates = [right_LPN[i][: met[i]].mean(1) for i in active]
            active = [active[place] for place in racing.stay(rates, part.candidates, first=active[0] == 0)]
        for i in active:
            met[i] = part.stop
    found = [_candidate(right_LPN[i][: met[i]], lane.step) for i, lane in enumerate(lanes)]
    return lanes[stepping.choose(found)[0]]


def _right(setting: Setting, tables: Tables, uniforms_PN2: Floats) -> Floats:
    """Which draws are right: style and offset 0 are the first that a uniform number picks, as in the sampler."""
    own, classes_P = log_probs(tables, setting.temperature), classes(setting, len(uniforms_PN2))
    limits_C2 = torch.stack([own.style_CS[:, 0], own.offset_CSM[:, 0, 0]], dim=1).exp().numpy()
    return np.asarray((uniforms_PN2 < limits_C2[classes_P][:, None]).all(2), dtype=np.float64)


def _candidate(right_PN: Floats, step: float) -> Candidate:
    ids = tuple(map(str, range(len(right_PN))))
    correct = tuple(int(c) for c in right_PN.sum(1))
    shares = {"format": math.nan, "truncated": math.nan, "unparsed": math.nan, "timeouts": math.nan}
    n = (right_PN.shape[1],) * len(ids)
    score = Score(problem_ids=ids, n=n, correct=correct, correct_free=correct, errors=0, **shares)
    return Candidate(policy=Policy(base=""), step=step, relative_step=math.nan, kl=math.nan, entropy=None, score=score)


class Outcome(NamedTuple):
    """Of one batch: true gains, and the cosine of its direction with that of infinite N (0 without a direction)."""

    gain: float
    potential: float
    cosine: float
    dead: float


def outcome(setting: Setting, counts_PSM: npt.NDArray[np.int64], line: Tables, rng: np.random.Generator) -> Outcome:
    right_P = counts_PSM[:, 0, 0]
    dead, found = float(np.mean((right_P == 0) | (right_P == GROUP))), gradient(setting, counts_PSM)
    if found is None:
        return Outcome(0.0, 0.0, 0.0, dead)
    direction, base = per_tensor(setting, found), setting.rate(setting.tables)
    lanes = steps(setting, direction)
    best = max(lane.rate for lane in lanes)
    return Outcome(race(setting, lanes, rng).rate - base, best - base, _cosine(direction, line), dead)


def _cosine(left: Tables, right: Tables) -> float:
    a, b = (torch.cat([t.flatten() for t in own.values()]) for own in (left, {name: right[name] for name in left}))
    return float(a @ b / (a.norm() * b.norm()))


def rows_of(setting: Setting, replicates: int, budgets: Sequence[int]) -> Iterator[dict[str, Any]]:
    """One for each budget: the batches of a replicate are the beginnings of its largest."""
    ideal = expected_direction(
        setting.tables, setting.levels, group=GROUP, scheme=SCHEME, temperature=setting.temperature
    )
    line, rate = per_tensor(setting, ideal), setting.rate(setting.tables)
    reference = max(step.rate for step in steps(setting, line)) - rate
    found: dict[int, list[Outcome]] = {budget: [] for budget in budgets}
    for replicate in range(replicates):
        rng = seeds.generator(seeds.seed_for(replicate, "tabular gains", f"{setting.way} {setting.name}"))
        counts_PSM = counts(setting, max(budgets) // GROUP, rng)
        for budget in budgets:
            found[budget].append(outcome(setting, counts_PSM[: budget // GROUP], line, rng))
    for budget, own in found.items():
        told = _told(own)
        yield {"domain": "tabular", "way": setting.way, "setting": setting.name, "p": rate, "budget": budget, "correct": budget * rate,
               "replicates": replicates, **told, "reference": reference, "share": told["gain"] / reference}  # fmt: skip


def _told(found: Sequence[Outcome]) -> dict[str, float]:
    """Means over replicates; the interval of the mean gain is normal."""
    gains, potentials = np.array([o.gain for o in found]), np.array([o.potential for o in found])
    half = 1.96 * float(gains.std(ddof=1)) / math.sqrt(len(gains))
    mean = float(gains.mean())
    return {
        "dead": float(np.mean([o.dead for o in found])), "cosine": float(np.mean([o.cosine for o in found])),
        "gain": mean, "ci_low": mean - half, "ci_high": mean + half, "potential": float(potentials.mean()),
    }  # fmt: skip


def sentences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which of p and N p orders the gains, and which the shares of infinite N's gain; without bases stepped up."""
    told, rows = [], low_rates.unspent(rows, base=float(np.mean(DEFAULT_RATES)))
    for way in (*dict.fromkeys(row["way"] for row in rows), "all ways"):
        own = [row for row in rows if way in (row["way"], "all ways")]
        parts = {"gain": [row["gain"] / (1.0 - row["p"]) for row in own],
                 "share of infinite N's gain": [row["share"] for row in own]}  # fmt: skip
        for what, values in parts.items():
            made = [
                Gain(f"{row['way']} {row['setting']}", row["p"], row["budget"], value)
                for row, value in zip(own, values, strict=True)
            ]
            fitted = ordering(made)
            if fitted is not None:
                told.append(f"tabular, {way}, {what}: {fitted.sentence}")
    return told


def break_evens(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """By way and N: the p at which the expected gain reaches crossing.DELTA, where it lies inside the grid."""
    told = []
    for way, budget in dict.fromkeys((row["way"], row["budget"]) for row in rows):
        own = sorted((row["p"], row["gain"]) for row in rows if (row["way"], row["budget"]) == (way, budget))
        rates_K, gains_K = np.array(own).T
        (at,) = crossing.first_crossings(rates_K[None], gains_K[None], crossing.DELTA)
        if 0.0 < at < math.inf:
            told.append(f"tabular, {way}, N = {budget:,}: break-even p = {at:.2g}, N p = {budget * at:.2g}")
    return told


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of tabular.csv, .svg and .png.")
@click.option("--replicates", type=int, default=80, show_default=True, help="Batches of each setting.")
def main(out: Path, replicates: int) -> None:
    """Write the grid of expected gains and its figure; say which of p and N p orders them."""
    torch.set_num_threads(1)
    rows = [row for setting in settings() for row in rows_of(setting, replicates, BUDGETS)]
    low_rates_chart.save(out / "tabular", rows, rows)
    for sentence in (*break_evens(rows), *sentences(rows)):
        click.echo(sentence)


if __name__ == "__main__":
    main()
