"""Bases of wanted pass rates made of one base, by a step along its own one-shot direction or against it.

    python -m harness_methods.weakening --domain code --out results/models/stepped-code --rate 0.03 --rate 0.003

Does: take the direction through the stages of a run; solve the step for each pass rate, downwards against the direction,
upwards along it; write each policy as a checkpoint, and last stepped.json, which says what was measured and how.
Doesn't: use problems of the runs that start from these bases, or find a rate that the line does not reach: there it
writes the nearest policy that it measured, and says so.

A weakened base is the base pushed the way that one_shot would push it back: its failures have a remedy nearby by
construction, which those of a hard level need not have. The direction is taken of training problems of run seed 1, pass
rates are measured on those of run seed 2, once each; runs with one seed use seed 0. Rates are those of temperature 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from harness import config, evaluating, pipeline, plugins, store
from harness.config import RunSpec
from harness.run import Run
from harness.stages import Stages
from harness.types import Contender, Direction, Move, Policy, Problem
from harness_methods.one_shot import OPTIONS, OneShot, one_shot_direction

DIRECTION_SEED, RATE_SEED = 1, 2
FIRST = 0.005  # |delta| / |theta| of the first step away from the base
GROWTH = 2.0  # of the step, while the rate is not reached
LIMIT = 0.5  # of |delta| / |theta|
TOLERANCE = math.log(1.2)  # of the log of measured over wanted rate; more where the draws cannot tell
ATTEMPTS = 8  # measurements for one rate
KL_PROBLEMS = 64


class Measured(NamedTuple):
    """A step along the direction and the pass rate there: `correct` of `rollouts`."""

    step: float
    correct: int
    rollouts: int

    @property
    def rate(self) -> float:
        return self.correct / self.rollouts

    @property
    def log_rate(self) -> float:
        """With half a success more, so that it is finite where nothing was solved."""
        return math.log((self.correct + 0.5) / (self.rollouts + 1))


def solve(
    measure: Callable[[float], Measured], target: float, points: list[Measured], *, first: float, limit: float
) -> Measured:
    """The measured point nearest to the rate `target`; `points` holds the base and gains all that is measured.

    Away from the base the step grows from `first` until it has passed the target or `limit`; then the first crossing is
    narrowed down by lines in log rate.
    """
    base = points[0]
    sign = 1.0 if target > base.rate else -1.0
    for _ in range(ATTEMPTS):
        own = sorted((p for p in points if p.step * sign >= 0), key=lambda p: abs(p.step))
        if reached(best := min(own, key=lambda p: _off(p, target)), target):
            return best
        passed = next((i for i, p in enumerate(own) if (p.log_rate - math.log(target)) * sign >= 0), None)
        if passed is None:
            step = sign * first if len(own) == 1 else own[-1].step * GROWTH
            turned = len(own) > 2 and (own[-1].log_rate - own[-2].log_rate) * sign < 0
            if turned or abs(step) > limit:
                break
        else:
            step = _between(own[passed - 1], own[passed], target)
        points.append(measure(step))
    return min((p for p in points if p.step * sign >= 0), key=lambda p: _off(p, target))


def reached(point: Measured, target: float) -> bool:
    """Within TOLERANCE, or within a standard error of so many draws at the target."""
    return _off(point, target) <= max(TOLERANCE, 1.0 / math.sqrt(target * point.rollouts))


def _off(point: Measured, target: float) -> float:
    return abs(point.log_rate - math.log(target))


def _between(near: Measured, far: Measured, target: float) -> float:
    """Where the line through two points meets the target, not too close to either."""
    share = (math.log(target) - near.log_rate) / (far.log_rate - near.log_rate)
    return near.step + min(max(share, 0.1), 0.9) * (far.step - near.step)


def spec_of(domain: str, *, model: str, engine: str, budget: int, workers: int) -> RunSpec:
    """A run whose seeds 1 and 2 are the problems of the direction and of the rates."""
    changes = {"model": model, "methods": ["one_shot"], "budget": budget, "workers": workers}
    return config.load(domain, file=None, changes={**changes, "seeds": RATE_SEED + 1}, sets=[f'engine.name="{engine}"'])


def stepped(run: Run, direction: Direction, step: float) -> Policy:
    move = Move(kind="direction", path=direction.path, digest=direction.digest, step=step)
    return replace(run.base, moves=(move,)) if step else run.base


def measure(run: Run, direction: Direction, step: float) -> Measured:
    """The pass rate of all rollouts of the rate's problems, a group of each."""
    contender = Contender(policies=(stepped(run, direction, step),))
    samples = run.spec.sampling.group
    score = evaluating.scored(run, contender, _problems(run), seed=RATE_SEED, samples=samples, purpose="rate").score
    return Measured(step, sum(score.correct), sum(score.n))


