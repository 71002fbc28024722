"""`harness eval`: what lm-eval says of the policies of a run, or of a model, as rows of the leaderboard.

Does: ask about the base and about every winner that is one policy, each policy once; pair gains by problem; put rows beside
the run's own, and all numbers of lm-eval into the folder's lm-eval/.
Doesn't: ask about methods that answer with several completions or with a prefix before the prompt: lm-eval asks a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from harness import config, leaderboard, pipeline, provenance, store
from harness.config import RunSpec
from harness.contracts import Engine
from harness.errors import UnknownName, UsageError
from harness.leaderboard import Row
from harness.lmeval import Answers, Asking, Examiner
from harness.methods import ordered
from harness.pipeline import Finished
from harness.plugins import Plugins
from harness.types import Policy

FOLDER = "lm-eval"
DOMAIN = "lm-eval"  # of rows of a model that no run made
BASE = "base"
Say = Callable[[str], None]
Found = dict[str, Answers]


def of_run(
    root: Path, asking: Asking, plugins: Plugins, *, methods: Sequence[str] = (), command: str, say: Say
) -> list[Row]:
    """The rows of the base and of the winners of `methods` (none given: of all), put into the run's leaderboard.csv.

    `say` hears of methods that lm-eval cannot be asked about. Raises UsageError where a task, method or engine will not do.
    """
    examiner = Examiner(asking)
    spec = config.load(None, file=root / "spec.toml", changes={"workers": 1}, sets=())
    engine = _with_transformers(pipeline.open_engine(root, spec, plugins), spec)
    try:
        found = _each(_finished(root, spec, methods), engine, examiner, say)
    finally:
        engine.close()
    for (method, seed), answers in found.items():
        _keep(root, answers, f"{method}-{seed}")
    known = {(r["method"], r["seed"]): r for r in leaderboard.of_engine(root / "leaderboard.csv", spec.engine.name)}
    rows = _rows(known, found, engine=examiner.name, command=command)
    leaderboard.put(root / "leaderboard.csv", rows)
    return rows


class Appraised(NamedTuple):
    """Rows, and the folder that they are in."""

    root: Path
    rows: list[Row]


def of_model(model: str, asking: Asking, plugins: Plugins, *, out: Path, command: str) -> Appraised:
    """A folder in `out` with rows of a model that no run made: its method is `base`, its domain `lm-eval`."""
    examiner = Examiner(asking)
    spec = config.load(DOMAIN, file=None, changes={"model": model, "workers": 1}, sets=())
    root = out / f"{pipeline.stamp()}-{DOMAIN}-{spec.hash}"
    engine = _with_transformers(pipeline.open_engine(root, spec, plugins), spec)
    try:
        answers, identity = _ask(engine, Policy(base=model), examiner), engine.identity()
    finally:
        engine.close()
    code = provenance.commit()
    row = {"run_id": root.name, "domain": DOMAIN, "model": model, "model_revision": identity["revision"],
           "method": BASE, "device": identity.get("device", ""), **code._asdict()}  # fmt: skip
    known = {(BASE, seed): {**row, "seed": seed} for seed in ("0", "all")}
    _keep(root, answers, BASE)
    rows = _rows(known, {(BASE, 0): answers}, engine=examiner.name, command=command)
    leaderboard.put(root / "leaderboard.csv", rows)
    return Appraised(root, rows)


def _with_transformers(engine: Engine, spec: RunSpec) -> Engine:
    if hasattr(engine, "transformers"):
        return engine
    engine.close()
    raise UsageError(
        f"engine {spec.engine.name} holds no transformers model, which lm-eval asks. Write the policy with: harness export "
        "RUN DIR --method NAME; then: harness eval DIR --tasks ..."
    )


def _finished(root: Path, spec: RunSpec, methods: Sequence[str]) -> dict[str, list[Finished]]:
    """Results by method, seed by seed, the base first."""
    every = ordered(spec.methods)
    for name in methods:
        if name not in every:
            raise UnknownName("method in this run", name, every)
    wanted = ordered(methods) if methods else every
    parts = [part for part in pipeline.parts(spec) if part.method in wanted]
    return {
        name: [store.read_json(part.scores(root), Finished) for part in parts if part.method == name] for name in wanted
    }


def _each(
    finished: Mapping[str, Sequence[Finished]], engine: Engine, examiner: Examiner, say: Say
) -> dict[tuple[str, int], Found]:
    """By method and seed; a policy that several of them handed in is asked once."""
    asked: dict[str, Found] = {}
    found: dict[tuple[str, int], Found] = {}
    for method, results in finished.items():
        try:
            policies = [_only(done) for done in results]
            for policy in policies:
                if policy.id not in asked:
                    say(f"{examiner.name}: {method}")
                    asked[policy.id] = _ask(engine, policy, examiner)
        except _Unaskable as why:
            say(f"{method} is left out: {why}")
            continue
        found.update({(method, seed): asked[policy.id] for seed, policy in enumerate(policies)})
    return found


class _Unaskable(UsageError):
    """lm-eval asks one model, as transformers has it."""


def _only(done: Finished) -> Policy:
    contender = done.contender
    if len(contender.policies) > 1 or contender.combine != "single":
        raise _Unaskable("its answer is made of several completions")
    if contender.prefix:
        raise _Unaskable("it puts words of its own before a prompt")
    return contender.policies[0]


def _ask(engine: Engine, policy: Policy, examiner: Examiner) -> Found:
    lend = engine.transformers  # type: ignore[attr-defined]
    try:
        lent = lend(policy)
    except UsageError as why:  # a steered policy
        raise _Unaskable(str(why)) from why
    with lent as loaded:
        return examiner.examine(loaded)


def _rows(
    known: Mapping[tuple[str, str], Row], found: Mapping[tuple[str, int], Found], *, engine: str, command: str
) -> list[Row]:
    """By task and method: a row of each seed, and that of all."""
    rows, methods = [], list(dict.fromkeys(method for method, _ in found))
    about = {"engine": engine, "command": command, "date": pipeline.stamp()}
    for task in found[BASE, 0]:
        for method in methods:
            seeds = [seed for name, seed in found if name == method]
            pairs = [(found[BASE, seed][task].score, found[method, seed][task].score) for seed in seeds]
            answers = found[method, 0][task]
            columns = {**about, "test_benchmark": task, "data_hash": answers.data_hash}
            named = [(str(seed), [pair]) for seed, pair in zip(seeds, pairs, strict=True)]
            for seed, own in (*named, ("all", pairs)):
                rows.append(leaderboard.row_from_outside(known[method, seed], own, greedy=answers.greedy, **columns))
    return rows


def _keep(root: Path, found: Found, whose: str) -> None:
    for task, answers in found.items():
        store.write_json(root / FOLDER / f"{task}-{whose}.json", answers._asdict())
