"""The whole run, one way: select -> sample -> verify -> weigh -> direct -> step -> evaluate -> record.

Does: open a run folder, choose disjoint problems, let every method spend its budget seed by seed, evaluate, write
rows. Everything finished is on disk, so running a folder again continues it.
Doesn't: print (console.py) or draw (report).
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from harness import (
    admitting,
    checksums,
    config,
    directing,
    evaluating,
    events,
    leaderboard,
    mending,
    provenance,
    selecting,
    store,
)
from harness.budget import Cost
from harness.config import RunSpec
from harness.contracts import Displacement, Domain, Engine, Method
from harness.errors import NotFinite, Unmoved, UsageError
from harness.evaluating import Evaluation
from harness.leaderboard import Outcome, Row
from harness.lending import Lender
from harness.methods import check_options, methods_of, ordered
from harness.plugins import Plugins
from harness.run import Notify, Progress, Run, verifiers
from harness.stages import Stages
from harness.types import Contender, Direction, Policy, Score, Search, TrainStep


@store.record
@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """Scores on one test set, with what drawing them cost."""

    evaluation: Evaluation
    cost: Mapping[str, float]


@store.record
@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A method's result in one seed, as kept in scores.json. `cost` is without that of the tests.

    `seen` is its score on problems it trained on, for methods that are looked at closely.
    """

    status: str
    contender: Contender
    tests: Mapping[str, Tested]
    search: Search | None
    direction: Direction | None
    trained: tuple[TrainStep, ...]
    cost: Mapping[str, float]
    seen: Score | None = None

    @property
    def evaluation(self) -> Evaluation:
        """Scores on the first test set."""
        return next(iter(self.tests.values())).evaluation


def create(spec: RunSpec, *, out: Path, command: str) -> Path:
    """A new run folder with the spec and nothing else; raises UsageError when it exists."""
    store.make_folder(out)
    date = stamp()
    root = out / f"{date}-{spec.domain}-{spec.hash}"
    if root.exists():
        raise UsageError(f"{root} exists already; resume it with: harness resume {root}")
    open_folder(root, spec, command=command, date=date)
    return root


def stamp() -> str:
    """Now, in UTC, as run folders are named and dated."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")


def open_folder(root: Path, spec: RunSpec, *, command: str, date: str) -> None:
    """Make `root` a run folder in which nothing ran yet. spec.toml comes last: where it is, all is."""
    store.make_folder(root)
    checksums.begin(root)
    store.write_json(root / "command.json", {"command": command, "date": date, "layout": mending.LAYOUT})
    store.write_text(root / "spec.toml", config.to_toml(spec))


class Part(NamedTuple):
    """One method in one seed."""

    method: str
    seed: int

    def scores(self, root: Path) -> Path:
        """Where its result lies once it is finished."""
        return root / f"methods/{self.method}/{self.seed}/scores.json"


def parts(spec: RunSpec) -> list[Part]:
    """In the order in which a run in one process finishes them."""
    return [Part(name, seed) for seed in range(spec.seeds) for name in ordered(spec.methods)]


def execute(
    root: Path,
    plugins: Plugins,
    *,
    progress: Progress,
    workers: int = 0,
    shared: Path | None = None,
    ahead: Callable[[Run], None] | None = None,
) -> list[Row]:
    """Run or continue the folder. Returns its rows; raises HarnessError, UsageError or VerifierFailure.

    `shared` is the folder of draws that it shares with other runs. `ahead` may finish parts before they are met here.
    """
    spec = _spec(root, workers)
    methods = methods_of(spec, plugins)
    options = check_options(spec, methods)
    with opened(root, spec, plugins, progress=progress, shared=shared) as run:
        directing.require(methods, run.engine)
        manifest = provenance.write(run, plugins, methods)
        events.tell(plugins, root, "harness_run_started", run=root)
        if ahead is not None:
            ahead(run)
        finished: dict[str, list[Finished]] = {name: [] for name in methods}
        for part in parts(spec):
            finished[part.method].append(_finish(run, part, methods[part.method], options[part.method]))
        rows = rows_of(manifest, finished, run.engine.displacement)
    leaderboard.put(root / "leaderboard.csv", rows)
    events.tell(plugins, root, "harness_run_finished", run=root, rows=rows)
    return rows


def take_part(
    root: Path,
    plugins: Plugins,
    *,
    taken: Iterable[int],
    progress: Progress,
    workers: int,
    shared: Path,
    notify: Notify,
) -> None:
    """Finish the parts whose places `taken` gives; others are at the rest, and share draws through `shared`."""
    spec = _spec(root, workers)
    methods, every = methods_of(spec, plugins), parts(spec)
    options = check_options(spec, methods)
    with opened(root, spec, plugins, progress=progress, shared=shared, notify=notify) as run:
        for part in (every[place] for place in taken):
            _finish(run, part, methods[part.method], options[part.method])


def _spec(root: Path, workers: int) -> RunSpec:
    return config.load(None, file=root / "spec.toml", changes={"workers": workers or None}, sets=())


@contextmanager
def opened(
    root: Path,
    spec: RunSpec,
    plugins: Plugins,
    *,
    progress: Progress,
    shared: Path | None = None,
    notify: Notify | None = None,
) -> Iterator[Run]:
    """Problems selected, engine and verifier pool started; both are closed at the end.

    Finished stages are told to `notify`, else to the run's events and observers.
    """
    registration = plugins.lookup("domain", spec.domain)
    domain: Domain = registration.load()()
    problems = selecting.select(domain, spec)
    engine = open_engine(root, spec, plugins)
    pool = verifiers(engine, registration.target, workers=spec.num_workers)
    try:
        yield Run(
            root=root,
            spec=spec,
            engine=engine,
            pool=pool,
            problems=problems,
            progress=progress,
            notify=notify or functools.partial(events.stage_finished, plugins, root),
            lender=None if shared is None else Lender(shared, provenance.of_draws(spec, engine, registration, domain)),
        )
    finally:
        pool.close()
        engine.close()


def open_engine(root: Path, spec: RunSpec, plugins: Plugins) -> Engine:
    told = {"workers": spec.num_workers, "logprob_gap": spec.sampling.logprob_gap}
    options = {**config.to_dict(spec)["engine"], **told}
    return admitting.engine(lambda: plugins.lookup("engine", spec.engine.name).load()(spec.model, root, options))


def _finish(run: Run, part: Part, method: Method, options: Mapping[str, Any]) -> Finished:
    """Run and evaluate one method in one seed, or read its scores.json."""
    (name, seed), path = part, part.scores(run.root)
    if path.exists():
        done: Finished = store.read_json(path, Finished)
        return done
    stages = Stages(run, method=name, seed=seed, options=options)
    contender, tests, status = _scored(run, part, method, stages)
    seen, spent = evaluating.seen(run, contender, seed=seed, method=name)
    finished = Finished(
        status=status,
        contender=contender,
        tests=tests,
        search=stages.last_search,
        direction=stages.last_direction,
        trained=tuple(stages.trained),
        cost=stages.budget.spent.plus(spent)._asdict(),
        seen=seen,
    )
    if stages.last_search is not None:
        store.write_json(path.with_name("search.json"), stages.last_search)
    if stages.last_probe is not None:
        store.write_json(path.with_name("probe.json"), stages.last_probe)
    store.write_json(path, finished)
    for test, tested in tests.items():
        scores = {"pass@1": tested.evaluation.sampled.accuracy, "greedy": tested.evaluation.greedy.accuracy}
        run.notify("evaluate", {"method": name, "seed": seed, "status": status, "test": test, **scores})
    return finished


def _scored(run: Run, part: Part, method: Method, stages: Stages) -> tuple[Contender, dict[str, Tested], str]:
    """What the method hands in, its scores, and the status: where it comes to no end, of what it had before or of the base."""
    try:
        contender = method.run(stages)
        return contender, _tests(run, part, contender, stages.last_search), leaderboard.OK
    except Unmoved as reason:
        status, before = f"{reason.status}: {reason}", reason.before
        search = None if isinstance(reason, NotFinite) else stages.last_search
    if before is not None:
        with suppress(NotFinite):  # what it had before may be no better on other problems
            return before, _tests(run, part, before, search), status
    contender = Contender(policies=(run.base,))  # no direction, hence no step: left out, averages would flatter it
    return contender, _tests(run, part, contender, search), status


def _tests(run: Run, part: Part, contender: Contender, search: Search | None) -> dict[str, Tested]:
    """Scores on every test set, of each step of the search as well where the method's are looked at."""
    (name, seed), looked_at = part, part.method in run.spec.evaluation.candidate_methods
    among = [candidate.policy for candidate in search.candidates] if search is not None and looked_at else []
    return {
        test: Tested(evaluation=scores, cost=cost._asdict())
        for test, problems in run.problems.test.items()
        for scores, cost in [evaluating.evaluate(run, contender, problems, seed=seed, method=name, candidates=among)]
    }


