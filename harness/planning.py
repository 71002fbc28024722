"""`--dry-run`: what a run would do and cost, before it does.

Does: count the rollouts of every method by what it says it spends; state tokens, memory and time, from a short measured
probe where the model is small and here, else from stated assumptions (estimating.py).
Doesn't: write anything that stays, or load a model that is large or has to be fetched.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from harness import directing, estimating, evaluating, pipeline, scaling, selecting, sizing
from harness.config import RunSpec
from harness.contracts import Domain, Method, Spending
from harness.errors import UsageError
from harness.estimating import Pace
from harness.methods import check_options, methods_of
from harness.plugins import Plugins
from harness.selecting import Names

HEAD = ("method", "train", "selection, at most", "evaluation", "generated", "trained, about", "GiB")


class Sizes(NamedTuple):
    """Rollouts of the training budget that can be spent and the problems they are of, problems of each test set, tokens
    of a completion at most."""

    train: int
    problems: int
    tests: tuple[int, ...]
    max_tokens: int
    note: str


class Stage(NamedTuple):
    """Rollouts of one method in one seed, and those of which a gradient is taken (one taken twice counts twice)."""

    name: str
    train: int
    selection: int
    evaluation: int
    graded: float
    spends: Spending

    @property
    def rollouts(self) -> int:
        return self.train + self.selection + self.evaluation


def print_plan(spec: RunSpec, plugins: Plugins) -> None:
    """Print counts, tokens, memory and time of every method. Raises UsageError for a bad spec."""
    methods = methods_of(spec, plugins)
    options = check_options(spec, methods)
    domain: Domain = plugins.lookup("domain", spec.domain).load()()
    names = selecting.names(domain, spec)
    if sizing.is_small(spec):
        with (
            tempfile.TemporaryDirectory() as folder,
            pipeline.opened(Path(folder), spec, plugins, progress=lambda *_: None) as run,
        ):
            directing.require(methods, run.engine)
            sizes, pace = _sizes(spec, run.problems), estimating.probed(run)
    else:
        sizes = _expected(spec, domain, names)
        pace = estimating.assumed(spec, max_tokens=sizes.max_tokens)
    plan = [stage(spec, name, spends(methods[name], options[name]), sizes) for name in methods]
    screen = Console(markup=False, width=None if Console().is_terminal else 140)
    screen.print(_table(spec, names, plan, pace))
    total = spec.seeds * sum(hours(one, spec, pace) for one in plan)
    screen.print(
        f"{pace.note}{sizes.note} Draws that methods share are made once, so all of it takes at most {_time(total, pace)}."
    )
    transfers = getattr(plugins.lookup("engine", spec.engine.name).load(), "transfers", None)
    if transfers is not None:
        screen.print(scaling.told(spec, plan, pace, transfers(pace.numbers / 4)))


def spends(method: Method, options: Mapping[str, object]) -> Spending:
    """What a method says it uses; one that says nothing spends both budgets and takes one gradient of all rollouts."""
    told = getattr(method, "spends", None)
    return Spending() if told is None else told(options)


def stage(spec: RunSpec, name: str, used: Spending, sizes: Sizes) -> Stage:
    train, own = round(used.train * sizes.train), spec.evaluation
    each = (used.tests or own.samples + 1) + (own.bin_samples if name == evaluating.BASE else 0)
    if name in own.candidate_methods:
        each += own.samples * len(spec.search.kl_targets)
    closely = name in own.wide_methods and not used.tests
    more = max(0, own.wide_samples - own.samples) if closely else 0
    tests = sum(each * test + more * min(own.wide_problems, test) for test in sizes.tests)
    tests += own.samples * min(own.seen_problems, sizes.problems) if closely else 0
    return Stage(name, train, round(used.selection * spec.selection_total), tests, used.passes * train, used)


def upper_bound(spec: RunSpec, plugins: Plugins) -> int:
    """Rollouts of a run at most, were every problem asked for at hand."""
    methods = methods_of(spec, plugins)
    options = check_options(spec, methods)
    sizes = Sizes(
        spec.budget, spec.num_train_problems, (spec.evaluation.problems,) * max(1, len(spec.data.test)), 0, ""
    )
    return spec.seeds * sum(stage(spec, n, spends(m, options[n]), sizes).rollouts for n, m in methods.items())


def _sizes(spec: RunSpec, found: selecting.Selected) -> Sizes:
    problems = len(found.train[0])
    train = problems * (spec.budget // problems)
    note = (
        f" {problems} training problems take {train:,} of the {spec.budget:,} rollouts." if train < spec.budget else ""
    )
    return Sizes(train, problems, tuple(map(len, found.test.values())), found.max_tokens, note)


def _expected(spec: RunSpec, domain: Domain, names: Names) -> Sizes:
    """Of the problems where they are at hand, else of those that the spec asks for."""
    try:
        return _sizes(spec, selecting.select(domain, spec))
    except UsageError as error:
        note = f" The problems are not at hand ({str(error).partition(':')[0]}): counted as if all that are asked for were."
        tokens = spec.sampling.max_tokens or selecting.max_tokens(domain, names)
        return Sizes(spec.budget, spec.num_train_problems, (spec.evaluation.problems,) * len(names.test), tokens, note)


def _table(spec: RunSpec, names: Names, plan: Sequence[Stage], pace: Pace) -> Table:
    table = Table(title=f"{spec.domain} / {names}, model {spec.model}, {spec.seeds} seed(s)", title_justify="left")
    for name in (*HEAD, "minutes" if pace.measured else "GPU hours"):
        table.add_column(name, justify="left" if name == "method" else "right")
    for one in plan:
        counts = [str(spec.seeds * n) for n in (one.train, one.selection, one.evaluation)]
        tokens = [f"{spec.seeds * n:,.0f}" for n in (one.rollouts * pace.completion, one.graded * pace.trained)]
        spent = spec.seeds * hours(one, spec, pace)
        memory = pace.memory(gradient=one.graded > 0, optimizer=one.spends.optimizer) / 2**30
        table.add_row(one.name, *counts, *tokens, f"{memory:.1f}", f"{60 * spent if pace.measured else spent:.1f}")
    return table


def hours(one: Stage, spec: RunSpec, pace: Pace) -> float:
    """Of one seed. An optimizer steps in one process, whatever the number of workers."""
    alone = spec.num_workers if one.spends.optimizer and pace.measured else 1
    seconds = one.rollouts * pace.completion * pace.generating + alone * one.graded * pace.trained * pace.training
    return seconds / 3600


def _time(total: float, pace: Pace) -> str:
    return f"about {60 * total:.0f} minutes" if pace.measured else f"about {total:,.1f} GPU hours"
