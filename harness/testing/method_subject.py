"""What the rules of a method look at: small runs of it on the tabular engine, watched from outside.

Where a method `needs` what the tabular engine lacks, it is run on the embedded model instead.

Does: run the method beside the base, straight, again, stopped and resumed, and where no group is live; keep what
the engine was asked for and what the run folder says.
Doesn't: tell whether the method is any good.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from harness import config, leaderboard, pipeline, store
from harness.config import RunSpec
from harness.pipeline import Finished
from harness.plugins import Plugins, Registration
from harness.testing.rules import loaded
from harness.testing.watching import StandIn, Watch, WatchedEngine, WatchedMethod


class Ground(NamedTuple):
    """Where a method is run, with which settings; `hopeless` are those under which no group is live there."""

    domain: str
    engine: str
    settings: tuple[str, ...]
    hopeless: tuple[str, ...]


TABULAR = Ground("tabular", "tabular", ("model=tabular",), ("model=tabular:.0000000001",))
EMBEDDED = Ground(
    "math", "hf", ("sampling.max_tokens=32",), ("rewards.wrong=1", "rewards.unparsed=1", "rewards.timeout=1")
)
SMALL = (
    "engine.shard_rollouts=128",
    "evaluation.problems=20",
    "evaluation.samples=2",
    "evaluation.wide_methods=[]",
    "evaluation.bin_samples=0",
    "evaluation.candidate_methods=[]",
    "search.kl_targets=[0.05, 0.2]",
    "search.problems=16",
    "search.samples=2",
)
BUDGETS = (512, 4096)  # the second for methods that find no signal in the first


class Ran(NamedTuple):
    """A finished run: its folder, the method's row, what scores.json keeps, and what was watched."""

    root: Path
    row: Mapping[str, str]
    finished: Finished
    watch: Watch


class MethodSubject:
    """A registered method under check."""

    def __init__(self, registration: Registration, plugins: Plugins) -> None:
        self.registration, self._plugins = registration, plugins
        self._folder = tempfile.TemporaryDirectory(prefix="harness-check-")
        self._count = 0
        self.budget = BUDGETS[0]

    def close(self) -> None:
        self._folder.cleanup()

    @property
    def name(self) -> str:
        return self.registration.name

    @cached_property
    def method(self) -> Any:
        return loaded(self.registration)()

    @cached_property
    def ground(self) -> Ground:
        engine = loaded(self._plugins.lookup("engine", TABULAR.engine))
        return TABULAR if all(hasattr(engine, name) for name in getattr(self.method, "needs", ())) else EMBEDDED

    @cached_property
    def straight(self) -> Ran:
        ran = self.run()
        if ran.row["status"].startswith("no signal"):
            self.budget = BUDGETS[1]
            ran = self.run()
        return ran

    @cached_property
    def splits(self) -> dict[str, set[str]]:
        """Problem ids by split, as the run drew them."""
        rows = store.read_lines(self.straight.root / "problems.jsonl")
        found: dict[str, set[str]] = {}
        for row in rows:
            found.setdefault(row["split"].split("/")[0], set()).add(row["problem"].id)
        return found

    def run(self, *, hopeless: bool = False, stop_at: int | None = None) -> Ran:
        """A whole run. With `stop_at` it is interrupted at that call of the engine and then resumed."""
        self._count += 1
        changes = {"methods": [self.name], "budget": self.budget, "workers": 1}
        ground = self.ground
        sets = (*SMALL, f"engine.name={ground.engine}", *ground.settings, *(ground.hopeless if hopeless else ()))
        spec = config.load(ground.domain, file=None, changes=changes, sets=sets)
        root = pipeline.create(spec, out=Path(self._folder.name) / str(self._count), command="harness check")
        watch = Watch(stop_at)
        try:
            rows = self._execute(root, watch)
        except KeyboardInterrupt:
            if stop_at is None or watch.stop_at is not None:
                raise
            rows = self._execute(root, watch)
        return self._ran(root, spec, rows, watch)

    def _execute(self, root: Path, watch: Watch) -> Sequence[Mapping[str, Any]]:
        return pipeline.execute(root, self._watched(watch), progress=lambda *_: None)

    def _ran(self, root: Path, spec: RunSpec, rows: Sequence[Mapping[str, Any]], watch: Watch) -> Ran:
        written = leaderboard.read_csv(root / "leaderboard.csv")
        row = next(row for row in written if row["method"] == self.name and row["seed"] == "0")
        return Ran(root, row, store.read_json(root / f"methods/{self.name}/0/scores.json"), watch)

    def _watched(self, watch: Watch) -> Plugins:
        """The same plugins, with engine and method replaced by what tells the watch."""
        engine = self._plugins.lookup("engine", self.ground.engine)

        def make_engine(*arguments: Any) -> WatchedEngine:
            return WatchedEngine(engine.load()(*arguments), watch)

        found = Plugins()
        found.registered = dict(self._plugins.registered)
        _replace(found, engine, make_engine)
        _replace(found, self.registration, lambda: WatchedMethod(self.registration.load()(), watch))
        return found


def _replace(plugins: Plugins, registration: Registration, made: Callable[..., Any]) -> None:
    own = {name: value for name, value in asdict(registration).items() if name != "made"}
    plugins.registered[registration.kind, registration.name] = StandIn(made=made, **own)