def rows_of(
    manifest: Mapping[str, Any],
    finished: Mapping[str, Sequence[Finished]],
    displaced: Callable[[Policy], Displacement],
) -> list[Row]:
    """Rows of what each method has finished, seed by seed from the first one; methods without any have none.

    `manifest` is the run's, `displaced` tells how far a policy is from its base.
    """
    rows: list[Row] = []
    for test, data_hash in manifest["tests"].items():
        on = {**manifest["row"], "test_benchmark": test, "data_hash": data_hash}
        bases = [done.tests[test].evaluation for done in finished["base"]]
        for name, every in finished.items():
            shared = {**on, "method": name, "method_version": manifest["methods"][name]}
            own, pairs = [], []
            for seed, (done, base) in enumerate(zip(every, bases, strict=False)):
                outcome = _outcome(manifest["spec"], done, test, displaced)
                own.append(leaderboard.row_of(shared, outcome, base, seed=seed))
                pairs.append((base.sampled, done.tests[test].evaluation.sampled))
            rows += [*own, leaderboard.aggregate(own, pairs)] if own else []
    return rows


def _outcome(
    spec: Mapping[str, Any], done: Finished, test: str, displaced: Callable[[Policy], Displacement]
) -> Outcome:
    given = done.contender.temperature
    return Outcome(
        status=done.status,
        evaluation=done.tests[test].evaluation,
        search=done.search,
        direction=done.direction,
        displacement=displaced(done.contender.policies[0]),
        temperature=spec["sampling"]["temperature"] if given is None else given,
        samples=done.contender.n or spec["evaluation"]["samples"],
        cost=Cost(**done.cost).plus(Cost(**done.tests[test].cost)),  # type: ignore[arg-type]
        oracle=done.contender.combine == "oracle",
    )


def mark_done(root: Path) -> None:
    store.write_text(root / "DONE", "")


def discard_unstarted(root: Path) -> bool:
    """Remove a folder in which nothing ran yet, so that a mistake in the command leaves nothing behind."""
    own = [root / "spec.toml", root / "command.json", root / checksums.NAME]
    if sorted(root.iterdir()) != sorted(own):
        return False
    for path in own:
        path.unlink()
    root.rmdir()
    return True