def _problems(run: Run) -> Sequence[Problem]:
    return run.problems.train[RATE_SEED]


def kl(run: Run, policy: Policy) -> float:
    """Mean KL(base || policy) per token, nats, on one completion of the base for each of the first problems."""
    problems, base = _problems(run)[:KL_PROBLEMS], Contender(policies=(run.base,))
    batch = evaluating.scored(run, base, problems, seed=RATE_SEED, samples=1, purpose="rate").batch
    rollouts = [rollout for name in batch.problem_ids for rollout in batch.group(name)]
    scores = run.engine.score(rollouts, run.base, temperature=run.spec.sampling.temperature, kl_to=policy)
    return float(np.concatenate([score.kl_T for score in scores if score.kl_T is not None]).mean())


def make(run: Run, rates: Sequence[float], out: Path, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Write a base for each rate into a folder of `out` named by it; what stepped.json holds."""
    stages = Stages(run, method=OneShot.name, seed=DIRECTION_SEED, options=OPTIONS)
    direction = one_shot_direction(stages)
    points = [measure(run, direction, 0.0)]
    unit = direction.weight_norm / direction.norm
    say(f"base: pass rate {points[0].rate:.4f}")
    bases = []
    for target in sorted(rates, reverse=True):
        found = solve(
            lambda step: measure(run, direction, step), target, points, first=FIRST * unit, limit=LIMIT * unit
        )
        policy, folder = stepped(run, direction, found.step), f"{target:g}"
        run.engine.materialise(policy, out / folder)
        bases.append(
            {"rate": target, "folder": folder, "reached": reached(found, target), "pass_rate": found.rate,
             "correct": found.correct, "rollouts": found.rollouts, "step": found.step,
             "relative_step": abs(found.step) / unit, "kl": kl(run, policy)}
        )  # fmt: skip
        say(f"{target:g}: pass rate {found.rate:.4f}, KL {bases[-1]['kl']:.3f}, {len(points)} points so far")
    return {"direction": _told(direction), "bases": bases, "measured": [list(p) for p in sorted(points)]}


def _told(direction: Direction) -> dict[str, Any]:
    names = ("kind", "norm", "weight_norm", "batch_pass_rate", "groups_used", "groups_dead", "snr", "agreement")
    return {name: getattr(direction, name) for name in names}


@click.command()
@click.option("--domain", required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the bases.")
@click.option(
    "--rate", "rates", type=click.FloatRange(0, 1, min_open=True, max_open=True), multiple=True, required=True
)
@click.option("--model", default="tiny", show_default=True, help="The base that they are made of.")
@click.option("--engine", default="hf", show_default=True)
@click.option("--budget", type=int, default=2048, show_default=True, help="Rollouts of the direction, and of a rate.")
@click.option("--workers", type=int, default=1, show_default=True)
def main(
    domain: str, out: Path, *, rates: tuple[float, ...], model: str, engine: str, budget: int, workers: int
) -> None:
    """Make bases of the given pass rates. The same command goes on where it stopped; stepped.json comes last."""
    spec = spec_of(domain, model=model, engine=engine, budget=budget, workers=workers)
    with pipeline.opened(out / "run", spec, plugins.load(), progress=lambda *_: None) as run:
        told = make(run, rates, out, say=click.echo)
    how = (
        f"theta = base + step x direction; the direction of {budget} rollouts of run seed {DIRECTION_SEED}, each pass rate "
        f"of {budget} rollouts of run seed {RATE_SEED}; kl is KL(base || theta), nats per token; measured holds [step, "
        "correct, rollouts]"
    )
    made = {"domain": domain, "model": model, "engine": engine, "how": how, **told}
    store.write_json(out / "stepped.json", made)


if __name__ == "__main__":
    main()
