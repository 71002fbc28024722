"""From a weighed batch to raw directions: what the engine makes of it, once per run and seed.

Does: ask the engine, keep the answer beside the direction's file, and read it where another method asked before; check
that sampler and trainer agree; say which engine lacks what a method needs.
Doesn't: journal or charge (stages.py), or transform a direction (directions.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import admitting, store
from harness.budget import Cost, Stopwatch
from harness.config import EngineSpec
from harness.contracts import Engine, Method, Objective, Progress
from harness.errors import HarnessError, UsageError
from harness.run import Run
from harness.types import Direction, Policy
from harness.weighing import GradientBatch

HALF = ("bfloat16", "float16")
ROUNDING = 10  # how much more a token may differ in these: one in 40,000 does by .2 nats where policies are the same


def gradient(
    run: Run,
    weighed: GradientBatch,
    policy: Policy,
    *,
    objective: Objective,
    out: str,
    method: str,
    moments: bool = False,
) -> tuple[Direction, Cost]:
    """The raw gradient in file `out` and what it cost, also where it was there already; with `moments` its `rms` besides.

    A gradient that is there without them is taken again.
    """
    path, rms = Path(out), f"{out.removesuffix('.safetensors')}.rms.safetensors"

    def work() -> list[Direction]:
        progress = _progress(run, f"{method}: gradient of {int(weighed.normaliser)} rollouts")
        if not moments:
            return [run.engine.gradient(weighed, policy, objective, out=path, progress=progress)]
        ask = optional(run.engine, "moments", method=method)
        return [replace(ask(weighed, policy, objective, out=path, rms=Path(rms), progress=progress), rms=rms)]

    stored = run.root / f"{out}.json"
    if moments and not (run.root / rms).exists():
        stored.unlink(missing_ok=True)
    (direction,), cost = _once(run, weighed, work, stored=stored)
    check_gap(run, direction)
    return direction, cost


def hidden(
    run: Run, weighed: GradientBatch, policy: Policy, *, depths: Sequence[float], out: str, method: str
) -> tuple[list[Direction], Cost]:
    """The weighted sum of hidden states after the layers at `depths`, in files in folder `out`, and what it cost."""

    def work() -> list[Direction]:
        progress = _progress(run, f"{method}: hidden states of {int(weighed.normaliser)} rollouts")
        ask = optional(run.engine, "hidden", method=method)
        found: list[Direction] = ask(weighed, policy, depths=depths, out=Path(out), progress=progress)
        return found

    return _once(run, weighed, work, stored=run.root / out / "directions.json")


def linear(engine: Engine, *, method: str) -> list[str]:
    """Names of the weights of linear layers. Raises UsageError where the engine does not tell."""
    found: list[str] = optional(engine, "linear", method=method)()
    return found


def require(methods: Mapping[str, Method], engine: Engine) -> None:
    """Raises UsageError when a method `needs` an optional method of engines that this one lacks."""
    for name, method in methods.items():
        for needed in getattr(method, "needs", ()):
            optional(engine, needed, method=name)


def require_no_trainer(methods: Mapping[str, Method], options: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises UsageError for the first method that says it keeps an optimizer, as no engine does with `engine.fsdp`."""
    for name, method in methods.items():
        if hasattr(method, "spends") and method.spends(options[name]).optimizer:
            raise UsageError(
                f"{name} trains step by step, which engine.fsdp does not do: leave {name} out (--method one_shot, named "
                "once or several times, says which run), or engine.fsdp where one GPU has room for the model"
            )


def optional(engine: Engine, name: str, *, method: str) -> Callable[..., Any]:
    """An optional method of the engine; raises UsageError that says what to do where it is missing."""
    found: Callable[..., Any] | None = getattr(engine, name, None)
    if found is None:
        raise UsageError(
            f'{method} needs an engine with "{name}", which {admitting.name_of(engine)} has not. Use --engine '
            f"{EngineSpec().name}, or another that has it (docs/write-a-method.md), or leave {method} out."
        )
    return found


def _progress(run: Run, label: str) -> Progress:
    return lambda done, total: run.progress(label, done, total)


def _once(
    run: Run, weighed: GradientBatch, work: Callable[[], list[Direction]], *, stored: Path
) -> tuple[list[Direction], Cost]:
    """Another method may have asked for the same: then it is read, and charged all the same."""
    with contextlib.nullcontext() if run.lender is None else run.lender.alone(stored):
        if (entry := _kept(run.root, stored)) is None:
            watch = Stopwatch()
            dead, rate = weighed.groups_dead, weighed.pass_rate
            made = [replace(direction, groups_dead=dead, batch_pass_rate=rate) for direction in work()]
            cost = watch.cost()._replace(train_tokens=made[0].tokens)  # all come from one pass over the batch
            entry = {"directions": made, "cost": cost._asdict()}
            store.write_json(stored, entry)
    return list(entry["directions"]), Cost(**entry["cost"])


def _kept(root: Path, stored: Path) -> dict[str, Any] | None:
    """An answer that is on disk with its files."""
    entry: dict[str, Any] | None = store.read_json(stored, dict) if stored.exists() else None
    return entry if entry and all((root / made.path).exists() for made in entry["directions"]) else None


def check_gap(run: Run, direction: Direction) -> None:
    limit, gap = run.spec.sampling.logprob_gap, direction.logprob_gap
    if gap is None or gap <= limit:
        return
    allowed = limit * (ROUNDING if run.engine.identity().get("dtype") in HALF else 1)
    if not gap <= allowed:
        tenfold = "" if allowed == limit else f", {allowed:g} in 16 bits"
        raise HarnessError(
            f"trainer and sampler disagree by {gap:.3g} nats on a token (limit sampling.logprob_gap = {limit}{tenfold}): "
            "the gradient would be of another policy. Use --set engine.dtype=float32, or raise the limit knowingly."
        )
